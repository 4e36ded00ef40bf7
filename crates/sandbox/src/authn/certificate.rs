//! Users by certificate.
//!
//! Source: k8s.io/apiserver pkg/authentication/request/x509/x509.go.

use std::sync::Arc;

use kaudit_event::{Text, UserInfo};
use kaudit_tower::ClientCertificates;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// Why an authority cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the certificate authority cannot be used: {0}")]
pub struct AuthorityError(String);

/// An authority whose certificates say who somebody is.
#[derive(Debug)]
pub(crate) struct Authority(Arc<dyn ClientCertVerifier>);

impl Authority {
    /// From PEM text.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, AuthorityError> {
        let error = |error: &dyn std::fmt::Display| AuthorityError(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| error(&e))?;
            roots.add(certificate).map_err(|e| error(&e))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| error(&e))?;
        Ok(Self(verifier))
    }

    /// The leaf's bytes, if this authority stands behind it. The listener has proved that the peer has
    /// the key, but by any of the authorities it asks for.
    fn leaf<'c>(&self, certificates: &'c ClientCertificates) -> Option<&'c [u8]> {
        let (leaf, rest) = certificates.0.split_first()?;
        let chain: Vec<CertificateDer<'_>> = rest
            .iter()
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        self.0
            .verify_client_cert(&CertificateDer::from(leaf.as_ref()), &chain, UnixTime::now())
            .ok()?;
        Some(leaf)
    }

    /// The common name of a certificate of this authority.
    pub(crate) fn common_name(&self, certificates: &ClientCertificates) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(self.leaf(certificates)?).ok()?;
        common_name(certificate.subject())
    }

    /// The user of a certificate of this authority: CN is the name, each O a group.
    pub(crate) fn user(&self, certificates: &ClientCertificates) -> Option<UserInfo> {
        let leaf = self.leaf(certificates)?;
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let subject = certificate.subject();
        let name = common_name(subject).filter(|name| !name.is_empty())?;
        let groups = subject
            .iter_organization()
            .filter_map(|group| group.as_str().ok())
            .map(|group| Text::from(group.to_owned()))
            .collect();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let id = format!("X509SHA256={hex}");
        Some(UserInfo {
            username: name.into(),
            groups: Some(groups),
            extra: vec![(
                Text::from_static("authentication.kubernetes.io/credential-id"),
                Some(vec![id.into()]),
            )],
            ..UserInfo::default()
        })
    }
}

fn common_name(subject: &X509Name<'_>) -> Option<String> {
    subject
        .iter_common_name()
        .last()
        .and_then(|name| name.as_str().ok())
        .map(str::to_owned)
}
