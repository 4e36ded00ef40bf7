//! Numbers of records.

use std::fmt;

/// The number of a record: dense, from 1, in the order of the journal, never given to another durable
/// record.
///
/// `u64::MAX` is no record's number: when all before it are used, appends are refused
/// ([`Reject::SequenceEnd`](crate::Reject::SequenceEnd)); nothing wraps. At a million records a second that
/// is in half a million years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// The number of a journal's first record.
    pub const FIRST: Self = Self(1);
    /// The end of all numbers, which no record has.
    pub const END: Self = Self(u64::MAX);

    /// The number `value`.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number as an integer.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number `count` records later, [`Seq::END`] at most.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many records lie between `earlier` and this one; 0 if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Seq> for u64 {
    fn from(seq: Seq) -> Self {
        seq.0
    }
}
