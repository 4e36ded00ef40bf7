//! What the chain answers itself.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};

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
    if accepts(&parts.headers) {
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

/// Whether a Status can be written for what `Accept` says: as JSON, YAML or protobuf, as it is.
///
/// Source: k8s.io/apiserver pkg/endpoints/handlers/negotiation/negotiate.go, with the default restrictions.
pub(super) fn accepts(headers: &HeaderMap) -> bool {
    let accept = match headers.get(header::ACCEPT).map(HeaderValue::to_str) {
        None | Some(Ok("")) => return true,
        Some(Ok(accept)) => accept,
        // It names no type that there is.
        Some(Err(_)) => return false,
    };
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_known = matches!(
            parts.next(),
            Some(
                "*/*"
                    | "application/*"
                    | "application/json"
                    | "application/yaml"
                    | "application/vnd.kubernetes.protobuf"
            )
        );
        // A Status is not converted into anything, and in no version of the server's choice.
        let is_plain = parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name.trim() {
                "as" | "g" | "v" => false,
                "sv" => value.trim().is_empty(),
                "stream" => matches!(value.trim(), "" | "watch"),
                _ => true,
            }
        });
        is_known && is_plain
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_as_it_is_or_not_recorded() {
        let is_met = |accept: &'static str| {
            let accept = (header::ACCEPT, HeaderValue::from_static(accept));
            accepts(&HeaderMap::from_iter([accept]))
        };
        assert!(accepts(&HeaderMap::new()));
        for accept in [
            "",
            "*/*",
            "application/*;q=0.5",
            "text/html, application/yaml",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            "application/json; charset=utf-8",
            "application/vnd.kubernetes.protobuf;stream=watch",
        ] {
            assert!(is_met(accept), "{accept}");
        }
        for accept in [
            "text/plain",
            "image/*",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/json;sv=v2",
            "x",
        ] {
            assert!(!is_met(accept), "{accept}");
        }
    }
}
