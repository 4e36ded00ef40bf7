//! The store itself: `/api/v1/store`.

use std::time::Instant;

use axum::extract::{RawQuery, State};
use axum::routing::get;
use axum::{Json, Router};
use kaudit_query::Filter;
use kaudit_store::{Scan, Snapshot};
use serde_json::Value;

use super::problem::Problem;
use super::scans::{Looked, Scans};
use super::selection::Parameters;
use crate::cli::store::{document, free_bytes};

pub(super) fn router(scans: Scans) -> Router {
    Router::new().route("/api/v1/store", get(read)).with_state(scans)
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
            return Ok((document(snapshot, free, None), Vec::new()));
        };
        let (volumes, stats) = snapshot.volume_by(&scan, by)?;
        Ok((document(snapshot, free, Some(&volumes)), vec![stats]))
    };
    let ((document, stats), freshness) = scans.ask(cancel, ask).await?;
    Ok(Looked::new(&stats, freshness, begun).of(document))
}
