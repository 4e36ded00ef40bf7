//! What an append answers with: a promise that is kept when its batch is durable.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::{AppendError, Seq};

type Outcome = Result<Range<Seq>, AppendError>;

/// The outcome of an append, to be awaited or [waited for](Ticket::wait). Dropping it changes nothing.
#[derive(Debug)]
pub struct Ticket {
    first: Seq,
    slot: Arc<Slot>,
}

/// The end that the journal's thread holds; answered exactly once, at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Promise {
    slot: Arc<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<Waiting>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

/// A ticket and the promise behind it.
pub(crate) fn ticket(first: Seq) -> (Ticket, Promise) {
    let slot = Arc::new(Slot::default());
    let promise = Promise {
        slot: Arc::clone(&slot),
    };
    (Ticket { first, slot }, promise)
}

impl Ticket {
    /// The number that the batch's first record has if it becomes durable.
    #[must_use]
    pub const fn first_seq(&self) -> Seq {
        self.first
    }

    /// Blocks until the batch is durable, or will not be.
    ///
    /// # Errors
    ///
    /// [`AppendError`] when it did not become durable.
    pub fn wait(self) -> Result<Range<Seq>, AppendError> {
        let mut state = self.slot.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state = self.slot.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`wait`](Self::wait), for at most `timeout`; `None` when that passed.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<Range<Seq>, AppendError>> {
        let until = Instant::now() + timeout;
        let mut state = self.slot.lock();
        while state.outcome.is_none() {
            let left = until.checked_duration_since(Instant::now())?;
            let waited = self.slot.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.outcome.clone()
    }
}

impl Future for Ticket {
    type Output = Result<Range<Seq>, AppendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Promise {
    pub(crate) fn keep(self, outcome: Outcome) {
        self.slot.answer(outcome);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.slot.answer(Err(AppendError::Closed));
    }
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first answer stands.
    fn answer(&self, outcome: Outcome) {
        let waker = {
            let mut state = self.lock();
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            state.waker.take()
        };
        self.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
