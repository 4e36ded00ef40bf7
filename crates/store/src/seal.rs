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
use crate::repeats::{Looking, Repeats, WINDOW_MICROS};
use crate::schema::{self, Col, Form, GROUP_ROWS};
use crate::store::{State, folder_of};
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
    /// Events that were dropped, because they are in files already.
    pub duplicates: u64,
    /// Files that could not be read to look for them there; what is in these may be kept twice.
    pub unread: usize,
}

impl Store {
    /// Seals the tail as it is and moves the cursor. Does nothing when there is no tail. `now` is in
    /// microseconds since 1970 in UTC. Meanwhile [`catch_up`](Self::catch_up) goes on, to one and a half
    /// times [`tail_bytes`](crate::Options::tail_bytes).
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing is lost, and the next call begins anew.
    pub fn seal(&self, cursor: &Cursor, now: i64) -> Result<Sealed, StoreError> {
        let sealing = self.sealing()?;
        self.settle(&sealing)?;
        let state = self.begin_seal();
        let _begun = Begun(self);
        let Some(last) = state.tail.last() else {
            let to = state.manifest.sealed_to;
            // A commit of which was heard late.
            if cursor.position() < Seq::new(to) {
                cursor.advance(Seq::new(to))?;
            }
            return Ok(Sealed {
                to,
                ..Sealed::default()
            });
        };
        let to = last.next;
        let mut written = Vec::new();
        let (mut duplicates, mut unread) = (0, 0);
        let since = now.saturating_sub(WINDOW_MICROS);
        for ((cluster, hour), mut rows) in partitions(&state.tail)? {
            rows.sort_unstable_by_key(|place| (place.ts, place.seq));
            let repeats = self.repeats(&state, &cluster, &rows, since)?;
            duplicates += u64::try_from(repeats.rows.len()).unwrap_or_default();
            unread += repeats.unread;
            if !repeats.rows.is_empty() {
                let mut at = 0..;
                rows.retain(|_| at.next().is_some_and(|at| !repeats.rows.contains(&at)));
            }
            if rows.is_empty() {
                continue;
            }
            let part = self.write_hour(&state.tail, cluster, hour, &rows)?;
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
            if duplicates > 0 {
                *next.counts.dropped.entry("duplicate".to_owned()).or_default() += duplicates;
            }
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
        Ok(Sealed {
            parts,
            to,
            duplicates,
            unread,
        })
    }

    /// Which of these rows of the tail are in files already.
    fn repeats(
        &self,
        state: &State,
        cluster: &str,
        rows: &[Place],
        since: i64,
    ) -> Result<Repeats, StoreError> {
        let batches: Vec<&RecordBatch> = state.tail.iter().map(|chunk| &chunk.batch).collect();
        let snapshot = self.snapshot_of(state.clone());
        Ok(Looking::new(cluster, &batches, rows)?.find(&snapshot, since))
    }

    /// What is to be sealed. As long as it is, chunks of it are not put together with what comes.
    fn begin_seal(&self) -> State {
        self.change(|state| {
            state.sealing_to = state.tail.last().map_or(0, |chunk| chunk.next);
            state.clone()
        })
    }

    fn write_hour(
        &self,
        tail: &[Arc<Chunk>],
        cluster: String,
        hour: i64,
        rows: &[Place],
    ) -> Result<WrittenPart, StoreError> {
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

/// A seal that has not ended, well or not.
struct Begun<'a>(&'a Store);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.sealing_to = 0);
    }
}

/// A row of the tail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) ts: i64,
    pub(crate) seq: i64,
    /// The batch and the row there.
    pub(crate) chunk: usize,
    pub(crate) row: usize,
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

#[cfg(test)]
mod tests {
    use kaudit_event::record::{RecordHead, Transport};
    use kaudit_journal::{Batch, Journal};
    use kaudit_query::Filter;

    use super::*;
    use crate::{CaughtUp, Options, Order, Scan};

    const NOW: i64 = 1_795_000_000_000_000;

    struct Bed {
        _folder: tempfile::TempDir,
        journal: Journal,
        store: Store,
        cursor: Cursor,
        /// How many came.
        came: std::cell::Cell<usize>,
    }

    impl Bed {
        fn new(tail_bytes: usize) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut options = kaudit_journal::Options::default();
            options.segment_bytes = 1 << 20;
            options.reserve_bytes = 0;
            let (journal, _) = Journal::open(&folder.path().join("journal"), options).unwrap();
            let options = Options {
                tail_bytes,
                ..Options::default()
            };
            let store = Store::open(&folder.path().join("store"), options).unwrap();
            let cursor = store.cursor(&journal).unwrap();
            Self {
                _folder: folder,
                journal,
                store,
                cursor,
                came: std::cell::Cell::default(),
            }
        }

        fn append(&self, events: usize) {
            let mut batch = Batch::new();
            for _ in 0..events {
                let mut record = Vec::new();
                let head = RecordHead {
                    cluster: "c",
                    source: "audit.log",
                    instance: "cp-1",
                    seq: 0,
                    received_micros: NOW,
                    transport: Transport::File,
                    tail: None,
                    matched_rule: None,
                };
                head.write(&mut record).unwrap();
                let number = self.came.replace(self.came.get() + 1);
                record.extend_from_slice(format!(r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{number}","stage":"ResponseComplete","requestURI":"/","verb":"get","user":{{}},"requestReceivedTimestamp":"2026-11-22T11:59:59.000000Z","stageTimestamp":"2026-11-22T12:00:00.000000Z"}}"#).as_bytes());
                batch.push(None, &record);
            }
            self.journal.append(batch).unwrap().wait().unwrap();
        }

        /// Every record's number that can be seen, in order.
        fn seen(&self) -> Vec<u64> {
            let scan = Scan::new(Filter::everything());
            let page = self
                .store
                .snapshot()
                .page(&scan, Order::OldestFirst, 10_000, None)
                .unwrap();
            let mut seen: Vec<u64> = page.events.iter().map(|event| event.position.seq).collect();
            seen.sort_unstable();
            seen
        }
    }

    fn up_to(last: u64) -> Vec<u64> {
        (1..=last).collect()
    }

    /// Small chunks are put together wherever that is possible, so a seal that begins, fails or ends between any two of
    /// them meets every case.
    #[test]
    fn what_is_read_while_a_seal_goes_on_fails_or_ends_is_there_once() {
        let bed = Bed::new(1 << 20);
        let mut last = 0;
        let mut read = || {
            bed.append(3);
            assert_eq!(bed.store.catch_up(&bed.journal).unwrap(), CaughtUp::End);
            last += 3;
            assert_eq!(bed.seen(), up_to(last));
        };
        read();
        let state = bed.store.begin_seal();
        let to = state.tail.last().unwrap().next;
        read();
        read();
        assert_eq!(
            bed.store.state().tail.len(),
            2,
            "what is sealed stays by itself, what comes is together"
        );
        drop(Begun(&bed.store));
        // It failed: all may be put together again.
        read();
        assert_eq!(bed.store.state().tail.len(), 1);

        let to_of = |state: &State| state.tail.last().unwrap().next;
        let state = bed.store.begin_seal();
        assert!(to_of(&state) > to);
        read();
        drop(Begun(&bed.store));
        let sealed = bed.store.seal(&bed.cursor, NOW).unwrap();
        assert_eq!(sealed.to, 16);
        assert!(!bed.store.is_sealing());
        assert_eq!(bed.seen(), up_to(15));
    }

    #[test]
    fn chunks_that_began_to_be_sealed_after_they_were_looked_at_stay_as_they_are() {
        let bed = Bed::new(1 << 20);
        bed.append(3);
        bed.store.catch_up(&bed.journal).unwrap();
        let first = Arc::clone(&bed.store.state().tail[0]);
        bed.append(3);
        bed.store.catch_up(&bed.journal).unwrap();
        let both = Arc::clone(&bed.store.state().tail[0]);
        assert_eq!((first.batch.num_rows(), both.batch.num_rows()), (3, 6));
        let alone =
            Arc::new(Chunk::new(both.batch.slice(3, 3), 7, BTreeMap::new(), BTreeMap::new()).unwrap());
        for (sealing_to, tail, expected) in [
            // Nothing happened meanwhile.
            (0, vec![Arc::clone(&first)], vec![6]),
            // It is being sealed.
            (4, vec![Arc::clone(&first)], vec![3, 3]),
            // It was sealed.
            (0, vec![], vec![3]),
            // Another one stands in its place.
            (0, vec![Arc::clone(&both)], vec![6, 3]),
        ] {
            let mut state = bed.store.state();
            state.tail = tail;
            state.sealing_to = sealing_to;
            state.append(Arc::clone(&alone), Arc::clone(&both), &[&first]);
            let rows: Vec<usize> = state.tail.iter().map(|chunk| chunk.batch.num_rows()).collect();
            assert_eq!(rows, expected);
        }
    }

    #[test]
    fn the_tail_has_half_as_much_again_at_most_while_it_is_sealed() {
        let bed = Bed::new(1 << 20);
        bed.append(100);
        bed.store.catch_up(&bed.journal).unwrap();
        let mut state = bed.store.state();
        let held = state.tail_bytes();
        assert!(state.is_full(held) && !state.is_full(held + 1));
        state.sealing_to = 101;
        assert!(!state.is_full(held) && state.is_full(held / 3 * 2));
    }
}
