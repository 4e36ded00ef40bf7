//! The journal as its users hold it, and its thread.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::core::{Core, Failure};
use crate::cursor::{self, Cursor, Hold};
use crate::filesystem::{Disk, Filesystem};
use crate::queue::{Done, Queue, Work};
use crate::view::{View, WaitDurable};
use crate::{
    AppendError, CursorError, OpenError, Options, Reader, Recovery, Rejected, SegmentTags, Seq, State, Stats,
    Ticket, Verified, recovery, tags, verify,
};

/// A journal. Its clones are the same journal; when the last one goes it is [closed](Journal::close).
///
/// So dropping the last one blocks: what is queued is written and synced, the segment closed, and the thread
/// joined, which takes as long as the disk does. Where blocking is no option, as on a thread that drives
/// tasks, call [`close`](Journal::close) elsewhere first; the drop then has nothing left to wait for.
/// [Readers](Reader), [cursors](Cursor), [tickets](Ticket) and [`Room`] keep no journal open.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Arc<Queue>,
    view: Arc<View>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Room in the queue that was taken beforehand. It is given back when this is dropped.
#[derive(Debug)]
pub struct Room {
    queue: Arc<Queue>,
    bytes: usize,
}

impl Journal {
    /// Opens the journal in `dir`, which is made if need be.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a journal that another process has open is [`OpenError::Locked`].
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovery), OpenError> {
        Self::open_on(Disk, dir, options)
    }

    /// Opens the journal in `dir` of a file system of one's own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on(fs: impl Filesystem, dir: &Path, options: Options) -> Result<(Self, Recovery), OpenError> {
        let (core, recovery) = recovery::open(Arc::new(fs), dir, options.clone())?;
        let pace = Pace::new(&options);
        let queue = Arc::new(Queue::new(options, core.next(), &recovery.marks));
        let view = Arc::clone(core.view());
        let thread = {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name("journal".to_owned());
            thread
                .spawn(move || run(core, &queue, pace))
                .map_err(|source| OpenError::Io {
                    doing: "start a thread for",
                    path: dir.to_owned(),
                    source,
                })?
        };
        let thread = Mutex::new(Some(thread));
        Ok((
            Self {
                shared: Arc::new(Shared { queue, view, thread }),
            },
            recovery,
        ))
    }

    /// Queues a batch to be made durable; never blocks. An empty one is a barrier.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the batch and the reason.
    pub fn append(&self, batch: Batch) -> Result<Ticket, Rejected> {
        self.shared.queue.append(batch, 0)
    }

    /// As [`append`](Self::append), within room that was [reserved](Self::reserve). A batch that is larger
    /// needs as much free room as any other.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append); the room is given back in any case.
    pub fn append_reserved(&self, batch: Batch, room: Room) -> Result<Ticket, Rejected> {
        let answer = self.shared.queue.append(batch, room.bytes);
        drop(room);
        answer
    }

    /// Bytes that could be accepted now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.shared.queue.room()
    }

    /// Takes room of the queue for `bytes`; `None` if there is not as much.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Option<Room> {
        let queue = &self.shared.queue;
        queue.reserve(bytes).then(|| Room {
            queue: Arc::clone(queue),
            bytes,
        })
    }

    /// How often a group could not be made durable.
    ///
    /// At a failure everything queued or under way fails, and this grows under the lock that `append` takes,
    /// before any ticket is answered. Whoever reads it and then appends knows, if it is still the same
    /// afterwards, that all earlier batches are durable or will be unless this one fails too.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.shared.queue.failures()
    }

    /// How the journal is.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.queue.state()
    }

    /// The journal in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let queue = &self.shared.queue;
        let (queue_bytes, reserved_bytes) = queue.bytes();
        let wide = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut stats = Stats {
            next_seq: queue.next(),
            failures: queue.failures(),
            failed_records: queue.failed_records(),
            queue_bytes: wide(queue_bytes),
            reserved_bytes: wide(reserved_bytes),
            ..Stats::default()
        };
        let kept = self.shared.view.lock();
        stats.durable_seq = self.shared.view.durable();
        stats.oldest_seq = kept
            .segments
            .front()
            .map_or(stats.durable_seq, |segment| segment.first);
        stats.segments = wide(kept.segments.len());
        stats.bytes = kept.segments.iter().map(|segment| segment.bytes()).sum();
        stats.records = stats.durable_seq.since(stats.oldest_seq);
        kept.counters.fill(&mut stats);
        stats
    }

    /// The end of what is durable: all records before it are.
    #[must_use]
    pub fn durable(&self) -> Seq {
        self.shared.view.durable()
    }

    /// The number of the oldest record that is kept; [`durable`](Self::durable) if there is none.
    #[must_use]
    pub fn oldest(&self) -> Seq {
        self.shared.view.oldest()
    }

    /// Waits until record `seq` is durable, or the journal is closed, and answers with the end of what is
    /// durable.
    #[must_use]
    pub fn wait_durable(&self, seq: Seq) -> WaitDurable {
        WaitDurable::new(Arc::clone(&self.shared.view), seq)
    }

    /// Blocks until record `seq` is durable, the journal is closed, or `timeout` passed; answers with the end
    /// of what is durable.
    #[must_use]
    pub fn wait_durable_timeout(&self, seq: Seq, timeout: Duration) -> Seq {
        self.shared.view.wait_timeout(seq, timeout)
    }

    /// Durable bytes of the segments that hold record `from` or a later one: what a cursor there keeps.
    #[must_use]
    pub fn bytes_from(&self, from: Seq) -> u64 {
        let kept = self.shared.view.lock();
        let after = kept.segments.partition_point(|segment| segment.first <= from);
        let segments = kept.segments.iter().skip(after.saturating_sub(1));
        segments.map(|segment| segment.end()).sum()
    }

    /// A mark's value, if it is set and durable.
    #[must_use]
    pub fn mark(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.shared.view.lock().marks.get(key).cloned()
    }

    /// The segments with the tags of their records, one file read per step.
    pub fn tags(&self) -> impl Iterator<Item = SegmentTags> + Send + use<> {
        tags::tags(&self.shared.view)
    }

    /// Reads from record `from` on.
    #[must_use]
    pub fn reader(&self, from: Seq) -> Reader {
        Reader::new(Arc::clone(&self.shared.view), from.max(Seq::FIRST))
    }

    /// Whether `reader` reads this journal.
    #[must_use]
    pub fn is_read_by(&self, reader: &Reader) -> bool {
        Arc::ptr_eq(&self.shared.view, reader.view())
    }

    /// Takes up the cursor `name`, or makes it at the oldest record. What it holds is as said here.
    ///
    /// # Errors
    ///
    /// [`CursorError::Name`] and [`CursorError::Io`].
    pub fn cursor(&self, name: &str, hold: Hold) -> Result<Cursor, CursorError> {
        cursor::open(&self.shared.view, &self.shared.queue, name, hold)
    }

    /// Removes a cursor and what it holds.
    ///
    /// # Errors
    ///
    /// [`CursorError::Unknown`] and [`CursorError::Io`].
    pub fn remove_cursor(&self, name: &str) -> Result<(), CursorError> {
        cursor::remove(&self.shared.view, &self.shared.queue, name)
    }

    /// The cursors: name, position, and whether it holds.
    #[must_use]
    pub fn cursors(&self) -> Vec<(String, Seq, Hold)> {
        let kept = self.shared.view.lock();
        kept.cursors
            .iter()
            .map(|(name, there)| (name.clone(), there.at, there.hold))
            .collect()
    }

    /// Lets all closed segments go that every holding cursor has passed, soon and in the journal's thread.
    /// Without a holding cursor nothing goes. Nobody need call this: segments go by themselves when space is
    /// wanted.
    pub fn release(&self) {
        self.shared.queue.want_release();
    }

    /// Reads everything and says what is damaged. Blocks for as long as that takes.
    #[must_use]
    pub fn verify(&self) -> Verified {
        verify::verify(self.reader(self.oldest()))
    }

    /// Writes what is queued, closes the segment, and ends the thread; blocks until that is done. Appends are
    /// refused from now on.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Shared {
    fn close(&self) {
        self.queue.begin_close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A thread that panicked has answered all tickets while it unwound.
            drop(thread.join());
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl Room {
    /// Bytes that were reserved.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queue.give_back(self.bytes);
    }
}

/// However the thread ends, nobody is left waiting.
struct Ended<'a> {
    core: Core,
    queue: &'a Queue,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.queue.begin_close();
        let marks = self.core.view().lock().marks.clone();
        let next = self.core.next();
        self.queue
            .fail(VecDeque::new(), &AppendError::Closed, next, State::Closed, &marks);
        self.core.view().close();
    }
}

/// The journal's thread.
/// When the next group may be written.
#[derive(Debug)]
struct Pace {
    linger: Duration,
    commit_share: u32,
    /// What a commit took of late.
    commit: Duration,
    due: Option<Instant>,
}

impl Pace {
    const fn new(options: &Options) -> Self {
        Self {
            linger: options.linger,
            commit_share: options.commit_share,
            commit: Duration::ZERO,
            due: None,
        }
    }

    fn committed(&mut self, began: Instant, took: Duration) {
        self.commit = (self.commit * 3 + took) / 4;
        let pause = self.commit.saturating_mul(self.commit_share);
        self.due = Some(began + pause.min(self.linger));
    }
}

fn run(core: Core, queue: &Queue, mut pace: Pace) {
    let mut ended = Ended { core, queue };
    let core = &mut ended.core;
    loop {
        match queue.take(pace.due) {
            Work::Commit(batches, done) => {
                let began = Instant::now();
                commit(core, queue, batches, done);
                pace.committed(began, began.elapsed());
            }
            Work::Rest => {
                if let Err(failure) = core.rest() {
                    fail(core, queue, VecDeque::new(), &failure);
                }
            }
            // What could not be removed is tried again when space is wanted.
            Work::Release => drop(core.release()),
            Work::Heal => {
                core.heal();
                queue.set_state(core.state().clone());
            }
            Work::Close => break,
        }
    }
    core.close();
}

fn commit(core: &mut Core, queue: &Queue, mut batches: Vec<Batch>, mut done: VecDeque<Done>) {
    let mut rest = batches.as_mut_slice();
    while !rest.is_empty() {
        let count = core.fitting(rest).min(rest.len());
        let (group, after) = rest.split_at_mut(count);
        if let Err(failure) = core.commit(group) {
            fail(core, queue, done, &failure);
            return;
        }
        let durable: Vec<Done> = done.drain(..count.min(done.len())).collect();
        queue.committed(durable.iter().map(Done::bytes).sum());
        for done in durable {
            done.promise.keep(Ok(done.seqs));
        }
        rest = after;
    }
}

fn fail(core: &Core, queue: &Queue, done: VecDeque<Done>, failure: &Failure) {
    let marks = core.view().lock().marks.clone();
    queue.fail(
        done,
        &failure.append_error(),
        core.next(),
        core.state().clone(),
        &marks,
    );
}
