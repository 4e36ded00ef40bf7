//! Clients that begin a body and send no more of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kaudit_dial::{Cluster, OutgoingBody, Protocol, Trust, Upstream, UpstreamOptions};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::fixture::{
    Fixture, Identities, METADATA, SSAR, SSR, expected, head, past_reviews, raw_upstream, respond, stages,
};

/// Who does not stall is never silent for nearly as long, however busy the machine.
const LIMIT: Duration = Duration::from_millis(500);

const CREATE: &str = "POST /api/v1/namespaces/n/pods HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\
                      Content-Type: application/json\r\n";

/// What a cluster got of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Whole(usize),
    Half,
}

/// A cluster that speaks both protocols and tells what it got.
async fn cluster() -> (SocketAddr, mpsc::Receiver<Got>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel(8);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            let service = service_fn(move |request| answer(request, tell.clone()));
            connections.spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // The gateway closes connections as it likes.
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (address, told, tasks)
}

async fn answer(
    request: Request<Incoming>,
    tell: mpsc::Sender<Got>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if [SSR, SSAR].contains(&request.uri().path()) {
        let nothing = |_: &crate::fixture::Got| Response::default();
        return Ok(respond(request, Identities::Known, &Mutex::default(), &nothing).await);
    }
    let got = match request.into_body().collect().await {
        Ok(body) => Got::Whole(body.to_bytes().len()),
        Err(_) => Got::Half,
    };
    tell.send(got).await.unwrap();
    Ok(Response::new(Full::from("{}")))
}

/// A gateway before an address that is spoken to so.
async fn gateway(cluster: SocketAddr, protocol: Protocol, tasks: JoinSet<()>) -> Fixture {
    let cluster = Cluster::new(format!("http://{cluster}").parse().unwrap(), Trust::Public);
    let options = UpstreamOptions::default().protocol(protocol);
    let upstream = Upstream::with_options(&cluster, false, &options).unwrap();
    let got = Arc::new(Mutex::new(Vec::new()));
    let impatient = |gateway: kaudit_gateway::Builder| gateway.body_idle_limit(LIMIT);
    Fixture::over(upstream, impatient, METADATA, false, got, tasks).await
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// What an event says of a client that stalled.
fn is_told(event: &Value) {
    assert_eq!(event["responseStatus"]["code"], 408, "{event}");
    assert_eq!(event["responseStatus"]["reason"], "Timeout");
    assert_eq!(
        event["annotations"]["kaudit.dev/aborted"],
        "client: nothing came of the request's body for 500ms"
    );
}

#[tokio::test]
async fn a_body_that_stalls_is_answered_408_and_never_carried_out() {
    for protocol in PROTOCOLS {
        for framing in [
            "Content-Length: 100\r\n\r\nhalf",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        ] {
            let (address, mut got, tasks) = cluster().await;
            let fixture = gateway(address, protocol, tasks).await;
            // Read to the end of the connection, which has no further use.
            let answer = fixture.exchange(format!("{CREATE}{framing}").as_bytes()).await;
            let answer = answer
                .strip_prefix("HTTP/1.1 100 Continue\r\n\r\n")
                .unwrap_or(&answer);
            assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
            assert!(
                answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"),
                "{answer}"
            );
            assert!(answer.contains(r#""kind":"Status""#), "{answer}");
            assert_eq!(got.recv().await, Some(Got::Half));
            let events = fixture.events_when(2).await;
            assert_eq!(
                stages(&events),
                expected(&[("RequestReceived", 0), ("ResponseComplete", 408)])
            );
            is_told(&events[1]);
            let metrics = fixture.gateway.metrics();
            assert_eq!((metrics.stalled_bodies, metrics.broken), (1, 0));
            fixture.finish().await;
        }
    }
}

#[tokio::test]
async fn over_http2_only_the_stream_ends() {
    for protocol in PROTOCOLS {
        let (address, mut got, tasks) = cluster().await;
        let fixture = gateway(address, protocol, tasks).await;
        let itself = Cluster::new(format!("http://{}", fixture.addr).parse().unwrap(), Trust::Public);
        let options = UpstreamOptions::default().protocol(Protocol::Http2);
        let client = Upstream::with_options(&itself, false, &options).unwrap();
        let create = |pieces: mpsc::Receiver<&'static str>| {
            let frames = body_of(pieces);
            Request::post("/api/v1/namespaces/n/pods")
                .header("authorization", "Bearer good")
                .body(frames)
                .unwrap()
        };
        let (stalls, pieces) = mpsc::channel(8);
        stalls.send("half").await.unwrap();
        let answer = client.send(create(pieces)).await.unwrap();
        assert_eq!(answer.status(), 408);
        assert!(!answer.headers().contains_key("connection"));
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(
            (&answer["kind"], &answer["code"]),
            (&"Status".into(), &408.into())
        );
        assert_eq!(got.recv().await, Some(Got::Half));
        is_told(&fixture.events_when(2).await[1]);
        // The next goes over the same connection.
        let (sends, pieces) = mpsc::channel(8);
        sends.send("whole").await.unwrap();
        drop(sends);
        let answer = client.send(create(pieces)).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(got.recv().await, Some(Got::Whole(5)));
        assert_eq!(client.metrics().opened, 1);
        fixture.finish().await;
    }
}

/// A body of what comes.
fn body_of(pieces: mpsc::Receiver<&'static str>) -> OutgoingBody {
    struct Pieces(mpsc::Receiver<&'static str>);
    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = kaudit_tower::BoxError;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let piece = std::task::ready!(self.0.poll_recv(cx));
            std::task::Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from(piece)))))
        }
    }
    Pieces(pieces).boxed_unsync()
}

#[tokio::test]
async fn an_answer_that_has_begun_breaks_off_and_the_event_says_whose_doing_it_was() {
    let (address, tasks) = raw_upstream(|mut stream, _| async move {
        if past_reviews(&mut stream).await.is_empty() {
            return;
        }
        let begun = "HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\nhalf";
        stream.write_all(begun.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let fixture = gateway(address, Protocol::Http1, tasks).await;
    let request = format!("{CREATE}Content-Length: 100\r\n\r\nhalf");
    let answer = fixture.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhalf"), "{answer}");
    let events = fixture.events_when(2).await;
    assert_eq!(
        stages(&events),
        expected(&[("RequestReceived", 0), ("ResponseComplete", 201)])
    );
    let aborted = &events[1]["annotations"]["kaudit.dev/aborted"];
    assert_eq!(aborted, "client: nothing came of the request's body for 500ms");
    assert_eq!(fixture.gateway.metrics().stalled_bodies, 1);
    fixture.finish().await;
}

#[tokio::test]
async fn a_cluster_that_takes_no_body_makes_nobody_slow() {
    // More than all buffers on the way hold.
    const LENGTH: usize = 64 << 20;
    let let_go = Arc::new(Semaphore::new(0));
    let reads = Arc::clone(&let_go);
    let (address, tasks) = raw_upstream(move |mut stream, _| {
        let reads = Arc::clone(&reads);
        async move {
            let request = past_reviews(&mut stream).await;
            if !request.contains("/large") {
                std::future::pending::<()>().await;
            }
            reads.acquire().await.unwrap().forget();
            let mut body = vec![0; LENGTH];
            stream.read_exact(&mut body).await.unwrap();
            let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let fixture = gateway(address, Protocol::Http1, tasks).await;
    let mut client = TcpStream::connect(fixture.addr).await.unwrap();
    let begin = format!("{CREATE}Content-Length: {LENGTH}\r\n\r\n").replacen("/pods", "/large", 1);
    client.write_all(begin.as_bytes()).await.unwrap();
    let body = vec![b'x'; LENGTH];
    let mut sent = 0;
    // Twice the time passes in which another client is found to stall, each from when this one gets rid of no more.
    for _ in 0..2 {
        let stalls = format!("{CREATE}Content-Length: 100\r\n\r\nhalf");
        let stalled = fixture.exchange(stalls.as_bytes());
        tokio::pin!(stalled);
        loop {
            tokio::select! {
                answer = &mut stalled => {
                    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
                    break;
                }
                more = client.write(&body[sent..]), if sent < LENGTH => sent += more.unwrap(),
            }
        }
    }
    assert!(sent < LENGTH, "the cluster's part of the way took all of it");
    let_go.add_permits(1);
    client.write_all(&body[sent..]).await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(fixture.gateway.metrics().stalled_bodies, 2);
    drop(client);
    fixture.finish().await;
}
