//! The server as a whole: what it is made of, and how it is served.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use jiff::Timestamp;
use kaudit_event::UserInfo;
use kaudit_listen::{ConnectionInfo, Listener, TowerToHyperService};
use kaudit_sink::{Emission, Outcome, Reservation, Reserve, Sink};
use kaudit_tower::{
    Audit, AuditService, Authenticator, AuthorityError, BoxError, BoxFuture, ClientAuthority,
    ClientCertificates, FrontProxy, FrontProxyHeaders, Impersonation, MetricsSnapshot, PolicyHandle,
    RemoteAddr,
};
use tokio_util::sync::CancellationToken;
use tower_layer::Layer as _;
use tower_service::Service;

use crate::access::StoreAuthorizer;
use crate::authn::Identities;
use crate::credentials::Credentials;
use crate::response;
use crate::state::{Clock, State};
use crate::{seed, server};

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What a [`Sandbox`] is made of.
pub struct Builder {
    authority: String,
    clock: Clock,
    policy: PolicyHandle,
    sink: Arc<dyn Sink>,
    authenticator: Option<Arc<dyn Authenticator>>,
    tokens: Vec<(String, UserInfo)>,
    client_authority: Option<ClientAuthority>,
    front_proxy: Option<FrontProxy>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("policy", &self.policy)
            .field("sink", &self.sink)
            .field("authenticator", &self.authenticator)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// The certificate authority (PEM) that pods are told to trust.
    #[must_use]
    pub fn certificate_authority(mut self, pem: impl Into<String>) -> Self {
        self.authority = pem.into();
        self
    }

    /// Who tells who asks, in place of the server's own tokens, certificates and front proxy.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = Some(authenticator);
        self
    }

    /// A bearer token and who it stands for, besides those the server issues to service accounts.
    #[must_use]
    pub fn token(mut self, token: &str, user: UserInfo) -> Self {
        self.tokens.push((token.to_owned(), user));
        self
    }

    /// Bearer tokens and who they stand for.
    #[must_use]
    pub fn tokens(mut self, tokens: impl IntoIterator<Item = (String, UserInfo)>) -> Self {
        self.tokens.extend(tokens);
        self
    }

    /// The authorities (PEM) whose client certificates name users; without any no certificate does.
    /// The listener has to ask for certificates.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] for a text without usable certificates.
    pub fn client_authority(mut self, pem: &[u8]) -> Result<Self, AuthorityError> {
        self.client_authority = Some(ClientAuthority::from_pem(pem)?);
        Ok(self)
    }

    /// The authorities (PEM) of a front proxy that tells in `X-Remote-*` headers who asks, and the common
    /// names its certificate may have; no names allow any.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] for a text without usable certificates.
    pub fn front_proxy(mut self, pem: &[u8], names: &[&str]) -> Result<Self, AuthorityError> {
        self.front_proxy = Some(FrontProxy {
            authority: ClientAuthority::from_pem(pem)?,
            names: names.iter().map(|&name| name.to_owned()).collect(),
            headers: FrontProxyHeaders::default(),
        });
        Ok(self)
    }

    /// What is recorded of requests, and where; without it nothing is.
    #[must_use]
    pub fn audit(mut self, policy: impl Into<PolicyHandle>, sink: Arc<dyn Sink>) -> Self {
        self.policy = policy.into();
        self.sink = sink;
        self
    }

    /// Where the server takes the time of its objects from.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The server, with its first objects.
    #[must_use]
    pub fn build(self) -> Sandbox {
        let stop = CancellationToken::new();
        let credentials = Credentials::new(self.tokens);
        let state = Arc::new(State::new(self.clock, self.authority, stop, credentials));
        seed::plant(&state);
        let authenticator = self.authenticator.unwrap_or_else(|| {
            Arc::new(Identities {
                state: Arc::clone(&state),
                client_authority: self.client_authority,
                front_proxy: self.front_proxy,
            })
        });
        let audit = Audit::builder(self.policy, self.sink)
            .authenticator(authenticator)
            .authorizer(Arc::new(StoreAuthorizer(Arc::clone(&state))))
            .impersonation(Impersonation::Enforce)
            .build();
        Sandbox { state, audit }
    }
}

/// The sink of a server without audit: its policy is none, so nothing comes here.
#[derive(Debug)]
struct Nowhere;

impl Sink for Nowhere {
    fn reserve(&self, _events: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, _emission: &Emission<'_>, _reservation: &mut Reservation) -> Outcome {
        Outcome::Accepted
    }

    fn name(&self) -> String {
        "nowhere".to_owned()
    }
}

/// A small Kubernetes-style API server in memory.
#[derive(Clone, Debug)]
pub struct Sandbox {
    state: Arc<State>,
    audit: Audit,
}

impl Sandbox {
    /// Begins a server.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            authority: String::new(),
            clock: Arc::new(Timestamp::now),
            policy: PolicyHandle::none(),
            sink: Arc::new(Nowhere),
            authenticator: None,
            tokens: Vec::new(),
            client_authority: None,
            front_proxy: None,
        }
    }

    /// The server as a service for callers in this process; its peer has no address.
    #[must_use]
    pub fn service(&self) -> SandboxService {
        self.service_of(Peer::default())
    }

    /// The server as a service for one connection.
    #[must_use]
    pub fn connection(&self, connection: &ConnectionInfo) -> SandboxService {
        let certificates = connection
            .peer_certificates
            .iter()
            .map(|der| Bytes::copy_from_slice(der))
            .collect();
        self.service_of(Peer {
            address: Some(RemoteAddr::from(connection.remote_addr)),
            certificates: ClientCertificates(certificates),
        })
    }

    fn service_of(&self, peer: Peer) -> SandboxService {
        let handlers = Handlers {
            state: Arc::clone(&self.state),
        };
        SandboxService {
            inner: self.audit.layer().layer(handlers),
            peer,
        }
    }

    /// The audit chain's counters.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.audit.metrics()
    }

    /// Serves a listener until `stop`, then ends watches and sessions and lets the rest finish
    /// within `grace`.
    pub async fn serve(&self, listener: Listener, stop: CancellationToken, grace: Duration) {
        let ends = self.state.stop.clone();
        let sandbox = self.clone();
        let serve = listener.serve(
            move |connection| TowerToHyperService::new(sandbox.connection(connection)),
            stop.clone(),
            grace,
        );
        let end_sessions = async {
            stop.cancelled().await;
            ends.cancel();
        };
        tokio::join!(serve, end_sessions);
        self.state.tasks.close();
        if tokio::time::timeout(grace, self.state.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                open = self.state.tasks.len(),
                "sessions are still running after the grace period"
            );
        }
    }
}

/// What is known of a connection's other end.
#[derive(Clone, Debug, Default)]
struct Peer {
    address: Option<RemoteAddr>,
    certificates: ClientCertificates,
}

/// [`Sandbox`] as a tower service, inside its audit chain.
#[derive(Clone, Debug)]
pub struct SandboxService {
    inner: AuditService<Handlers>,
    peer: Peer,
}

impl<B> Service<Request<B>> for SandboxService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let extensions = request.extensions_mut();
        if let Some(address) = &self.peer.address {
            extensions.insert(address.clone());
        }
        extensions.insert(self.peer.certificates.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            answer
                .await
                .map(|response| response.map(|body| body.boxed_unsync()))
        })
    }
}

/// The server inside the chain.
#[derive(Clone, Debug)]
struct Handlers {
    state: Arc<State>,
}

impl<B> Service<Request<B>> for Handlers
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<response::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<response::Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = Arc::clone(&self.state);
        Box::pin(async move { Ok(server::answer(state, request).await) })
    }
}
