//! Server TLS whose files may change while it serves.

mod presented;
mod sni;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use presented::Presented;
pub use sni::SniCertificate;
use sni::{ByName, is_domain, names_of};

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
    /// A certificate for names has none that a client could ask for.
    #[error("the certificate in `{origin}` is for no domain name: give the names that clients ask for")]
    Nameless {
        /// The certificate's file.
        origin: String,
    },
    /// A name is none that a client could ask for.
    #[error(
        "`{name}` is no domain name, which alone clients ask for: write for example `audit.example.com` or `*.example.com`"
    )]
    Name {
        /// The name.
        name: String,
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

static TLS_12_AND_NEWER: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

static TLS_13_AND_NEWER: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The oldest TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are no others that can be spoken")]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// This and what is newer.
    fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => TLS_12_AND_NEWER,
            Self::Tls13 => TLS_13_AND_NEWER,
        }
    }
}

/// What a server's TLS is beside its certificate.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// Whether clients are asked for certificates.
    pub clients: ClientCertificates,
    /// The oldest TLS that is spoken.
    pub min_version: TlsVersion,
    /// Certificates for clients that ask for certain names; others get the server's own.
    pub sni: Vec<SniCertificate>,
}

/// Where certificate and key come from.
#[derive(Clone, Debug)]
enum Origin {
    Files { certificate: PathBuf, key: PathBuf },
    Bytes,
}

/// Serving certificates with their keys, TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`.
#[derive(Clone, Debug)]
pub struct ServerTls {
    origin: Origin,
    options: Arc<TlsOptions>,
    current: Arc<RwLock<Current>>,
}

/// What is in force.
#[derive(Debug)]
struct Current {
    content: Content,
    config: Arc<ServerConfig>,
}

/// The PEM texts of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PairText {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The PEM texts that a configuration is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    /// Of each of [`TlsOptions::sni`].
    sni: Vec<PairText>,
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
        let clients = clients.clone();
        Self::with_options(
            certificate,
            key,
            TlsOptions {
                clients,
                ..TlsOptions::default()
            },
        )
    }

    /// From PEM files, which [`ServerTls::reload`] reads again, and with options.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when a file cannot be read or used.
    pub fn with_options(certificate: &Path, key: &Path, options: TlsOptions) -> Result<Self, TlsError> {
        let origin = Origin::Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        Self::new(origin, read(certificate)?, read(key)?, options)
    }

    /// From PEM text.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when it cannot be used.
    pub fn from_pem(certificate: &[u8], key: &[u8], clients: &ClientCertificates) -> Result<Self, TlsError> {
        let options = TlsOptions {
            clients: clients.clone(),
            ..TlsOptions::default()
        };
        Self::new(Origin::Bytes, certificate.to_vec(), key.to_vec(), options)
    }

    fn new(
        origin: Origin,
        certificate: Vec<u8>,
        key: Vec<u8>,
        options: TlsOptions,
    ) -> Result<Self, TlsError> {
        let content = Content {
            certificate,
            key,
            sni: options.read_sni()?,
            authorities: options.clients.read()?,
        };
        let config = content.config(&origin, &options)?;
        Ok(Self {
            origin,
            options: Arc::new(options),
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
            sni: self.options.read_sni()?,
            authorities: self.options.clients.read()?,
        };
        if content == before {
            return Ok(false);
        }
        let config = content.config(&self.origin, &self.options)?;
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

impl TlsOptions {
    /// The certificates and keys for names now.
    fn read_sni(&self) -> Result<Vec<PairText>, TlsError> {
        let read_pair = |files: &SniCertificate| {
            Ok(PairText {
                certificate: read(&files.certificate)?,
                key: read(&files.key)?,
            })
        };
        self.sni.iter().map(read_pair).collect()
    }
}

impl Content {
    /// Which certificate is for whom.
    fn certificates(&self, origin: &Origin, sni: &[SniCertificate]) -> Result<ByName, TlsError> {
        let mut by_name = ByName::new(certified_key(&origin.name(), &self.certificate, &self.key)?);
        let mut of_their_own = Vec::new();
        for (files, PairText { certificate, key }) in sni.iter().zip(&self.sni) {
            let origin = files.certificate.display().to_string();
            let key = Arc::new(certified_key(&origin, certificate, key)?);
            if let Some(name) = files.names.iter().find(|name| !is_domain(name)) {
                return Err(TlsError::Name { name: name.clone() });
            }
            if files.names.is_empty() {
                let names = names_of(&key);
                if names.is_empty() {
                    return Err(TlsError::Nameless { origin });
                }
                of_their_own.push((names, key));
            } else {
                by_name.add(files.names.iter().map(String::as_str), &key);
            }
        }
        for (names, key) in &of_their_own {
            by_name.add(names.iter().map(String::as_str), key);
        }
        Ok(by_name)
    }

    fn config(&self, origin: &Origin, options: &TlsOptions) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificates = self.certificates(origin, &options.sni)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(options.min_version.and_newer())
            .map_err(|source| TlsError::Pair {
                origin: origin.name(),
                source,
            })?;
        let builder = match &self.authorities {
            None if matches!(options.clients, ClientCertificates::Presented) => {
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
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
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

fn certified_key(origin: &str, certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let pem = |what, reason: String| TlsError::Pem {
        what,
        origin: origin.to_owned(),
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
        origin: origin.to_owned(),
        source,
    })
}
