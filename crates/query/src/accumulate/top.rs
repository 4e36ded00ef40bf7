//! The most frequent values of columns.

use std::collections::HashMap;
use std::hash::BuildHasher as _;

use foldhash::quality::RandomState;

use super::key::{Borrowed, Key};
use crate::column::Column;
use crate::row::{Row, Value};

/// How many values are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "two bounds")]
pub struct Limits {
    /// So many distinct values.
    pub values: usize,
    /// So many bytes of texts.
    pub bytes: usize,
}

impl Default for Limits {
    /// 100,000 values, 16 MiB.
    fn default() -> Self {
        Self {
            values: 100_000,
            bytes: 16 << 20,
        }
    }
}

/// Counts of the values of one column.
///
/// Exact as long as there are no more values than the limits allow. Beyond, a value that was not among the
/// first ones is counted in `other`: then each count is still exact for one accumulator, and the least
/// that is true after a merge.
#[derive(Clone, Debug)]
pub struct Top {
    limits: Limits,
    /// In the order in which they came.
    entries: Vec<(Key, u64)>,
    /// Places in `entries` by the hash of the key.
    places: HashMap<u64, Vec<usize>, RandomState>,
    /// Random, since clients choose what is counted; the answer does not depend on it.
    hasher: RandomState,
    bytes: usize,
    other: u64,
}

/// What [`Top::finish`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopCounts {
    /// The most frequent first; of equal ones, in the order of their keys.
    pub entries: Vec<TopEntry>,
    /// How many distinct values there were; with `other`, the least.
    pub distinct: usize,
    /// Counts of values that are told apart, but are not among `entries`.
    pub beyond: u64,
    /// Counts of values that were too many to be told apart.
    pub other: u64,
}

/// A value and how often it came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopEntry {
    /// The value.
    pub key: Key,
    /// How often it came.
    pub count: u64,
}

impl Top {
    /// Counts nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: Vec::new(),
            places: HashMap::default(),
            hasher: RandomState::default(),
            bytes: 0,
            other: 0,
        }
    }

    /// Counts a value; each text of a list once.
    pub fn add(&mut self, value: &Value<'_>) {
        Key::each(value, |key| self.add_key(key, 1));
    }

    /// Counts a key `times`.
    pub fn add_key(&mut self, key: Borrowed<'_>, times: u64) {
        let hash = self.hasher.hash_one(key);
        let places = self.places.entry(hash).or_default();
        for place in places.iter() {
            if let Some((own, count)) = self.entries.get_mut(*place)
                && own.borrowed() == key
            {
                *count = count.saturating_add(times);
                return;
            }
        }
        let owned = key.to_key();
        let bytes = self.bytes + owned.heap_bytes();
        if self.entries.len() >= self.limits.values || bytes > self.limits.bytes {
            if places.is_empty() {
                self.places.remove(&hash);
            }
            self.other = self.other.saturating_add(times);
            return;
        }
        self.bytes = bytes;
        places.push(self.entries.len());
        self.entries.push((owned, times));
    }

    /// Adds what another counted, in its order.
    pub fn merge(&mut self, other: &Self) {
        for (key, count) in &other.entries {
            self.add_key(key.borrowed(), *count);
        }
        self.other = self.other.saturating_add(other.other);
    }

    /// Whether every value was told apart.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.other == 0
    }

    /// Everything that was counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        let told: u64 = self.entries.iter().map(|(_, count)| count).sum();
        told.saturating_add(self.other)
    }

    pub(crate) fn count_of(&self, key: &Key) -> u64 {
        let hash = self.hasher.hash_one(key.borrowed());
        let places = self.places.get(&hash).into_iter().flatten();
        places
            .filter_map(|place| self.entries.get(*place))
            .find(|(own, _)| own == key)
            .map_or(0, |(_, count)| *count)
    }

    pub(crate) fn entries(&self) -> &[(Key, u64)] {
        &self.entries
    }

    /// The `most` most frequent ones.
    #[must_use]
    pub fn finish(&self, most: usize) -> TopCounts {
        let mut sorted: Vec<&(Key, u64)> = self.entries.iter().collect();
        sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let beyond = sorted.iter().skip(most).map(|(_, count)| count).sum();
        let entries = sorted.into_iter().take(most).map(|(key, count)| TopEntry {
            key: key.clone(),
            count: *count,
        });
        TopCounts {
            entries: entries.collect(),
            distinct: self.entries.len(),
            beyond,
            other: self.other,
        }
    }
}

/// The most frequent values of several columns at once.
#[derive(Clone, Debug)]
pub struct Facets {
    columns: Vec<(Column, Top)>,
}

impl Facets {
    /// Counts nothing yet; the limits are those of each column.
    #[must_use]
    pub fn new(columns: impl IntoIterator<Item = Column>, limits: Limits) -> Self {
        Self {
            columns: columns
                .into_iter()
                .map(|column| (column, Top::new(limits)))
                .collect(),
        }
    }

    /// Counts the values of a row.
    pub fn add(&mut self, row: &Row<'_>) {
        for (column, top) in &mut self.columns {
            top.add(&row.value(column));
        }
    }

    /// The counts of one column, for values that come from elsewhere.
    pub fn column_mut(&mut self, column: &Column) -> Option<&mut Top> {
        self.columns
            .iter_mut()
            .find(|(own, _)| own == column)
            .map(|(_, top)| top)
    }

    /// Adds what another counted of the same columns.
    pub fn merge(&mut self, other: &Self) {
        for (column, top) in &other.columns {
            if let Some(own) = self.column_mut(column) {
                own.merge(top);
            }
        }
    }

    pub(crate) fn columns(&self) -> &[(Column, Top)] {
        &self.columns
    }

    /// The `most` most frequent ones of each column, in the order of the columns.
    #[must_use]
    pub fn finish(&self, most: usize) -> Vec<(Column, TopCounts)> {
        self.columns
            .iter()
            .map(|(column, top)| (column.clone(), top.finish(most)))
            .collect()
    }
}
