//! Counters of the gateway.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that only grow, but for the open tunnels.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) forwarded: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) broken: AtomicU64,
    pub(crate) unanswered: AtomicU64,
    pub(crate) refused_redirects: AtomicU64,
    pub(crate) refused_paths: AtomicU64,
    pub(crate) tunnels: AtomicU64,
    pub(crate) tunnels_open: AtomicU64,
    pub(crate) identity_certificates: AtomicU64,
    pub(crate) identity_front_proxy: AtomicU64,
    pub(crate) identity_hits: AtomicU64,
    pub(crate) identity_reviews: AtomicU64,
    pub(crate) identity_failures: AtomicU64,
    pub(crate) decision_hits: AtomicU64,
    pub(crate) decision_reviews: AtomicU64,
    pub(crate) decision_failures: AtomicU64,
    pub(crate) decision_over_budget: AtomicU64,
    pub(crate) own_refused: AtomicU64,
    pub(crate) over_in_flight: AtomicU64,
    pub(crate) stalled_bodies: AtomicU64,
}

/// What the gateway's counters held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Requests that were sent on.
    pub forwarded: u64,
    /// Requests that found no connection to the cluster.
    pub unreachable: u64,
    /// Requests whose connection to the cluster broke before the answer.
    pub broken: u64,
    /// Requests that the cluster did not begin to answer within the gateway's limit.
    pub unanswered: u64,
    /// Answers that would have sent the client to another host, and were refused.
    pub refused_redirects: u64,
    /// Requests refused because of their path.
    pub refused_paths: u64,
    /// Connections that became tunnels.
    pub tunnels: u64,
    /// Tunnels that are open now.
    pub tunnels_open: u64,
    /// Requests whose user a client certificate named.
    pub identity_certificates: u64,
    /// Requests whose user a front proxy named.
    pub identity_front_proxy: u64,
    /// Identities that were known.
    pub identity_hits: u64,
    /// Identities that were asked for.
    pub identity_reviews: u64,
    /// Identities that could not be learnt; their requests were answered 503.
    pub identity_failures: u64,
    /// Decisions that were known.
    pub decision_hits: u64,
    /// Decisions that were asked for.
    pub decision_reviews: u64,
    /// Decisions that could not be learnt; their events lack the reason.
    pub decision_failures: u64,
    /// Decisions that were not asked for, because their user had asked for too many; their events lack the
    /// reason.
    pub decision_over_budget: u64,
    /// Requests that the cluster refused because of the gateway's own credential or its rights.
    pub own_refused: u64,
    /// Requests refused because as many as may be were being answered.
    pub over_in_flight: u64,
    /// Requests of whose body nothing came for too long, whether or not their answer had begun.
    pub stalled_bodies: u64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MetricsSnapshot {
            forwarded: read(&self.forwarded),
            unreachable: read(&self.unreachable),
            broken: read(&self.broken),
            unanswered: read(&self.unanswered),
            refused_redirects: read(&self.refused_redirects),
            refused_paths: read(&self.refused_paths),
            tunnels: read(&self.tunnels),
            tunnels_open: read(&self.tunnels_open),
            identity_certificates: read(&self.identity_certificates),
            identity_front_proxy: read(&self.identity_front_proxy),
            identity_hits: read(&self.identity_hits),
            identity_reviews: read(&self.identity_reviews),
            identity_failures: read(&self.identity_failures),
            decision_hits: read(&self.decision_hits),
            decision_reviews: read(&self.decision_reviews),
            decision_failures: read(&self.decision_failures),
            decision_over_budget: read(&self.decision_over_budget),
            own_refused: read(&self.own_refused),
            over_in_flight: read(&self.over_in_flight),
            stalled_bodies: read(&self.stalled_bodies),
        }
    }
}
