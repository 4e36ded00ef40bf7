//! What became of a reservation or an event.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::Receipt;

/// Why an event was not kept. Each is a value of the `reason` label of kaudit's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The event cannot be written as JSON.
    Encode,
    /// The medium refused the bytes: disk full, I/O error, closed pipe.
    Write,
    /// One event is larger than a log file or the truncate backend lets it be.
    TooLarge,
    /// A bounded queue was full; the newest event was dropped.
    QueueFull,
    /// A bounded queue was full; the oldest event was dropped to make room for a newer one.
    DroppedOldest,
    /// A receiver did not take it, after all attempts.
    Delivery,
    /// The sink behind a queue panicked.
    Panic,
    /// The sink was already shut down.
    ShutDown,
    /// A queue on disk had reached its bound in bytes; the oldest events made room.
    SpoolFull,
    /// It waited on disk for longer than it may.
    SpoolAge,
    /// What a disk gave back was not what had been written.
    Corrupt,
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
            Self::DroppedOldest => "dropped_oldest",
            Self::Delivery => "delivery",
            Self::Panic => "panic",
            Self::ShutDown => "shut_down",
            Self::SpoolFull => "spool_full",
            Self::SpoolAge => "spool_age",
            Self::Corrupt => "corrupt",
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

/// What became of a submitted event or batch.
#[derive(Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "producers must look at each case")]
pub enum Outcome {
    /// Every sink took it, or its mode says that a failure does not matter to the request.
    Accepted,
    /// At least one sink that must not fail refused it. Only at RequestReceived does this refuse
    /// the request.
    Refused(Refusals),
    /// It is under way, and its mode says that the request waits for the end: at RequestReceived the
    /// request does not go on before the receipt says how it went. Later stages need not wait.
    Pending(Receipt),
}

impl Outcome {
    /// Accepted without refusals, refused with some.
    pub fn of(refusals: Refusals) -> Self {
        if refusals.is_empty() {
            Self::Accepted
        } else {
            Self::Refused(refusals)
        }
    }

    /// Whether it was accepted, and without anything left to wait for.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted)
    }

    /// The outcome of two sinks or two parts of a batch: accepted if both are, pending as long as one is.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Accepted, other) | (other, Self::Accepted) => other,
            (Self::Refused(mut refusals), Self::Refused(more)) => {
                refusals.extend(more);
                Self::Refused(refusals)
            }
            (first, second) => Self::Pending(Receipt::new(async move {
                let mut refusals = first.end().await.err().unwrap_or_default();
                refusals.extend(second.end().await.err().unwrap_or_default());
                if refusals.is_empty() {
                    Ok(())
                } else {
                    Err(refusals)
                }
            })),
        }
    }

    /// Waits for what is pending.
    ///
    /// # Errors
    ///
    /// The refusals.
    pub async fn end(self) -> Result<(), Refusals> {
        match self {
            Self::Accepted => Ok(()),
            Self::Refused(refusals) => Err(refusals),
            Self::Pending(receipt) => receipt.await,
        }
    }

    /// As [`Outcome::end`], on a thread that may block.
    ///
    /// # Errors
    ///
    /// The refusals.
    pub fn wait(self) -> Result<(), Refusals> {
        crate::receipt::wait(self.end())
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
