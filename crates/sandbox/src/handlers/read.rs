//! get and list.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{not_found, present};
use crate::call::Call;
use crate::kinds::Kind;
use crate::response::Reply;
use crate::selectors::Selector;
use crate::state::State;
use crate::status::ApiError;

/// Where a list goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    v: String,
    rv: u64,
    start: (String, String),
}

pub(super) fn get(state: &State, call: &Call) -> Result<Reply, ApiError> {
    let object = state.store.read(&call.key()).ok_or_else(|| not_found(call))?;
    Ok(Reply::object(200, present(&call.kind, &object), &call.kind))
}

pub(super) fn selector(call: &Call) -> Result<Selector, ApiError> {
    let selector = Selector::parse(call.query.text("labelSelector"), call.query.text("fieldSelector"))?;
    selector.check_fields(call.kind.selectable)?;
    Ok(selector)
}

pub(super) fn list(state: &State, call: &Call) -> Result<Reply, ApiError> {
    let selector = selector(call)?;
    let limit = usize::try_from(call.query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let token = call.query.text("continue");
    let (revision, after) = if token.is_empty() {
        (exact_revision(state, call)?, None)
    } else {
        let token = decode_token(token)?;
        (Some(token.rv), Some(token.start))
    };
    let page = state.store.list(
        &call.kind.key,
        &call.namespace,
        revision,
        after.as_ref(),
        limit,
        |object| selector.matches(object),
    )?;
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let (Value::Object(metadata), Some(last)) = (&mut metadata, page.last) {
        let token = Continue {
            v: "meta.k8s.io/v1".to_owned(),
            rv: page.revision,
            start: last,
        };
        let token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default());
        metadata.insert("continue".to_owned(), json!(token));
        if selector.is_empty() {
            metadata.insert("remainingItemCount".to_owned(), json!(page.remaining));
        }
    }
    let items: Vec<Value> = page
        .items
        .iter()
        .map(|object| list_item(&call.kind, object))
        .collect();
    Ok(Reply::object(
        200,
        list_of(&call.kind, metadata, items),
        &call.kind,
    ))
}

/// A list object of a kind.
pub(super) fn list_of(kind: &Kind, metadata: Value, items: Vec<Value>) -> Value {
    json!({"kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": metadata, "items": items})
}

/// Items of built-in lists carry no type.
pub(super) fn list_item(kind: &Kind, object: &Arc<Value>) -> Value {
    let mut item = present(kind, object);
    if let (Value::Object(fields), None) = (&mut item, &kind.custom) {
        fields.shift_remove("kind");
        fields.shift_remove("apiVersion");
    }
    item
}

/// The revision that a list must show; `None` for the latest.
fn exact_revision(state: &State, call: &Call) -> Result<Option<u64>, ApiError> {
    let wanted = match call.query.text("resourceVersion") {
        "" | "0" => return Ok(None),
        text => text.parse::<u64>().map_err(|_| {
            ApiError::bad_request(format!(
                "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        })?,
    };
    let current = state.store.revision();
    if wanted > current {
        let mut error = ApiError::bad_request(format!(
            "Too large resource version: {wanted}, current: {current}"
        ));
        error.code = 504;
        error.reason = "Timeout";
        return Err(error);
    }
    Ok((call.query.text("resourceVersionMatch") == "Exact").then_some(wanted))
}

fn decode_token(token: &str) -> Result<Continue, ApiError> {
    let invalid = || ApiError::bad_request("continue key is not valid: invalid continue token");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    serde_json::from_slice(&bytes).map_err(|_| invalid())
}
