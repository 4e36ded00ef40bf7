//! Each kind of credentials, good and bad.

use http::Request;
use jiff::Timestamp;
use kaudit_event::Text;
use kaudit_tower::FrontProxyHeaders;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::credentials::Credentials;

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Signer {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn authority(&self) -> ClientAuthority {
        ClientAuthority::from_pem(self.pem.as_bytes()).unwrap()
    }

    fn sign(&self, name: &str, organization: &str) -> Bytes {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in [
            (DnType::CommonName, name),
            (DnType::OrganizationName, organization),
        ] {
            if !value.is_empty() {
                params
                    .distinguished_name
                    .push(kind, DnValue::Utf8String(value.to_owned()));
            }
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Bytes::copy_from_slice(certificate.der())
    }
}

fn identities(clients: Option<&Signer>, proxy: Option<(&Signer, &[&str])>) -> Identities {
    let user = UserInfo {
        username: Text::from_static("ann"),
        groups: Some(vec![Text::from_static("ops")]),
        ..UserInfo::default()
    };
    let credentials = Credentials::new([("good".to_owned(), user)]);
    let clock = Arc::new(|| Timestamp::from_second(1_800_000_000).unwrap());
    let state = State::new(clock, String::new(), CancellationToken::new(), credentials);
    Identities {
        state: Arc::new(state),
        client_authority: clients.map(Signer::authority),
        front_proxy: proxy.map(|(signer, names)| FrontProxy {
            authority: signer.authority(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            headers: FrontProxyHeaders::default(),
        }),
    }
}

fn find(identities: &Identities, headers: &[(&str, &str)], chain: &[Bytes]) -> Found {
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    parts.extensions.insert(ClientCertificates(chain.to_vec()));
    identities.find(&parts)
}

fn name(found: Found) -> String {
    match found {
        Found::User(user) => user.username.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_bearer_token_is_good_bad_or_absent() {
    let identities = identities(None, None);
    let with = |header: &str| name(find(&identities, &[("authorization", header)], &[]));
    assert_eq!(with("Bearer good"), "ann");
    assert_eq!(with("bearer good"), "ann");
    assert_eq!(with("Bearer wrong"), "Bad");
    assert_eq!(with("Bearer "), "Nothing");
    assert_eq!(with("Bearer  good"), "Nothing");
    assert_eq!(with("Basic good"), "Nothing");
    assert_eq!(name(find(&identities, &[], &[])), "Nothing");
}

#[test]
fn a_websocket_brings_its_token_among_its_protocols() {
    let identities = identities(None, None);
    let with = |token: &str, upgrade: &str| {
        let protocols = format!("v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{token}");
        let headers = [
            ("sec-websocket-protocol", protocols.as_str()),
            ("upgrade", upgrade),
        ];
        name(find(&identities, &headers, &[]))
    };
    assert_eq!(with("Z29vZA", "websocket"), "ann");
    assert_eq!(with("d3Jvbmc", "websocket"), "Bad");
    assert_eq!(with("Z29vZA", "h2c"), "Nothing");
}

#[test]
fn a_client_certificate_names_a_user_and_its_groups() {
    let signer = Signer::new();
    let identities = identities(Some(&signer), None);
    let Found::User(user) = find(&identities, &[], &[signer.sign("bob", "team")]) else {
        panic!("no user")
    };
    assert_eq!(user.username, "bob");
    assert_eq!(user.groups, Some(vec![Text::from_static("team")]));
    let (key, values) = &user.extra[0];
    assert_eq!(*key, "authentication.kubernetes.io/credential-id");
    let value = values.as_ref().unwrap()[0].to_string();
    assert_eq!(value.len(), "X509SHA256=".len() + 64, "{value}");
}

#[test]
fn a_certificate_of_another_authority_is_refused_unless_a_token_is_good() {
    let signer = Signer::new();
    let identities = identities(Some(&signer), None);
    let foreign = [Signer::new().sign("bob", "system:masters")];
    assert_eq!(name(find(&identities, &[], &foreign)), "Bad");
    assert_eq!(
        name(find(&identities, &[("authorization", "Bearer good")], &foreign)),
        "ann"
    );
}

#[test]
fn a_certificate_without_a_name_names_nobody() {
    let signer = Signer::new();
    let identities = identities(Some(&signer), None);
    assert_eq!(
        name(find(&identities, &[], &[signer.sign("", "team")])),
        "Nothing"
    );
}

const HEADERS: &[(&str, &str)] = &[
    ("x-remote-user", "carol"),
    ("x-remote-group", "a"),
    ("x-remote-group", "b"),
    ("x-remote-uid", "7"),
    ("x-remote-extra-example.com%2fscope", "read"),
    ("x-remote-extra-example.com%2fscope", "write"),
];

#[test]
fn a_front_proxy_tells_who_asks() {
    let (clients, proxy) = (Signer::new(), Signer::new());
    let identities = identities(Some(&clients), Some((&proxy, &["front"])));
    let Found::User(user) = find(&identities, HEADERS, &[proxy.sign("front", "")]) else {
        panic!("no user")
    };
    assert_eq!((&user.username, &user.uid), (&"carol".into(), &"7".into()));
    assert_eq!(user.groups.unwrap(), ["a", "b"].map(Text::from_static));
    assert_eq!(user.extra.len(), 1);
    assert_eq!(user.extra[0].0, "example.com/scope");
    assert_eq!(user.extra[0].1.as_ref().unwrap().len(), 2);
}

#[test]
fn nobody_but_the_front_proxy_tells_who_asks() {
    let (clients, proxy) = (Signer::new(), Signer::new());
    let identities = identities(Some(&clients), Some((&proxy, &["front"])));
    // No certificate, a client's, one of the proxy's authority under another name.
    assert_eq!(name(find(&identities, HEADERS, &[])), "Nothing");
    assert_eq!(
        name(find(&identities, HEADERS, &[clients.sign("front", "")])),
        "front"
    );
    assert_eq!(
        name(find(&identities, HEADERS, &[proxy.sign("other", "")])),
        "Bad"
    );
    assert_eq!(name(find(&identities, &[], &[proxy.sign("front", "")])), "Bad");
}
