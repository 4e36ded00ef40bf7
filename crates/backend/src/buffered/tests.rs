//! The queue: bounds, timers, drops, shutdown.

use std::sync::mpsc;

use super::*;
use kaudit_sink::conformance::{self, Subject};
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
        max_in_flight: 1,
        when_full: WhenFull::DropNewest,
    }
}

#[test]
fn it_passes_the_conformance_suite() {
    conformance::check(|| {
        let recording = Recording::default();
        let counters = Arc::new(Counters::default());
        let sink = Buffered::new(Arc::new(recording.clone()), config(10_000), Arc::clone(&counters));
        Subject {
            sink: Arc::new(sink),
            counters,
            kept: Box::new(move || ids(&recording)),
        }
    });
}

#[test]
fn a_queue_that_overflows_passes_the_conformance_suite_too() {
    for when_full in [WhenFull::DropNewest, WhenFull::DropOldest] {
        conformance::check(|| {
            let recording = Recording::default();
            let counters = Arc::new(Counters::default());
            let small = BatchConfig {
                when_full,
                ..config(5)
            };
            let sink = Buffered::new(Arc::new(recording.clone()), small, Arc::clone(&counters));
            Subject {
                sink: Arc::new(sink),
                counters,
                kept: Box::new(move || ids(&recording)),
            }
        });
    }
}

#[test]
fn submit_returns_while_the_delegate_is_stuck() {
    let gate = Gate::new(Recording::default());
    let sink = Buffered::new(Arc::<Gate>::clone(&gate), config(3), Arc::default());
    conformance::check_never_blocks(Arc::new(sink));
    gate.open();
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
fn t41_a_full_queue_drops_the_newest_counts_it_and_accepts_the_request() {
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
    assert!(matches!(counters.snapshot().queued, 1..=2));
    gate.open();
    sink.shutdown();
    assert_eq!(counters.snapshot().queued, 0);
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
fn with_drop_oldest_the_newest_are_kept_and_the_oldest_counted() {
    let recording = Recording::default();
    let gate = Gate::new(recording.clone());
    let counters = Arc::new(Counters::default());
    let ring = BatchConfig {
        max_batch_size: 1,
        when_full: WhenFull::DropOldest,
        ..config(2)
    };
    let sink = Buffered::new(Arc::<Gate>::clone(&gate), ring, Arc::clone(&counters));
    for number in 0..10 {
        assert!(submit(&sink, number, &mut Reservation::none()).is_accepted());
    }
    let lost = counters.snapshot().lost;
    assert!(
        matches!(lost.as_slice(), [("buffered", Reason::DroppedOldest, 7..=8)]),
        "{lost:?}"
    );
    gate.open();
    sink.shutdown();
    let kept = ids(&recording);
    assert!(kept.ends_with(&["0/8".to_owned(), "0/9".to_owned()]), "{kept:?}");
}

/// Tells the sizes of its batches, and lets the test end them.
#[derive(Debug)]
struct Batches {
    sizes: Mutex<mpsc::Sender<usize>>,
    ends: Mutex<Vec<mpsc::Sender<()>>>,
    /// Whether a batch stays under way until it is ended.
    is_slow: bool,
}

impl Batches {
    fn new(is_slow: bool) -> (Arc<Self>, mpsc::Receiver<usize>) {
        let (sizes, receiver) = mpsc::channel();
        let batches = Self {
            sizes: Mutex::new(sizes),
            ends: Mutex::default(),
            is_slow,
        };
        (Arc::new(batches), receiver)
    }
}

impl Sink for Batches {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, _: &Emission<'_>, _: &mut Reservation) -> Outcome {
        Outcome::Accepted
    }

    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        if !self.is_slow {
            self.sizes.lock().unwrap().send(batch.len()).unwrap();
            return Outcome::Accepted;
        }
        let (end, ended) = mpsc::channel();
        self.ends.lock().unwrap().push(end);
        self.sizes.lock().unwrap().send(batch.len()).unwrap();
        let (done, receipt) = tokio::sync::oneshot::channel();
        drop(std::thread::spawn(move || {
            ended.recv().ok();
            done.send(()).ok();
        }));
        Outcome::Pending(Receipt::new(async move {
            drop(receipt.await);
            Ok(())
        }))
    }

    fn name(&self) -> String {
        "batches".to_owned()
    }
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_full_batch_goes_at_once_and_a_partial_one_when_the_timer_fires_or_at_the_end() {
    let (batches, sizes) = Batches::new(false);
    let patient = BatchConfig {
        max_batch_wait: Duration::from_secs(3600),
        ..config(100)
    };
    let sink = Buffered::new(Arc::<Batches>::clone(&batches), patient, Arc::default());
    for number in 0..11 {
        assert!(submit(&sink, number, &mut Reservation::none()).is_accepted());
    }
    assert_eq!(sizes.recv_timeout(LONG), Ok(10));
    for number in 0..2 {
        assert!(submit(&sink, number, &mut Reservation::none()).is_accepted());
    }
    sink.shutdown();
    assert_eq!(sizes.recv_timeout(LONG), Ok(3));

    let hasty = BatchConfig {
        max_batch_wait: Duration::from_millis(5),
        ..config(100)
    };
    let sink = Buffered::new(batches, hasty, Arc::default());
    assert!(submit(&sink, 0, &mut Reservation::none()).is_accepted());
    assert_eq!(sizes.recv_timeout(LONG), Ok(1));
    sink.shutdown();
}

#[test]
fn batches_under_way_are_bounded_and_shutdown_waits_for_them() {
    let (batches, sizes) = Batches::new(true);
    let two = BatchConfig {
        max_batch_size: 1,
        max_in_flight: 2,
        ..config(100)
    };
    let sink = Arc::new(Buffered::new(
        Arc::<Batches>::clone(&batches),
        two,
        Arc::default(),
    ));
    for number in 0..4 {
        assert!(submit(&sink, number, &mut Reservation::none()).is_accepted());
    }
    assert_eq!(sizes.recv_timeout(LONG), Ok(1));
    assert_eq!(sizes.recv_timeout(LONG), Ok(1));
    assert!(
        sizes.try_recv().is_err(),
        "a third waits for one of the two to end"
    );
    drop(batches.ends.lock().unwrap().remove(0));
    assert_eq!(sizes.recv_timeout(LONG), Ok(1));
    let stopping = Arc::clone(&sink);
    let stop = std::thread::spawn(move || stopping.shutdown());
    drop(batches.ends.lock().unwrap().remove(0));
    assert_eq!(sizes.recv_timeout(LONG), Ok(1));
    assert!(!stop.is_finished());
    batches.ends.lock().unwrap().clear();
    stop.join().unwrap();
}

/// Panics over every batch.
#[derive(Debug)]
struct Broken;

impl Sink for Broken {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, _: &Emission<'_>, _: &mut Reservation) -> Outcome {
        panic!("broken")
    }

    fn name(&self) -> String {
        "broken".to_owned()
    }
}

#[test]
fn a_panic_behind_the_queue_is_counted_and_does_not_end_the_worker() {
    let counters = Arc::new(Counters::default());
    let one = BatchConfig {
        max_batch_size: 1,
        ..config(100)
    };
    let sink = Buffered::new(Arc::new(Broken), one, Arc::clone(&counters));
    for number in 0..3 {
        assert!(submit(&sink, number, &mut Reservation::none()).is_accepted());
    }
    sink.shutdown();
    assert_eq!(counters.snapshot().lost, [("buffered", Reason::Panic, 3)]);
}
