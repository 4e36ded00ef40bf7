//! Where events come from, and the journal they are kept in.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::collection::{Collection, ForwardRow, JournalRow, SourceRow};

/// The answer of `/api/v1/sources`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Sources {
    pub(crate) items: Vec<SourceRow>,
    pub(crate) journal: JournalRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forward: Option<ForwardRow>,
    pub(crate) signals: Vec<Signal>,
}

/// Something about events that is worth a look.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Signal {
    pub(crate) kind: String,
    pub(crate) cluster: String,
    pub(crate) instance: String,
    #[serde(rename = "auditID")]
    pub(crate) audit_id: String,
    pub(crate) at_micros: i64,
}

pub(super) fn router(collection: Collection) -> Router {
    Router::new()
        .route("/api/v1/sources", get(list))
        .with_state(collection)
}

async fn list(State(collection): State<Collection>) -> Json<Sources> {
    Json(Sources {
        items: collection.rows(),
        journal: collection.journal_row(),
        forward: collection.forward_row(),
        signals: collection.signals(),
    })
}
