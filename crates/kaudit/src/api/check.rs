//! Filters that are being written: `/api/v1/query/check`, `/api/v1/suggest`.

use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use kaudit_query::accumulate::{Key, Limits};
use kaudit_query::{Column, Filter, complete};
use kaudit_store::{Scan, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use super::scans::Scans;
use super::selection::{Parameters, visible};

/// Whoever types does not wait longer for values.
const BUDGET: Duration = Duration::from_millis(200);

/// Values of a field that are suggested.
const VALUES: usize = 20;

pub(super) fn router(scans: Scans) -> Router {
    Router::new()
        .route("/api/v1/query/check", post(check))
        .route("/api/v1/suggest", get(suggest))
        .with_state(scans)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    q: String,
}

/// Whether a text is a filter, what is wrong with it, and how it is written otherwise.
async fn check(body: String) -> Result<Json<Value>, Problem> {
    let text: Text = serde_json::from_str(&body)
        .map_err(|error| Problem::bad(format!("the body is not {{\"q\": \"...\"}}: {error}")))?;
    Ok(Json(match Filter::parse(&text.q, super::now()) {
        Ok(filter) => json!({"valid": true, "diagnostics": [], "printed": filter.to_string()}),
        Err(wrong) => json!({"valid": false, "diagnostics": wrong, "printed": null}),
    }))
}

/// What may stand where the cursor is.
async fn suggest(State(scans): State<Scans>, RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["q", "at"], false)?;
    let text = parameters.one("q")?.unwrap_or_default();
    let at = parameters.size("at", text.len(), text.len())?;
    let found = complete(text, at);
    let mut items: Vec<Value> = Vec::new();
    if let Some(column) = found.value_of.as_deref().and_then(Column::from_name) {
        let begun = text.get(found.replaces.clone()).unwrap_or_default();
        items.extend(values(&scans, &column, begun).await?);
    }
    for item in &found.items {
        if !items
            .iter()
            .any(|known| known.get("text").and_then(Value::as_str) == Some(&item.text))
        {
            items.push(json!({"text": item.text, "kind": item.kind, "help": item.doc}));
        }
    }
    Ok(Json(
        json!({"from": found.replaces.start, "to": found.replaces.end, "items": items}),
    ))
}

/// The most frequent values of a field that begin so.
async fn values(scans: &Scans, column: &Column, begun: &str) -> Result<Vec<Value>, Problem> {
    let scan = Scan::new(visible()).within(BUDGET);
    let (of, column) = (scan.clone(), column.clone());
    let ask = move |snapshot: &Snapshot| snapshot.top(&of, &column, Limits::default());
    let ((top, _), _) = scans.ask(scan.cancel, ask).await?;
    let begun = begun.trim_start_matches('"').to_lowercase();
    let texts = top.finish(usize::MAX).entries.into_iter().filter_map(|entry| {
        let text = match entry.key {
            Key::Absent => return None,
            Key::Bool(value) => value.to_string(),
            Key::Number(number) => number.to_string(),
            Key::Text(text) => String::from_utf8(text.into_vec()).ok()?,
        };
        let has_begun = text.to_lowercase().starts_with(&begun);
        has_begun.then(|| {
            let help = format!("{} events", entry.count);
            json!({"text": crate::asking::times::word(&text), "kind": "value", "help": help})
        })
    });
    Ok(texts.take(VALUES).collect())
}
