//! Events as they come: `/api/v1/tail`, server-sent events.

use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use kaudit_history::Mask;
use kaudit_store::{Cancel, Order, Scan, StoredEvent};
use serde_json::json;
use tokio::sync::mpsc;

use super::events::{Streamed, mask, write_item};
use super::problem::Problem;
use super::scans::Scans;
use super::selection::Parameters;

/// A connection on which nothing happens is shown to be alive so often.
const PING: Duration = Duration::from_secs(15);

/// Records that are looked at at once, and bytes of events of them.
const RECORDS: u64 = 10_000;
const BYTES: usize = 8 << 20;

pub(super) fn router(scans: Scans) -> Router {
    Router::new().route("/api/v1/tail", get(tail)).with_state(scans)
}

async fn tail(
    State(scans): State<Scans>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["after", "reveal"], true)?;
    let scan = parameters.scan(super::now())?;
    let mask = mask(&parameters, &scans)?;
    let resumed = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let after = resumed.or(parameters.number("after", u64::MAX - 1)?);
    let next = match after {
        Some(after) => after.saturating_add(1),
        None => scans.storing.snapshot().await.0.read_to(),
    };
    let (sender, body) = Streamed::new(1, scan.cancel.clone());
    let tasks = scans.tasks.clone();
    let following = Following {
        scans,
        scan,
        mask,
        next,
    };
    tasks.spawn(following.run(sender));
    Ok(body.response("text/event-stream"))
}

/// One client that follows.
struct Following {
    scans: Scans,
    scan: Scan,
    mask: Mask,
    /// The first record that was not looked at.
    next: u64,
}

impl Following {
    /// Sends until nobody reads. Who reads slowly is sent the same a little later: it is all in the store.
    async fn run(mut self, sender: mpsc::Sender<Bytes>) {
        let mut grown = self.scans.storing.grown();
        // The head goes out with the first piece, and with it what to resume after when nothing came.
        let mut piece = self.alive("events from here on");
        loop {
            if !piece.is_empty() && sender.send(piece).await.is_err() {
                return;
            }
            let end = *grown.borrow_and_update();
            if self.next < end {
                piece = match self.look(end).await {
                    Ok(piece) => piece,
                    Err(problem) => {
                        let told = json!(problem.detail());
                        let last = format!("event: error\ndata: {told}\n\n");
                        drop(sender.send(Bytes::from(last)).await);
                        return;
                    }
                };
                continue;
            }
            piece = tokio::select! {
                () = sender.closed() => return,
                () = self.scans.stop.cancelled() => return,
                changed = grown.changed() => match changed {
                    Ok(()) => Bytes::new(),
                    Err(_) => return,
                },
                () = tokio::time::sleep(PING) => self.alive("ping"),
            };
        }
    }

    /// What is no event, and the last record that was looked at.
    fn alive(&self, comment: &str) -> Bytes {
        Bytes::from(format!("id: {}\n: {comment}\n\n", self.next.saturating_sub(1)))
    }

    /// The events of the next records, in their order.
    async fn look(&mut self, end: u64) -> Result<Bytes, Problem> {
        let mut records = end.saturating_sub(self.next).min(RECORDS);
        loop {
            let to = self.next + records;
            let events = self.events(to).await?;
            if let Some(mut events) = events {
                self.next = to;
                events.sort_by_key(|event| event.position.seq);
                let mut piece = BytesMut::new();
                for event in &events {
                    piece.put_slice(format!("id: {}\nevent: event\ndata: ", event.position.seq).as_bytes());
                    write_item(&mut piece, event, &self.mask);
                    piece.put_slice(b"\n\n");
                }
                return Ok(piece.freeze());
            }
            // More than is held at once.
            records = (records / 2).max(1);
        }
    }

    /// The events before the record `to`; `None` when they are too many.
    async fn events(&self, to: u64) -> Result<Option<Vec<StoredEvent>>, Problem> {
        let snapshot = self.scans.storing.store().snapshot();
        let mut scan = self.scan.clone().of_seqs(self.next..to);
        scan.memory_budget = BYTES;
        scan.time_budget = None;
        let limit = usize::try_from(RECORDS).unwrap_or(usize::MAX);
        let ask = move || snapshot.page(&scan, Order::OldestFirst, limit, None);
        let page = self.scans.ask_of(Cancel::default(), ask).await?;
        let is_one = to.saturating_sub(self.next) <= 1;
        Ok((is_one || page.next.is_none() || page.events.len() >= limit).then_some(page.events))
    }
}

#[cfg(test)]
mod tests {
    use kaudit_query::Filter;
    use kaudit_store::{Options, Store};
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::storing::Storing;

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_happens_is_pinged_every_fifteen_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store"), Options::default()).unwrap();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let scans = Scans::new(Storing::idle(store), tasks.clone()).until(stop.clone());
        let following = Following {
            mask: scans.digests.clone(),
            scans,
            scan: Scan::new(Filter::everything()),
            next: 8,
        };
        let (sender, mut pieces) = mpsc::channel(1);
        let begun = Instant::now();
        tasks.spawn(following.run(sender));
        // What to resume after comes at once, although nothing happened.
        assert_eq!(pieces.recv().await.unwrap(), "id: 7\n: events from here on\n\n");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for round in 1..=3 {
            assert_eq!(pieces.recv().await.unwrap(), "id: 7\n: ping\n\n");
            let waited = begun.elapsed().as_millis();
            // The runtime's clock goes by milliseconds.
            assert!(
                (15_000 * round..15_000 * round + 10).contains(&waited),
                "{waited} ms"
            );
        }
        stop.cancel();
        assert_eq!(pieces.recv().await, None, "the end of the process ends it");
        tasks.close();
        tasks.wait().await;
    }
}
