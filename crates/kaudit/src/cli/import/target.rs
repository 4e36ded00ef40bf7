//! Where imported events go: a data directory that this process takes, or a server.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use http::{Method, StatusCode};
use kaudit_collect::{Chunk, ImportIdentity, ImportPart, Importer, Intake, Kept, Name, NotKept, Source};

use super::super::say;
use super::super::server::Server;
use crate::api::{KeptPart, Known, parameter_of};
use crate::config::Config;
use crate::data::{DataDir, DataError};
use crate::exit::Failure;
use crate::keeping;

/// The first pause before a part is sent again; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// No pause is longer.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// A server that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_mins(5);

/// Where events go.
pub(super) enum Target<'a> {
    /// Into a data directory.
    Here {
        importer: Importer,
        source: Source,
        intake: Intake,
        /// Held until the end.
        _data: DataDir,
    },
    /// To another process.
    There { server: &'a Server, path: String },
}

impl<'a> Target<'a> {
    /// Takes the data directory.
    pub(super) fn here(
        folder: &Path,
        config: Option<&Path>,
        cluster: Name,
        instance: Name,
    ) -> Result<Self, Failure> {
        let config = config.map_or_else(|| Ok(Config::empty()), Config::read)?;
        let data = DataDir::take(folder).map_err(|error| {
            let is_in_use = matches!(error, DataError::InUse { .. });
            let mut error = anyhow!(error);
            if is_in_use {
                error = error.context(format!(
                    "another kaudit has `{}`: import through that one, with --server URL and --token-file {} in place of \
                     --data-dir",
                    folder.display(),
                    folder.join("token").display()
                ));
            }
            Failure::unreachable(error)
        })?;
        let intake = keeping::open(&data, &config, None)?;
        let importer = Importer::new(intake.clone());
        let source = importer.source(cluster, instance).map_err(Failure::unreachable)?;
        Ok(Self::Here {
            importer,
            source,
            intake,
            _data: data,
        })
    }

    /// Asks a server.
    pub(super) fn through(server: &'a Server, cluster: &Name, instance: &Name) -> Self {
        Self::There {
            server,
            path: format!("/api/v1/import?cluster={cluster}&instance={instance}"),
        }
    }

    /// Whether a file was imported whole before.
    pub(super) async fn knows(&self, identity: &ImportIdentity) -> Result<bool, Failure> {
        match self {
            Self::Here { importer, source, .. } => Ok(importer.knows(source, identity)),
            Self::There { server, path } => {
                let path = format!("{path}&identity={}", parameter_of(identity));
                let answer = asked(server, Method::GET, &path, Bytes::new()).await?;
                let known: Known = serde_json::from_slice(&answer).map_err(Failure::unreachable)?;
                Ok(known.is_known)
            }
        }
    }

    /// Keeps a part of a file; it is durable when this answers.
    pub(super) async fn keep(&self, chunk: Chunk) -> Result<Kept, Failure> {
        self.take(ImportPart { chunk, end: None }).await
    }

    /// Remembers that a file was imported whole.
    pub(super) async fn finish(&self, identity: ImportIdentity) -> Result<(), Failure> {
        let end = ImportPart {
            chunk: Chunk::default(),
            end: Some(identity),
        };
        self.take(end).await?;
        Ok(())
    }

    async fn take(&self, part: ImportPart) -> Result<Kept, Failure> {
        match self {
            Self::Here { importer, source, .. } => {
                let (importer, source) = (importer.clone(), source.clone());
                let now_micros = kaudit_collect::now_micros();
                let taken = tokio::task::spawn_blocking(move || match &part.end {
                    Some(identity) => importer.finish(&source, identity, now_micros),
                    None => importer.keep(&source, &part.chunk, now_micros),
                });
                let kept = async {
                    taken
                        .await
                        .map_err(Failure::unreachable)?
                        .map_err(failed)?
                        .durable()
                        .await
                        .map_err(failed)
                };
                kept.await
            }
            Self::There { server, path } => {
                let answer = asked(server, Method::POST, path, part.to_body().into()).await?;
                let KeptPart {
                    events,
                    duplicates,
                    quarantined,
                } = serde_json::from_slice(&answer).map_err(Failure::unreachable)?;
                Ok(Kept {
                    events,
                    duplicates,
                    quarantined,
                })
            }
        }
    }

    /// Closes what was opened. What was not answered yet is not kept.
    pub(super) async fn close(self) {
        if let Self::Here { intake, .. } = &self {
            let journal = intake.journal().clone();
            // A panic of the journal's thread was reported by itself.
            drop(tokio::task::spawn_blocking(move || journal.close()).await);
        }
    }
}

fn failed(error: NotKept) -> Failure {
    Failure::unreachable(error)
}

/// Asks until the server has room. A part that was kept although its answer was lost is recognised.
async fn asked(server: &Server, method: Method, path: &str, body: Bytes) -> Result<Vec<u8>, Failure> {
    let mut pause = FIRST_PAUSE;
    let mut waited = Duration::ZERO;
    loop {
        let answer = server.send(method.clone(), path, body.clone()).await?;
        let is_busy = matches!(
            answer.code,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        if answer.code == StatusCode::NOT_FOUND {
            return Err(Failure::usage(anyhow!(
                "the kaudit at {} has no journal to import into: it does not have role collect",
                answer.address
            )));
        }
        if !is_busy || waited >= PATIENCE {
            return server.good(answer);
        }
        if waited.is_zero() {
            say(format_args!(
                "{} takes nothing at the moment: waiting",
                answer.address
            ));
        }
        let wait = pause.max(answer.retry_after.unwrap_or_default()).min(LAST_PAUSE);
        tokio::time::sleep(wait).await;
        waited += wait;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
