//! `serviceaccounts/token`.
//!
//! Source: kubernetes pkg/registry/core/serviceaccount/storage/token.go.

use std::sync::Arc;

use serde_json::json;

use crate::call::Call;
use crate::object::{child, fields, timestamp, uuid};
use crate::response::Reply;
use crate::state::State;
use crate::status::ApiError;

/// Seconds a token lives unless its request says otherwise.
const LIFETIME: i64 = 3600;

/// Issues a token for a service account.
///
/// # Errors
///
/// 404 for an account that does not exist.
pub(crate) fn request(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let mut review = call.decode_object()?;
    call.recorder.request_object(&review);
    let account = state
        .store
        .read(&call.key())
        .ok_or_else(|| ApiError::not_found("", "serviceaccounts", &call.name))?;
    let seconds = review
        .pointer("/spec/expirationSeconds")
        .and_then(serde_json::Value::as_i64)
        .unwrap_or(LIFETIME)
        .clamp(600, 1 << 32);
    let expires = call
        .now
        .checked_add(jiff::Span::new().seconds(seconds))
        .unwrap_or(call.now);
    let id = uuid();
    let token = state.issue_token(&call.namespace, &call.name, &account, &id, call.now, expires);
    call.recorder.annotate(
        "authentication.kubernetes.io/issued-credential-id",
        &format!("JTI={id}"),
    );
    let top = fields(&mut review);
    top.insert("kind".to_owned(), json!("TokenRequest"));
    top.insert("apiVersion".to_owned(), json!("authentication.k8s.io/v1"));
    let metadata = child(top, "metadata");
    metadata.insert("name".to_owned(), json!(call.name));
    metadata.insert("namespace".to_owned(), json!(call.namespace));
    metadata.insert("creationTimestamp".to_owned(), json!(timestamp(call.now)));
    let spec = child(top, "spec");
    spec.insert("expirationSeconds".to_owned(), json!(seconds));
    spec.entry("audiences")
        .or_insert(json!(["https://kubernetes.default.svc.cluster.local"]));
    top.insert(
        "status".to_owned(),
        json!({"token": token, "expirationTimestamp": timestamp(expires)}),
    );
    Ok(Reply::Object {
        code: 201,
        object: review,
        kind: None,
    })
}
