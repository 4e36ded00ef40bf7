//! Requests to one server with bodies of known length, over HTTP/2 where it is negotiated.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::connect::{ConnectError, LIMIT, Stream, tcp, tls_over, tunnel, within_time};
use crate::credential::{Current, CurrentCredential};
use crate::{ClientTls, Cluster, CredentialError, Proxy, Server};

/// Idle HTTP/1.1 connections that are kept.
const MAX_IDLE: usize = 64;

/// An idle connection is not trusted for longer: the server may be closing it.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

/// As client-go watches over HTTP/2 connections.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no connection; nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is nothing to show who one is; nothing was sent.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The connection broke before the answer's head; the server may have seen the request.
    #[error("the connection broke before the server answered")]
    Broken(#[source] hyper::Error),
    /// The answer broke off.
    #[error("the server's answer broke off")]
    Cut(#[source] hyper::Error),
    /// The target is no path and query.
    #[error("the request target cannot be sent to this server")]
    Target,
}

/// A server's answer.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or its beginning.
    pub body: Bytes,
    /// Whether there was more of it.
    pub is_cut: bool,
}

/// One server, the connections to it, and the credentials for it.
///
/// Token files and client certificates are read again when they change and exec plugins run again when
/// what they printed expires; a connection whose certificate is no longer the current one is not used
/// again. Credentials go only to https servers.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

struct Inner {
    server: Server,
    server_name: String,
    proxy: Option<Proxy>,
    accepts_gzip: bool,
    impersonation: Vec<(HeaderName, HeaderValue)>,
    credential: CurrentCredential,
    pool: Mutex<Pool>,
    tasks: TaskTracker,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// Connections of one generation of the certificate.
#[derive(Default)]
struct Pool {
    generation: u64,
    idle: Vec<(http1::SendRequest<Full<Bytes>>, Instant)>,
    shared: Option<http2::SendRequest<Full<Bytes>>>,
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    const fn version(&self) -> Version {
        match self {
            Self::Http1(_) => Version::HTTP_11,
            Self::Http2(_) => Version::HTTP_2,
        }
    }
}

/// Spawns the tasks of HTTP/2 connections where they are waited for.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what a plugin prints expires by the wall clock"
)]
fn system_clock() -> SystemTime {
    SystemTime::now()
}

impl Client {
    /// A client of `cluster`. Nothing is connected and no plugin is run yet.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] when certificates or files of the credentials cannot be used.
    pub fn new(cluster: &Cluster) -> Result<Self, CredentialError> {
        let impersonation = cluster
            .impersonation
            .iter()
            .filter(|_| cluster.server.is_https)
            .map(|(name, value)| {
                let name = HeaderName::try_from(name).map_err(|_| CredentialError::Token)?;
                Ok((
                    name,
                    HeaderValue::try_from(value).map_err(|_| CredentialError::Token)?,
                ))
            })
            .collect::<Result<_, CredentialError>>()?;
        Ok(Self(Arc::new(Inner {
            server: cluster.server.clone(),
            server_name: cluster
                .tls_server_name
                .clone()
                .unwrap_or_else(|| cluster.server.host.clone()),
            proxy: cluster.proxy.clone(),
            accepts_gzip: cluster.accepts_gzip,
            impersonation,
            credential: CurrentCredential::new(cluster, system_clock)?,
            pool: Mutex::default(),
            tasks: TaskTracker::new(),
        })))
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.0.server
    }

    /// Whether the configuration lets answers be compressed; asking for it is the caller's matter.
    #[must_use]
    pub fn accepts_gzip(&self) -> bool {
        self.0.accepts_gzip
    }

    /// Sends a request and reads the answer, of its body at most `max_body` bytes. There is no time limit
    /// but that for connecting.
    ///
    /// `prepare` makes the request when it is known over which protocol it goes, again for another
    /// attempt when a connection turned out to be closed before anything was sent. Its target is path and
    /// query; Host and credentials are added.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; after `Broken` and `Cut` the server may have seen the request.
    pub async fn exchange(
        &self,
        max_body: usize,
        prepare: impl Fn(Version) -> Request<Bytes> + Send + Sync,
    ) -> Result<Answer, ClientError> {
        let current = self.0.credential.current().await?;
        while let Some(connection) = self.pooled(current.generation) {
            if let Some(answer) = self.send(connection, &current, max_body, &prepare, true).await? {
                return Ok(answer);
            }
        }
        let connection = self.connect(&current).await?;
        let answer = self.send(connection, &current, max_body, &prepare, false).await?;
        answer.ok_or(ClientError::Target)
    }

    /// Closes idle connections and waits for the tasks of all others to end.
    pub async fn close(&self) {
        *self.pool() = Pool::default();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was used before and may still be there.
    fn pooled(&self, generation: u64) -> Option<Connection> {
        let mut pool = self.pool();
        if pool.generation != generation {
            *pool = Pool {
                generation,
                ..Pool::default()
            };
        }
        if let Some(shared) = &pool.shared {
            if !shared.is_closed() {
                return Some(Connection::Http2(shared.clone()));
            }
            pool.shared = None;
        }
        while let Some((sender, since)) = pool.idle.pop() {
            if since.elapsed() < MAX_IDLE_TIME && !sender.is_closed() {
                return Some(Connection::Http1(sender));
            }
        }
        None
    }

    /// Sends the request on a connection; `None` if the connection was closed before anything was sent.
    async fn send(
        &self,
        mut connection: Connection,
        current: &Current,
        max_body: usize,
        prepare: &(impl Fn(Version) -> Request<Bytes> + Send + Sync),
        is_old: bool,
    ) -> Result<Option<Answer>, ClientError> {
        let request = self.address(prepare(connection.version()), &connection, current)?;
        let sent = match &mut connection {
            Connection::Http1(sender) => match sender.ready().await {
                Ok(()) => sender.try_send_request(request).await,
                Err(_) if is_old => return Ok(None),
                Err(error) => return Err(ClientError::Broken(error)),
            },
            Connection::Http2(sender) => match sender.ready().await {
                Ok(()) => sender.try_send_request(request).await,
                Err(error) => {
                    self.pool().shared = None;
                    return if is_old {
                        Ok(None)
                    } else {
                        Err(ClientError::Broken(error))
                    };
                }
            },
        };
        let response = match sent {
            Ok(response) => response,
            Err(mut error) => {
                if is_old && error.take_message().is_some() {
                    return Ok(None);
                }
                return Err(ClientError::Broken(error.into_error()));
            }
        };
        let (parts, body) = response.into_parts();
        if parts.status == StatusCode::UNAUTHORIZED {
            self.0.credential.refused().await;
        }
        let (body, is_cut) = beginning(body, max_body).await?;
        if let Connection::Http1(sender) = connection
            && !is_cut
        {
            self.give_back(sender, current.generation);
        }
        Ok(Some(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
            is_cut,
        }))
    }

    fn give_back(&self, sender: http1::SendRequest<Full<Bytes>>, generation: u64) {
        let mut pool = self.pool();
        if pool.generation == generation && pool.idle.len() < MAX_IDLE && !sender.is_closed() {
            pool.idle.push((sender, Instant::now()));
        }
    }

    /// Host first, as the protocol wants it; credentials last.
    fn address(
        &self,
        request: Request<Bytes>,
        connection: &Connection,
        current: &Current,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let (parts, body) = request.into_parts();
        let Parts {
            method,
            uri,
            headers: given,
            ..
        } = parts;
        let host = self.0.server.host_header();
        let mut target = http::uri::Parts::default();
        target.path_and_query = uri.path_and_query().cloned();
        let mut headers = HeaderMap::with_capacity(given.len() + 2);
        match connection {
            Connection::Http1(_) => {
                let host = HeaderValue::try_from(host).map_err(|_| ClientError::Target)?;
                headers.insert(header::HOST, host);
            }
            Connection::Http2(_) => {
                target.scheme = Some(http::uri::Scheme::HTTPS);
                target.authority = Some(host.try_into().map_err(|_| ClientError::Target)?);
            }
        }
        headers.extend(given);
        if let Some(authorization) = &current.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        for (name, value) in &self.0.impersonation {
            headers.append(name.clone(), value.clone());
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(target).map_err(|_| ClientError::Target)?;
        *request.version_mut() = connection.version();
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn connect(&self, current: &Current) -> Result<Connection, ClientError> {
        let authority = self.0.server.authority();
        let opening = Box::pin(self.open(current.tls.as_ref()));
        let connection = within_time(&authority, LIMIT, opening).await?;
        if let Connection::Http2(sender) = &connection {
            let mut pool = self.pool();
            if pool.generation == current.generation {
                pool.shared = Some(sender.clone());
            }
        }
        Ok(connection)
    }

    async fn open(&self, tls: Option<&ClientTls>) -> Result<Connection, ConnectError> {
        let Inner { server, proxy, .. } = &*self.0;
        let stream: Box<dyn Stream> = match proxy {
            Some(proxy) => tunnel(proxy, server).await?,
            None => Box::new(tcp(server, 0).await?),
        };
        let Some(tls) = tls else {
            return self.http1(stream).await;
        };
        let stream = tls_over(stream, server, tls, &self.0.server_name).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(stream).await
        } else {
            self.http1(stream).await
        }
    }

    async fn http1(&self, stream: impl Stream) -> Result<Connection, ConnectError> {
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.no_http(source))?;
        self.0.tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection ended");
            }
        });
        Ok(Connection::Http1(sender))
    }

    async fn http2(&self, stream: impl Stream) -> Result<Connection, ConnectError> {
        let (sender, connection) = http2::Builder::new(Tasks(self.0.tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.no_http(source))?;
        self.0.tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection ended");
            }
        });
        Ok(Connection::Http2(sender))
    }

    fn no_http(&self, source: hyper::Error) -> ConnectError {
        ConnectError::Http {
            server: self.0.server.authority(),
            source,
        }
    }
}

/// The first `max` bytes of a body and whether there is more.
async fn beginning(mut body: Incoming, max: usize) -> Result<(Bytes, bool), ClientError> {
    let mut beginning = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ClientError::Cut)?;
        if let Ok(data) = frame.into_data() {
            let room = max - beginning.len();
            beginning.extend_from_slice(data.get(..room).unwrap_or(&data));
            if data.len() > room {
                return Ok((beginning.freeze(), true));
            }
        }
    }
    Ok((beginning.freeze(), false))
}
