//! The gateway as a whole: what it is made of, and how it is served.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use kaudit_dial::Upstream;
use kaudit_listen::{ConnectionInfo, Listener};
use kaudit_sink::{Demand, Sink};
use kaudit_tower::{
    Audit, AuditService, Bodies, BoxFuture, Capture, ClientCertificates, Impersonation,
    MetricsSnapshot as AuditMetrics, PolicyHandle, RemoteAddr, ResponseBody, text_response,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_layer::Layer as _;
use tower_service::Service;
use tracing::warn;

use crate::arrival::{Arrival, Shown};
use crate::body::Body;
use crate::cache::{Hasher, NoRandomness};
use crate::completion::{Completion, is_write};
use crate::decision::{DecisionReviews, Decisions};
use crate::identity::{AnonymousRequests, AuthoritiesHandle, Identity, TokenUsers, Tokens};
use crate::inflight::InFlight;
use crate::metrics::{Metrics, MetricsSnapshot};
use crate::own::OwnCredential;
use crate::path::PathMode;
use crate::proxy::{Proxy, Shared};
use crate::review::Reviewer;
use crate::trust::{TrustedProxies, forget_claims};

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
    tokens: Tokens,
    certificates: Option<(AuthoritiesHandle, OwnCredential)>,
    anonymous: AnonymousRequests,
    decisions: DecisionReviews,
    trusted: TrustedProxies,
    in_flight: Option<usize>,
}

impl Builder {
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
            in_flight: InFlight::new(self.in_flight),
            metrics,
            tunnels,
            cut: CancellationToken::new(),
            stopping: CancellationToken::new(),
        };
        Ok(Gateway {
            audit,
            shared: Arc::new(shared),
            completion: Completion::default(),
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
            tokens: Tokens::default(),
            certificates: None,
            anonymous: AnonymousRequests::default(),
            decisions: DecisionReviews::default(),
            trusted: TrustedProxies::default(),
            in_flight: None,
        }
    }

    /// The gateway as a service for one connection.
    #[must_use]
    pub fn connection(&self, connection: &ConnectionInfo) -> GatewayService {
        GatewayService {
            inner: self.audit.layer().layer(Proxy(Arc::clone(&self.shared))),
            peer: connection.remote_addr,
            remote_addr: RemoteAddr::from(connection.remote_addr),
            certificates: self.shown(connection),
            completion: self.completion.clone(),
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

    /// Serves a listener until `stop`. Then watches end, other requests and tunnels may finish within
    /// `grace`, and what is left is cut; every audited request has had its final event when this returns.
    pub async fn serve(&self, listener: Listener, stop: CancellationToken, grace: Duration) {
        let gateway = self.clone();
        let deadline = async {
            stop.cancelled().await;
            self.shared.stopping.cancel();
            tokio::time::Instant::now() + grace
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
    remote_addr: RemoteAddr,
    certificates: Option<Arc<Shown>>,
    completion: Completion,
    claims: Claims,
}

/// What the peer says of where requests came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claims {
    Believed,
    Forgotten,
}

impl Service<Request<Incoming>> for GatewayService {
    type Response = Response<ResponseBody<Body>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        if !is_request(&request) {
            let refusal = text_response(StatusCode::BAD_REQUEST, "400 Bad Request".to_owned());
            return Box::pin(std::future::ready(Ok(refusal.map(ResponseBody::unaudited))));
        }
        if self.claims == Claims::Forgotten {
            forget_claims(request.headers_mut());
        }
        let extensions = request.extensions_mut();
        extensions.insert(self.remote_addr.clone());
        if let Some(shown) = &self.certificates {
            extensions.insert(ClientCertificates(shown.chain.clone()));
        }
        extensions.insert(Arc::new(Arrival::new(self.peer, self.certificates.clone())));
        let is_write = is_write(&request);
        let answer = self.inner.call(request);
        if !is_write {
            return Box::pin(answer);
        }
        let completion = self.completion.clone();
        Box::pin(async move {
            let answered = completion.run(answer).await;
            Ok(match answered {
                Some(Ok(response)) => response,
                // Cut off: the gateway stops, and this client's connection with it.
                None => text_response(StatusCode::SERVICE_UNAVAILABLE, "the gateway stops".to_owned())
                    .map(ResponseBody::unaudited),
            })
        })
    }
}

/// Whether this can be a request to an API server; anything else never reaches the chain, as in Go's
/// server.
fn is_request(request: &Request<Incoming>) -> bool {
    let uri = request.uri();
    let has_path = uri.path().starts_with('/');
    let host = request.headers().get(header::HOST);
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let agrees = match (uri.authority(), host) {
        (Some(authority), Some(host)) => authority
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(host.as_bytes()),
        _ => true,
    };
    request.method() != Method::CONNECT && has_path && hosts <= 1 && agrees
}
