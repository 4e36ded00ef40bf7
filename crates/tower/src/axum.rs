//! The chain in axum's terms: what handlers take and what they may answer.

use std::convert::Infallible;

use ::axum::body::Body;
use ::axum::extract::{FromRequestParts, OptionalFromRequestParts, OriginalUri};
use ::axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{StatusCode, Uri};

use crate::{AuditContext, StatusError, status_response};

/// A handler's request did not pass the chain: the router has no [`AuditLayer`](crate::AuditLayer) around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request did not pass an audit layer: add `.layer(audit.layer())` to the router")]
#[non_exhaustive]
pub struct NotAudited;

impl IntoResponse for NotAudited {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_string()));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }
}

/// The request's audit record. A request that passed no chain is answered 500, so that a forgotten layer
/// is noticed with the first request.
impl<S: Send + Sync> FromRequestParts<S> for AuditContext {
    type Rejection = NotAudited;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NotAudited> {
        parts.extensions.get::<Self>().cloned().ok_or(NotAudited)
    }
}

/// For handlers that also serve requests which passed no chain.
impl<S: Send + Sync> OptionalFromRequestParts<S> for AuditContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

/// A Status object in JSON with its code.
impl IntoResponse for StatusError {
    fn into_response(self) -> Response {
        status_response(&self).map(Body::from)
    }
}

/// The target before a nested router took its prefix off.
pub(crate) fn original_uri(parts: &Parts) -> &Uri {
    parts
        .extensions
        .get::<OriginalUri>()
        .map_or(&parts.uri, |original| &original.0)
}
