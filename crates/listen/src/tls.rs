//! Server TLS whose files may change while it serves.

mod presented;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use presented::Presented;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not PEM, or holds nothing of what is needed.
    #[error("{what} is not in `{origin}`: {reason}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// The file, or a word for bytes that came another way.
        origin: String,
        /// The parser's words.
        reason: String,
    },
    /// Certificate and key do not go together, or the key is of a kind that is not supported.
    #[error("the certificate and key in `{origin}` cannot be used")]
    Pair {
        /// The certificate's file, or a word for bytes that came another way.
        origin: String,
        /// Why.
        source: rustls::Error,
    },
    /// The client authority cannot be used.
    #[error("the client certificate authority cannot be used: {0}")]
    ClientAuthority(String),
}

/// Whether clients are asked for certificates.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_enums, reason = "asked or not")]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    NotAsked,
    /// They are asked, not required; one that is shown must be signed by these authorities (PEM).
    Asked(Vec<u8>),
    /// The same, by the authorities in a PEM file, which [`ServerTls::reload`] reads again.
    AskedByFile(PathBuf),
    /// They are asked, not required, and one that is shown is taken whoever signed it: that the peer has
    /// its key is all that is known of it, and whoever believes what it says has to verify it.
    Presented,
}

/// Where certificate and key come from.
#[derive(Clone, Debug)]
enum Origin {
    Files { certificate: PathBuf, key: PathBuf },
    Bytes,
}

/// A serving certificate with its key, TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`.
#[derive(Clone, Debug)]
pub struct ServerTls {
    origin: Origin,
    clients: ClientCertificates,
    current: Arc<RwLock<Current>>,
}

/// What is in force.
#[derive(Debug)]
struct Current {
    content: Content,
    config: Arc<ServerConfig>,
}

/// The PEM texts that a configuration is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    /// Of those who sign clients' certificates, where clients are asked for them.
    authorities: Option<Vec<u8>>,
}

impl ServerTls {
    /// From PEM files, which [`ServerTls::reload`] reads again.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when a file cannot be read or used.
    pub fn from_files(
        certificate: &Path,
        key: &Path,
        clients: &ClientCertificates,
    ) -> Result<Self, TlsError> {
        let origin = Origin::Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        Self::new(origin, read(certificate)?, read(key)?, clients)
    }

    /// From PEM text.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when it cannot be used.
    pub fn from_pem(certificate: &[u8], key: &[u8], clients: &ClientCertificates) -> Result<Self, TlsError> {
        Self::new(Origin::Bytes, certificate.to_vec(), key.to_vec(), clients)
    }

    fn new(
        origin: Origin,
        certificate: Vec<u8>,
        key: Vec<u8>,
        clients: &ClientCertificates,
    ) -> Result<Self, TlsError> {
        let content = Content {
            certificate,
            key,
            authorities: clients.read()?,
        };
        let config = content.config(&origin, clients)?;
        Ok(Self {
            origin,
            clients: clients.clone(),
            current: Arc::new(RwLock::new(Current { content, config })),
        })
    }

    /// Reads the files again; connections from now on use what they hold, and no session of before is
    /// resumed. Returns whether anything changed. On an error what was in force stays.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when a file cannot be read or used, for example between two writes of a rotation.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let before = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.content.clone()
        };
        let (certificate, key) = match &self.origin {
            Origin::Files { certificate, key } => (read(certificate)?, read(key)?),
            Origin::Bytes => (before.certificate.clone(), before.key.clone()),
        };
        let content = Content {
            certificate,
            key,
            authorities: self.clients.read()?,
        };
        if content == before {
            return Ok(false);
        }
        let config = content.config(&self.origin, &self.clients)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { content, config };
        Ok(true)
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.config)
    }
}

impl ClientCertificates {
    /// The authorities now.
    fn read(&self) -> Result<Option<Vec<u8>>, TlsError> {
        match self {
            Self::NotAsked | Self::Presented => Ok(None),
            Self::Asked(authorities) => Ok(Some(authorities.clone())),
            Self::AskedByFile(file) => read(file).map(Some),
        }
    }
}

impl Content {
    fn config(&self, origin: &Origin, clients: &ClientCertificates) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = certified_key(origin, &self.certificate, &self.key)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Pair {
                origin: origin.name(),
                source,
            })?;
        let builder = match &self.authorities {
            None if matches!(clients, ClientCertificates::Presented) => {
                builder.with_client_cert_verifier(Arc::new(Presented(provider)))
            }
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(authorities) {
                    let certificate =
                        certificate.map_err(|error| TlsError::ClientAuthority(error.to_string()))?;
                    roots
                        .add(certificate)
                        .map_err(|error| TlsError::ClientAuthority(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsError::ClientAuthority(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Origin {
    fn name(&self) -> String {
        match self {
            Self::Files { certificate, .. } => certificate.display().to_string(),
            Self::Bytes => "the given PEM text".to_owned(),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn certified_key(origin: &Origin, certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let pem = |what, reason: String| TlsError::Pem {
        what,
        origin: origin.name(),
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem("a certificate", error.to_string()))?;
    if chain.is_empty() {
        return Err(pem("a certificate", "no CERTIFICATE block".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| pem("the private key", error.to_string()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|source| TlsError::Pair {
        origin: origin.name(),
        source,
    })
}
