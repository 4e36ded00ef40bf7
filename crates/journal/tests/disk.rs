//! A journal on the disk of the machine.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::time::Duration;

use kaudit_journal::{Batch, Hold, Item, Journal, OpenError, Options, Seq};

fn batch(records: std::ops::Range<u32>) -> Batch {
    let mut batch = Batch::new();
    for record in records {
        let mut tag = [0; 24];
        tag[..4].copy_from_slice(&record.to_le_bytes());
        batch.push(Some(tag), format!("record {record}").as_bytes());
    }
    batch
}

fn read(journal: &Journal) -> Vec<(u64, String)> {
    let mut reader = journal.reader(Seq::FIRST);
    let mut records = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record { seq, payload, .. } => {
                records.push((seq.get(), String::from_utf8(payload.to_vec()).unwrap()));
            }
            other => panic!("{other:?}"),
        }
    }
    records
}

fn expected(count: u32) -> Vec<(u64, String)> {
    (0..count)
        .map(|record| (u64::from(record) + 1, format!("record {record}")))
        .collect()
}

#[test]
fn what_was_acknowledged_is_read_back_also_after_opening_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, recovery) = Journal::open(dir.path(), Options::default()).unwrap();
    assert_eq!((recovery.records, recovery.next), (0, Seq::FIRST));
    let mut first = batch(0..3);
    first.mark(b"tail", b"17").unwrap();
    let ticket = journal.append(first).unwrap();
    assert_eq!(ticket.first_seq(), Seq::FIRST);
    assert_eq!(ticket.wait().unwrap(), Seq::FIRST..Seq::new(4));
    journal.append(batch(3..5)).unwrap().wait().unwrap();
    assert_eq!(journal.durable(), Seq::new(6));
    assert_eq!(read(&journal), expected(5));
    let cursor = journal.cursor("store", Hold::Yes).unwrap();
    cursor.advance(Seq::new(4)).unwrap();
    journal.close();

    let (journal, recovery) = Journal::open(dir.path(), Options::default()).unwrap();
    assert_eq!(
        (recovery.records, recovery.next, recovery.cut_bytes),
        (5, Seq::new(6), 0)
    );
    assert_eq!(recovery.marks[b"tail".as_slice()], b"17");
    assert_eq!(read(&journal), expected(5));
    assert_eq!(
        journal.cursor("store", Hold::Yes).unwrap().position(),
        Seq::new(4)
    );
    let tags: Vec<_> = journal.tags().collect();
    assert_eq!(tags.len(), 1);
    assert_eq!(tags[0].tags.as_ref().unwrap().len(), 5);
    journal.append(batch(5..6)).unwrap().wait().unwrap();
    assert_eq!(read(&journal), expected(6));
    assert_eq!(journal.verify().records, 6);
    let durable = journal.wait_durable_timeout(Seq::new(6), Duration::from_secs(60));
    assert_eq!(durable, Seq::new(7));
}

#[test]
fn a_second_opener_is_told_who_has_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), Options::default()).unwrap();
    let error = Journal::open(dir.path(), Options::default()).unwrap_err();
    let pid = std::process::id();
    assert!(
        matches!(error, OpenError::Locked { pid: Some(found), .. } if found == pid),
        "{error}"
    );
    let path = dir.path().join("LOCK");
    let text = format!(
        "the journal is in use: {} is locked by process {pid}",
        path.display()
    );
    assert_eq!(error.to_string(), text);
    drop(journal);
    Journal::open(dir.path(), Options::default()).unwrap();
}
