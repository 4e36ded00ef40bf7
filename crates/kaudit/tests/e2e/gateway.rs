//! A gateway as a process of its own, and what it tells of requests beside their events.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::{BodyExt as _, Empty};
use kaudit_dial::{Cluster, Pem, Trust, Upstream};
use serde_json::Value;

use crate::dev::Dev;

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

/// A gateway in front of a demo's sandbox.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    pub(crate) said: Arc<Mutex<Vec<String>>>,
    /// Adds to it until the process has nothing more to say.
    hearing: Option<std::thread::JoinHandle<()>>,
    requests: Upstream,
    metrics: Upstream,
    token: String,
    runtime: tokio::runtime::Runtime,
    pub(crate) sent: usize,
}

impl Gateway {
    pub(crate) fn start(dev: &Dev, folder: &Path, arguments: &[&str]) -> Self {
        let kubeconfig: Value =
            serde_json::from_slice(&std::fs::read(&dev.ready["kubeconfig"]).unwrap()).unwrap();
        let mut upstream = kubeconfig;
        upstream["clusters"][0]["cluster"]["server"] = dev.ready["sandbox"].clone().into();
        Self::before(&upstream, folder, arguments)
    }

    /// A gateway in front of what a kubeconfig names, whose user's token its clients have.
    pub(crate) fn before(upstream: &Value, folder: &Path, arguments: &[&str]) -> Self {
        let token = upstream["users"][0]["user"]["token"].as_str().unwrap().to_owned();
        let file = |name: &str| folder.join(name).display().to_string();
        std::fs::write(file("upstream"), upstream.to_string()).unwrap();
        std::fs::write(file("policy"), POLICY).unwrap();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(file("crt"), own.cert.pem()).unwrap();
        std::fs::write(file("key"), own.signing_key.serialize_pem()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kaudit"))
            .args(["run", "--role", "gateway", "--listen", "127.0.0.1:0"])
            .args(["--metrics-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"])
            .args([
                "--data-dir",
                &file("data"),
                "--upstream-kubeconfig",
                &file("upstream"),
            ])
            .args([
                "--tls-cert-file",
                &file("crt"),
                "--tls-private-key-file",
                &file("key"),
            ])
            .args(["--audit-policy-file", &file("policy")])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, lines) = std::sync::mpsc::channel();
        let said = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&said);
        let hearing = std::thread::spawn(move || {
            for text in stderr.lines().map_while(Result::ok) {
                keep.lock().unwrap().push(text.clone());
                // The receiver may have seen enough.
                drop(line.send(text));
            }
        });
        let serving = loop {
            let text = lines
                .recv_timeout(Duration::from_secs(60))
                .unwrap_or_else(|_| panic!("it does not serve:\n{}", said.lock().unwrap().join("\n")));
            if text.contains(" serving ") {
                break text;
            }
        };
        let address = |key: &str| {
            let pair = serving.split_whitespace().find_map(|word| word.strip_prefix(key));
            pair.unwrap_or_else(|| panic!("no {key} in {serving}")).to_owned()
        };
        let upstream =
            |url: String, trust| Upstream::new(&Cluster::new(url.parse().unwrap(), trust), false).unwrap();
        Self {
            requests: upstream(
                format!("https://{}", address("gateway=")),
                Trust::Authorities(Pem::Inline(own.cert.pem().into_bytes())),
            ),
            metrics: upstream(format!("http://{}", address("metrics=")), Trust::Public),
            token,
            // With a thread of its own: a client that stands still holds its connection open at the end.
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            child,
            said,
            hearing: Some(hearing),
            sent: 0,
        }
    }

    /// Sends so many requests one after another, each with an Audit-ID of its own; returns their status codes.
    pub(crate) fn send(&mut self, count: usize) -> Vec<u16> {
        let range = self.sent..self.sent + count;
        self.sent += count;
        range
            .map(|number| self.runtime.block_on(self.answered(number)))
            .collect()
    }

    /// The same at once.
    pub(crate) fn send_at_once(&mut self, count: usize) -> Vec<u16> {
        let range = self.sent..self.sent + count;
        self.sent += count;
        let answered = range.map(|number| self.answered(number));
        self.runtime.block_on(futures_util::future::join_all(answered))
    }

    async fn answered(&self, number: usize) -> u16 {
        let request = Request::get("/api/v1/namespaces/default/configmaps")
            .header("authorization", format!("Bearer {}", self.token))
            .header("audit-id", format!("request-{number}"))
            .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
            .unwrap();
        let response = self.requests.send(request).await.unwrap();
        let code = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        code
    }

    /// The values of a metric by its labels.
    pub(crate) fn metric(&self, name: &str) -> BTreeMap<String, u64> {
        let request = Request::get("/metrics")
            .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
            .unwrap();
        let text = self.runtime.block_on(async {
            let response = self.metrics.send(request).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        });
        let text = String::from_utf8(text.to_vec()).unwrap();
        text.lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter_map(|rest| rest.rsplit_once(' '))
            .filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'))
            .map(|(labels, value)| (labels.to_owned(), value.parse().unwrap()))
            .collect()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.metric("kaudit_audit_events_lost_total").values().sum()
    }

    /// SIGTERM, as a kubelet sends it.
    pub(crate) fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// SIGTERM and the end.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.terminate();
        let status = self.child.wait().unwrap();
        self.hearing.take().unwrap().join().unwrap();
        let said = self.said.lock().unwrap().clone();
        assert!(status.success(), "{status}:\n{}", said.join("\n"));
        said
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It is over already where the test went well.
        drop(self.child.kill());
    }
}

pub(crate) fn until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not so after {within:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn every_request_has_a_count_and_a_line_in_the_access_log() {
    let dev = Dev::start(&["--no-traffic"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut gateway = Gateway::start(
        &dev,
        folder.path(),
        &["--access-log-path", &path.display().to_string()],
    );
    assert_eq!(gateway.send(3), [200, 200, 200]);
    gateway.token = "wrong".to_owned();
    assert_eq!(gateway.send(1), [401]);
    let requests = gateway.metric("kaudit_gateway_requests_total");
    assert!(requests.len() > 1, "{requests:?}");
    assert_eq!(requests["{verb=\"list\",code=\"200\"}"], 3, "{requests:?}");
    assert_eq!(requests["{verb=\"list\",code=\"401\"}"], 1, "{requests:?}");
    let added = gateway.metric("kaudit_gateway_added_latency_seconds_bucket");
    assert!(added.contains_key("{le=\"+Inf\"}"), "{added:?}");
    assert_eq!(added["{le=\"+Inf\"}"], 3, "the 401 was the gateway's: {added:?}");
    gateway.stop();
    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |key: &str| -> Vec<&Value> { lines.iter().map(|line| &line[key]).collect() };
    assert_eq!(of("code"), [200, 200, 200, 401]);
    assert_eq!(
        of("auditID"),
        ["request-0", "request-1", "request-2", "request-3"]
    );
    assert!(
        lines[0]["bytesOut"].as_u64() > Some(100) && lines[0]["upstream"].as_f64() > Some(0.0),
        "{log}"
    );
    assert!(
        lines[3]["user"].is_null() && lines[3]["upstream"].is_null(),
        "{log}"
    );
}
