//! Forwarding: one request to the cluster, its answer to the client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::response::Parts as ResponseHead;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use kaudit_dial::{OutgoingBody, SendError, Upstream, UpstreamBody};
use kaudit_policy::RequestInfo;
use kaudit_tower::{AuditContext, BoxFuture, RequestBody, StatusError, parse_status, status_response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::warn;

use crate::body::Body;
use crate::decision::{Answer, Decisions, Evidence, annotate};
use crate::headers;
use crate::metrics::{Metrics, count};
use crate::path::{self, PathMode};
use crate::tunnel::Tunnel;

/// A refusal's body is read before it is passed on if it is at most this large.
const MAX_STATUS_BYTES: usize = 64 << 10;

/// What the answer to a request waits for the reason of its decision.
const DECISION_WAIT: Duration = Duration::from_secs(1);

/// The peer's address, in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What all requests of one gateway share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) upstream: Upstream,
    pub(crate) decisions: Decisions,
    pub(crate) paths: PathMode,
    pub(crate) metrics: Arc<Metrics>,
    /// Tunnels; they end by themselves or when `cut` says so.
    pub(crate) tunnels: TaskTracker,
    pub(crate) cut: CancellationToken,
    /// Watches end when this is cancelled.
    pub(crate) stopping: CancellationToken,
}

/// The service inside the chain.
#[derive(Clone, Debug)]
pub(crate) struct Proxy(pub(crate) Arc<Shared>);

impl Service<Request<RequestBody<Incoming>>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Incoming>>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { Ok(shared.answer(request).await) })
    }
}

/// An answer of the cluster before it is the client's.
enum Answered {
    Plain(Response<UpstreamBody>),
    Dedicated(Response<Incoming>),
}

impl Shared {
    async fn answer(&self, mut request: Request<RequestBody<Incoming>>) -> Response<Body> {
        let extensions = request.extensions();
        // INVARIANT G-3: the chain puts it there; without it nothing is forwarded.
        let Some(audit) = extensions.get::<AuditContext>().cloned() else {
            return refuse(&StatusError::unavailable(
                "the gateway's audit chain is not in place",
            ));
        };
        let info = audit.request_info();
        if self.paths == PathMode::Strict
            && let Err(ambiguous) = path::check(request.uri().path(), info)
        {
            return self.refuse_path(&audit, ambiguous);
        }
        let user = audit.acting_user();
        let is_impersonated = audit.impersonated_user().is_some();
        let upgrade = headers::upgrade(request.headers());
        let peer = extensions.get::<Peer>().map(|peer| peer.0);
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        headers::to_upstream(request.headers_mut(), peer, audit.audit_id(), upgrade.as_ref());
        let question = audit
            .is_enabled()
            .then(|| self.decisions.question(request.headers(), info));

        let mut asked = pin!(async {
            match question {
                Some(question) => self.decisions.ask(question).await,
                None => None,
            }
        });
        let mut sent = pin!(self.send(outgoing(request), upgrade.is_some()));
        let mut decision: Option<Option<Answer>> = None;
        let answered = loop {
            tokio::select! {
                answered = &mut sent => break answered,
                answer = &mut asked, if decision.is_none() => decision = Some(answer),
            }
        };
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => return self.not_answered(&error),
        };
        let (head, body) = match answered {
            Answered::Plain(response) => {
                let (head, body) = response.into_parts();
                (head, self.body(body, info))
            }
            Answered::Dedicated(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                annotate(&audit, Evidence::Handled, decided(decision, asked.as_mut()).await);
                return self.switch(response, upgrade, client, &audit);
            }
            Answered::Dedicated(response) => {
                let (head, body) = response.into_parts();
                (head, Body::dedicated(body))
            }
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            count(&self.metrics.broken);
            return refuse(&bad_gateway(
                "the cluster switched protocols without being asked to",
            ));
        }
        let (body, status) = if may_be_status(&head) {
            let (body, read) = begin(body).await;
            (body, read.as_deref().and_then(parse_status))
        } else {
            (body, None)
        };
        if audit.is_enabled() {
            let evidence = Evidence::of(head.status, status.as_ref(), &user, info, is_impersonated);
            let answer = if evidence.is_complete() {
                None
            } else {
                decided(decision, asked.as_mut()).await
            };
            annotate(&audit, evidence, answer);
            if let Some(status) = status {
                audit.relayed_status(status);
            }
        }
        let mut response = Response::from_parts(head, body);
        headers::to_client(response.headers_mut(), None);
        response
    }

    async fn send(&self, request: Request<OutgoingBody>, is_upgrade: bool) -> Result<Answered, SendError> {
        count(&self.metrics.forwarded);
        if is_upgrade {
            self.upstream.send_upgrade(request).await.map(Answered::Dedicated)
        } else {
            self.upstream.send(request).await.map(Answered::Plain)
        }
    }

    fn body(&self, body: UpstreamBody, info: &RequestInfo) -> Body {
        if info.verb() == b"watch" {
            Body::watch(body, self.stopping.clone().cancelled_owned())
        } else {
            Body::upstream(body)
        }
    }

    /// The cluster agreed: the connection becomes a tunnel.
    fn switch(
        &self,
        mut response: Response<Incoming>,
        asked: Option<HeaderValue>,
        client: Option<OnUpgrade>,
        audit: &AuditContext,
    ) -> Response<Body> {
        let agreed = response.headers().get(header::UPGRADE).cloned();
        let (Some(asked), Some(agreed), Some(client)) = (asked, agreed, client) else {
            count(&self.metrics.broken);
            return refuse(&bad_gateway("the cluster switched to no protocol"));
        };
        if !asked.as_bytes().eq_ignore_ascii_case(agreed.as_bytes()) {
            count(&self.metrics.broken);
            return refuse(&bad_gateway("the cluster switched to another protocol"));
        }
        let tunnel = Tunnel {
            client,
            upstream: hyper::upgrade::on(&mut response),
            session: audit.hold_open(),
        };
        self.tunnels
            .spawn(tunnel.relay(self.cut.clone(), Arc::clone(&self.metrics)));
        let mut response = response.map(|_| Body::switched());
        headers::to_client(response.headers_mut(), Some(&agreed));
        response
    }

    fn refuse_path(&self, audit: &AuditContext, ambiguous: path::Ambiguous) -> Response<Body> {
        count(&self.metrics.refused_paths);
        let what = ambiguous.as_str();
        audit.annotate("kaudit.dev/refused", format!("path: {what}"));
        let message =
            format!("the gateway does not forward a path with a {what}: servers read it differently");
        refuse(&StatusError::new(StatusCode::BAD_REQUEST, "BadRequest", message))
    }

    fn not_answered(&self, error: &SendError) -> Response<Body> {
        let text = chain(error);
        warn!(error = %text, "a request was not answered by the cluster");
        match error {
            SendError::Connect(_) => {
                count(&self.metrics.unreachable);
                refuse(&StatusError::unavailable(format!(
                    "the gateway cannot reach the cluster: {text}"
                )))
            }
            _ => {
                count(&self.metrics.broken);
                refuse(&bad_gateway(&text))
            }
        }
    }
}

/// The decision, as soon as it is known, but not later than the wait allows.
async fn decided(
    known: Option<Option<Answer>>,
    asked: impl Future<Output = Option<Answer>>,
) -> Option<Answer> {
    match known {
        Some(answer) => answer,
        None => tokio::time::timeout(DECISION_WAIT, asked).await.ok().flatten(),
    }
}

fn outgoing(request: Request<RequestBody<Incoming>>) -> Request<OutgoingBody> {
    request.map(|body| {
        if body.is_end_stream() {
            Empty::new()
                .map_err(|never: Infallible| match never {})
                .boxed_unsync()
        } else {
            body.map_err(Into::into).boxed_unsync()
        }
    })
}

/// Whether the body can be a Status.
fn may_be_status(head: &ResponseHead) -> bool {
    let is_object = head.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/json") || value.starts_with(b"application/vnd.kubernetes.protobuf")
    });
    head.status.as_u16() >= 400 && is_object && !head.headers.contains_key(header::CONTENT_ENCODING)
}

/// Reads a body if it is small. What comes first is the body to pass on, whole in any case.
async fn begin(mut body: Body) -> (Body, Option<Bytes>) {
    let mut read = BytesMut::new();
    loop {
        match body.frame().await {
            None => {
                let read = read.freeze();
                return (Body::own(read.clone()), Some(read));
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    read.extend_from_slice(&data);
                }
                if read.len() > MAX_STATUS_BYTES {
                    return (Body::resumed(read.freeze(), body), None);
                }
            }
            Some(Err(error)) => return (Body::broken(read.freeze(), error), None),
        }
    }
}

fn refuse(error: &StatusError) -> Response<Body> {
    status_response(error).map(Body::own)
}

fn bad_gateway(why: &str) -> StatusError {
    StatusError::new(
        StatusCode::BAD_GATEWAY,
        "InternalError",
        format!("the cluster gave the gateway no answer: {why}"),
    )
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
