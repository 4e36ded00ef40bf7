//! Counts.

use std::time::Duration;

use crate::Seq;

/// Upper bounds of the buckets of [`Stats::commit_durations`], in microseconds; the last has none.
pub const COMMIT_BUCKETS_MICROS: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000,
];

/// A journal in numbers. Counters begin at 0 when it is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Segments.
    pub segments: u64,
    /// Bytes that the segments take.
    pub bytes: u64,
    /// Records kept.
    pub records: u64,
    /// The oldest record kept.
    pub oldest_seq: Seq,
    /// All records before it are durable.
    pub durable_seq: Seq,
    /// The number that the next appended record gets if nothing fails.
    pub next_seq: Seq,
    /// Bytes accepted and not yet durable.
    pub queue_bytes: u64,
    /// Bytes promised to holders of a [`Room`](crate::Room).
    pub reserved_bytes: u64,
    /// Groups that became durable.
    pub commits: u64,
    /// Records that became durable.
    pub committed_records: u64,
    /// Bytes that became durable, headers included.
    pub committed_bytes: u64,
    /// How many commits took how long; bounds in [`COMMIT_BUCKETS_MICROS`], one more for all longer ones.
    pub commit_durations: [u64; COMMIT_BUCKETS_MICROS.len() + 1],
    /// All commits together.
    pub commit_total: Duration,
    /// The longest commit.
    pub commit_max: Duration,
    /// How often a group could not be made durable.
    pub failures: u64,
    /// Records that failed so.
    pub failed_records: u64,
    /// Writes that failed, but not for want of space.
    pub write_errors: u64,
    /// Syncs that failed.
    pub sync_errors: u64,
    /// Operations that failed for want of space.
    pub full_errors: u64,
    /// Records found damaged or missing at opening.
    pub corrupt_records: u64,
    /// Frames other than records found damaged at opening.
    pub corrupt_frames: u64,
    /// Bytes of torn tails that were cut away at opening.
    pub cut_bytes: u64,
    /// Records removed for want of space that a cursor had not passed, or that no cursor held.
    pub expired_records: u64,
    /// Records removed that all holding cursors had passed.
    pub released_records: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: u64,
    pub(crate) committed_records: u64,
    pub(crate) committed_bytes: u64,
    pub(crate) commit_durations: [u64; COMMIT_BUCKETS_MICROS.len() + 1],
    pub(crate) commit_total: Duration,
    pub(crate) commit_max: Duration,
    pub(crate) write_errors: u64,
    pub(crate) sync_errors: u64,
    pub(crate) full_errors: u64,
    pub(crate) corrupt_records: u64,
    pub(crate) corrupt_frames: u64,
    pub(crate) cut_bytes: u64,
    pub(crate) expired_records: u64,
    pub(crate) released_records: u64,
}

impl Counters {
    pub(crate) fn committed(&mut self, records: u64, bytes: u64) {
        self.commits += 1;
        self.committed_records += records;
        self.committed_bytes += bytes;
    }

    pub(crate) fn took(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = COMMIT_BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.commit_durations.get_mut(bucket) {
            *count += 1;
        }
        self.commit_total += duration;
        self.commit_max = self.commit_max.max(duration);
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        stats.commits = self.commits;
        stats.committed_records = self.committed_records;
        stats.committed_bytes = self.committed_bytes;
        stats.commit_durations = self.commit_durations;
        stats.commit_total = self.commit_total;
        stats.commit_max = self.commit_max;
        stats.write_errors = self.write_errors;
        stats.sync_errors = self.sync_errors;
        stats.full_errors = self.full_errors;
        stats.corrupt_records = self.corrupt_records;
        stats.corrupt_frames = self.corrupt_frames;
        stats.cut_bytes = self.cut_bytes;
        stats.expired_records = self.expired_records;
        stats.released_records = self.released_records;
    }
}
