//! Answers that the chain gives itself.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use kaudit_event::{ListMeta, Status, StatusDetails, Text};

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
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(group, kind, name)
    }

    /// 404 in upstream's words, about an object of `resource` in `group`.
    ///
    /// Source: k8s.io/apimachinery pkg/api/errors/errors.go, NewNotFound.
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, resource));
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(group, resource, name)
    }

    /// 409 in upstream's words, about an object of `resource` in `group` that is there already.
    ///
    /// Source: k8s.io/apimachinery pkg/api/errors/errors.go, NewAlreadyExists.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(group, resource));
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(group, resource, name)
    }

    /// 400: the request cannot be understood.
    #[must_use]
    pub fn bad_request(message: impl Into<Text>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    fn about(self, group: &str, kind: &str, name: &str) -> Self {
        self.with_details(StatusDetails {
            name: name.to_owned().into(),
            group: group.to_owned().into(),
            kind: kind.to_owned().into(),
            ..StatusDetails::default()
        })
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
        let mut json = Vec::new();
        status.write_json(&mut json);
        Bytes::from(json)
    }
}

/// A resource with its group, as messages name it.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
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
