//! Answers that the chain gives itself.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use kaudit_event::{Event, ListMeta, Status, StatusDetails, Text};

/// An error that is answered as a `metav1.Status` object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", status.message)]
pub struct StatusError {
    /// The object without its type meta.
    pub status: Box<Status>,
}

impl StatusError {
    /// A failure with the given code, reason and message.
    #[must_use]
    pub fn new(code: StatusCode, reason: impl Into<Text>, message: impl Into<Text>) -> Self {
        Self {
            status: Box::new(Status {
                status: Text::from_static("Failure"),
                message: message.into(),
                reason: reason.into(),
                code: i32::from(code.as_u16()),
                ..Status::default()
            }),
        }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.status.details = Some(details);
        self
    }

    /// 403 about an object.
    #[must_use]
    pub fn forbidden(name: &str, group: &str, kind: &str, message: String) -> Self {
        let details = StatusDetails {
            name: name.to_owned().into(),
            group: group.to_owned().into(),
            kind: kind.to_owned().into(),
            ..StatusDetails::default()
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details(details)
    }

    /// 401 as kube-apiserver answers it.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 503: not now.
    #[must_use]
    pub fn unavailable(message: impl Into<Text>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// The HTTP status.
    #[must_use]
    pub fn code(&self) -> StatusCode {
        u16::try_from(self.status.code)
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The object as JSON, without a final LF.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut status = self.status.as_ref().clone();
        status.kind = Text::from_static("Status");
        status.api_version = Text::from_static("v1");
        status_json(status)
    }
}

/// The JSON of a Status, by the encoder that events use.
fn status_json(status: Status) -> Bytes {
    const BEFORE: &[u8] = b"\"responseStatus\":";
    const AFTER: &[u8] = b",\"requestReceivedTimestamp\":null";
    let event = Event {
        response_status: Some(status),
        ..Event::default()
    };
    let mut line = Vec::new();
    // An event without bodies can always be printed.
    if event.write_json_item(&mut line).is_err() {
        return Bytes::new();
    }
    let start = line
        .windows(BEFORE.len())
        .position(|window| window == BEFORE)
        .map_or(0, |at| at + BEFORE.len());
    let end = line
        .windows(AFTER.len())
        .rposition(|window| window == AFTER)
        .unwrap_or(line.len());
    Bytes::copy_from_slice(line.get(start..end).unwrap_or_default())
}

/// The response of a Status.
#[must_use]
pub fn status_response(error: &StatusError) -> Response<Bytes> {
    let mut body = error.to_json().to_vec();
    body.push(b'\n');
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = error.code();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// A plain-text answer as Go's `http.Error` gives it.
#[must_use]
pub fn text_response(code: StatusCode, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// 500 in the words of internal errors.
///
/// Source: k8s.io/apiserver pkg/endpoints/handlers/responsewriters/errors.go, InternalError.
pub(crate) fn internal_error(uri: &[u8], error: &str) -> Response<Bytes> {
    let uri = kaudit_event::go_quoted(uri);
    let text = format!("Internal Server Error: {uri}: {error}");
    text_response(
        StatusCode::INTERNAL_SERVER_ERROR,
        crate::authz::escape_html(&text) + "\n",
    )
}

/// An empty `metadata`.
pub(crate) fn plain(code: i32) -> Status {
    Status {
        metadata: ListMeta::default(),
        code,
        ..Status::default()
    }
}
