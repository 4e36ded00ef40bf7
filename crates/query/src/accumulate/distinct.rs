//! How many distinct values there are.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;

use foldhash::quality::FixedState;

use super::key::{Borrowed, Key};
use crate::row::Value;

/// Counts distinct values: exactly up to [`Distinct::EXACT`], beyond with an error of about 1.6 %.
///
/// It keeps the least hashes of 64 bits that it met. Merged in any order, from any parts, the answer is
/// that of all values together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distinct {
    least: BTreeSet<u64>,
    is_full: bool,
}

/// An answer of [`Distinct`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it is exact or it is not")]
pub enum DistinctCount {
    /// So many, but for two values of one hash.
    Exactly(u64),
    /// About so many.
    About(u64),
}

impl Distinct {
    /// So many are counted exactly.
    pub const EXACT: usize = 4096;

    /// Counts a value; each text of a list.
    pub fn add(&mut self, value: &Value<'_>) {
        Key::each(value, |key| self.add_key(key));
    }

    /// Counts a key.
    pub fn add_key(&mut self, key: Borrowed<'_>) {
        self.add_hash(FixedState::with_seed(0).hash_one(key));
    }

    fn add_hash(&mut self, hash: u64) {
        if self.is_full && self.least.last().is_some_and(|most| hash > *most) {
            return;
        }
        self.least.insert(hash);
        if self.least.len() > Self::EXACT {
            self.least.pop_last();
            self.is_full = true;
        }
    }

    /// Adds what another met.
    pub fn merge(&mut self, other: &Self) {
        for hash in &other.least {
            self.add_hash(*hash);
        }
        self.is_full |= other.is_full;
    }

    /// How many there were.
    #[must_use]
    pub fn finish(&self) -> DistinctCount {
        let kept = u64::try_from(self.least.len()).unwrap_or(u64::MAX);
        match self.least.last() {
            Some(most) if self.is_full => {
                // The hashes are spread evenly: as many as were kept, in this part of all there are.
                let estimate = u128::from(kept - 1) * u128::from(u64::MAX) / u128::from((*most).max(1));
                DistinctCount::About(u64::try_from(estimate).unwrap_or(u64::MAX))
            }
            _ => DistinctCount::Exactly(kept),
        }
    }
}
