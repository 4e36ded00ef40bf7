//! A gateway on loopback, what stands behind it, and what it recorded.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kaudit_dial::{Cluster, Trust, Upstream};
use kaudit_gateway::{Builder, Gateway};
use kaudit_listen::{ListenConfig, Listener};
use kaudit_policy::Policy;
use kaudit_sink::{Emission, Outcome, Reason, Refusal, Reservation, Reserve, Sink};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const SSR: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
pub(crate) const SSAR: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// A request as the upstream got it.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the upstream does with a request that is no review.
pub(crate) type Answers = dyn Fn(&Got) -> Response<Full<Bytes>> + Send + Sync;

/// How the upstream answers the question who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identities {
    /// `Bearer good` is alice; no credentials are anonymous; others are refused.
    Known,
    /// Not at all: with this status.
    Broken(u16),
    /// With something that is no answer.
    Nonsense,
}

/// Keeps events; refuses RequestReceived if told to.
#[derive(Debug, Default)]
pub(crate) struct Events {
    lines: Mutex<Vec<Value>>,
    changed: Notify,
    refuses: bool,
}

impl Events {
    /// The events so far.
    pub(crate) fn so_far(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    /// The events once there are as many.
    pub(crate) async fn when(&self, count: usize) -> Vec<Value> {
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let changed = self.changed.notified();
                let events = self.so_far();
                if events.len() >= count {
                    return events;
                }
                changed.await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("only {:?}", self.so_far()))
    }
}

impl Sink for Events {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        if self.refuses {
            return Outcome::Refused(vec![Refusal {
                plugin: "test",
                reason: Reason::Write,
                message: "told to".to_owned(),
            }]);
        }
        let line = emission.line().unwrap();
        let breaks = line.iter().filter(|byte| **byte < b' ').count();
        assert_eq!((breaks, line.last()), (1, Some(&b'\n')));
        let event = serde_json::from_slice(line).unwrap();
        self.lines.lock().unwrap().push(event);
        self.changed.notify_waiters();
        Outcome::Accepted
    }

    fn name(&self) -> String {
        "events".to_owned()
    }
}

pub(crate) struct Fixture {
    pub(crate) addr: SocketAddr,
    pub(crate) gateway: Gateway,
    pub(crate) events: Arc<Events>,
    pub(crate) stop: CancellationToken,
    got: Arc<Mutex<Vec<Got>>>,
    serving: JoinSet<()>,
    tasks: JoinSet<()>,
}

/// What a gateway that stops leaves to what is open.
const GRACE: Duration = Duration::from_secs(1);

pub(crate) const METADATA: &str = "Metadata";

/// What a fixture is made of.
pub(crate) struct Plan {
    pub(crate) level: &'static str,
    pub(crate) identities: Identities,
    pub(crate) answers: Arc<Answers>,
    pub(crate) sink_refuses: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            level: METADATA,
            identities: Identities::Known,
            answers: Arc::new(|_: &Got| json_response(200, &json!({"kind": "PodList", "items": []}))),
            sink_refuses: false,
        }
    }
}

pub(crate) fn json_response(code: u16, body: &Value) -> Response<Full<Bytes>> {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// A Status in JSON.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Response<Full<Bytes>> {
    json_response(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code}),
    )
}

impl Fixture {
    pub(crate) async fn start(plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&got);
        let (identities, answers) = (plan.identities, plan.answers);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
                    async move { Ok::<_, Infallible>(respond(request, identities, &seen, answers.as_ref()).await) }
                });
                connections.spawn(async move {
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                    // The gateway closes connections as it likes.
                    drop(served);
                });
            }
        });
        Self::in_front_of(upstream, plan.level, plan.sink_refuses, got, tasks).await
    }

    /// A gateway in front of an address, whatever is there.
    pub(crate) async fn in_front_of(
        upstream: SocketAddr,
        level: &str,
        sink_refuses: bool,
        got: Arc<Mutex<Vec<Got>>>,
        tasks: JoinSet<()>,
    ) -> Self {
        let cluster = Cluster::new(format!("http://{upstream}").parse().unwrap(), Trust::Public);
        let upstream = Upstream::new(&cluster, false).unwrap();
        Self::over(upstream, |builder| builder, level, sink_refuses, got, tasks).await
    }

    /// A gateway over connections that are made in their own way.
    pub(crate) async fn over(
        upstream: Upstream,
        build: impl FnOnce(Builder) -> Builder,
        level: &str,
        sink_refuses: bool,
        got: Arc<Mutex<Vec<Got>>>,
        tasks: JoinSet<()>,
    ) -> Self {
        let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{{level: {level}}}]\n");
        let (policy, _) = Policy::parse(policy.as_bytes()).unwrap();
        let events = Arc::new(Events {
            refuses: sink_refuses,
            ..Events::default()
        });
        let sink: Arc<dyn Sink> = Arc::clone(&events) as Arc<dyn Sink>;
        let gateway = build(Gateway::builder(upstream, policy, sink)).build().unwrap();
        let listener = Listener::bind(ListenConfig::plain("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap();
        let (addr, stop) = (listener.local_addr(), CancellationToken::new());
        let (server, stopped) = (gateway.clone(), stop.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { server.serve(listener, stopped, GRACE).await });
        Self {
            addr,
            gateway,
            events,
            stop,
            got,
            serving,
            tasks,
        }
    }

    /// Waits for the end of a gateway that was stopped.
    pub(crate) async fn served(&mut self) {
        self.serving.join_next().await.unwrap().unwrap();
    }

    /// Requests that were forwarded: reviews are the gateway's own.
    pub(crate) fn forwarded(&self) -> Vec<Got> {
        let got = self.got.lock().unwrap();
        got.iter()
            .filter(|got| got.target != SSR && got.target != SSAR)
            .cloned()
            .collect()
    }

    pub(crate) fn reviews(&self, target: &str) -> Vec<Got> {
        let got = self.got.lock().unwrap();
        got.iter().filter(|got| got.target == target).cloned().collect()
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.so_far()
    }

    /// The events once there are as many.
    pub(crate) async fn events_when(&self, count: usize) -> Vec<Value> {
        self.events.when(count).await
    }

    /// Sends bytes and reads until the gateway closes.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// `GET` with a good token.
    pub(crate) async fn get(&self, target: &str, headers: &str) -> String {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer good\r\n{headers}\r\n"
        );
        self.exchange(request.as_bytes()).await
    }

    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        let metrics = self.gateway.audit_metrics();
        self.serving.abort_all();
        while self.serving.join_next().await.is_some() {}
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        assert_eq!(metrics.received, metrics.finals, "G-2");
    }
}

pub(crate) async fn respond(
    request: Request<Incoming>,
    identities: Identities,
    seen: &Mutex<Vec<Got>>,
    answers: &Answers,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let got = Got {
        method: head.method.to_string(),
        // Over HTTP/2 the authority is a field of its own.
        target: match head.uri.path_and_query() {
            Some(target) if head.version == http::Version::HTTP_2 => target.to_string(),
            _ => head.uri.to_string(),
        },
        headers: head.headers,
        body,
    };
    seen.lock().unwrap().push(got.clone());
    match got.target.as_str() {
        SSR => match identities {
            Identities::Broken(code) => status(code, "InternalError", "broken"),
            Identities::Nonsense => json_response(201, &json!({"status": {"userInfo": 5}})),
            Identities::Known => match got
                .headers
                .get("authorization")
                .map(|value| value.to_str().unwrap())
            {
                Some("Bearer good") => json_response(
                    201,
                    &json!({"status": {"userInfo": {"username": "alice", "uid": "7", "groups": ["devs"],
                        "extra": {"scopes": ["a"]}}}}),
                ),
                None => status(403, "Forbidden", "no"),
                Some(_) => status(401, "Unauthorized", "Unauthorized"),
            },
        },
        SSAR => json_response(201, &json!({"status": {"allowed": true, "reason": "rule 7"}})),
        _ => answers(&got),
    }
}

/// The statuses of the events, by stage.
pub(crate) fn stages(events: &[Value]) -> Vec<(String, u64)> {
    events
        .iter()
        .map(|event| {
            let stage = event["stage"].as_str().unwrap().to_owned();
            (
                stage,
                event["responseStatus"]["code"].as_u64().unwrap_or_default(),
            )
        })
        .collect()
}

/// The same with names that are easy to write.
pub(crate) fn expected(stages: &[(&str, u64)]) -> Vec<(String, u64)> {
    stages
        .iter()
        .map(|(stage, code)| ((*stage).to_owned(), *code))
        .collect()
}

/// An upstream that speaks for itself: each connection is given to `each`, in turn.
pub(crate) async fn raw_upstream<F, S>(each: F) -> (SocketAddr, JoinSet<()>)
where
    F: Fn(TcpStream, VecDeque<String>) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(each(stream, VecDeque::new()));
        }
    });
    (addr, tasks)
}

/// Reads one request's head.
pub(crate) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Answers the two reviews on a connection until another request comes; gives that one's head.
pub(crate) async fn past_reviews(stream: &mut TcpStream) -> String {
    loop {
        let request = head(stream).await;
        let body = if request.contains(SSR) {
            json!({"status": {"userInfo": {"username": "alice", "groups": ["devs"]}}})
        } else if request.contains(SSAR) {
            json!({"status": {"allowed": true, "reason": "rule 7"}})
        } else {
            return request;
        };
        let length: usize = request
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .map(|n| n.parse().unwrap())
            })
            .unwrap();
        let mut review = vec![0; length];
        stream.read_exact(&mut review).await.unwrap();
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}
