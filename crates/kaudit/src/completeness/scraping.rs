//! An apiserver's `/metrics`, from itself or from a file.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use kaudit_collect::completeness::{MAX_SCRAPE_BYTES, ReadAt, UnixMicros};
use kaudit_dial::{Client, Cluster};
use tracing::warn;

use crate::config::collect::CollectCompleteness;

/// An answer that takes longer is not awaited: its moment would be known too badly.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Whoever writes a metrics file reads the counters at most so long before.
const FILE_AGE: Duration = Duration::from_secs(5);

/// A file that stays the same for so long beyond the interval is reported.
const UNCHANGED: Duration = Duration::from_mins(10);

/// A clock that shows the time as it was when this began, and is never set.
#[derive(Clone, Copy, Debug)]
pub(super) struct SteadyClock {
    began: Instant,
    at: UnixMicros,
}

impl SteadyClock {
    pub(super) fn start() -> Self {
        Self {
            began: Instant::now(),
            at: now(),
        }
    }

    pub(super) fn now(&self) -> UnixMicros {
        let passed = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        UnixMicros(self.at.0.saturating_add(passed))
    }
}

/// Where the counters are read.
#[derive(Debug)]
pub(super) enum Scraping {
    /// From the apiserver.
    Server(Client),
    /// From a file.
    File {
        path: PathBuf,
        seen: Mutex<Option<Seen>>,
    },
}

/// The file as it was read last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    written: SystemTime,
    at: Instant,
}

/// Counters in text, and when they were read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: Bytes,
    pub(super) at: ReadAt,
}

/// Why there are no new counters.
#[derive(Debug)]
pub(super) enum Unread {
    /// The file is the same as before.
    AsBefore,
    Failed(String),
}

impl Scraping {
    pub(super) fn of(entry: &CollectCompleteness) -> anyhow::Result<Self> {
        match (&entry.kubeconfig, &entry.metrics_file) {
            (Some(kubeconfig), None) => {
                let cluster = Cluster::from_kubeconfig(kubeconfig)?;
                for warning in &cluster.warnings {
                    warn!("{}: {warning}", kubeconfig.display());
                }
                let client = Client::new(&cluster).with_context(|| kubeconfig.display().to_string())?;
                Ok(Self::Server(client))
            }
            (None, Some(file)) => Ok(Self::File {
                path: file.clone(),
                seen: Mutex::default(),
            }),
            _ => Err(anyhow!("give either `kubeconfig` or `metricsFile`")),
        }
    }

    pub(super) async fn read(&self, interval: Duration, clock: &SteadyClock) -> Result<Answer, Unread> {
        match self {
            Self::Server(client) => tokio::time::timeout(TIMEOUT, from_server(client, clock))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
                .map_err(Unread::Failed),
            Self::File { path, seen } => {
                let before = *seen.lock().unwrap_or_else(PoisonError::into_inner);
                let (from, file) = (before, path.clone());
                let read =
                    tokio::task::spawn_blocking(move || from_file(&file, from.map(|seen| seen.written)));
                let read = read.await.unwrap_or_else(|panic| Err(panic.to_string()));
                match read.map_err(Unread::Failed)? {
                    Some((written, answer)) => {
                        let at = Instant::now();
                        *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen { written, at });
                        Ok(answer)
                    }
                    None if before.is_some_and(|seen| seen.at.elapsed() > interval * 3 + UNCHANGED) => Err(
                        Unread::Failed(format!("{} does not change any more", path.display())),
                    ),
                    None => Err(Unread::AsBefore),
                }
            }
        }
    }
}

async fn from_server(client: &Client, clock: &SteadyClock) -> Result<Answer, String> {
    let (asked, steady_asked) = (now(), clock.now());
    let answer = client
        .exchange(MAX_SCRAPE_BYTES, |_| {
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = http::Uri::from_static("/metrics");
            let text = http::HeaderValue::from_static("text/plain");
            request.headers_mut().insert(header::ACCEPT, text);
            request
        })
        .await
        .map_err(|error| chain(&error))?;
    let steady_answered = clock.now();
    if answer.status != http::StatusCode::OK {
        return Err(format!(
            "{} answers {}",
            client.server().authority(),
            answer.status
        ));
    }
    if answer.is_cut {
        return Err(format!("the metrics have more than {MAX_SCRAPE_BYTES} bytes"));
    }
    let at = match date(&answer.headers) {
        Some(date) => ReadAt::by_server(date, steady_asked, steady_answered),
        None => ReadAt::by_collector(asked, now()),
    };
    Ok(Answer {
        text: answer.body,
        at,
    })
}

/// The server's clock, to the second.
fn date(headers: &HeaderMap) -> Option<UnixMicros> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    let time = parser.parse_timestamp(text).ok()?;
    Some(UnixMicros(time.as_microsecond()))
}

/// The file, and when it was written; `None` when that is `before`.
fn from_file(path: &Path, before: Option<SystemTime>) -> Result<Option<(SystemTime, Answer)>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let there = std::fs::metadata(path).map_err(failed)?;
    let written = there.modified().map_err(failed)?;
    if before == Some(written) {
        return Ok(None);
    }
    if there.len() > MAX_SCRAPE_BYTES as u64 {
        return Err(format!("{} has {} bytes", path.display(), there.len()));
    }
    let text = std::fs::read(path).map_err(failed)?;
    // A number that is cut is another number.
    if text.last() != Some(&b'\n')
        || std::fs::metadata(path).and_then(|there| there.modified()).ok() != Some(written)
    {
        return Err(format!("{} is being written", path.display()));
    }
    let since = written.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    let age = i64::try_from(FILE_AGE.as_micros()).unwrap_or(i64::MAX);
    let at = ReadAt::by_collector(UnixMicros(at.saturating_sub(age)), UnixMicros(at));
    let text = text.into();
    Ok(Some((written, Answer { text, at })))
}

fn now() -> UnixMicros {
    UnixMicros(kaudit_collect::now_micros())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(date(&headers), None);
        headers.insert(header::DATE, "Fri, 02 Jan 2026 03:04:05 GMT".parse().unwrap());
        assert_eq!(date(&headers), Some(UnixMicros(1_767_323_045_000_000)));
        headers.insert(header::DATE, "yesterday".parse().unwrap());
        assert_eq!(date(&headers), None);
    }

    #[test]
    fn a_file_is_read_when_it_changes_and_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        assert!(from_file(&path, None).is_err());
        std::fs::write(&path, "apiserver_audit_event_total 12").unwrap();
        assert!(from_file(&path, None).unwrap_err().contains("being written"));
        std::fs::write(&path, "apiserver_audit_event_total 123\n").unwrap();
        let (written, answer) = from_file(&path, None).unwrap().unwrap();
        assert_eq!(answer.text.len(), 32);
        assert!(from_file(&path, Some(written)).unwrap().is_none());
    }
}
