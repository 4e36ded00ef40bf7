//! Receivers and tails, as a configuration asks for them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use kaudit_collect::{
    Access, Credential, Grant, Intake, LogFormat, Name, Origin, Pattern, Receiver, ReceiverOptions, Start,
    TailConfig, Tailing, TokenHash, Way,
};
use kaudit_listen::{ClientCertificates, Limits, ListenConfig, Listener, ServerTls};
use tracing::{info, warn};

use crate::config::Config;
use crate::config::collect::{CollectFile, CollectSource, CollectWebhook};
use crate::exit::Failure;
use crate::reload::Reloads;
use crate::sockets::Place;

/// A receiver that is bound and can serve.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) receiver: Receiver,
    pub(crate) listener: Listener,
    pub(crate) tls: ServerTls,
    pub(crate) access: WatchedAccess,
}

/// The rights that the configuration gives, and the token files that they depend on.
#[derive(Debug)]
pub(crate) struct WatchedAccess {
    sources: Vec<CollectSource>,
    current: Arc<ArcSwap<Access>>,
    /// The token files' contents in force, in the order of the sources.
    content: Vec<Option<Vec<u8>>>,
}

/// A source that brings nothing for so long is reported.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(3600);

/// A token file that is larger is none.
const MAX_TOKEN_FILE_BYTES: u64 = 1 << 16;

impl Receiving {
    /// Binds the socket; nothing is received before somebody serves.
    pub(crate) async fn bind(config: &CollectWebhook, place: Place, intake: Intake) -> Result<Self, Failure> {
        let missing = |what: &str, flag: &str, key: &str| {
            Failure::usage(anyhow!(
                "the receiver's {what} is missing: give {flag}, or `{key}` in the configuration file"
            ))
        };
        let certificate = config.tls.cert_file.as_deref().ok_or_else(|| {
            missing(
                "certificate",
                "--collect-tls-cert-file",
                "collect.webhook.tls.certFile",
            )
        })?;
        let key = config.tls.key_file.as_deref().ok_or_else(|| {
            missing(
                "key",
                "--collect-tls-private-key-file",
                "collect.webhook.tls.keyFile",
            )
        })?;
        let clients = match config.tls.client_ca_file.as_deref() {
            None => ClientCertificates::NotAsked,
            Some(file) => ClientCertificates::AskedByFile(file.to_owned()),
        };
        if matches!(clients, ClientCertificates::NotAsked)
            && let Some(source) = config
                .sources
                .iter()
                .find_map(|source| source.certificate_name.as_deref())
        {
            return Err(Failure::usage(anyhow!(
                "collect.webhook.sources names the certificate `{source}`, but no authority is known that would sign it: \
                 give --collect-client-ca-file, or `collect.webhook.tls.clientCAFile`"
            )));
        }
        if config.sources.is_empty() {
            return Err(Failure::usage(anyhow!(
                "collect.webhook.sources is empty, so nobody may bring events: name each sender, for example\n  \
                 sources: [{{cluster: prod-eu-1, instance: \"*\", certificateName: kube-apiserver-audit}}]"
            )));
        }
        let access = WatchedAccess::read(config.sources.clone())?;
        let tls = ServerTls::from_files(certificate, key, &clients).map_err(Failure::usage)?;
        let listening = place.listener(|address| {
            let mut listen = ListenConfig::https(address, tls.clone());
            listen.limits = Limits::of_receiver();
            listen
        });
        let listener = listening.await?;
        let mut options = ReceiverOptions::default();
        if let Some(memory) = config.memory {
            options.memory_bytes = usize::try_from(memory.0).unwrap_or(usize::MAX);
        }
        Ok(Self {
            receiver: Receiver::new(intake, Arc::clone(&access.current), options),
            listener,
            tls,
            access,
        })
    }
}

/// Begins to read the log files of the configuration.
pub(crate) fn tails(config: &Config, intake: &Intake) -> Result<Vec<Tailing>, Failure> {
    let files = config.collect.files.iter().enumerate();
    files
        .map(|(number, file)| {
            let place = format!("collect.files[{number}]");
            let usage = |error: anyhow::Error| Failure::usage(error.context(place.clone()));
            let cluster = file.cluster.as_deref().or(config.cluster.as_deref());
            let cluster = cluster.ok_or_else(|| {
                usage(anyhow!(
                    "the cluster's name is missing: give it here, or `cluster` for all, or --cluster"
                ))
            })?;
            let origin = Origin {
                cluster: name(cluster).map_err(usage)?,
                instance: name(&file.instance).map_err(usage)?,
                transport: Way::File,
                path: file.path.clone(),
            };
            let tail = tail_config(file).map_err(usage)?;
            let source = intake.source(&origin).map_err(|error| usage(error.into()))?;
            Tailing::start(intake.clone(), source, tail).map_err(|error| usage(error.into()))
        })
        .collect()
}

fn name(text: &str) -> anyhow::Result<Name> {
    Ok(text.parse()?)
}

fn tail_config(file: &CollectFile) -> anyhow::Result<TailConfig> {
    let mut tail = TailConfig::new(file.path.clone());
    tail.start = match file.start.as_deref() {
        None | Some("beginning") => Start::Beginning,
        Some("end") => Start::End,
        Some(time) => {
            let time: jiff::Timestamp = time.parse().map_err(|_| {
                anyhow!(
                    "start `{time}` is none of `beginning`, `end` and a time such as `2026-01-02T15:04:05Z`"
                )
            })?;
            Start::Since(time.into())
        }
    };
    tail.format = match file.format.as_deref() {
        None | Some("auto") => LogFormat::Auto,
        Some("json") => LogFormat::Json,
        Some("cri") => LogFormat::Cri,
        Some(other) => return Err(anyhow!("format `{other}` is none of `auto`, `json` and `cri`")),
    };
    tail.stale_after = file.stale_after.map_or(STALE_AFTER, |time| time.0);
    Ok(tail)
}

impl WatchedAccess {
    /// Reads the token files.
    fn read(sources: Vec<CollectSource>) -> Result<Self, Failure> {
        let (grants, content) = grants(&sources)?;
        Ok(Self {
            sources,
            current: Arc::new(ArcSwap::from_pointee(Access::new(grants))),
            content,
        })
    }

    /// Puts changed token files in force. A file that holds no token is reported; the old ones stay.
    pub(crate) fn look(&mut self, reloads: &Reloads) {
        match grants(&self.sources) {
            Ok((_, content)) if content == self.content => {}
            Ok((grants, content)) => {
                self.content = content;
                self.current.store(Arc::new(Access::new(grants)));
                info!("new tokens of senders are in force");
                reloads.tokens(true);
            }
            Err(problem) => {
                if !self.content.is_empty() {
                    warn!(error = %problem, "cannot use the changed token of a sender: the old ones stay in force");
                    reloads.tokens(false);
                }
                // Reported once; the next good content is a change again.
                self.content.clear();
            }
        }
    }
}

type Contents = Vec<Option<Vec<u8>>>;

fn grants(sources: &[CollectSource]) -> Result<(Vec<Grant>, Contents), Failure> {
    let mut contents = Vec::with_capacity(sources.len());
    let mut grants = Vec::with_capacity(sources.len());
    for (number, source) in sources.iter().enumerate() {
        let place = format!("collect.webhook.sources[{number}]");
        let pattern = |key: &str, text: &str| {
            text.parse::<Pattern>()
                .map_err(|error| Failure::usage(anyhow!("{place}.{key}: {error}")))
        };
        let cluster = pattern("cluster", &source.cluster)?;
        let instance = pattern("instance", source.instance.as_deref().unwrap_or("*"))?;
        let (credential, content) = match (&source.certificate_name, &source.token_file) {
            (Some(name), None) => (Credential::CertificateName(name.clone()), None),
            (None, Some(file)) => {
                let content = read_token(file)?;
                let hash = TokenHash::of(&content)
                    .with_context(|| format!("{place}.tokenFile `{}`", file.display()))
                    .map_err(Failure::usage)?;
                (Credential::Token(hash), Some(content))
            }
            _ => {
                return Err(Failure::usage(anyhow!(
                    "{place}: give either `certificateName` or `tokenFile`"
                )));
            }
        };
        contents.push(content);
        grants.push(Grant {
            cluster,
            instance,
            credential,
        });
    }
    Ok((grants, contents))
}

fn read_token(file: &PathBuf) -> Result<Vec<u8>, Failure> {
    let cannot = || format!("cannot read the token file `{}`", file.display());
    let length = std::fs::metadata(file)
        .with_context(cannot)
        .map_err(Failure::usage)?
        .len();
    if length > MAX_TOKEN_FILE_BYTES {
        return Err(Failure::usage(anyhow!(
            "`{}` is no token file: it has {length} bytes",
            file.display()
        )));
    }
    std::fs::read(file).with_context(cannot).map_err(Failure::usage)
}
