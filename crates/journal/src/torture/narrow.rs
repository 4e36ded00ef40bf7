//! Lives in which several things go wrong one after the other, each as short as it can be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::world::{DIR, id_of, options, payload, was_settled};
use crate::core::Core;
use crate::cursor::{self, Hold};
use crate::filesystem::simulated::{Call, Fault, SimulatedDisk};
use crate::format::DATA_AT;
use crate::queue::Queue;
use crate::{Batch, Item, OpenError, Reader, Recovery, Seq, State};

fn open(disk: &SimulatedDisk) -> Result<(Core, Recovery), OpenError> {
    crate::recovery::open(Arc::new(disk.clone()), Path::new(DIR), options())
}

fn batch(ids: std::ops::Range<u64>, length: usize) -> Batch {
    let mut batch = Batch::new();
    for id in ids {
        batch.push(None, &payload(id, length));
    }
    batch
}

/// The records that can be read, and how many numbers are in gaps.
fn read(core: &Core) -> (BTreeSet<u64>, u64) {
    let mut reader = Reader::new(Arc::clone(core.view()), core.view().oldest());
    let (mut ids, mut lost) = (BTreeSet::new(), 0);
    loop {
        match reader.next() {
            Ok(Some(Item::Record { payload, .. })) => drop(ids.insert(id_of(&payload))),
            Ok(Some(Item::Gap(gap))) => lost += gap.to.since(gap.from),
            Ok(None) => return (ids, lost),
            Err(_) => reader.skip_unreadable(),
        }
    }
}

/// A journal of four segments, the first two of which may go.
fn four_segments(disk: &SimulatedDisk) -> Core {
    let (mut core, _) = open(disk).expect("opens");
    let mut id = 1;
    while core.view().lock().segments.len() < 4 {
        core.commit(&mut [batch(id..id + 4, 4000)]).expect("commits");
        id += 4;
    }
    let third = core.view().lock().segments[2].first;
    let queue = Arc::new(Queue::new(options(), core.next(), &BTreeMap::new()));
    let cursor = cursor::open(core.view(), &queue, "a", Hold::Yes).expect("made");
    cursor.advance(third).expect("durable");
    core
}

#[test]
fn a_segment_that_went_but_not_durably_is_not_written_over() {
    for seed in 0..32 {
        let disk = SimulatedDisk::new(seed);
        let mut core = four_segments(&disk);
        disk.fail_nth(Call::SyncDir, 0, Fault::NoSpace);
        core.release().expect_err("the directory is not synced");
        let next = core.next();
        // The next segment's header is durable, and then it gets no name.
        disk.fail_nth(Call::Rename, 0, Fault::Io);
        let ids = next.get()..next.get() + 20;
        core.commit(&mut [batch(ids, 4000)]).expect_err("no segment");
        drop(core);
        let (core, recovery) = open(&disk.crash()).expect("opens");
        assert_eq!((recovery.next, read(&core).1), (next, 0), "seed {seed}");
    }
}

#[test]
fn no_segment_goes_while_the_one_before_may_come_back() {
    for seed in 0..128 {
        let disk = SimulatedDisk::new(seed);
        let mut core = four_segments(&disk);
        let next = core.next();
        disk.fail_nth(Call::SyncDir, 0, Fault::Io);
        core.release().expect_err("the directory is not synced");
        disk.fail_nth(Call::SyncDir, seed % 2, Fault::PowerOff);
        drop(core.release());
        drop(core);
        let (core, recovery) = open(&disk.crash()).expect("opens");
        assert_eq!((recovery.next, read(&core).1), (next, 0), "seed {seed}");
    }
}

/// A process ends after a sync that failed and lost some blocks, while the system believes that others of
/// them are on the disk.
fn lied_to(seed: u64) -> (SimulatedDisk, PathBuf) {
    let disk = SimulatedDisk::new(seed);
    let (mut core, _) = open(&disk).expect("opens");
    disk.fail_nth(Call::SyncData, 0, Fault::Io);
    disk.fail_nth(Call::Open, 0, Fault::Io);
    core.commit(&mut [batch(1..60, 400)])
        .expect_err("the sync failed");
    assert!(matches!(core.state(), State::Broken { .. }));
    (disk, crate::segment::path(Path::new(DIR), Seq::FIRST))
}

#[test]
fn a_block_that_cannot_be_read_keeps_none_beside_it_from_being_made_durable() {
    for seed in 0..32 {
        let (disk, path) = lied_to(seed);
        disk.spoil(&path, DATA_AT + 2 * 4096);
        let (core, recovery) = open(&disk).expect("opens");
        assert!(recovery.unreadable_blocks > 0);
        let seen = read(&core).0;
        drop(core);
        let (core, _) = open(&disk.crash()).expect("opens");
        let missing: Vec<_> = seen.difference(&read(&core).0).copied().collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?} were seen");
    }
}

#[test]
fn what_an_opening_found_is_durable_also_if_it_could_not_be_read_twice() {
    let mut failed = 0;
    for at in 0..60 {
        let (disk, _) = lied_to(3);
        let begin = disk.calls().len() as u64;
        let faults = {
            // Where the first frames are read, all at once and then their block.
            let (twin, _) = lied_to(3);
            drop(open(&twin).expect("opens"));
            let calls = twin.calls().split_off(usize::try_from(begin).expect("small"));
            let mut reads = calls.iter().enumerate().filter(|(_, call)| **call == Call::Read);
            // The first read is of the header.
            let (first, _) = reads.nth(1).expect("frames are read");
            begin + first as u64
        };
        for call in (faults..faults + 6).chain(faults + 6 + at..faults + 9 + at) {
            disk.fail_call(call, Fault::Io);
        }
        let opened = open(&disk);
        drop(disk.pause_faults());
        failed += u64::from(opened.is_err());
        let Ok((core, recovery)) = opened else { continue };
        assert!(recovery.unreadable_blocks > 0);
        let seen = read(&core).0.into_iter();
        let seen: Vec<_> = seen
            .filter(|id| was_settled(&recovery, &core, Seq::new(*id)))
            .collect();
        assert!(!seen.is_empty());
        drop(core);
        let (core, _) = open(&disk.crash()).expect("opens");
        let there = read(&core).0;
        let missing: Vec<_> = seen.iter().filter(|id| !there.contains(id)).collect();
        assert!(missing.is_empty(), "fault {at}: {missing:?} were seen");
    }
    assert!(failed > 0, "no fault hit what was to be made durable");
}

#[test]
fn a_full_disk_gives_up_its_reserve_for_what_an_opening_found_and_keeps_nothing_from_opening() {
    for (refusals, is_settled) in [(1, true), (2, false)] {
        for seed in 0..32 {
            let (disk, _) = lied_to(seed);
            for write in 0..refusals {
                disk.fail_nth(Call::Write, write, Fault::NoSpace);
            }
            let (core, recovery) = open(&disk).expect("opens");
            let seen = read(&core).0;
            if seen.is_empty() {
                continue;
            }
            assert_eq!(recovery.unsettled_bytes == 0, is_settled, "seed {seed}");
            drop(core);
            let (core, _) = open(&disk.crash()).expect("opens");
            let missing: Vec<_> = seen.difference(&read(&core).0).copied().collect();
            assert!(
                missing.is_empty() || !is_settled,
                "seed {seed}: {missing:?} were seen"
            );
        }
    }
}

#[test]
fn a_cursor_that_opening_found_but_not_durably_is_told_of_and_let_segments_go_only_when_it_is() {
    for seed in 0..64 {
        let disk = SimulatedDisk::new(seed);
        let core = four_segments(&disk);
        let next = core.next();
        let queue = Arc::new(Queue::new(options(), next, &BTreeMap::new()));
        let cursor = cursor::open(core.view(), &queue, "a", Hold::Yes).expect("there");
        disk.fail_nth(Call::SyncDir, 0, Fault::Io);
        cursor.advance(next).expect_err("its name is not synced");
        drop((cursor, core));
        // The second directory that is synced is that of the cursors.
        disk.fail_nth(Call::SyncDir, 1, Fault::NoSpace);
        let (mut core, _) = open(&disk).expect("a full disk keeps nothing from opening");
        assert!(cursor::open(core.view(), &queue, "a", Hold::Yes).is_ok());
        core.release().expect("nothing fails any more");
        let oldest = core.view().oldest();
        drop(core);
        let (core, _) = open(&disk.crash()).expect("opens");
        let at = core.view().lock().cursors["a"].at;
        assert!(at == next && oldest <= at, "seed {seed}: at {at}, told {next}");
    }
}
