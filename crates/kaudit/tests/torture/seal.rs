//! Killed again and again while it seals.
//!
//! The journal is small, so that segments go when they are sealed, and so is the memory, so that there is always a
//! file that is being written.

use std::time::Duration;

use crate::load::Load;
use crate::oracle::Stored;
use crate::place::{PATIENCE, Place, Setting};
use crate::scale::{Random, count, report};

const CONNECTIONS: u32 = 6;

#[test]
fn what_was_acknowledged_is_in_the_files_once_however_often_the_process_is_killed() {
    let cycles = count("KAUDIT_TORTURE_CYCLES", 8, 200);
    let mut random = Random::of_test("seal");
    let place = Place::new(&Setting {
        journal: "16Mi",
        min_free: "1Mi",
        store: Some("{tailMemory: 256Ki, sealAfter: 20ms}"),
        ..Setting::default()
    });
    let mut load = Load::start(place.cluster(), CONNECTIONS, 40, random.next());
    for cycle in 0..cycles {
        let spawned = place.spawn();
        if cycle % 5 == 4 {
            // While it reads the journal again.
            random.pause(Duration::from_millis(150));
            spawned.kill();
            continue;
        }
        let process = spawned
            .serve()
            .unwrap_or_else(|(status, said)| panic!("does not start again: {status}\n{}", said.text()));
        load.goes_to(Some(process.collector));
        load.wait_acked(1 + random.below(3000), PATIENCE, || process.said.text());
        random.pause(Duration::from_millis(30));
        process.kill();
        load.goes_to(None);
    }
    let process = place.start();
    load.goes_to(Some(process.collector));
    load.finish();
    process.stop();
    let stored = Stored::sealed(&place.data);
    stored.holds("posted", load.names());
    assert_eq!(stored.records, load.acked(), "something else is stored");
    report("kill -9 while sealing", "kills", cycles);
    report("kill -9 while sealing", "events in files", stored.records);
    report("kill -9 while sealing", "lost, doubled", "0, 0");
}

#[test]
fn a_journal_that_was_lost_is_made_anew_behind_what_is_sealed() {
    let place = Place::new(&Setting {
        store: Some("{sealAfter: 20ms}"),
        ..Setting::default()
    });
    let mut random = Random::of_test("anew");
    let mut acked = 0;
    for _ in 0..2 {
        if acked > 0 {
            std::fs::remove_dir_all(place.data.join("journal")).unwrap();
        }
        let process = place.start();
        let mut load = Load::start(place.cluster(), 2, 40, random.next());
        load.goes_to(Some(process.collector));
        load.wait_acked(100, PATIENCE, || process.said.text());
        load.finish();
        process.stop();
        acked += load.acked();
    }
    // Both times the same events come, which a journal without its past cannot know.
    assert_eq!(Stored::sealed(&place.data).records, acked);
}
