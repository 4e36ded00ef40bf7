//! Mode `blocking`: a failure is counted and reported, and does not matter to the request.

use std::sync::Arc;

use kaudit_sink::{Emission, Outcome, Reservation, Reserve, Sink};

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

impl Sink for IgnoreErrors {
    fn reserve(&self, events: u32) -> Reserve {
        match self.0.reserve(events) {
            Reserve::Refused(_) => Reserve::Ready(Reservation::none()),
            reserve => reserve,
        }
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        // The delegate has counted and reported what it refused.
        drop(self.0.submit(emission, reservation));
        Outcome::Accepted
    }

    fn name(&self) -> String {
        format!("ignoreErrors<{}>", self.0.name())
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }
}
