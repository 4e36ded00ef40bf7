//! Events: `/api/v1/events`, a page as a document or all as lines; `/api/v1/events/{ref}`, one request's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use kaudit_event::DecodedEvent;
use kaudit_history::{Mask, Reveal};
use kaudit_store::{Cancel, Completeness, Order, Page, Position, Scan, ScanStats, Snapshot, StoredEvent};
use serde_json::json;
use tokio::sync::mpsc;

use super::problem::Problem;
use super::scans::{CancelOnDrop, Looked, Scans};
use super::selection::{BUDGET, Parameters, cursor, cursor_of};
use crate::asking::{masked, times};
use crate::storing::Freshness;

/// Events of a page, unless it is told otherwise; and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Events that are read for a stream at first and then at once, and how many bytes of them.
const FIRST_PIECE: usize = 500;
const PIECE: usize = 20_000;
const PIECE_BYTES: usize = 8 << 20;

/// Pieces of a stream that wait for its reader.
const AHEAD: usize = 1;

/// Events that one auditID may have.
const MOST_OF_ONE: usize = 1000;

pub(super) fn router(scans: Scans) -> Router {
    Router::new()
        .route("/api/v1/events", get(list))
        .route("/api/v1/events/{ref}", get(read))
        .with_state(scans)
}

/// What is asked for besides which events.
#[derive(Clone, Debug)]
struct Wish {
    order: Order,
    limit: Option<usize>,
    after: Option<Position>,
    mask: Mask,
}

async fn list(
    State(scans): State<Scans>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["order", "limit", "cursor", "reveal"], true)?;
    let order = match parameters.one("order")? {
        None | Some("newest") => Order::NewestFirst,
        Some("oldest") => Order::OldestFirst,
        Some(other) => {
            return Err(Problem::bad(format!(
                "order: `{other}` is neither newest nor oldest"
            )));
        }
    };
    let is_stream = wants_lines(&headers);
    let most = if is_stream { usize::MAX } else { MAX_PAGE };
    let limit = match parameters.size("limit", 0, most)? {
        0 if is_stream => None,
        0 => Some(PAGE),
        limit => Some(limit),
    };
    let wish = Wish {
        order,
        limit,
        after: parameters.one("cursor")?.map(cursor_of).transpose()?,
        mask: mask(&parameters, &scans)?,
    };
    let mut scan = parameters.scan(super::now())?;
    if is_stream {
        // Whoever reads all of it decides how long that takes.
        scan.time_budget = parameters.budget()?;
        return Ok(stream(scans, scan, wish).await);
    }
    let begun = Instant::now();
    let cancel = scan.cancel.clone();
    let ask = move |snapshot: &Snapshot| {
        let page = snapshot.page(&scan, wish.order, wish.limit.unwrap_or(PAGE), wish.after)?;
        // Of a page that is not whole others may be missing before its last event: nothing follows it.
        let next = page.next.filter(|_| is_whole(&page));
        Ok((items(&page.events, &wish.mask), next, page.stats))
    };
    let ((mut body, next, stats), freshness) = scans.ask(cancel, ask).await?;
    let looked = Looked::new(&[stats], freshness, begun);
    Ok(with_looked(&mut body, &looked, Some(next)))
}

fn is_whole(page: &Page) -> bool {
    page.stats.completeness == Completeness::Whole
}

/// A document that begins with the items of some events, and is open.
fn items(events: &[StoredEvent], mask: &Mask) -> BytesMut {
    let mut body = BytesMut::from(&br#"{"items":["#[..]);
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.put_u8(b',');
        }
        write_item(&mut body, event, mask);
    }
    body.put_slice(b"],");
    body
}

/// The rest of it.
fn with_looked(body: &mut BytesMut, looked: &Looked, next: Option<Option<Position>>) -> Response {
    let mut rest = serde_json::to_value(looked).unwrap_or_default();
    if let (Some(members), Some(next)) = (rest.as_object_mut(), next) {
        members.insert("next".to_owned(), json!(next.map(cursor)));
    }
    body.put_slice(rest.to_string().get(1..).unwrap_or_default().as_bytes());
    document(body.split().freeze())
}

/// All events of a reference or an auditID, the oldest first.
async fn read(
    State(scans): State<Scans>,
    Path(reference): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["reveal"], false)?;
    let now = super::now();
    let (text, seq) = times::meaning(&reference);
    let filter =
        kaudit_query::Filter::parse(&text, now).map_err(|wrong| Problem::filter("the reference", wrong))?;
    let mut scan = Scan::new(filter);
    if let Some(seq) = seq {
        scan = scan.of_seqs(seq..seq.saturating_add(1));
    }
    scan.time_budget = Some(BUDGET);
    let mask = mask(&parameters, &scans)?;
    let begun = Instant::now();
    let cancel = scan.cancel.clone();
    let ask = move |snapshot: &Snapshot| {
        let page = snapshot.page(&scan, Order::OldestFirst, MOST_OF_ONE, None)?;
        Ok((items(&page.events, &mask), page.events.is_empty(), page.stats))
    };
    let ((mut body, is_empty, stats), freshness) = scans.ask(cancel, ask).await?;
    let looked = Looked::new(&[stats], freshness, begun);
    if is_empty && !looked.partial {
        return Err(Problem::not_found(format!("no event is `{reference}`")));
    }
    Ok(with_looked(&mut body, &looked, None))
}

/// How values are masked: `reveal=changes` shows which are the same.
pub(super) fn mask(parameters: &Parameters, scans: &Scans) -> Result<Mask, Problem> {
    match parameters.one("reveal")? {
        Some("changes") => Ok(scans.digests.clone()),
        _ => Ok(Mask::without_key(reveal(parameters)?)),
    }
}

pub(super) fn reveal(parameters: &Parameters) -> Result<Reveal, Problem> {
    Ok(if parameters.is_set("reveal")? {
        Reveal::Yes
    } else {
        Reveal::No
    })
}

fn document(body: Bytes) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], body).into_response()
}

fn wants_lines(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/x-ndjson"))
}

/// One event with what is known of where it came from. The event is the last member, as it was received where nothing
/// in it is masked.
pub(super) fn write_item(out: &mut BytesMut, event: &StoredEvent, mask: &Mask) {
    let position = event.position;
    let head = json!({
        "ref": format!("{}-{}", kaudit_query::instant(position.ts), position.seq),
        "cluster": event.cluster,
        "source": event.source,
        "instance": event.instance,
        "seq": position.seq,
        "receivedMicros": event.received_micros,
        "policyRule": event.policy_rule,
    });
    let head = head.to_string();
    out.put_slice(head.get(..head.len() - 1).unwrap_or_default().as_bytes());
    out.put_slice(br#","event":"#);
    match DecodedEvent::parse(event.event.clone()) {
        Ok(decoded) => out.put_slice(&masked(decoded.text(), &decoded.view(), mask)),
        // What is no event is no JSON, perhaps.
        Err(_) => {
            let text = String::from_utf8_lossy(&event.event);
            out.put_slice(serde_json::Value::from(text).to_string().as_bytes());
        }
    }
    out.put_u8(b'}');
}

/// An answer that is written while it is read.
pub(super) struct Streamed {
    pieces: mpsc::Receiver<Bytes>,
    _ended: CancelOnDrop,
}

impl Streamed {
    /// What is sent comes out; `cancel` is called when nobody reads any more.
    pub(super) fn new(ahead: usize, cancel: Cancel) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(ahead);
        let body = Self {
            pieces,
            _ended: CancelOnDrop(cancel),
        };
        (sender, body)
    }

    pub(super) fn response(self, kind: &'static str) -> Response {
        let kind = HeaderValue::from_static(kind);
        ([(header::CONTENT_TYPE, kind)], Body::new(self)).into_response()
    }
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = ready!(self.pieces.poll_recv(context));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// All events as lines, page by page of one view, each read when the one before has gone.
async fn stream(scans: Scans, scan: Scan, wish: Wish) -> Response {
    let (snapshot, freshness) = scans.storing.snapshot().await;
    let (sender, body) = Streamed::new(AHEAD, scan.cancel.clone());
    let tasks = scans.tasks.clone();
    tasks.spawn(async move {
        let mut streaming = Streaming {
            scans,
            snapshot,
            scan,
            wish,
            events: 0,
        };
        let end = streaming.run(&sender, freshness).await;
        // Nobody reads any more, or the last line was taken.
        drop(sender.send(end).await);
    });
    body.response("application/x-ndjson")
}

/// A piece of a stream.
struct Read {
    piece: Bytes,
    events: usize,
    is_whole: bool,
    next: Option<Position>,
    stats: ScanStats,
}

struct Streaming {
    scans: Scans,
    snapshot: Snapshot,
    scan: Scan,
    wish: Wish,
    events: usize,
}

impl Streaming {
    async fn run(&mut self, sender: &mpsc::Sender<Bytes>, freshness: Freshness) -> Bytes {
        let begun = Instant::now();
        let mut after = self.wish.after;
        self.scan.memory_budget = PIECE_BYTES;
        let budget = self.scan.time_budget;
        loop {
            let left = self
                .wish
                .limit
                .map_or(PIECE, |limit| limit.saturating_sub(self.events));
            // The first goes out early; of later ones each costs a look at all that may be in it.
            let most = if self.events == 0 { FIRST_PIECE } else { PIECE };
            self.scan.time_budget = budget.map(|budget| budget.saturating_sub(begun.elapsed()));
            let read = match self.read(left.min(most), after).await {
                Ok(read) => read,
                Err(problem) => return self.end(None, None, Some(problem.detail())),
            };
            let looked = Looked::new(&[read.stats], freshness, begun);
            if !read.is_whole {
                // Others may be missing between these events: whoever goes on begins before them.
                return self.end(after, looked.partial_reason, None);
            }
            self.events += read.events;
            if !read.piece.is_empty() && sender.send(read.piece).await.is_err() {
                return Bytes::new();
            }
            let is_enough = self.wish.limit.is_some_and(|limit| self.events >= limit);
            match read.next {
                Some(next) if !is_enough => after = Some(next),
                next => return self.end(next, looked.partial_reason, None),
            }
        }
    }

    /// The lines of the events behind `after`.
    async fn read(&self, limit: usize, after: Option<Position>) -> Result<Read, Problem> {
        let (snapshot, scan) = (self.snapshot.clone(), self.scan.clone());
        let (order, mask) = (self.wish.order, self.wish.mask.clone());
        let ask = move || {
            let page = snapshot.page(&scan, order, limit, after)?;
            let mut piece = BytesMut::new();
            for event in &page.events {
                write_item(&mut piece, event, &mask);
                piece.put_u8(b'\n');
            }
            Ok(Read {
                piece: piece.freeze(),
                events: page.events.len(),
                is_whole: is_whole(&page),
                next: page.next,
                stats: page.stats,
            })
        };
        self.scans.ask_of(Cancel::default(), ask).await
    }

    fn end(&self, next: Option<Position>, partial: Option<&str>, error: Option<&str>) -> Bytes {
        let mut end = json!({
            "events": self.events,
            "partial": partial.is_some() || error.is_some(),
            "next": next.map(cursor),
            "seq": self.snapshot.read_to().saturating_sub(1),
        });
        if let (Some(members), Some(reason)) = (end.as_object_mut(), partial) {
            members.insert("partialReason".to_owned(), reason.into());
        }
        if let (Some(members), Some(error)) = (end.as_object_mut(), error) {
            members.insert("error".to_owned(), error.into());
        }
        Bytes::from(format!("{}\n", json!({ "end": end })))
    }
}
