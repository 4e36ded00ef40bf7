//! A disk that fills up and is freed.

use std::time::{Duration, Instant};

use crate::events::{self, Name};
use crate::load::Load;
use crate::log::LogWriter;
use crate::mount::{Mount, fill};
use crate::oracle::Stored;
use crate::place::{self, PATIENCE, Place, Setting, post};
use crate::scale::{Random, count, report, until};

const DISK: u64 = 160 << 20;

/// It takes events again within this time after there is space.
const RESUMES: Duration = Duration::from_secs(5);

/// Posts that are refused before the disk is freed.
const REFUSALS: u64 = 100;

#[test]
fn on_a_full_disk_senders_wait_and_when_it_is_freed_nothing_is_lost() {
    let lives = count("KAUDIT_TORTURE_FULL", 1, 20);
    let mut random = Random::of_test("full");
    let (mut fills, mut slowest, mut refused, mut events) = (0, Duration::ZERO, 0, 0);
    for _ in 0..lives {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = Mount::memory(&folder.path().join("disk"), DISK) else {
            return;
        };
        let log = folder.path().join("audit.log");
        let setting = Setting {
            journal: "32Mi",
            min_free: "2Mi",
            files: vec![("c".to_owned(), log.clone())],
            ..Setting::default()
        };
        let data = disk.at.join("data");
        let place = Place::with_data(folder, data, &setting);
        let mut process = place.start();
        let mut load = Load::start(place.cluster(), 4, 60, random.next());
        load.goes_to(Some(process.collector));
        let mut writer = LogWriter::start(&log);
        for _ in 0..2 {
            load.wait_acked(1 + random.below(500), PATIENCE, || process.said.text());
            let ballast = disk.at.join("ballast");
            fill(&ballast);
            let told_later = |load: &Load| load.answers().get(&429).copied().unwrap_or_default();
            let before = told_later(&load);
            until("posts are told to come again", PATIENCE, || {
                told_later(&load) >= before + REFUSALS
            });
            let stray = Name {
                stream: 900,
                number: fills,
            };
            let list = bytes::Bytes::from(events::list([stray]));
            let sender = place.sender(process.collector);
            let told = place::runtime().block_on(post(&sender, "c", list)).unwrap();
            assert_eq!((told.status, told.retry_after.as_deref()), (429, Some("1")));
            assert!(process.ended().is_none(), "it ended");
            until("the tail says that it waits", PATIENCE, || {
                let page = process.page("/readyz?verbose");
                page.contains("[-]journal disk full") && page.contains("file reading waits: disk_full")
            });
            assert!(process.metric("kaudit_journal_ready", " ") < 0.5);
            assert!(process.metric("kaudit_receiver_requests_total", "disk_full") >= 1.0);
            assert!(process.metric("kaudit_source_held_back_total", "transport=\"file\"") >= 1.0);
            std::fs::remove_file(&ballast).unwrap();
            let freed = Instant::now();
            load.wait_acked(1, RESUMES, || process.said.text());
            slowest = slowest.max(freed.elapsed());
            until("the journal is ready", RESUMES, || {
                process.page("/readyz?verbose").contains("[+]journal ready")
            });
            fills += 1;
        }
        load.finish();
        writer.finish();
        process.wait_until_read();
        process.stop();
        let stored = Stored::read(&place.data);
        stored.holds("posted", load.names());
        stored.holds("log", writer.names());
        assert_eq!(
            stored.records,
            load.acked() + writer.written(),
            "what was refused and never brought again is stored"
        );
        refused += load.answers().get(&429).copied().unwrap_or_default();
        events += stored.records;
    }
    report("full disk", "filled and freed", fills);
    report("full disk", "posts told 429", refused);
    report("full disk", "events, all stored once", events);
    report(
        "full disk",
        "slowest first 200 after space",
        format!("{} ms", slowest.as_millis()),
    );
}
