//! The receiver of audit webhooks and of other kaudits' journals.
//!
//! | request | meaning |
//! | --- | --- |
//! | `POST /v1/audit/<cluster>/<instance>` | an EventList, as kube-apiserver's webhook backend posts it |
//! | `POST /v1/forward` | records of another kaudit's journal, as [`Forward`](crate::Forward) sends them |
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
mod forwarded;
mod gathered;
mod list;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use kaudit_listen::Listener;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Denied, PeerCertificate};
use crate::budget::Budget;
use crate::forward::wire;
use crate::intake::{Intake, NotKept};
use crate::source::{Name, Origin, Source, Way};
use body::{BodyReader, drain};
use forwarded::Edges;

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
    /// The same for records of another kaudit.
    pub forward_deadline: Duration,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self {
            max_event_bytes: kaudit_event::MAX_EVENT_BYTES,
            memory_bytes: 192 << 20,
            patience: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            deadline: Duration::from_secs(25),
            forward_deadline: Duration::from_secs(60),
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
    edges: Edges,
}

/// What a request that was taken is answered with.
enum Taken {
    /// Nothing; whoever sends EventLists does not read it.
    List,
    /// JSON.
    Records(String),
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
            edges: Edges::default(),
        }))
    }

    /// Serves until `stop`; requests under way may end within `grace`.
    pub fn serve(
        self,
        listener: Listener,
        stop: CancellationToken,
        grace: Duration,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // As a trait object it is compiled here, and not as the caller is, who may prefer size to speed.
        Box::pin(self.run(listener, stop, grace))
    }

    async fn run(self, listener: Listener, stop: CancellationToken, grace: Duration) {
        listener
            .serve(
                move |connection| {
                    let peer = Arc::new(PeerCertificate::of(connection));
                    let receiver = self.clone();
                    service_fn(move |request| {
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
        let (head, mut body) = request.into_parts();
        let handled = self.handle(&head, &mut body, peer).await;
        let (status, reason, text) = match handled {
            Ok(Taken::List) => (StatusCode::OK, "ok", String::new()),
            Ok(Taken::Records(text)) => (StatusCode::OK, "ok", text),
            Err(Refused::Never { status, reason, text }) => (status, reason, text),
            Err(Refused::Later { reason, text }) => (StatusCode::TOO_MANY_REQUESTS, reason, text),
        };
        {
            let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
            *answers.entry((status.as_u16(), reason)).or_default() += 1;
        }
        if status != StatusCode::OK {
            tracing::debug!(%status, reason, text, "refused a request");
            if status != StatusCode::REQUEST_TIMEOUT {
                drain(&mut body).await;
            }
        }
        let content_type = match status {
            StatusCode::OK => "application/json",
            _ => "text/plain; charset=utf-8",
        };
        let has_text = !text.is_empty();
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
        if has_text {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        response
    }

    async fn handle(
        &self,
        head: &Parts,
        body: &mut Incoming,
        peer: &PeerCertificate,
    ) -> Result<Taken, Refused> {
        let path = head.uri.path();
        if path == "/v1/forward" {
            return self.forwarded(head, body, peer).await.map(Taken::Records);
        }
        let Some(target) = path.strip_prefix("/v1/audit/") else {
            return Err(Refused::never(
                StatusCode::NOT_FOUND,
                "not_found",
                "nothing is here; an audit webhook posts to /v1/audit/<cluster>/<instance>",
            ));
        };
        let (cluster, instance) = names(target)?;
        is_post(head)?;
        let access = self.0.access.load_full();
        let authorization = head.headers.get(header::AUTHORIZATION);
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
        if head.headers.contains_key(header::CONTENT_TYPE) {
            is_of_type(head, "application/json", "an EventList is application/json")?;
        }
        let body = BodyReader::new(head, body, self.0.budget.clone(), self.0.options)?;
        let received = tokio::time::timeout(self.0.options.deadline, self.receive(&source, body)).await;
        let outcome = received
            .unwrap_or_else(|_| Err(Refused::later("deadline", "the events are not durable in time")));
        if let Err(Refused::Later { reason, .. }) = &outcome {
            source.held_back(reason);
        }
        outcome.map(|()| Taken::List)
    }

    async fn forwarded(
        &self,
        head: &Parts,
        body: &mut Incoming,
        peer: &PeerCertificate,
    ) -> Result<String, Refused> {
        is_post(head)?;
        let access = self.0.access.load_full();
        let authorization = head.headers.get(header::AUTHORIZATION);
        let sender = access.sender(&peer.names, authorization.map(HeaderValue::as_bytes))?;
        is_of_type(head, wire::MEDIA_TYPE, "another kaudit's records are expected")?;
        let edge = head.headers.get(wire::EDGE_HEADER);
        let edge = edge.and_then(|edge| edge.to_str().ok()?.parse::<Name>().ok());
        let edge = edge.ok_or_else(|| {
            let text = format!("the header `{}` names no edge", wire::EDGE_HEADER);
            Refused::never(StatusCode::BAD_REQUEST, "no_edge", text)
        })?;
        let body = BodyReader::new(head, body, self.0.budget.clone(), self.0.options)?;
        let from = forwarded::From {
            edge: &edge,
            sender: &sender,
            certificate_not_after: peer.not_after,
            edges: &self.0.edges,
        };
        let receiving = forwarded::receive(&self.0.intake, &from, body, &self.0.options);
        let outcome = tokio::time::timeout(self.0.options.forward_deadline, receiving)
            .await
            .unwrap_or_else(|_| Err(Refused::later("deadline", "the records are not durable in time")));
        if let Err(Refused::Later { reason, .. }) = &outcome
            && let Some(source) = self.0.edges.source(&edge)
        {
            source.held_back(reason);
        }
        outcome
    }

    async fn receive(&self, source: &Source, body: BodyReader<'_>) -> Result<(), Refused> {
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

fn is_post(head: &Parts) -> Result<(), Refused> {
    if head.method == Method::POST {
        return Ok(());
    }
    Err(Refused::never(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "events are posted",
    ))
}

fn is_of_type(head: &Parts, wanted: &str, text: &'static str) -> Result<(), Refused> {
    let value = head.headers.get(header::CONTENT_TYPE);
    let value = value.map(HeaderValue::as_bytes).unwrap_or_default();
    let media_type = value.split(|byte| *byte == b';').next().unwrap_or_default();
    if media_type.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()) {
        return Ok(());
    }
    Err(Refused::never(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        text,
    ))
}
