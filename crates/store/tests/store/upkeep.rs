//! Compaction, retention, verification, bounds.

use std::time::Duration;

use kaudit_event::MicroTime;
use kaudit_journal::{Journal, Seq};
use kaudit_query::{Column, Filter};
use kaudit_store::{
    Class, Compaction, Completeness, Finding, LegalHold, Options, Order, Origin, Retention, Scan, Store,
    StoreError,
};

use crate::bed::{Bed, DAY, NOW, options, small_journal};

/// An event at a time of 2026-11-20 and later.
fn event(day: u32, hour: u32, verb: &str, user: &str) -> Vec<u8> {
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-{day}-{hour}-{verb}","stage":"ResponseComplete","requestURI":"/api/v1/pods","verb":"{verb}","user":{{"username":"{user}"}},"objectRef":{{"resource":"pods","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":200}},"requestReceivedTimestamp":"2026-11-{day:02}T{hour:02}:00:00.000001Z","stageTimestamp":"2026-11-{day:02}T{hour:02}:00:00.000002Z"}}"#
    )
    .into_bytes()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text, MicroTime::from_unix(NOW / 1_000_000, 0)).unwrap()
}

/// 2026-11-24T00:00:00Z.
const LATER: i64 = 1_795_478_400_000_000;

/// Two days with two hours of three events each, sealed.
fn two_days() -> Bed {
    let bed = Bed::new();
    for day in [20, 21] {
        for hour in [3, 4] {
            for (verb, user) in [("get", "alice"), ("delete", "alice"), ("get", "bob")] {
                bed.take("c", [event(day, hour, verb, user).as_slice()]);
            }
            bed.seal();
        }
    }
    bed
}

#[test]
fn a_day_becomes_one_file_and_the_old_ones_go() {
    let bed = two_days();
    let before = bed.all();
    let first = bed.store.manifest().parts[0].clone();
    assert_eq!(first.origin, Origin::Sealed);
    assert!(first.path.starts_with("cluster=c/dt=2026-11-20/hour=03/part-"));
    let old = bed.store.snapshot();
    let done = bed.store.compact(&Compaction::before(LATER), NOW).unwrap();
    assert_eq!((done.removed.len(), done.added.len()), (4, 2));
    let first = bed.store.manifest().parts[0].clone();
    assert!(first.path.starts_with("cluster=c/dt=2026-11-20/hour=all/part-"));
    assert!(bed.all() == before);
    let everything = Scan::new(Filter::everything());
    assert_eq!(
        old.count(&everything).unwrap().0,
        12,
        "who looks at the old files has them"
    );
    drop(old);
    let again = bed.store.compact(&Compaction::before(LATER), NOW).unwrap();
    assert!(again.added.is_empty());
    for part in &done.removed {
        assert!(!bed.dir.path().join("store").join(&part.path).exists());
    }
    assert!(bed.store.snapshot().verify().unwrap().findings.is_empty());
}

#[test]
fn a_merge_that_is_ended_early_leaves_every_day_merged_or_as_it_was() {
    let asked = |most: usize| {
        let bed = two_days();
        let before = bed.all();
        let asked = std::cell::Cell::new(0);
        let is_over = || {
            asked.set(asked.get() + 1);
            asked.get() > most
        };
        let done = bed
            .store
            .compact_until(&Compaction::before(LATER), NOW, &is_over)
            .unwrap();
        assert_eq!(done.is_ended_early, asked.get() > most);
        assert_eq!(done.removed.len(), done.added.len() * 2, "a day has two files");
        assert!(bed.all() == before, "after {most} questions");
        let verified = bed.store.snapshot().verify().unwrap();
        assert!(verified.findings.is_empty(), "{:?}", verified.findings);
        let files = walk(&bed.dir.path().join("store"));
        let parts = bed.store.manifest().parts.len();
        assert_eq!(files, parts, "nothing is left that the manifest does not name");
        let rest = bed.store.compact(&Compaction::before(LATER), NOW).unwrap();
        assert_eq!(done.added.len() + rest.added.len(), 2);
        assert!(bed.all() == before);
        (asked.get(), done.added.len())
    };
    let (all, days) = asked(usize::MAX);
    assert_eq!(days, 2);
    // Two files and their two groups, read twice, and the group that is written, of each day.
    assert!(all >= 2 * 7, "{all}");
    for most in 0..all {
        assert_eq!(
            asked(most).1,
            usize::from(most >= all / 2),
            "after {most} of {all}"
        );
    }
}

/// The Parquet files below a folder, whole or not.
fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => walk(&path),
            false => usize::from(path.to_string_lossy().contains(".parquet")),
        })
        .sum()
}

#[test]
fn old_events_go_but_for_what_a_class_or_a_hold_keeps() {
    let bed = two_days();
    let mut retention = Retention::default();
    // What is before 2026-11-21.
    retention.max_age = Some(3 * DAY);
    retention.classes.push(Class {
        name: "deletes".to_owned(),
        filter: filter("verb: delete"),
        max_age: 5 * 365 * DAY,
    });
    retention.holds.push(LegalHold {
        name: "case-7".to_owned(),
        filter: filter("user.username: bob"),
    });
    let expiring = bed.store.snapshot().expiring(&retention, LATER).unwrap();
    let kept: u64 = expiring.iter().map(|file| file.kept_rows).sum();
    let rows: u64 = expiring.iter().map(|file| file.part.rows).sum();
    assert_eq!((rows - kept, expiring[0].reason), (2, "age"));
    let done = bed.store.retain(&retention, LATER).unwrap();
    assert_eq!(done.expired_rows, 2);
    let removed: Vec<&str> = done.removed.iter().map(|part| part.path.as_str()).collect();
    let foretold: Vec<&str> = expiring.iter().map(|file| file.part.path.as_str()).collect();
    assert_eq!(removed, foretold);
    let manifest = bed.store.manifest();
    assert_eq!(manifest.counts.expired.get("age"), Some(&2));
    let rows: u64 = manifest.parts.iter().map(|part| part.rows).sum();
    assert_eq!(manifest.counts.sealed, rows + 2);
    assert_eq!(bed.all().len(), 10);
    let kept = bed.page(
        filter("stageTimestamp < 2026-11-21"),
        Order::OldestFirst,
        100,
        None,
    );
    assert_eq!(kept.events.len(), 4);
    let again = bed.store.retain(&retention, LATER).unwrap();
    assert!(again.removed.is_empty(), "what is settled is not written again");
    retention.holds.clear();
    let lifted = bed.store.retain(&retention, LATER).unwrap();
    assert_eq!(lifted.expired_rows, 2);
}

#[test]
fn what_goes_is_ended_early_at_the_next_file_and_leaves_each_as_it_was() {
    let asked = |most: usize| {
        let bed = two_days();
        let mut retention = Retention::default();
        retention.max_age = Some(DAY);
        retention.holds.push(LegalHold {
            name: "case-7".to_owned(),
            filter: filter("user.username: bob"),
        });
        // A manifest that is held would keep its files.
        let before = (*bed.store.manifest()).clone();
        let asked = std::cell::Cell::new(0);
        let is_over = || {
            asked.set(asked.get() + 1);
            asked.get() > most
        };
        let done = bed.store.retain_until(&retention, LATER, &is_over).unwrap();
        assert_eq!(done.is_ended_early, asked.get() > most);
        let manifest = bed.store.manifest();
        let as_it_was = before.parts.iter().filter(|part| manifest.parts.contains(part));
        assert_eq!(as_it_was.count() + done.removed.len(), before.parts.len());
        let rows: u64 = manifest.parts.iter().map(|part| part.rows).sum();
        assert_eq!(rows + done.expired_rows, before.counts.sealed);
        let verified = bed.store.snapshot().verify().unwrap();
        assert!(verified.findings.is_empty(), "{:?}", verified.findings);
        assert_eq!(walk(&bed.dir.path().join("store")), manifest.parts.len());
        // The rest goes the next time.
        let rest = bed.store.retain(&retention, LATER).unwrap();
        (asked.get(), done.removed.len(), rest.removed.len())
    };
    let (all, files, _) = asked(usize::MAX);
    // Before each file and before its row group.
    assert_eq!(all, 2 * files);
    for most in 0..all {
        assert_eq!(
            asked(most),
            (most + 1, most / 2, files - most / 2),
            "after {most} of {all}"
        );
    }
}

#[test]
fn the_oldest_go_when_there_is_too_much() {
    let bed = two_days();
    let mut retention = Retention::default();
    let manifest = bed.store.manifest();
    let bytes: u64 = manifest.parts.iter().map(|part| part.bytes).sum();
    retention.max_bytes = Some(bytes - 1);
    let done = bed.store.retain(&retention, LATER).unwrap();
    assert_eq!(done.removed.len(), 1);
    assert_eq!(done.removed[0].path, manifest.parts[0].path);
    assert_eq!(bed.store.manifest().counts.expired.get("size"), Some(&3));
}

#[test]
fn what_is_held_is_not_written_again_and_again_for_want_of_room() {
    let bed = two_days();
    let mut retention = Retention::default();
    retention.max_bytes = Some(0);
    retention.max_age = Some(DAY);
    retention.classes.push(Class {
        name: "deletes".to_owned(),
        filter: filter("verb: delete"),
        max_age: 5 * 365 * DAY,
    });
    retention.holds.push(LegalHold {
        name: "case-7".to_owned(),
        filter: filter("user.username: bob"),
    });
    bed.store.retain(&retention, LATER).unwrap();
    let held = bed.all().len();
    assert!(held > 0);
    assert!(
        bed.store
            .snapshot()
            .expiring(&retention, LATER)
            .unwrap()
            .is_empty()
    );
    let again = bed.store.retain(&retention, LATER).unwrap();
    assert!(again.removed.is_empty());
    retention.holds.clear();
    assert!(
        !bed.store
            .snapshot()
            .expiring(&retention, LATER)
            .unwrap()
            .is_empty()
    );
    bed.store.retain(&retention, LATER).unwrap();
    assert_eq!(bed.all().len(), 0);
}

#[test]
fn a_changed_file_and_a_changed_manifest_are_found() {
    let bed = two_days();
    let root = bed.dir.path().join("store");
    let part = bed.store.manifest().parts[1].clone();
    let path = root.join(&part.path);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let manifest = root.join("manifest/00000000000000000002.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"at\":", "\"at\": ")).unwrap();
    let verified = bed.store.snapshot().verify().unwrap();
    assert_eq!((verified.files, verified.versions), (3, 4));
    assert!(
        matches!(&verified.findings[..], [Finding::Changed { path, .. }, Finding::BrokenChain { version: 3 }] if *path == part.path),
        "{:?}",
        verified.findings
    );
}

#[test]
fn one_process_writes_and_others_read() {
    let bed = two_days();
    let root = bed.dir.path().join("store");
    assert!(matches!(
        Store::open(&root, options()),
        Err(StoreError::Locked { .. })
    ));
    let reader = Store::open_to_read(&root, Options::default()).unwrap();
    let everything = Scan::new(Filter::everything());
    assert_eq!(reader.snapshot().count(&everything).unwrap().0, 12);
    assert!(matches!(
        reader.compact(&Compaction::before(LATER), NOW),
        Err(StoreError::ReadOnly)
    ));
    bed.take("c", [event(22, 1, "get", "eve").as_slice()]);
    bed.seal();
    reader.refresh().unwrap();
    assert_eq!(reader.snapshot().count(&everything).unwrap().0, 13);
}

#[test]
fn a_journal_that_was_made_anew_is_refused_unless_it_goes_on_counting() {
    let bed = two_days();
    let folder = bed.dir.path().join("other");
    let (other, _) = Journal::open(&folder, small_journal()).unwrap();
    assert!(matches!(
        bed.store.cursor(&other),
        Err(StoreError::OtherJournal { sealed_to: 13, .. })
    ));
    let mut going_on = small_journal();
    going_on.first_seq = Seq::new(13);
    let (other, _) = Journal::open(&bed.dir.path().join("third"), going_on).unwrap();
    assert!(bed.store.cursor(&other).is_ok());
}

#[test]
fn time_and_manifest_leave_files_unopened() {
    let bed = two_days();
    let snapshot = bed.store.snapshot();
    let scan = Scan::new(filter("stageTimestamp >= 2026-11-21 and verb: delete"));
    let (count, stats) = snapshot.count(&scan).unwrap();
    assert_eq!((count, stats.files, stats.files_opened), (2, 4, 2));
    let scan = Scan::new(filter("auditID: a-20-3-get"));
    let (count, stats) = snapshot.count(&scan).unwrap();
    assert_eq!(
        (count, stats.groups_read),
        (2, 1),
        "bloom filters leave the others out"
    );
    let newest = snapshot
        .page(&Scan::new(Filter::everything()), Order::NewestFirst, 2, None)
        .unwrap();
    assert!(newest.stats.files_opened <= 2);
    let none = Scan::new(Filter::everything()).of_clusters(vec!["other".to_owned()]);
    assert_eq!(snapshot.count(&none).unwrap().1.files_opened, 0);
}

#[test]
fn records_by_number_are_found_in_files_and_tail_and_others_stay_closed() {
    let bed = two_days();
    bed.take("c", [br#"{"kind":"Event","auditID":"x"}"#.as_slice()]);
    bed.catch_up();
    let snapshot = bed.store.snapshot();
    let all: Vec<u64> = bed.all().iter().map(|event| event.position.seq).collect();
    for (start, end) in [(0, 3), (2, 9), (all.len() as u64, u64::MAX), (5, 5)] {
        let scan = Scan::new(Filter::everything()).of_seqs(start..end);
        let (count, stats) = snapshot.count(&scan).unwrap();
        let expected = all.iter().filter(|seq| (start..end).contains(seq)).count();
        assert_eq!(count, expected as u64, "{start}..{end}");
        assert!(stats.files_opened < stats.files, "{start}..{end}");
    }
}

#[test]
fn a_scan_that_may_not_go_on_says_so() {
    let bed = two_days();
    let snapshot = bed.store.snapshot();
    let scan = Scan::new(Filter::everything()).within(Duration::ZERO);
    let page = snapshot.page(&scan, Order::NewestFirst, 10, None).unwrap();
    assert_eq!(page.stats.completeness, Completeness::TimeUp);
    let scan = Scan::new(Filter::everything());
    scan.cancel.cancel();
    assert_eq!(
        snapshot.count(&scan).unwrap().1.completeness,
        Completeness::Cancelled
    );
}

#[test]
fn a_page_ends_where_its_memory_ends() {
    let bed = two_days();
    let mut scan = Scan::new(Filter::everything());
    scan.memory_budget = 1000;
    let page = bed
        .store
        .snapshot()
        .page(&scan, Order::OldestFirst, 10, None)
        .unwrap();
    assert_eq!(page.events.len(), 2);
    assert_eq!(page.next, Some(page.events[1].position));
}

#[test]
fn volumes_and_forecast_follow_from_what_is_stored() {
    let bed = two_days();
    let snapshot = bed.store.snapshot();
    let (by_user, _) = snapshot
        .volume_by(&Scan::new(Filter::everything()), &Column::UserUsername)
        .unwrap();
    let found: Vec<_> = by_user
        .iter()
        .map(|of| (of.value.as_deref(), of.volume.events))
        .collect();
    assert_eq!(found, [(Some("alice"), 8), (Some("bob"), 4)]);
    let stats = snapshot.stats();
    assert_eq!((stats.files, stats.sealed.events, stats.days.len()), (4, 12, 2));
    assert_eq!(stats.forecast(10), Some(stats.days[0].stored_bytes * 10));
}

#[test]
fn a_store_that_lost_its_manifest_is_not_taken_for_a_new_one() {
    let bed = two_days();
    let folder = bed.dir.path().join("store/manifest");
    let part = bed
        .dir
        .path()
        .join("store")
        .join(&bed.store.manifest().parts[0].path);
    let Bed { store, dir, .. } = bed;
    drop(store);
    std::fs::remove_dir_all(&folder).unwrap();
    let error = Store::open(&dir.path().join("store"), options()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(part.exists(), "nothing is removed");
}
