//! Each call of a fixed life failed once in each way, and single bits of each kind flipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::world::{DIR, id_of, options, payload, tag_of};
use crate::core::{Core, Failure};
use crate::cursor::{self, Hold};
use crate::filesystem::simulated::{Fault, SimulatedDisk};
use crate::format::{COPY_AT, DATA_AT, FRAME_BYTES, HEADER_BYTES};
use crate::queue::Queue;
use crate::segment::Scan;
use crate::segment::Step;
use crate::{Batch, Item, OpenError, Options, Reader, Recovery, Seq, State};

fn open(disk: &SimulatedDisk, options: &Options) -> Result<(Core, Recovery), OpenError> {
    crate::recovery::open(Arc::new(disk.clone()), Path::new(DIR), options.clone())
}

fn batch(ids: std::ops::Range<u64>, length: usize) -> Batch {
    let mut batch = Batch::new();
    let last = ids.end - 1;
    for id in ids {
        batch.push(Some(tag_of(id)), &payload(id, length));
    }
    batch.mark(b"at", &last.to_le_bytes()).expect("small");
    batch
}

/// The records and how many are in gaps.
fn read(core: &Core) -> (Vec<u64>, u64) {
    let mut reader = Reader::new(Arc::clone(core.view()), core.view().oldest());
    let (mut ids, mut lost) = (Vec::new(), 0);
    while let Some(item) = reader.next().expect("no fault is on") {
        match item {
            Item::Record { payload, .. } => ids.push(id_of(&payload)),
            Item::Gap(gap) => lost += gap.to.since(gap.from),
        }
    }
    (ids, lost)
}

/// What was acknowledged in a life.
#[derive(Default)]
struct Told {
    acknowledged: Vec<u64>,
    failed_for_good: BTreeSet<u64>,
    mark: u64,
    cursor: u64,
}

/// Two lives with several segments, a cursor, a release, a close: every kind of call comes up.
fn live(disk: &SimulatedDisk, options: &Options) -> Told {
    let mut told = Told::default();
    let mut id = 1;
    for life in 0..2 {
        let Ok((mut core, _)) = open(disk, options) else {
            continue;
        };
        let queue = Arc::new(Queue::new(options.clone(), core.next(), &BTreeMap::new()));
        for group in 0..14 {
            let ids = id..id + 3;
            id = ids.end;
            let outcome = core.commit(&mut [batch(ids.clone(), 3000 + 100 * group)]);
            match outcome {
                Ok(()) => {
                    told.mark = ids.end - 1;
                    told.acknowledged.extend(ids);
                }
                Err(_) if matches!(core.state(), State::Broken { .. }) => {}
                Err(_) => told.failed_for_good.extend(ids),
            }
            core.heal();
            match group {
                4 => drop(core.rest()),
                8 => {
                    if let Ok(cursor) = cursor::open(core.view(), &queue, "a", Hold::Yes)
                        && cursor.advance(core.next()).is_ok()
                    {
                        told.cursor = core.next().get();
                    }
                }
                11 => drop(core.release()),
                _ => {}
            }
        }
        if life == 0 {
            core.close();
        }
    }
    told
}

fn check(disk: &SimulatedDisk, options: &Options, told: &Told, what: &str) {
    // One that waits for a call that did not come up.
    drop(disk.pause_faults());
    let (mut core, recovery) = open(disk, options).unwrap_or_else(|error| panic!("{what}: I3: {error:?}"));
    let (ids, _) = read(&core);
    let kept: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(kept.len(), ids.len(), "{what}: once each");
    assert!(ids.is_sorted(), "{what}: in order");
    let oldest = ids.first().copied().unwrap_or(u64::MAX);
    for id in told.acknowledged.iter().filter(|id| **id >= oldest) {
        assert!(kept.contains(id), "{what}: J-1: record {id} was acknowledged");
    }
    if told.cursor == 0 {
        assert!(
            told.acknowledged.first().is_none_or(|first| kept.contains(first)),
            "{what}: nothing was released"
        );
    }
    let again: Vec<_> = told.failed_for_good.intersection(&kept).collect();
    assert!(again.is_empty(), "{what}: {again:?} failed for good");
    let mark = recovery.marks.get(b"at".as_slice()).map_or(0, |mark| {
        u64::from_le_bytes(mark.as_slice().try_into().expect("8 bytes"))
    });
    assert!(mark >= told.mark, "{what}: mark {mark} after {}", told.mark);
    assert!(
        mark == told.mark || kept.contains(&mark),
        "{what}: I2: mark {mark}"
    );
    let cursor = core
        .view()
        .lock()
        .cursors
        .get("a")
        .map_or(0, |cursor| cursor.at.get());
    assert!(
        cursor >= told.cursor,
        "{what}: the cursor was at {} and is at {cursor}",
        told.cursor
    );
    let next = core.next();
    core.commit(&mut [batch(9000..9003, 100)])
        .unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
    assert_eq!(core.next(), next.plus(3));
}

#[test]
fn every_call_may_fail_once_in_every_way() {
    let options = options();
    let calls = {
        let disk = SimulatedDisk::new(1);
        let told = live(&disk, &options);
        assert_eq!(told.acknowledged.len(), 84);
        assert!(told.cursor > 0);
        check(&disk, &options, &told, "no fault");
        disk.calls()
    };
    let kinds: BTreeSet<_> = calls.iter().copied().collect();
    assert!(kinds.len() >= 16, "{kinds:?} are too few kinds of calls");
    for fault in [Fault::Io, Fault::NoSpace, Fault::PowerOff] {
        for (number, call) in calls.iter().enumerate() {
            for seed in 0..if fault == Fault::PowerOff { 4 } else { 1 } {
                let what = format!("{fault:?} at call {number}, {call:?}, seed {seed}");
                let disk = SimulatedDisk::new(seed);
                disk.fail_call(number as u64, fault);
                let told = live(&disk, &options);
                if fault != Fault::PowerOff {
                    let few = 84 - told.acknowledged.len();
                    // A call at opening may cost that life, any other only a group.
                    assert!(few <= 3 || few == 42, "{what}: {few} records were refused");
                    check(&disk, &options, &told, &format!("{what}, killed"));
                }
                check(&disk.crash(), &options, &told, &format!("{what}, power cut"));
            }
        }
    }
}

/// Files of a journal, and how its frames lie.
struct Still {
    files: Vec<(PathBuf, Vec<u8>)>,
    records: u64,
}

fn still(is_closed: bool) -> Still {
    let (disk, options) = (SimulatedDisk::new(3), options());
    let (mut core, _) = open(&disk, &options).expect("opens");
    for group in 0..12_u64 {
        let ids = 1 + group * 4..5 + group * 4;
        core.commit(&mut [batch(ids, 2900)]).expect("commits");
    }
    core.rest().expect("rests");
    let records = core.next().get() - 1;
    if is_closed {
        core.close();
    }
    drop(core);
    let is_of_journal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "kaj");
    let files = disk.paths().into_iter().filter(is_of_journal);
    let files = files
        .map(|path| (path.clone(), disk.content(&path).expect("there")))
        .collect();
    Still { files, records }
}

/// Bits of a segment: all of both headers and of every frame's header, some of every payload.
fn bits(bytes: &[u8], first: Seq) -> BTreeSet<u64> {
    let header = crate::format::SegmentHeader::decode(bytes).expect("whole");
    let disk = SimulatedDisk::new(0);
    disk.put(Path::new("/f"), bytes);
    let file = crate::filesystem::Filesystem::open(&disk, Path::new("/f")).expect("there");
    let mut scan = Scan::new(file, header.salt, first, Seq::END, bytes.len() as u64);
    let mut bits = BTreeSet::new();
    let mut add =
        |from: u64, bytes: u64, step: usize| bits.extend((from * 8..(from + bytes) * 8).step_by(step));
    add(0, HEADER_BYTES as u64, 1);
    add(COPY_AT, HEADER_BYTES as u64, 1);
    let mut frames = 0;
    while let Step::Frame { header, offset, .. } = scan.step(Seq::new(0)).expect("no fault is on") {
        // The frames of a group are alike: every bit of some, a few of each.
        let step = if frames < 4 { 1 } else { 37 };
        add(offset, FRAME_BYTES as u64, step);
        add(
            offset + FRAME_BYTES as u64,
            header.size() - FRAME_BYTES as u64,
            4999,
        );
        frames += 1;
    }
    add(DATA_AT - 8, 8, 1);
    bits
}

#[test]
fn a_flipped_bit_of_a_closed_journal_costs_one_record_at_most_and_is_noticed() {
    flip_each_bit(true);
}

#[test]
fn a_flipped_bit_of_a_killed_journal_costs_one_record_at_most_and_is_noticed() {
    flip_each_bit(false);
}

fn flip_each_bit(is_closed: bool) {
    let still = still(is_closed);
    assert_eq!(still.files.len(), 3);
    for (path, bytes) in &still.files {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let first = crate::segment::first_of(name).expect("a segment");
        for bit in bits(bytes, first) {
            let what = format!("closed {is_closed}, bit {bit} of {name}");
            let disk = SimulatedDisk::new(0);
            for (path, bytes) in &still.files {
                disk.put(path, bytes);
            }
            assert!(disk.flip(path, bit));
            let (mut core, recovery) = open(&disk, &options()).expect("I3");
            let (ids, lost) = read(&core);
            let missing = still.records - ids.len() as u64;
            assert!(missing <= 1, "{what}: {missing} records");
            assert!(
                lost == missing || missing == 1 && recovery.cut_bytes > 0,
                "{what}: unnoticed"
            );
            let mark = u64::from_le_bytes(
                recovery.marks[b"at".as_slice()]
                    .as_slice()
                    .try_into()
                    .expect("8 bytes"),
            );
            assert!(
                mark <= still.records && mark + 4 >= still.records,
                "{what}: mark {mark}"
            );
            let next = core.next();
            assert!(next.get() + missing > still.records, "{what}: next {next}");
            core.commit(&mut [batch(9000..9001, 10)]).expect("goes on");
        }
    }
}

#[test]
fn a_reader_that_was_past_a_record_never_misses_a_new_one_with_its_number() {
    let (disk, options) = (SimulatedDisk::new(3), options());
    let (mut core, _) = open(&disk, &options).expect("opens");
    core.commit(&mut [batch(1..4, 100)]).expect("commits");
    let queue = Arc::new(Queue::new(options.clone(), core.next(), &BTreeMap::new()));
    let cursor = cursor::open(core.view(), &queue, "a", Hold::Yes).expect("made");
    cursor.advance(Seq::new(4)).expect("durable");
    drop((cursor, core));
    // The last record and all behind it is lost after it was read.
    let path = crate::segment::path(Path::new(DIR), Seq::FIRST);
    let mut bytes = disk.content(&path).expect("there");
    let at = bytes
        .windows(16)
        .position(|there| *there == payload(3, 16))
        .expect("the record");
    bytes[at..].fill(0);
    disk.put(&path, &bytes);
    let (mut core, recovery) = open(&disk, &options).expect("opens");
    assert_eq!((recovery.next, recovery.gaps.len()), (Seq::new(4), 1));
    core.commit(&mut [batch(4..5, 100)]).expect("commits");
    let (ids, lost) = read(&core);
    assert_eq!((ids, lost), (vec![1, 2, 4], 1));
}

#[test]
fn the_numbers_end_and_nothing_wraps() {
    let disk = SimulatedDisk::new(3);
    let options = Options {
        first_seq: Seq::new(u64::MAX - 4),
        ..options()
    };
    let (mut core, recovery) = open(&disk, &options).expect("opens");
    assert_eq!(recovery.next, Seq::new(u64::MAX - 4));
    core.commit(&mut [batch(1..4, 100)]).expect("commits");
    let queue = Queue::new(options.clone(), core.next(), &BTreeMap::new());
    let rejected = queue
        .append(batch(4..6, 10), 0)
        .expect_err("two numbers are not left");
    assert_eq!(rejected.reason, crate::Reject::SequenceEnd);
    assert!(queue.append(batch(4..5, 10), 0).is_ok());
    assert!(queue.append(Batch::new(), 0).is_ok(), "a barrier needs no number");
    core.commit(&mut [batch(4..5, 100)]).expect("commits");
    assert_eq!(core.next(), Seq::END);
    drop(core);
    let (core, recovery) = open(&disk, &options).expect("opens");
    assert_eq!((recovery.next, read(&core).0), (Seq::END, vec![1, 2, 3, 4]));
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    let (disk, options) = (SimulatedDisk::new(3), options());
    let (mut core, _) = open(&disk, &options).expect("opens");
    core.commit(&mut [batch(1..4, 3000)]).expect("commits");
    disk.set_capacity(Some(disk.used()));
    let mut acknowledged = 3;
    let failure = loop {
        let ids = acknowledged + 1..acknowledged + 4;
        match core.commit(&mut [batch(ids, 3000)]) {
            Ok(()) => acknowledged += 3,
            Err(failure) => break failure,
        }
    };
    assert!(matches!(failure, Failure::DiskFull { .. }), "{failure:?}");
    assert!(matches!(core.state(), State::DiskFull { .. }));
    // The reserve was given up, so cursors still move.
    let queue = Arc::new(Queue::new(options.clone(), core.next(), &BTreeMap::new()));
    let cursor = cursor::open(core.view(), &queue, "a", Hold::Yes).expect("made");
    cursor.advance(Seq::new(2)).expect("moves");
    assert!(!core.heal(), "the reserve's own space is no space");
    assert!(!core.heal());
    disk.set_capacity(None);
    assert!(core.heal());
    core.commit(&mut [batch(acknowledged + 1..acknowledged + 4, 3000)])
        .expect("commits");
    assert_eq!(read(&core), ((1..acknowledged + 4).collect(), 0));
}

#[test]
fn a_block_that_cannot_be_read_stops_a_reader_until_it_is_told_to_pass() {
    let still = still(true);
    let (path, bytes) = &still.files[0];
    let disk = SimulatedDisk::new(0);
    for (path, bytes) in &still.files {
        disk.put(path, bytes);
    }
    let record = bytes
        .windows(16)
        .position(|there| *there == payload(5, 16))
        .expect("the record");
    let (core, _) = open(&disk, &options()).expect("opens");
    // The payload's middle: what is before and behind is in other blocks.
    let at = (record + 2900).next_multiple_of(4096) - 4096;
    disk.spoil(path, at as u64);
    let mut reader = Reader::new(Arc::clone(core.view()), Seq::FIRST);
    let (mut ids, mut lost, mut errors) = (Vec::new(), 0, 0);
    loop {
        match reader.next() {
            Ok(Some(Item::Record { payload, .. })) => ids.push(id_of(&payload)),
            Ok(Some(Item::Gap(gap))) => lost += gap.to.since(gap.from),
            Ok(None) => break,
            Err(error) => {
                assert_eq!(error.seq, reader.position());
                errors += 1;
                assert!(reader.next().is_err(), "it stays where it is");
                reader.skip_unreadable();
            }
        }
    }
    assert!((1..=2).contains(&lost), "{lost} records touch the block");
    assert_eq!(ids.len() as u64 + lost, still.records);
    assert!((1..=2).contains(&errors));
    let verified = crate::verify::verify(Reader::new(Arc::clone(core.view()), Seq::FIRST));
    assert_eq!((verified.records, verified.gaps.len()), (still.records - lost, 1));
}

#[test]
fn opening_gives_up_nothing_that_cannot_be_read_just_now() {
    let still = still(false);
    let disk = SimulatedDisk::new(0);
    for (path, bytes) in &still.files {
        disk.put(path, bytes);
    }
    let (path, bytes) = &still.files[2];
    let record = bytes
        .windows(16)
        .position(|there| *there == payload(still.records, 16))
        .expect("the last");
    disk.spoil(path, record as u64);
    let (mut core, recovery) = open(&disk, &options()).expect("opens");
    assert!(recovery.unreadable_blocks > 0 && recovery.next.get() > still.records + 1);
    core.commit(&mut [batch(9000..9001, 10)]).expect("goes on");
    drop(core);
    // The block can be read again.
    let (core, _) = open(&disk.crash(), &options()).expect("opens");
    let (ids, lost) = read(&core);
    assert_eq!(ids, (1..=still.records).chain([9000]).collect::<Vec<_>>());
    assert!(lost > 0, "numbers that might have been there are a gap");
}

#[test]
fn without_its_own_list_of_marks_a_segment_has_those_of_the_one_before() {
    let still = still(true);
    let disk = SimulatedDisk::new(0);
    for (path, bytes) in &still.files {
        disk.put(path, bytes);
    }
    let (mut core, _) = open(&disk, &options()).expect("opens");
    let mut other = Batch::new();
    other.mark(b"other", b"1").expect("small");
    core.commit(&mut [other]).expect("commits");
    let path = crate::segment::path(Path::new(DIR), core.next());
    drop(core);
    assert!(disk.flip(&path, (DATA_AT + 40) * 8), "a bit of the snapshot");
    let (_, recovery) = open(&disk, &options()).expect("opens");
    assert_eq!(recovery.marks.len(), 2, "{:?}", recovery.marks);
}
