//! The gateway as a whole: what it is made of, and how it is served.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::TryFutureExt as _;
use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::service::Service;
use kaudit_dial::{ServerMetrics, Upstream};
use kaudit_listen::{ConnectionInfo, Listener};
use kaudit_sink::{Demand, Sink};
use kaudit_tower::{
    Audit, AuditService, Bodies, BoxFuture, Capture, ClientCertificates, Impersonation,
    MetricsSnapshot as AuditMetrics, PolicyHandle, RemoteAddr, ResponseBody, text_response,
};
use tokio::sync::mpsc::WeakSender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_layer::Layer as _;
use tracing::warn;

use crate::access::Access;
use crate::arrival::{Arrival, Shown};
use crate::body::{Body, Delivery};
use crate::cache::{Hasher, NoRandomness};
use crate::completion::{Completion, is_write};
use crate::decision::{DecisionReviews, Decisions};
use crate::headers::Peer;
use crate::identity::{AnonymousRequests, AuthoritiesHandle, Identity, TokenUsers, Tokens};
use crate::inflight::InFlight;
use crate::metrics::{Metrics, MetricsSnapshot};
use crate::own::OwnCredential;
use crate::path::PathMode;
use crate::patience;
use crate::proxy::{Proxy, Shared};
use crate::redirect::Redirects;
use crate::review::Reviewer;
use crate::traffic::{Traffic, TrafficSnapshot};
use crate::trust::{TrustedProxies, forget_claims};
use crate::upload;

/// What a [`Gateway`] is made of.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    upstream: Upstream,
    policy: PolicyHandle,
    sink: Arc<dyn Sink>,
    demand: Demand,
    capture: Capture,
    paths: PathMode,
    redirects: Redirects,
    response_limit: Duration,
    body_idle_limit: Duration,
    tokens: Tokens,
    certificates: Option<(AuthoritiesHandle, OwnCredential)>,
    anonymous: AnonymousRequests,
    decisions: DecisionReviews,
    trusted: TrustedProxies,
    access_log: Option<WeakSender<Access>>,
    in_flight: Option<usize>,
}

impl Builder {
    /// Where requests go that have ended, for an access log. What finds no room there is counted; whoever holds the
    /// sender ends the log.
    pub fn access_log(mut self, log: WeakSender<Access>) -> Self {
        self.access_log = Some(log);
        self
    }

    /// Requests that are answered at once, but for those that take long by their nature; further ones are answered
    /// 429. Without a number the cluster's own bounds are all there is.
    pub const fn requests_in_flight(mut self, limit: Option<usize>) -> Self {
        self.in_flight = limit;
        self
    }

    /// Whose word on where a request came from counts.
    pub fn trusted_proxies(mut self, trusted: TrustedProxies) -> Self {
        self.trusted = trusted;
        self
    }

    /// How bearer tokens become users.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self
    }

    /// Believes client certificates and front proxies. Whom they name the gateway impersonates with its own
    /// credential. The listener has to ask for certificates, and need not verify them.
    pub fn certificates(mut self, authorities: impl Into<AuthoritiesHandle>, own: OwnCredential) -> Self {
        self.certificates = Some((authorities.into(), own));
        self
    }

    /// What becomes of requests without credentials.
    pub const fn anonymous(mut self, anonymous: AnonymousRequests) -> Self {
        self.anonymous = anonymous;
        self
    }

    /// Which decisions the cluster is asked about.
    pub fn decisions(mut self, decisions: DecisionReviews) -> Self {
        self.decisions = decisions;
        self
    }

    /// What sinks want to see beyond the policy.
    pub fn demand(mut self, demand: Demand) -> Self {
        self.demand = demand;
        self
    }

    /// Bounds of recorded bodies.
    pub const fn capture(mut self, capture: Capture) -> Self {
        self.capture = capture;
        self
    }

    /// What happens to paths that servers read differently.
    pub const fn paths(mut self, paths: PathMode) -> Self {
        self.paths = paths;
        self
    }

    /// What happens to redirects to other hosts.
    pub const fn redirects(mut self, redirects: Redirects) -> Self {
        self.redirects = redirects;
        self
    }

    /// How long the cluster may take to begin its answer to a watch or to a short request; the latter end after a minute
    /// in any case. What may begin late (logs, sessions, other servers behind `/proxy/`) is waited for.
    pub const fn response_limit(mut self, limit: Duration) -> Self {
        self.response_limit = limit;
        self
    }

    /// How long nothing may come of a request's body while the cluster would take it; then the request ends, with 408 if
    /// it has no answer yet. 30 s unless given. Upgrades and long-running requests have no such limit, but for those to
    /// other servers behind `/proxy/`.
    pub const fn body_idle_limit(mut self, limit: Duration) -> Self {
        self.body_idle_limit = limit;
        self
    }

    /// The gateway.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`], without which what is kept of tokens could be guessed.
    pub fn build(self) -> Result<Gateway, NoRandomness> {
        let metrics = Arc::new(Metrics::default());
        let reviewer = Reviewer::new(self.upstream.clone());
        let (authorities, own) = self.certificates.unzip();
        let reviewing = match &self.tokens {
            Tokens::Reviewed(own) => Some(own.clone()),
            Tokens::SelfSubject => None,
        };
        let identity = Identity::new(
            TokenUsers::new(
                self.tokens,
                reviewer.clone(),
                Hasher::new()?,
                Arc::clone(&metrics),
            ),
            authorities.clone(),
            self.anonymous,
            Arc::clone(&metrics),
        );
        let decisions = Decisions::new(reviewer, self.decisions, Hasher::new()?, Arc::clone(&metrics));
        let tunnels = TaskTracker::new();
        let audit = Audit::builder(self.policy, self.sink)
            .authenticator(Arc::new(identity))
            .impersonation(Impersonation::Observe)
            .bodies(Bodies::Sniff)
            .capture(self.capture)
            .demand(self.demand)
            .build();
        let shared = Shared {
            upstream: self.upstream,
            own,
            reviewing,
            authorities,
            decisions,
            paths: self.paths,
            redirects: self.redirects,
            response_limit: self.response_limit,
            body_idle_limit: self.body_idle_limit,
            in_flight: InFlight::new(self.in_flight),
            metrics,
            tunnels,
            cut: CancellationToken::new(),
            watches: Arc::default(),
        };
        Ok(Gateway {
            audit,
            shared: Arc::new(shared),
            completion: Completion::default(),
            traffic: Arc::new(Traffic::new(self.access_log)),
            trusted: Arc::new(self.trusted),
        })
    }
}

/// An auditing reverse proxy in front of one cluster; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    audit: Audit,
    shared: Arc<Shared>,
    completion: Completion,
    traffic: Arc<Traffic>,
    trusted: Arc<TrustedProxies>,
}

impl Gateway {
    /// Begins a gateway to `upstream` that records by `policy` into `sink`. The connections must bear no
    /// identity of their own: clients' requests would be carried out as it.
    pub fn builder(upstream: Upstream, policy: impl Into<PolicyHandle>, sink: Arc<dyn Sink>) -> Builder {
        Builder {
            upstream,
            policy: policy.into(),
            sink,
            demand: Demand::default(),
            capture: Capture::default(),
            paths: PathMode::default(),
            redirects: Redirects::default(),
            response_limit: patience::DEFAULT,
            body_idle_limit: upload::DEFAULT_IDLE,
            tokens: Tokens::default(),
            certificates: None,
            anonymous: AnonymousRequests::default(),
            decisions: DecisionReviews::default(),
            trusted: TrustedProxies::default(),
            access_log: None,
            in_flight: None,
        }
    }

    /// The gateway as a service for one connection.
    #[must_use]
    pub fn connection(&self, connection: &ConnectionInfo) -> GatewayService {
        GatewayService {
            inner: self.audit.layer().layer(Proxy(Arc::clone(&self.shared))),
            peer: connection.remote_addr,
            forwarded_for: Peer::from(connection.remote_addr.ip()),
            remote_addr: RemoteAddr::from(connection.remote_addr),
            certificates: self.shown(connection),
            completion: self.completion.clone(),
            traffic: Arc::clone(&self.traffic),
            claims: if self.trusted.believe(connection.remote_addr.ip()) {
                Claims::Believed
            } else {
                Claims::Forgotten
            },
        }
    }

    /// The peer's certificates, where they count.
    fn shown(&self, connection: &ConnectionInfo) -> Option<Arc<Shown>> {
        let chain = &connection.peer_certificates;
        (self.shared.authorities.is_some() && !chain.is_empty()).then(|| {
            let chain = chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
            Arc::new(Shown::new(chain))
        })
    }

    /// The audit chain's counters.
    #[must_use]
    pub fn audit_metrics(&self) -> AuditMetrics {
        self.audit.metrics()
    }

    /// The gateway's own counters.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.shared.metrics.snapshot()
    }

    /// What passed until now.
    #[must_use]
    pub fn traffic(&self) -> TrafficSnapshot {
        self.traffic.snapshot()
    }

    /// The cluster's servers as they are now.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerMetrics> {
        self.shared.upstream.servers()
    }

    /// Serves a listener until `stop`. Then watches end one after another, within half of `grace` and at most
    /// 15 s, each behind a whole event; other requests and tunnels may finish within `grace`, and what is
    /// left is cut. Every audited request has had its final event when this returns.
    pub fn serve(&self, listener: Listener, stop: CancellationToken, grace: Duration) -> BoxFuture<'_, ()> {
        // As a trait object it is compiled here, and not as the caller is, who may prefer size to speed.
        Box::pin(self.run(listener, stop, grace))
    }

    async fn run(&self, listener: Listener, stop: CancellationToken, grace: Duration) {
        let gateway = self.clone();
        match self.shared.own.as_ref().or(self.shared.reviewing.as_ref()) {
            Some(own) => own.check_servers(),
            None => self.shared.upstream.check_servers(None),
        }
        let deadline = async {
            stop.cancelled().await;
            let stopped = tokio::time::Instant::now();
            self.shared.watches.end(stopped, grace).await;
            stopped + grace
        };
        let serve = listener.serve(
            move |connection| gateway.connection(connection),
            stop.clone(),
            grace,
        );
        let ((), deadline) = tokio::join!(serve, deadline);
        self.completion.finish(deadline).await;
        self.shared.tunnels.close();
        if tokio::time::timeout_at(deadline, self.shared.tunnels.wait())
            .await
            .is_err()
        {
            warn!(
                open = self.shared.tunnels.len(),
                "cutting sessions that outlive the grace period"
            );
            self.shared.cut.cancel();
            self.shared.tunnels.wait().await;
        }
        self.shared.upstream.close().await;
        for own in self.shared.own.iter().chain(&self.shared.reviewing) {
            own.upstream().close().await;
        }
    }
}

/// [`Gateway`] as a service for one connection.
#[derive(Clone, Debug)]
pub struct GatewayService {
    inner: AuditService<Proxy>,
    peer: SocketAddr,
    forwarded_for: Peer,
    remote_addr: RemoteAddr,
    certificates: Option<Arc<Shown>>,
    completion: Completion,
    traffic: Arc<Traffic>,
    claims: Claims,
}

/// What the peer says of where requests came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claims {
    Believed,
    Forgotten,
}

impl Service<Request<Incoming>> for GatewayService {
    type Response = Response<Delivery>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(code) = refused_unread(&request) {
            let refusal = text_response(code, code.to_string());
            let delivery = |body| Delivery::new(ResponseBody::unaudited(body), None);
            return Box::pin(std::future::ready(Ok(refusal.map(delivery))));
        }
        if self.claims == Claims::Forgotten {
            forget_claims(request.headers_mut());
        }
        let passing = self.traffic.begin(self.peer, &request);
        let arrival = Arc::new(Arrival::new(
            self.forwarded_for.clone(),
            self.certificates.clone(),
            passing,
        ));
        let extensions = request.extensions_mut();
        extensions.insert(self.remote_addr.clone());
        if let Some(shown) = &self.certificates {
            extensions.insert(ClientCertificates(shown.chain.clone()));
        }
        extensions.insert(Arc::clone(&arrival));
        let deliver = |response: Response<ResponseBody<Body>>| {
            arrival.passing.answered(response.status().as_u16());
            response.map(|body| Delivery::new(body, Some(arrival)))
        };
        let is_write = is_write(&request);
        let answer = self.inner.handle(request);
        if !is_write {
            return Box::pin(answer.map_ok(deliver));
        }
        let completion = self.completion.clone();
        Box::pin(async move {
            let answered = completion.run(answer).await;
            Ok(deliver(match answered {
                Some(Ok(response)) => response,
                // Cut off: the gateway stops, and this client's connection with it.
                None => text_response(StatusCode::SERVICE_UNAVAILABLE, "the gateway stops".to_owned())
                    .map(ResponseBody::unaudited),
            }))
        })
    }
}

/// With what code a request is refused that never reaches the chain, as in Go's server.
///
/// Source: net/http, transferReader.parseTransferEncoding.
fn refused_unread(request: &Request<Incoming>) -> Option<StatusCode> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if !is_request(request) {
        Some(StatusCode::BAD_REQUEST)
    } else if !is_plain {
        // What is within the chunks would go on as if nothing had been done to it.
        Some(StatusCode::NOT_IMPLEMENTED)
    } else {
        None
    }
}

/// Whether this can be a request to an API server.
///
/// Source: net/http, Server, conn.readRequest.
fn is_request(request: &Request<Incoming>) -> bool {
    let uri = request.uri();
    let has_path = uri.path().starts_with('/');
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, is_one) = (hosts.next(), hosts.next().is_none());
    let is_named = match host {
        Some(host) => is_host(host.as_bytes()),
        None => request.version() != Version::HTTP_11,
    };
    let agrees = match (uri.authority(), host) {
        (Some(authority), Some(host)) => authority
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(host.as_bytes()),
        _ => true,
    };
    request.method() != Method::CONNECT && has_path && is_one && is_named && agrees
}

/// Whether a `Host` has only bytes that one can have. It may be empty.
///
/// Source: golang.org/x/net http/httpguts, ValidHostHeader.
fn is_host(host: &[u8]) -> bool {
    host.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"!$%&()*+,-.:;=[']_~".contains(byte))
}
