//! Mode `batch`: a bounded queue, and a thread that delivers batches from it.
//!
//! Source: k8s.io/apiserver plugin/pkg/audit/buffered/buffered.go. Unlike there, a request reserves room
//! for its events when it arrives, so that under pressure whole requests are left out rather than final
//! events of requests that are half recorded; and batches under way at once are bounded. At most
//! `buffer_size + max_batch_size * (1 + max_in_flight)` events are in memory.

mod throttle;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kaudit_event::Event;
use kaudit_sink::{Counters, Emission, Outcome, Reason, Receipt, Refusal, Reservation, Reserve, Sink};
use tracing::error;

use throttle::Bucket;
pub use throttle::Throttle;

/// The queue's bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "filled by field")]
pub struct BatchConfig {
    /// Events the queue holds.
    pub buffer_size: usize,
    /// Events in one batch.
    pub max_batch_size: usize,
    /// How long a batch that is not full waits, from the end of the previous delivery. Zero, and less
    /// than two events a batch, waits for nothing.
    pub max_batch_wait: Duration,
    /// How often batches are delivered.
    pub throttle: Option<Throttle>,
    /// Batches that are under way at once. One delivers each before the next; more let batches overtake
    /// each other, where the delegate can have several under way.
    pub max_in_flight: usize,
    /// What gives way when the queue is full.
    pub when_full: WhenFull,
}

/// What gives way when a queue is full. Either way the loss is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "these two ends of a queue")]
pub enum WhenFull {
    /// The event that comes, as upstream does.
    #[default]
    DropNewest,
    /// The event that has waited longest.
    DropOldest,
}

/// Queues events for a delegate.
pub struct Buffered {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    delegate: Arc<dyn Sink>,
    takes_lines: bool,
    config: BatchConfig,
    counters: Arc<Counters>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Emission<'static>>,
    /// Room that requests in flight have taken and not used yet.
    reserved: usize,
    is_closed: bool,
    /// The worker sleeps until there is this much.
    awaited: Option<usize>,
}

/// Room for the events of one request.
struct Room {
    shared: Arc<Shared>,
    left: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.reserved = queue.reserved.saturating_sub(self.left);
    }
}

impl fmt::Debug for Buffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffered")
            .field("delegate", &self.shared.delegate)
            .finish_non_exhaustive()
    }
}

/// What the worker has to do next.
enum Collected {
    Batch(Vec<Emission<'static>>),
    /// The timer fired and nothing was there.
    Nothing,
    /// Closed, and empty.
    End,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, reason: Reason, message: &str, event: &Event) -> Refusal {
        let refusal = Refusal {
            plugin: "buffered",
            reason,
            message: message.to_owned(),
        };
        self.counters.plugin_error(&refusal, [event]);
        refusal
    }

    /// Waits for a full batch, or the timer, or the end.
    fn collect(&self) -> Collected {
        let full = self.config.max_batch_size.max(1);
        let has_timer = full > 1 && !self.config.max_batch_wait.is_zero();
        let wanted = if has_timer { full } else { 1 };
        let deadline = Instant::now() + self.config.max_batch_wait;
        let mut queue = self.queue();
        while queue.events.len() < wanted && !queue.is_closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if has_timer && left.is_zero() {
                break;
            }
            queue.awaited = Some(wanted);
            queue = if has_timer {
                let woken = self.changed.wait_timeout(queue, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            } else {
                let woken = self.changed.wait(queue);
                woken.unwrap_or_else(PoisonError::into_inner)
            };
            queue.awaited = None;
        }
        let count = queue.events.len().min(full);
        match (count, queue.is_closed) {
            (0, true) => Collected::End,
            (0, false) => Collected::Nothing,
            _ => {
                let batch = queue.events.drain(..count).collect();
                self.counters.queued(queue.events.len());
                Collected::Batch(batch)
            }
        }
    }

    /// The worker: collects and delivers until the queue is closed and empty, then waits for the batches
    /// that are under way.
    fn work(&self) {
        let mut bucket = self
            .config
            .throttle
            .map(|throttle| Bucket::full(throttle, Instant::now()));
        let mut in_flight = Vec::new();
        loop {
            let batch = match self.collect() {
                Collected::Batch(batch) => batch,
                Collected::Nothing => continue,
                Collected::End => break,
            };
            if let Some(bucket) = &mut bucket {
                std::thread::sleep(bucket.take(Instant::now()));
            }
            if let Some(receipt) = self.deliver(batch) {
                in_flight.push(receipt);
                wait_until_below(self.config.max_in_flight, &mut in_flight);
            }
        }
        wait_until_below(1, &mut in_flight);
    }

    /// Nobody waits for the outcome any more: the delegate counts what it refuses.
    fn deliver(&self, batch: Vec<Emission<'static>>) -> Option<Receipt> {
        let events = batch.len() as u64;
        match catch_unwind(AssertUnwindSafe(|| self.delegate.submit_batch(batch))) {
            Ok(Outcome::Pending(receipt)) => Some(receipt),
            Ok(Outcome::Accepted | Outcome::Refused(_)) => None,
            Err(_) => {
                // Some of them may have been delivered before.
                let refusal = Refusal {
                    plugin: "buffered",
                    reason: Reason::Panic,
                    message: "the backend behind the buffer panicked".to_owned(),
                };
                self.counters.lost_unnamed(&refusal, events);
                None
            }
        }
    }
}

/// Waits until fewer than `limit` (at least one) deliveries are under way.
fn wait_until_below(limit: usize, in_flight: &mut Vec<Receipt>) {
    let limit = limit.max(1);
    kaudit_sink::wait(poll_fn(|cx| {
        in_flight.retain_mut(|receipt| Pin::new(receipt).poll(cx).is_pending());
        if in_flight.len() < limit {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
}

impl Buffered {
    /// Queues events for `delegate`, and starts the thread that delivers them.
    #[must_use]
    pub fn new(delegate: Arc<dyn Sink>, config: BatchConfig, counters: Arc<Counters>) -> Self {
        let shared = Arc::new(Shared {
            takes_lines: delegate.takes_lines(),
            delegate,
            config,
            counters,
            queue: Mutex::new(Queue::default()),
            changed: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("audit-buffer".to_owned())
            .spawn(move || worker.work());
        let thread = thread
            .inspect_err(|error| error!(%error, "cannot start the thread of the audit buffer"))
            .ok();
        if thread.is_none() {
            shared.queue().is_closed = true;
        }
        Self {
            shared,
            worker: Mutex::new(thread),
        }
    }

    /// Events that wait in the queue now.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queue().events.len()
    }
}

impl Sink for Buffered {
    fn reserve(&self, events: u32) -> Reserve {
        let wanted = usize::try_from(events).unwrap_or(usize::MAX);
        let mut queue = self.shared.queue();
        let taken = queue.events.len() + queue.reserved;
        if taken.saturating_add(wanted) > self.shared.config.buffer_size {
            // Each event takes its chance on its own, as upstream's do.
            return Reserve::Ready(Reservation::none());
        }
        queue.reserved += wanted;
        Reserve::Ready(Reservation::with(Room {
            shared: Arc::clone(&self.shared),
            left: wanted,
        }))
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        const BLOCKED: &str = "audit buffer queue blocked";
        let room = reservation.permit_mut::<Room>().filter(|room| room.left > 0);
        let kept = if self.shared.takes_lines {
            emission.keep_line()
        } else {
            emission.keep()
        };
        let mut queue = self.shared.queue();
        if queue.is_closed {
            drop(queue);
            let refusal = self
                .shared
                .refuse(Reason::ShutDown, "audit backend shut down", kept.event());
            return Outcome::Refused(vec![refusal]);
        }
        let mut dropped = None;
        match room {
            Some(room) => {
                room.left -= 1;
                queue.reserved = queue.reserved.saturating_sub(1);
                queue.events.push_back(kept);
            }
            None if queue.events.len() + queue.reserved >= self.shared.config.buffer_size => {
                dropped = match self.shared.config.when_full {
                    WhenFull::DropNewest => None,
                    WhenFull::DropOldest => queue
                        .events
                        .pop_front()
                        .map(|oldest| (Reason::DroppedOldest, oldest)),
                };
                match dropped {
                    Some(_) => queue.events.push_back(kept),
                    None => dropped = Some((Reason::QueueFull, kept)),
                }
            }
            None => queue.events.push_back(kept),
        }
        self.shared.counters.queued(queue.events.len());
        let wakes = queue.awaited.is_some_and(|awaited| queue.events.len() >= awaited);
        if wakes {
            queue.awaited = None;
        }
        drop(queue);
        if wakes {
            self.shared.changed.notify_one();
        }
        if let Some((reason, dropped)) = dropped {
            self.shared.refuse(reason, BLOCKED, dropped.event());
        }
        // Upstream says that all is well here, also of a drop: the request goes on.
        Outcome::Accepted
    }

    fn name(&self) -> String {
        format!("buffered<{}>", self.shared.delegate.name())
    }

    fn shutdown(&self) {
        self.shared.queue().is_closed = true;
        self.shared.changed.notify_all();
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if worker.is_some_and(|worker| worker.join().is_err()) {
            error!("the thread of the audit buffer panicked");
        }
        self.shared.delegate.shutdown();
    }
}

#[cfg(test)]
mod tests;
