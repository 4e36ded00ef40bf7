//! Questions to a running kaudit, by its API.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use kaudit_dial::{Cluster, Upstream, UpstreamBody};
use kaudit_query::{Bodies, Leaf};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::found::{Found, Order, Whence};
use super::scan::{Fold, Masking, Question, Scanned};
use crate::exit::Failure;

/// An answer in one piece that is longer is not read.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A line of a stream that is longer is not read: an event has 64 MiB at most, and its envelope little.
const MAX_LINE_BYTES: usize = 66 << 20;

/// The head of an answer that does not come in this time is not awaited; an API that scans for long says so itself.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Events that are handed over together.
const BLOCK: u64 = 64;

/// The API of a running kaudit.
#[derive(Debug)]
pub(crate) struct Remote {
    runtime: Runtime,
    upstream: Upstream,
    authorization: Option<HeaderValue>,
    address: String,
}

/// The query of an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters(String);

impl Parameters {
    /// Adds one.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        self
    }

    fn masked(self, masking: Masking) -> Self {
        match masking {
            Masking::Lengths => self,
            Masking::Digests => self.with("reveal", "changes"),
            Masking::Revealed => self.with("reveal", "true"),
        }
    }

    /// What a question asks for.
    pub(crate) fn of(question: &Question) -> Self {
        let mut all = Self::default().with("q", &question.filter().to_string());
        let mut searches_bodies = false;
        question.filter().expr().visit(&mut |leaf| {
            searches_bodies |= matches!(leaf, Leaf::Text(text) if text.bodies == Bodies::Searched);
        });
        if searches_bodies {
            all = all.with("bodies", "true");
        }
        if question.has_hidden {
            all = all.with("hidden", "true");
        }
        all
    }
}

impl Remote {
    /// The API of `cluster`, with its token as a header; `address` is what a person calls it.
    pub(crate) fn new(
        cluster: &Cluster,
        authorization: Option<HeaderValue>,
        address: &str,
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start")
            .map_err(Failure::unreachable)?;
        let upstream = Upstream::new(cluster, false).map_err(Failure::usage)?;
        Ok(Self {
            runtime,
            upstream,
            authorization,
            address: address.to_owned(),
        })
    }

    /// A document.
    pub(crate) fn document(&self, path: &str, parameters: &Parameters) -> Result<Value, Failure> {
        self.runtime.block_on(async {
            let body = self.get(path, parameters, "application/json").await?;
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| self.lost(anyhow!(error)))?.to_bytes();
            serde_json::from_slice(&body).map_err(|error| self.lost(anyhow!(error)))
        })
    }

    /// A document, if it comes within `limit`. What is still being done for it then, as the search for a name, is not
    /// awaited.
    pub(crate) fn document_within(
        self,
        limit: Duration,
        path: &str,
        parameters: &Parameters,
    ) -> Option<Value> {
        let asked = self.runtime.block_on(async {
            tokio::time::timeout(limit, async {
                let body = self.get(path, parameters, "application/json").await.ok()?;
                let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.ok()?;
                serde_json::from_slice(&body.to_bytes()).ok()
            })
            .await
        });
        self.runtime.shutdown_background();
        asked.ok().flatten()
    }

    /// All events that satisfy a question, in the order that it asks for, as long as the fold wants them.
    pub(crate) fn scan<F: Fold>(&self, question: &Question, mut fold: F) -> Result<(F, Scanned), Failure> {
        let mut parameters = Parameters::of(question).with(
            "order",
            match question.order {
                Order::Newest => "newest",
                Order::Oldest => "oldest",
            },
        );
        if let Some(most) = question.most {
            parameters = parameters.with("limit", &most.to_string());
        }
        parameters = parameters.masked(question.masking);
        let mut scanned = Scanned::default();
        let mut block = 0;
        self.runtime.block_on(async {
            let body = self
                .get("/api/v1/events", &parameters, "application/x-ndjson")
                .await?;
            let mut lines = Lines::new(body);
            let end = loop {
                let Some(line) = lines.next(self).await? else {
                    return Err(self.lost(anyhow!("the answer ended before it was whole")));
                };
                let item = match Line::read(&line).map_err(|error| self.lost(error))? {
                    Line::End(end) => break end,
                    Line::Item(item) => item,
                };
                scanned.events += 1;
                fold.found(item.found());
                if scanned.events.is_multiple_of(BLOCK) {
                    if !fold.end_of_block(block) {
                        return Ok(());
                    }
                    block += 1;
                }
            };
            fold.end_of_block(block);
            if let Some(error) = end.error {
                return Err(self.lost(anyhow!(error)));
            }
            scanned.last = end.seq;
            scanned.partial = end.partial.then(|| end.partial_reason.unwrap_or_default());
            Ok(())
        })?;
        Ok((fold, scanned))
    }

    /// Events as they come, from after the record `after` or from now on, until the fold wants no more or the
    /// connection ends; `after` is then what the next time is to begin after.
    pub(crate) fn tail<F: Fold>(
        &self,
        question: &Question,
        after: &mut Option<u64>,
        fold: &mut F,
    ) -> Result<(), Failure> {
        let mut parameters = Parameters::of(question).masked(question.masking);
        if let Some(after) = *after {
            parameters = parameters.with("after", &after.to_string());
        }
        let mut block = 0;
        self.runtime.block_on(async {
            let body = self.get("/api/v1/tail", &parameters, "text/event-stream").await?;
            let mut lines = Lines::new(body);
            let (mut data, mut is_error, mut id) = (BytesMut::new(), false, None);
            while let Some(line) = lines.next(self).await? {
                if line.is_empty() {
                    if is_error {
                        let text = String::from_utf8_lossy(&data).into_owned();
                        return Err(self.lost(anyhow!(text)));
                    }
                    let item = data.split().freeze();
                    if item.is_empty() {
                        *after = id.take().or(*after);
                        // Nothing came for a while; perhaps nobody waits for it any more.
                        if !fold.end_of_block(block) {
                            return Ok(());
                        }
                        continue;
                    }
                    if let Line::Item(item) = Line::read(&item).map_err(|error| self.lost(error))? {
                        fold.found(item.found());
                        *after = id.take().or(item.whence.seq).or(*after);
                        if !fold.end_of_block(block) {
                            return Ok(());
                        }
                        block += 1;
                    }
                } else if let Some(text) = line.strip_prefix(b"data:") {
                    data.extend_from_slice(text.strip_prefix(b" ").unwrap_or(text));
                } else if let Some(text) = line.strip_prefix(b"id:") {
                    id = std::str::from_utf8(text)
                        .ok()
                        .and_then(|text| text.trim().parse().ok());
                } else if let Some(kind) = line.strip_prefix(b"event:") {
                    is_error = kind.trim_ascii() == b"error";
                }
            }
            Ok(())
        })
    }

    /// The lines of a stream, as long as they are wanted.
    pub(super) fn lines(
        &self,
        path: &str,
        parameters: &Parameters,
        mut each: impl FnMut(Bytes) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let body = self.get(path, parameters, "application/x-ndjson").await?;
            let mut lines = Lines::new(body);
            while let Some(line) = lines.next(self).await? {
                if each(line).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    async fn get(
        &self,
        path: &str,
        parameters: &Parameters,
        accept: &'static str,
    ) -> Result<UpstreamBody, Failure> {
        let mut request = Request::builder()
            .uri(format!("{path}{}", parameters.0))
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("kaudit/", env!("CARGO_PKG_VERSION")))
            .body(
                Full::new(Bytes::new())
                    .map_err(|never| match never {})
                    .boxed_unsync(),
            )
            .map_err(Failure::usage)?;
        if let Some(authorization) = &self.authorization {
            let value = authorization.clone();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let answer = tokio::time::timeout(TIMEOUT, self.upstream.send(request)).await;
        let answer = answer
            .map_err(|_| self.lost(anyhow!("no answer within {} s", TIMEOUT.as_secs())))?
            .map_err(|error| self.unanswered(error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(self.refused(status, &body))
    }

    fn unanswered(&self, error: impl Into<anyhow::Error>) -> Failure {
        Failure::unreachable(error.into().context(format!(
            "no kaudit answers at {}\n  help: start one (`kaudit dev`, `kaudit run --role collect,store`), name it with \
             --server or --context, or ask files with --from audit.log",
            self.address
        )))
    }

    pub(super) fn lost(&self, error: anyhow::Error) -> Failure {
        Failure::unreachable(error.context(format!("{}: the answer broke off", self.address)))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| problem.get(name).and_then(Value::as_str);
        let told = text("detail").or_else(|| text("message"));
        let told = told.unwrap_or("no reason given").to_owned();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::not_allowed(anyhow!(
                "{} does not accept the token: give --token-file",
                self.address
            )),
            StatusCode::NOT_FOUND => Failure::unreachable(anyhow!(
                "{} has no store to ask: it runs without the role store",
                self.address
            )),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                Failure::usage(anyhow!(told))
            }
            _ => Failure::unreachable(anyhow!("{}: {told}", self.address)),
        }
    }
}

/// The lines of a body, without their ends.
struct Lines {
    body: UpstreamBody,
    read: BytesMut,
    /// So much of `read` has no end of a line.
    searched: usize,
}

impl Lines {
    fn new(body: UpstreamBody) -> Self {
        Self {
            body,
            read: BytesMut::new(),
            searched: 0,
        }
    }

    async fn next(&mut self, remote: &Remote) -> Result<Option<Bytes>, Failure> {
        loop {
            let unsearched = self.read.get(self.searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unsearched) {
                let mut line = self.read.split_to(self.searched + end + 1);
                self.searched = 0;
                line.truncate(line.len().saturating_sub(1));
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Ok(Some(line.freeze()));
            }
            self.searched = self.read.len();
            if self.searched > MAX_LINE_BYTES {
                return Err(remote.lost(anyhow!("a line has more than {MAX_LINE_BYTES} bytes")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(remote.lost(anyhow!(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// A line of the stream of events.
#[derive(Debug)]
enum Line {
    Item(Item),
    End(End),
}

#[derive(Debug)]
struct Item {
    whence: Arc<Whence>,
    event: Bytes,
}

/// How a stream ended.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct End {
    partial: bool,
    partial_reason: Option<String>,
    /// The last record that was looked at.
    seq: Option<u64>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow)]
    cluster: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    instance: Option<Cow<'a, str>>,
    seq: Option<u64>,
    received_micros: Option<i64>,
    policy_rule: Option<u32>,
}

/// Stands before the event, which is the last member and may be no UTF-8. It cannot stand in a string, where its
/// quotes would be escaped.
const EVENT: &[u8] = br#","event":"#;

impl Line {
    fn read(line: &Bytes) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Ended {
            end: End,
        }
        let Some(at) = memchr::memmem::find(line, EVENT) else {
            let ended: Ended = serde_json::from_slice(line).context("a line of the answer is no event")?;
            return Ok(Self::End(ended.end));
        };
        let mut head = line.slice(..at).to_vec();
        head.push(b'}');
        let head: Head<'_> = serde_json::from_slice(&head).context("an event's envelope cannot be read")?;
        let end = line.len().saturating_sub(1);
        let start = (at + EVENT.len()).min(end);
        let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        Ok(Self::Item(Item {
            event: line.slice(start..end),
            whence: Arc::new(Whence {
                cluster: text(head.cluster),
                source: text(head.source),
                instance: text(head.instance),
                seq: head.seq,
                received_micros: head.received_micros,
                policy_rule: head.policy_rule,
            }),
        }))
    }
}

impl Item {
    fn found(&self) -> Found<'_> {
        Found {
            line: &self.event,
            number: self.whence.seq.unwrap_or_default(),
            whence: &self.whence,
            decoded: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_taken_out_of_its_line_as_it_is() {
        let line = Bytes::from_static(
            b"{\"ref\":\"r\",\"cluster\":\"a,\\\"event\\\":b\",\"source\":\"c\",\"seq\":7,\"receivedMicros\":-1,\"policyRule\":null,\
              \"event\":{\"a\":\"\xff\",\"event\":1}}",
        );
        let Line::Item(item) = Line::read(&line).unwrap() else {
            panic!("an end");
        };
        assert_eq!(item.event.as_ref(), b"{\"a\":\"\xff\",\"event\":1}");
        let whence = &item.whence;
        assert_eq!(whence.cluster.as_deref(), Some("a,\"event\":b"));
        assert_eq!((whence.seq, whence.policy_rule), (Some(7), None));
    }

    #[test]
    fn the_end_says_whether_all_was_looked_at() {
        let line =
            Bytes::from_static(br#"{"end":{"events":3,"partial":true,"partialReason":"time","next":null}}"#);
        let Line::End(end) = Line::read(&line).unwrap() else {
            panic!("an event");
        };
        assert_eq!((end.partial, end.partial_reason.as_deref()), (true, Some("time")));
        assert!(Line::read(&Bytes::from_static(b"{}")).is_err());
    }

    #[test]
    fn a_filter_goes_into_an_address_as_it_is() {
        let all = Parameters::default().with("q", "a: \"b&c\" ü").with("limit", "5");
        assert_eq!(all.0, "?q=a%3A%20%22b%26c%22%20%C3%BC&limit=5");
    }
}
