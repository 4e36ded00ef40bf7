//! One journal, its disk, and what its user was told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::core::{Core, Failure};
use crate::cursor::{self, Cursor};
use crate::filesystem::simulated::{Dice, Fault, SimulatedDisk};
use crate::format::FRAME_BYTES;
use crate::queue::Queue;
use crate::recovery;
use crate::{Batch, GapReason, Hold, Item, Options, Reader, Recovery, Seq, State, TAG_BYTES, Tag, WhenFull};

pub(super) const DIR: &str = "/journal";

/// A record's payload says which record it is, and all its bytes follow from that.
pub(super) fn payload(id: u64, length: usize) -> Vec<u8> {
    let mut out = id.to_le_bytes().repeat(length.div_ceil(8).max(1));
    out.truncate(length.max(8));
    out
}

fn pick<T: Copy>(dice: &mut Dice, choices: &[T]) -> T {
    choices[usize::try_from(dice.below(choices.len() as u64)).expect("small")]
}

pub(super) fn tag_of(id: u64) -> Tag {
    let mut tag = [7; TAG_BYTES];
    tag[..8].copy_from_slice(&id.to_le_bytes());
    tag
}

pub(super) fn id_of(bytes: &[u8]) -> u64 {
    let id = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    assert_eq!(
        bytes,
        payload(id, bytes.len()),
        "J-3: record {id} is not what was appended"
    );
    id
}

pub(super) fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        max_bytes: 512 << 10,
        reserve_bytes: 16 << 10,
        min_free_bytes: 0,
        ..Options::default()
    }
}

/// Whether the opening came to see the record `seq`, which a reader found since, and made it durable.
pub(super) fn was_settled(opened: &Recovery, core: &Core, seq: Seq) -> bool {
    if opened.unsettled_bytes > 0 || opened.unreadable_blocks == 0 {
        return opened.unsettled_bytes == 0;
    }
    // Behind what was found so many numbers are passed over as might be there.
    let (bytes, mut end) = {
        let kept = core.view().lock();
        (kept.segments.back().map_or(0, |last| last.bytes()), opened.next)
    };
    let mut is_in_gap = false;
    for gap in &opened.gaps {
        is_in_gap |= (gap.from..gap.to).contains(&seq);
        if gap.to == opened.next && gap.reason == GapReason::Missing {
            end = gap.from;
        }
    }
    !is_in_gap && seq.plus(bytes / FRAME_BYTES as u64) < end
}

/// A batch as the model remembers it.
#[derive(Clone, Debug)]
struct Sent {
    ids: Vec<u64>,
    mark: Option<u64>,
}

pub(super) struct World {
    dice: Dice,
    disk: SimulatedDisk,
    options: Options,
    core: Option<Core>,
    queue: Arc<Queue>,
    /// The number of the next record.
    next: u64,
    next_id: u64,
    next_mark: u64,
    /// What must be read: number and id.
    durable: BTreeMap<u64, u64>,
    /// What was removed for want of space.
    dropped: BTreeMap<u64, u64>,
    /// Numbers that a reader found and the opening did not settle: they may go at the next crash.
    fickle: BTreeSet<u64>,
    /// What may be read after a crash, once, and nothing else.
    unsure: BTreeMap<u64, Sent>,
    unsure_ids: BTreeSet<u64>,
    /// The last mark that was acknowledged.
    mark: u64,
    /// One that could not be read at an opening.
    hidden_mark: u64,
    cursors: BTreeMap<&'static str, (u64, Hold)>,
    /// Where they were at the last call that was done: they never go back further.
    told: BTreeMap<&'static str, u64>,
    is_faulty: bool,
    trace: u64,
    pub(super) is_talking: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let disk = SimulatedDisk::new(dice.roll());
        let mut options = options();
        options.first_seq = Seq::new(match dice.below(4) {
            0 => (1 << 32) - 1 - dice.below(100),
            1 => u64::MAX - 100_000 - dice.below(100),
            _ => 1,
        });
        if dice.hits(4) {
            options.when_full = WhenFull::DropOldest;
        }
        let queue = Arc::new(Queue::new(options.clone(), Seq::FIRST, &BTreeMap::new()));
        Self {
            dice,
            disk,
            options,
            core: None,
            queue,
            next: 0,
            next_id: 1,
            next_mark: 1,
            durable: BTreeMap::new(),
            dropped: BTreeMap::new(),
            fickle: BTreeSet::new(),
            unsure: BTreeMap::new(),
            unsure_ids: BTreeSet::new(),
            mark: 0,
            hidden_mark: 0,
            cursors: BTreeMap::new(),
            told: BTreeMap::new(),
            is_faulty: false,
            trace: 0,
            is_talking: false,
        }
    }

    /// Lives, and answers with a number that stands for all that happened.
    pub(super) fn live(mut self) -> u64 {
        self.open();
        for _ in 0..10 + self.dice.below(30) {
            self.step();
        }
        self.calm();
        self.reopen(3);
        self.check();
        // Whatever happened, it goes on without help.
        self.disk.set_capacity(None);
        self.append();
        self.core().heal();
        let before = self.core().next();
        let mut batch = [self.batch(1)];
        if self.held_full() {
            return self.trace;
        }
        self.core()
            .commit(&mut batch)
            .expect("a journal on a disk that works");
        assert_eq!(self.core().next(), before.plus(1));
        self.trace
    }

    fn held_full(&self) -> bool {
        self.core
            .as_ref()
            .is_some_and(|core| matches!(core.state(), State::Full { .. }))
            || self.options.when_full == WhenFull::Refuse
                && self.cursors.values().any(|(_, hold)| *hold == Hold::Yes)
    }

    /// Tells what happens when one life alone is looked at.
    fn say(&self, what: impl FnOnce(&Self) -> String) {
        if self.is_talking {
            eprintln!("{} calls: {}", self.disk.calls().len(), what(self));
        }
    }

    fn core(&mut self) -> &mut Core {
        self.core.as_mut().expect("open")
    }

    fn step(&mut self) {
        let what = self.dice.below(24);
        self.say(|world| format!("step {what}, next {}, mark {}", world.next, world.mark));
        match what {
            0..=10 => self.append(),
            11 => drop(self.core().rest()),
            12 => drop(self.core().heal()),
            13 => self.reopen(0),
            14 => self.reopen(1),
            15 => self.reopen(2),
            16 => {
                let number = self.disk.calls().len() as u64 + self.dice.below(30);
                let fault = pick(&mut self.dice, &[Fault::Io, Fault::NoSpace, Fault::PowerOff]);
                self.disk.fail_call(number, fault);
                self.is_faulty = true;
            }
            17 => {
                let fault = if self.dice.hits(2) {
                    Fault::Io
                } else {
                    Fault::NoSpace
                };
                self.disk.fail_at_random(Some((2 + self.dice.below(20), fault)));
                self.is_faulty = true;
            }
            18 => {
                let bytes = self.disk.used() + self.dice.below(100 << 10);
                self.disk.set_capacity(Some(bytes));
            }
            19 => {
                self.disk.set_capacity(None);
                self.core().heal();
            }
            20 => self.move_cursor(),
            21 => drop(self.core().release()),
            22 => self.calm(),
            _ => self.check(),
        }
        if self.disk.is_off() {
            self.reopen(2);
        }
        self.forget_what_was_dropped();
    }

    /// No more faults, but for what they left behind.
    fn calm(&mut self) {
        drop(self.disk.pause_faults());
        if self.disk.is_off() {
            self.reopen(2);
        }
        self.is_faulty = false;
    }

    fn batch(&mut self, records: u64) -> Batch {
        self.sent(records, false).0
    }

    fn sent(&mut self, records: u64, is_marked: bool) -> (Batch, Sent) {
        let mut batch = Batch::new();
        let mut sent = Sent {
            ids: Vec::new(),
            mark: None,
        };
        for _ in 0..records {
            let length = match self.dice.below(40) {
                0 => 70 << 10,
                1..=8 => 4000 + self.dice.below(4000),
                _ => 8 + self.dice.below(900),
            };
            let id = self.next_id;
            self.next_id += 1;
            let tag = self.dice.hits(2).then(|| tag_of(id));
            batch.push(tag, &payload(id, usize::try_from(length).expect("small")));
            sent.ids.push(id);
        }
        if is_marked {
            let mark = self.next_mark;
            self.next_mark += 1;
            batch.mark(b"at", &mark.to_le_bytes()).expect("small");
            sent.mark = Some(mark);
        }
        (batch, sent)
    }

    fn append(&mut self) {
        let (mut batches, mut sents) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.dice.below(4) {
            let records = self.dice.below(5);
            let is_marked = self.dice.hits(2);
            let (batch, sent) = self.sent(records, is_marked);
            batches.push(batch);
            sents.push(sent);
        }
        if !self.core().is_ready() {
            return;
        }
        let (mut rest, mut sents) = (batches.as_mut_slice(), sents.as_slice());
        while !rest.is_empty() {
            let count = self.core().fitting(rest);
            let (group, after) = rest.split_at_mut(count);
            let (sent, after_sent) = sents.split_at(count);
            let first = self.core().next().get();
            let outcome = self.core().commit(group);
            let is_broken = matches!(self.core().state(), State::Broken { .. });
            match outcome {
                Ok(()) => {
                    self.next += sent.iter().map(|sent| sent.ids.len() as u64).sum::<u64>();
                    let ids = sent.iter().flat_map(|sent| &sent.ids);
                    self.durable.extend((first..).zip(ids.copied()));
                    let marks = sent.iter().filter_map(|sent| sent.mark);
                    self.mark = marks.max().unwrap_or(self.mark);
                }
                Err(failure) => {
                    self.say(|world| format!("{failure:?}, {:?}", world.core.as_ref().map(Core::state)));
                    let is_io = matches!(failure, Failure::Io { .. });
                    assert!(self.is_faulty || !is_io, "{failure:?} for no reason");
                    // Unless the journal is broken, what failed never comes back.
                    for sent in sent.iter().filter(|_| is_broken) {
                        self.unsure_ids.extend(&sent.ids);
                        self.unsure.extend(sent.mark.map(|mark| (mark, sent.clone())));
                    }
                    break;
                }
            }
            (rest, sents) = (after, after_sent);
            self.forget_what_was_dropped();
        }
        let next = self.core().next().get();
        self.trace = self.trace.wrapping_mul(31).wrapping_add(next);
        assert_eq!(next, self.next, "J-1: what is durable is what was acknowledged");
    }

    fn move_cursor(&mut self) {
        let name = pick(&mut self.dice, &["a", "b"]);
        let view = Arc::clone(self.core().view());
        if !self.cursors.contains_key(name) || self.dice.hits(4) {
            let hold = if self.dice.hits(2) { Hold::Yes } else { Hold::No };
            match cursor::open(&view, &self.queue, name, hold) {
                Ok(cursor) => {
                    let at = cursor.position().get();
                    self.cursors.insert(name, (at, hold));
                    self.told.insert(name, at);
                }
                // Whether it holds from the next opening on is not known.
                Err(_) => {
                    self.cursors.entry(name).and_modify(|there| there.1 = Hold::No);
                }
            }
            return;
        }
        let cursor = Cursor::new(Arc::from(name), Arc::clone(&view), Arc::clone(&self.queue));
        let from = cursor.position();
        let to = from.plus(self.dice.below(view.durable().since(from) + 1));
        if cursor.advance(to).is_ok() {
            let hold = self.cursors[name].1;
            self.cursors.insert(name, (to.get(), hold));
            self.told.insert(name, to.get());
        }
        assert!(cursor.advance(view.durable().plus(1)).is_err());
    }

    /// Ends the core in one of four ways and opens the journal anew.
    fn reopen(&mut self, how: u64) {
        let mut core = self.core.take().expect("open");
        match how {
            // In order.
            0 => {
                core.close();
                drop(core);
            }
            // The process is killed.
            1 => drop(core),
            // The power goes.
            2 => {
                drop(core);
                self.disk = self.disk.crash();
                self.is_faulty = false;
            }
            // In order, and then the power goes.
            _ => {
                core.close();
                drop(core);
                self.disk = self.disk.crash();
            }
        }
        if self.disk.is_off() {
            self.disk = self.disk.crash();
            self.is_faulty = false;
        }
        self.open();
    }

    fn open(&mut self) {
        let recovery = self.try_open();
        self.forget_what_was_dropped();
        for (name, (at, _)) in &mut self.cursors {
            let cursors = &self.core.as_ref().expect("open").view().lock().cursors;
            let there = cursors.get(*name).map(|there| there.at.get());
            let is_there = there.is_some_and(|there| there >= self.told[name])
                || recovery.lost_cursors.contains(&(*name).to_owned());
            assert!(
                is_there,
                "cursor {name} was at {} and is at {there:?}",
                self.told[name]
            );
            // One that failed to move may have moved all the same.
            *at = there.unwrap_or(*at);
        }
        let was_faulty = self.is_faulty;
        self.calm_reads(|world| world.check_all(Some(&recovery)));
        self.is_faulty = was_faulty;
        let found = recovery.marks.get(b"at".as_slice()).map_or(0, |mark| {
            u64::from_le_bytes(mark.as_slice().try_into().expect("8 bytes"))
        });
        if found < self.mark && recovery.unreadable_blocks > 0 {
            self.hidden_mark = self.hidden_mark.max(self.mark);
            self.mark = found;
        }
        if found > self.mark && found == self.hidden_mark {
            self.mark = found;
        }
        if found != self.mark {
            assert!(
                found > self.mark,
                "mark {} was acknowledged and is {found}",
                self.mark
            );
            let sent = self.unsure.get(&found);
            let sent = sent.unwrap_or_else(|| panic!("mark {found} of a batch that failed for good"));
            for id in &sent.ids {
                assert!(
                    self.durable.values().any(|there| there == id),
                    "I2: mark {found} without record {id}"
                );
            }
            self.mark = found;
        }
        self.unsure.clear();
        self.unsure_ids.clear();
        self.next = recovery.next.get();
        self.trace = self.trace.wrapping_mul(31).wrapping_add(self.next);
    }

    fn try_open(&mut self) -> Recovery {
        let open = |world: &Self| {
            recovery::open(
                Arc::new(world.disk.clone()),
                Path::new(DIR),
                world.options.clone(),
            )
        };
        let mut opened = open(self);
        // A fault may stop it, and the next attempt has to do.
        while opened.is_err() || self.disk.is_off() {
            assert!(self.is_faulty, "I3: {opened:?}");
            drop(self.disk.pause_faults());
            self.is_faulty = false;
            drop(opened);
            if self.disk.is_off() {
                self.disk = self.disk.crash();
            }
            opened = open(self);
        }
        let (core, recovery) = opened.unwrap_or_else(|error| panic!("I3: {error:?}"));
        self.core = Some(core);
        recovery
    }

    fn check(&mut self) {
        self.calm_reads(|world| world.check_all(None));
    }

    /// Reads without faults; those that were asked for by number stay away meanwhile.
    fn calm_reads(&mut self, look: impl FnOnce(&mut Self)) {
        let quiet = self.disk.pause_faults();
        look(self);
        self.disk.resume_faults(quiet);
    }

    /// Reads all there is and compares; `opened` is given when nothing happened since.
    fn check_all(&mut self, opened: Option<&Recovery>) {
        if self.disk.is_off() {
            return;
        }
        let view = Arc::clone(self.core().view());
        let (oldest, end) = (view.oldest(), view.durable());
        let mut reader = Reader::new(Arc::clone(&view), oldest);
        let mut at = oldest.get();
        let mut seen = BTreeSet::new();
        let mut tags = BTreeMap::new();
        while let Some(item) = reader.next().expect("no fault is on") {
            match item {
                Item::Record { seq, tag, payload } => {
                    assert_eq!(seq.get(), at, "J-2: in order");
                    let id = id_of(&payload);
                    assert!(tag.is_none_or(|tag| tag == tag_of(id)));
                    tags.extend(tag.map(|tag| (at, tag)));
                    assert!(seen.insert(id), "record {id} twice");
                    match self.durable.get(&at) {
                        Some(there) => assert_eq!(*there, id, "record {at}"),
                        // Its segment was removed, but not durably.
                        None if self.dropped.get(&at) == Some(&id) => {
                            self.durable.insert(at, id);
                        }
                        None => {
                            assert!(
                                opened.is_some() && self.unsure_ids.contains(&id),
                                "J-3: record {id} at {at}"
                            );
                            self.durable.insert(at, id);
                            if opened.is_some_and(|opened| !was_settled(opened, self.core(), seq)) {
                                self.fickle.insert(at);
                            }
                        }
                    }
                    at += 1;
                }
                Item::Gap(gap) => {
                    assert_eq!(gap.from.get(), at);
                    assert!(gap.to > gap.from);
                    self.forget_fickle(gap.from.get()..gap.to.get());
                    let lost = self.durable.range(gap.from.get()..gap.to.get()).next();
                    assert!(lost.is_none(), "J-1: {gap:?} takes {lost:?}");
                    let dropped = self.dropped.range(gap.from.get()..gap.to.get()).next();
                    assert!(
                        dropped.is_none(),
                        "{gap:?} with {dropped:?}, which went after older ones that are there"
                    );
                    assert_ne!(gap.reason, GapReason::Expired, "begun at the oldest");
                    at = gap.to.get();
                }
            }
        }
        assert_eq!(at, end.get(), "to the end of what is durable");
        for listed in crate::tags::tags(&view) {
            let Some(list) = listed.tags else { continue };
            let list: Vec<_> = list
                .into_iter()
                .map(|(at, tag)| (listed.first.get() + u64::from(at), tag))
                .collect();
            let there = tags
                .range(listed.first.get()..listed.next.get())
                .map(|(at, tag)| (*at, *tag));
            assert!(
                there.eq(list),
                "the list of the segment at {} is not its tags",
                listed.first
            );
        }
        self.forget_fickle(at..u64::MAX);
        let lost = self.durable.range(at..).next();
        assert!(lost.is_none(), "J-1: {lost:?} is beyond the end");
    }

    fn forget_fickle(&mut self, gone: std::ops::Range<u64>) {
        let gone: Vec<u64> = self.fickle.range(gone).copied().collect();
        for number in gone {
            self.fickle.remove(&number);
            self.durable.remove(&number);
            self.dropped.remove(&number);
        }
    }

    /// What retention may drop, the model drops too.
    fn forget_what_was_dropped(&mut self) {
        let view = Arc::clone(self.core().view());
        let oldest = view.oldest().get();
        if let Some((first, _)) = self.durable.first_key_value()
            && *first < oldest
            && self.options.when_full == WhenFull::Refuse
        {
            for (name, (at, hold)) in &self.cursors {
                // A cursor made after its records went is at the oldest there was.
                assert!(
                    *hold == Hold::No || *at >= oldest,
                    "cursor {name} at {at} holds, oldest {oldest}"
                );
            }
        }
        let kept = self.durable.split_off(&oldest);
        self.dropped
            .append(&mut std::mem::replace(&mut self.durable, kept));
    }
}
