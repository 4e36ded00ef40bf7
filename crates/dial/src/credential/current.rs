//! What holds now of credentials that change: files are read again, a plugin is run again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use http::HeaderValue;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use tracing::warn;

use super::{Credential, Identity};
use crate::connect::{Protocol, Tls};
use crate::exec::{ExecError, Printed};
use crate::kubeconfig::{KubeconfigError, read};
use crate::{ClientTls, ClientTlsError, Cluster, Trust};

/// Files are not looked at more often.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] KubeconfigError),
    /// The task that reads files was stopped.
    #[error("reading credentials was stopped")]
    Stopped,
    /// A token or a password has characters that no header takes.
    #[error("the token cannot stand in a header: it has line breaks or other control characters in it")]
    Token,
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] ClientTlsError),
    /// The plugin failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

/// What a request is made with.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) authorization: Option<HeaderValue>,
    /// `None` for plain HTTP.
    pub(crate) tls: Option<ClientTls>,
    /// Connections of another generation were made with another certificate.
    pub(crate) generation: u64,
}

/// Keeps credentials current.
#[derive(Debug)]
pub struct CurrentCredential {
    credential: Credential,
    identity: Option<Identity>,
    trust: Trust,
    is_https: bool,
    clock: fn() -> SystemTime,
    state: AsyncMutex<State>,
}

#[derive(Debug, Default)]
struct State {
    read: Option<Instant>,
    token: Option<Secret>,
    pair: Option<Pair>,
    /// The authorities that `tls` believes.
    trust: Trust,
    tls: Option<ClientTls>,
    generation: u64,
    printed: Option<Printed>,
}

#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Certificate and key as PEM.
#[derive(Clone, PartialEq, Eq)]
struct Pair(Vec<u8>, Vec<u8>);

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair")
    }
}

impl CurrentCredential {
    /// Credentials of `cluster`; none at all where it is not https. What can be checked without running
    /// anything is checked now.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] for certificates that cannot be used.
    pub fn new(cluster: &Cluster, clock: fn() -> SystemTime) -> Result<Self, CredentialError> {
        let is_https = cluster.server.is_https;
        let (credential, identity) = if is_https {
            (cluster.credential.clone(), cluster.identity.clone())
        } else {
            (Credential::None, None)
        };
        if is_https {
            let pair = identity.as_ref().map(read_pair).transpose()?;
            let identity = pair
                .as_ref()
                .map(|Pair(certificate, key)| (&**certificate, &**key));
            ClientTls::negotiating(&cluster.trust, identity)?;
        }
        Ok(Self {
            credential,
            identity,
            trust: cluster.trust.clone(),
            is_https,
            clock,
            state: AsyncMutex::default(),
        })
    }

    /// What holds now.
    pub(crate) async fn current(&self) -> Result<Current, CredentialError> {
        let mut state = self.state.lock().await;
        let is_due = state.read.is_none_or(|read| read.elapsed() >= READ_INTERVAL);
        if is_due {
            self.read_token(&mut state).await?;
        }
        if let Credential::Exec(plugin) = &self.credential {
            let now = (self.clock)();
            if state
                .printed
                .as_ref()
                .is_none_or(|printed| printed.has_expired(now))
            {
                state.printed = Some(plugin.run().await?);
            }
        }
        if self.is_https && (is_due || matches!(self.credential, Credential::Exec(_))) {
            self.update_tls(&mut state, is_due).await?;
        }
        if is_due {
            state.read = Some(Instant::now());
        }
        Ok(Current {
            authorization: self.authorization(&state)?,
            tls: state.tls.clone(),
            generation: state.generation,
        })
    }

    /// The `Authorization` header that holds now; `None` where credentials are a certificate, or none.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] when a file cannot be read or a plugin fails.
    pub async fn header(&self) -> Result<Option<HeaderValue>, CredentialError> {
        self.current().await.map(|current| current.authorization)
    }

    /// The server did not know who this is: what is remembered is not believed again.
    pub async fn refused(&self) {
        let mut state = self.state.lock().await;
        state.read = None;
        state.printed = None;
    }

    /// Keeps the last token that could be read.
    async fn read_token(&self, state: &mut State) -> Result<(), CredentialError> {
        let Credential::TokenFile { file, token } = &self.credential else {
            return Ok(());
        };
        match read_in_background(file.clone()).await {
            Ok(content) => {
                let content = String::from_utf8_lossy(&content).trim().to_owned();
                state.token = Some(Secret(content));
            }
            Err(error) => {
                if state.token.is_none() {
                    state.token = token.clone().map(Secret);
                }
                if state.token.is_none() {
                    return Err(error);
                }
                warn!(file = %file.display(), "the token file cannot be read, its last token is used");
            }
        }
        Ok(())
    }

    /// Makes new TLS parameters when the certificate or the authorities changed; a pair that does not go together, as in
    /// the middle of a rotation, leaves the old ones. Until files are due to be looked at again, only what a plugin
    /// printed can be new.
    async fn update_tls(&self, state: &mut State, is_due: bool) -> Result<(), CredentialError> {
        let printed = state.printed.as_ref().and_then(|printed| printed.pair.as_ref());
        let printed = printed.map(|(certificate, key)| Pair(certificate.clone(), key.clone()));
        let is_as_printed = self.identity.is_some() || state.pair == printed;
        if !is_due && state.tls.is_some() && is_as_printed {
            return Ok(());
        }
        let (trust, identity) = (self.trust.clone(), self.identity.clone());
        let read = tokio::task::spawn_blocking(move || {
            let pair = identity.as_ref().map(read_pair).transpose()?;
            Ok::<_, CredentialError>((trust.read()?, pair))
        });
        let (trust, pair) = match read.await.map_err(|_| CredentialError::Stopped)? {
            Ok(read) => read,
            Err(error) if state.tls.is_some() => {
                warn!(%error, "certificates cannot be read, the last ones are used");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let pair = pair.or(printed);
        if state.tls.is_some() && state.pair == pair && state.trust == trust {
            return Ok(());
        }
        let identity = pair
            .as_ref()
            .map(|Pair(certificate, key)| (&**certificate, &**key));
        match ClientTls::negotiating(&trust, identity) {
            Ok(tls) => {
                state.tls = Some(tls);
                state.generation += 1;
                state.pair = pair;
                state.trust = trust;
                Ok(())
            }
            Err(error) if state.tls.is_some() => {
                warn!(%error, "the new certificates cannot be used, the last ones are");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn authorization(&self, state: &State) -> Result<Option<HeaderValue>, CredentialError> {
        let text = match &self.credential {
            Credential::None => None,
            Credential::Token(token) => Some(format!("Bearer {token}")),
            Credential::TokenFile { .. } => state.token.as_ref().map(|token| format!("Bearer {}", token.0)),
            Credential::Basic { username, password } => {
                let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
                Some(format!("Basic {pair}"))
            }
            Credential::Exec(_) => state
                .printed
                .as_ref()
                .and_then(|printed| printed.token.as_ref())
                .map(|token| format!("Bearer {token}")),
        };
        text.map(|text| {
            let mut value = HeaderValue::try_from(text).map_err(|_| CredentialError::Token)?;
            value.set_sensitive(true);
            Ok(value)
        })
        .transpose()
    }
}

fn read_pair(identity: &Identity) -> Result<Pair, KubeconfigError> {
    Ok(Pair(
        identity.certificate.read()?.into_owned(),
        identity.key.read()?.into_owned(),
    ))
}

async fn read_in_background(file: PathBuf) -> Result<Vec<u8>, CredentialError> {
    tokio::task::spawn_blocking(move || read(Path::new(&file)))
        .await
        .map_err(|_| CredentialError::Stopped)?
        .map_err(CredentialError::Read)
}

/// TLS parameters of connections that show a certificate, or none, all their life. When its files change, or that of the
/// authorities that are believed, connections that are made from then on go by the new ones.
#[derive(Debug)]
pub(crate) struct ShownTls {
    /// `None` where connections show none.
    identity: Option<Identity>,
    trust: Trust,
    protocol: Protocol,
    now: Mutex<ShownNow>,
}

#[derive(Debug)]
struct ShownNow {
    pair: Option<Pair>,
    trust: Trust,
    tls: Tls,
}

impl ShownTls {
    pub(crate) fn new(
        cluster: &Cluster,
        with_identity: bool,
        protocol: Protocol,
    ) -> Result<Self, ClientTlsError> {
        let identity = cluster.identity.clone().filter(|_| with_identity);
        let pair = read_shown(identity.as_ref())?;
        let trust = cluster.trust.read()?;
        let tls = shown(&trust, pair.as_ref(), protocol)?;
        Ok(Self {
            identity,
            trust: cluster.trust.clone(),
            protocol,
            now: Mutex::new(ShownNow { pair, trust, tls }),
        })
    }

    fn now(&self) -> MutexGuard<'_, ShownNow> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> Tls {
        self.now().tls.clone()
    }

    /// Reads the files; whether they changed. What cannot be used leaves what there is.
    pub(crate) fn reload(&self) -> Result<bool, ClientTlsError> {
        let (pair, trust) = (read_shown(self.identity.as_ref())?, self.trust.read()?);
        let is_the_same = {
            let now = self.now();
            now.pair == pair && now.trust == trust
        };
        if is_the_same {
            return Ok(false);
        }
        let tls = shown(&trust, pair.as_ref(), self.protocol)?;
        *self.now() = ShownNow { pair, trust, tls };
        Ok(true)
    }
}

fn read_shown(identity: Option<&Identity>) -> Result<Option<Pair>, ClientTlsError> {
    let pair = identity.map(read_pair).transpose();
    pair.map_err(|error| ClientTlsError::Identity(error.to_string()))
}

fn shown(trust: &Trust, pair: Option<&Pair>, protocol: Protocol) -> Result<Tls, ClientTlsError> {
    let identity = pair.map(|Pair(certificate, key)| (&**certificate, &**key));
    let dedicated = ClientTls::new(trust, identity)?;
    Ok(Tls {
        pooled: match protocol {
            Protocol::Http1 => dedicated.clone(),
            Protocol::Auto => ClientTls::negotiating(trust, identity)?,
            Protocol::Http2 => ClientTls::demanding_http2(trust, identity)?,
        },
        dedicated,
    })
}
