//! One connection: TCP, TLS, HTTP/1.1.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::upstream::OutgoingBody;
use crate::{ClientTls, Proxy, Server, Trust};

/// Time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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
    #[error("connecting to {server} took longer than {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// The server.
        server: String,
    },
    /// HTTP did not begin.
    #[error("HTTP with {server} did not begin")]
    Http {
        /// The server.
        server: String,
        /// Why.
        source: hyper::Error,
    },
}

/// Where connections go.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) server: Server,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) tls: Option<ClientTls>,
    pub(crate) server_name: String,
}

/// A stream of bytes to a server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

impl Connector {
    /// A new connection; its task belongs to `tasks`.
    pub(crate) async fn connect(
        &self,
        tasks: &TaskTracker,
    ) -> Result<SendRequest<OutgoingBody>, ConnectError> {
        let server = self.server.authority();
        // Boxed: what TLS takes is not carried through every request that finds a connection.
        within_time(&server, Box::pin(self.open(tasks))).await
    }

    async fn open(&self, tasks: &TaskTracker) -> Result<SendRequest<OutgoingBody>, ConnectError> {
        let server = &self.server;
        // Streams keep their types where nothing is in between: this is the gateway's path.
        match (&self.proxy, &self.tls) {
            (None, None) => start(tcp(server).await?, server, tasks).await,
            (None, Some(tls)) => {
                let stream = tls_over(tcp(server).await?, server, tls, &self.server_name).await?;
                start(stream, server, tasks).await
            }
            (Some(proxy), None) => start(tunnel(proxy, server).await?, server, tasks).await,
            (Some(proxy), Some(tls)) => {
                let tunnel = tunnel(proxy, server).await?;
                let stream = tls_over(tunnel, server, tls, &self.server_name).await?;
                start(stream, server, tasks).await
            }
        }
    }
}

/// Gives up on a connection that takes too long.
pub(crate) async fn within_time<T>(
    server: &str,
    connecting: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| {
            Err(ConnectError::Timeout {
                server: server.to_owned(),
            })
        })
}

pub(crate) async fn tcp(server: &Server) -> Result<TcpStream, ConnectError> {
    let error = |source| ConnectError::Tcp {
        server: server.authority(),
        source,
    };
    let stream = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .map_err(error)?;
    stream.set_nodelay(true).map_err(error)?;
    Ok(stream)
}

/// A stream through a proxy. Proxies over TLS are believed if the public authorities signed for them.
pub(crate) async fn tunnel(proxy: &Proxy, server: &Server) -> Result<Box<dyn Stream>, ConnectError> {
    let there = &proxy.server;
    let stream = tcp(there).await?;
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

async fn start<S: Stream>(
    stream: S,
    server: &Server,
    tasks: &TaskTracker,
) -> Result<SendRequest<OutgoingBody>, ConnectError> {
    let (sender, connection) = http1::Builder::new()
        .max_headers(256)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ConnectError::Http {
            server: server.authority(),
            source,
        })?;
    let server: Arc<str> = Arc::from(server.authority());
    tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, %server, "upstream connection ended");
        }
    });
    Ok(sender)
}
