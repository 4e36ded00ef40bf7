//! Which connections a thread uses: its own, where it has a number.

use std::cell::Cell;

thread_local! {
    /// 0 where the thread has none.
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// Gives the calling thread, which has to run a runtime of its own, the connections with this number, from 0, of every
/// [`crate::Upstream`] with so many [lanes](crate::UpstreamOptions::lanes). Connections are run by the thread that opens
/// them, so nothing of a request has to be handed to another thread. Threads without a number share one lane.
pub fn take_lane(number: usize) {
    LANE.set(number + 1);
}

/// The calling thread's, of `count` and the shared one.
pub(super) fn current(count: usize) -> usize {
    let lane = LANE.get();
    if lane <= count { lane } else { 0 }
}
