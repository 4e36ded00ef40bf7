//! Which events are here already.
//!
//! The set holds the first 128 bits of the newest events' ids: two events of one key meet by chance once in
//! 2^128 / n. It is made of generations; when the newest is full the oldest is forgotten as a whole, so that
//! between three and four quarters of the bound are remembered at any time. A table grows at seven eighths of its
//! places to twice as many, of seventeen bytes each: an event takes at most 39 bytes.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

const GENERATIONS: usize = 4;

/// The ids of the newest events.
#[derive(Debug)]
pub(crate) struct Dedup {
    /// Newest first.
    generations: VecDeque<HashSet<u128, BuildHasherDefault<Taken>>>,
    per_generation: usize,
}

/// An id is a keyed hash already; eight bytes of it serve as the table's.
#[derive(Debug, Default)]
pub(crate) struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write_u128(&mut self, value: u128) {
        let [a, b, c, d, e, f, g, h, ..] = value.to_le_bytes();
        self.0 = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    }
}

/// What an id is remembered by.
pub(crate) fn short(eid: &[u8; 24]) -> u128 {
    eid.first_chunk::<16>()
        .map_or(0, |bytes| u128::from_le_bytes(*bytes))
}

impl Dedup {
    /// Remembers at most `events`, at least four.
    pub(crate) fn new(events: usize) -> Self {
        let mut generations = VecDeque::with_capacity(GENERATIONS);
        generations.push_front(HashSet::default());
        Self {
            generations,
            per_generation: (events / GENERATIONS).max(1),
        }
    }

    /// Remembers an event; whether it was not here.
    pub(crate) fn insert(&mut self, id: u128) -> bool {
        if self.generations.iter().any(|generation| generation.contains(&id)) {
            return false;
        }
        if self
            .generations
            .front()
            .is_none_or(|newest| newest.len() >= self.per_generation)
        {
            let mut oldest = if self.generations.len() < GENERATIONS {
                HashSet::default()
            } else {
                self.generations.pop_back().unwrap_or_default()
            };
            oldest.clear();
            self.generations.push_front(oldest);
        }
        if let Some(newest) = self.generations.front_mut() {
            newest.insert(id);
        }
        true
    }

    /// Forgets an event that could not be kept.
    pub(crate) fn remove(&mut self, id: u128) {
        for generation in &mut self.generations {
            if generation.remove(&id) {
                return;
            }
        }
    }

    /// Events that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.generations.iter().map(HashSet::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_the_bound_holds() {
        let mut dedup = Dedup::new(80);
        for id in 0..1000_u128 {
            assert!(dedup.insert(id << 64 | id));
            assert!(!dedup.insert(id << 64 | id));
            assert!(dedup.len() <= 80);
            for newer in id.saturating_sub(59)..=id {
                assert!(!dedup.insert(newer << 64 | newer), "{newer} at {id}");
            }
        }
        let id = short(&[5; 24]);
        assert!(dedup.insert(id) && !dedup.insert(id));
        dedup.remove(id);
        assert!(dedup.insert(id));
    }
}
