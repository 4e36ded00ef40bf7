//! Server TLS whose files may change while it serves.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

/// The key in use, and the bytes it was made from.
#[derive(Debug)]
struct Current {
    key: RwLock<Arc<CertifiedKey>>,
    content: RwLock<(Vec<u8>, Vec<u8>)>,
}

impl rustls::server::ResolvesServerCert for Current {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.key.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
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
        let content = (read(certificate)?, read(key)?);
        let origin = Origin::Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        Self::new(origin, content, clients)
    }

    /// From PEM text.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when it cannot be used.
    pub fn from_pem(certificate: &[u8], key: &[u8], clients: &ClientCertificates) -> Result<Self, TlsError> {
        Self::new(Origin::Bytes, (certificate.to_vec(), key.to_vec()), clients)
    }

    fn new(
        origin: Origin,
        content: (Vec<u8>, Vec<u8>),
        clients: &ClientCertificates,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = certified_key(&origin, &content)?;
        let current = Arc::new(Current {
            key: RwLock::new(key),
            content: RwLock::new(content),
        });
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Pair {
                origin: origin.name(),
                source,
            })?;
        let builder = match clients {
            ClientCertificates::NotAsked => builder.with_no_client_auth(),
            ClientCertificates::Asked(authorities) => {
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
        let resolver: Arc<Current> = Arc::clone(&current);
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            origin,
            current,
            config: Arc::new(config),
        })
    }

    /// Reads the files again; connections from now on use what they hold. Returns whether anything
    /// changed. On an error the old certificate stays.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when a file cannot be read or used, for example between two writes of a rotation.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Origin::Files { certificate, key } = &self.origin else {
            return Ok(false);
        };
        let content = (read(certificate)?, read(key)?);
        if *self
            .current
            .content
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            == content
        {
            return Ok(false);
        }
        let key = certified_key(&self.origin, &content)?;
        *self.current.key.write().unwrap_or_else(PoisonError::into_inner) = key;
        *self
            .current
            .content
            .write()
            .unwrap_or_else(PoisonError::into_inner) = content;
        Ok(true)
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
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

fn certified_key(origin: &Origin, content: &(Vec<u8>, Vec<u8>)) -> Result<Arc<CertifiedKey>, TlsError> {
    let pem = |what, reason: String| TlsError::Pem {
        what,
        origin: origin.name(),
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(&content.0)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem("a certificate", error.to_string()))?;
    if chain.is_empty() {
        return Err(pem("a certificate", "no CERTIFICATE block".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&content.1)
        .map_err(|error| pem("the private key", error.to_string()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map(Arc::new)
        .map_err(|source| TlsError::Pair {
            origin: origin.name(),
            source,
        })
}
