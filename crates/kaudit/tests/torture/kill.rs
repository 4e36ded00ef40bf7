//! Killed again and again under load.
//!
//! A cycle ends at a random moment: after a random number of acknowledged events and a random wait of up to
//! 30 ms, or while the process is still opening its journal. The wait between two kills is what is tried here.

use std::time::Duration;

use crate::load::Load;
use crate::log::LogWriter;
use crate::oracle::Stored;
use crate::place::{PATIENCE, Place, Setting};
use crate::scale::{Random, count, report};

/// Every so many cycles rotated files are removed, once they are read.
const DRAINED: u64 = 2;

/// Connections of senders.
const CONNECTIONS: u32 = 6;

#[test]
fn what_was_acknowledged_or_written_to_the_log_is_kept_once_however_often_the_process_is_killed() {
    let cycles = count("KAUDIT_TORTURE_CYCLES", 8, 400);
    let mut random = Random::of_test("kill");
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("audit.log");
    let place = Place::new(&Setting {
        journal: "8Gi",
        files: vec![("c".to_owned(), log.clone())],
        ..Setting::default()
    });
    let mut load = Load::start(place.cluster(), CONNECTIONS, 40, random.next());
    let mut writer = LogWriter::start(&log);
    let (mut serving, mut opening) = (0_u64, 0_u64);
    let mut slowest = Duration::ZERO;
    while serving + opening < cycles {
        let begun = std::time::Instant::now();
        let spawned = place.spawn();
        if random.below(5) == 0 {
            random.pause(Duration::from_millis(150));
            spawned.kill();
            opening += 1;
            continue;
        }
        let process = spawned
            .serve()
            .unwrap_or_else(|(status, said)| panic!("does not start again: {status}\n{}", said.text()));
        slowest = slowest.max(begun.elapsed());
        load.goes_to(Some(process.collector));
        load.wait_acked(1 + random.below(1000), PATIENCE, || process.said.text());
        random.pause(Duration::from_millis(30));
        if serving % DRAINED == DRAINED - 1 {
            writer.remove_read(|| process.wait_until_read());
        }
        let said = process.said.clone();
        process.kill();
        load.goes_to(None);
        assert!(!said.text().contains("events are missing"), "{}", said.text());
        serving += 1;
    }
    let process = place.start();
    load.goes_to(Some(process.collector));
    load.finish();
    writer.finish();
    process.wait_until_read();
    process.stop();
    let stored = Stored::read(&place.data);
    stored.holds("posted", load.names());
    stored.holds("log", writer.names());
    let lines = writer.written();
    assert_eq!(stored.records, load.acked() + lines, "something else is stored");
    let answers = load.answers();
    report("kill -9 under load", "kills while serving", serving);
    report("kill -9 under load", "kills while starting", opening);
    report("kill -9 under load", "events acknowledged", load.acked());
    report(
        "kill -9 under load",
        "posts that broke and were repeated",
        answers.get(&0).unwrap_or(&0),
    );
    report("kill -9 under load", "log lines", lines);
    report("kill -9 under load", "rotations", writer.rotations());
    report("kill -9 under load", "lost, doubled", "0, 0");
    report(
        "kill -9 under load",
        "slowest start",
        format!("{} ms", slowest.as_millis()),
    );
}
