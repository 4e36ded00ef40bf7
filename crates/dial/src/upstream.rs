//! Connections to one server, kept and used again.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio_util::task::TaskTracker;

use crate::connect::{ConnectError, Connector};
use crate::credential::fixed_tls;
use crate::{ClientTlsError, Cluster, Server};

/// An error that is not named.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request that goes out.
pub type OutgoingBody = UnsyncBoxBody<Bytes, BoxError>;

/// Idle connections that are kept.
const MAX_IDLE: usize = 256;

/// An idle connection is not trusted for longer: the server may be closing it.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

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
    /// The path cannot be put behind the server's own.
    #[error("the request target cannot be sent to this server")]
    Target,
}

/// One server and the connections to it. Every request has a connection of its own for its time, so that
/// watches never stand in another request's way.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Connector,
    idle: Mutex<Vec<Idle>>,
    tasks: TaskTracker,
    opened: AtomicU64,
    reused: AtomicU64,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<OutgoingBody>,
    since: Instant,
}

/// Connections by how they were had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpstreamMetrics {
    /// Connections that were opened.
    pub opened: u64,
    /// Requests that found an idle one.
    pub reused: u64,
    /// Connections that are idle now.
    pub idle: u64,
}

impl Upstream {
    /// Connections to `cluster`. Of its credentials only the client certificate is used, as it is now and
    /// only with `with_identity`: the others belong to requests.
    ///
    /// # Errors
    ///
    /// [`ClientTlsError`] when certificates cannot be used.
    pub fn new(cluster: &Cluster, with_identity: bool) -> Result<Self, ClientTlsError> {
        let tls = cluster
            .server
            .is_https
            .then(|| fixed_tls(cluster, with_identity))
            .transpose()?;
        let server_name = cluster
            .tls_server_name
            .clone()
            .unwrap_or_else(|| cluster.server.host.clone());
        let connector = Connector {
            server: cluster.server.clone(),
            proxy: cluster.proxy.clone(),
            tls,
            server_name,
        };
        Ok(Self(Arc::new(Inner {
            connector,
            idle: Mutex::new(Vec::new()),
            tasks: TaskTracker::new(),
            opened: AtomicU64::new(0),
            reused: AtomicU64::new(0),
        })))
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.0.connector.server
    }

    /// Sends a request and returns the response's head; the body comes as it is read.
    ///
    /// The target's path and query are sent as they are, behind the server's base path. A request that
    /// was not sent because an idle connection had been closed is sent again on a new one.
    ///
    /// # Errors
    ///
    /// [`SendError`] when there is no connection or it broke before the head.
    pub async fn send(
        &self,
        mut request: Request<OutgoingBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.address(&mut request)?;
        while let Some(mut sender) = self.take_idle() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.0.reused.fetch_add(1, Ordering::Relaxed);
                    return Ok(self.pooled(response, sender));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Broken(error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(SendError::Broken)?;
        Ok(self.pooled(response, sender))
    }

    /// Sends a request that may become a tunnel, on a connection of its own.
    ///
    /// # Errors
    ///
    /// As [`Upstream::send`].
    pub async fn send_upgrade(
        &self,
        mut request: Request<OutgoingBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.address(&mut request)?;
        let mut sender = self.connect().await?;
        sender.send_request(request).await.map_err(SendError::Broken)
    }

    /// The connections now.
    #[must_use]
    pub fn metrics(&self) -> UpstreamMetrics {
        UpstreamMetrics {
            opened: self.0.opened.load(Ordering::Relaxed),
            reused: self.0.reused.load(Ordering::Relaxed),
            idle: self.idle().len() as u64,
        }
    }

    /// Closes idle connections and waits for the tasks of all others to end.
    pub async fn close(&self) {
        self.idle().clear();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self) -> Option<SendRequest<OutgoingBody>> {
        let mut idle = self.idle();
        while let Some(Idle { sender, since }) = idle.pop() {
            if since.elapsed() < MAX_IDLE_TIME && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self) -> Result<SendRequest<OutgoingBody>, SendError> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        Ok(self.0.connector.connect(&self.0.tasks).await?)
    }

    /// Origin form behind the base path, and the server's Host.
    fn address(&self, request: &mut Request<OutgoingBody>) -> Result<(), SendError> {
        let server = &self.0.connector.server;
        let target = request
            .uri()
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        let target = if server.base_path.is_empty() {
            target
        } else {
            PathAndQuery::try_from(format!("{}{target}", server.base_path)).map_err(|_| SendError::Target)?
        };
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(target);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| SendError::Target)?;
        *request.version_mut() = http::Version::HTTP_11;
        let host = HeaderValue::try_from(server.authority()).map_err(|_| SendError::Target)?;
        request.headers_mut().insert(header::HOST, host);
        Ok(())
    }

    fn pooled(
        &self,
        response: Response<Incoming>,
        sender: SendRequest<OutgoingBody>,
    ) -> Response<UpstreamBody> {
        response.map(|body| {
            let mut body = UpstreamBody {
                body,
                lease: Some((self.clone(), sender)),
            };
            if body.body.is_end_stream() {
                body.give_back();
            }
            body
        })
    }
}

/// A response's body; when it was read to its end, its connection is kept for another request.
#[derive(Debug)]
pub struct UpstreamBody {
    body: Incoming,
    lease: Option<(Upstream, SendRequest<OutgoingBody>)>,
}

impl UpstreamBody {
    fn give_back(&mut self) {
        let Some((upstream, sender)) = self.lease.take() else {
            return;
        };
        if !sender.is_closed() {
            let mut idle = upstream.idle();
            if idle.len() < MAX_IDLE {
                idle.push(Idle {
                    sender,
                    since: Instant::now(),
                });
            }
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.give_back(),
            Some(Ok(_)) if self.body.is_end_stream() => self.give_back(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
