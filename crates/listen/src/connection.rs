//! One connection: who is at its other end, what is served over it, and how it ends.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::activity::{Activity, Counted};
use crate::addresses::{Addresses, Entered};
use crate::gathered::{Gathered, Mode};
use crate::metrics::Refused;
use crate::proxy_protocol::{self, HeaderError};
use crate::streams::{Served, Streams};
use crate::{Limits, ListenerMetrics, ProxyProtocol, Turn};

/// A connection's ends and what its TLS handshake proved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The peer, or whom a proxy named that is to be believed ([`ProxyProtocol`]).
    pub remote_addr: SocketAddr,
    /// This end.
    pub local_addr: SocketAddr,
    /// The protocol that ALPN chose, for example `h2`.
    pub alpn: Option<Vec<u8>>,
    /// The peer's certificates, leaf first; verified against the client authority, unless certificates are
    /// [`crate::ClientCertificates::Presented`]. Empty when the peer showed none.
    pub peer_certificates: Vec<CertificateDer<'static>>,
}

/// One connection on its way from the accept loop to its end.
pub(crate) struct Connection {
    pub(crate) remote_addr: SocketAddr,
    pub(crate) local_addr: SocketAddr,
    pub(crate) limits: Limits,
    pub(crate) acceptor: Option<TlsAcceptor>,
    pub(crate) stop: CancellationToken,
    pub(crate) proxies: Arc<ProxyProtocol>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) metrics: ListenerMetrics,
    pub(crate) turn: Option<Turn>,
}

impl Connection {
    pub(crate) async fn run<M, S, B>(mut self, mut stream: TcpStream, make_service: &M)
    where
        M: Fn(&ConnectionInfo) -> S + Sync,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // Held until the connection ends.
        let _entered = match self.learn_address(&mut stream).await {
            Ok(entered) => entered,
            Err(reason) => return self.metrics.refuse(reason),
        };
        let info = self.info(None, &[]);
        if self.acceptor.is_none() {
            return self.http(stream, &info, make_service(&info)).await;
        }
        match self.shake_hands(stream).await {
            Ok((stream, info)) => self.http(stream, &info, make_service(&info)).await,
            Err(reason) => self.metrics.refuse(reason),
        }
    }

    fn info(&self, alpn: Option<&[u8]>, certificates: &[CertificateDer<'static>]) -> ConnectionInfo {
        ConnectionInfo {
            remote_addr: self.remote_addr,
            local_addr: self.local_addr,
            alpn: alpn.map(<[u8]>::to_vec),
            peer_certificates: certificates.to_vec(),
        }
    }

    /// TLS, and what it proves.
    async fn shake_hands(
        &self,
        stream: TcpStream,
    ) -> Result<(Box<TlsStream<TcpStream>>, ConnectionInfo), Refused> {
        let Some(acceptor) = &self.acceptor else {
            return Err(Refused::Handshake);
        };
        match tokio::time::timeout(self.limits.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let (_, tls) = stream.get_ref();
                let info = self.info(tls.alpn_protocol(), tls.peer_certificates().unwrap_or_default());
                Ok((Box::new(stream), info))
            }
            Ok(Err(error)) => {
                debug!(%error, remote = %self.remote_addr, "TLS handshake failed");
                Err(Refused::Handshake)
            }
            Err(_) => {
                debug!(remote = %self.remote_addr, "TLS handshake took too long");
                Err(Refused::HandshakeTimeout)
            }
        }
    }

    /// Takes over the address that a proxy names, and counts its connections; the peer's own stays where there is no
    /// proxy, or it names none.
    async fn learn_address(&mut self, stream: &mut TcpStream) -> Result<Entered, Refused> {
        let peer = self.remote_addr;
        if !self.proxies.is_expected_from(peer.ip()) {
            return self.enter();
        }
        match tokio::time::timeout(self.limits.handshake, proxy_protocol::read(stream)).await {
            Ok(Ok(Some(named))) => {
                self.remote_addr = named;
                self.enter()
            }
            // The proxy's own, of which there may be as many as it likes.
            Ok(Ok(None)) => Ok(Entered::uncounted()),
            Ok(Err(error)) => {
                debug!(%error, %peer, "a proxy does not say for whom it connects");
                Err(match error {
                    HeaderError::Malformed(_) => Refused::ProxyMalformed,
                    HeaderError::TooLong => Refused::ProxyTooLong,
                    HeaderError::Incomplete(_) => Refused::ProxyIncomplete,
                })
            }
            Err(_) => {
                debug!(%peer, "a proxy took too long to say for whom it connects");
                Err(Refused::ProxyTimeout)
            }
        }
    }

    fn enter(&self) -> Result<Entered, Refused> {
        let entered = self.addresses.enter(self.remote_addr.ip());
        entered.ok_or_else(|| {
            debug!(remote = %self.remote_addr, "a client has too many connections");
            Refused::Address
        })
    }

    async fn http<I, S, B>(&self, stream: I, info: &ConnectionInfo, service: S)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let activity = Arc::new(Activity::new(info.alpn.as_deref(), self.limits.cancelled));
        if self.stop.is_cancelled() {
            activity.close();
        }
        let service = Counted {
            inner: service,
            activity: Arc::clone(&activity),
        };
        let streams = Streams::default();
        let mut builder = auto::Builder::new(streams.clone());
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
            .initial_stream_window_size(self.limits.stream_ahead_bytes)
            .initial_connection_window_size(self.limits.ahead_bytes)
            .max_header_list_size(u32::try_from(self.limits.head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(30));
        // Only where nothing is sent before everything was taken further.
        let (mode, turn) = match info.alpn.as_deref() {
            Some(b"h2") => (Mode::Gathers, self.turn),
            _ => (Mode::Passes, None),
        };
        let stream = Gathered::new(stream, mode);
        let io = TokioIo::new(stream.clone());
        let connection = builder.serve_connection_with_upgrades(io, service);
        tokio::pin!(connection);
        let mut connection = Served::new(connection, streams, stream).in_turns(turn);
        // The connection first, wherever both are ready: a request that has come is no idleness.
        let served = tokio::select! {
            biased;
            served = connection.run() => Some(served),
            () = activity.abused() => {
                debug!(remote = %self.remote_addr, "a client cancelled too many requests");
                return self.metrics.refuse(Refused::Cancelled);
            }
            () = self.stopped(&activity) => {
                connection.connection().graceful_shutdown();
                tokio::select! {
                    biased;
                    served = connection.run() => Some(served),
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
