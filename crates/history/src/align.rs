//! Which items of a list were which in its version before.

use std::collections::HashMap;

use serde_json::Value;

use crate::path::{self, Step};

/// An item of two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// It is in both, perhaps changed.
    Both(usize, usize),
    /// Only in the old list.
    Removed(usize),
    /// Only in the new list.
    Added(usize),
}

/// Two versions of a list, item by item.
#[derive(Debug)]
pub(crate) struct Aligned {
    /// In the order of the new list, each removed item behind the one that it followed.
    pub(crate) pairs: Vec<Pair>,
    keys: Option<[Vec<String>; 2]>,
    /// The items that are in both have changed places.
    pub(crate) is_reordered: bool,
}

impl Aligned {
    pub(crate) fn of(old: &[Value], new: &[Value]) -> Self {
        match path::keys([old, new]) {
            Some(keys) => Self::by_keys(keys),
            None => Self {
                pairs: by_value(old, new),
                keys: None,
                is_reordered: false,
            },
        }
    }

    fn by_keys(keys: [Vec<String>; 2]) -> Self {
        let [old, new] = &keys;
        let places =
            |list: &'_ [String]| -> HashMap<String, usize> { list.iter().cloned().zip(0..).collect() };
        let (of_old, of_new) = (places(old), places(new));
        let mut pairs: Vec<Pair> = new
            .iter()
            .enumerate()
            .map(|(at, key)| {
                of_old
                    .get(key)
                    .copied()
                    .map_or(Pair::Added(at), |before| Pair::Both(before, at))
            })
            .collect();
        let kept: Vec<usize> = pairs
            .iter()
            .filter_map(|pair| match pair {
                Pair::Both(before, _) => Some(*before),
                _ => None,
            })
            .collect();
        let is_reordered = !kept.is_sorted();
        pairs.extend(
            old.iter()
                .enumerate()
                .filter(|(_, key)| !of_new.contains_key(*key))
                .map(|(at, _)| Pair::Removed(at)),
        );
        Self {
            pairs,
            keys: Some(keys),
            is_reordered,
        }
    }

    /// How a path names the item.
    pub(crate) fn step(&self, pair: Pair) -> Step {
        let (list, at) = match pair {
            Pair::Removed(at) => (0, at),
            Pair::Both(_, at) | Pair::Added(at) => (1, at),
        };
        self.keys
            .as_ref()
            .and_then(|keys| keys.get(list)?.get(at).cloned())
            .map_or(Step::Index(at), Step::Key)
    }
}

/// The most comparisons that the items between the equal ends of two lists may take.
const MAX_COMPARISONS: usize = 1 << 20;

/// Equal items are the same; what is left between them pairs up in order.
pub(crate) fn by_value<T: PartialEq>(old: &[T], new: &[T]) -> Vec<Pair> {
    let head = old
        .iter()
        .zip(new)
        .take_while(|(one, other)| one == other)
        .count();
    let (old_rest, new_rest) = (
        old.get(head..).unwrap_or_default(),
        new.get(head..).unwrap_or_default(),
    );
    let tail = old_rest
        .iter()
        .rev()
        .zip(new_rest.iter().rev())
        .take_while(|(one, other)| one == other)
        .count();
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let mut pairs: Vec<Pair> = (0..head).map(|at| Pair::Both(at, at)).collect();
    let (mut from_old, mut from_new) = (head, head);
    let middle = (
        old.get(head..old_end).unwrap_or_default(),
        new.get(head..new_end).unwrap_or_default(),
    );
    for (before, after) in common(middle.0, middle.1) {
        between(&mut pairs, from_old..head + before, from_new..head + after);
        pairs.push(Pair::Both(head + before, head + after));
        (from_old, from_new) = (head + before + 1, head + after + 1);
    }
    between(&mut pairs, from_old..old_end, from_new..new_end);
    pairs.extend((0..tail).map(|at| Pair::Both(old_end + at, new_end + at)));
    pairs
}

fn between(pairs: &mut Vec<Pair>, old: std::ops::Range<usize>, new: std::ops::Range<usize>) {
    let both = old.len().min(new.len());
    pairs.extend(
        old.clone()
            .zip(new.clone())
            .map(|(before, after)| Pair::Both(before, after)),
    );
    pairs.extend(new.skip(both).map(Pair::Added));
    pairs.extend(old.skip(both).map(Pair::Removed));
}

/// The places of a longest common subsequence; none if finding it takes too long.
fn common<T: PartialEq>(old: &[T], new: &[T]) -> Vec<(usize, usize)> {
    if old.is_empty() || new.is_empty() || old.len().saturating_mul(new.len()) > MAX_COMPARISONS {
        return Vec::new();
    }
    let width = new.len() + 1;
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    let at = |lengths: &[u32], row: usize, column: usize| {
        lengths.get(row * width + column).copied().unwrap_or_default()
    };
    for (row, one) in old.iter().enumerate().rev() {
        for (column, other) in new.iter().enumerate().rev() {
            let length = if one == other {
                at(&lengths, row + 1, column + 1) + 1
            } else {
                at(&lengths, row + 1, column).max(at(&lengths, row, column + 1))
            };
            if let Some(cell) = lengths.get_mut(row * width + column) {
                *cell = length;
            }
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut out = Vec::new();
    while let (Some(one), Some(other)) = (old.get(row), new.get(column)) {
        if one == other {
            out.push((row, column));
            (row, column) = (row + 1, column + 1);
        } else if at(&lengths, row + 1, column) >= at(&lengths, row, column + 1) {
            row += 1;
        } else {
            column += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_items_are_found_between_others() {
        assert_eq!(
            by_value(&["a", "b", "c", "d"], &["a", "x", "c", "y", "d"]),
            [
                Pair::Both(0, 0),
                Pair::Both(1, 1),
                Pair::Both(2, 2),
                Pair::Added(3),
                Pair::Both(3, 4)
            ]
        );
        assert_eq!(
            by_value(&["a", "b"], &["b"]),
            [Pair::Removed(0), Pair::Both(1, 0)]
        );
        assert_eq!(by_value::<u8>(&[], &[]), []);
    }
}
