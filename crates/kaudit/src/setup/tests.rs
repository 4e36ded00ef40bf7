//! Every setup, as it is printed and as its own check sees it.

use std::net::Ipv4Addr;

use kaudit_policy::Preset;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};

use super::check::File;
use super::*;

const DISTRIBUTIONS: [Distribution; 6] = [
    Distribution::Kubeadm,
    Distribution::Kind,
    Distribution::K3s,
    Distribution::Rke2,
    Distribution::Talos,
    Distribution::Minikube,
];
const MODES: [Mode; 3] = [Mode::Webhook, Mode::Log, Mode::Both];

const METADATA: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n  - level: Metadata\n";

/// 2026-11-25.
const NOW: i64 = 1_795_600_000;

fn wish(distribution: Distribution, mode: Mode) -> Wish {
    Wish {
        distribution,
        mode,
        cluster: "prod-eu-1".to_owned(),
        instance: "cp-1".to_owned(),
        collector: mode
            .has_webhook()
            .then(|| Collector::parse("https://kaudit.example:7444").unwrap()),
        policy: METADATA.to_owned(),
        authority: None,
        client: Client::Unnamed,
        kubeadm_api: KubeadmApi::V1beta4,
    }
}

/// An authority's certificate, and a certificate and key for a client.
fn credentials() -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "cp-1");
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (issuer.pem(), certificate.pem(), key.serialize_pem())
}

#[test]
fn every_distribution_prints_what_is_known_to_work() {
    for distribution in DISTRIBUTIONS {
        for mode in MODES {
            let wish = wish(distribution, mode);
            let name = format!("{}-{}", distribution.as_str(), mode.as_str());
            insta::assert_snapshot!(name, as_text(&wish, &plan(&wish)));
        }
    }
}

#[test]
fn a_policy_with_responses_and_embedded_credentials_is_printed() {
    let mut wish = wish(Distribution::Talos, Mode::Webhook);
    wish.policy = METADATA.replace("Metadata", "RequestResponse");
    wish.authority = Some("the authority\n".to_owned());
    wish.client = Client::Token("s3cret".to_owned());
    insta::assert_snapshot!("talos-embedded", as_text(&wish, &plan(&wish)));
    wish.distribution = Distribution::Kubeadm;
    wish.kubeadm_api = KubeadmApi::V1beta3;
    insta::assert_snapshot!("kubeadm-v1beta3-embedded", as_text(&wish, &plan(&wish)));
}

#[test]
fn every_setup_passes_its_own_check() {
    let (authority, certificate, key) = credentials();
    let clients = [
        Client::Unnamed,
        Client::Certificate { certificate, key },
        Client::Token("abc".to_owned()),
    ];
    for distribution in DISTRIBUTIONS {
        for mode in MODES {
            let wish = wish(distribution, mode);
            for preset in Preset::ALL {
                passes(&Wish {
                    policy: preset.text().to_owned(),
                    ..wish.clone()
                });
            }
            for client in &clients {
                for authority in [None, Some(authority.clone())] {
                    for kubeadm_api in [KubeadmApi::V1beta4, KubeadmApi::V1beta3] {
                        passes(&Wish {
                            authority: authority.clone(),
                            client: client.clone(),
                            kubeadm_api,
                            ..wish.clone()
                        });
                    }
                }
            }
        }
    }
}

/// Each configuration of the API server is looked at beside the policy and the kubeconfig.
fn passes(wish: &Wish) {
    let setup = plan(wish);
    let is_shared = |piece: &&Piece| piece.file.contains("policy") || piece.file.contains("webhook");
    let shared: Vec<&Piece> = setup.pieces.iter().filter(is_shared).collect();
    let others = setup
        .pieces
        .iter()
        .filter(|piece| !is_shared(piece) && !piece.file.ends_with(".sh"));
    let mut sets: Vec<Vec<&Piece>> = others
        .map(|piece| shared.iter().copied().chain([piece]).collect())
        .collect();
    sets.push(shared);
    for set in sets.iter().filter(|set| !set.is_empty()) {
        let files: Vec<File<'_>> = set
            .iter()
            .map(|piece| File {
                name: &piece.file,
                text: &piece.content,
            })
            .collect();
        let findings = check::check(&files, NOW);
        assert!(
            findings.is_empty(),
            "{wish:?}\n{}",
            check::as_text(&files, &findings)
        );
    }
}

#[test]
fn a_kubeconfig_with_a_secret_is_a_secret_piece() {
    for distribution in DISTRIBUTIONS {
        let wish = Wish {
            client: Client::Token("s3cret".to_owned()),
            ..wish(distribution, Mode::Both)
        };
        let setup = plan(&wish);
        for piece in &setup.pieces {
            assert_eq!(
                piece.content.contains("s3cret"),
                piece.privacy == Privacy::Secret,
                "{distribution:?} {}",
                piece.file
            );
        }
    }
}

#[test]
fn a_paragraph_is_wrapped_behind_its_mark() {
    let text = "word ".repeat(40);
    let wrapped = comment("1. ", text.trim());
    assert!(wrapped.lines().all(|line| line.len() <= 100), "{wrapped}");
    assert!(
        wrapped.lines().nth(1).unwrap().starts_with("#    word"),
        "{wrapped}"
    );
}

#[test]
fn the_documented_example_is_what_is_printed() {
    let wish = Wish {
        cluster: "edge-7".to_owned(),
        instance: "server-1".to_owned(),
        ..wish(Distribution::K3s, Mode::Webhook)
    };
    let page = include_str!("../../../../docs/setup.md");
    assert!(page.contains(&as_text(&wish, &plan(&wish))));
}
