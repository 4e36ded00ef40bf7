//! The chain: one call that fixes the order of its parts.

mod admission;
mod answers;
mod serving;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use kaudit_policy::{LongRunning, RequestInfoResolver};
use kaudit_sink::{Demand, Sink};
use tower_layer::Layer;
use tower_service::Service;

use crate::authn::{Anonymous, Authenticator};
use crate::authz::Authorizer;
use crate::body::{BoxError, RequestBody, ResponseBody};
use crate::capture::{Bodies, Budget, Capture};
use crate::context::Shared;
use crate::impersonation::Impersonation;
use crate::metrics::{Metrics, MetricsSnapshot};
use crate::policy::PolicyHandle;
pub use serving::AuditFuture;

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
    demand: Demand,
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

    /// What sinks want to see beyond the policy; it may change while requests are served.
    pub fn demand(mut self, demand: Demand) -> Self {
        self.demand = demand;
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
            demand: self.demand,
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
            demand: Demand::default(),
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
    type Future = AuditFuture<S, B, R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The inner service's readiness is awaited with its call, so that a request that never
        // reaches it does not wait for it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.handle(request)
    }
}

impl<S> AuditService<S> {
    /// As [`Service::call`], for servers whose services are shared: this one is always ready, and waits for the inner
    /// one itself.
    pub fn handle<B, R>(&self, request: Request<B>) -> AuditFuture<S, B, R>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        B: Body<Data = Bytes> + Send + 'static,
    {
        AuditFuture::new(admission::admit(&self.audit.0, request), self.inner.clone())
    }
}
