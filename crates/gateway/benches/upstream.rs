//! What stands behind the proxies of `bench/gateway`: an API server whose answers are ready.
//!
//! Usage: `upstream CERTIFICATE KEY`. Prints its address, serves HTTP/1.1 and HTTP/2 over TLS, and ends with its
//! standard input.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measuring")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use kaudit_listen::{ClientCertificates, ListenConfig, Listener, ServerTls};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What lists and tunnels are made of.
const CHUNK: usize = 64 << 10;
const LARGE_LIST: usize = 50_000_000;

#[tokio::main]
async fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    // `cargo bench` passes `--bench`; then there is nothing to serve.
    let (Some(certificate), Some(key)) = (args.next(), args.next()) else {
        return;
    };
    let tls = ServerTls::from_files(&certificate, &key, &ClientCertificates::NotAsked).unwrap();
    let mut config = ListenConfig::https(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), tls);
    config.limits.connections = 20_000;
    let listener = Listener::bind(config).await.unwrap();
    println!("{}", listener.local_addr());
    let stop = CancellationToken::new();
    let tunnels = TaskTracker::new();
    let answers = Answers::new(tunnels.clone());
    let serving = listener.serve(move |_| answers.clone(), stop.clone(), Duration::from_secs(1));
    let ending = async {
        let mut input = Vec::new();
        tokio::io::stdin().read_to_end(&mut input).await.unwrap();
        stop.cancel();
    };
    tokio::join!(serving, ending);
}

/// The answers.
#[derive(Clone)]
struct Answers {
    user: Bytes,
    access: Bytes,
    small: Bytes,
    medium: Bytes,
    event: Bytes,
    chunk: Bytes,
    tunnels: TaskTracker,
}

impl Answers {
    fn new(tunnels: TaskTracker) -> Self {
        let user = json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
            "status": {"userInfo": {"username": "alice", "uid": "1", "groups": ["dev", "system:authenticated"]}}
        });
        let access = json!({
            "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {},
            "status": {"allowed": true, "reason": "RBAC: allowed by ClusterRoleBinding \"dev\" of ClusterRole \"edit\" to Group \"dev\""}
        });
        Self {
            user: user.to_string().into(),
            access: access.to_string().into(),
            small: config_map(1 << 10).into(),
            medium: config_map(64 << 10).into(),
            event: format!("{{\"type\":\"ADDED\",\"object\":{}}}\n", config_map(512)).into(),
            chunk: vec![b'x'; CHUNK].into(),
            tunnels,
        }
    }

    fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let json = |body: Answer| {
            let mut response = Response::new(body);
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        };
        let whole = |bytes: &Bytes| json(Answer::Whole(Some(bytes.clone())));
        let query = request.uri().query().unwrap_or_default();
        match request.uri().path() {
            path if path.ends_with("/selfsubjectreviews") => whole(&self.user),
            path if path.ends_with("/selfsubjectaccessreviews") => whole(&self.access),
            path if path.ends_with("/exec") => self.tunnel(request),
            _ if query.contains("watch=") => json(Answer::Watch(Some(self.event.clone()))),
            path if path.ends_with("/small") => whole(&self.small),
            path if path.ends_with("/medium") => whole(&self.medium),
            _ => json(Answer::List {
                chunk: self.chunk.clone(),
                left: LARGE_LIST,
            }),
        }
    }

    /// Sends as many bytes as the query says, then closes.
    fn tunnel(&self, mut request: Request<Incoming>) -> Response<Answer> {
        let query = request.uri().query().unwrap_or_default();
        let mut left: usize = query.strip_prefix("bytes=").unwrap().parse().unwrap();
        let chunk = self.chunk.clone();
        let upgraded = hyper::upgrade::on(&mut request);
        self.tunnels.spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            while left > 0 {
                let some = chunk.slice(..left.min(CHUNK));
                left -= some.len();
                if stream.write_all(&some).await.is_err() {
                    return;
                }
            }
            drop(stream.shutdown().await);
        });
        let mut response = Response::new(Answer::Whole(None));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        response
    }
}

/// A ConfigMap of about so many bytes.
fn config_map(bytes: usize) -> String {
    let object = |value: &str| {
        json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "small", "namespace": "default", "uid": "4b1f7c2e", "resourceVersion": "812"},
            "data": {"value": value}
        })
        .to_string()
    };
    let rest = bytes.saturating_sub(object("").len());
    object(&"v".repeat(rest))
}

impl Service<Request<Incoming>> for Answers {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Answer>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        ready(Ok(self.answer(request)))
    }
}

/// A body.
enum Answer {
    Whole(Option<Bytes>),
    /// Chunks, of a length that is not told before.
    List {
        chunk: Bytes,
        left: usize,
    },
    /// One event, and then nothing for ever.
    Watch(Option<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::List { left: 0, .. } => Poll::Ready(None),
            Self::List { chunk, left } => {
                let some = chunk.slice(..CHUNK.min(*left));
                *left -= some.len();
                Poll::Ready(Some(Ok(Frame::data(some))))
            }
            Self::Watch(event) => event
                .take()
                .map_or(Poll::Pending, |event| Poll::Ready(Some(Ok(Frame::data(event))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::List { .. } | Self::Watch(_) => SizeHint::default(),
        }
    }
}
