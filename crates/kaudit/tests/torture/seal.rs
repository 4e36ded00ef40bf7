//! Killed again and again while it seals.
//!
//! The journal is small, so that segments go when they are sealed, and so is the memory, so that there is always a
//! file that is being written.

use std::time::Duration;

use crate::load::Load;
use crate::mount::{Mount, fill};
use crate::oracle::Stored;
use crate::place::{PATIENCE, Place, Setting};
use crate::scale::{Random, count, report, until};

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

#[test]
fn on_a_full_disk_sealing_waits_and_when_it_is_freed_everything_is_in_the_files_once() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Mount::memory(&folder.path().join("disk"), 160 << 20) else {
        return;
    };
    let data = disk.at.join("data");
    let setting = Setting {
        journal: "64Mi",
        min_free: "2Mi",
        store: Some("{tailMemory: 1Mi, sealAfter: 50ms}"),
        ..Setting::default()
    };
    let place = Place::with_data(folder, data, &setting);
    let mut process = place.start();
    let mut random = Random::of_test("seal-full");
    let mut load = Load::start(place.cluster(), 4, 60, random.next());
    load.goes_to(Some(process.collector));
    for _ in 0..2 {
        load.wait_acked(1 + random.below(500), PATIENCE, || process.said.text());
        let ballast = disk.at.join("ballast");
        until("it is shown that sealing fails", PATIENCE, || {
            // The journal gives back what is sealed, and that would be room enough for many files.
            fill(&ballast);
            process.page("/readyz?verbose").contains("[-]store/sealing ")
        });
        assert!(process.metric("kaudit_store_errors_total", "disk_full") >= 1.0);
        assert!(process.ended().is_none(), "it ended");
        std::fs::remove_file(&ballast).unwrap();
        until("it seals again", PATIENCE, || {
            process.metric("kaudit_store_working", "sealing") > 0.5
        });
    }
    load.finish();
    process.stop();
    let stored = Stored::sealed(&place.data);
    stored.holds("posted", load.names());
    assert_eq!(stored.records, load.acked(), "something else is stored");
    report(
        "full disk while sealing",
        "events, all in files once",
        stored.records,
    );
}
