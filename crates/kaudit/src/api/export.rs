//! Events of the files as they were received, to be kept elsewhere: `/api/v1/export`.
//!
//! All of them come in as many answers as it takes. One is read no faster than its lines are taken, ends after some time
//! or so many bytes, and says where the next one is to begin; so nobody holds old files for long. Where an answer breaks
//! off, the next one begins after the last line that came.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use kaudit_event::DecodedEvent;
use kaudit_store::{Cancel, Order, Position, Scan, Snapshot, StoredEvent};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::events::Streamed;
use super::problem::Problem;
use super::scans::Scans;
use super::selection::{Parameters, cursor, cursor_of};

/// Events that are read at once, and how many bytes of them.
const PIECE: usize = 20_000;
const PIECE_BYTES: usize = 8 << 20;

/// Pieces that wait for their reader.
const AHEAD: usize = 1;

/// After so long an answer ends, unless it is told otherwise, or after so many bytes. A piece that was begun is still sent.
const LONGEST: Duration = Duration::from_mins(1);
const MOST_BYTES: usize = 1 << 30;

pub(super) fn router(scans: Scans) -> Router {
    Router::new()
        .route("/api/v1/export", get(export))
        .with_state(scans)
}

async fn export(State(scans): State<Scans>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["cursor", "sealedTo"], true)?;
    let after = parameters.one("cursor")?.map(cursor_of).transpose()?;
    let mut scan = parameters.scan(super::now())?;
    let snapshot = scans.storing.store().snapshot();
    let sealed = snapshot.manifest().sealed_to;
    let sealed_to = parameters
        .number("sealedTo", u64::MAX)?
        .unwrap_or(sealed)
        .min(sealed);
    let newer = scan.clone().of_seqs(sealed..u64::MAX);
    let newer = scans
        .ask_of(Cancel::default(), {
            let snapshot = snapshot.clone();
            move || snapshot.count(&newer)
        })
        .await?
        .0;
    let manifest = snapshot.manifest();
    let begin = json!({"begin": {
        "sealedTo": sealed_to,
        "newer": newer,
        "storeVersion": manifest.version,
        "storeHash": manifest.hash().as_str(),
        "expired": manifest.counts.expired.values().sum::<u64>(),
    }});
    scan = scan.of_seqs(0..sealed_to);
    scan.time_budget = None;
    scan.memory_budget = PIECE_BYTES;
    let longest = parameters.budget()?.unwrap_or(LONGEST);
    let (sender, body) = Streamed::new(AHEAD, scan.cancel.clone());
    let exporting = Exporting {
        scans: scans.clone(),
        snapshot,
        scan,
        longest,
        events: 0,
    };
    scans.tasks.spawn(async move {
        if sender.send(line(&begin)).await.is_err() {
            return;
        }
        if let Some(end) = exporting.run(&sender, after).await {
            // Nobody reads any more, or the last line was taken.
            drop(sender.send(end).await);
        }
    });
    Ok(body.response("application/x-ndjson"))
}

fn line(document: &Value) -> Bytes {
    Bytes::from(format!("{document}\n"))
}

struct Exporting {
    scans: Scans,
    snapshot: Snapshot,
    scan: Scan,
    longest: Duration,
    events: usize,
}

impl Exporting {
    /// Sends pieces until all was sent or it is enough; the last line, if somebody still reads.
    async fn run(mut self, sender: &mpsc::Sender<Bytes>, mut after: Option<Position>) -> Option<Bytes> {
        let begun = Instant::now();
        let mut bytes = 0;
        loop {
            let (piece, events, next) = match self.read(after).await {
                Ok(read) => read,
                Err(problem) => return Some(self.end(None, Some(problem.detail()))),
            };
            self.events += events;
            bytes += piece.len();
            if !piece.is_empty() && sender.send(piece).await.is_err() {
                return None;
            }
            if next.is_none() || begun.elapsed() >= self.longest || bytes >= MOST_BYTES {
                return Some(self.end(next, None));
            }
            after = next;
        }
    }

    /// The lines of the events behind `after`, and what the next ones are behind.
    async fn read(&self, after: Option<Position>) -> Result<(Bytes, usize, Option<Position>), Problem> {
        let (snapshot, scan) = (self.snapshot.clone(), self.scan.clone());
        let ask = move || {
            let page = snapshot.page(&scan, Order::OldestFirst, PIECE, after)?;
            let mut piece = BytesMut::new();
            for event in &page.events {
                write_event(&mut piece, event);
            }
            Ok((piece.freeze(), page.events.len(), page.next))
        };
        // What its client has given up is ended by the body.
        self.scans.ask_of(Cancel::default(), ask).await
    }

    fn end(&self, next: Option<Position>, error: Option<&str>) -> Bytes {
        let mut end = json!({"events": self.events, "next": next.map(cursor)});
        if let (Some(members), Some(error)) = (end.as_object_mut(), error) {
            members.insert("error".to_owned(), error.into());
        }
        line(&json!({ "end": end }))
    }
}

/// One event as it was received, as the last member; what is no JSON in one line is in Base64.
fn write_event(out: &mut BytesMut, event: &StoredEvent) {
    let head = json!({
        "at": cursor(event.position),
        "seq": event.position.seq,
        "cluster": event.cluster,
        "source": event.source,
        "instance": event.instance,
        "receivedMicros": event.received_micros,
        "policyRule": event.policy_rule,
    });
    let head = head.to_string();
    out.put_slice(head.strip_suffix('}').unwrap_or_default().as_bytes());
    let is_json =
        memchr::memchr(b'\n', &event.event).is_none() && DecodedEvent::parse(event.event.clone()).is_ok();
    if is_json {
        out.put_slice(br#","event":"#);
        out.put_slice(&event.event);
    } else {
        out.put_slice(br#","eventBase64":""#);
        out.put_slice(STANDARD.encode(&event.event).as_bytes());
        out.put_u8(b'"');
    }
    out.put_slice(b"}\n");
}
