//! Client TLS.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::Pem;

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "these three")]
pub enum Trust {
    /// Those that the public authorities signed.
    #[default]
    Public,
    /// Those that these authorities signed.
    Authorities(Pem),
    /// Anybody's: the server is not authenticated.
    Anybody,
}

impl Trust {
    /// What it is now: without files, which are read.
    ///
    /// # Errors
    ///
    /// [`ClientTlsError::Authorities`] when the file cannot be read.
    pub(crate) fn read(&self) -> Result<Self, ClientTlsError> {
        match self {
            Self::Public => Ok(Self::Public),
            Self::Anybody => Ok(Self::Anybody),
            Self::Authorities(pem) => match pem.read() {
                Ok(pem) => Ok(Self::Authorities(Pem::Inline(pem.into_owned()))),
                Err(error) => Err(ClientTlsError::Authorities(error.to_string())),
            },
        }
    }
}

/// Why client TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientTlsError {
    /// The authorities are not PEM certificates, or cannot be read.
    #[error("the certificate authority cannot be used: {0}")]
    Authorities(String),
    /// The client's own certificate or key is not PEM, or they do not go together.
    #[error("the client certificate cannot be used: {0}")]
    Identity(String),
    /// The library refuses the parameters.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// A client's TLS parameters, TLS 1.2 and 1.3.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Parameters that believe `trust`; `identity` is the client's own certificate chain and key, PEM.
    ///
    /// # Errors
    ///
    /// [`ClientTlsError`] when PEM text cannot be used.
    pub fn new(trust: &Trust, identity: Option<(&[u8], &[u8])>) -> Result<Self, ClientTlsError> {
        Self::offering(&[b"http/1.1"], trust, identity)
    }

    /// The same for connections that take HTTP/2 where the server speaks it.
    ///
    /// # Errors
    ///
    /// As [`ClientTls::new`].
    pub fn negotiating(trust: &Trust, identity: Option<(&[u8], &[u8])>) -> Result<Self, ClientTlsError> {
        Self::offering(&[b"h2", b"http/1.1"], trust, identity)
    }

    /// The same for connections that speak HTTP/2 and nothing else.
    pub(crate) fn demanding_http2(
        trust: &Trust,
        identity: Option<(&[u8], &[u8])>,
    ) -> Result<Self, ClientTlsError> {
        Self::offering(&[b"h2"], trust, identity)
    }

    fn offering(
        protocols: &[&[u8]],
        trust: &Trust,
        identity: Option<(&[u8], &[u8])>,
    ) -> Result<Self, ClientTlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match trust {
            Trust::Public => builder.with_root_certificates(RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            }),
            Trust::Authorities(pem) => {
                let pem = pem
                    .read()
                    .map_err(|error| ClientTlsError::Authorities(error.to_string()))?;
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate =
                        certificate.map_err(|error| ClientTlsError::Authorities(error.to_string()))?;
                    roots.add(certificate)?;
                }
                if roots.is_empty() {
                    return Err(ClientTlsError::Authorities("no CERTIFICATE block".to_owned()));
                }
                builder.with_root_certificates(roots)
            }
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(BelieveAnybody(provider))),
        };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let identity = |error: String| ClientTlsError::Identity(error);
                let chain = CertificateDer::pem_slice_iter(certificate)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| identity(error.to_string()))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| identity(error.to_string()))?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

/// `insecure-skip-tls-verify`: signatures are checked, certificates are not.
#[derive(Debug)]
struct BelieveAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnybody {
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
