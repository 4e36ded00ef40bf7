//! How much there is, of what, and how much it will be.

use std::collections::BTreeMap;

use crate::Snapshot;
use crate::calendar::MICROS_PER_DAY;

/// Events and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Volume {
    /// Events.
    pub events: u64,
    /// Bytes as log lines.
    pub event_bytes: u64,
}

/// The volume of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeOf {
    /// The value; `None` for all that were too many to be told apart.
    pub value: Option<String>,
    /// Its volume.
    pub volume: Volume,
}

/// The sealed files of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DayVolume {
    /// The day, since 1970 in UTC.
    pub day: i64,
    /// Events and their bytes.
    pub volume: Volume,
    /// Bytes on disk.
    pub stored_bytes: u64,
}

/// What the manifest tells without reading a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Files.
    pub files: usize,
    /// All that is sealed.
    pub sealed: Volume,
    /// Bytes on disk.
    pub stored_bytes: u64,
    /// Rows that keep their received bytes because the columns do not give them.
    pub raw_rows: u64,
    /// Events that are not sealed.
    pub tail_events: usize,
    /// By day; a file counts for the day of its earliest event.
    pub days: Vec<DayVolume>,
}

impl Stats {
    /// Bytes on disk when `days` days are kept, from the mean of the last seven whole days; `None` before
    /// there is one.
    #[must_use]
    pub fn forecast(&self, days: u64) -> Option<u64> {
        let (_, whole) = self.days.split_last()?;
        let last: Vec<u64> = whole.iter().rev().take(7).map(|day| day.stored_bytes).collect();
        let count = u64::try_from(last.len()).ok().filter(|count| *count > 0)?;
        Some((last.iter().sum::<u64>() / count).saturating_mul(days))
    }
}

impl Snapshot {
    /// What the manifest tells.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            files: self.manifest.parts.len(),
            tail_events: self.tail_rows(),
            ..Stats::default()
        };
        let mut days: BTreeMap<i64, DayVolume> = BTreeMap::new();
        for part in &self.manifest.parts {
            let day = days.entry(part.min_ts.div_euclid(MICROS_PER_DAY)).or_default();
            for volume in [&mut day.volume, &mut stats.sealed] {
                volume.events += part.rows;
                volume.event_bytes += part.event_bytes;
            }
            day.stored_bytes += part.bytes;
            stats.stored_bytes += part.bytes;
            stats.raw_rows += part.raw_rows;
        }
        stats.days = days
            .into_iter()
            .map(|(day, volume)| DayVolume { day, ..volume })
            .collect();
        stats
    }
}
