//! Dividing a scan among threads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::bloom_filter::Sbbf;

use super::plan::{self, Plan};
use super::{Limit, Scan, ScanStats};
use crate::manifest::Part;
use crate::snapshot::{Footer, PartFile};
use crate::tail::Chunk;
use crate::{Snapshot, StoreError};

/// A run of rows that are looked at together.
#[derive(Clone, Debug)]
pub(crate) enum Unit {
    /// A row group of an open file.
    Group(Group),
    /// A run of the tail.
    Chunk(Arc<Chunk>),
}

/// A row group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) file: PartFile,
    pub(crate) path: Arc<str>,
    pub(crate) footer: Footer,
    pub(crate) at: usize,
    pub(crate) has_raw: bool,
    pub(crate) times: (i64, i64),
}

impl Unit {
    /// The times of its rows, both included.
    pub(crate) fn times(&self) -> (i64, i64) {
        match self {
            Self::Group(group) => group.times,
            Self::Chunk(chunk) => (chunk.min_ts, chunk.max_ts),
        }
    }
}

/// What is left to be done, the most wanted first.
struct Queue<'a> {
    parts: VecDeque<&'a Part>,
    units: VecDeque<Unit>,
}

/// Runs `each` on every unit that may hold a row, on several threads, each with a state of its own.
/// `wanted` says whether rows between two times are still of use. Parts are opened in the order of `rank`,
/// the lowest first.
pub(crate) fn run<S: Send>(
    snapshot: &Snapshot,
    scan: &Scan,
    plan: &Plan,
    rank: impl Fn(i64, i64) -> i64 + Sync,
    wanted: impl Fn(i64, i64) -> bool + Sync,
    state: impl Fn() -> S + Sync,
    each: impl Fn(&mut S, &Unit, &mut ScanStats) -> Result<(), StoreError> + Sync,
) -> Result<(Vec<S>, ScanStats), StoreError> {
    let of_cluster = |cluster: &str| {
        scan.clusters
            .as_ref()
            .is_none_or(|clusters| clusters.iter().any(|wanted| wanted == cluster))
    };
    let mut parts: Vec<&Part> = snapshot
        .manifest
        .parts
        .iter()
        .filter(|part| of_cluster(&part.cluster) && plan.covers(part.min_ts, part.max_ts))
        .filter(|part| scan.covers_seqs(part.min_seq, part.max_seq))
        .collect();
    parts.sort_by_key(|part| rank(part.min_ts, part.max_ts));
    let mut units: Vec<Unit> = snapshot
        .tail
        .iter()
        .filter(|chunk| plan.covers(chunk.min_ts, chunk.max_ts))
        .filter(|chunk| scan.covers_seqs(0, chunk.next.saturating_sub(1)))
        .map(|chunk| Unit::Chunk(Arc::clone(chunk)))
        .collect();
    units.sort_by_key(|unit| rank(unit.times().0, unit.times().1));
    let queue = Mutex::new(Queue {
        parts: parts.into(),
        units: units.into(),
    });
    let limit = Limit::of(scan);
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let has_failed = AtomicBool::new(false);
    let scan_all = || -> Result<(S, ScanStats), StoreError> {
        let mut own = state();
        let mut stats = ScanStats::default();
        loop {
            if has_failed.load(Ordering::Relaxed) {
                return Ok((own, stats));
            }
            if let Some(completeness) = limit.reached() {
                stats.completeness = completeness;
                return Ok((own, stats));
            }
            let unit = lock().units.pop_front();
            if let Some(unit) = unit {
                let (min, max) = unit.times();
                if wanted(min, max) {
                    each(&mut own, &unit, &mut stats)?;
                }
                continue;
            }
            let Some(part) = lock().parts.pop_front() else {
                return Ok((own, stats));
            };
            if wanted(part.min_ts, part.max_ts) {
                stats.files_opened += 1;
                let Some(mut groups) = open(snapshot, part, plan, &|| limit.reached().is_some())? else {
                    continue;
                };
                groups.sort_by_key(|group| rank(group.times().0, group.times().1));
                lock().units.extend(groups);
            }
        }
    };
    // Where one fails the whole fails: the others need not go on, each waiting for a bucket that is not there.
    let work = || scan_all().inspect_err(|_| has_failed.store(true, Ordering::Relaxed));
    let results = std::thread::scope(|scope| {
        let others: Vec<_> = (1..snapshot.threads.get()).map(|_| scope.spawn(work)).collect();
        let mut results = vec![work()];
        results.extend(others.into_iter().map(|other| {
            other
                .join()
                .unwrap_or_else(|_| Err(StoreError::Columns("a scanner panicked".to_owned())))
        }));
        results
    });
    let mut stats = ScanStats {
        files: snapshot.manifest.parts.len(),
        ..ScanStats::default()
    };
    let mut states = Vec::new();
    for result in results {
        let (state, of_thread) = result?;
        stats.add(&of_thread);
        states.push(state);
    }
    Ok((states, stats))
}

/// All row groups of a file.
pub(crate) fn units_of(snapshot: &Snapshot, part: &Part) -> Result<Vec<Unit>, StoreError> {
    let everything = Plan::new(&kaudit_query::Filter::everything(), None, None);
    let units = open(snapshot, part, &everything, &|| false)?;
    Ok(units.unwrap_or_default())
}

/// The row groups of a file that may hold a row; `None` if the scan was over before the file was there.
fn open(
    snapshot: &Snapshot,
    part: &Part,
    plan: &Plan,
    is_over: &dyn Fn() -> bool,
) -> Result<Option<Vec<Unit>>, StoreError> {
    let Some((file, footer)) = snapshot.footers.open(&snapshot.place, part, is_over)? else {
        return Ok(None);
    };
    let path: Arc<str> = Arc::from(part.path.as_str());
    let has_raw = part.raw_rows > 0;
    let mut groups = Vec::new();
    for (at, group) in footer.plain.metadata().row_groups().iter().enumerate() {
        let times = plan::times(group);
        let mut bloom = |column| {
            let chunk = group.columns().get(plan::leaf(group, column)?)?;
            Sbbf::read_from_column_chunk(chunk, &file).ok().flatten()
        };
        if plan.covers(times.0, times.1) && plan.may_hold(group, has_raw, &mut bloom) {
            groups.push(Unit::Group(Group {
                file: file.clone(),
                path: Arc::clone(&path),
                footer: footer.clone(),
                at,
                has_raw,
                times,
            }));
        }
    }
    Ok(Some(groups))
}
