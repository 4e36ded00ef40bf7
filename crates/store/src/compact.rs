//! Merging a day's files: fewer, smaller, and each row group in the order of what people ask for.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use arrow_select::interleave::interleave_record_batch;
use kaudit_query::Filter;

use crate::calendar::{MICROS_PER_DAY, MICROS_PER_SECOND};
use crate::error::StoreError;
use crate::faults::Step;
use crate::part::{PartWriter, WrittenPart};
use crate::rebuild::Rows;
use crate::scan::units::{Unit, select, units_of};
use crate::schema::{self, Col, Form, GROUP_ROWS};
use crate::store::folder_of;
use crate::{Manifest, Origin, Part, Scan, Store};

/// Rows with which a row group may end at a full hour.
const ENOUGH_ROWS: usize = 16 << 10;
/// Bytes of events that are sorted at once; about three times as much memory is taken.
const SLICE_BYTES: usize = 192 << 20;
const SECONDS_PER_HOUR: usize = 3600;

/// What is to be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// Only days that end before this time, microseconds since 1970 in UTC.
    pub before: i64,
}

impl Compaction {
    /// Days that end before `time`, microseconds since 1970 in UTC.
    #[must_use]
    pub const fn before(time: i64) -> Self {
        Self { before: time }
    }
}

/// The files of a day of a cluster that would be merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mergeable {
    /// The cluster.
    pub cluster: String,
    /// The day, since 1970 in UTC.
    pub day: i64,
    /// The files.
    pub parts: Vec<Part>,
}

/// What was merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Files that were replaced.
    pub removed: Vec<Part>,
    /// Files that took their place.
    pub added: Vec<Part>,
    /// Whether it was over before all days were merged. Those that are left are as they were.
    pub is_ended_early: bool,
}

impl Store {
    /// Merges the files of each day that has any to be merged; each day is committed by itself. `now` is in
    /// microseconds since 1970 in UTC.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; a day is merged as a whole or not at all.
    pub fn compact(&self, compaction: &Compaction, now: i64) -> Result<Compacted, StoreError> {
        self.compact_until(compaction, now, &|| false)
    }

    /// The same until `is_over` says so, which is asked before each row group and each piece of a file that is read. What
    /// was not committed then is as if it had not been begun.
    ///
    /// # Errors
    ///
    /// As of [`compact`](Self::compact).
    pub fn compact_until(
        &self,
        compaction: &Compaction,
        now: i64,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Compacted, StoreError> {
        let mut done = Compacted::default();
        let _upkeep = self.upkeep()?;
        self.settle_for_upkeep(now)?;
        self.sweep()?;
        for ((cluster, day), parts) in self.days(compaction) {
            let version = self.manifest().version;
            let Some(added) = self.merge_day(version, &cluster, day, &parts, is_over)? else {
                done.is_ended_early = true;
                break;
            };
            let expected: u64 = parts.iter().map(|part| part.rows).sum();
            let found: u64 = added.iter().map(|written| written.part.rows).sum();
            if expected != found {
                return Err(StoreError::Columns(format!(
                    "{found} rows were read of {expected} that the manifest names"
                )));
            }
            done.added
                .extend(added.iter().map(|written| written.part.clone()));
            self.replace(&parts, added, now, |_| {})?;
            done.removed.extend(parts);
        }
        Ok(done)
    }

    /// What [`compact`](Self::compact) would merge, by cluster and day.
    #[must_use]
    pub fn mergeable(&self, compaction: &Compaction) -> Vec<Mergeable> {
        let days = self.days(compaction).into_iter();
        days.map(|((cluster, day), parts)| Mergeable { cluster, day, parts })
            .collect()
    }

    /// The files to be merged, by cluster and day since 1970.
    fn days(&self, compaction: &Compaction) -> BTreeMap<(String, i64), Vec<Part>> {
        let mut days: BTreeMap<(String, i64), Vec<Part>> = BTreeMap::new();
        for part in &self.manifest().parts {
            let day = part.min_ts.div_euclid(MICROS_PER_DAY);
            let ends = (day + 1).saturating_mul(MICROS_PER_DAY);
            let is_small = part.origin == Origin::Sealed || part.bytes < self.options.part_bytes / 2;
            if ends <= compaction.before && is_small && part.kept_by.is_none() {
                days.entry((part.cluster.clone(), day))
                    .or_default()
                    .push(part.clone());
            }
        }
        // What was merged already is merged again only when something came late.
        days.retain(|_, parts| parts.iter().any(|part| part.origin == Origin::Sealed));
        days
    }

    /// The files of the merged day; `None` when it was ended, and then there are none.
    fn merge_day(
        &self,
        version: u64,
        cluster: &str,
        day: i64,
        parts: &[Part],
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<WrittenPart>>, StoreError> {
        let snapshot = self.snapshot();
        let mut units = Vec::new();
        for part in parts {
            if is_over() {
                return Ok(None);
            }
            units.extend(units_of(&snapshot, part)?);
        }
        let Some(slices) = slices(&units, day, is_over)? else {
            return Ok(None);
        };
        let mut files = Files::new(self, version, cluster, folder_of(cluster, day, None));
        for (from, to) in slices {
            let scan = Scan::new(Filter::everything()).between(Some(from), Some(to));
            let Some(rows) = read(&units, &scan, is_over)? else {
                return Ok(None);
            };
            let order = by_object(&rows)?;
            for group in order.chunks(GROUP_ROWS) {
                if is_over() {
                    return Ok(None);
                }
                let group: Vec<(usize, usize)> = group.iter().map(|row| (0, *row)).collect();
                files.group(&interleave_record_batch(&[&rows], &group)?)?;
            }
        }
        files.finish().map(Some)
    }

    /// Commits files in the place of others, and removes those unless somebody looks at them.
    pub(crate) fn replace(
        &self,
        old: &[Part],
        new: Vec<WrittenPart>,
        now: i64,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<(), StoreError> {
        for written in &new {
            self.faults.after(Step::Written)?;
            self.publish(written)?;
            self.faults.after(Step::Published)?;
        }
        let edit = |next: &mut Manifest| {
            next.parts
                .retain(|part| !old.iter().any(|old| old.path == part.path));
            next.parts.extend(new.iter().map(|written| written.part.clone()));
            change(next);
        };
        self.commit(now, edit, |_| {})?;
        drop(new);
        self.faults.after(Step::Committed)?;
        self.sweep()?;
        self.faults.after(Step::Done)
    }
}

/// Files that are written one after the other, each up to the size that is wanted.
pub(crate) struct Files<'a> {
    store: &'a Store,
    version: u64,
    cluster: String,
    folder: String,
    writer: Option<PartWriter>,
    written: Vec<WrittenPart>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(store: &'a Store, version: u64, cluster: &str, folder: String) -> Self {
        Self {
            store,
            version: version + 1,
            cluster: cluster.to_owned(),
            folder,
            writer: None,
            written: Vec::new(),
        }
    }

    pub(crate) fn group(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                // The version makes the name new, whatever was there before.
                let first = Rows::of(batch)?
                    .seq
                    .values()
                    .iter()
                    .min()
                    .copied()
                    .unwrap_or_default();
                let stem = format!("{first:020}-{}-{}", self.version, self.written.len());
                let path = self.store.place.name(&self.folder, &stem);
                PartWriter::begin(
                    &self.store.place.root,
                    path,
                    self.cluster.clone(),
                    Form::Compacted,
                    self.store.options.threads.get(),
                )?
            }
        };
        writer.group(batch)?;
        if writer.bytes() < self.store.options.part_bytes {
            self.writer = Some(writer);
        } else {
            self.written.push(writer.finish()?);
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Vec<WrittenPart>, StoreError> {
        if let Some(writer) = self.writer.take() {
            self.written.push(writer.finish()?);
        }
        for written in &mut self.written {
            written.part.origin = Origin::Compacted;
        }
        Ok(self.written)
    }
}

/// Runs of time with about as many rows as a row group has, cut at full hours where that is enough.
fn slices(
    units: &[Unit],
    day: i64,
    is_over: &dyn Fn() -> bool,
) -> Result<Option<Vec<(i64, i64)>>, StoreError> {
    let begins = day.saturating_mul(MICROS_PER_DAY);
    let mut seconds = vec![(0_usize, 0_usize); 24 * SECONDS_PER_HOUR];
    for unit in units {
        if is_over() {
            return Ok(None);
        }
        let all = arrow_buffer::BooleanBuffer::new_set(unit.rows());
        unit.read_sizes(&all, |ts, bytes| {
            let second = usize::try_from((ts - begins) / MICROS_PER_SECOND).unwrap_or_default();
            if let Some((rows, sum)) = seconds.get_mut(second) {
                *rows += 1;
                *sum += bytes;
            }
        })?;
    }
    let micros = |second: usize| {
        let second = i64::try_from(second).unwrap_or(i64::MAX);
        begins.saturating_add(second.saturating_mul(MICROS_PER_SECOND))
    };
    let mut slices = Vec::new();
    let (mut from, mut rows, mut bytes) = (0, 0, 0);
    for (second, (more_rows, more_bytes)) in seconds.iter().enumerate() {
        let is_full = rows + more_rows > GROUP_ROWS || bytes + more_bytes > SLICE_BYTES;
        let is_enough = second % SECONDS_PER_HOUR == 0 && rows >= ENOUGH_ROWS;
        if rows > 0 && (is_full || is_enough) {
            slices.push((micros(from), micros(second)));
            (from, rows, bytes) = (second, 0, 0);
        }
        rows += more_rows;
        bytes += more_bytes;
    }
    if rows > 0 {
        slices.push((micros(from), micros(seconds.len())));
    }
    Ok(Some(slices))
}

/// The rows of a scan as one batch.
fn read(units: &[Unit], scan: &Scan, is_over: &dyn Fn() -> bool) -> Result<Option<RecordBatch>, StoreError> {
    let mut batches = Vec::new();
    for unit in units {
        if is_over() {
            return Ok(None);
        }
        let rows = select(unit, scan)?;
        unit.read_all(&rows, |batch| {
            batches.push(batch.clone());
            Ok(())
        })?;
    }
    Ok(Some(concat_batches(&schema::schema(), &batches)?))
}

/// The rows in the order of resource, user, verb, time and number.
fn by_object(batch: &RecordBatch) -> Result<Vec<usize>, StoreError> {
    let rows = Rows::of(batch)?;
    let mut keys: Vec<_> = (0..batch.num_rows())
        .map(|row| {
            let text = |column| rows.text(column, row);
            (
                text(Col::Resource),
                text(Col::User),
                text(Col::Verb),
                rows.ts.value(row),
                rows.seq.value(row),
                row,
            )
        })
        .collect();
    keys.sort_unstable();
    Ok(keys.into_iter().map(|(.., row)| row).collect())
}
