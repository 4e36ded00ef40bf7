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
use hyper::service::Service;
use ipnet::IpNet;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::addresses::Addresses;
use crate::connection::Connection;
use crate::{ConnectionInfo, Limits, ListenerMetrics, ProxyProtocol, ServerTls, Turn, Workers};

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
    /// Proxies that say whose connections they pass on.
    pub proxies: ProxyProtocol,
    /// Networks whose addresses stand for many clients: no bound by address for them.
    pub unbounded: Vec<IpNet>,
    /// Bounds.
    pub limits: Limits,
    /// Threads that serve the connections; without them the runtime that [`Listener::serve`] runs on does.
    pub workers: Option<Workers>,
    /// Within what the streams of an HTTP/2 connection are taken further; what they answer is sent behind it.
    pub turn: Option<Turn>,
}

impl ListenConfig {
    /// Plain HTTP on `addr` with default bounds.
    #[must_use]
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            tls: None,
            proxies: ProxyProtocol::default(),
            unbounded: Vec::new(),
            limits: Limits::default(),
            workers: None,
            turn: None,
        }
    }

    /// HTTPS on `addr` with default bounds.
    #[must_use]
    pub fn https(addr: SocketAddr, tls: ServerTls) -> Self {
        Self {
            addr,
            tls: Some(tls),
            proxies: ProxyProtocol::default(),
            unbounded: Vec::new(),
            limits: Limits::default(),
            workers: None,
            turn: None,
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
    metrics: ListenerMetrics,
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
            metrics: ListenerMetrics::default(),
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
            metrics: ListenerMetrics::default(),
        })
    }

    /// The address that was bound.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> ListenerMetrics {
        self.metrics.clone()
    }

    /// Serves until `stop` is cancelled; then finishes what is in flight, for at most `grace`.
    ///
    /// `make_service` is called once per connection; what is a service of tower's becomes one by
    /// [`TowerToHyperService`](crate::TowerToHyperService). A request's response is sent as its body
    /// produces frames; an upgrade works as hyper's does.
    ///
    /// After the stop, connections without a request are closed as [`Limits::linger`] and [`Limits::goaway`] say;
    /// those that are still busy after `grace` are cut.
    pub async fn serve<M, S, B>(self, make_service: M, stop: CancellationToken, grace: Duration)
    where
        M: Fn(&ConnectionInfo) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
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
            metrics,
        } = self;
        let proxies = Arc::new(config.proxies);
        let addresses = Arc::new(Addresses::new(
            config.limits.connections_per_address,
            config.unbounded,
        ));
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
                proxies: Arc::clone(&proxies),
                addresses: Arc::clone(&addresses),
                metrics: metrics.clone(),
                turn: config.turn,
            };
            let open = metrics.accept();
            let make_service = Arc::clone(&make_service);
            let abort = abort.clone();
            let serve = move |stream| async move {
                tokio::select! {
                    () = abort.cancelled() => {}
                    () = connection.run(stream, make_service.as_ref()) => {}
                }
                drop((permit, open));
            };
            match &config.workers {
                None => drop(connections.spawn(serve(stream))),
                Some(workers) => {
                    if let Err(error) = workers.spawn(&connections, stream, serve) {
                        warn!(%error, %remote_addr, "cannot serve a connection");
                    }
                }
            }
        };
        loop {
            // Cancel-safe: a permit or an accepted socket that is dropped here belongs to nobody yet.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&socket, &room, config.limits.unacknowledged) => accepted,
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
            Owner::Us => waiting(socket, &room, config.limits.unacknowledged)
                .into_iter()
                .for_each(begin),
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

async fn accept(
    socket: &TcpListener,
    room: &Arc<Semaphore>,
    unacknowledged: Duration,
) -> io::Result<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, remote_addr) = socket.accept().await?;
    if let Err(error) = set_up(&stream, unacknowledged) {
        // It is gone already; whoever serves it finds that out.
        debug!(%error, remote = %remote_addr, "cannot set up a connection");
    }
    Ok(Accepted {
        stream,
        remote_addr,
        permit,
    })
}

/// No delay, and an end to peers that are not there any more: kube-apiserver's listener looks after them as often.
fn set_up(stream: &TcpStream, unacknowledged: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keep_alive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(15));
    socket.set_tcp_keepalive(&keep_alive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    Ok(())
}

/// What is in the queue of a socket that nobody accepts from any more.
fn waiting(socket: TcpListener, room: &Arc<Semaphore>, unacknowledged: Duration) -> Vec<Accepted> {
    let Ok(socket) = socket.into_std() else {
        return Vec::new();
    };
    let next = || {
        let permit = Arc::clone(room).try_acquire_owned().ok()?;
        // It does not block: at the end of the queue it is an error.
        let (stream, remote_addr) = socket.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        let stream = TcpStream::from_std(stream).ok()?;
        set_up(&stream, unacknowledged).ok()?;
        Some(Accepted {
            stream,
            remote_addr,
            permit,
        })
    };
    std::iter::from_fn(next).take(QUEUE).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_taken_bounds_how_long_its_peer_may_acknowledge_nothing() {
        let unacknowledged = Duration::from_secs(77);
        let room = Arc::new(Semaphore::new(2));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let taken = accept(&socket, &room, unacknowledged).await.unwrap();
        // Those too that waited when the listener was closed.
        let _late = TcpStream::connect(address).await.unwrap();
        let late = waiting(socket, &room, unacknowledged);
        assert_eq!(late.len(), 1);
        for taken in std::iter::once(&taken).chain(&late) {
            let socket = SockRef::from(&taken.stream);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(unacknowledged));
            assert!(socket.keepalive().unwrap());
        }
    }
}
