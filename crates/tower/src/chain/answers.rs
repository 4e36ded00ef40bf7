//! What the chain answers itself.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, header};

use crate::AuditContext;
use crate::authz::Refusal;
use crate::status::{StatusError, internal_error, status_response};

/// An answer of the chain itself; it is recorded as it is written.
pub(super) type OwnResponse = Response<Bytes>;

pub(super) fn refused(parts: &Parts, audit: &AuditContext, refusal: Refusal) -> OwnResponse {
    match refusal {
        Refusal::Forbidden(error) => {
            let mut response = answer(parts, audit, &error);
            response.headers_mut().insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
            response
        }
        Refusal::Internal(error) => internal_error(&audit.request_target().request_uri(), &error),
    }
}

/// Answers with a Status and records it, as the generic response writer does. Where the client accepts
/// no encoding that there is, the answer is indented JSON and nothing of it is recorded.
pub(super) fn answer(parts: &Parts, audit: &AuditContext, error: &StatusError) -> OwnResponse {
    let mut response = status_response(error);
    if accepts(parts) {
        audit.response_status(&error.status);
        audit.response_object(error.to_json());
    } else {
        let value: Option<serde_json::Value> = serde_json::from_slice(response.body()).ok();
        if let Some(indented) = value.and_then(|value| serde_json::to_vec_pretty(&value).ok()) {
            *response.body_mut() = Bytes::from(indented);
        }
    }
    response
}

/// Whether `Accept` can be met with JSON, YAML or protobuf.
///
/// Source: k8s.io/apiserver pkg/endpoints/handlers/negotiation/negotiate.go.
fn accepts(parts: &Parts) -> bool {
    let mut values = parts
        .headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .peekable();
    if values.peek().is_none_or(|value| value.trim().is_empty()) {
        return true;
    }
    values.flat_map(|value| value.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default().trim();
        matches!(
            media_type,
            "*/*"
                | "application/*"
                | "application/json"
                | "application/yaml"
                | "application/vnd.kubernetes.protobuf"
        )
    })
}
