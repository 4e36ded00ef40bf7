//! Client certificates: whose word is believed, and whom they name.
//!
//! Source: k8s.io/apiserver pkg/authentication/request/x509/x509.go.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kaudit_event::{Text, UserInfo};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The part of a subject that is the user's uid.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// The key under which a user's extra says which certificate was shown.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The text is not PEM.
    #[error("the certificate authorities are not PEM text")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// A certificate is none that can sign.
    #[error("a certificate authority cannot be used")]
    Certificate(#[source] rustls::Error),
    /// The list of revoked certificates is not PEM.
    #[error("the certificate revocation lists are not PEM text")]
    RevocationPem(#[source] rustls_pki_types::pem::Error),
    /// There is no revocation list in the text.
    #[error("there is no `X509 CRL` block in the certificate revocation lists")]
    NoRevocationList,
    /// There is no certificate, or none to verify with, or a revocation list cannot be read.
    #[error("the certificate authorities make no verifier")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// Authorities whose client certificates are believed; cheap to clone.
#[derive(Clone)]
pub struct ClientAuthority(Arc<dyn ClientCertVerifier>);

impl fmt::Debug for ClientAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthority").finish_non_exhaustive()
    }
}

impl ClientAuthority {
    /// The authorities in a PEM text.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] for a text without usable certificates.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AuthorityError> {
        Self::new(pem, Vec::new())
    }

    /// The authorities in a PEM text, but for the certificates that they revoked: `lists` is PEM as well.
    ///
    /// Certificates of an authority that gave no list are not known to be revoked; a list holds beyond the
    /// time at which its authority meant to give a newer one.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] for texts without usable certificates or lists.
    pub fn with_revocation(pem: &[u8], lists: &[u8]) -> Result<Self, AuthorityError> {
        let lists = CertificateRevocationListDer::pem_slice_iter(lists)
            .collect::<Result<Vec<_>, _>>()
            .map_err(AuthorityError::RevocationPem)?;
        if lists.is_empty() {
            return Err(AuthorityError::NoRevocationList);
        }
        Self::new(pem, lists)
    }

    fn new(pem: &[u8], lists: Vec<CertificateRevocationListDer<'static>>) -> Result<Self, AuthorityError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots
                .add(certificate.map_err(AuthorityError::Pem)?)
                .map_err(AuthorityError::Certificate)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(lists)
            .allow_unknown_revocation_status()
            .build()
            .map_err(AuthorityError::Verifier)?;
        Ok(Self(verifier))
    }

    /// Whether a chain in DER, leaf first, leads to these authorities at `now` and is not revoked.
    #[must_use]
    pub fn signed(&self, chain: &[Bytes], now: SystemTime) -> bool {
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let now = UnixTime::since_unix_epoch(since_epoch);
        let chain: Vec<CertificateDer<'_>> = chain
            .iter()
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        chain
            .split_first()
            .is_some_and(|(leaf, rest)| self.0.verify_client_cert(leaf, rest, now).is_ok())
    }
}

/// The user that a certificate in DER names; nobody without a common name.
///
/// The common name is the user, organizations are groups, and the certificate's SHA-256 is in `extra`.
#[must_use]
pub fn certificate_user(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    // Of several common names Go keeps the last.
    let name = subject.iter_common_name().last()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let owned = |text: &str| Text::copy_from_slice(text.as_bytes());
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .map(owned)
        .collect();
    let uid = subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == UID)
        .find_map(|attribute| attribute.as_str().ok())
        .map(owned)
        .unwrap_or_default();
    Some(UserInfo {
        username: owned(name),
        uid,
        groups: Some(groups),
        extra: vec![credential_id(der)],
    })
}

fn credential_id(der: &[u8]) -> (Text, Option<Vec<Text>>) {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut value = String::from("X509SHA256=");
    for byte in digest.as_ref() {
        for nibble in [byte >> 4, byte & 15] {
            value.extend(char::from_digit(nibble.into(), 16));
        }
    }
    (Text::from_static(CREDENTIAL_ID), Some(vec![Text::from(value)]))
}

#[cfg(test)]
mod tests;
