//! S-1 over crashes: whatever step is the last, the next process has every event once.

use kaudit_event::record::{RecordHead, Transport};
use kaudit_journal::{Batch, Journal};
use kaudit_query::Filter;

use crate::{Compaction, Options, Order, Scan, Store};

pub(crate) const NOW: i64 = 1_795_000_000_000_000;

pub(crate) fn append(journal: &Journal, count: u64) {
    let mut batch = Batch::new();
    for number in 0..count {
        let head = RecordHead {
            cluster: "c",
            source: "s",
            instance: "i",
            seq: 0,
            received_micros: NOW,
            transport: Transport::File,
            tail: None,
            matched_rule: None,
        };
        let mut record = Vec::new();
        head.write(&mut record).unwrap();
        let (hour, first) = (number % 2, journal.durable().get());
        record.extend_from_slice(
            format!(
                r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{first}-{number}","stage":"ResponseComplete","requestURI":"/","verb":"get","user":{{"username":"u"}},"requestReceivedTimestamp":"2026-11-20T0{hour}:00:00.000001Z","stageTimestamp":"2026-11-20T0{hour}:00:00.000002Z"}}"#
            )
            .as_bytes(),
        );
        batch.push(None, &record);
    }
    // And one that is no record.
    batch.push(None, b"\x09");
    journal.append(batch).unwrap().wait().unwrap();
}

/// The numbers of all events, and what the manifest counts.
pub(crate) fn check(store: &Store, journaled: u64, rejected: u64) {
    let snapshot = store.snapshot();
    let page = snapshot
        .page(&Scan::new(Filter::everything()), Order::OldestFirst, 10_000, None)
        .unwrap();
    let mut seqs: Vec<u64> = page.events.iter().map(|event| event.position.seq).collect();
    seqs.sort_unstable();
    let found = seqs.len();
    seqs.dedup();
    assert_eq!(seqs.len(), found, "no event twice");
    assert_eq!(found as u64, journaled - rejected);
    let manifest = store.manifest();
    let rows: u64 = manifest.parts.iter().map(|part| part.rows).sum();
    assert_eq!(rows, manifest.counts.sealed);
    assert!(snapshot.verify().unwrap().findings.is_empty());
}

pub(crate) fn small_journal() -> kaudit_journal::Options {
    let mut options = kaudit_journal::Options::default();
    options.segment_bytes = 1 << 20;
    options.reserve_bytes = 0;
    options
}

#[test]
fn every_event_is_there_once_whatever_step_of_sealing_or_compacting_is_the_last() {
    let mut reached_the_end = false;
    for fault in 1..60 {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&dir.path().join("journal"), small_journal()).unwrap();
        let root = dir.path().join("store");
        append(&journal, 40);
        let crashed = {
            let store = Store::open(&root, Options::default()).unwrap();
            let cursor = store.cursor(&journal).unwrap();
            store.faults.set(fault);
            store.catch_up(&journal).unwrap();
            let sealed = store.seal(&cursor, NOW);
            let compacted = sealed.and_then(|_| store.compact(&Compaction::before(i64::MAX), NOW).map(drop));
            reached_the_end |= store.faults.is_left();
            compacted.is_err()
        };
        assert_eq!(crashed, !reached_the_end, "at step {fault}");
        let store = Store::open(&root, Options::default()).unwrap();
        let cursor = store.cursor(&journal).unwrap();
        store.catch_up(&journal).unwrap();
        check(&store, 41, 1);
        store.seal(&cursor, NOW).unwrap();
        check(&store, 41, 1);
        assert_eq!(cursor.position(), journal.durable());
        append(&journal, 9);
        store.catch_up(&journal).unwrap();
        check(&store, 51, 2);
        store.seal(&cursor, NOW).unwrap();
        store.compact(&Compaction::before(i64::MAX), NOW).unwrap();
        check(&store, 51, 2);
        assert_eq!(store.manifest().counts.rejected.get("not_a_record"), Some(&2));
        if reached_the_end {
            return;
        }
    }
    panic!("the end was not reached");
}
