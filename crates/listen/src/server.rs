//! Accepting, serving, draining.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::{debug, warn};

use crate::activity::{Activity, Counted};
use crate::{ConnectionInfo, Limits, ServerTls};

/// Connections that are taken out of the kernel's queue after a stop, at most: as many as it holds.
const QUEUE: usize = 1024;

/// Where and how to listen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenConfig {
    /// The address; port 0 takes a free one. Of no meaning to [`Listener::adopt`].
    pub addr: SocketAddr,
    /// TLS, or plain HTTP without it.
    pub tls: Option<ServerTls>,
    /// Bounds.
    pub limits: Limits,
}

impl ListenConfig {
    /// Plain HTTP on `addr` with default bounds.
    #[must_use]
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            tls: None,
            limits: Limits::default(),
        }
    }

    /// HTTPS on `addr` with default bounds.
    #[must_use]
    pub fn https(addr: SocketAddr, tls: ServerTls) -> Self {
        Self {
            addr,
            tls: Some(tls),
            limits: Limits::default(),
        }
    }
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A socket that was handed over cannot be used.
    #[error("cannot use the listening socket that was handed over")]
    Adopt(#[source] io::Error),
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    owner: Owner,
    local_addr: SocketAddr,
    config: ListenConfig,
}

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Ours: what waits in its queue when we close it is lost.
    Us,
    /// Somebody's who keeps it open: what waits in its queue is served by who comes after us.
    Another,
}

impl Listener {
    /// Binds the socket; clients can connect from now on and are served by [`Listener::serve`].
    ///
    /// # Errors
    ///
    /// [`ListenError::Bind`] when the address is taken or not ours.
    pub async fn bind(config: ListenConfig) -> Result<Self, ListenError> {
        let bind = |source| ListenError::Bind {
            addr: config.addr,
            source,
        };
        let socket = TcpListener::bind(config.addr).await.map_err(bind)?;
        let local_addr = socket.local_addr().map_err(bind)?;
        Ok(Self {
            socket,
            owner: Owner::Us,
            local_addr,
            config,
        })
    }

    /// Takes a socket that listens already, and that whoever handed it over keeps open: connections that come
    /// while nobody serves wait in its queue.
    ///
    /// # Errors
    ///
    /// [`ListenError::Adopt`] when the socket cannot be used, for example because it has no address.
    pub fn adopt(socket: std::net::TcpListener, config: ListenConfig) -> Result<Self, ListenError> {
        socket.set_nonblocking(true).map_err(ListenError::Adopt)?;
        let socket = TcpListener::from_std(socket).map_err(ListenError::Adopt)?;
        let local_addr = socket.local_addr().map_err(ListenError::Adopt)?;
        Ok(Self {
            socket,
            owner: Owner::Another,
            local_addr,
            config,
        })
    }

    /// The address that was bound.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `stop` is cancelled; then finishes what is in flight, for at most `grace`.
    ///
    /// `make_service` is called once per connection. A request's response is sent as its body
    /// produces frames; an upgrade works as hyper's does.
    ///
    /// After the stop, connections without a request are closed as [`Limits::linger`] and [`Limits::goaway`] say;
    /// those that are still busy after `grace` are cut.
    pub async fn serve<M, S, B>(self, make_service: M, stop: CancellationToken, grace: Duration)
    where
        M: Fn(&ConnectionInfo) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self {
            socket,
            owner,
            local_addr,
            config,
        } = self;
        let make_service = Arc::new(make_service);
        let room = Arc::new(Semaphore::new(config.limits.connections));
        let connections = TaskTracker::new();
        let abort = CancellationToken::new();
        let begin = |Accepted {
                         stream,
                         remote_addr,
                         permit,
                     }| {
            let connection = Connection {
                remote_addr,
                local_addr,
                limits: config.limits,
                acceptor: config.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config())),
                stop: stop.clone(),
                streams: Streams(connections.clone()),
            };
            let make_service = Arc::clone(&make_service);
            let abort = abort.clone();
            connections.spawn(async move {
                tokio::select! {
                    () = abort.cancelled() => {}
                    () = connection.run(stream, make_service.as_ref()) => {}
                }
                drop(permit);
            });
        };
        loop {
            // Cancel-safe: a permit or an accepted socket that is dropped here belongs to nobody yet.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&socket, &room) => accepted,
            };
            match accepted {
                Ok(accepted) => begin(accepted),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        match owner {
            // The kernel would reset what waits in our queue.
            Owner::Us => waiting(socket, &room).into_iter().for_each(begin),
            Owner::Another => drop(socket),
        }
        connections.close();
        if tokio::time::timeout(grace, connections.wait()).await.is_err() {
            warn!(%local_addr, open = connections.len(), "closing connections that are busy after the grace period");
            abort.cancel();
            connections.wait().await;
        }
    }
}

/// A connection that nobody serves yet.
struct Accepted {
    stream: TcpStream,
    remote_addr: SocketAddr,
    permit: OwnedSemaphorePermit,
}

async fn accept(socket: &TcpListener, room: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, remote_addr) = socket.accept().await?;
    if let Err(error) = stream.set_nodelay(true) {
        // It is gone already; whoever serves it finds that out.
        debug!(%error, remote = %remote_addr, "cannot set up a connection");
    }
    Ok(Accepted {
        stream,
        remote_addr,
        permit,
    })
}

/// What is in the queue of a socket that nobody accepts from any more.
fn waiting(socket: TcpListener, room: &Arc<Semaphore>) -> Vec<Accepted> {
    let Ok(socket) = socket.into_std() else {
        return Vec::new();
    };
    let next = || {
        let permit = Arc::clone(room).try_acquire_owned().ok()?;
        // It does not block: at the end of the queue it is an error.
        let (stream, remote_addr) = socket.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        let stream = TcpStream::from_std(stream).ok()?;
        Some(Accepted {
            stream,
            remote_addr,
            permit,
        })
    };
    std::iter::from_fn(next).take(QUEUE).collect()
}

/// Runs the streams of HTTP/2 connections, for which [`Listener::serve`] waits as it does for connections.
#[derive(Clone, Debug)]
struct Streams(TaskTracker);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// One connection on its way from the accept loop to its end.
struct Connection {
    remote_addr: SocketAddr,
    local_addr: SocketAddr,
    limits: Limits,
    acceptor: Option<TlsAcceptor>,
    stop: CancellationToken,
    streams: Streams,
}

impl Connection {
    async fn run<M, S, B>(self, stream: TcpStream, make_service: &M)
    where
        M: Fn(&ConnectionInfo) -> S + Sync,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut info = ConnectionInfo {
            remote_addr: self.remote_addr,
            local_addr: self.local_addr,
            alpn: None,
            peer_certificates: Vec::new(),
        };
        match &self.acceptor {
            None => self.http(stream, &info, make_service(&info)).await,
            Some(acceptor) => {
                match tokio::time::timeout(self.limits.handshake, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let (_, tls) = stream.get_ref();
                        info.alpn = tls.alpn_protocol().map(<[u8]>::to_vec);
                        info.peer_certificates = tls.peer_certificates().unwrap_or_default().to_vec();
                        self.http(stream, &info, make_service(&info)).await;
                    }
                    Ok(Err(error)) => debug!(%error, remote = %self.remote_addr, "TLS handshake failed"),
                    Err(_) => debug!(remote = %self.remote_addr, "TLS handshake took too long"),
                }
            }
        }
    }

    async fn http<I, S, B>(&self, stream: I, info: &ConnectionInfo, service: S)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let activity = Arc::new(Activity::new(info.alpn.as_deref()));
        if self.stop.is_cancelled() {
            activity.close();
        }
        let service = Counted {
            inner: service,
            activity: Arc::clone(&activity),
        };
        let mut builder = auto::Builder::new(self.streams.clone());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.request_head)
            .max_buf_size(self.limits.head_bytes)
            .max_headers(self.limits.headers);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .initial_stream_window_size(self.limits.ahead_bytes)
            .initial_connection_window_size(self.limits.ahead_bytes)
            .max_header_list_size(u32::try_from(self.limits.head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(30));
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        // The connection first, wherever both are ready: a request that has come is no idleness.
        let served = tokio::select! {
            biased;
            served = connection.as_mut() => Some(served),
            () = self.stopped(&activity) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    served = connection.as_mut() => Some(served),
                    () = unacknowledged(&activity, self.limits.goaway) => None,
                }
            }
        };
        match served {
            Some(Ok(())) => {}
            Some(Err(error)) => debug!(%error, remote = %self.remote_addr, "connection ended"),
            None => debug!(remote = %self.remote_addr, "the end was not acknowledged"),
        }
    }

    /// Waits for the time to end this connection: at once over HTTP/2, which tells its peer what was taken, and
    /// otherwise when whoever was about to send something has sent it.
    async fn stopped(&self, activity: &Activity) {
        self.stop.cancelled().await;
        activity.close();
        activity.idle_or_http2(self.limits.linger).await;
    }
}

/// Waits for an HTTP/2 peer that should have acknowledged by now that the connection ends. Of HTTP/1 nothing is
/// awaited but the rest of an answer.
async fn unacknowledged(activity: &Activity, time: Duration) {
    if activity.is_http2() {
        activity.idle(time).await;
    } else {
        std::future::pending().await
    }
}
