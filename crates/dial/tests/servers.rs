//! Several servers of one cluster, some of which refuse, die, hang or say that they are not ready.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kaudit_dial::{
    Cluster, OutgoingBody, Protocol, SendError, Servers, Trust, Upstream, UpstreamBody, UpstreamOptions,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A server, whose tasks end with it.
struct Fake {
    address: SocketAddr,
    /// Requests that came, but those to `/readyz`.
    came: Arc<AtomicUsize>,
    hosts: Arc<Mutex<Vec<String>>>,
    /// The answer to `/readyz`.
    ready: Arc<AtomicU16>,
    /// Whether it answers at all.
    hangs: Arc<AtomicBool>,
    /// What its watches say.
    events: watch::Sender<&'static str>,
    _tasks: JoinSet<()>,
}

impl Fake {
    async fn start(protocol: Protocol) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), protocol)
    }

    fn on(listener: TcpListener, protocol: Protocol) -> Self {
        let address = listener.local_addr().unwrap();
        let (came, hosts) = (
            Arc::<AtomicUsize>::default(),
            Arc::<Mutex<Vec<String>>>::default(),
        );
        let (ready, hangs) = (Arc::new(AtomicU16::new(200)), Arc::<AtomicBool>::default());
        let (events, told) = watch::channel("begun");
        let mut tasks = JoinSet::new();
        let state = (
            Arc::clone(&came),
            Arc::clone(&hosts),
            Arc::clone(&ready),
            Arc::clone(&hangs),
        );
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, told) = (state.clone(), told.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let ((came, hosts, ready, hangs), told) = (state.clone(), told.clone());
                    async move {
                        if request.uri().path() != "/readyz" {
                            came.fetch_add(1, Ordering::Relaxed);
                        }
                        let host = request.headers().get(header::HOST);
                        let host = host.map(|host| host.to_str().unwrap().to_owned());
                        let authority = request.uri().authority().map(ToString::to_string);
                        hosts.lock().unwrap().extend(host.or(authority));
                        if hangs.load(Ordering::Relaxed) {
                            std::future::pending::<()>().await;
                        }
                        let mut reply = answer(request.uri().path(), address, told);
                        if request.uri().path() == "/readyz" {
                            *reply.status_mut() = ready.load(Ordering::Relaxed).try_into().unwrap();
                        }
                        Ok::<_, Infallible>(reply)
                    }
                });
                connections.spawn(async move {
                    let io = TokioIo::new(stream);
                    // Clients close connections as they like.
                    if protocol == Protocol::Http2 {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(builder.serve_connection(io, service).await);
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        drop(builder.serve_connection(io, service).with_upgrades().await);
                    }
                });
            }
        });
        Self {
            address,
            came,
            hosts,
            ready,
            hangs,
            events,
            _tasks: tasks,
        }
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }
}

fn answer(path: &str, address: SocketAddr, told: watch::Receiver<&'static str>) -> Reply {
    if path != "/watch" {
        return Response::new(Full::from(address.to_string()).boxed_unsync());
    }
    let events = futures_util::stream::unfold(told, |mut told| async move {
        let event = *told.borrow_and_update();
        if event == "seen" {
            told.changed().await.ok()?;
            let event = *told.borrow_and_update();
            return Some((Ok(Frame::data(Bytes::from_static(event.as_bytes()))), told));
        }
        // The first is said at once, later ones when they come.
        let frame = Ok(Frame::data(Bytes::from_static(event.as_bytes())));
        told.changed().await.ok()?;
        Some((frame, told))
    });
    Response::new(StreamBody::new(events).boxed_unsync())
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Connections to servers of the cluster `http://cluster.example:6443`.
fn upstream(addresses: &[SocketAddr], protocol: Protocol) -> Upstream {
    let servers = addresses
        .iter()
        .map(|address| format!("http://{address}").parse().unwrap());
    let options = UpstreamOptions::default()
        .protocol(protocol)
        .servers(Servers::new(servers));
    let cluster = "http://cluster.example:6443".parse().unwrap();
    Upstream::with_options(&Cluster::new(cluster, Trust::Public), false, &options).unwrap()
}

fn request(method: Method, target: &str) -> Request<OutgoingBody> {
    let text = if method == Method::POST { "once" } else { "" };
    let body = Full::from(text).map_err(|never: Infallible| match never {});
    Request::builder()
        .method(method)
        .uri(target)
        .body(body.boxed_unsync())
        .unwrap()
}

async fn text(body: UpstreamBody) -> String {
    let bytes = body.collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Who answered.
async fn ask(upstream: &Upstream, method: Method) -> Result<String, SendError> {
    let sent = upstream.send(request(method, "/pods"));
    let response = tokio::time::timeout(Duration::from_secs(20), sent)
        .await
        .unwrap()?;
    Ok(text(response.into_body()).await)
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn requests_go_to_all_servers_in_the_name_of_the_cluster() {
    for protocol in PROTOCOLS {
        let fakes = [
            Fake::start(protocol).await,
            Fake::start(protocol).await,
            Fake::start(protocol).await,
        ];
        let upstream = upstream(&fakes.each_ref().map(|fake| fake.address), protocol);
        for _ in 0..120 {
            ask(&upstream, Method::GET).await.unwrap();
        }
        for (fake, metrics) in fakes.iter().zip(upstream.servers()) {
            assert!(fake.came() >= 15, "{}", fake.came());
            assert_eq!(metrics.requests, fake.came() as u64);
            assert_eq!(
                (metrics.aside, metrics.in_flight, metrics.connections),
                (None, 0, 1)
            );
            let hosts = fake.hosts.lock().unwrap();
            assert!(
                hosts.iter().all(|host| host == "cluster.example:6443"),
                "{hosts:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_server_that_refuses_costs_no_request() {
    for protocol in PROTOCOLS {
        let fake = Fake::start(protocol).await;
        let upstream = upstream(&[nobody().await, fake.address], protocol);
        for method in [Method::POST, Method::GET, Method::DELETE]
            .iter()
            .cycle()
            .take(30)
        {
            let answered = ask(&upstream, method.clone()).await.unwrap();
            assert_eq!(answered, fake.address.to_string());
        }
        let servers = upstream.servers();
        assert!(
            servers[0].aside.as_ref().unwrap().contains("cannot connect"),
            "{servers:?}"
        );
        assert_eq!((servers[0].requests, servers[1].requests), (0, 30));
        assert_eq!(fake.came(), 30);
        assert!((1..=2).contains(&servers[0].connect_failures), "{servers:?}");
    }
}

#[tokio::test]
async fn a_server_that_dies_under_a_request_gets_a_write_once_and_a_read_moves_on() {
    for protocol in PROTOCOLS {
        // Reads what comes and closes.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, came) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let seen = Arc::clone(&came);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if protocol == Protocol::Http2 {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    if connection.accept().await.is_some() {
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                } else {
                    let mut stream = stream;
                    if stream.read(&mut [0; 1024]).await.unwrap() > 0 {
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        let fake = Fake::start(protocol).await;
        let upstream = upstream(&[address, fake.address], protocol);
        let mut failed = 0;
        for asked in 1.. {
            let died = came.load(Ordering::Relaxed);
            let answer = ask(&upstream, Method::POST).await;
            failed += usize::from(answer.is_err());
            assert_eq!(came.load(Ordering::Relaxed) - died, usize::from(answer.is_err()));
            assert_eq!(
                came.load(Ordering::Relaxed) + fake.came(),
                asked,
                "each was sent once"
            );
            if failed == 2 {
                break;
            }
        }
        let writes = fake.came();
        for asked in 1.. {
            ask(&upstream, Method::GET).await.unwrap();
            assert_eq!(fake.came() - writes, asked, "each was answered in the end");
            assert!(came.load(Ordering::Relaxed) <= 4, "it is put aside");
            if let Some(why) = upstream.servers()[0].aside.clone() {
                assert_eq!(why, "its connections break before it answers");
                break;
            }
        }
    }
}

#[tokio::test]
async fn t28_what_a_server_refused_unprocessed_goes_to_another() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, refused) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let seen = Arc::clone(&refused);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            seen.fetch_add(1, Ordering::Relaxed);
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    });
    let fake = Fake::start(Protocol::Http2).await;
    let upstream = upstream(&[address, fake.address], Protocol::Http2);
    while refused.load(Ordering::Relaxed) < 5 {
        assert_eq!(
            ask(&upstream, Method::POST).await.unwrap(),
            fake.address.to_string()
        );
    }
    assert_eq!(upstream.metrics().retried, 5);
}

#[tokio::test]
async fn sessions_go_to_a_server_that_can_be_reached() {
    let fake = Fake::start(Protocol::Http1).await;
    let upstream = upstream(&[nobody().await, nobody().await, fake.address], Protocol::Auto);
    for _ in 0..10 {
        let request = request(Method::GET, "/exec");
        upstream.send_upgrade(request).await.unwrap();
    }
    assert_eq!(fake.came(), 10);
}

#[tokio::test]
async fn sessions_count_in_the_load_of_their_servers_until_they_end() {
    let fakes = [
        Fake::start(Protocol::Http1).await,
        Fake::start(Protocol::Http1).await,
    ];
    let upstream = upstream(&fakes.each_ref().map(|fake| fake.address), Protocol::Http1);
    let loads = || {
        let servers = upstream.servers();
        (servers[0].in_flight, servers[1].in_flight)
    };
    let mut sessions = Vec::new();
    for _ in 0..20 {
        let request = request(Method::GET, "/exec");
        sessions.push(upstream.send_upgrade(request).await.unwrap());
    }
    // Each went to the less busy one of the two.
    assert_eq!(loads(), (10, 10));
    sessions.truncate(7);
    assert_eq!(loads().0 + loads().1, 7);
    drop(sessions);
    assert_eq!(loads(), (0, 0));
}

#[tokio::test]
async fn with_all_servers_aside_requests_try_them_all_the_same() {
    let addresses = [nobody().await, nobody().await];
    let upstream = upstream(&addresses, Protocol::Http1);
    for method in [Method::POST, Method::GET] {
        let error = ask(&upstream, method).await.unwrap_err();
        assert!(matches!(error, SendError::Connect(_)), "{error}");
    }
    assert!(upstream.servers().iter().all(|server| server.aside.is_some()));
    let listener = TcpListener::bind(addresses[1]).await.unwrap();
    let fake = Fake::on(listener, Protocol::Http1);
    for _ in 0..5 {
        ask(&upstream, Method::POST).await.unwrap();
    }
    let servers = upstream.servers();
    assert!(
        servers[0].aside.is_some() && servers[1].aside.is_none(),
        "{servers:?}"
    );
    assert_eq!(fake.came(), 5);
}

#[tokio::test]
async fn a_server_that_is_not_ready_gets_nothing_new_and_its_watches_live_on() {
    for protocol in PROTOCOLS {
        let (draining, other) = (Fake::start(protocol).await, Fake::start(protocol).await);
        let upstream = upstream(&[draining.address, other.address], protocol);
        let mut watch = loop {
            let watch = upstream.send(request(Method::GET, "/watch")).await.unwrap();
            if draining.came() == 1 {
                break watch.into_body();
            }
        };
        draining.ready.store(500, Ordering::Relaxed);
        upstream.check_servers(None);
        tokio::time::timeout(Duration::from_secs(20), async {
            while upstream.servers()[0].aside.is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(
            upstream.servers()[0].aside.as_deref(),
            Some("it answers 500 to /readyz")
        );
        let before = other.came();
        for _ in 0..20 {
            ask(&upstream, Method::GET).await.unwrap();
        }
        assert_eq!((draining.came(), other.came() - before), (1, 20));
        for (say, hear) in [("more", "begun"), ("end", "more")] {
            draining.events.send_replace(say);
            let frame = watch.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), hear);
        }
        drop(watch);
        tokio::time::timeout(Duration::from_secs(20), upstream.close())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_a_silent_server_was_asked_for_is_asked_of_another() {
    for protocol in PROTOCOLS {
        let (silent, other) = (Fake::start(protocol).await, Fake::start(protocol).await);
        silent.hangs.store(true, Ordering::Relaxed);
        let upstream = upstream(&[silent.address, other.address], protocol);
        let (answered, mut answers) = mpsc::channel(8);
        let mut asking = JoinSet::new();
        for _ in 0..8 {
            let (upstream, answered) = (upstream.clone(), answered.clone());
            asking.spawn(async move {
                let answer = ask(&upstream, Method::GET).await.unwrap();
                answered.send(answer).await.unwrap();
            });
        }
        for _ in 0..8 {
            let (upstream, answered) = (upstream.clone(), answered.clone());
            asking.spawn(async move {
                let question = Request::post("/reviews")
                    .body(Bytes::from_static(b"who?"))
                    .unwrap();
                let answer = upstream.send_question(question).await.unwrap();
                answered.send(text(answer.into_body()).await).await.unwrap();
            });
        }
        upstream.check_servers(None);
        for _ in 0..16 {
            assert_eq!(answers.recv().await.unwrap(), other.address.to_string());
        }
        assert!(upstream.metrics().retried <= 16);
        assert_eq!(
            upstream.servers()[0].aside.as_deref(),
            Some("it does not answer /readyz")
        );
    }
}

#[tokio::test]
async fn who_shares_the_servers_knows_what_the_others_found_out() {
    let fake = Fake::start(Protocol::Http1).await;
    let servers = Servers::new([
        format!("http://{}", nobody().await).parse().unwrap(),
        format!("http://{}", fake.address).parse().unwrap(),
    ]);
    assert_eq!((servers.len(), servers.is_empty()), (2, false));
    let options = UpstreamOptions::default().servers(servers);
    let cluster = Cluster::new("http://cluster.example".parse().unwrap(), Trust::Public);
    let [ours, theirs] = [(), ()].map(|()| Upstream::with_options(&cluster, false, &options).unwrap());
    while ours.servers()[0].aside.is_none() {
        ask(&ours, Method::POST).await.unwrap();
    }
    let failures = theirs.servers()[0].connect_failures;
    for _ in 0..20 {
        ask(&theirs, Method::POST).await.unwrap();
    }
    assert_eq!(theirs.servers()[0].connect_failures, failures);
    assert_eq!(theirs.servers()[1].requests, 20);
}
