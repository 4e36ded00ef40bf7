//! Counts: `/api/v1/count`, `/api/v1/facets`, `/api/v1/histogram`, `/api/v1/compare`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Instant;

use axum::extract::{RawQuery, State};
use axum::routing::get;
use axum::{Json, Router};
use kaudit_query::Column;
use kaudit_query::accumulate::{Bucket, Compare, Facets, Histogram, HistogramCounts, Key, Limits, Top};
use kaudit_store::{Hit, Scan, ScanStats, Snapshot, StoreError};
use serde_json::{Value, json};

use super::problem::Problem;
use super::scans::{Looked, Scans};
use super::selection::Parameters;
use crate::asking::{COMPARED_FIELDS, key_json};
use crate::storing::Freshness;

/// Values of a facet, unless it is told otherwise; and at most.
const VALUES: usize = 10;
const MAX_VALUES: usize = 10_000;

const BUCKETS: usize = 60;
const MAX_BUCKETS: usize = 1000;

/// Widths of buckets that may be asked for.
const INTERVALS: RangeInclusive<i64> = 1000..=1000 * 86_400_000_000;

/// Values of `by` that have a curve of their own.
const CURVES: usize = 8;

const DIFFERENCES: usize = 15;

pub(super) fn router(scans: Scans) -> Router {
    Router::new()
        .route("/api/v1/count", get(count))
        .route("/api/v1/facets", get(facets))
        .route("/api/v1/histogram", get(histogram))
        .route("/api/v1/compare", get(compare))
        .with_state(scans)
}

async fn count(State(scans): State<Scans>, RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    let scan = Parameters::parse(query.as_deref(), &[], true)?.scan(super::now())?;
    let begun = Instant::now();
    let of = scan.clone();
    let ((count, stats), freshness) = scans
        .ask(scan.cancel, move |snapshot: &Snapshot| snapshot.count(&of))
        .await?;
    Ok(Looked::new(&[stats], freshness, begun).of(json!({ "count": count })))
}

async fn facets(State(scans): State<Scans>, RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["field", "limit"], true)?;
    let columns = parameters.fields("field")?;
    if columns.is_empty() {
        return Err(Problem::bad("field is missing: name one, as field=user.username"));
    }
    let most = match parameters.size("limit", VALUES, MAX_VALUES)? {
        0 => MAX_VALUES,
        limit => limit,
    };
    let scan = parameters.scan(super::now())?;
    let begun = Instant::now();
    let of = scan.clone();
    let asked = columns.clone();
    let ask = move |snapshot: &Snapshot| tops(snapshot, &of, &asked);
    let ((tops, stats), freshness) = scans.ask(scan.cancel, ask).await?;
    let facets: Vec<Value> = columns
        .iter()
        .zip(&tops)
        .map(|(column, top)| {
            let counts = top.finish(most);
            let values = counts.entries.iter();
            let values = values.map(|entry| json!({"value": key_json(&entry.key), "events": entry.count}));
            json!({
                "field": column.name(),
                "values": values.collect::<Vec<_>>(),
                "distinct": counts.distinct,
                "beyond": counts.beyond,
                "other": counts.other,
                "exact": top.is_exact(),
            })
        })
        .collect();
    let looked = Looked::new(&[stats], freshness, begun);
    Ok(looked.of(json!({"events": stats.rows_matched, "facets": facets})))
}

/// The scan with what is left of its time.
fn left(scan: &Scan, begun: Instant) -> Scan {
    let mut scan = scan.clone();
    scan.time_budget = scan
        .time_budget
        .map(|budget| budget.saturating_sub(begun.elapsed()));
    scan
}

/// The values of several columns, in one scan.
fn tops(snapshot: &Snapshot, scan: &Scan, columns: &[Column]) -> Result<(Vec<Top>, ScanStats), StoreError> {
    if let [column] = columns {
        let (top, stats) = snapshot.top(scan, column, Limits::default())?;
        return Ok((vec![top], stats));
    }
    // Many take less each, so that all together are bounded.
    let all = Limits::default();
    let limits = Limits {
        bytes: all.bytes / columns.len().div_ceil(4),
        ..all
    };
    let new = || vec![Top::new(limits); columns.len()];
    let (folds, stats) = snapshot.fold(scan, columns, new, |tops, hit| {
        for (at, top) in tops.iter_mut().enumerate() {
            top.add(&hit.value(at));
        }
    })?;
    let mut all = new();
    for fold in &folds {
        for (own, other) in all.iter_mut().zip(fold) {
            own.merge(other);
        }
    }
    Ok((all, stats))
}

async fn histogram(State(scans): State<Scans>, RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["buckets", "interval", "by"], true)?;
    let division = Division::of(&parameters)?;
    let by = parameters.fields("by")?;
    if by.len() > 1 {
        return Err(Problem::bad("by: one field at a time"));
    }
    let by = by.into_iter().next();
    let scan = parameters.scan(super::now())?;
    let begun = Instant::now();
    let of = scan.clone();
    let asked = by.clone();
    let ask = move |snapshot: &Snapshot| curves(snapshot, &of, division, asked.as_ref());
    let ((curves, stats), freshness) = scans.ask(scan.cancel, ask).await?;
    let counts = curves.all.finish();
    let width = counts.width_micros;
    division.check(&counts)?;
    let named: Vec<(Value, BTreeMap<i64, u64>)> = curves
        .by
        .iter()
        .map(|(key, curve)| {
            let buckets = curve.finish().buckets;
            (
                key_json(key),
                buckets
                    .iter()
                    .map(|bucket| (bucket.start_micros, bucket.count))
                    .collect(),
            )
        })
        .collect();
    let buckets: Vec<Value> = counts
        .buckets
        .iter()
        .map(|bucket: &Bucket| {
            let mut one = json!({"at": kaudit_query::instant(bucket.start_micros), "events": bucket.count});
            if by.is_some() {
                let of = |curve: &BTreeMap<i64, u64>| curve.get(&bucket.start_micros).copied();
                let by = named.iter().filter_map(|(value, curve)| {
                    Some(json!({"value": value, "events": of(curve).filter(|count| *count > 0)?}))
                });
                if let Some(members) = one.as_object_mut() {
                    members.insert("by".to_owned(), by.collect::<Vec<_>>().into());
                }
            }
            one
        })
        .collect();
    let at = |micros: i64| kaudit_query::instant(micros);
    let first = counts.buckets.first().map(|bucket| at(bucket.start_micros));
    let last = counts
        .buckets
        .last()
        .map(|bucket| at(bucket.start_micros.saturating_add(width)));
    let looked = Looked::new(&stats, freshness, begun);
    let events: u64 = counts.buckets.iter().map(|bucket| bucket.count).sum();
    Ok(looked.of(
        json!({"from": first, "to": last, "intervalMicros": width, "events": events, "buckets": buckets}),
    ))
}

/// How time is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Division {
    /// So many buckets at most, of a width that suits.
    Most(usize),
    /// Buckets of so many microseconds.
    Width(i64),
}

impl Division {
    fn of(parameters: &Parameters) -> Result<Self, Problem> {
        let Some(text) = parameters.one("interval")? else {
            let most = parameters.size("buckets", BUCKETS, MAX_BUCKETS)?;
            return Ok(Self::Most(most.max(2)));
        };
        if parameters.one("buckets")?.is_some() {
            return Err(Problem::bad("buckets and interval: give one of them"));
        }
        match kaudit_query::duration(text).filter(|micros| INTERVALS.contains(micros)) {
            Some(micros) => Ok(Self::Width(micros)),
            None => Err(Problem::bad(format!(
                "interval: `{text}` is no duration from 1ms to 1000d; write it as 30s, 5m or 1h30m"
            ))),
        }
    }

    fn histogram(self) -> Histogram {
        match self {
            Self::Most(most) => Histogram::new(most),
            Self::Width(micros) => Histogram::of_width(micros, MAX_BUCKETS),
        }
    }

    /// For events that lie from `first` to `last`.
    fn for_span(self, first: i64, last: i64) -> Histogram {
        match self {
            Self::Most(most) => Histogram::for_span(most, first, last),
            Self::Width(_) => self.histogram(),
        }
    }

    /// Whether the buckets are as they were asked for.
    fn check(self, counts: &HistogramCounts) -> Result<(), Problem> {
        match self {
            Self::Width(micros) if counts.width_micros != micros => Err(Problem::bad(format!(
                "interval: these events lie too far apart for {MAX_BUCKETS} buckets of this width; narrow them with since \
                 and until, or ask for wider ones, at least {} s",
                counts.width_micros / 1_000_000
            ))),
            _ => Ok(()),
        }
    }
}

struct Curves {
    all: Histogram,
    /// The most frequent values, each with its own.
    by: Vec<(Key, Histogram)>,
}

fn curves(
    snapshot: &Snapshot,
    scan: &Scan,
    division: Division,
    by: Option<&Column>,
) -> Result<(Curves, Vec<ScanStats>), StoreError> {
    let begun = Instant::now();
    let (folds, stats) = snapshot.fold_times(
        scan,
        || division.histogram(),
        |all, times| times.iter().for_each(|time| all.add(Some(*time))),
    )?;
    let mut all = division.histogram();
    for fold in &folds {
        all.merge(fold);
    }
    let mut curves = Curves { all, by: Vec::new() };
    let Some(by) = by else {
        return Ok((curves, vec![stats]));
    };
    let (top, top_stats) = snapshot.top(&left(scan, begun), by, Limits::default())?;
    let counts = curves.all.finish();
    let first = counts.buckets.first().map_or(0, |bucket| bucket.start_micros);
    let last = counts.buckets.last().map_or(0, |bucket| bucket.start_micros);
    let new = || -> Vec<(Key, Histogram)> {
        let entries = top.finish(CURVES).entries.into_iter();
        entries
            .map(|entry| (entry.key, division.for_span(first, last)))
            .collect()
    };
    let add = |curves: &mut Vec<(Key, Histogram)>, hit: &Hit<'_>| {
        Key::each(&hit.value(0), |key| {
            for (own, curve) in curves.iter_mut() {
                if own.borrowed() == key {
                    curve.add(Some(hit.ts()));
                }
            }
        });
    };
    let (folds, fold_stats) = snapshot.fold(&left(scan, begun), std::slice::from_ref(by), new, add)?;
    curves.by = new();
    for fold in &folds {
        for ((_, own), (_, other)) in curves.by.iter_mut().zip(fold) {
            own.merge(other);
        }
    }
    Ok((curves, vec![stats, top_stats, fold_stats]))
}

async fn compare(State(scans): State<Scans>, RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["with", "field", "limit"], true)?;
    let now = super::now();
    let selection = parameters.scan(now)?;
    let mut baseline = parameters.scan_of(parameters.filter("with", now)?, now)?;
    baseline.cancel = selection.cancel.clone();
    let mut columns = parameters.fields("field")?;
    if columns.is_empty() {
        columns = COMPARED_FIELDS
            .iter()
            .filter_map(|name| Column::from_name(name))
            .collect();
    }
    let most = match parameters.size("limit", DIFFERENCES, MAX_VALUES)? {
        0 => MAX_VALUES,
        limit => limit,
    };
    let begun = Instant::now();
    let cancel = selection.cancel.clone();
    let ask = move |snapshot: &Snapshot| compared(snapshot, &selection, &baseline, &columns);
    let ((compare, stats), freshness): ((Compare, Vec<ScanStats>), Freshness) =
        scans.ask(cancel, ask).await?;
    let found = crate::asking::compared(&compare, most);
    Ok(Looked::new(&stats, freshness, begun).of(found.document()))
}

fn compared(
    snapshot: &Snapshot,
    selection: &Scan,
    baseline: &Scan,
    columns: &[Column],
) -> Result<(Compare, Vec<ScanStats>), StoreError> {
    let mut compare = Compare::new(columns.iter().cloned(), Limits::default());
    let begun = Instant::now();
    let (selected, selected_stats) = tops(snapshot, selection, columns)?;
    let (compared, compared_stats) = tops(snapshot, &left(baseline, begun), columns)?;
    let merge = |facets: &mut Facets, tops: &[Top]| {
        for (column, top) in columns.iter().zip(tops) {
            if let Some(own) = facets.column_mut(column) {
                own.merge(top);
            }
        }
    };
    let (facets, events) = compare.selection_mut();
    merge(facets, &selected);
    *events = selected_stats.rows_matched;
    let (facets, events) = compare.baseline_mut();
    merge(facets, &compared);
    *events = compared_stats.rows_matched;
    Ok((compare, vec![selected_stats, compared_stats]))
}
