//! What is written when: the state between two commits, without threads or waiting.

mod failure;
mod retention;
mod roll;

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::batch::Batch;
use crate::filesystem::{FileHandle, Filesystem};
use crate::format::{self, COPY_AT, DATA_AT, FRAME_BYTES, HEADER_BYTES, Kind, TAG_ENTRY_BYTES};
use crate::segment::{Segment, write_all};
use crate::view::View;
use crate::{Options, Seq, State};

pub(crate) use failure::{Failure, reserve_path};

/// Entries that the list of a segment's tags may have; a segment with more is closed without one.
const TAGS: usize = 1 << 20;
/// A commit frame.
const COMMIT: u64 = FRAME_BYTES as u64;
/// What closes a segment, its tags apart: two frame headers and the place of the list.
const FOOTER: u64 = 2 * FRAME_BYTES as u64 + 8;

const _: () = assert!(COPY_AT + HEADER_BYTES as u64 == DATA_AT);

/// Writes groups to segments. One thread drives it; so do tests.
#[derive(Debug)]
pub(crate) struct Core {
    fs: Arc<dyn Filesystem>,
    dir: PathBuf,
    options: Options,
    view: Arc<View>,
    /// The segment that is written.
    tail: Option<Tail>,
    /// A segment with a group that failed, until it is cut away.
    uncut: Option<Uncut>,
    /// Space for the next segment.
    spare: Option<Spare>,
    /// Bytes of the segment that could not be had.
    wanted: Option<u64>,
    /// A segment without records that recovery left where it was.
    empty: Option<PathBuf>,
    /// Whether a change of a name in the journal's directory may not be durable yet.
    has_unsynced_names: bool,
    /// The number of the next record: all before it are durable.
    next: Seq,
    state: State,
    /// Whether the file `reserve` takes its space.
    has_reserve: bool,
    /// The tags of the segment that is written, as its list will be.
    tags: Vec<u8>,
    is_listed: bool,
    /// Held until the core goes.
    _lock: Box<dyn Any + Send + Sync>,
}

/// The segment that is written.
#[derive(Debug)]
struct Tail {
    segment: Arc<Segment>,
    file: Arc<dyn FileHandle>,
    salt: u64,
    /// The end of what is durable.
    durable: u64,
    /// Where the next group goes: `durable`, or behind the commit frame that was written meanwhile.
    written: u64,
    /// Where the last durable group began.
    group: u64,
    group_seq: Seq,
    /// Bytes that the segment may have.
    size: u64,
    /// Whether its space was given up when the disk was full.
    is_shrunk: bool,
}

/// A segment to be opened anew and cut.
#[derive(Debug)]
struct Uncut {
    segment: Arc<Segment>,
    durable: u64,
    group: u64,
    group_seq: Seq,
}

/// A file that will become a segment.
#[derive(Debug)]
struct Spare {
    file: Arc<dyn FileHandle>,
    size: u64,
    is_recycled: bool,
}

/// What recovery hands over.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) fs: Arc<dyn Filesystem>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) view: Arc<View>,
    pub(crate) next: Seq,
    pub(crate) empty: Option<PathBuf>,
    pub(crate) has_unsynced_names: bool,
    pub(crate) lock: Box<dyn Any + Send + Sync>,
}

/// Bytes that a batch takes in a segment, its tags in the segment's list included.
pub(crate) fn cost(batch: &Batch) -> u64 {
    let bytes = u64::try_from(batch.bytes()).unwrap_or(u64::MAX);
    bytes.saturating_add(batch.tagged().saturating_mul(TAG_ENTRY_BYTES as u64))
}

impl Core {
    pub(crate) fn new(start: Start) -> Self {
        let mut core = Self {
            fs: start.fs,
            dir: start.dir,
            options: start.options,
            view: start.view,
            tail: None,
            uncut: None,
            spare: None,
            wanted: None,
            empty: start.empty,
            has_unsynced_names: start.has_unsynced_names,
            next: start.next,
            state: State::Ready,
            has_reserve: false,
            tags: Vec::new(),
            is_listed: true,
            _lock: start.lock,
        };
        // Without it the journal works as well, but for cursors on a full disk.
        core.has_reserve = core.take_reserve().is_ok();
        core
    }

    pub(crate) const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The number of the next record; all before it are durable.
    pub(crate) const fn next(&self) -> Seq {
        self.next
    }

    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// How many of `batches` go into one group, at least one.
    pub(crate) fn fitting(&self, batches: &[Batch]) -> usize {
        let Some(first) = batches.first() else { return 0 };
        let mut room = match self.tail_room() {
            Some(room) if room >= cost(first) => room,
            _ => self
                .options
                .segment_bytes
                .saturating_sub(DATA_AT + COMMIT + FOOTER + self.snapshot_bytes()),
        };
        let fits = batches
            .iter()
            .take_while(|batch| match room.checked_sub(cost(batch)) {
                Some(left) => {
                    room = left;
                    true
                }
                None => false,
            });
        fits.count().max(1)
    }

    /// Bytes that still fit into the segment that is written.
    fn tail_room(&self) -> Option<u64> {
        let tail = self.tail.as_ref()?;
        let tags = u64::try_from(self.tags.len()).unwrap_or(u64::MAX);
        Some(tail.size.saturating_sub(tail.written + COMMIT + FOOTER + tags))
    }

    /// Makes a group durable; its records get the numbers from [`next`](Self::next) on.
    ///
    /// # Errors
    ///
    /// Nothing of the group is there, now or after a crash from now on, unless the state is
    /// [`State::Broken`]. The state says whether it makes sense to go on.
    pub(crate) fn commit(&mut self, batches: &mut [Batch]) -> Result<(), Failure> {
        let begun = Instant::now();
        let need = batches.iter().map(cost).fold(0_u64, u64::saturating_add);
        if need == 0 {
            return Ok(());
        }
        if self.tail_room().is_none_or(|room| room < need) {
            self.roll(need).map_err(|failure| self.refuse(failure))?;
        }
        let Some(tail) = &mut self.tail else {
            return Err(Failure::no_segment());
        };
        let (first, listed) = (tail.segment.first, self.tags.len());
        let mut next = self.next;
        for batch in batches.iter_mut() {
            batch.seal(next, tail.salt, |seq, tag| {
                match u32::try_from(seq.since(first)) {
                    Ok(offset) if self.is_listed && self.tags.len() < TAGS * TAG_ENTRY_BYTES => {
                        format::push_tag(&mut self.tags, offset, tag);
                    }
                    _ => self.is_listed = false,
                }
            });
            next = next.plus(batch.records());
        }
        let commit = format::frame(Kind::Commit, self.next, tail.salt, &[]);
        let is_marked = tail.written > tail.durable;
        let mark = (!is_marked).then_some(commit.as_slice());
        let parts: Vec<&[u8]> = mark
            .into_iter()
            .chain(batches.iter().map(Batch::sealed))
            .collect();
        let written = write_all(tail.file.as_ref(), &parts, tail.written)
            .map_err(|error| Failure::write("write records", error))
            .and_then(|bytes| {
                let synced = tail.file.sync_data();
                synced
                    .map_err(|error| Failure::sync("sync records", error))
                    .map(|()| bytes)
            });
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(failure) => {
                self.tags.truncate(listed);
                return Err(self.fail(failure));
            }
        };
        tail.group = tail.durable;
        tail.group_seq = self.next;
        tail.written += bytes;
        tail.durable = tail.written;
        let (segment, end) = (Arc::clone(&tail.segment), tail.durable);
        let records = next.since(self.next);
        self.next = next;
        self.view.publish(next, |kept| {
            segment.set_end(end);
            for (key, value) in batches.iter().flat_map(Batch::marks) {
                format::apply_mark(&mut kept.marks, key, value);
            }
            kept.counters.committed(records, bytes);
            kept.counters.took(begun.elapsed());
        });
        Ok(())
    }

    /// Notes in the segment, without a sync, that all before is durable: a later recovery then knows damage
    /// in the last group from a group that was never finished.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub(crate) fn rest(&mut self) -> Result<(), Failure> {
        let has_room = self.tail_room().is_some_and(|room| room > 0) && self.is_ready();
        let Some(tail) = &mut self.tail else { return Ok(()) };
        if !has_room || tail.written > tail.durable {
            return Ok(());
        }
        let commit = format::frame(Kind::Commit, self.next, tail.salt, &[]);
        match write_all(tail.file.as_ref(), &[&commit], tail.written) {
            Ok(bytes) => {
                tail.written += bytes;
                Ok(())
            }
            // The next group goes to the same place.
            Err(error) if crate::error::is_full(&error) => Ok(()),
            Err(error) => Err(self.fail(Failure::write("write a commit mark", error))),
        }
    }

    /// Closes the segment that is written.
    pub(crate) fn close(&mut self) {
        self.close_tail();
        self.give_up_spare();
        self.state = State::Closed;
    }

    fn snapshot_bytes(&self) -> u64 {
        let kept = self.view.lock();
        let bytes: usize = kept
            .marks
            .iter()
            .map(|(key, value)| format::mark_bytes(key, value))
            .sum();
        FRAME_BYTES as u64 + u64::try_from(bytes).unwrap_or(u64::MAX) + 8
    }
}
