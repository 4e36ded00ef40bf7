//! Mode `blocking`: a failure is counted and reported, and does not matter to the request.

use std::sync::Arc;

use kaudit_sink::{Emission, Outcome, Receipt, Reservation, Reserve, Sink};

/// A sink whose failures are nobody's business but the counters'.
///
/// Source: k8s.io/apiserver pkg/server/options/audit.go, ignoreErrorsBackend.
#[derive(Debug)]
pub struct IgnoreErrors(Arc<dyn Sink>);

impl IgnoreErrors {
    /// Decorates `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self(sink)
    }
}

/// The delegate has counted and reported what it refused. What it waits for is still waited for.
fn ignore(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Accepted | Outcome::Refused(_) => Outcome::Accepted,
        Outcome::Pending(receipt) => Outcome::Pending(Receipt::new(async move {
            drop(receipt.await);
            Ok(())
        })),
    }
}

impl Sink for IgnoreErrors {
    fn reserve(&self, events: u32) -> Reserve {
        match self.0.reserve(events) {
            Reserve::Ready(reservation) => Reserve::Ready(reservation),
            Reserve::Refused(_) => Reserve::Ready(Reservation::none()),
            Reserve::Wait(room) => Reserve::Wait(Box::pin(async move { Ok(room.await.unwrap_or_default()) })),
        }
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        ignore(self.0.submit(emission, reservation))
    }

    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        ignore(self.0.submit_batch(batch))
    }

    fn takes_lines(&self) -> bool {
        self.0.takes_lines()
    }

    fn name(&self) -> String {
        format!("ignoreErrors<{}>", self.0.name())
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }
}
