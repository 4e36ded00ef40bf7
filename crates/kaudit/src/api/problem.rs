//! What is wrong with a request, as RFC 9457 has it.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use kaudit_query::Diagnostic;
use serde::Serialize;

/// A refusal that says why.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "code")]
    status: StatusCode,
    detail: String,
    /// Of a filter: every mistake, with its place in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    diagnostics: Vec<Diagnostic>,
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn code<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status,
            detail: detail.into(),
            diagnostics: Vec::new(),
            retry_after_seconds: None,
        }
    }

    /// The request cannot be right as it is.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The filter in the parameter `name` does not parse.
    pub(crate) fn filter(name: &str, diagnostics: Vec<Diagnostic>) -> Self {
        let first = diagnostics.first();
        let message = first.map_or("it does not parse", |first| first.message.as_str());
        let mut problem = Self::bad(format!("{name}: {message}"));
        problem.diagnostics = diagnostics;
        problem
    }

    /// Too much is asked at once.
    pub(crate) fn busy(seconds: u32) -> Self {
        let mut problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "other questions are being answered; ask again a little later",
        );
        problem.retry_after_seconds = Some(seconds);
        problem
    }

    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        let mut detail = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            detail += &format!(": {error}");
            cause = error.source();
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// What the answer needs cannot be had now.
    pub(crate) fn unavailable(error: &dyn std::error::Error) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
        problem.retry_after_seconds = Some(5);
        problem
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
