//! Connections to one server, kept and used again.

mod body;
mod head;
mod http2;
mod outgoing;
mod pool;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::head::Address;
use self::http2::{Exchanged, Slot};
use self::outgoing::Outgoing;
use self::pool::{Pool, Taken};
use crate::connect::{ConnectError, Connector, Protocol};
use crate::credential::fixed_tls;
use crate::{ClientTlsError, Cluster, Server};

pub use self::body::{BodyError, UpstreamBody};

/// An error that is not named.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request that goes out.
pub type OutgoingBody = UnsyncBoxBody<Bytes, BoxError>;

/// Connections that turn out to be closed before anything was sent; more of them are no accident.
const MAX_UNSENT: u32 = 16;

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
}

impl UpstreamOptions {
    /// What the server is asked to speak.
    #[must_use]
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }
}

/// One server and the connections to it.
///
/// Over HTTP/1.1 every request has a connection of its own for its time; over HTTP/2 streams are counted
/// against the server's limit, and another connection is opened before it is reached. Either way a watch
/// never stands in another request's way.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
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
    /// Connections to `cluster`. Of its credentials only the client certificate is used, as it is now and
    /// only with `with_identity`: the others belong to requests.
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
            .then(|| fixed_tls(cluster, with_identity, options.protocol))
            .transpose()?;
        let server_name = cluster
            .tls_server_name
            .clone()
            .unwrap_or_else(|| cluster.server.host.clone());
        let address = Address::of(&cluster.server);
        let tasks = TaskTracker::new();
        let connector = Connector {
            server: cluster.server.clone(),
            proxy: cluster.proxy.clone(),
            tls,
            server_name,
            protocol: options.protocol,
        };
        Ok(Self(Arc::new(Inner {
            pool: Arc::new(Pool::new(connector, tasks.clone())),
            address,
            tasks,
        })))
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        self.0.pool.server()
    }

    /// Sends a request and returns the response's head; the body comes as it is read.
    ///
    /// The target's path and query are sent as they are, behind the server's base path. A request that
    /// was not sent because a connection had been closed is sent on another one. One that was sent is sent
    /// once more only if the server says that it did not act on it (`REFUSED_STREAM`, `GOAWAY`), or if it
    /// is a GET, HEAD or OPTIONS without a body and the connection broke under it.
    ///
    /// # Errors
    ///
    /// [`SendError`] when there is no connection or it broke before the head.
    pub async fn send(&self, request: Request<OutgoingBody>) -> Result<Response<UpstreamBody>, SendError> {
        let (head, body) = request.into_parts();
        let mut sending = Sending {
            upstream: &self.0,
            address: self.0.address()?,
            is_repeatable: is_safe(&head) && body.is_end_stream(),
            head,
            unsent: 0,
            was_retried: false,
        };
        let mut body = Outgoing::new(body);
        loop {
            let attempt = match self.0.pool.take().await? {
                Taken::Http1 { sender, is_reused } => sending.over_http1(sender, is_reused, body).await?,
                Taken::Http2(slot) => sending.over_http2(slot, body).await?,
            };
            match attempt {
                Attempt::Answered(response) => return Ok(response),
                Attempt::Again(rewound) => body = rewound,
            }
        }
    }

    /// Sends a request that may become a tunnel, on an HTTP/1.1 connection of its own.
    ///
    /// # Errors
    ///
    /// As [`Upstream::send`].
    pub async fn send_upgrade(
        &self,
        request: Request<OutgoingBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let (head, body) = request.into_parts();
        let mut body = Outgoing::new(body);
        body.forget();
        let request = self.0.address()?.http1(&head, body)?;
        let mut sender = self.0.pool.dedicated().await?;
        sender.send_request(request).await.map_err(SendError::Broken)
    }

    /// The connections now.
    #[must_use]
    pub fn metrics(&self) -> UpstreamMetrics {
        let counters = self.0.pool.counters();
        let load = self.0.pool.load();
        UpstreamMetrics {
            opened: counters.opened.load(Ordering::Relaxed),
            reused: counters.reused.load(Ordering::Relaxed),
            retried: counters.retried.load(Ordering::Relaxed),
            full: counters.full.load(Ordering::Relaxed),
            idle: load.idle,
            http2: load.links,
            streams: load.streams,
        }
    }

    /// Closes idle connections and waits for the tasks of all others to end.
    pub async fn close(&self) {
        self.0.pool.close();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    fn address(&self) -> Result<&Address, SendError> {
        self.address.as_ref().ok_or(SendError::Target)
    }
}

/// Whether a request changes nothing, whatever its path means.
///
/// Source: RFC 9110 section 9.2.1.
fn is_safe(head: &Parts) -> bool {
    matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// One request on its way through as many connections as it takes.
struct Sending<'a> {
    upstream: &'a Inner,
    address: &'a Address,
    head: Parts,
    /// Whether it may be sent again although the server may have acted on it.
    is_repeatable: bool,
    unsent: u32,
    was_retried: bool,
}

enum Attempt {
    Answered(Response<UpstreamBody>),
    Again(Outgoing),
}

impl Sending<'_> {
    async fn over_http1(
        &mut self,
        mut sender: hyper::client::conn::http1::SendRequest<Outgoing>,
        is_reused: bool,
        mut body: Outgoing,
    ) -> Result<Attempt, SendError> {
        let pool = &self.upstream.pool;
        if let Err(error) = sender.ready().await {
            return self.unsent(body).ok_or(SendError::Broken(error));
        }
        body.forget();
        let request = self.address.http1(&self.head, body)?;
        match sender.try_send_request(request).await {
            Ok(response) => {
                if is_reused {
                    pool.counters().reused.fetch_add(1, Ordering::Relaxed);
                }
                let pool = Arc::clone(pool);
                Ok(Attempt::Answered(
                    response.map(|body| UpstreamBody::http1(body, pool, sender)),
                ))
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) => self
                    .unsent(unsent.into_body())
                    .ok_or_else(|| SendError::Broken(error.into_error())),
                // A new connection that breaks is no race with the server's closing it.
                None if is_reused && self.is_repeatable => self
                    .again(Some(Outgoing::nothing()))
                    .ok_or_else(|| SendError::Broken(error.into_error())),
                None => Err(SendError::Broken(error.into_error())),
            },
        }
    }

    async fn over_http2(&mut self, slot: Slot, body: Outgoing) -> Result<Attempt, SendError> {
        let upstream = self.upstream;
        let was_used = slot.was_used();
        let link = Arc::clone(slot.link());
        let head = self.address.http2(&self.head)?;
        match slot.exchange(head, body).await {
            Exchanged::Answered {
                response,
                length,
                slot,
                rest,
            } => {
                if was_used {
                    upstream.pool.counters().reused.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(rest) = rest {
                    // The stream is taken until both directions are done.
                    let slot = Arc::clone(&slot);
                    upstream.tasks.spawn(async move {
                        rest.run().await;
                        drop(slot);
                    });
                }
                Ok(Attempt::Answered(
                    response.map(|stream| UpstreamBody::http2(stream, length, slot)),
                ))
            }
            Exchanged::Refused { error, is_sent, body } => {
                debug!(%error, is_sent, "a request was refused unprocessed");
                if !is_sent || error.is_go_away() {
                    upstream.pool.forget(&link);
                }
                let again = match body {
                    Some(body) if !is_sent => self.unsent(body),
                    body => self.again(body),
                };
                again.ok_or(SendError::Reset(error))
            }
            Exchanged::Broken {
                error,
                is_connection_lost,
                body,
            } => {
                if is_connection_lost {
                    upstream.pool.forget(&link);
                }
                if is_connection_lost && self.is_repeatable {
                    return self.again(body).ok_or(SendError::Reset(error));
                }
                Err(SendError::Reset(error))
            }
        }
    }

    /// Another connection for what was not sent.
    fn unsent(&mut self, body: Outgoing) -> Option<Attempt> {
        self.unsent += 1;
        (self.unsent <= MAX_UNSENT).then_some(Attempt::Again(body))
    }

    /// Once more, if it was not yet and the body is still whole.
    fn again(&mut self, body: Option<Outgoing>) -> Option<Attempt> {
        let body = body.filter(|_| !self.was_retried)?;
        self.was_retried = true;
        self.upstream
            .pool
            .counters()
            .retried
            .fetch_add(1, Ordering::Relaxed);
        Some(Attempt::Again(body))
    }
}
