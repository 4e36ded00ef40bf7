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
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::{debug, warn};

use crate::{ConnectionInfo, ServerTls};

/// What one listener takes from the network before it refuses.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time from a connection's (or the previous response's) end to a complete request head, HTTP/1.
    pub request_head: Duration,
    /// Bytes of a request head. Over HTTP/1 also what a connection reads ahead of whoever takes the body.
    pub head_bytes: usize,
    /// Header lines of a request, HTTP/1.
    pub headers: usize,
    /// Streams at once in one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of bodies that a connection reads ahead of whoever takes them, HTTP/2, in all its streams; at
    /// least 65,535.
    pub ahead_bytes: u32,
}

impl Default for Limits {
    /// Bounds of an ordinary API server.
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(60),
            head_bytes: 1 << 20,
            headers: 256,
            streams: 250,
            ahead_bytes: 1 << 20,
        }
    }
}

impl Limits {
    /// Bounds of a listener to which thousands send large bodies at once: what a connection holds is little
    /// beside the memory that whoever reads the bodies accounts for.
    #[must_use]
    pub fn of_receiver() -> Self {
        Self {
            head_bytes: 64 << 10,
            ahead_bytes: 128 << 10,
            ..Self::default()
        }
    }
}

/// Where and how to listen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenConfig {
    /// The address; port 0 takes a free one.
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
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local_addr: SocketAddr,
    config: ListenConfig,
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
    /// produces frames; an upgrade works as hyper's does. Connections that are still busy after
    /// `grace` are closed.
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
            local_addr,
            config,
        } = self;
        let make_service = Arc::new(make_service);
        let room = Arc::new(Semaphore::new(config.limits.connections));
        let connections = TaskTracker::new();
        let abort = CancellationToken::new();
        loop {
            // Cancel-safe: a permit or an accepted socket that is dropped here belongs to nobody yet.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&socket, &room) => accepted,
            };
            let (stream, remote_addr, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let connection = Connection {
                remote_addr,
                local_addr,
                limits: config.limits,
                acceptor: config.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config())),
                stop: stop.clone(),
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
        }
        drop(socket);
        connections.close();
        if tokio::time::timeout(grace, connections.wait()).await.is_err() {
            warn!(%local_addr, open = connections.len(), "closing connections that are busy after the grace period");
            abort.cancel();
            connections.wait().await;
        }
    }
}

async fn accept(
    socket: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, remote_addr) = socket.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, remote_addr, permit))
}

/// One connection on its way from the accept loop to its end.
struct Connection {
    remote_addr: SocketAddr,
    local_addr: SocketAddr,
    limits: Limits,
    acceptor: Option<TlsAcceptor>,
    stop: CancellationToken,
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
            None => {
                let service = make_service(&info);
                self.http(stream, service).await;
            }
            Some(acceptor) => {
                match tokio::time::timeout(self.limits.handshake, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let (_, tls) = stream.get_ref();
                        info.alpn = tls.alpn_protocol().map(<[u8]>::to_vec);
                        info.peer_certificates = tls.peer_certificates().unwrap_or_default().to_vec();
                        let service = make_service(&info);
                        self.http(stream, service).await;
                    }
                    Ok(Err(error)) => debug!(%error, remote = %self.remote_addr, "TLS handshake failed"),
                    Err(_) => debug!(remote = %self.remote_addr, "TLS handshake took too long"),
                }
            }
        }
    }

    async fn http<I, S, B>(&self, stream: I, service: S)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
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
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            debug!(%error, remote = %self.remote_addr, "connection ended");
        }
    }
}
