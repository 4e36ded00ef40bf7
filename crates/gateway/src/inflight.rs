//! How many requests are answered at once.
//!
//! Source: k8s.io/apiserver pkg/server/filters/maxinflight.go. As there, requests that take long by their nature are not
//! counted, and whoever may do everything is never refused.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use kaudit_event::UserInfo;
use kaudit_policy::LongRunning;
use kaudit_tower::{AuditContext, StatusError, status_response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::Body;

/// Its users are never refused.
const MASTERS: &[u8] = b"system:masters";

/// Room for requests that are answered at once; without a bound there is room for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Option<Arc<Semaphore>>);

/// A request's room until it is dropped.
pub(crate) type Room = Option<OwnedSemaphorePermit>;

/// As many requests as may be are being answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooMany;

impl InFlight {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self(limit.map(|limit| Arc::new(Semaphore::new(limit))))
    }

    /// Room for a request, or word that there is none.
    pub(crate) fn enter(&self, audit: Option<&AuditContext>) -> Result<Room, TooMany> {
        let (Some(room), Some(audit)) = (&self.0, audit) else {
            return Ok(None);
        };
        if LongRunning::default().matches(audit.request_info()) {
            return Ok(None);
        }
        if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
            return Ok(Some(permit));
        }
        if audit.user().is_some_and(|user| is_master(user)) {
            return Ok(None);
        }
        audit.annotate("kaudit.dev/refused", "in flight: too many requests");
        Err(TooMany)
    }
}

impl TooMany {
    /// The answer to such a request.
    pub(crate) fn answer(self) -> Response<Body> {
        let refusal = StatusError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            "Too many requests, please try again later.",
        );
        let mut response = status_response(&refusal).map(Body::own);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }
}

fn is_master(user: &UserInfo) -> bool {
    let mut groups = user.groups.iter().flatten();
    groups.any(|group| group.as_bytes() == MASTERS)
}
