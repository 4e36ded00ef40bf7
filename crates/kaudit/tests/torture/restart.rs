//! From the start of the process to the first event taken, with a large journal.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kaudit_event::record::{RecordHead, Transport};
use kaudit_journal::{Batch, Journal, Options};

use crate::events::{self, Name};
use crate::place::{self, Place, Process, Setting, post};
use crate::scale::{Random, count, report};

/// What is aimed at with 10 GB; an apiserver gives up after 81 s.
const GOAL: Duration = Duration::from_secs(5);

/// Records of a batch.
const BATCH: usize = 1000;

/// Fills a journal with so many bytes of events.
fn make(data: &std::path::Path, bytes: u64, random: &mut Random) -> u64 {
    let mut options = Options::default();
    options.max_bytes = 64 << 30;
    options.reserve_bytes = 0;
    let (journal, _) = Journal::open(&data.join("journal"), options).unwrap();
    let head = RecordHead {
        cluster: "c",
        source: "webhook",
        instance: "i",
        seq: 0,
        received_micros: 1,
        transport: Transport::Webhook,
        tail: None,
        matched_rule: None,
    };
    let mut record = Vec::new();
    head.write(&mut record).unwrap();
    record.extend_from_slice(
        Name {
            stream: 800,
            number: 1,
        }
        .line()
        .as_bytes(),
    );
    record.resize(1500, b' ');
    let mut records = 0;
    let mut ticket = None;
    while records * 1500 < bytes {
        let mut batch = Batch::with_capacity(BATCH * 1600);
        for _ in 0..BATCH {
            let mut tag = [0; 24];
            for eight in tag.chunks_mut(8) {
                eight.copy_from_slice(&random.next().to_le_bytes());
            }
            batch.push(Some(tag), &record);
        }
        records += u64::try_from(BATCH).unwrap();
        // One batch is written while the next is made.
        if let Some(before) = ticket.replace(journal.append(batch).unwrap()) {
            before.wait().unwrap();
        }
    }
    ticket.unwrap().wait().unwrap();
    journal.close();
    records
}

fn first_200(place: &Place, number: u64) -> (Process, Duration) {
    let begun = Instant::now();
    let process = place.start();
    let sender = place.sender(process.collector);
    let list = Bytes::from(events::list([Name { stream: 801, number }]));
    let told = place::runtime().block_on(post(&sender, "c", list));
    assert_eq!(told.map(|told| told.status), Some(200));
    (process, begun.elapsed())
}

#[test]
fn with_a_large_journal_a_start_is_short() {
    let mebibytes = count("KAUDIT_TORTURE_JOURNAL_MIB", 64, 2048);
    let mut random = Random::of_test("restart");
    let place = Place::new(&Setting {
        journal: "64Gi",
        ..Setting::default()
    });
    let records = make(&place.data, mebibytes << 20, &mut random);
    let (process, after_end) = first_200(&place, 1);
    let memory = process.memory().1;
    process.kill();
    let (process, after_kill) = first_200(&place, 2);
    process.stop();
    report("restart", "journal", format!("{mebibytes} MiB, {records} events"));
    report(
        "restart",
        "start to first 200 after an end in order",
        format!("{} ms", after_end.as_millis()),
    );
    report(
        "restart",
        "start to first 200 after kill -9",
        format!("{} ms", after_kill.as_millis()),
    );
    report("restart", "memory", format!("{} MiB", memory >> 20));
    assert!(
        after_end < GOAL && after_kill < GOAL,
        "{after_end:?}, {after_kill:?}"
    );
}
