//! Start and stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::upgrade::Upgraded;
use kaudit_dial::{Cluster, OutgoingBody, Pem, Trust, Upstream, UpstreamBody};
use serde_json::{Value, json};

use crate::dev::{Dev, events};

#[test]
fn an_interrupt_ends_the_demo_cleanly_with_every_final_event_written() {
    let dev = Dev::start(&[]);
    let path = dev.path("gateway-audit.log");
    // The traffic has begun when the log holds events of several users.
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::read(&path).map_or(0, |log| log.len()) < 20_000 {
        assert!(Instant::now() < deadline, "the demo makes no traffic");
        std::thread::yield_now();
    }
    let (status, _dir) = dev.interrupt();
    assert!(status.success(), "{status}");

    let log = events(&path);
    let of = |stages: &[&str]| -> BTreeSet<String> {
        log.iter()
            .filter(|event| stages.contains(&event["stage"].as_str().unwrap()))
            .map(|event| event["auditID"].as_str().unwrap().to_owned())
            .collect()
    };
    let received = of(&["RequestReceived"]);
    assert!(
        received.len() > 5,
        "only {} requests were recorded from their beginning",
        received.len()
    );
    let unfinished: Vec<_> = received
        .difference(&of(&["ResponseComplete", "Panic"]))
        .cloned()
        .collect();
    assert!(unfinished.is_empty(), "without final event: {unfinished:?}");
}

#[test]
fn the_ready_line_has_every_key() {
    let dev = Dev::start(&["--no-traffic"]);
    for key in [
        "api",
        "metrics",
        "sandbox",
        "gateway",
        "collector",
        "kubeconfig",
        "data",
    ] {
        assert!(dev.ready.contains_key(key), "{key} is missing in {:?}", dev.ready);
    }
    assert!(std::path::Path::new(&dev.ready["kubeconfig"]).exists());
}

/// Requests of each kind that are open when the signal comes, or about to be.
const WATCHES: usize = 200;
const SESSIONS: usize = 20;
const SHORT: usize = 50;

const POD: &str = "/api/v1/namespaces/default/pods/long";

/// A client of a demo's gateway, as its administrator.
#[derive(Clone)]
struct Client {
    gateway: Upstream,
    token: String,
}

impl Client {
    fn of(dev: &Dev) -> Self {
        let kubeconfig = std::fs::read(&dev.ready["kubeconfig"]).unwrap();
        let kubeconfig: Value = serde_json::from_slice(&kubeconfig).unwrap();
        let authority = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"].as_str();
        let authority = BASE64_STANDARD.decode(authority.unwrap()).unwrap();
        let cluster = Cluster::new(
            dev.ready["gateway"].parse().unwrap(),
            Trust::Authorities(Pem::Inline(authority)),
        );
        let token = kubeconfig["users"][0]["user"]["token"].as_str();
        Self {
            gateway: Upstream::new(&cluster, false).unwrap(),
            token: token.unwrap().to_owned(),
        }
    }

    fn request(&self, method: Method, target: &str, id: &str, body: &Value) -> Request<OutgoingBody> {
        let body = match body {
            Value::Null => Bytes::new(),
            body => body.to_string().into(),
        };
        Request::builder()
            .method(method)
            .uri(target)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .header("audit-id", id)
            .body(Full::new(body).map_err(|never| match never {}).boxed_unsync())
            .unwrap()
    }

    /// An answer whose body is still to be read.
    async fn get(&self, target: &str, id: &str) -> Response<UpstreamBody> {
        let request = self.request(Method::GET, target, id, &Value::Null);
        let answer = self.gateway.send(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{target}");
        answer
    }

    /// Makes a pod and waits until it runs.
    async fn run_pod(&self) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "long"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let create = self.request(Method::POST, "/api/v1/namespaces/default/pods", "pod", &pod);
        assert_eq!(self.gateway.send(create).await.unwrap().status(), 201);
        let deadline = Instant::now() + Duration::from_secs(60);
        for attempt in 0.. {
            let pod = self.get(POD, &format!("pod-{attempt}")).await.into_body();
            let pod: Value = serde_json::from_slice(&pod.collect().await.unwrap().to_bytes()).unwrap();
            if pod["status"]["phase"] == "Running" {
                return;
            }
            assert!(Instant::now() < deadline, "{pod}");
        }
    }

    /// A session with the pod.
    async fn session(&self, id: &str) -> Upgraded {
        let target = format!("{POD}/exec?command=sh&stdin=true&stdout=true");
        let mut request = self.request(Method::GET, &target, id, &Value::Null);
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let (mut answer, _load) = self.gateway.send_upgrade(request).await.unwrap();
        assert_eq!(answer.status(), 101);
        hyper::upgrade::on(&mut answer).await.unwrap()
    }
}

/// T39 with a process and its file.
#[test]
fn t39_a_sigterm_leaves_no_request_without_its_final_event_in_the_file() {
    let dev = Dev::start(&["--no-traffic"]);
    let path = dev.path("gateway-audit.log");
    let client = Client::of(&dev);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (status, _dir, watches, answered) = runtime.block_on(async {
        client.run_pod().await;
        let mut watches = Vec::new();
        for number in 0..WATCHES {
            let id = format!("watch-{number}");
            watches.push(client.get("/api/v1/configmaps?watch=1", &id).await.into_body());
        }
        let mut sessions = Vec::new();
        for number in 0..SESSIONS {
            sessions.push(client.session(&format!("session-{number}")).await);
        }
        // They are under way when the signal comes, or just over, or come too late.
        let mut short = tokio::task::JoinSet::new();
        for number in 0..SHORT {
            let (client, id) = (client.clone(), format!("short-{number}"));
            short.spawn(async move {
                let request = if number % 2 == 0 {
                    client.request(Method::GET, "/api/v1/configmaps", &id, &Value::Null)
                } else {
                    let settings =
                        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": &id}});
                    client.request(
                        Method::POST,
                        "/api/v1/namespaces/default/configmaps",
                        &id,
                        &settings,
                    )
                };
                let answer = client.gateway.send(request).await.ok()?;
                answer.into_body().collect().await.ok().map(|_| id)
            });
        }
        let ended = tokio::task::spawn_blocking(move || dev.terminate());
        // Some sessions end by themselves meanwhile, and others are cut.
        sessions.truncate(SESSIONS / 2);
        let mut ends = Vec::new();
        for watch in watches {
            ends.push(watch.collect().await.map(|events| events.to_bytes()));
        }
        let answered: Vec<String> = short.join_all().await.into_iter().flatten().collect();
        let (status, dir) = ended.await.unwrap();
        drop(sessions);
        (status, dir, ends, answered)
    });
    assert!(status.success(), "{status}");
    for events in watches {
        let events = events.unwrap();
        assert!(events.is_empty() || events.ends_with(b"\n"), "a watch ends whole");
    }

    let mut stages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events(&path) {
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        stages.entry(text("auditID")).or_default().push(text("stage"));
    }
    let watches = (0..WATCHES).map(|number| format!("watch-{number}"));
    let sessions = (0..SESSIONS).map(|number| format!("session-{number}"));
    for id in watches.chain(sessions) {
        let whole = ["RequestReceived", "ResponseStarted", "ResponseComplete"];
        assert_eq!(stages[&id], whole, "{id}");
    }
    for id in answered {
        assert_eq!(stages[&id], ["RequestReceived", "ResponseComplete"], "{id}");
    }
    // Nor does one lack it whose answer the client never saw.
    for (id, stages) in &stages {
        let finals = stages.iter().filter(|stage| *stage == "ResponseComplete").count();
        assert_eq!(finals, 1, "{id}: {stages:?}");
    }
}
