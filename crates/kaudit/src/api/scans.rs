//! Scans for requests: not too many at once, ended when nobody waits for them any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use kaudit_history::{Mask, Reveal};
use kaudit_store::{Cancel, Completeness, ScanStats, Snapshot, StoreError};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::problem::Problem;
use crate::storing::{Freshness, Storing};

/// Scans at once; each uses the store's threads.
const AT_ONCE: usize = 4;

/// Who finds all busy waits so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// The store, for requests.
#[derive(Clone, Debug)]
pub(crate) struct Scans {
    pub(crate) storing: Storing,
    room: Arc<Semaphore>,
    /// Owns what writes the answers that come in pieces.
    pub(crate) tasks: TaskTracker,
    /// Ends the answers that have no end of their own.
    pub(crate) stop: CancellationToken,
    /// Masks so that the same value looks the same, as long as this process runs.
    pub(crate) digests: Mask,
}

/// Ends a scan when this is dropped, as the future of a request is when its client goes.
#[derive(Debug)]
pub(crate) struct CancelOnDrop(pub(crate) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What was looked at for an answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Looked {
    /// Whether events are missing in it.
    pub(crate) partial: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partial_reason: Option<&'static str>,
    pub(crate) stats: Stats,
}

/// A scan in numbers.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    pub(crate) files: usize,
    pub(crate) files_opened: usize,
    pub(crate) groups_read: usize,
    pub(crate) rows_scanned: u64,
    pub(crate) rows_matched: u64,
    pub(crate) elapsed_micros: u64,
}

impl Looked {
    pub(crate) fn new(scans: &[ScanStats], freshness: Freshness, begun: Instant) -> Self {
        let mut stats = Stats::default();
        let mut reason = None;
        for scan in scans {
            stats.files = stats.files.max(scan.files);
            stats.files_opened += scan.files_opened;
            stats.groups_read += scan.groups_read;
            stats.rows_scanned += scan.rows_scanned;
            stats.rows_matched += scan.rows_matched;
            reason = reason.or(match scan.completeness {
                Completeness::Whole => None,
                Completeness::TimeUp => Some("time"),
                _ => Some("cancelled"),
            });
        }
        if let Freshness::Behind { .. } = freshness {
            reason = reason.or(Some("behind"));
        }
        stats.elapsed_micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        Self {
            partial: reason.is_some(),
            partial_reason: reason,
            stats,
        }
    }
}

impl Looked {
    /// A document that says so, too.
    pub(crate) fn of(&self, mut document: Value) -> Json<Value> {
        let looked = serde_json::to_value(self).unwrap_or_default();
        if let (Some(members), Value::Object(looked)) = (document.as_object_mut(), looked) {
            members.extend(looked);
        }
        Json(document)
    }
}

impl Scans {
    pub(crate) fn new(storing: Storing, tasks: TaskTracker) -> Self {
        Self {
            storing,
            room: Arc::new(Semaphore::new(AT_ONCE)),
            tasks,
            stop: CancellationToken::new(),
            digests: digests(),
        }
    }

    /// The same, whose endless answers end at `stop`.
    pub(crate) fn until(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// A place among those who scan, or the advice to come again.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match tokio::time::timeout(PATIENCE, Arc::clone(&self.room).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Problem::busy(1)),
        }
    }

    /// Asks the store as it is now; `cancel` ends what is asked when the request is given up.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        cancel: Cancel,
        ask: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<(T, Freshness), Problem> {
        let permit = self.place().await?;
        let (snapshot, freshness) = self.storing.snapshot().await;
        let answer = run(cancel, permit, move || ask(&snapshot)).await?;
        Ok((answer, freshness))
    }

    /// Asks a view that was taken before. Waits as long as it takes.
    pub(crate) async fn ask_of<T: Send + 'static>(
        &self,
        cancel: Cancel,
        ask: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = Arc::clone(&self.room).acquire_owned().await;
        let permit = permit.map_err(|_| Problem::busy(1))?;
        run(cancel, permit, ask).await
    }
}

/// A key that nobody else has.
fn digests() -> Mask {
    let mut key = [0; 32];
    match getrandom::fill(&mut key) {
        Ok(()) => Mask::keyed(key, Reveal::No),
        Err(_) => Mask::without_key(Reveal::No),
    }
}

async fn run<T: Send + 'static>(
    cancel: Cancel,
    permit: OwnedSemaphorePermit,
    ask: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let _ended = CancelOnDrop(cancel);
    let asked = tokio::task::spawn_blocking(move || {
        let answer = ask();
        drop(permit);
        answer
    });
    match asked.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error @ StoreError::Bucket { .. })) => Err(Problem::unavailable(&error)),
        Ok(Err(error)) => Err(Problem::internal(&error)),
        Err(panic) => Err(Problem::internal(&panic)),
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use http::{StatusCode, header};
    use kaudit_query::Filter;
    use kaudit_store::{Options, Scan, Store};
    use tokio::time::Instant;

    use super::*;

    fn scans(folder: &tempfile::TempDir) -> Scans {
        let store = Store::open(&folder.path().join("store"), Options::default()).unwrap();
        Scans::new(Storing::idle(store), TaskTracker::new())
    }

    async fn count(scans: &Scans) -> Result<u64, Problem> {
        let scan = Scan::new(Filter::everything());
        let ask = move |snapshot: &Snapshot| snapshot.count(&scan);
        Ok(scans.ask(Cancel::default(), ask).await?.0.0)
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_all_busy_for_two_seconds_is_told_to_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let scans = scans(&folder);
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(scans.place().await.unwrap());
        }
        let begun = Instant::now();
        let problem = count(&scans).await.unwrap_err();
        // The runtime's clock goes by milliseconds.
        let waited = begun.elapsed();
        assert!((2000..2010).contains(&waited.as_millis()), "{waited:?}");
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );

        // One who waits has the place of the first who goes.
        let place = places.pop();
        let going = async {
            tokio::time::sleep(Duration::from_millis(1900)).await;
            drop(place);
        };
        let (counted, ()) = tokio::join!(count(&scans), going);
        assert_eq!(counted.unwrap(), 0);
        drop(places);
        assert_eq!(count(&scans).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_place_is_kept_until_the_scan_has_ended_not_until_its_client_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let scans = scans(&folder);
        let cancel = Cancel::default();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (end, ended) = std::sync::mpsc::sync_channel::<()>(1);
        let asked = scans.ask(cancel.clone(), move |_| {
            begin.send(()).unwrap();
            // An error is that of a test that failed.
            ended.recv().ok();
            Ok(())
        });
        let mut asked = Box::pin(asked);
        tokio::select! {
            _ = &mut asked => panic!("it waits to be ended"),
            begun = begun => begun.unwrap(),
        }
        drop(asked);
        assert!(cancel.is_cancelled());
        assert_eq!(scans.room.available_permits(), AT_ONCE - 1);
        end.send(()).unwrap();
        let all = u32::try_from(AT_ONCE).unwrap();
        drop(scans.room.acquire_many(all).await.unwrap());
    }
}
