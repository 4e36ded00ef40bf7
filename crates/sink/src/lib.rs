//! The contract between producers of audit events and the backends that keep them.
//!
//! A producer [reserves](Sink::reserve) room for all events of a request when it arrives, and then
//! [submits](Sink::submit) one event per stage. Submitting is synchronous and never blocks, so that a
//! guard's drop can emit the final event. What may take time is awaited at RequestReceived only: the
//! reservation, and the [receipt](Outcome::Pending) of a sink that the request has to wait for.
//!
//! # A sink of one's own
//!
//! Implement [`Sink`]: keep the event or its [line](Emission::line) in `submit`, count what is refused in
//! [`Counters`] before returning, and say so in the [`Outcome`]. Whatever blocks belongs on a thread or a
//! task of the sink; `submit_batch` and `shutdown` may wait for it. Then run the suite of the
//! `conformance` module (feature `test-util`) on it. `examples/memory_sink.rs` is a whole sink with its test.

#[cfg(feature = "test-util")]
pub mod conformance;
mod counters;
mod demand;
mod emission;
mod outcome;
mod receipt;
#[cfg(feature = "test-util")]
pub mod recording;
mod turn;
mod union;

pub use counters::{Counters, CountersSnapshot, LastError};
pub use demand::Demand;
pub use emission::{Emission, PolicyView, annotate_truncated};
pub use outcome::{Outcome, Reason, Refusal, Refusals, Reservation, Reserve};
pub use receipt::{Receipt, wait};
pub use turn::{in_turn, put_off};
pub use union::{Discard, Union};

/// Where audit events go.
///
/// Source: k8s.io/apiserver pkg/audit/types.go, Sink and Backend. Upstream's bool is an
/// [`Outcome`] here, which says which event was refused by whom and why.
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// Takes room for `events` events of one request.
    ///
    /// This is the only call that may wait for room or refuse for want of it. A sink without a queue
    /// answers at once.
    fn reserve(&self, events: u32) -> Reserve;

    /// Hands over one event. Synchronous; never waits, neither for room nor for the medium of a slow
    /// receiver: a sink whose mode says that the request waits for the delivery begins it and answers
    /// [`Outcome::Pending`].
    ///
    /// Every refused or dropped event is counted with its reason, at the latest when the receipt ends.
    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome;

    /// Hands over several events at once, in order; called from threads that may block. A sink that can
    /// have several batches under way answers [`Outcome::Pending`], and its caller bounds how many.
    ///
    /// Without an implementation of its own a sink gets the events one by one, each delivered before the
    /// next.
    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        let mut none = Reservation::none();
        let mut refusals = Refusals::new();
        for emission in &batch {
            refusals.extend(self.submit(emission, &mut none).wait().err().unwrap_or_default());
        }
        Outcome::of(refusals)
    }

    /// Whether the JSON line of an event is all that this sink needs of it, so that a queue before it may
    /// keep [lines alone](Emission::keep_line).
    fn takes_lines(&self) -> bool {
        false
    }

    /// The sink's name in upstream's notation, for example `union[ignoreErrors<log>,buffered<webhook>]`.
    fn name(&self) -> String;

    /// Delivers what is queued or under way and releases what is held. Blocks until done; called once,
    /// after the last `submit`, from a thread that may block. An event that comes later all the same is
    /// refused and counted, or kept as before.
    fn shutdown(&self) {}
}
