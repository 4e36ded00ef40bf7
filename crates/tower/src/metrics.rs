//! Counters of the chain.

use std::sync::atomic::{AtomicU64, Ordering};

use kaudit_event::Level;

/// Counters that only grow; shared by all connections.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(crate) events: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) levels: [AtomicU64; 4],
    pub(crate) received: AtomicU64,
    pub(crate) finals: AtomicU64,
    pub(crate) client_gone: AtomicU64,
    pub(crate) upstream_errors: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) bodies_over_limit: AtomicU64,
    pub(crate) bodies_over_budget: AtomicU64,
    pub(crate) bodies_unprintable: AtomicU64,
}

/// What [`Metrics`] held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// `apiserver_audit_event_total`: stages handed to the sink.
    pub events: u64,
    /// `apiserver_audit_requests_rejected_total`: requests refused because RequestReceived was.
    pub rejected: u64,
    /// `apiserver_audit_level_total` by level, lowest first.
    pub levels: [u64; 4],
    /// Audited requests that began.
    pub received: u64,
    /// Audited requests that ended. INVARIANT G-2: with nothing in flight equal to `received`.
    pub finals: u64,
    /// Requests whose client left before the end.
    pub client_gone: u64,
    /// Responses whose body ended in an error.
    pub upstream_errors: u64,
    /// Requests that ended in a panic.
    pub panics: u64,
    /// Short requests whose time was up before the service answered; they were answered 504.
    pub timeouts: u64,
    /// Bodies left out because they were over the limit for one body.
    pub bodies_over_limit: u64,
    /// Bodies left out because the process' budget was spent.
    pub bodies_over_budget: u64,
    /// Bodies left out because they could not be printed as JSON.
    pub bodies_unprintable: u64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    pub(crate) fn count_level(&self, level: Level) {
        if let Some(counter) = self.levels.get(level as usize) {
            count(counter);
        }
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> MetricsSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MetricsSnapshot {
            events: read(&self.events),
            rejected: read(&self.rejected),
            levels: std::array::from_fn(|at| self.levels.get(at).map_or(0, read)),
            received: read(&self.received),
            finals: read(&self.finals),
            client_gone: read(&self.client_gone),
            upstream_errors: read(&self.upstream_errors),
            panics: read(&self.panics),
            timeouts: read(&self.timeouts),
            bodies_over_limit: read(&self.bodies_over_limit),
            bodies_over_budget: read(&self.bodies_over_budget),
            bodies_unprintable: read(&self.bodies_unprintable),
        }
    }
}
