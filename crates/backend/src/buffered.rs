//! Mode `batch`: a bounded queue, and a thread that delivers batches from it.
//!
//! Source: k8s.io/apiserver plugin/pkg/audit/buffered/buffered.go. Unlike there, a request reserves room
//! for its events when it arrives, so that under pressure whole requests are left out rather than final
//! events of requests that are half recorded.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kaudit_event::Event;
use kaudit_sink::{Counters, Emission, Outcome, Reason, Refusal, Reservation, Reserve, Sink};
use tracing::error;

/// The queue's bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "filled by field")]
pub struct BatchConfig {
    /// Events the queue holds.
    pub buffer_size: usize,
    /// Events in one batch.
    pub max_batch_size: usize,
    /// How long a batch that is not full waits; zero and below two events a batch waits for nothing.
    pub max_batch_wait: Duration,
    /// How often batches are delivered.
    pub throttle: Option<Throttle>,
}

/// A token bucket: it starts full.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "filled by field")]
pub struct Throttle {
    /// Batches a second.
    pub qps: f32,
    /// Batches at once.
    pub burst: u32,
}

/// Queues events for a delegate. When the queue is full the newest event is dropped and counted.
pub struct Buffered {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    delegate: Arc<dyn Sink>,
    config: BatchConfig,
    counters: Arc<Counters>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Room that requests in flight have taken and not used yet.
    reserved: usize,
    is_closed: bool,
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
        self.counters.plugin_error(&refusal, std::slice::from_ref(event));
        refusal
    }

    /// Takes a batch; `None` when the queue is closed and empty.
    fn collect(&self) -> Option<Vec<Event>> {
        let waits = self.config.max_batch_size > 1 && !self.config.max_batch_wait.is_zero();
        let deadline = Instant::now() + self.config.max_batch_wait;
        let mut queue = self.queue();
        loop {
            let is_full = queue.events.len() >= self.config.max_batch_size;
            let is_due = !queue.events.is_empty() && (!waits || Instant::now() >= deadline);
            if is_full || is_due || queue.is_closed {
                break;
            }
            queue = if waits && !queue.events.is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                self.changed
                    .wait_timeout(queue, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            } else {
                self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
            };
        }
        let count = queue.events.len().min(self.config.max_batch_size);
        (count > 0).then(|| queue.events.drain(..count).collect())
    }

    fn deliver(&self, batch: &[Event]) {
        for event in batch {
            let delivered = catch_unwind(AssertUnwindSafe(|| {
                // The delegate counts what it refuses; nobody waits for the answer any more.
                drop(
                    self.delegate
                        .submit(&Emission::new(event), &mut Reservation::none()),
                );
            }));
            if delivered.is_err() {
                error!("the audit backend behind the buffer panicked");
                self.refuse(Reason::Write, "the delegate panicked", event);
            }
        }
    }
}

impl Buffered {
    /// Queues events for `delegate`, and starts the thread that delivers them.
    #[must_use]
    pub fn new(delegate: Arc<dyn Sink>, config: BatchConfig, counters: Arc<Counters>) -> Self {
        let queue = Mutex::new(Queue::default());
        let shared = Arc::new(Shared {
            delegate,
            config,
            counters,
            queue,
            changed: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("audit-buffer".to_owned())
            .spawn(move || {
                let mut bucket = worker
                    .config
                    .throttle
                    .map(|throttle| Bucket::full(throttle, Instant::now()));
                while let Some(batch) = worker.collect() {
                    if let Some(bucket) = &mut bucket {
                        std::thread::sleep(bucket.take(Instant::now()));
                    }
                    worker.deliver(&batch);
                }
            });
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
        let event = emission.event();
        let room = reservation.permit_mut::<Room>().filter(|room| room.left > 0);
        let mut queue = self.shared.queue();
        if queue.is_closed {
            drop(queue);
            let refusal = self
                .shared
                .refuse(Reason::ShutDown, "audit backend shut down", event);
            return Outcome::Refused(vec![refusal]);
        }
        match room {
            Some(room) => {
                room.left -= 1;
                queue.reserved = queue.reserved.saturating_sub(1);
            }
            None if queue.events.len() + queue.reserved >= self.shared.config.buffer_size => {
                drop(queue);
                self.shared
                    .refuse(Reason::QueueFull, "audit buffer queue blocked", event);
                // Upstream says that all is well here: the request goes on, the drop is counted.
                return Outcome::Accepted;
            }
            None => {}
        }
        queue.events.push_back(event.clone());
        drop(queue);
        self.shared.changed.notify_one();
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

/// A token bucket by reservation: every taker is told how long to wait.
#[derive(Debug)]
struct Bucket {
    throttle: Throttle,
    tokens: f64,
    last: Instant,
}

impl Bucket {
    fn full(throttle: Throttle, now: Instant) -> Self {
        Self {
            throttle,
            tokens: f64::from(throttle.burst),
            last: now,
        }
    }

    fn take(&mut self, now: Instant) -> Duration {
        let qps = f64::from(self.throttle.qps);
        let refill = now.saturating_duration_since(self.last).as_secs_f64() * qps;
        self.tokens = (self.tokens + refill).min(f64::from(self.throttle.burst)) - 1.0;
        self.last = now;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.tokens / qps).unwrap_or(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kaudit_sink::conformance;
    use kaudit_sink::recording::Recording;

    fn ids(recording: &Recording) -> Vec<String> {
        let lines = recording.lines().into_iter();
        lines
            .map(|line| {
                let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
                line["auditID"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    fn config(buffer_size: usize) -> BatchConfig {
        BatchConfig {
            buffer_size,
            max_batch_size: 10,
            max_batch_wait: Duration::ZERO,
            throttle: None,
        }
    }

    #[test]
    fn it_passes_the_conformance_suite() {
        conformance::check(|| {
            let recording = Recording::default();
            let counters = Arc::new(Counters::default());
            let sink = Buffered::new(Arc::new(recording.clone()), config(10_000), counters);
            (Arc::new(sink), Box::new(move || ids(&recording)))
        });
    }

    /// Blocks deliveries until it is let go.
    #[derive(Debug)]
    struct Gate {
        open: (Mutex<bool>, Condvar),
        behind: Recording,
    }

    impl Gate {
        fn new(behind: Recording) -> Arc<Self> {
            Arc::new(Self {
                open: (Mutex::new(false), Condvar::new()),
                behind,
            })
        }

        fn open(&self) {
            *self.open.0.lock().unwrap() = true;
            self.open.1.notify_all();
        }
    }

    impl Sink for Gate {
        fn reserve(&self, _: u32) -> Reserve {
            Reserve::Ready(Reservation::none())
        }

        fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
            let guard = self.open.0.lock().unwrap();
            drop(self.open.1.wait_while(guard, |open| !*open).unwrap());
            self.behind.submit(emission, reservation)
        }

        fn name(&self) -> String {
            "gate".to_owned()
        }
    }

    fn submit(sink: &Buffered, number: usize, reservation: &mut Reservation) -> Outcome {
        sink.submit(&Emission::new(&conformance::event(0, number)), reservation)
    }

    #[test]
    fn a_full_queue_drops_the_newest_counts_it_and_accepts_the_request() {
        let recording = Recording::default();
        let gate = Gate::new(recording.clone());
        let counters = Arc::new(Counters::default());
        let one = BatchConfig {
            max_batch_size: 1,
            ..config(2)
        };
        let sink = Buffered::new(Arc::<Gate>::clone(&gate), one, Arc::clone(&counters));
        for number in 0..10 {
            assert!(submit(&sink, number, &mut Reservation::none()).is_accepted());
        }
        let lost = counters.snapshot().lost;
        assert!(
            matches!(lost.as_slice(), [("buffered", Reason::QueueFull, 7..=8)]),
            "{lost:?}"
        );
        gate.open();
        sink.shutdown();
        let kept = ids(&recording);
        assert_eq!(kept.first().map(String::as_str), Some("0/0"));
        assert!(kept.len() == 2 || kept.len() == 3, "{kept:?}");
    }

    #[test]
    fn reserved_room_is_there_for_the_final_event_and_returns_on_drop() {
        let recording = Recording::default();
        let gate = Gate::new(recording.clone());
        let counters = Arc::new(Counters::default());
        let one = BatchConfig {
            max_batch_size: 1,
            ..config(3)
        };
        let sink = Buffered::new(Arc::<Gate>::clone(&gate), one, Arc::clone(&counters));
        let Reserve::Ready(mut reservation) = sink.reserve(2) else {
            panic!("there was room")
        };
        for _ in 0..10 {
            assert!(submit(&sink, 1, &mut Reservation::none()).is_accepted());
        }
        assert!(
            !counters.snapshot().lost.is_empty(),
            "what nobody reserved room for is dropped"
        );
        assert!(submit(&sink, 2, &mut reservation).is_accepted());
        drop(reservation);
        assert_eq!(sink.shared.queue().reserved, 0);
        gate.open();
        sink.shutdown();
        assert!(ids(&recording).contains(&"0/2".to_owned()));
    }

    #[test]
    fn after_shutdown_events_are_refused_in_upstreams_words() {
        let sink = Buffered::new(
            Arc::new(Recording::default()),
            config(3),
            Arc::new(Counters::default()),
        );
        sink.shutdown();
        let Outcome::Refused(refusals) = submit(&sink, 0, &mut Reservation::none()) else {
            panic!("it was accepted")
        };
        assert_eq!(
            refusals.first().map(|refusal| refusal.message.as_str()),
            Some("audit backend shut down")
        );
    }

    #[test]
    fn the_bucket_starts_full_and_refills() {
        let start = Instant::now();
        let mut bucket = Bucket::full(Throttle { qps: 2.0, burst: 2 }, start);
        assert_eq!(bucket.take(start), Duration::ZERO);
        assert_eq!(bucket.take(start), Duration::ZERO);
        assert_eq!(bucket.take(start), Duration::from_millis(500));
        assert_eq!(bucket.take(start + Duration::from_secs(2)), Duration::ZERO);
    }
}
