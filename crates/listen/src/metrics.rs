//! What a listener counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection was closed before its first request, or because of what its peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// Its client has enough connections.
    Address,
    /// An HTTP/2 peer cancelled too many requests before they were answered.
    Cancelled,
    /// A proxy's connection did not begin with a PROXY header.
    ProxyMalformed,
    /// A PROXY header was longer than is read.
    ProxyTooLong,
    /// A proxy's connection ended within its header, as health checks of TCP do.
    ProxyIncomplete,
    /// A PROXY header did not come in time.
    ProxyTimeout,
    /// The TLS handshake failed.
    Handshake,
    /// The TLS handshake took too long.
    HandshakeTimeout,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Address,
        Self::Cancelled,
        Self::ProxyMalformed,
        Self::ProxyTooLong,
        Self::ProxyIncomplete,
        Self::ProxyTimeout,
        Self::Handshake,
        Self::HandshakeTimeout,
    ];

    /// A label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Cancelled => "cancelled",
            Self::ProxyMalformed => "proxy_malformed",
            Self::ProxyTooLong => "proxy_too_long",
            Self::ProxyIncomplete => "proxy_incomplete",
            Self::ProxyTimeout => "proxy_timeout",
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
        }
    }
}

/// A listener's counters; cheap to clone, and read while it serves.
#[derive(Clone, Debug, Default)]
pub struct ListenerMetrics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    ended: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

impl ListenerMetrics {
    /// Connections that were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        // Read first, so that it is never more than were accepted.
        let ended = self.0.ended.load(Ordering::Acquire);
        self.accepted().saturating_sub(ended)
    }

    /// Connections that were closed for this reason.
    #[must_use]
    pub fn refused(&self, reason: Refused) -> u64 {
        let counters = Refused::ALL.iter().zip(&self.0.refused);
        counters
            .filter(|(of, _)| **of == reason)
            .map(|(_, counter)| counter.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn refuse(&self, reason: Refused) {
        let mut counters = Refused::ALL.iter().zip(&self.0.refused);
        if let Some((_, counter)) = counters.find(|(of, _)| **of == reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a connection until what is returned is dropped.
    pub(crate) fn accept(&self) -> Open {
        self.0.accepted.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub(crate) struct Open(ListenerMetrics);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::Release);
    }
}
