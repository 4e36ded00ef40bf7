//! Certificates by name, and the oldest TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kaudit_listen::{ListenConfig, ServerTls, SniCertificate, TlsError, TlsOptions, TlsVersion};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, ProtocolVersion, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::fixture::Server;

/// Writes a certificate for names under a common name.
fn issue(folder: &Path, file: &str, common: &str, names: &[&str]) -> (PathBuf, PathBuf) {
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, common);
    let key = KeyPair::generate().unwrap();
    let paths = (
        folder.join(format!("{file}.crt")),
        folder.join(format!("{file}.key")),
    );
    std::fs::write(&paths.0, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&paths.1, key.serialize_pem()).unwrap();
    paths
}

/// Believes whatever certificate is shown.
#[derive(Debug)]
struct Believing(Arc<CryptoProvider>);

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The common name of the certificate that a client gets for a name, and the TLS that was spoken.
async fn shown(
    server: &Server,
    name: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<(String, ProtocolVersion)> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believing(provider)))
        .with_no_client_auth();
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (_, tls) = stream.get_ref();
    let shown = tls.peer_certificates().unwrap().first().unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(shown).unwrap();
    let common = leaf.subject().iter_common_name().next().unwrap();
    Ok((
        common.as_str().unwrap().to_owned(),
        tls.protocol_version().unwrap(),
    ))
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for_also_a_changed_one() {
    let folder = tempfile::tempdir().unwrap();
    let (crt, key) = issue(folder.path(), "default", "the default", &["default.example"]);
    let pair = |file: &str, common: &str, names: &[&str], given: &[&str]| {
        let (crt, key) = issue(folder.path(), file, common, names);
        SniCertificate::new(crt, key, given.iter().map(|name| (*name).to_owned()).collect())
    };
    let mut options = TlsOptions::default();
    options.sni = vec![
        pair(
            "own",
            "own.example",
            &["Other.Example", "192.0.2.1", "given.example"],
            &[],
        ),
        pair("wild", "the wild one", &["*.wild.example", "own.example"], &[]),
        pair(
            "given",
            "the given one",
            &["not.example"],
            &["given.example", "exact.wild.example"],
        ),
        pair(
            "late",
            "the late one",
            &["late.example"],
            &["given.example", "*.late.example"],
        ),
    ];
    let tls = ServerTls::with_options(&crt, &key, options).unwrap();
    let server = Server::start(ListenConfig::https("127.0.0.1:0".parse().unwrap(), tls.clone())).await;
    for (name, expected) in [
        ("own.example", "own.example"),
        ("other.example", "own.example"),
        ("a.wild.example", "the wild one"),
        ("exact.wild.example", "the given one"),
        ("given.example", "the given one"),
        ("a.late.example", "the late one"),
        ("late.example", "the default"),
        ("a.b.wild.example", "the default"),
        ("wild.example", "the default"),
        ("not.example", "the default"),
        ("default.example", "the default"),
        ("192.0.2.1", "the default"),
    ] {
        assert_eq!(
            shown(&server, name, rustls::ALL_VERSIONS).await.unwrap().0,
            expected,
            "{name}"
        );
    }
    assert!(!tls.reload().unwrap());
    issue(folder.path(), "wild", "a new one", &["*.new.example"]);
    assert!(tls.reload().unwrap());
    for (name, expected) in [("a.new.example", "a new one"), ("a.wild.example", "the default")] {
        assert_eq!(
            shown(&server, name, rustls::ALL_VERSIONS).await.unwrap().0,
            expected,
            "{name}"
        );
    }
    std::fs::write(folder.path().join("wild.crt"), "nothing").unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Pem { .. })));
    assert_eq!(
        shown(&server, "a.new.example", rustls::ALL_VERSIONS)
            .await
            .unwrap()
            .0,
        "a new one"
    );
    server.end().await;
}

#[test]
fn names_that_no_client_asks_for_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (crt, key) = issue(folder.path(), "default", "the default", &["192.0.2.1"]);
    let with = |names: &[&str]| {
        let mut options = TlsOptions::default();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        options.sni = vec![SniCertificate::new(crt.clone(), key.clone(), names)];
        ServerTls::with_options(&crt, &key, options)
    };
    assert!(matches!(with(&[]), Err(TlsError::Nameless { .. })));
    assert!(matches!(with(&["a.example", "192.0.2.1"]), Err(TlsError::Name { name }) if name == "192.0.2.1"));
    assert!(with(&["a.example"]).is_ok());
}

#[tokio::test]
async fn nothing_older_than_the_minimum_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let (crt, key) = issue(folder.path(), "default", "the default", &["default.example"]);
    let old: &[_] = &[&rustls::version::TLS12];
    for (min_version, speaks_old) in [(TlsVersion::Tls12, true), (TlsVersion::Tls13, false)] {
        let mut options = TlsOptions::default();
        options.min_version = min_version;
        let tls = ServerTls::with_options(&crt, &key, options).unwrap();
        let server = Server::start(ListenConfig::https("127.0.0.1:0".parse().unwrap(), tls)).await;
        let newest = shown(&server, "a.example", rustls::ALL_VERSIONS).await.unwrap();
        assert_eq!(newest.1, ProtocolVersion::TLSv1_3);
        assert_eq!(
            shown(&server, "a.example", old).await.is_ok(),
            speaks_old,
            "{min_version:?}"
        );
        server.end().await;
    }
}
