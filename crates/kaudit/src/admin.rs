//! Metrics and health, on a port of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::Service;
use kaudit_dial::Upstream;
use kaudit_listen::Listener;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::collection::Collection;
use crate::metrics;
use crate::sinks::{Row, Sinks, State};
use crate::storing::Storing;

/// The media type of [`metrics::text`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers `/metrics`, `/livez`, `/readyz` and `/healthz`; `?verbose` lists the sinks, the cluster's servers, and more.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    registry: Arc<Registry>,
    sinks: Option<Arc<Sinks>>,
    collection: Option<Collection>,
    storing: Option<Storing>,
    upstream: Option<Upstream>,
    stopping: CancellationToken,
}

impl Admin {
    /// `stopping` makes `/readyz` say no, so that nobody sends what is new.
    pub(crate) fn new(
        registry: Registry,
        sinks: Option<Arc<Sinks>>,
        collection: Option<Collection>,
        storing: Option<Storing>,
        upstream: Option<Upstream>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            registry: Arc::new(registry),
            sinks,
            collection,
            storing,
            upstream,
            stopping,
        }
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, listener: Listener, stop: CancellationToken) {
        listener
            .serve(move |_| self.clone(), stop, Duration::from_secs(1))
            .await;
    }

    /// Every check by itself, as kube-apiserver prints them. A sink that fails does not make the process
    /// unready: its requests are served, and what it loses is counted.
    fn verbose(&self) -> Response<Full<Bytes>> {
        use std::fmt::Write as _;
        let mut text = String::new();
        for row in self.sinks.iter().flat_map(|sinks| sinks.list()) {
            let sign = match row.state {
                State::Active | State::Draining => '+',
                State::Failing | State::Invalid => '-',
            };
            let Row {
                kind,
                name,
                composition,
                state,
                last_error,
                ..
            } = row;
            let name = if kind == name {
                kind
            } else {
                format!("{kind}/{name}")
            };
            let error = last_error
                .filter(|_| sign == '-')
                .map(|error| format!(": {error}"))
                .unwrap_or_default();
            // Writing to a String cannot fail.
            writeln!(
                text,
                "[{sign}]sink/{name} {} {composition}{error}",
                state.as_str()
            )
            .ok();
        }
        // Neither does a server that is aside, nor all of them: requests are tried, and answered and recorded.
        for server in self.upstream.iter().flat_map(Upstream::servers) {
            let name = server.server;
            match server.aside {
                None => writeln!(text, "[+]upstream/{name} takes requests").ok(),
                Some(why) => writeln!(text, "[-]upstream/{name} aside: {why}").ok(),
            };
        }
        let collection = self.collection.iter().flat_map(Collection::checks);
        let store = self.storing.iter().flat_map(Storing::checks);
        for check in collection.chain(store) {
            let sign = if check.is_good { '+' } else { '-' };
            writeln!(text, "[{sign}]{}", check.text).ok();
        }
        let (code, verdict) = if self.stopping.is_cancelled() {
            (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
        } else {
            (StatusCode::OK, "ok\n")
        };
        text.push_str(verdict);
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = code;
        response
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let text = |code, text: &'static str| {
            let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
            *response.status_mut() = code;
            response
        };
        let is_verbose = request.uri().query().is_some_and(|query| {
            query
                .split('&')
                .any(|pair| pair == "verbose" || pair.starts_with("verbose="))
        });
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
            "/readyz" | "/healthz" if is_verbose => self.verbose(),
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

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        std::future::ready(Ok(self.answer(&request)))
    }
}
