//! The receiver of audit webhooks and of other kaudits' journals.
//!
//! | request | meaning |
//! | --- | --- |
//! | `POST /v1/audit/<cluster>/<instance>` | an EventList, as kube-apiserver's webhook backend posts it |
//!
//! What stands behind `?` is passed over: client-go puts its timeout there. The answers:
//!
//! | status | meaning |
//! | --- | --- |
//! | 200 | every event is durable, or was here already; what was no event is in quarantine |
//! | 400 | the body is no EventList and never will be; events before the fault are kept, the rest is in quarantine |
//! | 401, 403 | the sender is not known, or has no right to this source |
//! | 404, 405, 415 | not something that is received here |
//! | 408 | the body came too slowly |
//! | 429 with `Retry-After` | not now: memory, journal or disk is full; nothing is kept that is not already here |

mod body;
mod list;
mod split;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use kaudit_listen::Listener;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Denied, PeerCertificate};
use crate::budget::Budget;
use crate::intake::{Intake, NotKept};
use crate::source::{Name, Origin, Source, Way};
use body::BodyReader;

/// Bounds of a [`Receiver`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ReceiverOptions {
    /// Bytes of an event; a larger one is kept without its bodies.
    pub max_event_bytes: usize,
    /// Bytes of text that all requests together may hold. At least twice `max_event_bytes`.
    pub memory_bytes: usize,
    /// How long a request waits for memory or for room in the journal before it is turned away.
    pub patience: Duration,
    /// A body may rest for so long.
    pub idle: Duration,
    /// From a request's head to its answer. kube-apiserver gives up after 30 s.
    pub deadline: Duration,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self {
            max_event_bytes: kaudit_event::MAX_EVENT_BYTES,
            memory_bytes: 192 << 20,
            patience: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            deadline: Duration::from_secs(25),
        }
    }
}

/// Receives events over HTTP and answers when they are durable. Its clones are the same receiver.
#[derive(Clone, Debug)]
pub struct Receiver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    intake: Intake,
    access: Arc<ArcSwap<Access>>,
    budget: Budget,
    options: ReceiverOptions,
    answers: Mutex<BTreeMap<(u16, &'static str), u64>>,
}

/// Why a request was not answered with 200.
#[derive(Debug)]
enum Refused {
    /// Something is wrong with the request; the same request will not do better.
    Never {
        status: StatusCode,
        reason: &'static str,
        text: String,
    },
    /// Not now.
    Later { reason: &'static str, text: String },
}

impl Refused {
    fn never(status: StatusCode, reason: &'static str, text: impl Into<String>) -> Self {
        Self::Never {
            status,
            reason,
            text: text.into(),
        }
    }

    fn later(reason: &'static str, text: impl Into<String>) -> Self {
        Self::Later {
            reason,
            text: text.into(),
        }
    }
}

impl From<NotKept> for Refused {
    fn from(error: NotKept) -> Self {
        Self::later(error.reason(), error.to_string())
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unknown => Self::never(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "neither a client certificate nor a bearer token that is known here",
            ),
            Denied::OtherSource => Self::never(
                StatusCode::FORBIDDEN,
                "forbidden",
                "this certificate or token has no right to bring events of this cluster and instance",
            ),
        }
    }
}

impl Receiver {
    /// A receiver that hands events to `intake`. `access` may be exchanged while it serves.
    #[must_use]
    pub fn new(intake: Intake, access: Arc<ArcSwap<Access>>, options: ReceiverOptions) -> Self {
        let memory = options.memory_bytes.max(2 * options.max_event_bytes);
        Self(Arc::new(Inner {
            intake,
            access,
            budget: Budget::new(memory, options.patience),
            options,
            answers: Mutex::default(),
        }))
    }

    /// Serves until `stop`; requests under way may end within `grace`.
    pub async fn serve(self, listener: Listener, stop: CancellationToken, grace: Duration) {
        listener
            .serve(
                move |connection| {
                    let peer = Arc::new(PeerCertificate::of(connection));
                    let receiver = self.clone();
                    tower::service_fn(move |request| {
                        let (receiver, peer) = (receiver.clone(), Arc::clone(&peer));
                        async move { Ok::<_, Infallible>(receiver.answer(request, &peer).await) }
                    })
                },
                stop,
                grace,
            )
            .await;
    }

    /// Requests that were answered, by status and a word for the reason.
    #[must_use]
    pub fn answers(&self) -> Vec<(u16, &'static str, u64)> {
        let answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers
            .iter()
            .map(|((status, reason), count)| (*status, *reason, *count))
            .collect()
    }

    async fn answer(&self, request: Request<Incoming>, peer: &PeerCertificate) -> Response<Full<Bytes>> {
        let (status, reason, text) = match self.handle(request, peer).await {
            Ok(()) => (StatusCode::OK, "ok", String::new()),
            Err(Refused::Never { status, reason, text }) => (status, reason, text),
            Err(Refused::Later { reason, text }) => (StatusCode::TOO_MANY_REQUESTS, reason, text),
        };
        {
            let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
            *answers.entry((status.as_u16(), reason)).or_default() += 1;
        }
        if status != StatusCode::OK {
            tracing::debug!(%status, reason, text, "refused a request");
        }
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                // client-go takes whole seconds, and only as many as fit into its 30 s.
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            _ => {}
        }
        if status != StatusCode::OK {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
        }
        response
    }

    async fn handle(&self, request: Request<Incoming>, peer: &PeerCertificate) -> Result<(), Refused> {
        let path = request.uri().path().to_owned();
        let Some(target) = path.strip_prefix("/v1/audit/") else {
            return Err(Refused::never(
                StatusCode::NOT_FOUND,
                "not_found",
                "nothing is here; an audit webhook posts to /v1/audit/<cluster>/<instance>",
            ));
        };
        let (cluster, instance) = names(target)?;
        if request.method() != Method::POST {
            return Err(Refused::never(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "events are posted",
            ));
        }
        let access = self.0.access.load_full();
        let authorization = request.headers().get(header::AUTHORIZATION);
        access
            .sender(&peer.names, authorization.map(HeaderValue::as_bytes))?
            .may_bring(&cluster, &instance)?;
        let source = self.0.intake.source(&Origin {
            cluster,
            instance,
            transport: Way::Webhook,
            path: String::new(),
        })?;
        source.shown(peer.not_after);
        is_json(&request)?;
        let body = BodyReader::new(request, self.0.budget.clone(), self.0.options)?;
        let received = tokio::time::timeout(self.0.options.deadline, self.receive(&source, body)).await;
        let outcome = received
            .unwrap_or_else(|_| Err(Refused::later("deadline", "the events are not durable in time")));
        if let Err(Refused::Later { reason, .. }) = &outcome {
            source.held_back(reason);
        }
        outcome
    }

    async fn receive(&self, source: &Source, body: BodyReader) -> Result<(), Refused> {
        list::receive(&self.0.intake, source, body, &self.0.options).await
    }
}

fn names(target: &str) -> Result<(Name, Name), Refused> {
    let not_found = |text: String| Refused::never(StatusCode::NOT_FOUND, "not_found", text);
    let (cluster, instance) = target
        .split_once('/')
        .ok_or_else(|| not_found("the path is /v1/audit/<cluster>/<instance>".to_owned()))?;
    let name = |text: &str| text.parse::<Name>().map_err(|error| not_found(error.to_string()));
    Ok((name(cluster)?, name(instance)?))
}

fn is_json(request: &Request<Incoming>) -> Result<(), Refused> {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let media_type = value
        .as_bytes()
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    if media_type.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    Err(Refused::never(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "an EventList is application/json",
    ))
}
