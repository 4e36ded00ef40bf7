//! The store itself: `/api/v1/store`, and what would go of it: `/api/v1/store/retention`.

use std::time::Instant;

use axum::extract::{RawQuery, State};
use axum::routing::get;
use axum::{Json, Router};
use kaudit_query::Filter;
use kaudit_store::{Cancel, Completeness, Scan, Snapshot};
use serde_json::Value;

use super::problem::Problem;
use super::scans::{Looked, Scans};
use super::selection::Parameters;
use crate::cli::store::{Going, Shown, free_bytes};

pub(super) fn router(scans: Scans) -> Router {
    Router::new()
        .route("/api/v1/store", get(read))
        .route("/api/v1/store/retention", get(retention))
        .with_state(scans)
}

/// How much there is, and what takes the room by the values of `by`.
async fn read(State(scans): State<Scans>, RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["by", "budget"], false)?;
    let by = parameters.fields("by")?;
    if by.len() > 1 {
        return Err(Problem::bad("by: one field at a time"));
    }
    let mut scan = Scan::new(Filter::everything());
    scan.time_budget = Some(parameters.budget()?.unwrap_or(super::selection::BUDGET));
    let begun = Instant::now();
    let cancel = scan.cancel.clone();
    let free = free_bytes(scans.storing.store());
    let ask = move |snapshot: &Snapshot| {
        let Some(by) = by.first() else {
            return Ok((Shown::of(snapshot, free, None), Vec::new()));
        };
        let (volumes, stats) = snapshot.volume_by(&scan, by)?;
        Ok((Shown::of(snapshot, free, Some(&volumes)), vec![stats]))
    };
    let ((shown, stats), freshness) = scans.ask(cancel, ask).await?;
    let document = serde_json::to_value(shown).map_err(|error| Problem::internal(&error))?;
    Ok(Looked::new(&stats, freshness, begun).of(document))
}

/// The files that would go now, by what this kaudit was told to keep.
async fn retention(State(scans): State<Scans>, RawQuery(query): RawQuery) -> Result<Json<Going>, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["budget"], false)?;
    let budget = parameters.budget()?.unwrap_or(super::selection::BUDGET);
    let retention = scans.storing.retention().clone();
    let is_limited = retention.max_age.is_some() || retention.max_bytes.is_some();
    let (begun, cancel) = (Instant::now(), Cancel::default());
    let given_up = cancel.clone();
    let ask = move |snapshot: &Snapshot| {
        let is_over = || given_up.is_cancelled() || begun.elapsed() >= budget;
        snapshot.expiring_until(&retention, kaudit_collect::now_micros(), &is_over)
    };
    let ((expiring, completeness), _) = scans.ask(cancel, ask).await?;
    let mut going = Going::of(&expiring);
    going.is_limited = Some(is_limited);
    let is_partial = completeness != Completeness::Whole;
    going.partial = Some(is_partial);
    going.partial_reason = is_partial.then(|| "time".to_owned());
    Ok(Json(going))
}
