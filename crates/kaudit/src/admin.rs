//! Metrics and health, on a port of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use kaudit_listen::Listener;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::metrics;

/// The media type of [`metrics::text`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers `/metrics`, `/livez`, `/readyz` and `/healthz`.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    registry: Arc<Registry>,
    stopping: CancellationToken,
}

impl Admin {
    /// `stopping` makes `/readyz` say no, so that nobody sends what is new.
    pub(crate) fn new(registry: Registry, stopping: CancellationToken) -> Self {
        Self {
            registry: Arc::new(registry),
            stopping,
        }
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, listener: Listener, stop: CancellationToken) {
        listener
            .serve(move |_| self.clone(), stop, Duration::from_secs(1))
            .await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let text = |code, text: &'static str| {
            let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
            *response.status_mut() = code;
            response
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match request.uri().path() {
            "/metrics" => {
                let mut response = Response::new(Full::new(Bytes::from(metrics::text(&self.registry))));
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
                response
            }
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" | "/healthz" if !self.stopping.is_cancelled() => text(StatusCode::OK, "ok\n"),
            "/readyz" | "/healthz" => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n"),
        }
    }
}

impl Service<Request<Incoming>> for Admin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        std::future::ready(Ok(self.answer(&request)))
    }
}
