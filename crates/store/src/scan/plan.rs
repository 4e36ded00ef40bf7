//! What a filter asks of files: which parts of it columns answer, in which order they are read, and what can
//! be left out unread.

use std::collections::BTreeSet;

use kaudit_query::{Bodies, Case, Column, Comparison, Expr, Filter, Leaf, Literal, Op, Test};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::batch::{TEXT_SOURCES, sources, text_column};
use crate::schema::Col;

/// A filter, cut into steps.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The filter itself, for rows that keep their bytes.
    pub(crate) filter: Filter,
    /// Conditions that must all hold and that columns answer, the cheapest first.
    pub(crate) steps: Vec<Step>,
    /// The condition that only whole events answer.
    pub(crate) residual: Option<Filter>,
    /// Times that can hold, both included.
    pub(crate) least_ts: i64,
    pub(crate) most_ts: i64,
}

/// A condition and the columns that it looks at.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) expr: Expr,
    pub(crate) columns: Vec<Col>,
}

/// Asks a bloom filter of a row group, if there is one.
pub(crate) type Bloom<'a> = dyn FnMut(Col) -> Option<Sbbf> + 'a;

impl Plan {
    /// `from` is included, `to` is not.
    pub(crate) fn new(filter: &Filter, from: Option<i64>, to: Option<i64>) -> Self {
        let mut plan = Self {
            filter: filter.clone(),
            steps: Vec::new(),
            residual: None,
            least_ts: from.unwrap_or(i64::MIN),
            most_ts: to.map_or(i64::MAX, |to| to.saturating_sub(1)),
        };
        let parts = match filter.expr() {
            Expr::And(parts) => parts.as_slice(),
            Expr::Everything => &[],
            one => std::slice::from_ref(one),
        };
        let mut residual = Vec::new();
        for part in parts {
            if let Expr::Test(test) = part {
                plan.narrow(test);
            }
            match columns_of(part) {
                Some(columns) => plan.steps.push(Step {
                    expr: part.clone(),
                    columns: columns.into_iter().collect(),
                }),
                None => residual.push(part.clone()),
            }
        }
        if !residual.is_empty() {
            plan.residual = Some(Filter::new(Expr::all(residual)));
        }
        plan.steps
            .sort_by_key(|step| step.columns.iter().map(|column| cost(*column)).sum::<u32>());
        plan
    }

    /// Takes bounds of the time from a condition that must hold.
    fn narrow(&mut self, test: &Test) {
        if test.column != Column::StageTimestamp {
            return;
        }
        let (least, most) = bounds(&test.op);
        self.least_ts = self.least_ts.max(least);
        self.most_ts = self.most_ts.min(most);
    }

    /// Whether rows between these times can hold.
    pub(crate) const fn covers(&self, min_ts: i64, max_ts: i64) -> bool {
        max_ts >= self.least_ts && min_ts <= self.most_ts
    }

    /// Whether a row group can hold a row, by its statistics and bloom filters. The texts of a row that keeps
    /// its bytes are in the columns wherever they are UTF-8, so that an equal text is found; a number may be
    /// too large for its column.
    pub(crate) fn may_hold(&self, group: &RowGroupMetaData, has_raw: bool, bloom: &mut Bloom<'_>) -> bool {
        let mut look = Look {
            group,
            has_raw,
            bloom,
        };
        self.steps.iter().all(|step| look.may_hold(&step.expr))
    }
}

/// The least and the most that a test of numbers takes.
fn bounds(op: &Op) -> (i64, i64) {
    let number = |literal: &Literal| literal.as_i64();
    match op {
        Op::Equals(literal) => number(literal).map_or((i64::MIN, i64::MAX), |it| (it, it)),
        Op::Range { least, most } => (
            number(least).unwrap_or(i64::MIN),
            number(most).unwrap_or(i64::MAX),
        ),
        Op::Compare(comparison, literal) => match (comparison, number(literal)) {
            (_, None) => (i64::MIN, i64::MAX),
            (Comparison::Less, Some(it)) => (i64::MIN, it.saturating_sub(1)),
            (Comparison::LessOrEqual, Some(it)) => (i64::MIN, it),
            (Comparison::Greater, Some(it)) => (it.saturating_add(1), i64::MAX),
            (Comparison::GreaterOrEqual, Some(it)) => (it, i64::MAX),
        },
        Op::EqualsAny(literals) => {
            let numbers: Option<Vec<i64>> = literals.iter().map(number).collect();
            let numbers = numbers.unwrap_or_default();
            match (numbers.iter().min(), numbers.iter().max()) {
                (Some(least), Some(most)) => (*least, *most),
                _ => (i64::MIN, i64::MAX),
            }
        }
        _ => (i64::MIN, i64::MAX),
    }
}

/// The columns that answer a condition; `None` when none do.
fn columns_of(expr: &Expr) -> Option<BTreeSet<Col>> {
    let mut columns = Some(BTreeSet::new());
    expr.visit(&mut |leaf| {
        let Some(known) = &mut columns else { return };
        match leaf {
            Leaf::Test(test) => match sources(&test.column) {
                Some(more) => known.extend(more),
                None => columns = None,
            },
            Leaf::Text(text) => {
                known.extend(TEXT_SOURCES);
                if text.bodies == Bodies::Searched {
                    known.extend([Col::RequestObject, Col::ResponseObject]);
                }
            }
        }
    });
    columns
}

/// How dear a column is to read, roughly in hundredths of a second for a million rows.
const fn cost(column: Col) -> u32 {
    match column {
        Col::RequestObject | Col::ResponseObject | Col::Raw => 100,
        Col::Annotations | Col::UserExtra | Col::Extra => 20,
        Col::RequestUri | Col::AuditId | Col::Groups | Col::SourceIps => 10,
        Col::Name | Col::ResourceVersion | Col::ObjectUid | Col::Message => 5,
        Col::Ts | Col::Seq | Col::Code | Col::Bytes | Col::ReceivedDelta | Col::Ingested => 1,
        _ => 2,
    }
}

/// What is known of a row group without reading it.
struct Look<'g, 'b, 'c> {
    group: &'g RowGroupMetaData,
    has_raw: bool,
    bloom: &'b mut Bloom<'c>,
}

impl Look<'_, '_, '_> {
    fn may_hold(&mut self, expr: &Expr) -> bool {
        match expr {
            Expr::Nothing => false,
            Expr::And(parts) => parts.iter().all(|part| self.may_hold(part)),
            Expr::Or(parts) => parts.iter().any(|part| self.may_hold(part)),
            Expr::Everything | Expr::Not(_) | Expr::Text(_) => true,
            Expr::Test(test) if test.column == Column::ResponseCode => {
                self.has_raw || may_hold_code(test, self.group)
            }
            Expr::Test(test) => may_hold_text(test, self.group, self.bloom),
        }
    }
}

fn may_hold_code(test: &Test, group: &RowGroupMetaData) -> bool {
    let (least, most) = bounds(&test.op);
    match statistics(group, Col::Code) {
        Some(Statistics::Int32(numbers)) => match (numbers.min_opt(), numbers.max_opt()) {
            (Some(min), Some(max)) => i64::from(*max) >= least && i64::from(*min) <= most,
            // All are NULL.
            _ => numbers.null_count_opt() != Some(rows(group)),
        },
        _ => true,
    }
}

fn may_hold_text(test: &Test, group: &RowGroupMetaData, bloom: &mut Bloom<'_>) -> bool {
    let Some(column) = text_column(&test.column) else {
        return true;
    };
    let wanted: Vec<&str> = match (&test.op, test.case) {
        (Op::Equals(literal), Case::Sensitive) => literal.as_text().into_iter().collect(),
        (Op::EqualsAny(literals), Case::Sensitive) => literals.iter().filter_map(Literal::as_text).collect(),
        _ => return true,
    };
    let statistics = statistics(group, column);
    let (min, max) = match statistics {
        Some(Statistics::ByteArray(texts)) => (texts.min_bytes_opt(), texts.max_bytes_opt()),
        _ => (None, None),
    };
    let within = |text: &&str| {
        min.is_none_or(|min| text.as_bytes() >= min) && max.is_none_or(|max| text.as_bytes() <= max)
    };
    let mut wanted = wanted.into_iter().filter(within).peekable();
    if wanted.peek().is_none() {
        return false;
    }
    if !matches!(column, Col::AuditId | Col::User | Col::Name) {
        return true;
    }
    match bloom(column) {
        Some(bloom) => wanted.any(|text| bloom.check(text)),
        None => true,
    }
}

fn rows(group: &RowGroupMetaData) -> u64 {
    u64::try_from(group.num_rows()).unwrap_or_default()
}

/// The statistics of a column that has no columns in it.
pub(crate) fn statistics(group: &RowGroupMetaData, column: Col) -> Option<&Statistics> {
    leaf(group, column).and_then(|at| group.columns().get(at)?.statistics())
}

/// The place of a column among the leaves of the file.
pub(crate) fn leaf(group: &RowGroupMetaData, column: Col) -> Option<usize> {
    group
        .columns()
        .iter()
        .position(|chunk| matches!(chunk.column_path().parts(), [name] if name == column.name()))
}

/// The times of a row group, both included.
pub(crate) fn times(group: &RowGroupMetaData) -> (i64, i64) {
    match statistics(group, Col::Ts) {
        Some(Statistics::Int64(times)) => (
            times.min_opt().copied().unwrap_or(i64::MIN),
            times.max_opt().copied().unwrap_or(i64::MAX),
        ),
        _ => (i64::MIN, i64::MAX),
    }
}
