//! Sends this kaudit's journal to another one.
//!
//! A holding cursor says how far it came: what was not taken yet stays in the journal, whose bound decides how
//! long an outage it holds. One request is under way at a time, so records arrive in order; the next one is
//! prepared meanwhile. The cursor moves after the other side said that all is durable there, so a lost answer
//! means that records are sent again, and are known there.

mod outgoing;
pub(crate) mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use kaudit_dial::{Client, Cluster, CredentialError};
use kaudit_journal::{Cursor, CursorError, Hold, Journal, Seq};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::settler::with_cause;
use crate::source::Name;
use outgoing::{Outgoing, Outlet};

/// The cursor's name.
const CURSOR: &str = "forward";

/// The cursor is written at most so often.
const ADVANCE_INTERVAL: Duration = Duration::from_secs(1);

/// A wait that the other side asks for is cut to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// So much of an answer is read.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// A failure that lasts is logged so often.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How records are sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ForwardOptions {
    /// Tells this kaudit from others that send to the same one; random, made once and kept with the journal.
    pub edge: Name,
    /// Records of a request.
    pub max_records: u32,
    /// Bytes of a request's records; one larger record goes alone.
    pub max_bytes: usize,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// Time of a request.
    pub timeout: Duration,
    /// The wait after the first failure; each further one is twice as long.
    pub initial_backoff: Duration,
    /// The longest wait, unless the other side asks for a longer one.
    pub max_backoff: Duration,
    /// A number from 0 up to 1, new each time: how much of half a wait is left out, so that not all edges come
    /// back at once.
    pub jitter: fn() -> f64,
}

impl ForwardOptions {
    /// What suits most, for the edge of this name.
    #[must_use]
    pub fn new(edge: Name) -> Self {
        Self {
            edge,
            max_records: 1000,
            max_bytes: 1 << 20,
            gzip: true,
            timeout: Duration::from_secs(75),
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
            jitter: clock::jitter,
        }
    }
}

/// Why nothing can be forwarded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The credentials cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The cursor cannot be had.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The server's path cannot be sent.
    #[error("the path of `{0}` cannot be sent")]
    Path(String),
}

/// What forwarding does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardState {
    /// It does not run.
    #[default]
    Stopped,
    /// Everything was taken.
    CaughtUp,
    /// Records are on their way.
    Sending,
    /// The other side cannot be reached or asked to come later; it is tried again.
    Waiting,
    /// The other side does not let this one in, or does not understand it. It is tried again, and nothing is
    /// lost meanwhile, but somebody has to do something.
    Refused,
}

/// How forwarding is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForwardStatus {
    /// What it does now.
    pub state: ForwardState,
    /// Durable records that were not taken yet.
    pub backlog_records: u64,
    /// Bytes that they keep in the journal.
    pub backlog_bytes: u64,
    /// The number of the first of them.
    pub position: Seq,
    /// Records that were taken since the process started, duplicates among them.
    pub forwarded: u64,
    /// Those that were there already.
    pub duplicates: u64,
    /// Those that were no event for the other side.
    pub quarantined: u64,
    /// Records that could not be read here any more; the other side was told.
    pub gaps: u64,
    /// Failures since the last success.
    pub failures_in_a_row: u64,
    /// When records were taken last, microseconds since 1970 in UTC.
    pub last_success_micros: Option<i64>,
    /// When something failed last, and what it said.
    pub last_error: Option<(i64, String)>,
}

/// Sends the journal. Its clones are the same one.
#[derive(Clone, Debug)]
pub struct Forward(Arc<Inner>);

struct Inner {
    journal: Journal,
    cursor: Cursor,
    client: Client,
    target: String,
    options: ForwardOptions,
    status: Mutex<ForwardStatus>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward")
            .field("server", &self.client.server())
            .field("edge", &self.options.edge)
            .finish_non_exhaustive()
    }
}

/// What the other side says of a request.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Answer {
    accepted: u64,
    duplicates: u64,
    quarantined: u64,
}

/// Why a request was not taken.
#[derive(Debug)]
struct Failure {
    state: ForwardState,
    retry_after: Option<Duration>,
    message: String,
}

impl Failure {
    fn waiting(message: impl Into<String>) -> Self {
        Self {
            state: ForwardState::Waiting,
            retry_after: None,
            message: message.into(),
        }
    }
}

impl Forward {
    /// Sends what is in `journal` to the kaudit at `to`. Nothing is sent before [`Forward::run`], but from now on
    /// the journal keeps what was not taken.
    ///
    /// # Errors
    ///
    /// [`ForwardError`].
    pub fn new(journal: Journal, to: &Cluster, options: ForwardOptions) -> Result<Self, ForwardError> {
        let target = format!("{}/v1/forward", to.server.base_path);
        if target.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(ForwardError::Path(to.server.to_string()));
        }
        let cursor = journal.cursor(CURSOR, Hold::Yes)?;
        let status = ForwardStatus {
            position: cursor.position(),
            ..ForwardStatus::default()
        };
        Ok(Self(Arc::new(Inner {
            client: Client::new(to)?,
            journal,
            cursor,
            target,
            options,
            status: Mutex::new(status),
        })))
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> ForwardStatus {
        let mut status = self.0.status().clone();
        let durable = self.0.journal.durable();
        status.backlog_records = durable.since(status.position);
        if status.backlog_records > 0 {
            status.backlog_bytes = self.0.journal.bytes_from(status.position);
        }
        status
    }

    /// Sends until `stop`, and writes the cursor then. What is under way is given up: it is sent again.
    pub async fn run(&self, stop: CancellationToken) {
        let mut sending = Sending::new(&self.0);
        stop.run_until_cancelled(Box::pin(sending.run())).await;
        sending.advance().await;
        self.0.status().state = ForwardState::Stopped;
        self.0.client.close().await;
    }
}

impl Inner {
    fn status(&self) -> MutexGuard<'_, ForwardStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn post(&self, outgoing: &Outgoing) -> Result<Answer, Failure> {
        let exchange = self.client.exchange(MAX_ANSWER_BYTES, |_| self.request(outgoing));
        let answer = tokio::time::timeout(self.options.timeout, exchange)
            .await
            .map_err(|_| Failure::waiting(format!("no answer within {} s", self.options.timeout.as_secs())))?
            .map_err(|error| Failure::waiting(with_cause(&error)))?;
        if answer.status != StatusCode::OK {
            let retry_after = answer.headers.get(header::RETRY_AFTER);
            let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let is_for_now = answer.status == StatusCode::TOO_MANY_REQUESTS
                || answer.status == StatusCode::REQUEST_TIMEOUT
                || answer.status.is_server_error();
            let text = answer.body.get(..answer.body.len().min(300)).unwrap_or_default();
            return Err(Failure {
                state: if is_for_now {
                    ForwardState::Waiting
                } else {
                    ForwardState::Refused
                },
                retry_after: seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
                message: format!("{}: {}", answer.status, String::from_utf8_lossy(text).trim()),
            });
        }
        // Whoever else answers 200 has kept nothing.
        let refused = |message: &str| Failure {
            state: ForwardState::Refused,
            retry_after: None,
            message: message.to_owned(),
        };
        let said: Answer = serde_json::from_slice(&answer.body)
            .map_err(|_| refused("the answer is not that of a kaudit that keeps records"))?;
        let counted = said
            .accepted
            .saturating_add(said.duplicates)
            .saturating_add(said.quarantined);
        if counted != outgoing.records {
            return Err(refused("the answer does not account for all records"));
        }
        Ok(said)
    }

    fn request(&self, outgoing: &Outgoing) -> Request<Bytes> {
        let mut request = Request::new(outgoing.body.clone());
        *request.method_mut() = Method::POST;
        if let Ok(target) = self.target.parse() {
            *request.uri_mut() = target;
        }
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(wire::MEDIA_TYPE));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(outgoing.body.len()));
        if outgoing.is_gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Ok(edge) = HeaderValue::from_str(self.options.edge.as_str()) {
            headers.insert(wire::EDGE_HEADER, edge);
        }
        request
    }
}

/// Forwarding while it runs.
struct Sending<'a> {
    inner: &'a Inner,
    /// Absent while a thread reads.
    outlet: Option<Outlet>,
    position: Seq,
    last_advance: Instant,
    last_log: Option<Instant>,
    backoff: Duration,
}

impl<'a> Sending<'a> {
    fn new(inner: &'a Inner) -> Self {
        let position = inner.cursor.position();
        Self {
            inner,
            outlet: Some(inner.outlet(position)),
            position,
            last_advance: Instant::now(),
            last_log: None,
            backoff: inner.options.initial_backoff,
        }
    }

    async fn run(&mut self) {
        let mut prepared = None;
        loop {
            let outgoing = match prepared.take() {
                Some(outgoing) => outgoing,
                None => match prepare(&mut self.outlet, self.inner).await {
                    Some(outgoing) => outgoing,
                    None => {
                        self.rest().await;
                        continue;
                    }
                },
            };
            self.inner.status().state = ForwardState::Sending;
            loop {
                let outlet = &mut self.outlet;
                let ahead = async {
                    if prepared.is_none() {
                        prepared = prepare(outlet, self.inner).await;
                    }
                };
                let (answer, ()) = tokio::join!(self.inner.post(&outgoing), ahead);
                match answer {
                    Ok(answer) => {
                        self.taken(&outgoing, answer).await;
                        break;
                    }
                    Err(failure) => self.failed(failure, &outgoing).await,
                }
            }
        }
    }

    /// Everything was taken: writes the cursor, and waits for more.
    async fn rest(&mut self) {
        let durable = self.inner.journal.durable();
        if self.position >= durable {
            self.inner.status().state = ForwardState::CaughtUp;
        }
        let is_noted = self.inner.cursor.position() >= self.position;
        let due = self.last_advance + ADVANCE_INTERVAL;
        let more = self.inner.journal.wait_durable(self.position);
        tokio::select! {
            _ = more, if self.position >= durable => {}
            () = tokio::time::sleep_until(due), if !is_noted => self.advance().await,
            // It could not be read just now.
            () = tokio::time::sleep(ADVANCE_INTERVAL), if self.position < durable => {}
        }
    }

    async fn taken(&mut self, outgoing: &Outgoing, answer: Answer) {
        self.position = outgoing.next;
        self.backoff = self.inner.options.initial_backoff;
        let failures = {
            let mut status = self.inner.status();
            status.position = outgoing.next;
            status.forwarded += outgoing.records;
            status.duplicates += answer.duplicates;
            status.quarantined += answer.quarantined;
            status.gaps += outgoing.gap_records;
            status.last_success_micros = Some(clock::now_micros());
            std::mem::take(&mut status.failures_in_a_row)
        };
        if failures > 0 {
            self.last_log = None;
            tracing::info!(failures, "{} takes records again", self.inner.client.server());
        }
        if outgoing.gap_records > 0 {
            tracing::error!(
                records = outgoing.gap_records,
                "records could not be read here any more; {} was told",
                self.inner.client.server()
            );
        }
        if self.last_advance.elapsed() >= ADVANCE_INTERVAL {
            self.advance().await;
        }
    }

    async fn failed(&mut self, failure: Failure, outgoing: &Outgoing) {
        let failures = {
            let mut status = self.inner.status();
            status.state = failure.state;
            status.failures_in_a_row += 1;
            status.last_error = Some((clock::now_micros(), failure.message.clone()));
            status.failures_in_a_row
        };
        if self.last_log.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            self.last_log = Some(Instant::now());
            let backlog = self.inner.journal.durable().since(self.position);
            tracing::warn!(
                failures,
                records = outgoing.records,
                backlog,
                "{} did not take records, which stay in the journal: {}",
                self.inner.client.server(),
                failure.message
            );
        }
        let options = &self.inner.options;
        let left_out = 0.5 * (options.jitter)().clamp(0.0, 1.0);
        let wait = self.backoff.mul_f64(1.0 - left_out);
        self.backoff = self.backoff.saturating_mul(2).min(options.max_backoff);
        let until = Instant::now() + wait.max(failure.retry_after.unwrap_or_default());
        // What was taken before is written down meanwhile.
        let due = self.last_advance + ADVANCE_INTERVAL;
        if due < until && self.inner.cursor.position() < self.position {
            tokio::time::sleep_until(due).await;
            self.advance().await;
        }
        tokio::time::sleep_until(until).await;
    }

    /// Writes down how far it came.
    async fn advance(&mut self) {
        self.last_advance = Instant::now();
        let (cursor, to) = (self.inner.cursor.clone(), self.position);
        if cursor.position() >= to {
            return;
        }
        match tokio::task::spawn_blocking(move || cursor.advance(to)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!("what was forwarded may be sent again: {}", with_cause(&error));
            }
            // The runtime ends.
            Err(_) => {}
        }
    }
}

impl Inner {
    fn outlet(&self, position: Seq) -> Outlet {
        let ForwardOptions {
            max_records,
            max_bytes,
            gzip,
            ..
        } = self.options;
        Outlet::new(self.journal.reader(position), max_records, max_bytes, gzip)
    }
}

/// The next request, or `None` when there is nothing to send or it cannot be read just now.
async fn prepare(outlet: &mut Option<Outlet>, inner: &Inner) -> Option<Outgoing> {
    let mut reading = match outlet.take() {
        Some(outlet) => outlet,
        None => inner.outlet(inner.status().position),
    };
    let read = tokio::task::spawn_blocking(move || {
        let next = reading.next();
        (reading, next)
    });
    // It panicked, or the runtime ends.
    let (reading, next) = read.await.ok()?;
    *outlet = Some(reading);
    match next {
        Ok(next) => next,
        Err(error) => {
            tracing::warn!("cannot read the journal to forward it: {}", with_cause(&error));
            inner.status().last_error = Some((clock::now_micros(), with_cause(&error)));
            None
        }
    }
}
