//! Merging the files of days that are over, and letting go what need not be kept.

use std::time::{Duration, Instant};

use kaudit_collect::now_micros;
use kaudit_store::{Compaction, Retention};
use tracing::info;

use super::Inner;
use super::ending::Haste;
use super::health::Doing;

/// A start is busy enough with the journal.
const FIRST: Duration = Duration::from_secs(60);

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(3600);

const MICROS_PER_HOUR: i64 = 3600 * 1_000_000;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// A day is merged so long after its end: senders may be late.
const SETTLED_AFTER: i64 = MICROS_PER_HOUR;

/// How much others go before.
const NICENESS: i32 = 10;

/// Runs until the end is to come.
pub(super) fn run(inner: &Inner) {
    // On Linux this is of the calling thread and of those that it starts. Where it is refused the work is as
    // important as any other.
    rustix::process::nice(NICENESS).ok();
    let mut merged = None;
    let mut pause = FIRST;
    while inner.ending.rest(pause) == Haste::None {
        look(inner, now_micros(), &mut merged);
        pause = EVERY;
    }
}

/// Does what is to be done at `now`; `merged` is the day up to which files were merged.
pub(super) fn look(inner: &Inner, now: i64, merged: &mut Option<i64>) {
    retain(inner, now);
    let settled = now.saturating_sub(SETTLED_AFTER);
    let today = settled.div_euclid(MICROS_PER_DAY);
    // Once a day: what came late would be merged again and again.
    if *merged != Some(today) && inner.ending.haste() == Haste::None && compact(inner, settled, now) {
        *merged = Some(today);
    }
}

/// Merges days that end before `before`; false when not all of them were.
pub(super) fn compact(inner: &Inner, before: i64, now: i64) -> bool {
    let began = Instant::now();
    let done = inner.health.attempt(Doing::Compacting, || {
        let compaction = Compaction::before(before);
        let is_over = || inner.ending.haste() > Haste::None;
        inner.store.compact_until(&compaction, now, &is_over)
    });
    let Ok(done) = done else {
        return false;
    };
    let (from, into) = (done.removed.len(), done.added.len());
    if from > 0 {
        let took = began.elapsed();
        info!(from, into, ?took, "files of past days were merged");
        inner.health.note(|figures| {
            figures.compacted_files += wide(from);
            figures.compacted_into_files += wide(into);
            figures.compact_time += took;
        });
    }
    !done.is_ended_early
}

fn retain(inner: &Inner, now: i64) {
    let Retention {
        max_age, max_bytes, ..
    } = &inner.settings.retention;
    if max_age.is_none() && max_bytes.is_none() {
        return;
    }
    let done = inner.health.attempt(Doing::Retaining, || {
        let is_over = || inner.ending.haste() > Haste::None;
        inner.store.retain_until(&inner.settings.retention, now, &is_over)
    });
    if let Ok(done) = done
        && done.expired_rows > 0
    {
        let files = done.removed.len();
        info!(
            events = done.expired_rows,
            files, "events went whose time to be kept is over"
        );
        inner.health.note(|figures| figures.retained_files += wide(files));
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
