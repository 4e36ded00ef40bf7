use std::path::Path;

use kaudit_event::record::{Record, Transport};
use kaudit_journal::filesystem::simulated::{Fault, SimulatedDisk};
use kaudit_journal::{Item, Journal, Options};
use kaudit_sink::conformance::{self, Subject};

use super::*;
use crate::arrival::Keys;
use crate::intake::IntakeOptions;
use crate::quarantine::Quarantine;
use crate::source::Way;

struct World {
    folder: tempfile::TempDir,
    disk: SimulatedDisk,
    intake: Intake,
    counters: Arc<Counters>,
}

fn world(options: Options) -> World {
    let folder = tempfile::tempdir().unwrap();
    let disk = SimulatedDisk::new(1);
    let (journal, _) = Journal::open_on(disk.clone(), Path::new("/journal"), options).unwrap();
    let quarantine = Quarantine::open(folder.path(), 1 << 20).unwrap();
    let intake = Intake::new(journal, Keys::new([1; 32]), quarantine, IntakeOptions::default()).unwrap();
    World {
        folder,
        disk,
        intake,
        counters: Arc::default(),
    }
}

fn small() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 1 << 20;
    options.max_bytes = 64 << 20;
    options.reserve_bytes = 0;
    options.min_free_bytes = 0;
    options
}

impl World {
    fn sink(&self, mode: SinkMode) -> JournalSink {
        let origin = Origin {
            cluster: "prod".parse().unwrap(),
            instance: "gw-1".parse().unwrap(),
            transport: Way::Gateway,
            path: String::new(),
        };
        let options = JournalSinkOptions {
            mode,
            ..JournalSinkOptions::default()
        };
        JournalSink::new(self.intake.clone(), &origin, Arc::clone(&self.counters), options).unwrap()
    }

    fn records(&self) -> Vec<Record> {
        let mut reader = self.intake.journal().reader(self.intake.journal().oldest());
        let mut records = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            let Item::Record { payload, .. } = item else {
                panic!("{item:?}")
            };
            records.push(Record::read(&payload).unwrap());
        }
        records
    }
}

fn audit_id(record: &Record) -> String {
    let event = kaudit_event::Event::from_json_line(&record.event).unwrap();
    event.audit_id.to_string()
}

#[test]
fn the_contract_holds_in_every_mode() {
    for mode in [SinkMode::Batch, SinkMode::Blocking, SinkMode::BlockingStrict] {
        conformance::check(|| {
            let world = Arc::new(world(small()));
            let read = Arc::clone(&world);
            Subject {
                sink: Arc::new(world.sink(mode)),
                counters: Arc::clone(&world.counters),
                kept: Box::new(move || {
                    let ids: Vec<String> = read.records().iter().map(audit_id).collect();
                    assert_eq!(read.counters.snapshot().kept, ids.len() as u64);
                    ids
                }),
            }
        });
    }
}

#[test]
fn an_event_is_kept_as_the_line_of_the_gateway() {
    let world = world(small());
    let sink = world.sink(SinkMode::BlockingStrict);
    let event = conformance::event(0, 0);
    let emission = Emission::new(&event).by_rule(Some(2));
    sink.submit(&emission, &mut Reservation::none()).wait().unwrap();
    let records = world.records();
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record.transport, Transport::Gateway);
    assert_eq!(record.matched_rule, Some(2));
    assert_eq!(
        (
            record.cluster.as_str(),
            record.instance.as_str(),
            record.source.as_str()
        ),
        ("prod", "gw-1", "gateway")
    );
    assert_eq!([&record.event[..], b"\n"].concat(), emission.line().unwrap());
    assert_eq!(world.counters.snapshot().kept, 1);
    assert!(world.folder.path().exists());
}

#[test]
fn submitting_returns_although_the_disk_is_stuck() {
    let mut options = small();
    options.queue_bytes = 16 << 10;
    // Nothing is committed for a minute.
    options.linger = Duration::from_secs(60);
    options.commit_share = u32::MAX;
    let world = world(options);
    let first = world
        .intake
        .journal()
        .append(kaudit_journal::Batch::new())
        .unwrap();
    first.wait().unwrap();
    conformance::check_never_blocks(Arc::new(world.sink(SinkMode::BlockingStrict)));
}

#[test]
fn a_disk_that_fails_refuses_in_strict_mode_and_is_counted_in_all() {
    for (mode, is_refused) in [
        (SinkMode::Batch, false),
        (SinkMode::Blocking, false),
        (SinkMode::BlockingStrict, true),
    ] {
        let world = world(small());
        let sink = world.sink(mode);
        world.disk.fail_at_random(Some((1, Fault::Io)));
        let event = conformance::event(0, 0);
        let end = sink
            .submit(&Emission::new(&event), &mut Reservation::none())
            .wait();
        assert_eq!(end.is_err(), is_refused, "{mode:?}");
        sink.shutdown();
        let snapshot = world.counters.snapshot();
        assert_eq!((snapshot.kept, snapshot.total_lost()), (0, 1), "{mode:?}");
        assert_eq!(snapshot.lost[0].1, Reason::Write);
        world.disk.fail_at_random(None);
    }
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_the_mode_answers() {
    let mut options = small();
    options.queue_bytes = 3 * rooms::EVENT_BYTES;
    let world = world(options);
    let strict = world.sink(SinkMode::BlockingStrict);
    let Reserve::Ready(held) = strict.reserve(3) else {
        panic!("there is room for three")
    };
    let Reserve::Wait(room) = strict.reserve(1) else {
        panic!("strict waits")
    };
    assert_eq!(room.await.unwrap_err()[0].reason, Reason::QueueFull);
    let blocking = world.sink(SinkMode::Blocking);
    let Reserve::Wait(room) = blocking.reserve(1) else {
        panic!("blocking waits")
    };
    room.await.unwrap();
    let batch = world.sink(SinkMode::Batch);
    assert!(matches!(batch.reserve(1), Reserve::Ready(_)));
    assert_eq!(world.intake.journal().stats().reserved_bytes, 3 * 4096);
    drop(held);
    assert_eq!(world.intake.journal().stats().reserved_bytes, 0);
    assert_eq!(strict.rooms.taken.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn reservations_leave_most_of_the_queue_to_others() {
    let world = world(small());
    let sink = world.sink(SinkMode::BlockingStrict);
    let watches: Vec<Reserve> = (0..10_000).map(|_| sink.reserve(3)).collect();
    assert!(watches.iter().all(|reserve| matches!(reserve, Reserve::Ready(_))));
    let reserved = world.intake.journal().stats().reserved_bytes;
    assert!(reserved <= 8 << 20 && reserved > 7 << 20);
}
