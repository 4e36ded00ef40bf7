//! What is recorded of a request is in the log before the request has an effect, also where many are taken further at once.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use kaudit_listen::{ListenConfig, Listener};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;

/// A cluster that looks up each request in the gateway's log before it answers.
struct Cluster {
    address: String,
    requests: Arc<AtomicUsize>,
    stop: CancellationToken,
    serving: Option<std::thread::JoinHandle<()>>,
}

impl Cluster {
    fn start(log: PathBuf) -> Self {
        let (tell, told) = mpsc::channel();
        let (requests, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (count, stopped) = (Arc::clone(&requests), stop.clone());
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let config = ListenConfig::plain("127.0.0.1:0".parse().unwrap());
                let listener = Listener::bind(config).await.unwrap();
                tell.send(listener.local_addr().to_string()).unwrap();
                let answers = move |_: &_| {
                    let (log, count) = (log.clone(), Arc::clone(&count));
                    service_fn(move |request: Request<Incoming>| {
                        let answer = answer(&request, &log, &count);
                        async move { Ok::<_, Infallible>(answer) }
                    })
                };
                listener.serve(answers, stopped, Duration::from_secs(1)).await;
            });
        });
        Self {
            address: told.recv().unwrap(),
            requests,
            stop,
            serving: Some(serving),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.serving.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn answer(request: &Request<Incoming>, log: &Path, requests: &AtomicUsize) -> Response<Full<Bytes>> {
    let answer = match request.uri().path() {
        path if path.ends_with("/selfsubjectreviews") => {
            json!({"status": {"userInfo": {"username": "alice"}}})
        }
        path if path.ends_with("/selfsubjectaccessreviews") => {
            json!({"status": {"allowed": true, "reason": "r"}})
        }
        _ => {
            requests.fetch_add(1, Ordering::Relaxed);
            let id = request.headers()["audit-id"].to_str().unwrap();
            let log = std::fs::read_to_string(log).unwrap();
            let is_recorded = log.lines().any(|line| {
                let event: Value = serde_json::from_str(line).unwrap();
                event["auditID"] == id && event["stage"] == "RequestReceived"
            });
            let code = if is_recorded { 200 } else { 500 };
            return Response::builder().status(code).body(Full::default()).unwrap();
        }
    };
    Response::new(Full::from(answer.to_string()))
}

#[test]
fn requests_over_http2_are_in_the_log_before_the_cluster_has_them() {
    const AT_ONCE: usize = 60;
    const ROUNDS: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let cluster = Cluster::start(log.clone());
    let kubeconfig = json!({
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", cluster.address)}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    let log_path = log.display().to_string();
    let mut gateway = Gateway::before(&kubeconfig, folder.path(), &["--audit-log-path", &log_path]);
    for _ in 0..ROUNDS {
        assert_eq!(gateway.send_at_once(AT_ONCE), [200; AT_ONCE]);
    }
    assert_eq!(cluster.requests.load(Ordering::Relaxed), AT_ONCE * ROUNDS);
    gateway.stop();
    let log = std::fs::read_to_string(log).unwrap();
    let of = |stage: &str| log.lines().filter(|line| line.contains(stage)).count();
    let each = AT_ONCE * ROUNDS;
    assert_eq!((of("RequestReceived"), of("ResponseComplete")), (each, each));
}
