//! One connection: TCP, TLS, HTTP/1.1.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::upstream::OutgoingBody;
use crate::{ClientTls, Server};

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
    pub(crate) tls: Option<ClientTls>,
    pub(crate) server_name: String,
}

impl Connector {
    /// A new connection; its task belongs to `tasks`.
    pub(crate) async fn connect(
        &self,
        tasks: &TaskTracker,
    ) -> Result<SendRequest<OutgoingBody>, ConnectError> {
        let server = self.server.authority();
        tokio::time::timeout(CONNECT_TIMEOUT, self.open(&server, tasks))
            .await
            .unwrap_or(Err(ConnectError::Timeout { server }))
    }

    async fn open(
        &self,
        server: &str,
        tasks: &TaskTracker,
    ) -> Result<SendRequest<OutgoingBody>, ConnectError> {
        let tcp = |source| ConnectError::Tcp {
            server: server.to_owned(),
            source,
        };
        let stream = TcpStream::connect((self.server.host.as_str(), self.server.port))
            .await
            .map_err(tcp)?;
        stream.set_nodelay(true).map_err(tcp)?;
        match &self.tls {
            None => start(TokioIo::new(stream), server, tasks).await,
            Some(tls) => {
                let name = ServerName::try_from(self.server_name.clone())
                    .map_err(|_| ConnectError::Name(self.server_name.clone()))?;
                let stream = TlsConnector::from(tls.config())
                    .connect(name, stream)
                    .await
                    .map_err(|source| ConnectError::Tls {
                        server: server.to_owned(),
                        source,
                    })?;
                start(TokioIo::new(stream), server, tasks).await
            }
        }
    }
}

async fn start<I>(io: I, server: &str, tasks: &TaskTracker) -> Result<SendRequest<OutgoingBody>, ConnectError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(256)
        .handshake(io)
        .await
        .map_err(|source| ConnectError::Http {
            server: server.to_owned(),
            source,
        })?;
    let server: Arc<str> = Arc::from(server);
    tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, %server, "upstream connection ended");
        }
    });
    Ok(sender)
}
