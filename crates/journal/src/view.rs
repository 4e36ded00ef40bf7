//! What is durable, as everybody sees it: the segments, the end, the marks, the cursors, the counts.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::cursor::{self, Position};
use crate::filesystem::Filesystem;
use crate::segment::Segment;
use crate::stats::Counters;
use crate::{GapReason, Seq};

/// What the journal's thread publishes and readers, cursors and statistics look at.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) fs: Arc<dyn Filesystem>,
    pub(crate) dir: PathBuf,
    kept: Mutex<Kept>,
    /// The end of what is durable; stored under the lock of `kept`.
    durable: AtomicU64,
    waiters: Mutex<Waiters>,
    advanced: Condvar,
    /// Cursor files are written one at a time.
    pub(crate) cursor_files: Mutex<()>,
    /// Whether opening could not make durable where it found the cursors.
    has_unsynced_cursors: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) marks: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) cursors: BTreeMap<String, Position>,
    pub(crate) counters: Counters,
}

#[derive(Debug, Default)]
struct Waiters {
    wakers: BTreeMap<u64, Waker>,
    next: u64,
    is_closed: bool,
}

/// Where a record is.
pub(crate) enum Place {
    /// Not durable yet.
    End,
    /// Nowhere; the next that is somewhere is `to`.
    Gap { to: Seq, reason: GapReason },
    /// In this segment, whose numbers end before `bound` and whose durable bytes before `end`.
    In {
        segment: Arc<Segment>,
        bound: Seq,
        end: u64,
    },
}

impl View {
    pub(crate) fn new(
        fs: Arc<dyn Filesystem>,
        dir: PathBuf,
        kept: Kept,
        durable: Seq,
        has_unsynced_cursors: bool,
    ) -> Self {
        Self {
            fs,
            dir,
            kept: Mutex::new(kept),
            durable: AtomicU64::new(durable.get()),
            waiters: Mutex::default(),
            advanced: Condvar::new(),
            cursor_files: Mutex::default(),
            has_unsynced_cursors: AtomicBool::new(has_unsynced_cursors),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn durable(&self) -> Seq {
        Seq::new(self.durable.load(Ordering::Acquire))
    }

    /// Makes durable where the cursors were found, if that is not so yet: nobody is told of a position, and
    /// no segment goes for one, that a power cut may take back.
    pub(crate) fn sync_cursors(&self) -> io::Result<()> {
        if self.has_unsynced_cursors.load(Ordering::Acquire) {
            self.fs.sync_dir(&cursor::directory(&self.dir))?;
            self.has_unsynced_cursors.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// The number of the oldest record that is kept.
    pub(crate) fn oldest(&self) -> Seq {
        let kept = self.lock();
        kept.segments
            .front()
            .map_or_else(|| self.durable(), |segment| segment.first)
    }

    /// Changes what is kept and where the durable part ends, in one step.
    pub(crate) fn publish(&self, durable: Seq, change: impl FnOnce(&mut Kept)) {
        {
            let mut kept = self.lock();
            change(&mut kept);
            self.durable.store(durable.get(), Ordering::Release);
        }
        self.wake();
    }

    /// Lets those go who wait for records that will not come.
    pub(crate) fn close(&self) {
        self.waiters().is_closed = true;
        self.wake();
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut self.waiters().wakers);
        self.advanced.notify_all();
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    pub(crate) fn place(&self, seq: Seq) -> Place {
        let kept = self.lock();
        let durable = self.durable();
        if seq >= durable {
            return Place::End;
        }
        let after = kept.segments.partition_point(|segment| segment.first <= seq);
        let next = kept.segments.get(after).map_or(durable, |next| next.first);
        match after.checked_sub(1).and_then(|at| kept.segments.get(at)) {
            Some(segment) => Place::In {
                segment: Arc::clone(segment),
                bound: next,
                end: segment.end(),
            },
            None => Place::Gap {
                to: next,
                reason: GapReason::Expired,
            },
        }
    }

    pub(crate) fn wait_timeout(&self, seq: Seq, timeout: Duration) -> Seq {
        let until = Instant::now() + timeout;
        let mut waiters = self.waiters();
        while self.durable() <= seq && !waiters.is_closed {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                break;
            };
            let waited = self.advanced.wait_timeout(waiters, left);
            waiters = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.durable()
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready when a record is durable or the journal is closed; answers with the end of what is durable.
#[derive(Debug)]
pub struct WaitDurable {
    view: Arc<View>,
    seq: Seq,
    id: Option<u64>,
}

impl WaitDurable {
    pub(crate) const fn new(view: Arc<View>, seq: Seq) -> Self {
        Self { view, seq, id: None }
    }
}

impl Future for WaitDurable {
    type Output = Seq;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Seq> {
        let view = Arc::clone(&self.view);
        let mut waiters = view.waiters();
        // Looked at under the lock under which wakers are taken: whoever publishes later finds this one.
        let durable = view.durable();
        if durable > self.seq || waiters.is_closed {
            return Poll::Ready(durable);
        }
        let id = *self.id.get_or_insert_with(|| {
            waiters.next += 1;
            waiters.next
        });
        waiters.wakers.insert(id, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for WaitDurable {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.view.waiters().wakers.remove(&id);
        }
    }
}
