//! From the service's call to the response that is sent.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use kaudit_event::StatusDetails;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;
use tracing::error;

use super::admission::{Admission, Ending};
use super::answers::OwnResponse;
use crate::audit_id;
use crate::bodies::{Deprecation, Encoding};
use crate::body::{BoxError, RequestBody, ResponseBody, panic_message};
use crate::capture::Bodies;
use crate::context::End;
use crate::status::{StatusError, status_response, text_response};

const TIMEOUT: &str =
    "Timeout: request did not complete within requested timeout - context deadline exceeded";
const PANIC: &str = "This request caused apiserver to panic. Look in the logs for details.\n";

pin_project! {
    /// A request behind the chain. Dropped before it is done, it ends the request as one whose client left.
    #[must_use = "a future does nothing unless it is polled"]
    pub struct AuditFuture<S, B, R>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    {
        inner: S,
        // Set when the service has been called.
        #[pin]
        future: Option<S::Future>,
        // Set when the service is waited for.
        sleep: Option<Pin<Box<Sleep>>>,
        // Dropped last: its guard ends the request.
        admission: Admission<B>,
    }
}

impl<S, B, R> AuditFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
{
    #[inline]
    pub(super) const fn new(admission: Admission<B>, inner: S) -> Self {
        Self {
            inner,
            future: None,
            sleep: None,
            admission,
        }
    }
}

impl<S, B, R> std::fmt::Debug for AuditFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditFuture").finish_non_exhaustive()
    }
}

impl<S, B, R> Future for AuditFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Admission::Waiting(admission) = this.admission {
            *this.admission = ready!(admission.as_mut().poll(cx));
        }
        let admitted = match this.admission {
            Admission::Admitted(admitted) => admitted,
            Admission::Refused(refused) => {
                let Some(refused) = refused.take() else {
                    return Poll::Pending;
                };
                let response = refused
                    .response
                    .map(|body| ResponseBody::own(body, refused.guard));
                let audit_id = audit_id::header_value(&refused.audit_id);
                return Poll::Ready(Ok(identified(response, audit_id)));
            }
            // Whoever waited has been told.
            Admission::Waiting(_) => return Poll::Pending,
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if admitted.request.is_some() {
                if let Err(error) = ready!(this.inner.poll_ready(cx)) {
                    return Poll::Ready(Err(error));
                }
                let request = admitted.request.take();
                this.future.set(request.map(|request| this.inner.call(request)));
            }
            match this.future.as_mut().as_pin_mut() {
                Some(future) => future.poll(cx),
                None => Poll::Pending,
            }
        }));
        let ended = match polled {
            Ok(Poll::Ready(Ok(response))) => Ended::Answered(response),
            Ok(Poll::Ready(Err(error))) => Ended::Failed(error.into()),
            Ok(Poll::Pending) => {
                let limit = admitted.ending.as_ref().and_then(|ending| ending.limit);
                ready!(poll_limit(limit, this.sleep, cx));
                Ended::TimedOut
            }
            Err(panic) => Ended::Panicked(panic_message(panic.as_ref())),
        };
        // What is done is dropped now, not with the response's last byte.
        this.future.set(None);
        let Some(ending) = admitted.ending.take() else {
            return Poll::Pending;
        };
        Poll::Ready(Ok(ending.response(ended)))
    }
}

/// Ready when the service took longer than it may.
fn poll_limit(
    limit: Option<Duration>,
    sleep: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    match limit {
        Some(limit) => sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)))
            .as_mut()
            .poll(cx),
        None => Poll::Pending,
    }
}

/// How the service's call ended.
enum Ended<R> {
    Answered(Response<R>),
    Failed(BoxError),
    Panicked(String),
    TimedOut,
}

impl Ending {
    fn response<R>(mut self, ended: Ended<R>) -> Response<ResponseBody<R>>
    where
        R: Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        let audit_id = audit_id::header_value(self.audit.audit_id());
        let response = match ended {
            Ended::Answered(response) => self.answered(response),
            Ended::TimedOut => {
                let error = StatusError::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", TIMEOUT)
                    .with_details(StatusDetails::default());
                self.audit.timed_out();
                self.audit.response_status(&error.status);
                self.audit.response_object(error.to_json());
                self.own(status_response(&error))
            }
            Ended::Failed(error) => {
                error!(error = &*error, audit_id = %self.audit.audit_id(), "the service failed");
                let text = "Internal Server Error\n".to_owned();
                self.own(text_response(StatusCode::INTERNAL_SERVER_ERROR, text))
            }
            Ended::Panicked(message) => {
                if let Some(guard) = self.guard.take() {
                    guard.finish(End::Panic(message));
                }
                self.own(text_response(StatusCode::INTERNAL_SERVER_ERROR, PANIC.to_owned()))
            }
        };
        identified(response, audit_id)
    }

    /// An answer of the chain in the service's place.
    fn own<R>(self, response: OwnResponse) -> Response<ResponseBody<R>> {
        self.audit.head(response.status().as_u16());
        response.map(|body| ResponseBody::own(body, self.guard))
    }

    /// From the service's response to the one that is sent.
    fn answered<R>(self, response: Response<R>) -> Response<ResponseBody<R>>
    where
        R: Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        let Some(guard) = self.guard else {
            return response.map(|body| ResponseBody::service(body, None, false));
        };
        let status = response.status();
        let form = BodyForm::of(response.headers());
        let copies = self.copies_response && matches!(form, BodyForm::Plain(_) | BodyForm::Gzip(_));
        if self.bodies == Bodies::Sniff {
            match form {
                BodyForm::Plain(encoding) => self.audit.response_is_in(encoding),
                BodyForm::Gzip(encoding) => {
                    self.audit.response_is_in(encoding);
                    self.audit.response_is_gzip();
                }
                BodyForm::OtherObject => self.audit.leave_out_response(),
                BodyForm::NoObject => self.audit.drop_response_copy(),
            }
        }
        self.audit.head(status.as_u16());
        if self.bodies == Bodies::Sniff
            && let Some(deprecation) = Deprecation::of(response.headers(), self.audit.request_info())
        {
            self.audit.deprecated(deprecation);
        }
        let has_no_body = self.is_head
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || status == StatusCode::SWITCHING_PROTOCOLS
            || response.body().is_end_stream();
        if has_no_body {
            guard.finish(End::Complete);
            return response.map(|body| ResponseBody::service(body, None, false));
        }
        response.map(|body| ResponseBody::service(body, Some(guard), copies))
    }
}

/// The response with the request's Audit-ID, unless it has one.
fn identified<R>(
    mut response: Response<ResponseBody<R>>,
    audit_id: Option<HeaderValue>,
) -> Response<ResponseBody<R>> {
    if let Some(value) = audit_id {
        let value = response.headers_mut().entry(&audit_id::HEADER).or_insert(value);
        // The service's own, too; see `audit_id::header_value`.
        value.set_sensitive(true);
    }
    response
}

/// What a response's header says of its body.
enum BodyForm {
    /// An object.
    Plain(Encoding),
    /// The same, compressed.
    Gzip(Encoding),
    /// An object that is not read.
    OtherObject,
    /// Events of a watch, text, or anything else that upstream does not record.
    NoObject,
}

impl BodyForm {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
                .unwrap_or_default()
        };
        let content_type = text(header::CONTENT_TYPE);
        let is_one_of = |kinds: &[&str]| kinds.iter().any(|kind| content_type.starts_with(kind));
        if content_type.contains("stream=watch") || content_type.starts_with("application/cbor-seq") {
            return Self::NoObject;
        }
        let encoding = if is_one_of(&["application/json", "application/vnd.kubernetes.protobuf"]) {
            Encoding::JsonOrProtobuf
        } else if is_one_of(&["application/yaml"]) {
            Encoding::Yaml
        } else if is_one_of(&["application/cbor"]) {
            Encoding::Cbor
        } else {
            return Self::NoObject;
        };
        match text(header::CONTENT_ENCODING) {
            "" => Self::Plain(encoding),
            "gzip" => Self::Gzip(encoding),
            _ => Self::OtherObject,
        }
    }
}
