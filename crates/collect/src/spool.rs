//! A queue on disk before a backend that delivers: what it takes survives outages of the receiver and ends of
//! this process.
//!
//! It is a journal of its own. One task reads batches in order and delivers them one after the other; a failed
//! one is tried again for as long as the bounds hold. Beyond them the oldest events make room: each is counted
//! and named, as upstream names the events that a backend loses. A cursor says what was delivered; it is
//! written at most once a second, so after an end without a shutdown up to a second of events is delivered
//! again.

mod record;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kaudit_journal::filesystem::Filesystem;
use kaudit_journal::{Batch, Cursor, CursorError, Hold, Journal, OpenError, Options, Seq, WhenFull};
use kaudit_sink::{Counters, Emission, Outcome, Reason, Reservation, Reserve, Sink};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::intake::NotKept;
use crate::rooms::{self, Rooms};
use crate::settler::{Appended, Durable, STOPPED, Settler, SinkMode, kept_line, reason, with_cause};
use worker::Worker;

const PLUGIN: &str = "spool";

/// How one attempt ends: what went wrong, for the log.
pub type Delivery = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Delivers batches for a [`Spool`].
pub trait Deliver: Send + Sync + fmt::Debug + 'static {
    /// One attempt to deliver a batch, with a time limit of its own. A failure is no loss: the spool tries again
    /// and counts what is kept and what is lost.
    fn attempt(&self, batch: Vec<Emission<'static>>) -> Delivery;

    /// The name of what delivers, as in [`Sink::name`].
    fn name(&self) -> String;

    /// Releases what is held; called once after the last attempt, from a thread that may block.
    fn shutdown(&self) {}
}

/// Bounds and pace of a [`Spool`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpoolOptions {
    /// Whether requests wait until their events are on disk.
    pub mode: SinkMode,
    /// Bytes on disk, at least 1 MiB. An eighth of it is room for what comes while the oldest events go.
    pub max_bytes: u64,
    /// Events that waited longer are not delivered any more.
    pub max_age: Duration,
    /// Events of a batch.
    pub max_batch_events: usize,
    /// Bytes of a batch's lines; one larger event makes a batch alone.
    pub max_batch_bytes: usize,
    /// How long a batch that is not full waits, from the end of the previous delivery.
    pub max_batch_wait: Duration,
    /// The wait after the first failed attempt; each further one is half as long again.
    pub initial_backoff: Duration,
    /// The longest wait, before a fifth of it may be added.
    pub max_backoff: Duration,
    /// How long the shutdown goes on delivering. It ends at the first failure; the rest stays on disk.
    pub drain: Duration,
    /// A number from 0 up to 1, new each time: how much of a fifth is added to a wait.
    pub jitter: fn() -> f64,
    /// The time, microseconds since 1970 in UTC, by which events grow old.
    pub clock: fn() -> i64,
}

impl Default for SpoolOptions {
    /// Batches and waits as upstream's webhook has them.
    fn default() -> Self {
        Self {
            mode: SinkMode::Batch,
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_batch_events: 400,
            max_batch_bytes: 10 << 20,
            max_batch_wait: Duration::from_secs(30),
            initial_backoff: Duration::from_secs(10),
            max_backoff: Duration::from_secs(60),
            drain: Duration::from_secs(10),
            jitter: clock::jitter,
            clock: clock::now_micros,
        }
    }
}

impl SpoolOptions {
    fn journal(&self) -> Options {
        let max_bytes = self.max_bytes.max(1 << 20);
        let mut options = Options::default();
        options.segment_bytes = (max_bytes / 16).clamp(64 << 10, 64 << 20);
        options.max_bytes = max_bytes;
        // The worker lets the oldest go before that; this is for when it does not come to it in time.
        options.when_full = WhenFull::DropOldest;
        options.queue_bytes = 8 << 20;
        options.reserve_bytes = 1 << 20;
        options
    }
}

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Its journal cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its cursor cannot be had.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// No thread can be started.
    #[error("cannot start a thread for the spool")]
    Thread(#[from] std::io::Error),
}

/// How a spool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolMetrics {
    /// Events on disk that are neither delivered nor lost.
    pub backlog_events: u64,
    /// Bytes that they keep on disk.
    pub backlog_bytes: u64,
    /// How long the oldest of them has waited.
    pub oldest_age: Option<Duration>,
    /// Batches that were delivered since the process started.
    pub delivered_batches: u64,
    /// Events in them.
    pub delivered_events: u64,
    /// Events that were lost since then, by reason.
    pub evicted: Vec<(Reason, u64)>,
    /// Attempts that failed since the last that did not.
    pub failures_in_a_row: u64,
    /// What the last failure said; absent after a success.
    pub last_error: Option<String>,
}

/// A queue on disk, and the task that delivers from it.
pub struct Spool {
    shared: Arc<Shared>,
    settler: Settler,
    rooms: Rooms,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    journal: Journal,
    cursor: Cursor,
    deliver: Arc<dyn Deliver>,
    options: SpoolOptions,
    counters: Arc<Counters>,
    status: Mutex<Status>,
    /// Deliver what is there and end.
    stop: CancellationToken,
    /// End.
    gone: CancellationToken,
}

#[derive(Debug, Default)]
struct Status {
    /// The first event that is neither delivered nor lost.
    position: Seq,
    /// When it was queued, if it was read already.
    oldest_micros: Option<i64>,
    delivered_batches: u64,
    delivered_events: u64,
    evicted: BTreeMap<Reason, u64>,
    failures_in_a_row: u64,
    last_error: Option<String>,
}

impl Shared {
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool")
            .field("deliver", &self.shared.deliver)
            .finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens the spool in `dir`, which is made if need be, and delivers what is in it as a task of `runtime`,
    /// which has to outlive the shutdown.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn open(
        dir: &Path,
        deliver: Arc<dyn Deliver>,
        counters: Arc<Counters>,
        runtime: &Handle,
        options: SpoolOptions,
    ) -> Result<Self, SpoolError> {
        let (journal, _) = Journal::open(dir, options.journal())?;
        Self::start(journal, deliver, counters, runtime, options)
    }

    /// As [`Spool::open`], in a file system of one's own.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn open_on(
        fs: impl Filesystem,
        dir: &Path,
        deliver: Arc<dyn Deliver>,
        counters: Arc<Counters>,
        runtime: &Handle,
        options: SpoolOptions,
    ) -> Result<Self, SpoolError> {
        let (journal, _) = Journal::open_on(fs, dir, options.journal())?;
        Self::start(journal, deliver, counters, runtime, options)
    }

    fn start(
        journal: Journal,
        deliver: Arc<dyn Deliver>,
        counters: Arc<Counters>,
        runtime: &Handle,
        options: SpoolOptions,
    ) -> Result<Self, SpoolError> {
        let cursor = journal.cursor("deliver", Hold::Yes)?;
        let settler = Settler::start(PLUGIN, options.mode, Durable::Queued, Arc::clone(&counters))?;
        let rooms = Rooms {
            plugin: PLUGIN,
            mode: options.mode,
            max_bytes: 6 << 20,
            patience: Duration::from_secs(5),
            journal: journal.clone(),
            taken: Arc::default(),
        };
        let shared = Arc::new(Shared {
            status: Mutex::new(Status {
                position: cursor.position(),
                ..Status::default()
            }),
            journal,
            cursor,
            deliver,
            options,
            counters,
            stop: CancellationToken::new(),
            gone: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        let (worker, gone) = (Worker::new(Arc::clone(&shared)), shared.gone.clone());
        let work = async move {
            gone.run_until_cancelled_owned(worker.run()).await;
        };
        tasks.spawn_on(work, runtime);
        Ok(Self {
            shared,
            settler,
            rooms,
            tasks,
        })
    }

    /// How it is now.
    #[must_use]
    pub fn metrics(&self) -> SpoolMetrics {
        let Shared { journal, options, .. } = &*self.shared;
        let status = self.shared.status();
        let backlog_events = journal.durable().since(status.position);
        let age = status.oldest_micros.filter(|_| backlog_events > 0).map(|oldest| {
            let micros = (options.clock)().saturating_sub(oldest);
            Duration::from_micros(u64::try_from(micros).unwrap_or_default())
        });
        SpoolMetrics {
            backlog_events,
            backlog_bytes: if backlog_events == 0 {
                0
            } else {
                journal.bytes_from(status.position)
            },
            oldest_age: age,
            delivered_batches: status.delivered_batches,
            delivered_events: status.delivered_events,
            evicted: status
                .evicted
                .iter()
                .map(|(reason, events)| (*reason, *events))
                .collect(),
            failures_in_a_row: status.failures_in_a_row,
            last_error: status.last_error.clone(),
        }
    }

    fn batch<'e>(
        &self,
        emissions: impl IntoIterator<Item = &'e Emission<'e>>,
    ) -> (Batch, Vec<Emission<'static>>, Outcome) {
        let now = (self.shared.options.clock)();
        let mut batch = Batch::new();
        let mut kept = Vec::new();
        let mut outcome = Outcome::Accepted;
        for emission in emissions {
            let pushed = kept_line(emission, &self.shared.counters).and_then(|line| {
                batch.push_with(None, |out| record::write(&line, now, out))?;
                Ok(line)
            });
            match pushed {
                Ok(line) => kept.push(line),
                Err(message) => {
                    let refused = self.settler.refuse(Reason::Encode, message, [emission.event()]);
                    outcome = outcome.and(refused);
                }
            }
        }
        (batch, kept, outcome)
    }
}

impl Sink for Spool {
    fn reserve(&self, events: u32) -> Reserve {
        self.rooms.reserve(events)
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        let Some(begun) = self.settler.begin() else {
            return self.settler.refuse(Reason::ShutDown, STOPPED, [emission.event()]);
        };
        let (batch, kept, outcome) = self.batch([emission]);
        if kept.is_empty() {
            return outcome;
        }
        let journal = &self.shared.journal;
        let appended = match rooms::room_of(reservation) {
            Some(room) => journal.append_reserved(batch, room),
            None => journal.append(batch),
        };
        match appended {
            Ok(ticket) => begun.settle(Appended::Ticket(ticket), kept),
            Err(rejected) => {
                let error = NotKept::from(rejected.reason);
                self.settler
                    .refuse(reason(&error), with_cause(&error), [emission.event()])
            }
        }
    }

    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        let Some(begun) = self.settler.begin() else {
            let events = batch.iter().map(Emission::event);
            return self.settler.refuse(Reason::ShutDown, STOPPED, events);
        };
        let (batch, kept, outcome) = self.batch(&batch);
        if kept.is_empty() {
            return outcome;
        }
        match self.shared.journal.append(batch) {
            Ok(ticket) => outcome.and(begun.settle(Appended::Ticket(ticket), kept)),
            Err(rejected) => {
                let error = NotKept::from(rejected.reason);
                let events = kept.iter().map(Emission::event);
                outcome.and(self.settler.refuse(reason(&error), with_cause(&error), events))
            }
        }
    }

    fn takes_lines(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        format!("spool<{}>", self.shared.deliver.name())
    }

    /// Waits until all that was taken is on disk, and delivers for as long as that works and the bound for it
    /// lasts. What is left is delivered after the next start.
    fn shutdown(&self) {
        self.settler.finish();
        self.shared.stop.cancel();
        self.tasks.close();
        kaudit_sink::wait(self.tasks.wait());
        self.shared.journal.close();
        self.shared.deliver.shutdown();
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.gone.cancel();
    }
}

#[cfg(test)]
mod tests;
