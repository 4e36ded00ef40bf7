//! T32, T33, T34: what the gateway holds of bodies that it passes on, counted where memory is allocated.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kaudit_dial::{Cluster, Trust, Upstream};
use kaudit_event::Body;
use kaudit_gateway::{Asked, DecisionReviews, Gateway};
use kaudit_listen::{ListenConfig, Listener};
use kaudit_policy::Policy;
use kaudit_sink::{Emission, Outcome, Reservation, Reserve, Sink};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a test holds at most while it does something, beyond what it held before. All of it runs on one
/// thread, and only that thread is counted.
fn most_held(runtime: &Runtime, act: impl Future<Output = ()>) -> usize {
    let held = allocation_counter::measure(|| runtime.block_on(act));
    usize::try_from(held.bytes_max).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[derive(Debug, Default)]
struct Events(Mutex<Vec<Value>>);

impl Sink for Events {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        let event = serde_json::from_slice(emission.line().unwrap()).unwrap();
        self.0.lock().unwrap().push(event);
        Outcome::Accepted
    }

    fn name(&self) -> String {
        "events".to_owned()
    }
}

/// A gateway, and an upstream that answers `/version` with an empty object and all else with the same bytes again and
/// again.
struct Stand {
    addr: SocketAddr,
    gateway: Gateway,
    events: Arc<Events>,
    stop: CancellationToken,
    serving: JoinSet<()>,
    upstream: JoinSet<()>,
}

/// What the upstream answers: a head, and then a piece so many times.
#[derive(Clone)]
struct Large {
    head: String,
    piece: Arc<[u8]>,
    times: usize,
    last: &'static [u8],
}

impl Stand {
    async fn start(level: &str, large: Large) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let mut upstream = JoinSet::new();
        upstream.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                connections.spawn(answer(stream, large.clone()));
            }
        });
        let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{{level: {level}}}]\n");
        let (policy, _) = Policy::parse(policy.as_bytes()).unwrap();
        let cluster = Cluster::new(format!("http://{addr}").parse().unwrap(), Trust::Public);
        let events = Arc::new(Events::default());
        let sink = Arc::clone(&events) as Arc<dyn Sink>;
        let mut decisions = DecisionReviews::default();
        decisions.asked = Asked::No;
        let gateway = Gateway::builder(Upstream::new(&cluster, false).unwrap(), policy, sink)
            .decisions(decisions)
            .build()
            .unwrap();
        let listener = Listener::bind(ListenConfig::plain("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap();
        let (addr, stop) = (listener.local_addr(), CancellationToken::new());
        let (server, stopped) = (gateway.clone(), stop.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { server.serve(listener, stopped, Duration::from_secs(1)).await });
        Self {
            addr,
            gateway,
            events,
            stop,
            serving,
            upstream,
        }
    }

    /// A client that has sent a request.
    async fn ask(&self, request: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        // Set by hand, it does not grow.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let mut client = socket.connect(self.addr).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    /// The events, when the gateway is over.
    async fn end(mut self) -> Vec<Value> {
        self.stop.cancel();
        self.serving.join_next().await.unwrap().unwrap();
        self.upstream.abort_all();
        while self.upstream.join_next().await.is_some() {}
        std::mem::take(&mut *self.events.0.lock().unwrap())
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Reads so many bytes and lets them go.
async fn discard(stream: &mut TcpStream, mut bytes: usize) {
    let mut buffer = vec![0; 64 << 10];
    while bytes > 0 {
        let room = bytes.min(buffer.len());
        let read = stream.read(&mut buffer[..room]).await.unwrap();
        assert_ne!(read, 0, "{bytes} are missing");
        bytes -= read;
    }
}

async fn answer(mut stream: TcpStream, large: Large) {
    loop {
        let request = head(&mut stream).await;
        if request.is_empty() {
            return;
        }
        let length = request
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        discard(&mut stream, length.unwrap_or(0)).await;
        let review = json!({"status": {"userInfo": {"username": "alice"}}}).to_string();
        let small = |code: &str, body: &str| {
            let mut answer = String::new();
            let length = body.len();
            write!(
                answer,
                "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .unwrap();
            answer
        };
        if request.contains("selfsubjectreviews") {
            stream
                .write_all(small("201 Created", &review).as_bytes())
                .await
                .unwrap();
        } else if request.contains("/version") {
            stream.write_all(small("200 OK", "{}").as_bytes()).await.unwrap();
        } else {
            stream.write_all(large.head.as_bytes()).await.unwrap();
            for _ in 0..large.times {
                // A client that has seen enough is the gateway's to notice.
                if stream.write_all(&large.piece).await.is_err() {
                    return;
                }
            }
            if stream.write_all(large.last).await.is_err() {
                return;
            }
        }
    }
}

const MIB: usize = 1 << 20;
const LIST: usize = 100 * MIB;

/// A list of 100 MiB.
fn list() -> Large {
    let piece: Arc<[u8]> = b"{\"metadata\":{\"name\":\"pod\"}},    ".repeat(2048).into();
    assert_eq!(piece.len(), 64 << 10);
    Large {
        head: format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            LIST + 38
        ) + "{\"kind\":\"PodList\",\"items\":[",
        times: LIST / piece.len(),
        piece,
        last: b"{}]}       ",
    }
}

const GET: &str = "GET /api/v1/pods HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\r\n";
const VERSION: &str = "GET /version HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\r\n";

#[test]
fn t33_a_large_list_is_never_held_whole() {
    let runtime = runtime();
    for (level, most) in [("Metadata", 4 * MIB), ("RequestResponse", 24 * MIB)] {
        let stand = runtime.block_on(Stand::start(level, list()));
        let held = most_held(&runtime, async {
            let mut client = stand.ask(GET).await;
            assert!(head(&mut client).await.starts_with("HTTP/1.1 200"));
            discard(&mut client, LIST + 38).await;
        });
        assert!(held < most, "{level}: {held}");
        let metrics = stand.gateway.audit_metrics();
        let events = runtime.block_on(stand.end());
        assert_eq!(events[1]["stage"], "ResponseComplete");
        assert!(events[1]["responseObject"].is_null());
        let said = events[1]["annotations"].get(Body::Response.annotation());
        if level == "Metadata" {
            assert_eq!((said, metrics.bodies_over_limit), (None, 0));
        } else {
            assert_eq!(said.unwrap(), "larger than the limit for one body");
            assert_eq!(metrics.bodies_over_limit, 1);
        }
    }
}

#[test]
fn t33_a_large_request_is_never_held_whole() {
    let runtime = runtime();
    let stand = runtime.block_on(Stand::start("RequestResponse", list()));
    let request = format!(
        "POST /api/v1/namespaces/n/configmaps?to=/version HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\
         Content-Type: application/json\r\nContent-Length: {LIST}\r\n\r\n"
    );
    let piece = vec![b' '; 64 << 10];
    let held = most_held(&runtime, async {
        let mut client = stand.ask(&request).await;
        for _ in 0..LIST / piece.len() {
            client.write_all(&piece).await.unwrap();
        }
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200"));
    });
    assert!(held < 16 * MIB, "{held}");
    let events = runtime.block_on(stand.end());
    assert_eq!(events[1]["stage"], "ResponseComplete");
    assert!(events[1]["requestObject"].is_null());
    let said = &events[1]["annotations"][Body::Request.annotation()];
    assert_eq!(*said, "larger than the limit for one body");
}

#[test]
fn t32_t33_what_is_not_read_is_not_taken_from_the_cluster() {
    let runtime = runtime();
    let watch = Large {
        head: "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_owned(),
        piece: [b"10000\r\n".as_slice(), &[b'\n'; 64 << 10], b"\r\n"]
            .concat()
            .into(),
        times: 4096,
        last: b"0\r\n\r\n",
    };
    for (level, target, large) in [
        ("RequestResponse", "/api/v1/pods?watch=1", watch),
        ("Metadata", "/api/v1/pods", list()),
        ("RequestResponse", "/api/v1/pods", list()),
    ] {
        let stand = runtime.block_on(Stand::start(level, large));
        let request = GET.replacen("/api/v1/pods", target, 1);
        let held = most_held(&runtime, async {
            let mut slow = Vec::new();
            for _ in 0..8 {
                let mut client = stand.ask(&request).await;
                head(&mut client).await;
                slow.push(client);
            }
            // All runs on one thread: a gateway that took what nobody reads would have had time for it.
            let mut other = stand.ask("").await;
            for _ in 0..256 {
                other.write_all(VERSION.as_bytes()).await.unwrap();
                head(&mut other).await;
                discard(&mut other, 2).await;
            }
        });
        // What is read ahead and not yet written; and of a list that is recorded, its copy as it grows.
        let copy = if level == "RequestResponse" && !target.contains("watch") {
            12 * MIB
        } else {
            0
        };
        let most = 8 * (3 * MIB + copy);
        assert!(held < most, "{level} {target}: {held}");
        runtime.block_on(stand.end());
    }
}

#[test]
fn t34_a_compressed_body_is_not_blown_up_beyond_the_limit() {
    let runtime = runtime();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..1024 {
        std::io::Write::write_all(&mut gzip, &[b' '; 64 << 10]).unwrap();
    }
    let gzip = gzip.finish().unwrap();
    let length = gzip.len();
    assert!(length < MIB, "64 MiB have become {length}");
    let bomb = Large {
        head: format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\
             Content-Length: {length}\r\n\r\n"
        ),
        piece: gzip.into(),
        times: 1,
        last: b"",
    };
    let stand = runtime.block_on(Stand::start("RequestResponse", bomb));
    let gateway = stand.gateway.clone();
    let mut events = Vec::new();
    let held = most_held(&runtime, async {
        let mut client = stand.ask(GET).await;
        head(&mut client).await;
        discard(&mut client, length).await;
        drop(client);
        events = stand.end().await;
    });
    assert!(held < 24 * MIB, "{held}");
    let said = &events[1]["annotations"][Body::Response.annotation()];
    assert_eq!(*said, "larger than the limit for one body");
    assert_eq!(gateway.audit_metrics().bodies_over_limit, 1);
}
