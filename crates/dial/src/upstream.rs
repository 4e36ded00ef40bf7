//! Connections to the servers of one cluster, kept and used again.

mod body;
mod check;
mod dice;
mod head;
mod health;
mod http2;
mod lane;
mod outgoing;
mod pool;
mod sending;
mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::dice::Dice;
use self::head::Address;
use self::health::Seen;
use self::outgoing::Outgoing;
use self::pool::Pool;
use self::sending::{Attempt, Sending};
use self::servers::{Choice, Tried, choose};
use crate::connect::{ConnectError, Connector, LIMIT, Protocol, SHORT_LIMIT};
use crate::credential::ShownTls;
use crate::{ClientTlsError, Cluster, CurrentCredential, Server};

pub use self::body::{BodyError, UpstreamBody};
pub use self::lane::take_lane;
pub use self::pool::Load;
pub use self::servers::{ServerMetrics, Servers};

/// An error that is not named.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request that goes out.
pub type OutgoingBody = UnsyncBoxBody<Bytes, BoxError>;

/// So much is read of why a server is not ready.
const MAX_REASONS: usize = 64 << 10;

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no connection; nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before the response's head; the server may have seen the request.
    #[error("the connection to the server broke before it answered")]
    Broken(#[source] hyper::Error),
    /// The same over HTTP/2, where it may also be the stream alone.
    #[error("the connection to the server broke before it answered")]
    Reset(#[source] h2::Error),
    /// The server was found to be silent while it had the request.
    #[error("the server fell silent before it answered")]
    Silent,
    /// All streams of as many connections as there may be are taken; nothing was sent.
    #[error("every connection to the server is taken")]
    Full,
    /// The path cannot be put behind the server's own.
    #[error("the request target cannot be sent to this server")]
    Target,
}

/// How connections are made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UpstreamOptions {
    /// What the server is asked to speak.
    pub protocol: Protocol,
    /// The cluster's servers, where there are others than the one that it names.
    pub servers: Option<Servers>,
    /// Threads that have connections of their own ([`take_lane`]).
    pub lanes: usize,
}

impl UpstreamOptions {
    /// Threads that have connections of their own ([`take_lane`]).
    #[must_use]
    pub const fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// The cluster's servers. Certificates are checked for each one's own host, unless the cluster says which name
    /// they have.
    #[must_use]
    pub fn servers(mut self, servers: Servers) -> Self {
        self.servers = Some(servers);
        self
    }

    /// What the server is asked to speak.
    #[must_use]
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }
}

/// The servers of one cluster and the connections to them.
///
/// A request goes to the less busy of two servers. What was not sent, because there is no connection, goes to
/// another one; a server that proves unable is put aside until it proves able.
///
/// Over HTTP/1.1 every request has a connection of its own for its time; over HTTP/2 streams are counted
/// against the server's limit, and another connection is opened before it is reached. Either way a watch
/// never stands in another request's way.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: Server,
    tls: Option<Arc<ShownTls>>,
    /// One for each of the servers.
    pools: Box<[Arc<Pool>]>,
    dice: Dice,
    is_checked: AtomicBool,
    stop: CancellationToken,
    /// `None` where the server's name cannot stand in a request.
    address: Option<Address>,
    tasks: TaskTracker,
}

/// Connections by how they were had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpstreamMetrics {
    /// Connections that were opened.
    pub opened: u64,
    /// Requests that found one.
    pub reused: u64,
    /// HTTP/1.1 connections that are idle now.
    pub idle: u64,
    /// HTTP/2 connections that take requests now.
    pub http2: u64,
    /// Their streams that are open now.
    pub streams: u64,
    /// Requests that were sent once more, because the server had refused them unprocessed or the connection
    /// broke under one that may be repeated.
    pub retried: u64,
    /// Requests that were refused because every connection was taken.
    pub full: u64,
}

impl Upstream {
    /// Connections to `cluster`. Of its credentials only the client certificate is used, as its files are
    /// now or at a [`reload`](Self::reload), and only with `with_identity`: the others belong to requests.
    ///
    /// # Errors
    ///
    /// [`ClientTlsError`] when certificates cannot be used.
    pub fn new(cluster: &Cluster, with_identity: bool) -> Result<Self, ClientTlsError> {
        Self::with_options(cluster, with_identity, &UpstreamOptions::default())
    }

    /// The same in another way.
    ///
    /// # Errors
    ///
    /// As [`Upstream::new`].
    pub fn with_options(
        cluster: &Cluster,
        with_identity: bool,
        options: &UpstreamOptions,
    ) -> Result<Self, ClientTlsError> {
        let tls = cluster
            .server
            .is_https
            .then(|| ShownTls::new(cluster, with_identity, options.protocol))
            .transpose()?
            .map(Arc::new);
        let servers = options
            .servers
            .clone()
            .filter(|servers| !servers.is_empty())
            .unwrap_or_else(|| Servers::new([cluster.server.clone()]));
        let limit = if servers.len() > 1 { SHORT_LIMIT } else { LIMIT };
        let tasks = TaskTracker::new();
        let pools = servers.iter().map(|health| {
            let server = health.server().clone();
            let connector = Connector {
                server_name: cluster
                    .tls_server_name
                    .clone()
                    .unwrap_or_else(|| server.host.clone()),
                server,
                proxy: cluster.proxy.clone(),
                tls: tls.clone(),
                protocol: options.protocol,
                limit,
                turn: AtomicUsize::new(0),
            };
            Arc::new(Pool::new(
                connector,
                Arc::clone(health),
                tasks.clone(),
                options.lanes,
            ))
        });
        Ok(Self(Arc::new(Inner {
            server: cluster.server.clone(),
            tls: tls.clone(),
            pools: pools.collect(),
            dice: Dice::new(),
            is_checked: AtomicBool::new(false),
            stop: CancellationToken::new(),
            address: Address::of(&cluster.server),
            tasks,
        })))
    }

    /// The server that the cluster names, whose name requests bear wherever they go.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.0.server
    }

    /// The servers that requests go to.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerMetrics> {
        let one = |pool: &Arc<Pool>| {
            let (health, connections) = (pool.health(), pool.connections());
            ServerMetrics {
                server: health.server().to_string(),
                aside: health.why_aside(),
                requests: pool.counters().requests.load(Ordering::Relaxed),
                connect_failures: health.connect_failures(),
                connections: connections.idle + connections.links,
                in_flight: pool.busy() as u64,
            }
        };
        self.0.pools.iter().map(one).collect()
    }

    /// Sends a request and returns the response's head; the body comes as it is read.
    ///
    /// The target's path and query are sent as they are, behind the server's base path. A request that
    /// was not sent because a connection had been closed is sent on another one. One that was sent is sent
    /// once more only if the server says that it did not act on it (`REFUSED_STREAM`, `GOAWAY`), or if it
    /// is a GET, HEAD or OPTIONS without a body and the connection broke under it or, with several servers, its
    /// server fell silent. Whatever is sent again goes to another server if there is one.
    ///
    /// # Errors
    ///
    /// [`SendError`] when there is no connection or it broke before the head.
    pub fn send(
        &self,
        request: Request<OutgoingBody>,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, SendError>> + Send {
        self.0.send(request, None, Tried::default())
    }

    /// Sends a request that changes nothing, whatever its method: it may be repeated as a GET may.
    ///
    /// # Errors
    ///
    /// As [`Upstream::send`].
    pub fn send_question(
        &self,
        question: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, SendError>> + Send {
        let kept = question.body().clone();
        let request = question.map(Outgoing::of_bytes);
        self.0.send(request, Some(kept), Tried::default())
    }

    /// Sends a request that may become a tunnel, on an HTTP/1.1 connection of its own. The connection counts in its
    /// server's load until the [`Load`] is dropped.
    ///
    /// # Errors
    ///
    /// As [`Upstream::send`].
    pub async fn send_upgrade(
        &self,
        request: Request<OutgoingBody>,
    ) -> Result<(Response<Incoming>, Load), SendError> {
        let (mut head, body) = request.into_parts();
        let mut body = Outgoing::new(body);
        body.forget();
        let headers = std::mem::take(&mut head.headers);
        let request = self.0.address()?.http1(&head, headers, body)?;
        let dedicated = async |pool: &Arc<Pool>| Ok(pool.dedicated().await?);
        let (_, pool, mut sender) = self
            .0
            .take(Choice::Proven, &mut Tried::default(), dedicated)
            .await?;
        pool.counters().requests.fetch_add(1, Ordering::Relaxed);
        let load = pool.add_load();
        let answered = sender.send_request(request).await;
        pool.health().see(match &answered {
            Ok(_) => Seen::Answered,
            // Its body broke off, for which the server can do nothing.
            Err(error) if error.is_user() => Seen::Connected,
            Err(_) => Seen::Broke,
        });
        Ok((answered.map_err(SendError::Broken)?, load))
    }

    /// Asks each server every few seconds at `/readyz` whether it is ready, until [`Upstream::close`]. Where there is
    /// only one nothing is asked: requests have nowhere else to go. Without `credential` the question is anonymous.
    ///
    /// Once is enough for all who share the [`Servers`]; a second call does nothing.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn check_servers(&self, credential: Option<Arc<CurrentCredential>>) {
        let inner = &self.0;
        if inner.pools.len() < 2 || inner.is_checked.swap(true, Ordering::Relaxed) {
            return;
        }
        for (at, pool) in inner.pools.iter().enumerate() {
            let (weak, credential) = (Arc::downgrade(inner), credential.clone());
            let ask = move || {
                let (inner, credential) = (weak.upgrade()?, credential.clone());
                Some(async move {
                    let shown = check::shown(credential.as_deref()).await;
                    inner.ask(at, shown).await
                })
            };
            let (health, pool) = (Arc::clone(pool.health()), Arc::clone(pool));
            // Its connections may be dead and not know it; what is under way on them goes on.
            let on_silence = move || pool.forget_all();
            let stop = inner.stop.clone();
            inner
                .tasks
                .spawn(check::watch_over(health, Dice::new(), stop, ask, on_silence));
        }
    }

    /// Reads the files of the client certificate and of the authorities again; whether they changed. Then connections
    /// that are made from now on show the new certificate and believe the new authorities, and no further request goes
    /// over an older one; what is under way goes on. Reads files.
    ///
    /// # Errors
    ///
    /// [`ClientTlsError`] when a file cannot be read or used, for example between two writes of a rotation; what there
    /// was stays.
    pub fn reload(&self) -> Result<bool, ClientTlsError> {
        let Some(tls) = &self.0.tls else {
            return Ok(false);
        };
        let is_new = tls.reload()?;
        if is_new {
            for pool in &self.0.pools {
                pool.renew();
            }
        }
        Ok(is_new)
    }

    /// The connections now.
    #[must_use]
    pub fn metrics(&self) -> UpstreamMetrics {
        let mut sum = UpstreamMetrics::default();
        for pool in &self.0.pools {
            let (counters, connections) = (pool.counters(), pool.connections());
            sum.opened += counters.opened.load(Ordering::Relaxed);
            sum.reused += counters.reused.load(Ordering::Relaxed);
            sum.retried += counters.retried.load(Ordering::Relaxed);
            sum.full += counters.full.load(Ordering::Relaxed);
            sum.idle += connections.idle;
            sum.http2 += connections.links;
            sum.streams += connections.streams;
        }
        sum
    }

    /// Closes idle connections and waits for the tasks of all others to end.
    pub async fn close(&self) {
        self.0.stop.cancel();
        for pool in &self.0.pools {
            pool.close();
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    fn send(
        &self,
        request: Request<OutgoingBody>,
        question: Option<Bytes>,
        mut tried: Tried,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, SendError>> + Send {
        let (head, body) = request.into_parts();
        let mut sending = Sending::new(self, head, &body, question);
        let mut body = Outgoing::new(body);
        // Not an async fn, which would hold the request twice.
        async move {
            loop {
                let (at, pool, taken) = self.take(sending.choice(), &mut tried, Pool::take).await?;
                if tried.only.is_none() {
                    pool.counters().requests.fetch_add(1, Ordering::Relaxed);
                }
                match sending.over(pool, taken, body).await? {
                    Attempt::Answered(response) => {
                        if tried.only.is_none() {
                            pool.health().answered();
                        }
                        return Ok(response);
                    }
                    Attempt::Again(rewound) => body = rewound,
                }
                tried.last = Some(at);
            }
        }
    }

    /// Whether a server says that it is ready.
    async fn ask(&self, at: usize, authorization: Option<HeaderValue>) -> Seen {
        let mut request = Request::new(Outgoing::empty());
        *request.uri_mut() = Uri::from_static("/readyz");
        let agent = HeaderValue::from_static(concat!("kaudit/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        if let Some(authorization) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization);
        }
        let only = Tried {
            only: Some(at),
            ..Tried::default()
        };
        let Ok(response) = self.send(request, None, only).await else {
            return Seen::NotAsked;
        };
        let verdict = check::verdict(response.status());
        // Read to its end, so that the connection can be used again.
        let read = Limited::new(response.into_body(), MAX_REASONS).collect().await;
        if let Err(error) = read {
            debug!(%error, "what a server says of its readiness broke off");
        }
        verdict
    }

    /// What `take` gets from the first of the servers that gives it.
    async fn take<T>(
        &self,
        choice: Choice,
        tried: &mut Tried,
        take: impl AsyncFn(&Arc<Pool>) -> Result<T, SendError>,
    ) -> Result<(usize, &Arc<Pool>, T), SendError> {
        let mut last = SendError::Connect(ConnectError::Closing);
        while let Some((at, pool)) =
            choose(&self.pools, &self.dice, choice, tried).and_then(|at| Some((at, self.pools.get(at)?)))
        {
            match take(pool).await {
                Ok(taken) => return Ok((at, pool, taken)),
                Err(error) => {
                    tried.failed.push(at);
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn address(&self) -> Result<&Address, SendError> {
        self.address.as_ref().ok_or(SendError::Target)
    }
}
