//! What is durable in the journal and not sealed yet, as batches in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use kaudit_event::record::RecordHead;
use kaudit_journal::{GapReason, Item, Journal, Reader, Seq};

use crate::columns::{Builder, Sizes};
use crate::schema;
use crate::store::State;
use crate::{Store, StoreError};

/// Bytes of events that are built at once.
const ROUND_BYTES: usize = 16 << 20;
/// Events that are built at once.
const ROUND_EVENTS: usize = 64 << 10;
/// A chunk with more rows is not put together with others.
const CHUNK_ROWS: usize = 4 << 10;

/// Nor is one with more bytes: offsets in a batch have 32 bits.
const CHUNK_BYTES: usize = 256 << 20;

/// A run of the journal's records.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) batch: RecordBatch,
    /// The first record after the run.
    pub(crate) next: u64,
    pub(crate) event_bytes: usize,
    pub(crate) min_ts: i64,
    pub(crate) max_ts: i64,
    /// Records of the run that are no rows, by reason.
    pub(crate) rejected: BTreeMap<&'static str, u64>,
    pub(crate) lost: BTreeMap<&'static str, u64>,
}

/// How far the tail has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaughtUp {
    /// To the end of what was durable.
    End,
    /// To the bound of [`Options::tail_bytes`](crate::Options::tail_bytes), the end or not: it is time to seal.
    Full,
}

/// What was read from the journal for one round.
#[derive(Debug, Default)]
struct Round {
    /// Their numbers and bytes.
    records: Vec<(u64, Bytes)>,
    bytes: usize,
    next: u64,
    rejected: BTreeMap<&'static str, u64>,
    lost: BTreeMap<&'static str, u64>,
    at_end: bool,
}

impl Store {
    /// Reads what has become durable in the journal since the last time, so that snapshots see it. One at a
    /// time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Journal`] when a segment cannot be read; what was read before stays.
    pub fn catch_up(&self, journal: &Journal) -> Result<CaughtUp, StoreError> {
        let mut kept = self.reading()?;
        if self.state().is_full(self.options.tail_bytes) {
            return Ok(CaughtUp::Full);
        }
        let read_to = Seq::new(self.state().read_to());
        let goes_on = |reader: &Reader| reader.position() == read_to && journal.is_read_by(reader);
        let mut reader = kept
            .take()
            .filter(goes_on)
            .unwrap_or_else(|| journal.reader(read_to));
        let mut round = read_round(&mut reader)?;
        loop {
            let is_full = self.state().is_full(self.options.tail_bytes);
            if round.next == 0 {
                *kept = Some(reader);
                return Ok(if is_full { CaughtUp::Full } else { CaughtUp::End });
            }
            if is_full {
                // The round that was read already is read again later.
                return Ok(CaughtUp::Full);
            }
            // The next round is read while this one is built, unless nobody would take it then.
            let reads_ahead = !round.at_end && !self.is_full_with(round.bytes);
            let (is_last, following) = std::thread::scope(|scope| {
                let following = reads_ahead.then(|| scope.spawn(|| read_round(&mut reader)));
                self.append(&mut round)?;
                let following = following.map(|thread| {
                    thread
                        .join()
                        .map_err(|_| StoreError::Columns("the journal's reader panicked".to_owned()))?
                });
                Ok::<_, StoreError>((round.at_end, following.transpose()?))
            })?;
            round = match following {
                Some(following) => following,
                None if is_last || self.is_full_with(0) => {
                    *kept = Some(reader);
                    return Ok(match is_last && !self.is_full_with(0) {
                        true => CaughtUp::End,
                        false => CaughtUp::Full,
                    });
                }
                None => read_round(&mut reader)?,
            };
        }
    }

    /// Whether no more is to be read into the tail when so many bytes are added to it.
    fn is_full_with(&self, bytes: usize) -> bool {
        let state = self.state();
        state.is_full(self.options.tail_bytes.saturating_sub(bytes))
    }

    fn append(&self, round: &mut Round) -> Result<(), StoreError> {
        let records = std::mem::take(&mut round.records);
        let mut built = build(&records, self.options.threads.get(), &self.sizes)?;
        drop(records);
        let last = built.pop().filter(|_| round.next > 0);
        // Large ones stay as they are. What is no row is counted with the last record, so it must not be between others.
        let is_large = |built: &Built| built.batch.num_rows() >= CHUNK_ROWS;
        let has_rows_only = round.rejected.is_empty() && round.lost.is_empty();
        if !has_rows_only || !built.iter().chain(&last).all(is_large) {
            let batches: Vec<&RecordBatch> = built.iter().chain(&last).map(|built| &built.batch).collect();
            let batch = concat_batches(&schema::schema(), batches)?;
            let next = round.next;
            return self.append_chunk(Built { next, batch }, round);
        }
        for built in built {
            self.append_chunk(built, &mut Round::default())?;
        }
        match last {
            Some(Built { batch, .. }) => self.append_chunk(
                Built {
                    next: round.next,
                    batch,
                },
                round,
            ),
            None => Ok(()),
        }
    }

    /// Adds a chunk, with what is no row of `round`.
    fn append_chunk(&self, built: Built, round: &mut Round) -> Result<(), StoreError> {
        let chunk = Chunk::new(
            built.batch,
            built.next,
            std::mem::take(&mut round.rejected),
            std::mem::take(&mut round.lost),
        )?;
        // Small chunks are put together, so that there are few of them; but for those that are being sealed.
        let chunk = Arc::new(chunk);
        let State { tail, sealing_to, .. } = self.state();
        let mut all = Arc::clone(&chunk);
        let mut before: Vec<&Arc<Chunk>> = tail.iter().filter(|chunk| chunk.next > sealing_to).collect();
        let mut replaced = Vec::new();
        while let Some(last) = before.pop()
            && last.batch.num_rows() < CHUNK_ROWS
            && last.event_bytes + all.event_bytes < CHUNK_BYTES
            && last.batch.num_rows() <= 2 * all.batch.num_rows()
        {
            all = Arc::new(last.followed_by(&all)?);
            replaced.insert(0, last);
        }
        self.change(|state| state.append(chunk, all, &replaced));
        Ok(())
    }
}

impl State {
    /// Adds `chunk`, or `all` of it and the chunks before it in their place. They may have begun to be sealed since they
    /// were looked at, or be sealed.
    pub(crate) fn append(&mut self, chunk: Arc<Chunk>, all: Arc<Chunk>, replaced: &[&Arc<Chunk>]) {
        let kept = self.tail.len().checked_sub(replaced.len());
        let is_as_it_was = |at: usize| {
            let last = self.tail.get(at..).unwrap_or_default();
            last.iter()
                .zip(replaced)
                .all(|(last, replaced)| Arc::ptr_eq(last, replaced) && last.next > self.sealing_to)
        };
        match kept.filter(|at| is_as_it_was(*at)) {
            Some(at) => {
                self.tail.truncate(at);
                self.tail.push(all);
            }
            None => self.tail.push(chunk),
        }
    }
}

impl Chunk {
    pub(crate) fn new(
        batch: RecordBatch,
        next: u64,
        rejected: BTreeMap<&'static str, u64>,
        lost: BTreeMap<&'static str, u64>,
    ) -> Result<Self, StoreError> {
        let rows = crate::rebuild::Rows::of(&batch)?;
        let (mut min_ts, mut max_ts) = (i64::MAX, i64::MIN);
        for ts in rows.ts.values() {
            min_ts = min_ts.min(*ts);
            max_ts = max_ts.max(*ts);
        }
        let event_bytes = usize::try_from(rows.event_bytes()).unwrap_or(usize::MAX);
        Ok(Self {
            batch,
            next,
            event_bytes,
            min_ts,
            max_ts,
            rejected,
            lost,
        })
    }

    fn followed_by(&self, other: &Self) -> Result<Self, StoreError> {
        let batch = concat_batches(&schema::schema(), [&self.batch, &other.batch])?;
        Self::new(
            batch,
            other.next,
            sum(&self.rejected, &other.rejected),
            sum(&self.lost, &other.lost),
        )
    }
}

fn sum(
    one: &BTreeMap<&'static str, u64>,
    other: &BTreeMap<&'static str, u64>,
) -> BTreeMap<&'static str, u64> {
    let mut sum = one.clone();
    for (reason, count) in other {
        *sum.entry(reason).or_default() += count;
    }
    sum
}

/// Reads records up to the bounds of a round; `next` is 0 when there was nothing.
fn read_round(reader: &mut Reader) -> Result<Round, StoreError> {
    let mut round = Round::default();
    while round.bytes < ROUND_BYTES && round.records.len() < ROUND_EVENTS {
        let Some(item) = reader.next()? else {
            round.at_end = true;
            break;
        };
        match item {
            Item::Record { seq, payload, .. } => {
                round.bytes += payload.len();
                round.next = seq.plus(1).get();
                match RecordHead::read(&payload) {
                    Ok(_) => round.records.push((seq.get(), payload)),
                    // The journal takes only what it has written as a record; of another version, or from
                    // another program, it is none.
                    Err(_) => *round.rejected.entry("not_a_record").or_default() += 1,
                }
            }
            Item::Gap(gap) => {
                round.next = gap.to.get();
                let reason = match gap.reason {
                    GapReason::Corrupt => "corrupt",
                    GapReason::Expired => "expired",
                    _ => "missing",
                };
                *round.lost.entry(reason).or_default() += gap.to.since(gap.from);
            }
            _ => {}
        }
    }
    Ok(round)
}

/// Builds columns on several threads; the batches are in the order of the records.
fn build(records: &[(u64, Bytes)], threads: usize, sizes: &Sizes) -> Result<Vec<Built>, StoreError> {
    let part = |records: &[(u64, Bytes)]| -> Result<Built, StoreError> {
        let mut builder = Builder::new(records.len(), sizes);
        for (seq, record) in records {
            // They were read before.
            if let Ok((head, event)) = RecordHead::read(record) {
                builder.push(*seq, &head, event);
            }
        }
        Ok(Built {
            next: records.last().map_or(0, |(seq, _)| seq + 1),
            batch: builder.finish(sizes)?,
        })
    };
    let size = records.len().div_ceil(threads.max(1)).max(256);
    let mut parts = records.chunks(size);
    let first = parts.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = parts.map(|records| scope.spawn(move || part(records))).collect();
        let mut built = vec![part(first)?];
        for other in others {
            let theirs = other
                .join()
                .map_err(|_| StoreError::Columns("a builder panicked".to_owned()))?;
            built.push(theirs?);
        }
        Ok(built)
    })
}

/// Columns of a run of records.
struct Built {
    /// The first record after the run.
    next: u64,
    batch: RecordBatch,
}
