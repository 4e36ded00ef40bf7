use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ThreadId;

use kaudit_event::Event;
use kaudit_journal::filesystem::simulated::SimulatedDisk;
use kaudit_sink::conformance::{self, Subject};

use super::*;

/// A receiver that is down or up.
#[derive(Clone, Debug, Default)]
struct Receiver(Arc<ReceiverState>);

#[derive(Debug, Default)]
struct ReceiverState {
    is_down: AtomicBool,
    attempts: AtomicU64,
    batches: Mutex<Vec<Vec<String>>>,
}

impl Receiver {
    fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::Relaxed);
    }

    fn attempts(&self) -> u64 {
        self.0.attempts.load(Ordering::Relaxed)
    }

    fn batches(&self) -> Vec<Vec<String>> {
        self.0.batches.lock().unwrap().clone()
    }

    fn ids(&self) -> Vec<String> {
        self.batches().concat()
    }
}

impl Deliver for Receiver {
    fn attempt(&self, batch: Vec<Emission<'static>>) -> Delivery {
        self.0.attempts.fetch_add(1, Ordering::Relaxed);
        let end = if self.0.is_down.load(Ordering::Relaxed) {
            Err("connection refused".to_owned())
        } else {
            let ids = batch.iter().map(|emission| {
                let event = Event::from_json_line(emission.line().unwrap()).unwrap();
                event.audit_id.to_string()
            });
            self.0.batches.lock().unwrap().push(ids.collect());
            Ok(())
        };
        Box::pin(async move { end })
    }

    fn name(&self) -> String {
        "webhook".to_owned()
    }
}

/// The paused clock as the time of day.
fn paused() -> i64 {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let start = *START.get_or_init(std::time::Instant::now);
    let passed = tokio::time::Instant::now().into_std().duration_since(start);
    1_800_000_000_000_000 + i64::try_from(passed.as_micros()).unwrap()
}

struct World {
    disk: SimulatedDisk,
    receiver: Receiver,
    counters: Arc<Counters>,
    options: SpoolOptions,
}

fn world(mode: SinkMode) -> World {
    World {
        disk: SimulatedDisk::new(7),
        receiver: Receiver::default(),
        counters: Arc::default(),
        options: SpoolOptions {
            mode,
            max_bytes: 16 << 20,
            clock: paused,
            jitter: || 0.5,
            ..SpoolOptions::default()
        },
    }
}

impl World {
    fn open(&self) -> Arc<Spool> {
        let spool = Spool::open_on(
            self.disk.clone(),
            Path::new("/spool"),
            Arc::new(self.receiver.clone()),
            Arc::clone(&self.counters),
            &Handle::current(),
            self.options.clone(),
        );
        Arc::new(spool.unwrap())
    }

    /// Power goes, and comes back.
    fn crash(&mut self) {
        self.disk = self.disk.crash();
    }
}

/// Submits events that are durable afterwards. On a thread, because the paused clock stands still meanwhile.
async fn submit(spool: &Arc<Spool>, numbers: std::ops::Range<usize>, padding: usize) {
    let spool = Arc::clone(spool);
    let submitting = tokio::task::spawn_blocking(move || {
        for number in numbers {
            let event = Event {
                request_uri: format!("/{}", "x".repeat(padding)).into(),
                ..conformance::event(0, number)
            };
            let outcome = spool.submit(&Emission::new(&event), &mut Reservation::none());
            outcome.wait().unwrap();
        }
        drop(spool.shared.journal.append(Batch::new()).unwrap().wait());
    });
    submitting.await.unwrap();
}

/// What is dead delivers nothing more.
async fn die(spool: Arc<Spool>) {
    let tasks = spool.tasks.clone();
    drop(spool);
    tasks.close();
    tasks.wait().await;
}

async fn shut_down(spool: Arc<Spool>) {
    let ending = tokio::task::spawn_blocking(move || spool.shutdown());
    ending.await.unwrap();
}

/// Lets time pass until something is so.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn numbers(ids: &[String]) -> Vec<usize> {
    ids.iter()
        .map(|id| id.strip_prefix("0/").unwrap().parse().unwrap())
        .collect()
}

#[test]
fn the_contract_holds_in_every_mode() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for mode in [SinkMode::Batch, SinkMode::Blocking, SinkMode::BlockingStrict] {
        conformance::check(|| {
            let _context = runtime.enter();
            let mut world = world(mode);
            world.options.clock = clock::now_micros;
            let receiver = world.receiver.clone();
            Subject {
                sink: world.open(),
                counters: Arc::clone(&world.counters),
                kept: Box::new(move || receiver.ids()),
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_while_the_receiver_was_down_for_hours_is_delivered_in_order_after_a_power_cut() {
    let mut world = world(SinkMode::Batch);
    world.receiver.set_down(true);
    let spool = world.open();
    submit(&spool, 0..500, 0).await;
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    submit(&spool, 500..1000, 0).await;
    let metrics = spool.metrics();
    assert_eq!(metrics.backlog_events, 1000);
    assert!(metrics.oldest_age.unwrap() >= Duration::from_secs(3 * 3600));
    assert_eq!(metrics.last_error.as_deref(), Some("connection refused"));
    // Waits grow from 10 s to 60 s, and then stay.
    assert!((160..200).contains(&metrics.failures_in_a_row), "{metrics:?}");

    world.crash();
    die(spool).await;
    world.receiver.set_down(false);
    let spool = world.open();
    until(|| world.receiver.ids().len() >= 1000).await;
    let batches = world.receiver.batches();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [400, 400, 200]);
    assert_eq!(numbers(&batches.concat()), (0..1000).collect::<Vec<_>>());
    assert_eq!(world.counters.snapshot().kept, 1000);
    assert_eq!(world.counters.snapshot().total_lost(), 0);
    until(|| spool.metrics().backlog_events == 0).await;
    assert_eq!(spool.metrics().backlog_bytes, 0);
    assert_eq!(spool.metrics().oldest_age, None);

    // What was delivered is not delivered again after a shutdown.
    shut_down(spool).await;
    let spool = world.open();
    submit(&spool, 1000..1001, 0).await;
    shut_down(spool).await;
    assert_eq!(numbers(&world.receiver.ids()), (0..1001).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_delivery_repeats_at_most_what_the_cursor_does_not_say() {
    let mut world = world(SinkMode::Batch);
    world.options.max_batch_events = 10;
    world.options.max_batch_wait = Duration::ZERO;
    let spool = world.open();
    submit(&spool, 0..100, 0).await;
    until(|| world.receiver.ids().len() >= 100).await;
    until(|| spool.shared.cursor.position() == Seq::new(101)).await;
    world.receiver.set_down(true);
    submit(&spool, 100..200, 0).await;
    world.crash();
    die(spool).await;
    world.receiver.set_down(false);
    let spool = world.open();
    until(|| world.receiver.ids().len() >= 200).await;
    assert_eq!(numbers(&world.receiver.ids()), (0..200).collect::<Vec<_>>());
    shut_down(spool).await;
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_in_bytes_the_oldest_go_counted_and_named() {
    let named = Named::of_process();
    let mut world = world(SinkMode::Batch);
    world.options.max_bytes = 1 << 20;
    world.receiver.set_down(true);
    let spool = world.open();
    for round in 0..30 {
        submit(&spool, round * 100..(round + 1) * 100, 1000).await;
        // The worker looks at the bounds every second.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let metrics = spool.metrics();
    assert!(metrics.backlog_bytes <= 1 << 20, "{metrics:?}");
    assert!(world.disk.used() <= (1 << 20) + (1 << 20) + (256 << 10));
    let [(Reason::SpoolFull, evicted)] = metrics.evicted[..] else {
        panic!("{metrics:?}")
    };
    assert_eq!(metrics.backlog_events + evicted, 3000);
    assert!(metrics.backlog_events > 400, "{metrics:?}");
    assert_eq!(
        world.counters.snapshot().lost,
        [("spool", Reason::SpoolFull, evicted)]
    );
    assert!(named.text().contains("id=\"0/0\""), "{}", named.text());
    world.receiver.set_down(false);
    until(|| spool.metrics().backlog_events == 0).await;
    let first = usize::try_from(evicted).unwrap();
    assert_eq!(numbers(&world.receiver.ids()), (first..3000).collect::<Vec<_>>());
    shut_down(spool).await;
}

#[tokio::test(start_paused = true)]
async fn what_waited_too_long_goes_counted() {
    let mut world = world(SinkMode::Batch);
    world.options.max_age = Duration::from_secs(3600);
    world.receiver.set_down(true);
    let spool = world.open();
    submit(&spool, 0..1000, 0).await;
    tokio::time::sleep(Duration::from_secs(1800)).await;
    submit(&spool, 1000..1100, 0).await;
    tokio::time::sleep(Duration::from_secs(1810)).await;
    let metrics = spool.metrics();
    assert_eq!(metrics.evicted, [(Reason::SpoolAge, 1000)]);
    assert_eq!(metrics.backlog_events, 100);
    assert_eq!(
        world.counters.snapshot().lost,
        [("spool", Reason::SpoolAge, 1000)]
    );
    world.receiver.set_down(false);
    until(|| world.receiver.ids().len() >= 100).await;
    assert_eq!(numbers(&world.receiver.ids()), (1000..1100).collect::<Vec<_>>());
    shut_down(spool).await;
}

#[tokio::test(start_paused = true)]
async fn damaged_records_are_counted_and_their_neighbours_delivered() {
    let world = world(SinkMode::Batch);
    world.receiver.set_down(true);
    let spool = world.open();
    submit(&spool, 0..100, 0).await;
    shut_down(spool).await;
    let paths = world.disk.paths();
    let segment = paths
        .iter()
        .find(|path| path.extension().is_some_and(|end| end == "kaj"));
    let segment = segment.unwrap();
    let content = world.disk.content(segment).unwrap();
    let at = content
        .windows(6)
        .position(|window| window == b"\"0/50\"")
        .unwrap();
    assert!(world.disk.flip(segment, u64::try_from(8 * at).unwrap()));
    world.receiver.set_down(false);
    let spool = world.open();
    until(|| spool.metrics().backlog_events == 0).await;
    let expected: Vec<usize> = (0..100).filter(|number| *number != 50).collect();
    assert_eq!(numbers(&world.receiver.ids()), expected);
    assert_eq!(spool.metrics().evicted, [(Reason::Corrupt, 1)]);
    assert_eq!(world.counters.snapshot().lost, [("spool", Reason::Corrupt, 1)]);
    shut_down(spool).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_receiver_that_is_down() {
    let world = world(SinkMode::Batch);
    world.receiver.set_down(true);
    let spool = world.open();
    submit(&spool, 0..10, 0).await;
    until(|| world.receiver.attempts() > 2).await;
    let before = tokio::time::Instant::now();
    shut_down(spool).await;
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(world.counters.snapshot().total_lost(), 0);
    world.receiver.set_down(false);
    let spool = world.open();
    shut_down(spool).await;
    assert_eq!(numbers(&world.receiver.ids()), (0..10).collect::<Vec<_>>());
}

/// Keeps what each thread logs.
#[derive(Clone, Default)]
struct Named(Arc<Mutex<HashMap<ThreadId, String>>>);

impl Named {
    /// The one of this process: with one for each test, whether a place in the code is listened to would depend
    /// on which test comes to it first.
    fn of_process() -> Self {
        static NAMED: OnceLock<Named> = OnceLock::new();
        NAMED
            .get_or_init(|| {
                let named = Self::default();
                tracing::subscriber::set_global_default(named.clone()).unwrap();
                named
            })
            .clone()
    }

    /// What this thread logged.
    fn text(&self) -> String {
        let texts = self.0.lock().unwrap();
        texts
            .get(&std::thread::current().id())
            .cloned()
            .unwrap_or_default()
    }
}

impl tracing::Subscriber for Named {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text<'a>(&'a mut String);
        impl tracing::field::Visit for Text<'_> {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!("{value:?} "));
            }
        }
        let mut texts = self.0.lock().unwrap();
        event.record(&mut Text(texts.entry(std::thread::current().id()).or_default()));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
