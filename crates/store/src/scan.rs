//! Asking a snapshot.
//!
//! Files are left out by the manifest (cluster, time), row groups by their statistics and bloom filters. In
//! a row group the conditions of the filter are taken one after the other, the cheapest columns first, each
//! read only where the ones before hold; pages in which nothing is left are not decompressed. What is asked
//! for is read last, for the rows that remain. Rows that keep their received bytes are judged by
//! [`Filter::matches`] itself; so is what no column holds.

mod batch;
mod fold;
mod group;
mod page;
mod plan;
mod volume;
mod work;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kaudit_query::Filter;

/// What other work on files takes from the scan.
pub(crate) mod units {
    pub(crate) use super::work::{Unit, units_of};

    use arrow_buffer::BooleanBuffer;

    use super::Scan;
    use super::batch::Batch;
    use super::plan::Plan;
    use crate::StoreError;
    use crate::schema::Col;

    /// The rows of a unit that satisfy a scan.
    pub(crate) fn select(unit: &Unit, scan: &Scan) -> Result<BooleanBuffer, StoreError> {
        let plan = Plan::new(&scan.filter, scan.from, scan.to);
        Ok(super::group::select(unit, &plan, scan)?.all())
    }

    /// Of the rows that are set those of which `holds` is true, by some of their columns.
    pub(crate) fn where_holds(
        unit: &Unit,
        rows: &BooleanBuffer,
        columns: &[Col],
        mut holds: impl FnMut(&Batch<'_>, usize) -> bool,
    ) -> Result<BooleanBuffer, StoreError> {
        super::group::refine(unit, rows, columns, |batch| {
            BooleanBuffer::collect_bool(batch.rows(), |row| holds(batch, row))
        })
    }
}

pub use fold::Hit;
pub use page::{Order, Page, Position, StoredEvent};

/// What is asked, and within which bounds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scan {
    /// What must hold of an event.
    pub filter: Filter,
    /// Only these clusters.
    pub clusters: Option<Vec<String>>,
    /// Not before this time, microseconds since 1970 in UTC.
    pub from: Option<i64>,
    /// Before this time.
    pub to: Option<i64>,
    /// Only records with these numbers in the journal.
    pub seqs: Option<Range<u64>>,
    /// When to end with what was found.
    pub time_budget: Option<Duration>,
    /// Bytes of events that a page holds, at most; one larger event is a page of its own.
    pub memory_budget: usize,
    /// Ends the scan from outside.
    pub cancel: Cancel,
}

impl Scan {
    /// Everything that satisfies `filter`.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            clusters: None,
            from: None,
            to: None,
            seqs: None,
            time_budget: None,
            memory_budget: 64 << 20,
            cancel: Cancel::default(),
        }
    }

    /// Not before `from`, and before `to`; microseconds since 1970 in UTC.
    #[must_use]
    pub const fn between(mut self, from: Option<i64>, to: Option<i64>) -> Self {
        self.from = from;
        self.to = to;
        self
    }

    /// Only these clusters.
    #[must_use]
    pub fn of_clusters(mut self, clusters: Vec<String>) -> Self {
        self.clusters = Some(clusters);
        self
    }

    /// Only records with these numbers in the journal.
    #[must_use]
    pub const fn of_seqs(mut self, seqs: Range<u64>) -> Self {
        self.seqs = Some(seqs);
        self
    }

    /// Whether some of the records from the one to the other number may be meant, both included.
    pub(crate) fn covers_seqs(&self, least: u64, most: u64) -> bool {
        let seqs = self.seqs.as_ref();
        seqs.is_none_or(|seqs| least < seqs.end && most >= seqs.start)
    }

    /// Ends after `budget` with what was found.
    #[must_use]
    pub const fn within(mut self, budget: Duration) -> Self {
        self.time_budget = Some(budget);
        self
    }
}

/// Ends a scan. Its clones are one.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends it soon.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether everything was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completeness {
    /// It was.
    #[default]
    Whole,
    /// The time was over.
    TimeUp,
    /// Somebody ended it.
    Cancelled,
}

/// How a scan went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanStats {
    /// Whether everything was looked at.
    pub completeness: Completeness,
    /// Files of the snapshot.
    pub files: usize,
    /// Files that were opened.
    pub files_opened: usize,
    /// Row groups that were read.
    pub groups_read: usize,
    /// Rows of these and of the tail.
    pub rows_scanned: u64,
    /// Rows that satisfied the filter; in a page only those that might have been in it.
    pub rows_matched: u64,
}

impl ScanStats {
    const fn add(&mut self, other: &Self) {
        self.files_opened += other.files_opened;
        self.groups_read += other.groups_read;
        self.rows_scanned += other.rows_scanned;
        self.rows_matched += other.rows_matched;
        if matches!(self.completeness, Completeness::Whole) {
            self.completeness = other.completeness;
        }
    }
}

/// When a scan has to end.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    cancel: Cancel,
    until: Option<Instant>,
}

impl Limit {
    pub(crate) fn of(scan: &Scan) -> Self {
        Self {
            cancel: scan.cancel.clone(),
            until: scan
                .time_budget
                .and_then(|budget| Instant::now().checked_add(budget)),
        }
    }

    pub(crate) fn reached(&self) -> Option<Completeness> {
        if self.cancel.is_cancelled() {
            return Some(Completeness::Cancelled);
        }
        self.until
            .is_some_and(|until| Instant::now() >= until)
            .then_some(Completeness::TimeUp)
    }
}
