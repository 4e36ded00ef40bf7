//! Counting and summing over the rows that satisfy a filter.

use std::collections::BTreeSet;

use kaudit_query::accumulate::{Borrowed, Limits, Top};
use kaudit_query::{Column, Row, Value};

use super::batch::{Batch, sources, text_column};
use super::group::{Coding, select, with_event};
use super::plan::Plan;
use super::work::{Unit, run};
use super::{Scan, ScanStats};
use crate::rebuild::Rows;
use crate::schema::Col;
use crate::{Snapshot, StoreError};

/// A row that satisfies the filter, while it is looked at.
#[derive(Debug)]
pub struct Hit<'a> {
    ts: i64,
    columns: &'a [Column],
    values: Values<'a>,
}

#[derive(Debug)]
enum Values<'a> {
    Columns(&'a Batch<'a>, usize),
    Event(&'a Row<'a>),
}

impl Hit<'_> {
    /// Its time, microseconds since 1970 in UTC.
    #[must_use]
    pub const fn ts(&self) -> i64 {
        self.ts
    }

    /// The value of the column that was asked for at this place; what [`Row::value`] gives.
    #[must_use]
    pub fn value(&self, at: usize) -> Value<'_> {
        let Some(column) = self.columns.get(at) else {
            return Value::Absent;
        };
        match &self.values {
            Values::Columns(batch, row) => batch.value(column, *row),
            Values::Event(row) => row.value(column),
        }
    }
}

/// Whether columns give the value of one of the language's columns.
fn is_columnar(column: &Column) -> bool {
    !matches!(column, Column::RequestObject(_) | Column::ResponseObject(_)) && sources(column).is_some()
}

impl Snapshot {
    /// Shows every row that satisfies the scan to `each`, in no order, with the values of `columns`. Each
    /// thread has a state of its own; the states are returned to be merged.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when a file cannot be read. An end before time is no error: see
    /// [`ScanStats::completeness`].
    pub fn fold<S: Send>(
        &self,
        scan: &Scan,
        columns: &[Column],
        state: impl Fn() -> S + Sync,
        each: impl Fn(&mut S, &Hit<'_>) + Sync,
    ) -> Result<(Vec<S>, ScanStats), StoreError> {
        let plan = Plan::new(&scan.filter, scan.from, scan.to);
        let whole = !columns.iter().all(is_columnar);
        let mut read: BTreeSet<Col> = columns.iter().filter_map(sources).flatten().copied().collect();
        read.insert(Col::Ts);
        let read: Vec<Col> = read.into_iter().collect();
        let visit = |state: &mut S, unit: &Unit, stats: &mut ScanStats| {
            let rows = select(unit, &plan, scan)?;
            stats.count(unit, rows.count());
            let events = if whole { rows.all() } else { rows.raw };
            unit.read_all(&events, |batch| {
                let (read, columnar) = (Rows::of(batch)?, Batch::of(batch));
                for row in 0..batch.num_rows() {
                    let ts = read.ts.value(row);
                    let shown = with_event(&read, row, |event| {
                        let values = Values::Event(event);
                        each(state, &Hit { ts, columns, values });
                    });
                    if shown.is_none() {
                        // What is no event has a time and an envelope.
                        let values = Values::Columns(&columnar, row);
                        each(state, &Hit { ts, columns, values });
                    }
                }
                Ok(())
            })?;
            if whole {
                return Ok(());
            }
            unit.read(&rows.plain, &read, Coding::Coded, |batch| {
                let batch = Batch::of(batch);
                for row in 0..batch.rows() {
                    let values = Values::Columns(&batch, row);
                    let ts = batch.number(Col::Ts, row).unwrap_or_default();
                    each(state, &Hit { ts, columns, values });
                }
                Ok(())
            })
        };
        run(self, scan, &plan, |min, _| min, |_, _| true, state, visit)
    }

    /// Shows the times of the rows that satisfy the scan to `each`, microseconds since 1970 in UTC, many at once and in no
    /// order. Each thread has a state of its own, as in [`Snapshot::fold`].
    ///
    /// # Errors
    ///
    /// As [`Snapshot::fold`].
    pub fn fold_times<S: Send>(
        &self,
        scan: &Scan,
        state: impl Fn() -> S + Sync,
        each: impl Fn(&mut S, &[i64]) + Sync,
    ) -> Result<(Vec<S>, ScanStats), StoreError> {
        let plan = Plan::new(&scan.filter, scan.from, scan.to);
        let visit = |state: &mut S, unit: &Unit, stats: &mut ScanStats| {
            let rows = select(unit, &plan, scan)?;
            stats.count(unit, rows.count());
            unit.read(&rows.all(), &[Col::Ts], Coding::Coded, |batch| {
                each(state, Batch::of(batch).times().unwrap_or_default());
                Ok(())
            })
        };
        run(self, scan, &plan, |min, _| min, |_, _| true, state, visit)
    }

    /// How often each value of a column occurs in the rows that satisfy the scan.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::fold`].
    pub fn top(&self, scan: &Scan, column: &Column, limits: Limits) -> Result<(Top, ScanStats), StoreError> {
        let Some(source) = text_column(column) else {
            let columns = std::slice::from_ref(column);
            let add = |top: &mut Top, hit: &Hit<'_>| top.add(&hit.value(0));
            let (tops, stats) = self.fold(scan, columns, || Top::new(limits), add)?;
            return Ok((merged(tops, limits), stats));
        };
        let plan = Plan::new(&scan.filter, scan.from, scan.to);
        let visit = |top: &mut Top, unit: &Unit, stats: &mut ScanStats| {
            let rows = select(unit, &plan, scan)?;
            stats.count(unit, rows.count());
            unit.read_all(&rows.raw, |batch| {
                let read = Rows::of(batch)?;
                for row in 0..batch.num_rows() {
                    let shown = with_event(&read, row, |event| top.add(&event.value(column)));
                    if shown.is_none() {
                        top.add(&Value::Absent);
                    }
                }
                Ok(())
            })?;
            unit.read(&rows.plain, &[source], Coding::Coded, |batch| {
                let batch = Batch::of(batch);
                match batch.text_counts(column) {
                    Some(counts) => counts
                        .into_iter()
                        .for_each(|(text, count)| top.add_key(Borrowed::of_text(text), count)),
                    None => (0..batch.rows()).for_each(|row| top.add(&batch.value(column, row))),
                }
                Ok(())
            })
        };
        let state = || Top::new(limits);
        let (tops, stats) = run(self, scan, &plan, |min, _| min, |_, _| true, state, visit)?;
        Ok((merged(tops, limits), stats))
    }

    /// How many rows satisfy the scan.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::fold`].
    pub fn count(&self, scan: &Scan) -> Result<(u64, ScanStats), StoreError> {
        let plan = Plan::new(&scan.filter, scan.from, scan.to);
        let visit = |count: &mut u64, unit: &Unit, stats: &mut ScanStats| {
            let matched = select(unit, &plan, scan)?.count();
            stats.count(unit, matched);
            *count += u64::try_from(matched).unwrap_or_default();
            Ok(())
        };
        let (counts, stats) = run(self, scan, &plan, |min, _| min, |_, _| true, || 0, visit)?;
        Ok((counts.into_iter().sum(), stats))
    }
}

fn merged(tops: Vec<Top>, limits: Limits) -> Top {
    let mut tops = tops.into_iter();
    let mut sum = tops.next().unwrap_or_else(|| Top::new(limits));
    tops.for_each(|top| sum.merge(&top));
    sum
}

impl ScanStats {
    pub(crate) fn count(&mut self, unit: &Unit, matched: usize) {
        if matches!(unit, Unit::Group(_)) {
            self.groups_read += 1;
        }
        self.rows_scanned += u64::try_from(unit.rows()).unwrap_or_default();
        self.rows_matched += u64::try_from(matched).unwrap_or_default();
    }
}
