//! The newest or oldest events that satisfy a filter.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Mutex, PoisonError};

use arrow_buffer::BooleanBufferBuilder;
use bytes::Bytes;

use super::batch::Batch;
use super::group::{Coding, select};
use super::plan::Plan;
use super::work::{Unit, run};
use super::{Scan, ScanStats};
use crate::rebuild::Rows;
use crate::schema::Col;
use crate::{Snapshot, StoreError};

/// Where an event stands in time: what a page begins behind, and what an event is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "time and number")]
pub struct Position {
    /// stageTimestamp, microseconds since 1970 in UTC.
    pub ts: i64,
    /// The number in the journal.
    pub seq: u64,
}

/// Which events come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "time has two directions")]
pub enum Order {
    /// The latest.
    #[default]
    NewestFirst,
    /// The earliest.
    OldestFirst,
}

/// An event with what its record said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredEvent {
    /// Where it stands.
    pub position: Position,
    /// The cluster it is about.
    pub cluster: String,
    /// Where it was collected.
    pub source: String,
    /// The apiserver it comes from.
    pub instance: String,
    /// When it was taken in, microseconds since 1970 in UTC.
    pub received_micros: i64,
    /// The policy rule that decided its level.
    pub policy_rule: Option<u32>,
    /// The event as it was received, in log-line form without an LF.
    pub event: Bytes,
}

/// Events in the order that was asked for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Page {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Where the next page begins, when there may be more.
    pub next: Option<Position>,
    /// How the scan went.
    pub stats: ScanStats,
}

/// A row that may come onto the page. The order is that of what is wanted: the greatest goes first.
#[derive(Clone, Debug)]
struct Candidate {
    key: Key,
    unit: usize,
    row: usize,
    bytes: usize,
}

/// Ascending in the order that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Oldest(Position),
    Newest(Reverse<Position>),
}

impl Key {
    const fn of(order: Order, position: Position) -> Self {
        match order {
            Order::OldestFirst => Self::Oldest(position),
            Order::NewestFirst => Self::Newest(Reverse(position)),
        }
    }

    const fn position(self) -> Position {
        match self {
            Self::Oldest(position) | Self::Newest(Reverse(position)) => position,
        }
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// The best rows so far.
struct Best {
    heap: BinaryHeap<Candidate>,
    units: Vec<Unit>,
}

impl Snapshot {
    /// At most `limit` events that satisfy the scan, in `order`, behind `after`.
    ///
    /// The page ends early when its events would pass [`Scan::memory_budget`]; [`Page::next`] says where it
    /// goes on.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when a file cannot be read. An end before time is no error: see
    /// [`ScanStats::completeness`].
    pub fn page(
        &self,
        scan: &Scan,
        order: Order,
        limit: usize,
        after: Option<Position>,
    ) -> Result<Page, StoreError> {
        let mut plan = Plan::new(&scan.filter, scan.from, scan.to);
        match (order, after) {
            (Order::NewestFirst, Some(after)) => plan.most_ts = plan.most_ts.min(after.ts),
            (Order::OldestFirst, Some(after)) => plan.least_ts = plan.least_ts.max(after.ts),
            (_, None) => {}
        }
        let after = after.map(|after| Key::of(order, after));
        let best = Mutex::new(Best {
            heap: BinaryHeap::new(),
            units: Vec::new(),
        });
        let lock = || best.lock().unwrap_or_else(PoisonError::into_inner);
        let worst = || {
            let best = lock();
            (best.heap.len() >= limit)
                .then(|| best.heap.peek().map(|candidate| candidate.key))
                .flatten()
        };
        let wanted = |min: i64, max: i64| {
            let first = match order {
                Order::NewestFirst => Position {
                    ts: max,
                    seq: u64::MAX,
                },
                Order::OldestFirst => Position { ts: min, seq: 0 },
            };
            worst().is_none_or(|worst| Key::of(order, first) < worst)
        };
        let rank = |min: i64, max: i64| match order {
            Order::NewestFirst => max.saturating_neg(),
            Order::OldestFirst => min,
        };
        let visit = |(): &mut (), unit: &Unit, stats: &mut ScanStats| {
            let rows = select(unit, &plan, scan)?.all();
            stats.count(unit, rows.count_set_bits());
            let mut candidates: Vec<Candidate> = Vec::new();
            let mut places = rows.set_indices();
            let mut bound = worst();
            unit.read(&rows, &[Col::Ts, Col::Seq, Col::Bytes], Coding::Coded, |batch| {
                let batch = Batch::of(batch);
                for (row, place) in (0..batch.rows()).zip(places.by_ref()) {
                    let number = |column| batch.number(column, row).unwrap_or_default();
                    let position = Position {
                        ts: number(Col::Ts),
                        seq: u64::try_from(number(Col::Seq)).unwrap_or_default(),
                    };
                    let key = Key::of(order, position);
                    let is_wanted = bound.is_none_or(|bound| key < bound);
                    if is_wanted && after.is_none_or(|after| key > after) {
                        candidates.push(Candidate {
                            key,
                            unit: 0,
                            row: place,
                            bytes: usize::try_from(number(Col::Bytes)).unwrap_or_default(),
                        });
                        // Keeps the list short: of twice as many as are wanted half are the better ones.
                        if limit > 0 && candidates.len() >= 2 * limit.max(1024) {
                            candidates.select_nth_unstable(limit - 1);
                            candidates.truncate(limit);
                            bound = candidates.iter().max().map(|candidate| candidate.key);
                        }
                    }
                }
                Ok(())
            })?;
            let mut best = lock();
            let number = best.units.len();
            best.units.push(unit.clone());
            for mut candidate in candidates {
                candidate.unit = number;
                best.heap.push(candidate);
                if best.heap.len() > limit {
                    best.heap.pop();
                }
            }
            Ok(())
        };
        let (_, stats) = run(self, scan, &plan, rank, wanted, || (), visit)?;
        let best = best.into_inner().unwrap_or_else(PoisonError::into_inner);
        let full = best.heap.len() >= limit && limit > 0;
        let mut candidates = best.heap.into_sorted_vec();
        let mut bytes = 0_usize;
        let fitting = candidates
            .iter()
            .take_while(|candidate| {
                let fits = bytes == 0 || bytes.saturating_add(candidate.bytes) <= scan.memory_budget;
                bytes = bytes.saturating_add(candidate.bytes);
                fits
            })
            .count();
        let has_more = full || fitting < candidates.len();
        candidates.truncate(fitting);
        let next = candidates
            .last()
            .filter(|_| has_more)
            .map(|candidate| candidate.key.position());
        Ok(Page {
            events: fetch(&best.units, &candidates)?,
            next,
            stats,
        })
    }
}

/// Reads the events of a page, each unit once, and brings them into the order of the candidates.
fn fetch(units: &[Unit], candidates: &[Candidate]) -> Result<Vec<StoredEvent>, StoreError> {
    let mut by_unit: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (place, candidate) in candidates.iter().enumerate() {
        by_unit
            .entry(candidate.unit)
            .or_default()
            .push((candidate.row, place));
    }
    let mut events: Vec<Option<StoredEvent>> = vec![None; candidates.len()];
    for (unit, mut rows) in by_unit {
        let Some(unit) = units.get(unit) else { continue };
        rows.sort_unstable();
        let mut mask = BooleanBufferBuilder::new(unit.rows());
        mask.append_n(unit.rows(), false);
        for (row, _) in &rows {
            mask.set_bit(*row, true);
        }
        let mut places = rows.iter().map(|(_, place)| *place);
        unit.read_all(&mask.finish(), |batch| {
            let read = Rows::of(batch)?;
            for (row, place) in (0..batch.num_rows()).zip(places.by_ref()) {
                if let Some(slot) = events.get_mut(place) {
                    *slot = Some(stored(&read, row));
                }
            }
            Ok(())
        })?;
    }
    Ok(events.into_iter().flatten().collect())
}

pub(crate) fn stored(rows: &Rows<'_>, row: usize) -> StoredEvent {
    let text = |column| rows.text(column, row).unwrap_or_default().to_owned();
    let mut event = Vec::new();
    rows.write(row, &mut event);
    StoredEvent {
        position: Position {
            ts: rows.ts.value(row),
            seq: u64::try_from(rows.seq.value(row)).unwrap_or_default(),
        },
        cluster: text(Col::Cluster),
        source: text(Col::Source),
        instance: text(Col::Instance),
        received_micros: rows.ingested.value(row),
        policy_rule: rows.policy_rule(row),
        event: Bytes::from(event),
    }
}
