//! From the tail to files.
//!
//! The order is: write the files under temporary names and sync them; give them their names and sync the
//! folders; commit the manifest, which is the only truth; advance the cursor, which lets the journal's
//! segments go. Whatever is cut off is done again from the journal: before the commit the files mean nothing
//! and are removed or written over, after it the records are known to be sealed. In a bucket a file gets its name by
//! being uploaded, and a commit whose answer does not come is looked up before anything else is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use arrow_select::interleave::interleave_record_batch;
use kaudit_journal::{Cursor, Seq};

use crate::calendar::MICROS_PER_HOUR;
use crate::faults::Step;
use crate::part::{PartWriter, WrittenPart};
use crate::rebuild::Rows;
use crate::schema::{self, Col, Form, GROUP_ROWS};
use crate::store::folder_of;
use crate::tail::Chunk;
use crate::{Manifest, Part, Store, StoreError};

/// Rows of a run from which on copying runs is cheaper than copying rows.
const LONG_RUN: usize = 64;

/// What a seal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sealed {
    /// The new files.
    pub parts: Vec<Part>,
    /// The first record of the journal that is not sealed.
    pub to: u64,
}

impl Store {
    /// Seals the whole tail and moves the cursor. Does nothing when there is no tail. `now` is in
    /// microseconds since 1970 in UTC.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing is lost, and the next call begins anew.
    pub fn seal(&self, cursor: &Cursor, now: i64) -> Result<Sealed, StoreError> {
        let work = self.tail_work()?;
        self.settle(&work)?;
        let state = self.state();
        let Some(last) = state.tail.last() else {
            let to = state.manifest.sealed_to;
            // A commit of which was heard late.
            if cursor.position() < Seq::new(to) {
                cursor.advance(Seq::new(to))?;
            }
            return Ok(Sealed {
                parts: Vec::new(),
                to,
            });
        };
        let to = last.next;
        let mut written = Vec::new();
        for ((cluster, hour), rows) in partitions(&state.tail)? {
            let part = self.write_hour(&state.tail, cluster, hour, rows)?;
            self.faults.after(Step::Written)?;
            written.push(part);
        }
        for part in &written {
            self.publish(part)?;
            self.faults.after(Step::Published)?;
        }
        let parts: Vec<Part> = written.iter().map(|written| written.part.clone()).collect();
        let edit = |next: &mut Manifest| {
            next.sealed_to = to;
            next.counts.sealed += parts.iter().map(|part| part.rows).sum::<u64>();
            for chunk in &state.tail {
                for (from, counts) in [
                    (&chunk.rejected, &mut next.counts.rejected),
                    (&chunk.lost, &mut next.counts.lost),
                ] {
                    for (reason, count) in from {
                        *counts.entry((*reason).to_owned()).or_default() += count;
                    }
                }
            }
            next.parts.extend(parts.iter().cloned());
        };
        self.commit(now, edit, |state| state.tail.retain(|chunk| chunk.next > to))?;
        drop(written);
        self.faults.after(Step::Committed)?;
        if cursor.position() < Seq::new(to) {
            cursor.advance(Seq::new(to))?;
        }
        self.faults.after(Step::Done)?;
        drop(state);
        self.sweep()?;
        Ok(Sealed { parts, to })
    }

    fn write_hour(
        &self,
        tail: &[Arc<Chunk>],
        cluster: String,
        hour: i64,
        mut rows: Vec<Place>,
    ) -> Result<WrittenPart, StoreError> {
        rows.sort_unstable_by_key(|place| (place.ts, place.seq));
        let first = rows.iter().map(|place| place.seq).min().unwrap_or_default();
        let folder = folder_of(&cluster, hour.div_euclid(24), Some(hour.rem_euclid(24)));
        let path = self.place.name(&folder, &format!("{first:020}"));
        let mut writer = PartWriter::begin(
            &self.place.root,
            path,
            cluster,
            Form::Sealed,
            self.options.threads.get(),
        )?;
        let batches: Vec<&RecordBatch> = tail.iter().map(|chunk| &chunk.batch).collect();
        for group in rows.chunks(GROUP_ROWS) {
            writer.group(&gather(&batches, group)?)?;
        }
        writer.finish()
    }
}

/// A row of the tail.
#[derive(Clone, Copy, Debug)]
struct Place {
    ts: i64,
    seq: i64,
    chunk: usize,
    row: usize,
}

/// The rows as one batch, in their order.
fn gather(batches: &[&RecordBatch], places: &[Place]) -> Result<RecordBatch, StoreError> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for place in places {
        match runs.last_mut() {
            Some((chunk, first, rows)) if *chunk == place.chunk && *first + *rows == place.row => *rows += 1,
            _ => runs.push((place.chunk, place.row, 1)),
        }
    }
    // Events come nearly in the order of time, so runs are usually long and copied as they are.
    if runs.len() * LONG_RUN <= places.len() {
        let slices: Vec<RecordBatch> = runs
            .iter()
            .filter_map(|(chunk, first, rows)| Some(batches.get(*chunk)?.slice(*first, *rows)))
            .collect();
        return Ok(concat_batches(&schema::schema(), &slices)?);
    }
    let indices: Vec<(usize, usize)> = places.iter().map(|place| (place.chunk, place.row)).collect();
    Ok(interleave_record_batch(batches, &indices)?)
}

/// The rows of the tail by cluster and hour since 1970.
fn partitions(tail: &[Arc<Chunk>]) -> Result<BTreeMap<(String, i64), Vec<Place>>, StoreError> {
    let mut partitions: BTreeMap<(String, i64), Vec<Place>> = BTreeMap::new();
    for (at, chunk) in tail.iter().enumerate() {
        let rows = Rows::of(&chunk.batch)?;
        let mut run: Vec<Place> = Vec::new();
        let mut of: Option<(&str, i64)> = None;
        for (row, (ts, seq)) in rows.ts.values().iter().zip(rows.seq.values()).enumerate() {
            let cluster = rows.text(Col::Cluster, row).unwrap_or_default();
            let key = (cluster, ts.div_euclid(MICROS_PER_HOUR));
            if of != Some(key)
                && let Some((cluster, hour)) = of.replace(key)
            {
                partitions
                    .entry((cluster.to_owned(), hour))
                    .or_default()
                    .append(&mut run);
            }
            run.push(Place {
                ts: *ts,
                seq: *seq,
                chunk: at,
                row,
            });
        }
        if let Some((cluster, hour)) = of {
            partitions
                .entry((cluster.to_owned(), hour))
                .or_default()
                .append(&mut run);
        }
    }
    Ok(partitions)
}
