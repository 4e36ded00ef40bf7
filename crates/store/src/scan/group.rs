//! The rows of one unit that satisfy a filter.

use std::collections::BTreeSet;

use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use kaudit_event::DecodedEvent;
use kaudit_query::{Envelope, Expr, Filter, Row};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};

use super::Scan;
use super::batch::Batch;
use super::plan::Plan;
use super::work::{Group, Unit};
use crate::StoreError;
use crate::rebuild::Rows;
use crate::schema::Col;

/// Rows that are read at once.
const BATCH_ROWS: usize = 32 << 10;
/// Bytes of texts that are read at once, about.
const BATCH_BYTES: usize = 16 << 20;

/// The rows of a unit that satisfy a filter, one bit each.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    /// Those whose columns say all.
    pub(crate) plain: BooleanBuffer,
    /// Those that keep their bytes.
    pub(crate) raw: BooleanBuffer,
}

impl Selected {
    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.plain.count_set_bits() + self.raw.count_set_bits()
    }

    /// All of them.
    pub(crate) fn all(&self) -> BooleanBuffer {
        &self.plain | &self.raw
    }
}

/// Finds the rows of a unit that satisfy a filter.
pub(crate) fn select(unit: &Unit, plan: &Plan, scan: &Scan) -> Result<Selected, StoreError> {
    let mut rows = BooleanBuffer::new_set(unit.rows());
    let (min, max) = unit.times();
    if min < plan.least_ts || max > plan.most_ts {
        rows = refine(unit, &rows, &[Col::Ts], |batch| {
            BooleanBuffer::collect_bool(batch.rows(), |row| {
                batch
                    .number(Col::Ts, row)
                    .is_some_and(|ts| ts >= plan.least_ts && ts <= plan.most_ts)
            })
        })?;
    }
    if let Some(seqs) = &scan.seqs {
        let meant = |seq: i64| u64::try_from(seq).is_ok_and(|seq| seqs.contains(&seq));
        rows = refine(unit, &rows, &[Col::Seq], |batch| {
            BooleanBuffer::collect_bool(batch.rows(), |row| batch.number(Col::Seq, row).is_some_and(meant))
        })?;
    }
    // Files hold one cluster each, which the manifest knows.
    if let (Some(clusters), Unit::Chunk(_)) = (&scan.clusters, unit) {
        rows = refine(unit, &rows, &[Col::Cluster], |batch| {
            BooleanBuffer::collect_bool(batch.rows(), |row| {
                let cluster = batch.text(Col::Cluster, row).unwrap_or_default();
                clusters.iter().any(|wanted| wanted == cluster)
            })
        })?;
    }
    let raw = if unit.has_raw() {
        refine(unit, &rows, &[Col::Raw], |batch| {
            BooleanBuffer::collect_bool(batch.rows(), |row| batch.raw(row).is_some())
        })?
    } else {
        BooleanBuffer::new_unset(unit.rows())
    };
    let mut plain = if unit.has_raw() { &rows & &!&raw } else { rows };
    for step in &plan.steps {
        if plain.count_set_bits() == 0 {
            break;
        }
        plain = refine(unit, &plain, &step.columns, |batch| batch.select(&step.expr))?;
    }
    if let Some(residual) = &plan.residual {
        plain = judge(unit, &plain, residual)?;
    }
    let raw = match plan.filter.expr() {
        Expr::Everything => raw,
        _ => judge(unit, &raw, &plan.filter)?,
    };
    Ok(Selected { plain, raw })
}

/// Of the rows that are set those of which `holds` is true.
pub(super) fn refine(
    unit: &Unit,
    rows: &BooleanBuffer,
    columns: &[Col],
    mut holds: impl FnMut(&Batch<'_>) -> BooleanBuffer,
) -> Result<BooleanBuffer, StoreError> {
    let mut found = BooleanBufferBuilder::new(rows.len());
    unit.read(rows, columns, Coding::Coded, |batch| {
        found.append_buffer(&holds(&Batch::of(batch)));
        Ok(())
    })?;
    Ok(scatter(rows, &found.finish()))
}

/// The rows that are set in `rows` and, counting only those, in `found`.
fn scatter(rows: &BooleanBuffer, found: &BooleanBuffer) -> BooleanBuffer {
    if rows.len() == found.len() {
        return found.clone();
    }
    let mut out = BooleanBufferBuilder::new(rows.len());
    out.append_n(rows.len(), false);
    for (at, row) in rows.set_indices().enumerate() {
        if at < found.len() && found.value(at) {
            out.set_bit(row, true);
        }
    }
    out.finish()
}

/// Of the rows that are set those whose whole event satisfies a filter.
fn judge(unit: &Unit, rows: &BooleanBuffer, filter: &Filter) -> Result<BooleanBuffer, StoreError> {
    if rows.count_set_bits() == 0 {
        return Ok(rows.clone());
    }
    let mut found = BooleanBufferBuilder::new(rows.len());
    unit.read_all(rows, |batch| {
        let read = Rows::of(batch)?;
        for row in 0..batch.num_rows() {
            found.append(with_event(&read, row, |event| filter.matches(event)).unwrap_or_default());
        }
        Ok(())
    })?;
    Ok(scatter(rows, &found.finish()))
}

/// Shows a row as an event with its envelope; `None` for bytes that are none.
pub(crate) fn with_event<T>(rows: &Rows<'_>, row: usize, show: impl FnOnce(&Row<'_>) -> T) -> Option<T> {
    let mut event = Vec::new();
    rows.write(row, &mut event);
    let bytes = u64::try_from(event.len()).ok();
    let decoded = DecodedEvent::parse(Bytes::from(event)).ok()?;
    let envelope = Envelope {
        cluster: rows.text(Col::Cluster, row),
        source: rows.text(Col::Source, row),
        instance: rows.text(Col::Instance, row),
        seq: u64::try_from(rows.seq.value(row)).ok(),
        received_micros: Some(rows.ingested.value(row)),
        policy_rule: rows.policy_rule(row),
        event_bytes: bytes,
    };
    Some(show(&Row {
        event: decoded.view(),
        envelope,
    }))
}

/// How texts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Each distinct text once where there are few.
    Coded,
    /// As they are.
    Plain,
}

impl Unit {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Group(group) => group.rows(),
            Self::Chunk(chunk) => chunk.batch.num_rows(),
        }
    }

    pub(crate) fn has_raw(&self) -> bool {
        match self {
            Self::Group(group) => group.has_raw,
            Self::Chunk(chunk) => chunk
                .batch
                .columns()
                .get(Col::Raw.at())
                .is_some_and(|raw| raw.null_count() < raw.len()),
        }
    }

    /// Reads columns of the rows that are set, in their order.
    pub(crate) fn read(
        &self,
        rows: &BooleanBuffer,
        columns: &[Col],
        coding: Coding,
        mut each: impl FnMut(&RecordBatch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let set = rows.count_set_bits();
        if set == 0 {
            return Ok(());
        }
        match self {
            Self::Chunk(chunk) => {
                let places: BTreeSet<usize> = columns.iter().map(|column| column.at()).collect();
                let places: Vec<usize> = places.into_iter().collect();
                let batch = chunk.batch.project(&places)?;
                if set == rows.len() {
                    return each(&batch);
                }
                let mask = BooleanArray::new(rows.clone(), None);
                each(&filter_record_batch(&batch, &mask)?)
            }
            Self::Group(group) => group.read(rows, columns, coding, each),
        }
    }

    /// Reads the time of each row that is set and the bytes of its event.
    pub(crate) fn read_sizes(
        &self,
        rows: &BooleanBuffer,
        mut each: impl FnMut(i64, usize),
    ) -> Result<(), StoreError> {
        self.read(rows, &[Col::Ts, Col::Bytes], Coding::Coded, |batch| {
            let batch = Batch::of(batch);
            for row in 0..batch.rows() {
                let bytes = batch.number(Col::Bytes, row).unwrap_or_default();
                let ts = batch.number(Col::Ts, row).unwrap_or_default();
                each(ts, usize::try_from(bytes).unwrap_or_default());
            }
            Ok(())
        })
    }

    /// Reads whole rows.
    pub(crate) fn read_all(
        &self,
        rows: &BooleanBuffer,
        each: impl FnMut(&RecordBatch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let columns: Vec<Col> = Col::all().collect();
        self.read(rows, &columns, Coding::Plain, each)
    }
}

impl Group {
    fn rows(&self) -> usize {
        let groups = self.footer.plain.metadata().row_groups();
        groups
            .get(self.at)
            .and_then(|group| usize::try_from(group.num_rows()).ok())
            .unwrap_or_default()
    }

    /// How many rows are read at once, so that they take no more than is meant, unless single events are
    /// much larger than the others.
    fn batch_rows(&self, columns: &[Col]) -> usize {
        let metadata = self.footer.plain.metadata();
        let bytes: i64 = metadata
            .row_groups()
            .get(self.at)
            .into_iter()
            .flat_map(|group| group.columns())
            .filter(|chunk| {
                let name = chunk.column_path().parts().first();
                name.is_some_and(|name| columns.iter().any(|column| column.name() == name))
            })
            .map(|chunk| chunk.uncompressed_size())
            .sum();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let of_row = (bytes / self.rows().max(1)).max(1);
        (BATCH_BYTES / of_row).clamp(16, BATCH_ROWS)
    }

    fn read(
        &self,
        rows: &BooleanBuffer,
        columns: &[Col],
        coding: Coding,
        mut each: impl FnMut(&RecordBatch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let footer = match coding {
            Coding::Plain => self.footer.plain.clone(),
            Coding::Coded => self.footer.coded.clone(),
        };
        let mask = ProjectionMask::roots(footer.parquet_schema(), columns.iter().map(|column| column.at()));
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), footer)
            .with_projection(mask)
            .with_row_groups(vec![self.at])
            .with_batch_size(self.batch_rows(columns));
        if rows.count_set_bits() < rows.len() {
            let selection = BooleanArray::new(rows.clone(), None);
            builder = builder.with_row_selection(RowSelection::from_filters(&[selection]));
        }
        let damaged = |error: String| StoreError::Damaged {
            path: (&*self.path).into(),
            reason: error,
        };
        for batch in builder.build().map_err(|error| damaged(error.to_string()))? {
            each(&batch.map_err(|error| damaged(error.to_string()))?)?;
        }
        Ok(())
    }
}
