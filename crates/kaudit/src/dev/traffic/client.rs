//! A client of the API: one request after another, and sessions.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use kaudit_dial::{BoxError, Cluster, OutgoingBody, Pem, Server, Trust, Upstream};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tracing::debug;

use crate::exit::Failure;

/// What RFC 6455 calls a nonce: it guards against caches, of which there are none here.
const KEY: &str = "a2F1ZGl0IGRldiBkZW1vIQ==";

const MAX_ANSWER_BYTES: usize = 4 << 20;

/// A session that says nothing for so long is over.
const SILENCE: Duration = Duration::from_millis(500);

/// Sends requests to one server.
#[derive(Debug)]
pub(super) struct Client(Upstream);

impl Client {
    pub(super) fn new(server: SocketAddr, authority: &str) -> Result<Self, Failure> {
        let server: Server = format!("https://{server}")
            .parse()
            .map_err(|error: String| Failure::usage(anyhow!(error)))?;
        let trust = Trust::Authorities(Pem::Inline(authority.as_bytes().to_vec()));
        let cluster = Cluster::new(server, trust);
        Upstream::new(&cluster, false)
            .map(Self)
            .map_err(Failure::unreachable)
    }

    pub(super) async fn close(self) {
        self.0.close().await;
    }

    /// The answer's JSON; null when there is none.
    pub(super) async fn call(
        &self,
        token: Option<&str>,
        agent: &'static str,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Option<Value>,
    ) -> Value {
        let has_body = body.is_some();
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let Some(mut request) = request(token, agent, method, path, Bytes::from(body)) else {
            return Value::Null;
        };
        if has_body {
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        match self.exchange(request).await {
            Ok((code, body)) => {
                debug!(%code, path, "the demo was answered");
                serde_json::from_slice(&body).unwrap_or_default()
            }
            Err(error) => {
                debug!(error, path, "the demo was not answered");
                Value::Null
            }
        }
    }

    async fn exchange(&self, request: Request<OutgoingBody>) -> Result<(StatusCode, Bytes), BoxError> {
        let (head, body) = self.0.send(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
        Ok((head.status, body))
    }

    /// A command in a container over WebSocket, listened to until it ends or falls silent.
    pub(super) async fn exec(&self, token: Option<&str>, agent: &'static str, path: &str) {
        let Some(mut request) = request(token, agent, Method::GET, path, Bytes::new()) else {
            return;
        };
        let headers = request.headers_mut();
        for (name, value) in [
            (header::CONNECTION, "Upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static(KEY));
        if let Err(error) = self.listen(request).await {
            debug!(error, path, "the demo's session failed");
        }
    }

    async fn listen(&self, request: Request<OutgoingBody>) -> Result<(), BoxError> {
        let (mut response, _load) = self.0.send_upgrade(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(format!("the session was refused: {}", response.status()).into());
        }
        let mut session = TokioIo::new(hyper::upgrade::on(&mut response).await?);
        let mut heard = [0; 4096];
        while let Ok(read) = tokio::time::timeout(SILENCE, session.read(&mut heard)).await {
            if read? == 0 {
                break;
            }
        }
        Ok(())
    }
}

fn request(
    token: Option<&str>,
    agent: &'static str,
    method: Method,
    path: &str,
    body: Bytes,
) -> Option<Request<OutgoingBody>> {
    let body = Full::new(body).map_err(|never: Infallible| match never {});
    let mut request = Request::new(body.boxed_unsync());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse::<Uri>().ok()?;
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Some(request)
}
