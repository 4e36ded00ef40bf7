//! The chain: one call that fixes the order of its parts.

use std::cell::RefCell;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use kaudit_event::{Event, Level, StatusDetails, Text, UserInfo};
use kaudit_policy::{
    Attributes, LongRunning, RequestInfo, RequestInfoResolver, RequestTarget, source_ips, user_agent,
};
use kaudit_sink::{Reserve, Sink};
use tower_layer::Layer;
use tower_service::Service;
use tracing::error;

use crate::authn::{Authentication, Authenticator, BoxFuture, RemoteAddr, User, failure_message};
use crate::authz::{AuthorizationRequest, Authorizer, Refusal, conclude};
use crate::body::{BoxError, Guard, RequestBody, ResponseBody, panic_message};
use crate::capture::{Bodies, Budget, Capture, Wanted};
use crate::context::{AuditContext, End, RequestShape, Shared, object_ref};
use crate::impersonation::{Impersonated, Impersonation, Request as ImpersonationRequest};
use crate::metrics::{Metrics, MetricsSnapshot};
use crate::policy::PolicyHandle;
use crate::status::{StatusError, internal_error, status_response, text_response};
use crate::{authn::Anonymous, deadline};

const TIMEOUT: &str =
    "Timeout: request did not complete within requested timeout - context deadline exceeded";

const AUDIT_ID: &str = "audit-id";

/// Auditing for HTTP services; cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Chain>);

#[derive(Debug)]
struct Chain {
    policy: PolicyHandle,
    shared: Arc<Shared>,
    authenticator: Arc<dyn Authenticator>,
    authorizer: Option<Arc<dyn Authorizer>>,
    impersonation: Impersonation,
    long_running: LongRunning,
    resolver: RequestInfoResolver,
    capture: Capture,
    bodies: Bodies,
}

/// Puts an [`Audit`] together.
#[derive(Debug)]
#[must_use]
pub struct AuditBuilder {
    policy: PolicyHandle,
    sink: Arc<dyn Sink>,
    authenticator: Arc<dyn Authenticator>,
    authorizer: Option<Arc<dyn Authorizer>>,
    impersonation: Impersonation,
    long_running: LongRunning,
    resolver: RequestInfoResolver,
    capture: Capture,
    bodies: Bodies,
    clock: fn() -> SystemTime,
}

impl AuditBuilder {
    /// Who tells who asks; without one everybody is anonymous.
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = authenticator;
        self
    }

    /// Who decides; without one every request reaches the service and is not annotated.
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// What happens with impersonation headers.
    pub fn impersonation(mut self, impersonation: Impersonation) -> Self {
        self.impersonation = impersonation;
        self
    }

    /// Which requests are long-running.
    pub fn long_running(mut self, long_running: LongRunning) -> Self {
        self.long_running = long_running;
        self
    }

    /// How targets become RequestInfo.
    pub fn resolver(mut self, resolver: RequestInfoResolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// Bounds of recorded bodies.
    pub fn capture(mut self, capture: Capture) -> Self {
        self.capture = capture;
        self
    }

    /// Where recorded bodies come from.
    pub fn bodies(mut self, bodies: Bodies) -> Self {
        self.bodies = bodies;
        self
    }

    /// Where the time comes from.
    pub fn clock(mut self, clock: fn() -> SystemTime) -> Self {
        self.clock = clock;
        self
    }

    /// The finished chain.
    #[must_use]
    pub fn build(self) -> Audit {
        let shared = Shared {
            sink: self.sink,
            metrics: Arc::new(Metrics::default()),
            budget: Arc::new(Budget::new(self.capture.process_bytes)),
            clock: self.clock,
        };
        Audit(Arc::new(Chain {
            policy: self.policy,
            shared: Arc::new(shared),
            authenticator: self.authenticator,
            authorizer: self.authorizer,
            impersonation: self.impersonation,
            long_running: self.long_running,
            resolver: self.resolver,
            capture: self.capture,
            bodies: self.bodies,
        }))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where time enters; tests bring their own clock"
)]
fn system_clock() -> SystemTime {
    SystemTime::now()
}

impl Audit {
    /// A chain that records by `policy` into `sink`.
    pub fn builder(policy: impl Into<PolicyHandle>, sink: Arc<dyn Sink>) -> AuditBuilder {
        AuditBuilder {
            policy: policy.into(),
            sink,
            authenticator: Arc::new(Anonymous),
            authorizer: None,
            impersonation: Impersonation::Off,
            long_running: LongRunning::default(),
            resolver: RequestInfoResolver::default(),
            capture: Capture::default(),
            bodies: Bodies::Explicit,
            clock: system_clock,
        }
    }

    /// The chain as a layer.
    #[must_use]
    pub fn layer(&self) -> AuditLayer {
        AuditLayer(self.clone())
    }

    /// The chain's counters now.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.0.shared.metrics.snapshot()
    }
}

/// The chain as a [`Layer`].
#[derive(Clone, Debug)]
pub struct AuditLayer(Audit);

impl<S> Layer<S> for AuditLayer {
    type Service = AuditService<S>;

    fn layer(&self, inner: S) -> AuditService<S> {
        AuditService {
            audit: self.0.clone(),
            inner,
        }
    }
}

/// A service behind the chain. It never fails: an error of the inner service is answered 500.
#[derive(Clone, Debug)]
pub struct AuditService<S> {
    audit: Audit,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for AuditService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The inner service's readiness is awaited with its call, so that a request that never
        // reaches it does not wait for it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let chain = Arc::clone(&self.audit.0);
        let inner = self.inner.clone();
        Box::pin(async move { Ok(chain.run(request, inner).await) })
    }
}

/// An answer of the chain itself; it is recorded as it is written.
type OwnResponse = Response<Bytes>;

impl Chain {
    async fn run<S, B, R>(self: Arc<Self>, request: Request<B>, inner: S) -> Response<ResponseBody<R>>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        B: Body<Data = Bytes> + Send,
        R: Body<Data = Bytes> + Send,
        R::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        let audit_id = audit_id(&parts);
        let header = HeaderValue::from_bytes(audit_id.as_bytes());
        let audit = AuditContext::new(Arc::clone(&self.shared), audit_id);
        let mut response = match self.before_audit(&mut parts, &audit).await {
            Ok(info) => self.audited(parts, body, inner, &audit, info).await,
            Err(response) => own(response, None),
        };
        if let Ok(header) = header {
            response.headers_mut().entry(AUDIT_ID).or_insert(header);
        }
        response
    }

    /// Everything outside the audit filter: RequestInfo, deadline, authentication.
    async fn before_audit(
        &self,
        parts: &mut Parts,
        audit: &AuditContext,
    ) -> Result<Arc<RequestInfo>, OwnResponse> {
        let method = parts.method.as_str().as_bytes();
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let target = RequestTarget::parse(method, target.as_bytes())
            .map_err(|_| text_response(StatusCode::BAD_REQUEST, "400 Bad Request".to_owned()))?;
        let uri = target.request_uri();
        let info = self
            .resolver
            .resolve(method, &target)
            .map_err(|error| internal_error(&uri, &format!("failed to create RequestInfo: {error}")))?;
        let info = Arc::new(info);
        if !self.long_running.matches(&info)
            && let Err(message) = deadline::of_query(parts.uri.query())
        {
            let error = StatusError::new(StatusCode::BAD_REQUEST, "BadRequest", message);
            return Err(self.refuse_unknown(parts, &info, audit, &error));
        }
        parts.extensions.insert(Arc::clone(&info));
        parts.extensions.insert(Arc::new(target));
        parts.extensions.insert(audit.clone());
        let started = Instant::now();
        let authentication = self.authenticator.authenticate(parts, audit).await;
        audit.track(|trackers| trackers.authentication += started.elapsed());
        match authentication {
            Authentication::User(user) => {
                parts.extensions.insert(User(user));
                Ok(info)
            }
            Authentication::Failed => {
                Err(self.refuse_unknown(parts, &info, audit, &StatusError::unauthorized()))
            }
            Authentication::Unavailable(error) => Err(self.refuse_unknown(parts, &info, audit, &error)),
        }
    }

    /// Answers a request without a user: its one event is ResponseStarted.
    ///
    /// Source: k8s.io/apiserver pkg/endpoints/filters/authn_audit.go and request_deadline.go.
    fn refuse_unknown(
        &self,
        parts: &Parts,
        info: &RequestInfo,
        audit: &AuditContext,
        error: &StatusError,
    ) -> OwnResponse {
        if let Some(policy) = self.policy.current() {
            let config = policy.evaluate(&Attributes::new(None, info));
            audit.begin(config, draft(parts, info, None), false);
            if error.code() == StatusCode::UNAUTHORIZED {
                audit.preset_message(failure_message(parts));
            }
        }
        let response = answer(parts, audit, error);
        audit.end_at_start(i32::from(response.status().as_u16()));
        response
    }

    /// The audit filter and what lies inside it.
    async fn audited<S, B, R>(
        &self,
        mut parts: Parts,
        body: B,
        inner: S,
        audit: &AuditContext,
        info: Arc<RequestInfo>,
    ) -> Response<ResponseBody<R>>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        B: Body<Data = Bytes> + Send,
        R: Body<Data = Bytes> + Send,
        R::Error: Into<BoxError>,
    {
        let user = parts
            .extensions
            .get::<User>()
            .map(|user| Arc::clone(&user.0))
            .unwrap_or_default();
        let is_long_running = self.long_running.matches(&info);
        match self.policy.current() {
            Some(policy) => {
                let config = policy.evaluate(&Attributes::new(Some(&user), &info));
                let draft = if config.level == Level::None {
                    Event::default()
                } else {
                    draft(&parts, &info, Some(&user))
                };
                audit.begin(config, draft, is_long_running);
            }
            None => audit.silence(),
        }
        let mut guard = None;
        if audit.is_audited() {
            if !self.receive(audit).await {
                audit.reject();
                let uri = parts
                    .extensions
                    .get::<Arc<RequestTarget>>()
                    .map(|target| target.request_uri())
                    .unwrap_or_default();
                return own(internal_error(&uri, "failed to store audit event"), None);
            }
            guard = Some(Guard::new(audit.clone()));
        }
        let is_head = parts.method == Method::HEAD;
        if let Err(response) = self
            .impersonate_and_authorize(&mut parts, &user, &info, audit)
            .await
        {
            audit.head(response.status().as_u16());
            return own(response, guard);
        }
        let (copies_request, copies_response) = self.copies(&info, audit, is_long_running);
        if copies_request.is_some() || copies_response.is_some() {
            let content_type = parts
                .headers
                .get(header::CONTENT_TYPE)
                .map(|value| Text::copy_from_slice(value.as_bytes()));
            let shape = RequestShape {
                info: Arc::clone(&info),
                is_patch: parts.method == Method::PATCH,
                content_type: content_type.unwrap_or_default(),
            };
            audit.copies(copies_request.map(|limit| (limit, shape)), copies_response);
        }
        let copy_to = copies_request.is_some().then(|| audit.clone());
        let request = Request::from_parts(parts, RequestBody::new(body, copy_to));
        let limit = if is_long_running {
            None
        } else {
            deadline::of_query(request.uri().query()).ok()
        };
        let outcome = AssertUnwindSafe(within(limit, call(inner, request)))
            .catch_unwind()
            .await;
        let response = match outcome {
            Ok(Some(Ok(response))) => response,
            Ok(None) => {
                let details = StatusDetails::default();
                let error =
                    StatusError::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", TIMEOUT).with_details(details);
                audit.response_status(&error.status);
                audit.response_object(error.to_json());
                let response = status_response(&error);
                audit.head(response.status().as_u16());
                return own(response, guard);
            }
            Ok(Some(Err(error))) => {
                let error = error.into();
                error!(error = &*error, audit_id = %audit.audit_id(), "the service failed");
                let response = text_response(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Internal Server Error\n".to_owned(),
                );
                audit.head(response.status().as_u16());
                return own(response, guard);
            }
            Err(panic) => {
                let message = panic_message(panic.as_ref());
                if let Some(guard) = guard {
                    guard.finish(End::Panic(message));
                }
                const TEXT: &str = "This request caused apiserver to panic. Look in the logs for details.\n";
                return own(
                    text_response(StatusCode::INTERNAL_SERVER_ERROR, TEXT.to_owned()),
                    None,
                );
            }
        };
        self.respond(response, guard, audit, is_head, copies_response.is_some())
    }

    /// Reserves room and makes RequestReceived; false when the request must not go on.
    async fn receive(&self, audit: &AuditContext) -> bool {
        let reserved = match self.shared.sink.reserve(3) {
            Reserve::Ready(reservation) => Ok(reservation),
            Reserve::Refused(refusals) => Err(refusals),
            Reserve::Wait(room) => room.await,
        };
        match reserved {
            Ok(reservation) => {
                audit.reserved(reservation);
                audit.receive().is_accepted()
            }
            Err(_) => false,
        }
    }

    async fn impersonate_and_authorize(
        &self,
        parts: &mut Parts,
        user: &Arc<UserInfo>,
        info: &RequestInfo,
        audit: &AuditContext,
    ) -> Result<(), OwnResponse> {
        let mut user = Arc::clone(user);
        if self.impersonation != Impersonation::Off {
            let asked = ImpersonationRequest::from_headers(&parts.headers);
            match (self.impersonation, asked) {
                (Impersonation::Enforce, Err(error)) => return Err(answer(parts, audit, &error)),
                (Impersonation::Enforce, Ok(Some(asked))) => {
                    let started = Instant::now();
                    if let Some(authorizer) = &self.authorizer
                        && let Err(refusal) = asked.authorize(&user, authorizer.as_ref()).await
                    {
                        return Err(refused(parts, audit, refusal));
                    }
                    audit.track(|trackers| trackers.impersonation += started.elapsed());
                    user = Arc::new(asked.user());
                    audit.impersonated(user.as_ref().clone());
                    parts.extensions.insert(Impersonated(Arc::clone(&user)));
                }
                (Impersonation::Observe, Ok(Some(asked))) => {
                    let asked = asked.user();
                    parts.extensions.insert(Impersonated(Arc::new(asked.clone())));
                    audit.claims_to_be(asked);
                }
                _ => {}
            }
        }
        if let Some(authorizer) = &self.authorizer {
            let started = Instant::now();
            let attributes = Attributes::new(Some(&user), info);
            let outcome = authorizer
                .authorize(AuthorizationRequest {
                    user: &user,
                    attributes,
                })
                .await;
            audit.track(|trackers| trackers.authorization += started.elapsed());
            if let Err(refusal) = conclude(outcome, &user, info, audit) {
                return Err(refused(parts, audit, refusal));
            }
        }
        Ok(())
    }

    /// How much of both bodies is copied; nothing where the service says itself what they are.
    fn copies(
        &self,
        info: &RequestInfo,
        audit: &AuditContext,
        is_long_running: bool,
    ) -> (Option<usize>, Option<Wanted>) {
        let level = audit.level().unwrap_or_default();
        if self.bodies == Bodies::Explicit || level == Level::None {
            return (None, None);
        }
        let writes = matches!(
            info.verb(),
            b"create" | b"update" | b"patch" | b"delete" | b"deletecollection"
        );
        let is_object = info.is_resource_request()
            && !matches!(
                info.subresource(),
                b"exec" | b"attach" | b"portforward" | b"proxy" | b"log"
            );
        let request = (writes
            && is_object
            && (level >= Level::Request || matches!(info.verb(), b"create" | b"update")))
        .then_some(self.capture.request_bytes);
        let is_discovery = !info.is_resource_request() && matches!(info.path(), [b'/', b'a', b'p', b'i', ..]);
        let response = if level >= Level::RequestResponse && !is_long_running && (is_object || is_discovery) {
            Wanted::Object {
                limit: self.capture.response_bytes,
            }
        } else {
            Wanted::Status
        };
        (request, Some(response))
    }

    /// From the service's response to the one that is sent.
    fn respond<R>(
        &self,
        response: Response<R>,
        guard: Option<Guard>,
        audit: &AuditContext,
        is_head: bool,
        copies: bool,
    ) -> Response<ResponseBody<R>>
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<BoxError>,
    {
        let Some(guard) = guard else {
            return response.map(|body| ResponseBody::service(body, None, false));
        };
        let status = response.status();
        let copies = copies && is_readable(&response);
        if !copies && self.bodies == Bodies::Sniff {
            audit.drop_response_copy();
        }
        audit.head(status.as_u16());
        let has_no_body = is_head
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

/// The future's output, or `None` when the limit came first.
async fn within<F: Future>(limit: Option<Duration>, future: F) -> Option<F::Output> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}

async fn call<S, B, R>(mut inner: S, request: Request<RequestBody<B>>) -> Result<Response<R>, S::Error>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send,
    S::Future: Send,
    B: Send,
{
    std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
    inner.call(request).await
}

/// The client's ID verbatim, or a new UUID.
fn audit_id(parts: &Parts) -> Text {
    match parts.headers.get(AUDIT_ID) {
        Some(id) if !id.is_empty() => Text::copy_from_slice(id.as_bytes()),
        _ => Text::from(uuid_v4()),
    }
}

/// Random bytes of the system, taken in one go for many IDs: each ID by itself would be a system call.
struct Randomness {
    bytes: [u8; 1024],
    used: usize,
}

thread_local! {
    static RANDOMNESS: RefCell<Randomness> = const {
        RefCell::new(Randomness { bytes: [0; 1024], used: 1024 })
    };
}

impl Randomness {
    fn take(&mut self) -> [u8; 16] {
        loop {
            let rest = self.bytes.get(self.used..).unwrap_or_default();
            if let Some(bytes) = rest.first_chunk::<16>() {
                self.used += 16;
                return *bytes;
            }
            // Without entropy IDs would repeat; they join events and prove nothing, so the request goes on.
            if getrandom::fill(&mut self.bytes).is_err() {
                error!("the system gives no random bytes: Audit-IDs are not unique");
            }
            self.used = 0;
        }
    }
}

/// A random UUID of version 4, lower-case with dashes.
fn uuid_v4() -> Vec<u8> {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let mut bytes = RANDOMNESS.with_borrow_mut(Randomness::take);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = Vec::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push(b'-');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
        }
    }
    text
}

/// What is known of a request when it arrives.
///
/// Source: k8s.io/apiserver pkg/audit/request.go, LogRequestMetadata.
fn draft(parts: &Parts, info: &RequestInfo, user: Option<&UserInfo>) -> Event {
    let first = |name: &str| parts.headers.get(name).map(HeaderValue::as_bytes);
    let remote = parts
        .extensions
        .get::<RemoteAddr>()
        .map_or(b"".as_slice(), |remote| remote.0.as_bytes());
    let target = parts.extensions.get::<Arc<RequestTarget>>();
    let request_uri = target.map_or_else(
        || {
            let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            RequestTarget::parse(b"GET", target.as_bytes())
                .unwrap_or_default()
                .request_uri()
        },
        |target| target.request_uri(),
    );
    Event {
        request_uri: Text::from(request_uri),
        verb: info.verb_text().clone(),
        user: user.cloned().unwrap_or_default(),
        source_ips: source_ips(first("x-forwarded-for"), first("x-real-ip"), remote),
        user_agent: user_agent(first(header::USER_AGENT.as_str())),
        object_ref: object_ref(info),
        ..Event::default()
    }
}

fn own<R>(response: OwnResponse, guard: Option<Guard>) -> Response<ResponseBody<R>> {
    response.map(|body| ResponseBody::own(body, guard))
}

fn refused(parts: &Parts, audit: &AuditContext, refusal: Refusal) -> OwnResponse {
    match refusal {
        Refusal::Forbidden(error) => {
            let mut response = answer(parts, audit, &error);
            response.headers_mut().insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
            response
        }
        Refusal::Internal(error) => {
            let target = parts.extensions.get::<Arc<RequestTarget>>();
            internal_error(
                &target.map(|target| target.request_uri()).unwrap_or_default(),
                &error,
            )
        }
    }
}

/// Answers with a Status and records it, as the generic response writer does. Where the client accepts
/// no encoding that there is, the answer is indented JSON and nothing of it is recorded.
fn answer(parts: &Parts, audit: &AuditContext, error: &StatusError) -> OwnResponse {
    let mut response = status_response(error);
    if accepts(parts) {
        audit.response_status(&error.status);
        audit.response_object(error.to_json());
    } else {
        let value: Option<serde_json::Value> = serde_json::from_slice(response.body()).ok();
        if let Some(indented) = value.and_then(|value| serde_json::to_vec_pretty(&value).ok()) {
            *response.body_mut() = Bytes::from(indented);
        }
    }
    response
}

/// Whether `Accept` can be met with JSON, YAML or protobuf.
///
/// Source: k8s.io/apiserver pkg/endpoints/handlers/negotiation/negotiate.go.
fn accepts(parts: &Parts) -> bool {
    let mut values = parts
        .headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .peekable();
    if values.peek().is_none_or(|value| value.trim().is_empty()) {
        return true;
    }
    values.flat_map(|value| value.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default().trim();
        matches!(
            media_type,
            "*/*"
                | "application/*"
                | "application/json"
                | "application/yaml"
                | "application/vnd.kubernetes.protobuf"
        )
    })
}

/// Whether the body's bytes are an object in JSON or protobuf as they stand.
fn is_readable<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let is = |name, test: fn(&str) -> bool| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(test)
    };
    is(header::CONTENT_TYPE, |value| {
        let is_watch = value.contains("stream=watch");
        !is_watch
            && ["application/json", "application/vnd.kubernetes.protobuf"]
                .iter()
                .any(|kind| value.starts_with(kind))
    }) && !headers.contains_key(header::CONTENT_ENCODING)
}
