//! A server on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use kaudit_listen::{ConnectionInfo, Limits, ListenConfig, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Answers with the peer's address.
#[derive(Clone, Debug)]
pub(crate) struct Echo(SocketAddr);

impl Service<Request<Incoming>> for Echo {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn call(&self, _: Request<Incoming>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.to_string())))
    }
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<()>,
}

impl Server {
    pub(crate) fn serve(listener: Listener) -> Self {
        let (addr, stop) = (listener.local_addr(), CancellationToken::new());
        let stopped = stop.clone();
        let make = |connection: &ConnectionInfo| Echo(connection.remote_addr);
        #[expect(clippy::disallowed_methods, reason = "the handle is awaited by the test")]
        let served = tokio::spawn(listener.serve(make, stopped, LONG));
        Self { addr, stop, served }
    }

    pub(crate) async fn start(config: ListenConfig) -> Self {
        Self::serve(Listener::bind(config).await.unwrap())
    }

    /// The end, which comes by itself.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(LONG / 2, self.served)
            .await
            .unwrap()
            .unwrap();
    }
}

/// Plain HTTP with bounds.
pub(crate) fn plain(limits: impl FnOnce(&mut Limits)) -> ListenConfig {
    let mut config = ListenConfig::plain("127.0.0.1:0".parse().unwrap());
    limits(&mut config.limits);
    config
}

/// Sends a request and gives the answer's head and body.
pub(crate) async fn ask(client: &mut TcpStream) -> (String, String) {
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    client.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// Reads to the end of the connection; `None` if it was reset.
pub(crate) async fn rest(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(LONG, client.read_to_end(&mut rest));
    read.await.unwrap().ok().map(|_| rest)
}
