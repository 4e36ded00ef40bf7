//! The contract between producers of audit events and the backends that keep them.
//!
//! A producer [reserves](Sink::reserve) room for all events of a request when it arrives, and then
//! [submits](Sink::submit) one event per stage. Only the reservation may wait or refuse; submitting
//! is synchronous, so that a guard's drop can emit the final event.

#[cfg(feature = "test-util")]
pub mod conformance;
mod counters;
mod demand;
mod emission;
mod outcome;
#[cfg(feature = "test-util")]
pub mod recording;
mod union;

pub use counters::{Counters, CountersSnapshot, LastError};
pub use demand::Demand;
pub use emission::{Emission, PolicyView};
pub use outcome::{Outcome, Reason, Refusal, Refusals, Reservation, Reserve};
pub use union::{Discard, Union};

/// Where audit events go.
///
/// Source: k8s.io/apiserver pkg/audit/types.go, Sink and Backend. Upstream's bool is an
/// [`Outcome`] here, which says which event was refused by whom and why.
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// Takes room for `events` events of one request.
    ///
    /// This is the only call that may wait or refuse. A sink without a queue answers at once.
    fn reserve(&self, events: u32) -> Reserve;

    /// Hands over one event. Synchronous; never waits for room.
    ///
    /// Every refused or dropped event is counted with its reason before this returns.
    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome;

    /// The sink's name in upstream's notation, for example `union[ignoreErrors<log>,buffered<webhook>]`.
    fn name(&self) -> String;

    /// Delivers what is queued and releases what is held. Blocks until done; called once, after the
    /// last `submit`, from a thread that may block.
    fn shutdown(&self) {}
}
