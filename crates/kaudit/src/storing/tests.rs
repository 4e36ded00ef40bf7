//! The threads with a journal and a store of their own.

use std::path::Path;
use std::time::{Duration, Instant};

use kaudit_event::record::{RecordHead, Transport};
use kaudit_journal::{Batch, Journal, Seq};
use kaudit_query::Filter;
use kaudit_store::{Options, Order, Retention, Scan, Store};

use super::*;

/// 2026-11-22T12:00:00Z.
const NOON: i64 = 1_795_348_800_000_000;
const DAY: i64 = 86_400_000_000;

/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn journal(folder: &Path) -> Journal {
    let mut options = kaudit_journal::Options::default();
    options.segment_bytes = 1 << 20;
    options.reserve_bytes = 0;
    options.linger = Duration::ZERO;
    Journal::open(&folder.join("journal"), options).unwrap().0
}

fn store(folder: &Path) -> Store {
    let mut options = Options::default();
    options.tail_bytes = 64 << 10;
    Store::open(&folder.join("store"), options).unwrap()
}

fn append(journal: &Journal, names: std::ops::Range<usize>) {
    let mut batch = Batch::new();
    for name in names {
        let head = RecordHead {
            cluster: "c",
            source: "audit.log",
            instance: "cp-1",
            seq: 0,
            received_micros: NOON,
            transport: Transport::File,
            tail: None,
            matched_rule: None,
        };
        let mut record = Vec::new();
        head.write(&mut record).unwrap();
        let event = format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{name}","stage":"ResponseComplete","requestURI":"/","verb":"get","user":{{"username":"alice"}},"requestReceivedTimestamp":"2026-11-22T11:59:59.000000Z","stageTimestamp":"2026-11-22T12:00:00.000000Z"}}"#
        );
        record.extend_from_slice(event.as_bytes());
        batch.push(None, &record);
    }
    journal.append(batch).unwrap().wait().unwrap();
}

/// The numbers of all events that a view has, in order.
fn numbers(snapshot: &Snapshot) -> Vec<u64> {
    let scan = Scan::new(Filter::everything());
    let page = snapshot.page(&scan, Order::OldestFirst, 100_000, None).unwrap();
    let mut numbers: Vec<u64> = page.events.iter().map(|event| event.position.seq).collect();
    numbers.sort_unstable();
    numbers
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not so after {LONG:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn settings(seal_after: Duration) -> Settings {
    Settings {
        seal_after,
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_durable_is_in_the_next_view_and_those_who_follow_hear_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let storing = Storing::start(store(folder.path()), &journal, settings(LONG)).unwrap();
    let mut grown = storing.grown();
    for round in 0..20 {
        append(&journal, round * 10..round * 10 + 10);
        let (snapshot, freshness) = storing.snapshot().await;
        assert_eq!(freshness, Freshness::Current);
        assert_eq!(numbers(&snapshot).len(), round * 10 + 10);
    }
    assert_eq!(*grown.wait_for(|to| *to == 201).await.unwrap(), 201);
    journal.close();
    storing.end();
    assert_eq!(
        storing.store().manifest().sealed_to,
        201,
        "the end seals what is left"
    );
    assert!(storing.threads().is_empty());
    let (snapshot, freshness) = storing.snapshot().await;
    assert_eq!((numbers(&snapshot).len(), freshness), (200, Freshness::Current));
}

#[tokio::test(start_paused = true)]
async fn a_view_that_is_waited_for_in_vain_says_how_far_it_is_behind() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    append(&journal, 0..7);
    let storing = Storing::new(store(folder.path()), Some(journal), Settings::default());
    let (snapshot, freshness) = storing.snapshot().await;
    assert_eq!(freshness, Freshness::Behind { records: 7 });
    assert!(numbers(&snapshot).is_empty());
    assert_eq!(storing.report().lag_records, 7);
}

#[test]
fn a_full_memory_and_old_events_are_sealed_and_the_journal_may_let_them_go() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    append(&journal, 0..1000);
    let storing = Storing::start(store(folder.path()), &journal, settings(LONG)).unwrap();
    until("a full memory is sealed", || {
        storing.store().manifest().sealed_to > 1
    });
    until("everything is read", || storing.report().lag_records == 0);
    journal.close();
    storing.end();

    let again = self::journal(folder.path());
    drop(storing);
    let short = settings(Duration::from_millis(50));
    let storing = Storing::start(store(folder.path()), &again, short).unwrap();
    append(&again, 1000..1001);
    until("an old event is sealed", || {
        storing.store().manifest().sealed_to == 1002
    });
    until("the cursor has moved", || {
        again.cursors().iter().any(|(_, at, _)| *at == Seq::new(1002))
    });
    assert_eq!(
        numbers(&storing.store().snapshot()),
        (1..1002).collect::<Vec<_>>()
    );
    assert!(storing.checks().iter().all(|check| check.is_good));
    again.close();
    storing.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_durable_while_events_are_sealed_is_seen_before_that_ends() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    // Who opens a pipe to write to it waits until somebody reads: so long the seal takes.
    let hour = folder.path().join("store/cluster=c/dt=2026-11-22/hour=12");
    std::fs::create_dir_all(&hour).unwrap();
    let storing = Storing::start(
        store(folder.path()),
        &journal,
        settings(Duration::from_millis(10)),
    )
    .unwrap();
    std::fs::create_dir_all(&hour).unwrap();
    let pipe = hour.join("part-00000000000000000001.parquet.tmp");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    append(&journal, 0..10);
    until("the seal has begun", || storing.store().is_sealing());
    for round in 1..10 {
        append(&journal, round * 10..round * 10 + 10);
        let (snapshot, freshness) = storing.snapshot().await;
        assert_eq!(freshness, Freshness::Current);
        let seen = numbers(&snapshot);
        assert_eq!(seen, (1..=u64::try_from(seen.len()).unwrap()).collect::<Vec<_>>());
        assert_eq!(seen.len(), round * 10 + 10);
        assert!(storing.store().is_sealing(), "it still waits");
    }
    assert_eq!(storing.report().sealed_to, 1);
    drop(std::fs::File::open(&pipe).unwrap());
    // A pipe cannot be synced: the seal fails and is done again.
    until("all is sealed", || storing.report().sealed_to == 101);
    let all: Vec<u64> = (1..101).collect();
    assert_eq!(numbers(&storing.store().snapshot()), all);
    journal.close();
    storing.end();
}

#[test]
fn a_merge_ends_when_the_process_is_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let store = store(folder.path());
    let cursor = store.cursor(&journal).unwrap();
    for round in 0..2 {
        append(&journal, round..round + 1);
        store.catch_up(&journal).unwrap();
        store.seal(&cursor, NOON).unwrap();
    }
    let storing = Storing::new(store, Some(journal), Settings::default());
    storing.0.ending.begin(Haste::InOrder);
    assert!(
        !upkeep::compact(&storing.0, NOON + DAY, NOON + DAY),
        "it is to be done another time"
    );
    assert_eq!(storing.report().stats.files, 2);
    assert!(storing.report().failing.is_empty(), "that is no failure");
}

#[test]
fn what_cannot_be_sealed_stays_in_the_journal_is_shown_and_is_sealed_later() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let storing = Storing::start(
        store(folder.path()),
        &journal,
        settings(Duration::from_millis(10)),
    )
    .unwrap();
    // No folder can be made where a file lies.
    let in_the_way = folder.path().join("store/cluster=c");
    std::fs::write(&in_the_way, "").unwrap();
    append(&journal, 0..1000);
    until("the failure is shown", || {
        storing.checks().iter().any(|check| {
            !check.is_good && check.text.starts_with("store/sealing ") && check.text.contains("cluster=c")
        })
    });
    let report = storing.report();
    assert_eq!(report.failing, [Doing::Sealing]);
    assert!(report.figures.errors[&(Doing::Sealing, "io")] > 0);
    assert_eq!(report.sealed_to, 1);
    assert_eq!(journal.cursors().first().map(|(_, at, _)| *at), Some(Seq::FIRST));
    std::fs::remove_file(&in_the_way).unwrap();
    until("it is sealed", || storing.report().sealed_to == 1001);
    until("all is well", || storing.report().failing.is_empty());
    assert_eq!(
        numbers(&storing.store().snapshot()),
        (1..1001).collect::<Vec<_>>()
    );
    journal.close();
    storing.end();
}

#[test]
fn who_is_in_a_hurry_waits_for_nothing_and_the_journal_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    append(&journal, 0..5);
    let storing = Storing::start(store(folder.path()), &journal, settings(LONG)).unwrap();
    storing.hurry();
    journal.close();
    storing.end();
    until("the threads have ended", || {
        storing.0.ending.wait_for_all(Duration::ZERO)
    });
    drop(storing);
    let journal = self::journal(folder.path());
    let storing = Storing::start(store(folder.path()), &journal, settings(LONG)).unwrap();
    until("it is read again", || storing.report().lag_records == 0);
    assert_eq!(numbers(&storing.store().snapshot()), [1, 2, 3, 4, 5]);
    journal.close();
    storing.end();
}

#[test]
fn past_days_are_merged_once_a_day_and_what_is_too_old_goes() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let store = store(folder.path());
    let cursor = store.cursor(&journal).unwrap();
    for round in 0..2 {
        append(&journal, round..round + 1);
        store.catch_up(&journal).unwrap();
        store.seal(&cursor, NOON).unwrap();
    }
    let mut retention = Retention::default();
    retention.max_age = Some(3 * DAY);
    let settings = Settings {
        retention,
        ..Settings::default()
    };
    let storing = Storing::new(store, Some(journal), settings);
    let mut merged = None;
    let files = || storing.report().stats.files;
    // Half an hour after midnight senders may still be late.
    upkeep::look(&storing.0, NOON + DAY / 2 + DAY / 48, &mut merged);
    assert_eq!(files(), 2);
    upkeep::look(&storing.0, NOON + DAY, &mut merged);
    assert_eq!(files(), 1);
    let figures = storing.report().figures;
    assert_eq!((figures.compacted_files, figures.compacted_into_files), (2, 1));
    upkeep::look(&storing.0, NOON + 4 * DAY, &mut merged);
    assert_eq!(files(), 0);
    assert_eq!(storing.report().counts.expired["age"], 2);
}

#[test]
fn a_panic_is_a_failure_that_is_counted() {
    let health = Health::default();
    let failed = health.attempt(Doing::Reading, || -> Result<(), StoreError> { panic!("odd") });
    assert_eq!(failed, Err(health::Failed));
    assert_eq!(
        health.troubles(),
        [(Doing::Reading, "a defect in the store: odd".to_owned())]
    );
    health.attempt(Doing::Reading, || Ok(())).unwrap();
    assert!(health.troubles().is_empty());
    assert_eq!(health.figures().errors[&(Doing::Reading, "panic")], 1);
}

#[tokio::test]
async fn a_store_that_nobody_adds_to_is_always_current() {
    let folder = tempfile::tempdir().unwrap();
    let storing = Storing::idle(store(folder.path()));
    let (snapshot, freshness) = storing.snapshot().await;
    assert_eq!((snapshot.tail_rows(), freshness), (0, Freshness::Current));
    storing.end();
}
