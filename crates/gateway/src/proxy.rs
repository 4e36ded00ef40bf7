//! Forwarding: one request to the cluster, its answer to the client.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, FutureExt as _, OptionFuture, TryFutureExt as _, ready};
use http::response::Parts as ResponseHead;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use kaudit_dial::{Load, OutgoingBody, SendError, Upstream, UpstreamBody, with_causes};
use kaudit_event::{Status, StatusDetails};
use kaudit_policy::{Attributes, RequestInfo};
use kaudit_tower::{
    AuditContext, BoxFuture, ImpersonationRequest, RequestBody, StatusError, parse_status,
    refuses_impersonation, status_response,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::warn;

use crate::arrival::{Arrival, Passage};
use crate::body::Body;
use crate::cache::Key;
use crate::decision::{Answer, Asker, Decisions, Evidence, Found, ImpersonationAuthorizer, annotate};
use crate::headers::{self, Onward};
use crate::identity::{Authorities, AuthoritiesHandle};
use crate::impersonate::impersonate;
use crate::inflight::InFlight;
use crate::metrics::{Metrics, count};
use crate::own::OwnCredential;
use crate::path::{self, PathMode};
use crate::patience;
use crate::redirect::{Redirects, leads_elsewhere};
use crate::tunnel::Tunnel;
use crate::upload::{self, Fault, Findings, Upload};
use crate::watches::{Ending, Events, Watches};

/// A refusal's body is read before it is passed on if it is at most this large.
const MAX_STATUS_BYTES: usize = 64 << 10;

/// What the answer to a request waits for the reason of its decision.
const DECISION_WAIT: Duration = Duration::from_secs(1);

/// What all requests of one gateway share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) upstream: Upstream,
    /// With what users are impersonated whom a certificate or a front proxy names.
    pub(crate) own: Option<OwnCredential>,
    /// With what access is reviewed for those who bring tokens; without it they ask for themselves.
    pub(crate) reviewing: Option<OwnCredential>,
    pub(crate) authorities: Option<AuthoritiesHandle>,
    pub(crate) decisions: Decisions,
    pub(crate) paths: PathMode,
    pub(crate) redirects: Redirects,
    pub(crate) response_limit: Duration,
    pub(crate) body_idle_limit: Duration,
    pub(crate) in_flight: InFlight,
    pub(crate) metrics: Arc<Metrics>,
    /// Tunnels; they end by themselves or when `cut` says so.
    pub(crate) tunnels: TaskTracker,
    pub(crate) cut: CancellationToken,
    pub(crate) watches: Arc<Watches>,
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
        match shared.in_flight.enter(request.extensions().get::<AuditContext>()) {
            Ok(room) => {
                let answer = shared.answer(request);
                Box::pin(answer.map(|response| Ok(response.map(|body| body.admitted(room)))))
            }
            Err(refusal) => {
                count(&shared.metrics.over_in_flight);
                Box::pin(ready(Ok(refusal.answer())))
            }
        }
    }
}

/// Why the cluster gave no answer.
enum NoAnswer {
    Failed(SendError),
    TooLate(Duration),
}

/// Whose credentials a request to the cluster bears.
enum Bearer {
    /// The client's, or none; the key names them.
    Client(Key),
    Gateway(OwnCredential),
}

impl Bearer {
    const fn own(&self) -> Option<&OwnCredential> {
        match self {
            Self::Client(_) => None,
            Self::Gateway(own) => Some(own),
        }
    }
}

/// An answer of the cluster before it is the client's.
enum Answered {
    Plain(Response<UpstreamBody>),
    Dedicated(Response<Incoming>, Load),
}

impl Shared {
    async fn answer(self: Arc<Self>, mut request: Request<RequestBody<Incoming>>) -> Response<Body> {
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
        // INVARIANT G-3: who found out who asks said as whom the request goes on.
        let Some((arrival, passage)) = extensions
            .get::<Arc<Arrival>>()
            .and_then(|arrival| Some((Arc::clone(arrival), arrival.passage()?)))
        else {
            return refuse(&StatusError::unavailable("the gateway does not know who asks"));
        };
        // HTTP/1.0 has no upgrades and HTTP/2 none of this kind: RFC 9110 section 7.8.
        let upgrade = (request.version() == Version::HTTP_11)
            .then(|| headers::upgrade(request.headers()))
            .flatten();
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let authorities = self.authorities.as_ref().map(AuthoritiesHandle::current);
        let onward = Onward {
            peer: &arrival.peer,
            audit_id: audit.audit_id(),
            upgrade: upgrade.as_ref(),
            front_proxy: authorities.as_deref().and_then(Authorities::front_proxy_headers),
        };
        let bearer = match passage {
            Passage::AsItCame(key) => {
                headers::to_upstream(request.headers_mut(), onward);
                Bearer::Client(key)
            }
            Passage::Impersonating => {
                // Boxed, so that the others carry none of this.
                let impersonating = Box::pin(self.impersonate(&audit, request.headers_mut(), onward));
                match impersonating.await {
                    Ok(own) => Bearer::Gateway(own),
                    Err(refusal) => return refuse_to_impersonate(&refusal),
                }
            }
        };
        let own = bearer.own();
        let user = audit.acting_user();
        let is_impersonated = own.is_some() || audit.impersonated_user().is_some();
        let is_asked = audit.is_enabled() && self.decisions.is_asked(audit.user().map(AsRef::as_ref), info);
        let found = is_asked.then(|| {
            let asker = match (&bearer, &self.reviewing) {
                (Bearer::Gateway(own), _) => Asker::Impersonating(request.headers(), own),
                (Bearer::Client(_), Some(own)) => Asker::Gateway(own),
                (Bearer::Client(key), None) => Asker::Client(request.headers(), *key),
            };
            let attributes = Attributes::new(Some(&user), info);
            self.decisions.find(&asker, attributes, arrival.passing.began())
        });
        let (mut decision, question) = match found {
            None => (Some(None), None),
            Some(Found::Known(answer)) => (Some(answer), None),
            Some(Found::Unknown(question)) => (None, Some(question)),
        };
        // Boxed: most decisions are known, and those requests carry none of this.
        let mut asked = OptionFuture::from(question.map(|question| Box::pin(self.decisions.ask(*question))));
        let upstream = own.map_or(&self.upstream, OwnCredential::upstream);
        let host = self.host_to_stay_at(&request);
        let limit = patience::limit(self.response_limit, info, upgrade.is_some());
        let idle_limit = upload::idle_limit(self.body_idle_limit, info, upgrade.is_some());
        let is_http1 = request.version() < Version::HTTP_2;
        let (request, findings) = self.outgoing(request, &arrival, &audit, idle_limit);
        count(&self.metrics.forwarded);
        let mut sent = pin!(send(upstream, request, upgrade.is_some()));
        let mut too_late = pin!(patience::run_out(limit, &findings));
        let asked_at = Instant::now();
        let answered = loop {
            tokio::select! {
                biased;
                sent = &mut sent => break sent.map_err(NoAnswer::Failed),
                answer = &mut asked, if decision.is_none() => decision = Some(answer.flatten()),
                // Given up with what is returned: the stream is reset or the connection closed.
                limit = &mut too_late => break Err(NoAnswer::TooLate(limit)),
            }
        };
        arrival.passing.asked_upstream(asked_at.elapsed());
        let answered = match answered {
            Ok(answered) => answered,
            Err(why) => {
                return match (why, findings.fault()) {
                    // A request that is not whole is the client's doing, whatever became of it.
                    (NoAnswer::Failed(error), Some(Fault::BrokeOff)) => refuse(&broken_off(&error)),
                    (NoAnswer::Failed(_), Some(Fault::Stalled(limit))) => refuse_stalled(limit, is_http1),
                    (why, _) => self.not_answered(&why),
                };
            }
        };
        let is_refused_upgrade = matches!(answered, Answered::Dedicated(..));
        let (head, body) = match answered {
            Answered::Plain(response) => {
                let (head, body) = response.into_parts();
                let body = self.body(body, &head, info);
                (head, body)
            }
            Answered::Dedicated(response, load) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                annotate(&audit, Evidence::Handled, decided(decision, &mut asked).await);
                return self.switch((response, load), upgrade, client, &audit, arrival);
            }
            Answered::Dedicated(response, load) => {
                let (head, body) = response.into_parts();
                (head, Body::dedicated(body, load))
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
            (body, read.as_deref().and_then(parse_status).map(Box::new))
        } else {
            (body, None)
        };
        if let Some(own) = own
            && let Some(error) = self.own_refused(own, &audit, &head, status.as_deref()).await
        {
            return refuse(&error);
        }
        if audit.is_enabled() {
            let mut evidence = Evidence::of(head.status, status.as_deref(), &user, info, is_impersonated);
            if is_refused_upgrade {
                evidence = evidence.of_upgrade(&head, status.as_deref());
            }
            let answer = if evidence.is_complete() {
                None
            } else {
                decided(decision, &mut asked).await
            };
            annotate(&audit, evidence, answer);
            if let Some(status) = status {
                audit.relayed_status(*status);
            }
        }
        if self.redirects == Redirects::Refuse && leads_elsewhere(head.status, &head.headers, host.as_ref()) {
            return self.refuse_redirect(&audit);
        }
        let mut response = Response::from_parts(head, body);
        headers::to_client(response.headers_mut(), None);
        response
    }

    /// Makes the request one of the user's on the gateway's own word, and gives that.
    ///
    /// A user who asks to be somebody else may be that if the cluster says so, and goes on as them: there
    /// is room for one such step only.
    async fn impersonate(
        &self,
        audit: &AuditContext,
        headers: &mut HeaderMap,
        onward: Onward<'_>,
    ) -> Result<OwnCredential, StatusError> {
        let (Some(own), Some(user)) = (&self.own, audit.user()) else {
            return Err(StatusError::unavailable(
                "the gateway has no credential of its own",
            ));
        };
        if let Some(name) = headers::unknown_impersonation(headers) {
            let message =
                format!("the header `{name}` means nothing to the gateway, which forwards no such header");
            return Err(StatusError::new(StatusCode::BAD_REQUEST, "BadRequest", message));
        }
        if let Some(asked) = ImpersonationRequest::from_headers(headers)? {
            let authorizer = ImpersonationAuthorizer {
                decisions: &self.decisions,
                own,
            };
            let attributes = Attributes::new(Some(user), audit.request_info());
            let let_be = asked.authorize_for(user, attributes, &authorizer).await?;
            audit.impersonated(let_be.user);
            if let Some(constraint) = let_be.constraint {
                audit.impersonated_by(constraint);
            }
        }
        let authorization = own.authorization().await.map_err(|error| {
            warn!(error = %with_causes(&error), "the gateway has no credential to impersonate with");
            StatusError::unavailable(format!(
                "the gateway has no credential to impersonate with: {error}"
            ))
        })?;
        headers::to_upstream(headers, onward);
        impersonate(headers, &audit.acting_user(), authorization)
            .map_err(|error| StatusError::new(StatusCode::FORBIDDEN, "Forbidden", error.to_string()))?;
        Ok(own.clone())
    }

    /// What the cluster's refusal of the gateway itself means to the client; `None` if it refused the user.
    async fn own_refused(
        &self,
        own: &OwnCredential,
        audit: &AuditContext,
        head: &ResponseHead,
        status: Option<&Status>,
    ) -> Option<StatusError> {
        let info = audit.request_info();
        let message = status.map(|status| status.message.to_string_lossy().into_owned());
        let why = match (head.status, message) {
            // What is behind `/proxy/` may know nobody, for reasons of its own.
            (StatusCode::UNAUTHORIZED, _) if !path::is_proxied(info) => {
                own.refused().await;
                "the cluster does not know the gateway's own credential".to_owned()
            }
            (StatusCode::FORBIDDEN, Some(message))
                if refuses_impersonation(&message, &audit.acting_user(), info) =>
            {
                format!("the gateway may not impersonate the user: {message}")
            }
            _ => return None,
        };
        count(&self.metrics.own_refused);
        warn!(audit_id = %audit.audit_id(), %why, "a request failed for the gateway's own credential or rights");
        audit.annotate("kaudit.dev/refused", format!("gateway: {why}"));
        Some(StatusError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            why,
        ))
    }

    /// The request as it is sent on, and what will be found of its body.
    fn outgoing(
        &self,
        request: Request<RequestBody<Incoming>>,
        arrival: &Arc<Arrival>,
        audit: &AuditContext,
        idle_limit: Option<Duration>,
    ) -> (Request<OutgoingBody>, Findings) {
        let (head, body) = request.into_parts();
        if body.is_end_stream() {
            let nothing = Empty::new().map_err(|never: Infallible| match never {});
            return (
                Request::from_parts(head, nothing.boxed_unsync()),
                Findings::default(),
            );
        }
        let (audit, metrics) = (audit.clone(), Arc::clone(&self.metrics));
        let on_stall = move |limit: Duration| {
            count(&metrics.stalled_bodies);
            // Also where the answer has begun, and only its end can tell.
            audit.annotate(
                "kaudit.dev/aborted",
                format!("client: nothing came of the request's body for {limit:?}"),
            );
        };
        let (body, findings) = Upload::new(body, idle_limit, on_stall);
        let arrival = Arc::clone(arrival);
        let body = body.map_frame(move |frame: Frame<Bytes>| {
            if let Some(data) = frame.data_ref() {
                arrival.passing.received(data.len() as u64);
            }
            frame
        });
        (Request::from_parts(head, body.boxed_unsync()), findings)
    }

    /// The host that the client asked, where it is to stay there.
    fn host_to_stay_at<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        if self.redirects == Redirects::Relay {
            return None;
        }
        let authority = request.uri().authority();
        let named = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        named.or_else(|| request.headers().get(header::HOST).cloned())
    }

    fn body(&self, body: UpstreamBody, head: &ResponseHead, info: &RequestInfo) -> Body {
        if info.verb() == b"watch" && head.status == StatusCode::OK {
            Body::watch(body, Ending::new(self.watches.begin(), Events::of(&head.headers)))
        } else {
            Body::upstream(body)
        }
    }

    /// The cluster agreed: the connection becomes a tunnel.
    fn switch(
        &self,
        (mut response, load): (Response<Incoming>, Load),
        asked: Option<HeaderValue>,
        client: Option<OnUpgrade>,
        audit: &AuditContext,
        arrival: Arc<Arrival>,
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
            arrival,
            load,
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

    fn refuse_redirect(&self, audit: &AuditContext) -> Response<Body> {
        count(&self.metrics.refused_redirects);
        audit.annotate("kaudit.dev/refused", "redirect: to another host");
        refuse(&StatusError::new(
            StatusCode::BAD_GATEWAY,
            "InternalError",
            "the cluster's answer is a redirect to another host, which the gateway does not pass on",
        ))
    }

    fn not_answered(&self, why: &NoAnswer) -> Response<Body> {
        let error = match why {
            NoAnswer::Failed(error) => error,
            NoAnswer::TooLate(limit) => {
                warn!(?limit, "a request was not answered by the cluster in time");
                count(&self.metrics.unanswered);
                let message = format!("Timeout: the cluster sent no answer to the gateway within {limit:?}");
                let error = StatusError::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
                return refuse(&error.with_details(StatusDetails::default()));
            }
        };
        let text = with_causes(error);
        warn!(error = %text, "a request was not answered by the cluster");
        match error {
            SendError::Connect(_) => {
                count(&self.metrics.unreachable);
                refuse(&StatusError::unavailable(format!(
                    "the gateway cannot reach the cluster: {text}"
                )))
            }
            SendError::Full => {
                count(&self.metrics.unreachable);
                refuse(&StatusError::unavailable(format!(
                    "the gateway sends no more at once: {text}"
                )))
            }
            _ => {
                count(&self.metrics.broken);
                refuse(&bad_gateway(&text))
            }
        }
    }
}

/// Sends a request to the cluster.
fn send(
    upstream: &Upstream,
    request: Request<OutgoingBody>,
    is_upgrade: bool,
) -> impl Future<Output = Result<Answered, SendError>> + Send {
    if is_upgrade {
        let sent = upstream.send_upgrade(request);
        Either::Left(Box::pin(async {
            sent.await
                .map(|(response, load)| Answered::Dedicated(response, load))
        }))
    } else {
        Either::Right(upstream.send(request).map_ok(Answered::Plain))
    }
}

/// The decision, as soon as it is known, but not later than the wait allows.
async fn decided(
    known: Option<Option<Answer>>,
    asked: impl Future<Output = Option<Option<Answer>>>,
) -> Option<Answer> {
    match known {
        Some(answer) => answer,
        None => tokio::time::timeout(DECISION_WAIT, asked).await.ok()?.flatten(),
    }
}

/// Whether the body can be a Status.
fn may_be_status(head: &ResponseHead) -> bool {
    let is_object = head.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        [
            b"application/json".as_slice(),
            b"application/vnd.kubernetes.protobuf",
            b"application/yaml",
            b"application/cbor",
        ]
        .iter()
        .any(|kind| value.starts_with(kind))
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

/// Source: k8s.io/apiserver pkg/endpoints/handlers/responsewriters/errors.go, RespondWithError.
fn refuse_to_impersonate(error: &StatusError) -> Response<Body> {
    let mut refusal = refuse(error);
    refusal.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    refusal
}

/// What a client is told that stopped sending. Over HTTP/1 its connection is of no more use.
///
/// Source of the code: RFC 9110 section 15.5.9. Kubernetes has no reason for it but the one of 504.
fn refuse_stalled(limit: Duration, is_http1: bool) -> Response<Body> {
    let message = format!("Timeout: nothing came of the request's body for {limit:?}");
    let error = StatusError::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message);
    let mut refusal = refuse(&error.with_details(StatusDetails::default()));
    if is_http1 {
        let headers = refusal.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    refusal
}

fn broken_off(error: &SendError) -> StatusError {
    let message = format!("the request's body is not whole: {}", with_causes(error));
    StatusError::new(StatusCode::BAD_REQUEST, "BadRequest", message)
}
