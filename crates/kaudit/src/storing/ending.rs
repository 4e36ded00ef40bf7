//! How the store's threads are told to end, and how it is seen that they did.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How an end is to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Haste {
    /// Not at all.
    #[default]
    None,
    /// After the last work.
    InOrder,
    /// Without it.
    AtOnce,
}

/// The end, for all threads. Its clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    haste: Haste,
    alive: usize,
}

/// A thread that has not ended.
#[derive(Debug)]
pub(super) struct Alive(Ending);

impl Ending {
    pub(super) fn enter(&self) -> Alive {
        self.lock().alive += 1;
        Alive(self.clone())
    }

    /// Says that the end is to come; it comes no slower than was said before.
    pub(super) fn begin(&self, haste: Haste) {
        let mut state = self.lock();
        state.haste = state.haste.max(haste);
        drop(state);
        self.0.changed.notify_all();
    }

    pub(super) fn haste(&self) -> Haste {
        self.lock().haste
    }

    /// Rests for `time`, less when the end is to come.
    pub(super) fn rest(&self, time: Duration) -> Haste {
        self.wait(time, |state| state.haste > Haste::None).haste
    }

    /// Waits until every thread has ended; false if that takes longer than `time`, or nobody wants to wait any more.
    pub(super) fn wait_for_all(&self, time: Duration) -> bool {
        let is_over = |state: &State| state.alive == 0 || state.haste == Haste::AtOnce;
        self.wait(time, is_over).alive == 0
    }

    fn wait(&self, time: Duration, is_over: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !is_over(&state) {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                break;
            };
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.alive = state.alive.saturating_sub(1);
        drop(state);
        self.0.0.changed.notify_all();
    }
}
