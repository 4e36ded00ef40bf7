//! A receiver of audit webhooks that answers as it is told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::Service;
use kaudit_listen::{ClientCertificates, ConnectionInfo, ListenConfig, Listener, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is kept.
    Ok,
    /// Refused with this code; 429 says when to come again.
    Code(u16),
    /// Kept, and the connection breaks off before the answer.
    KeptAndBroken,
}

/// What came.
#[derive(Debug, Default)]
struct Kept {
    /// How often each event came, by auditID and stage.
    events: HashMap<(String, String), usize>,
    requests: usize,
    without_certificate: usize,
}

/// A running receiver.
pub(crate) struct Capture {
    kept: Arc<Mutex<Kept>>,
    answer: Arc<Mutex<Answer>>,
    address: SocketAddr,
    stop: CancellationToken,
    runtime: tokio::runtime::Runtime,
}

impl Capture {
    /// Starts a receiver with certificates of its own and writes the kubeconfig that leads to it.
    pub(crate) fn start(kubeconfig: &Path) -> Self {
        let authority = authority();
        let (certificate, key) = issue(&authority, "receiver");
        let (client_certificate, client_key) = issue(&authority, "kaudit");
        let tls = ServerTls::from_pem(
            certificate.as_bytes(),
            key.as_bytes(),
            &ClientCertificates::Asked(authority.pem().into_bytes()),
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listen = ListenConfig::https("127.0.0.1:0".parse().unwrap(), tls);
        let listener = runtime.block_on(Listener::bind(listen)).unwrap();
        let address = listener.local_addr();
        let (kept, answer) = (Arc::default(), Arc::new(Mutex::new(Answer::Ok)));
        let receiver = Receiver {
            kept: Arc::clone(&kept),
            answer: Arc::clone(&answer),
            has_certificate: false,
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let make = move |connection: &ConnectionInfo| Receiver {
            has_certificate: !connection.peer_certificates.is_empty(),
            ..receiver.clone()
        };
        runtime
            .handle()
            .spawn(listener.serve(make, stopped, Duration::ZERO));
        let base64 = |pem: &str| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(pem)
        };
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "receiver", "user": "kaudit"}}],
            "clusters": [{"name": "receiver", "cluster": {"server": format!("https://{address}/audit"),
                "certificate-authority-data": base64(&authority.pem())}}],
            "users": [{"name": "kaudit", "user": {"client-certificate-data": base64(&client_certificate),
                "client-key-data": base64(&client_key)}}],
        });
        std::fs::write(kubeconfig, config.to_string()).unwrap();
        Self {
            kept,
            answer,
            address,
            stop,
            runtime,
        }
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The events that came, and how often.
    pub(crate) fn events(&self) -> HashMap<(String, String), usize> {
        self.kept.lock().unwrap().events.clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.kept.lock().unwrap().requests
    }

    pub(crate) fn without_certificate(&self) -> usize {
        self.kept.lock().unwrap().without_certificate
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.cancel();
        self.runtime.block_on(tokio::task::yield_now());
    }
}

#[derive(Clone)]
struct Receiver {
    kept: Arc<Mutex<Kept>>,
    answer: Arc<Mutex<Answer>>,
    has_certificate: bool,
}

impl Receiver {
    fn keep(&self, body: &[u8]) {
        let list: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(list["kind"], "EventList");
        let mut kept = self.kept.lock().unwrap();
        for event in list["items"].as_array().unwrap() {
            let text = |key: &str| event[key].as_str().unwrap().to_owned();
            *kept.events.entry((text("auditID"), text("stage"))).or_default() += 1;
        }
    }
}

impl Service<Request<Incoming>> for Receiver {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let receiver = self.clone();
        Box::pin(async move {
            let body = request.into_body().collect().await;
            let Ok(body) = body.map(|body| body.to_bytes()) else {
                return Ok(Response::new(Full::default()));
            };
            let answer = *receiver.answer.lock().unwrap();
            {
                let mut kept = receiver.kept.lock().unwrap();
                kept.requests += 1;
                kept.without_certificate += usize::from(!receiver.has_certificate);
            }
            match answer {
                Answer::Ok => {
                    receiver.keep(&body);
                    Ok(Response::new(Full::default()))
                }
                Answer::Code(code) => {
                    let response = Response::builder().status(code);
                    let response = if code == 429 {
                        response.header("retry-after", "1")
                    } else {
                        response
                    };
                    Ok(response.body(Full::from("not now\n")).unwrap())
                }
                Answer::KeptAndBroken => {
                    receiver.keep(&body);
                    // The task of the connection ends with it.
                    panic!("the connection breaks off")
                }
            }
        })
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "receivers");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, PEM.
fn issue(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}
