//! What became of a reservation or an event.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// Why an event was not kept. Each is a value of the `reason` label of kaudit's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The event cannot be written as JSON.
    Encode,
    /// The medium refused the bytes: disk full, I/O error, closed pipe.
    Write,
    /// One event is larger than a log file may be.
    TooLarge,
    /// A bounded queue was full.
    QueueFull,
    /// The sink was already shut down.
    ShutDown,
}

impl Reason {
    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Write => "write",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
            Self::ShutDown => "shut_down",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One sink's refusal of one event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audit plugin `{plugin}` refused an event ({reason}): {message}")]
pub struct Refusal {
    /// The plugin as upstream names it in `apiserver_audit_error_total`: `log`, `buffered`, ...
    pub plugin: &'static str,
    /// The class, for counters.
    pub reason: Reason,
    /// The error's text.
    pub message: String,
}

/// The refusals of one event, in the order of the sinks; empty when all accepted.
pub type Refusals = Vec<Refusal>;

/// What became of one submitted event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "producers must look at both cases")]
pub enum Outcome {
    /// Every sink took it, or its mode says that a failure does not matter to the request.
    Accepted,
    /// At least one sink that must not fail refused it. Only at RequestReceived does this refuse
    /// the request.
    Refused(Refusals),
}

impl Outcome {
    /// Whether upstream's `ProcessEvents` would have returned true.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted)
    }
}

/// Room for the events of one request; what is left of it returns to the sink on drop.
///
/// Its content belongs to the sink that gave it: a union keeps one per member.
#[derive(Default)]
pub struct Reservation(Option<Box<dyn Any + Send + Sync>>);

impl Reservation {
    /// The reservation of a sink that needs none.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// A reservation that carries a sink's own permit.
    #[must_use]
    pub fn with<T: Any + Send + Sync>(permit: T) -> Self {
        Self(Some(Box::new(permit)))
    }

    /// The sink's own permit, if it is of that type.
    pub fn permit_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.0.as_mut().and_then(|permit| permit.downcast_mut())
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reservation").field(&self.0.is_some()).finish()
    }
}

/// The answer to [`Sink::reserve`](crate::Sink::reserve).
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "producers must look at each case")]
pub enum Reserve {
    /// Room was there.
    Ready(Reservation),
    /// There is none and the mode says not to wait and not to go on without.
    Refused(Refusals),
    /// Room comes later.
    Wait(Pin<Box<dyn Future<Output = Result<Reservation, Refusals>> + Send>>),
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready",
            Self::Refused(_) => "Refused",
            Self::Wait(_) => "Wait",
        })
    }
}
