//! Batches between those who append and the thread that writes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::{Batch, MARKS};
use crate::core::cost;
use crate::format;
use crate::ticket::{Promise, Ticket, ticket};
use crate::{AppendError, Options, Reject, Rejected, Seq, State};

/// How often a journal that cannot go on tries whether it can.
const HEAL_INTERVAL: Duration = Duration::from_millis(200);

/// More than a segment has beside its batch and the marks.
const OVERHEAD: u64 = 8192;

#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    work: Condvar,
    options: Options,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Pending>,
    waiting_bytes: usize,
    /// Accepted and not yet durable, what is being written included.
    bytes: usize,
    reserved: usize,
    next: Seq,
    failures: u64,
    failed_records: u64,
    state: State,
    is_closing: bool,
    is_kicked: bool,
    wants_release: bool,
    /// Whether the end of what is durable was noted since the last group.
    is_noted: bool,
    /// Every mark that is set or will be, with its bytes.
    marks: BTreeMap<Vec<u8>, usize>,
    marks_bytes: u64,
}

/// A batch that was accepted.
#[derive(Debug)]
struct Pending {
    batch: Batch,
    done: Done,
}

/// Whom to tell.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) promise: Promise,
    pub(crate) seqs: Range<Seq>,
    bytes: usize,
}

/// What the thread is to do next.
#[derive(Debug)]
pub(crate) enum Work {
    Commit(Vec<Batch>, VecDeque<Done>),
    Rest,
    Release,
    Heal,
    Close,
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl Queue {
    pub(crate) fn new(options: Options, next: Seq, marks: &BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        let mut inner = Inner {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            bytes: 0,
            reserved: 0,
            next,
            failures: 0,
            failed_records: 0,
            state: State::Ready,
            is_closing: false,
            is_kicked: false,
            wants_release: false,
            is_noted: true,
            marks: BTreeMap::new(),
            marks_bytes: 0,
        };
        inner.reset_marks(marks);
        Self {
            inner: Mutex::new(inner),
            work: Condvar::new(),
            options,
        }
    }

    /// Accepts a batch, or says why not. `room` of it was reserved before.
    pub(crate) fn append(&self, batch: Batch, room: usize) -> Result<Ticket, Rejected> {
        let bytes = batch.bytes();
        let mut inner = self.lock();
        if let Err(reason) = self.check(&inner, &batch, bytes, room) {
            drop(inner);
            return Err(Rejected { reason, batch });
        }
        for (key, value) in batch.marks() {
            inner.note_mark(key, value);
        }
        let first = inner.next;
        inner.next = first.plus(batch.records());
        inner.bytes += bytes;
        inner.waiting_bytes += bytes;
        let (ticket, promise) = ticket(first);
        let seqs = first..inner.next;
        let is_first = inner.waiting.is_empty();
        let was_below = inner.waiting_bytes - bytes < self.options.commit_bytes;
        inner.waiting.push_back(Pending {
            batch,
            done: Done { promise, seqs, bytes },
        });
        let is_above = inner.waiting_bytes >= self.options.commit_bytes;
        drop(inner);
        if is_first || was_below && is_above {
            self.work.notify_one();
        }
        Ok(ticket)
    }

    fn check(&self, inner: &Inner, batch: &Batch, bytes: usize, room: usize) -> Result<(), Reject> {
        if inner.is_closing {
            return Err(Reject::Closed);
        }
        match inner.state {
            State::Ready => {}
            State::Full { .. } => return Err(Reject::JournalFull),
            State::DiskFull { .. } => return Err(Reject::DiskFull),
            State::Broken { .. } => return Err(Reject::Broken),
            State::Closed => return Err(Reject::Closed),
        }
        let segment = cost(batch).saturating_add(self.options.marks_bytes() + OVERHEAD);
        let is_too_large = batch.largest() > self.options.max_record_bytes.saturating_add(crate::TAG_BYTES)
            || segment > self.options.max_bytes / 2;
        if is_too_large {
            return Err(Reject::TooLarge);
        }
        let taken = inner.bytes + inner.reserved - room.min(inner.reserved);
        if bytes > room && taken > 0 && taken.saturating_add(bytes) > self.options.queue_bytes {
            return Err(Reject::QueueFull);
        }
        let has_numbers = inner.next.get().checked_add(batch.records()).is_some();
        if !has_numbers || inner.next == Seq::END && !batch.is_empty() {
            return Err(Reject::SequenceEnd);
        }
        if !batch.marks().is_empty() {
            let (mut count, mut bytes) = (inner.marks.len(), inner.marks_bytes);
            let last: BTreeMap<_, _> = batch.marks().iter().map(|(key, value)| (key, value)).collect();
            for (key, value) in last {
                if let Some(before) = inner.marks.get(key) {
                    count -= 1;
                    bytes = bytes.saturating_sub(wide(*before));
                }
                if !value.is_empty() {
                    count += 1;
                    bytes = bytes.saturating_add(wide(format::mark_bytes(key, value)));
                }
            }
            let is_too_many = count > MARKS || bytes > self.options.marks_bytes();
            if is_too_many {
                return Err(Reject::TooManyMarks);
            }
        }
        Ok(())
    }

    /// Takes room beforehand; `false` if there is none.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let mut inner = self.lock();
        let taken = inner.bytes + inner.reserved;
        let is_free = taken == 0 || taken.saturating_add(bytes) <= self.options.queue_bytes;
        if is_free && !inner.is_closing {
            inner.reserved += bytes;
        }
        is_free && !inner.is_closing
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        let mut inner = self.lock();
        inner.reserved = inner.reserved.saturating_sub(bytes);
    }

    /// Bytes that may be accepted now.
    pub(crate) fn room(&self) -> usize {
        let inner = self.lock();
        self.options
            .queue_bytes
            .saturating_sub(inner.bytes + inner.reserved)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.lock().failures
    }

    pub(crate) fn failed_records(&self) -> u64 {
        self.lock().failed_records
    }

    pub(crate) fn state(&self) -> State {
        self.lock().state.clone()
    }

    pub(crate) fn next(&self) -> Seq {
        self.lock().next
    }

    /// Bytes accepted, and bytes reserved.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.bytes, inner.reserved)
    }

    /// Something changed that may let a full journal go on.
    pub(crate) fn kick(&self) {
        self.lock().is_kicked = true;
        self.work.notify_one();
    }

    pub(crate) fn want_release(&self) {
        self.lock().wants_release = true;
        self.work.notify_one();
    }

    /// No more batches from now on; what is queued is still written.
    pub(crate) fn begin_close(&self) {
        self.lock().is_closing = true;
        self.work.notify_one();
    }

    /// Waits for something to do. Before `due` a group is only taken when it is large.
    pub(crate) fn take(&self, due: Option<Instant>) -> Work {
        let mut inner = self.lock();
        loop {
            let is_ready = matches!(inner.state, State::Ready);
            if std::mem::take(&mut inner.wants_release) {
                return Work::Release;
            }
            let timeout = if !inner.waiting.is_empty() {
                let left = due.and_then(|due| due.checked_duration_since(Instant::now()));
                match left {
                    Some(left) if inner.waiting_bytes < self.options.commit_bytes && !inner.is_closing => {
                        Some(left)
                    }
                    _ => return inner.take_all(),
                }
            } else if inner.is_closing {
                return Work::Close;
            } else if !is_ready && std::mem::take(&mut inner.is_kicked) {
                return Work::Heal;
            } else if is_ready && !inner.is_noted {
                inner.is_noted = true;
                return Work::Rest;
            } else if is_ready {
                None
            } else {
                Some(HEAL_INTERVAL)
            };
            match timeout {
                None => inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.work.wait_timeout(inner, left);
                    let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
                    inner = guard;
                    if result.timed_out() && !matches!(inner.state, State::Ready) {
                        return Work::Heal;
                    }
                }
            }
        }
    }

    /// Batches of `bytes` in all became durable.
    pub(crate) fn committed(&self, bytes: usize) {
        let mut inner = self.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes);
        inner.is_noted = false;
    }

    /// A group failed. Everything that was accepted fails with it, and whoever appends from now on knows.
    pub(crate) fn fail(
        &self,
        group: VecDeque<Done>,
        error: &AppendError,
        next: Seq,
        state: State,
        marks: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) {
        let waiting = {
            let mut inner = self.lock();
            let waiting = std::mem::take(&mut inner.waiting);
            inner.failures += 1;
            inner.failed_records += inner.next.since(next);
            inner.waiting_bytes = 0;
            inner.bytes = 0;
            inner.next = next;
            inner.state = state;
            inner.reset_marks(marks);
            waiting
        };
        for done in group
            .into_iter()
            .chain(waiting.into_iter().map(|pending| pending.done))
        {
            done.promise.keep(Err(error.clone()));
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.lock().state = state;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Done {
    /// Bytes that the batch took in the queue.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Inner {
    fn take_all(&mut self) -> Work {
        self.waiting_bytes = 0;
        let mut batches = Vec::with_capacity(self.waiting.len());
        let mut done = VecDeque::with_capacity(self.waiting.len());
        for pending in self.waiting.drain(..) {
            batches.push(pending.batch);
            done.push_back(pending.done);
        }
        Work::Commit(batches, done)
    }

    fn note_mark(&mut self, key: &[u8], value: &[u8]) {
        let before = if value.is_empty() {
            self.marks.remove(key)
        } else {
            let bytes = format::mark_bytes(key, value);
            self.marks_bytes += wide(bytes);
            self.marks.insert(key.to_vec(), bytes)
        };
        self.marks_bytes -= wide(before.unwrap_or(0)).min(self.marks_bytes);
    }

    fn reset_marks(&mut self, marks: &BTreeMap<Vec<u8>, Vec<u8>>) {
        self.marks.clear();
        self.marks_bytes = 0;
        for (key, value) in marks {
            self.note_mark(key, value);
        }
    }
}
