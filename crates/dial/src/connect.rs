//! One connection: TCP, a proxy, TLS.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::credential::ShownTls;
use crate::{ClientTls, Proxy, Server, Trust};

/// Time for TCP and TLS together.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// The same where another server can be asked: long enough for the second repetition of a lost SYN.
pub(crate) const SHORT_LIMIT: Duration = Duration::from_secs(4);

/// Time for one of several addresses, when another is left.
const ADDRESS_LIMIT: Duration = Duration::from_secs(2);

/// A peer that vanished is noticed within 30 s + 15 s on connections that have nothing to say, as watches
/// and sessions over HTTP/1.1 are for hours.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// TCP.
    #[error("cannot connect to {server}")]
    Tcp {
        /// The server.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// TLS: most often a certificate that is not trusted.
    #[error("the TLS handshake with {server} failed")]
    Tls {
        /// The server.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The proxy does not open a tunnel.
    #[error("the proxy {proxy} opens no tunnel to {server}")]
    Proxy {
        /// The proxy.
        proxy: String,
        /// The server behind it.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The host is no name for a certificate.
    #[error("`{0}` cannot be the name in a certificate")]
    Name(String),
    /// Neither came in time.
    #[error("connecting to {server} took longer than {} s", limit.as_secs())]
    Timeout {
        /// The server.
        server: String,
        /// The time that there was.
        limit: Duration,
    },
    /// HTTP did not begin.
    #[error("HTTP with {server} did not begin")]
    Http {
        /// The server.
        server: String,
        /// Why.
        source: hyper::Error,
    },
    /// HTTP/2 did not begin.
    #[error("HTTP/2 with {server} did not begin")]
    Http2 {
        /// The server.
        server: String,
        /// Why.
        source: h2::Error,
    },
    /// The server does not take the only protocol that it may be asked for.
    #[error("{server} does not speak HTTP/2: allow another protocol, or ask another server")]
    NoHttp2 {
        /// The server.
        server: String,
    },
    /// Another request tried, and this is what it found.
    #[error(transparent)]
    Shared(Arc<Self>),
    /// The connections are being closed.
    #[error("no connection is opened any more")]
    Closing,
}

/// Which protocols a server is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "one, the other, or either")]
pub enum Protocol {
    /// HTTP/2 where TLS negotiates it, HTTP/1.1 otherwise.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS it is begun as if the server had agreed.
    Http2,
}

/// Where connections go.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) server: Server,
    pub(crate) proxy: Option<Proxy>,
    /// `None` for plain HTTP.
    pub(crate) tls: Option<Arc<ShownTls>>,
    pub(crate) server_name: String,
    pub(crate) protocol: Protocol,
    /// Time for one connection.
    pub(crate) limit: Duration,
    /// Connections so far: each begins with another of the server's addresses.
    pub(crate) turn: AtomicUsize,
}

/// TLS by what is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// For ordinary requests.
    pub(crate) pooled: ClientTls,
    /// For those that may become tunnels: HTTP/1.1.
    pub(crate) dedicated: ClientTls,
}

/// A stream of bytes to a server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// What takes over a stream when the protocol is known.
pub(crate) trait Begin {
    /// What comes of it.
    type Output: Send;

    /// HTTP/1.1.
    fn http1<S: Stream>(self, stream: S) -> impl Future<Output = Result<Self::Output, ConnectError>> + Send;

    /// HTTP/2.
    fn http2<S: Stream>(self, stream: S) -> impl Future<Output = Result<Self::Output, ConnectError>> + Send;
}

impl Connector {
    /// A new connection for ordinary requests.
    pub(crate) async fn connect<B: Begin + Send + 'static>(
        &self,
        begin: B,
    ) -> Result<B::Output, ConnectError> {
        let tls = self.tls.as_ref().map(|tls| tls.current().pooled);
        self.within_time(self.protocol, tls.as_ref(), begin).await
    }

    /// A new connection that speaks HTTP/1.1.
    pub(crate) async fn connect_dedicated<B: Begin + Send + 'static>(
        &self,
        begin: B,
    ) -> Result<B::Output, ConnectError> {
        let tls = self.tls.as_ref().map(|tls| tls.current().dedicated);
        self.within_time(Protocol::Http1, tls.as_ref(), begin).await
    }

    async fn within_time<B: Begin + Send + 'static>(
        &self,
        protocol: Protocol,
        tls: Option<&ClientTls>,
        begin: B,
    ) -> Result<B::Output, ConnectError> {
        let server = self.server.authority();
        // Boxed: what TLS takes is not carried through every request that finds a connection.
        let opening: Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(self.open(protocol, tls, begin));
        within_time(&server, self.limit, opening).await
    }

    async fn open<B: Begin + Send>(
        &self,
        protocol: Protocol,
        tls: Option<&ClientTls>,
        begin: B,
    ) -> Result<B::Output, ConnectError> {
        let server = &self.server;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // Streams keep their types where nothing is in between: this is the gateway's path.
        match (&self.proxy, tls) {
            (None, None) => plain(tcp(server, turn).await?, protocol, begin).await,
            (None, Some(tls)) => {
                let stream = tls_over(tcp(server, turn).await?, server, tls, &self.server_name).await?;
                self.negotiated(stream, protocol, begin).await
            }
            (Some(proxy), None) => plain(tunnel(proxy, server).await?, protocol, begin).await,
            (Some(proxy), Some(tls)) => {
                let tunnel = tunnel(proxy, server).await?;
                let stream = tls_over(tunnel, server, tls, &self.server_name).await?;
                self.negotiated(stream, protocol, begin).await
            }
        }
    }

    async fn negotiated<S: Stream, B: Begin + Send>(
        &self,
        stream: TlsStream<S>,
        protocol: Protocol,
        begin: B,
    ) -> Result<B::Output, ConnectError> {
        let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        match (protocol, agreed) {
            (Protocol::Auto | Protocol::Http2, true) => begin.http2(stream).await,
            (Protocol::Auto | Protocol::Http1, _) => begin.http1(stream).await,
            (Protocol::Http2, false) => Err(ConnectError::NoHttp2 {
                server: self.server.authority(),
            }),
        }
    }
}

async fn plain<S: Stream, B: Begin + Send>(
    stream: S,
    protocol: Protocol,
    begin: B,
) -> Result<B::Output, ConnectError> {
    match protocol {
        Protocol::Http2 => begin.http2(stream).await,
        Protocol::Auto | Protocol::Http1 => begin.http1(stream).await,
    }
}

/// Gives up on a connection that takes too long.
pub(crate) async fn within_time<T>(
    server: &str,
    limit: Duration,
    connecting: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
        Err(ConnectError::Timeout {
            server: server.to_owned(),
            limit,
        })
    })
}

/// A connection to the first of the server's addresses that takes one, beginning with the one whose turn it is.
pub(crate) async fn tcp(server: &Server, turn: usize) -> Result<TcpStream, ConnectError> {
    let error = |source| ConnectError::Tcp {
        server: server.authority(),
        source,
    };
    let addresses = lookup_host((server.host.as_str(), server.port))
        .await
        .map_err(error)?
        .collect();
    let stream = first_of(addresses, turn, TcpStream::connect)
        .await
        .map_err(error)?;
    stream.set_nodelay(true).map_err(error)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(&stream)
        .set_tcp_keepalive(&keepalive)
        .map_err(error)?;
    Ok(stream)
}

/// One address after the other; only the last may take all the time that is left.
async fn first_of<T, F: Future<Output = io::Result<T>>>(
    mut addresses: Vec<SocketAddr>,
    turn: usize,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let count = addresses.len().max(1);
    addresses.rotate_left(turn % count);
    let mut left = addresses.len();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        left -= 1;
        let connecting = connect(address);
        let connected = if left == 0 {
            connecting.await
        } else {
            let silent = || {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{address} is silent"),
                ))
            };
            tokio::time::timeout(ADDRESS_LIMIT, connecting)
                .await
                .unwrap_or_else(|_| silent())
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(why) => error = why,
        }
    }
    Err(error)
}

/// A stream through a proxy. Proxies over TLS are believed if the public authorities signed for them.
pub(crate) async fn tunnel(proxy: &Proxy, server: &Server) -> Result<Box<dyn Stream>, ConnectError> {
    let there = &proxy.server;
    let stream = tcp(there, 0).await?;
    let target = server.authority();
    let error = |source| ConnectError::Proxy {
        proxy: there.authority(),
        server: target.clone(),
        source,
    };
    if !there.is_https {
        return Ok(Box::new(proxy.tunnel(stream, &target).await.map_err(error)?));
    }
    let tls = ClientTls::new(&Trust::Public, None)
        .map_err(|problem| error(io::Error::other(problem.to_string())))?;
    let stream = tls_over(stream, there, &tls, &there.host).await?;
    Ok(Box::new(proxy.tunnel(stream, &target).await.map_err(error)?))
}

pub(crate) async fn tls_over<S: Stream>(
    stream: S,
    server: &Server,
    tls: &ClientTls,
    name: &str,
) -> Result<TlsStream<S>, ConnectError> {
    let name = ServerName::try_from(name.to_owned()).map_err(|_| ConnectError::Name(name.to_owned()))?;
    TlsConnector::from(tls.config())
        .connect(name, stream)
        .await
        .map_err(|source| ConnectError::Tls {
            server: server.authority(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    fn addresses() -> Vec<SocketAddr> {
        ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]
            .map(|address| address.parse().unwrap())
            .to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn each_connection_begins_with_another_address_and_goes_on_to_the_next() {
        for turn in 0..4 {
            let tried = Mutex::new(Vec::new());
            let refuse = |address: SocketAddr| {
                tried.lock().unwrap().push(address);
                async { Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)) }
            };
            let error = first_of(addresses(), turn, refuse).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            let mut expected = addresses();
            expected.rotate_left(turn % 3);
            assert_eq!(*tried.lock().unwrap(), expected);
        }
        let nothing = |_| async { Ok(()) };
        first_of(Vec::new(), 5, nothing).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_keeps_the_next_waiting_for_a_moment_only() {
        let begin = Instant::now();
        let last_answers = |address: SocketAddr| async move {
            if address == addresses()[2] {
                // The last may take longer than the others.
                tokio::time::sleep(ADDRESS_LIMIT * 2).await;
                return Ok(address);
            }
            std::future::pending().await
        };
        assert_eq!(
            first_of(addresses(), 0, last_answers).await.unwrap(),
            addresses()[2]
        );
        assert_eq!(begin.elapsed(), ADDRESS_LIMIT * 4);
    }
}
