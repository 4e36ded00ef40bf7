//! Accumulators: what `top`, histograms, facets and comparisons are made of.
//!
//! Each is fed rows or values, and merges with another of its kind, so that threads and files are counted
//! apart. Memory is bounded, and the answer says what the bound took away. The order of answers is fixed.

mod compare;
mod distinct;
mod histogram;
mod key;
mod top;

pub use compare::{Compare, Difference};
pub use distinct::{Distinct, DistinctCount};
pub use histogram::{Bucket, Histogram, HistogramCounts};
pub use key::{Borrowed, Key};
pub use top::{Facets, Limits, Top, TopCounts, TopEntry};

/// How many events there were, and how many bytes they had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "two sums")]
pub struct Count {
    /// Events.
    pub events: u64,
    /// Their bytes, where these are known.
    pub bytes: u64,
}

impl Count {
    /// Counts one event.
    pub const fn add(&mut self, bytes: u64) {
        self.events = self.events.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Adds what another counted.
    pub const fn merge(&mut self, other: Self) {
        self.events = self.events.saturating_add(other.events);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}
