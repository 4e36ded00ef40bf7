//! Streams, clients that leave, upstreams that are not there, and the end.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, METADATA, expected, head, past_reviews, raw_upstream, stages};

const WATCH: &str =
    "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\r\n";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/// An upstream that answers with a head, and with a chunk for each permit.
async fn stream(chunks: Arc<Semaphore>) -> Fixture {
    let (upstream, tasks) = raw_upstream(move |mut stream, _| {
        let chunks = Arc::clone(&chunks);
        async move {
            if past_reviews(&mut stream).await.is_empty() {
                return;
            }
            stream.write_all(CHUNKED.as_bytes()).await.unwrap();
            while let Ok(permit) = chunks.acquire().await {
                permit.forget();
                if stream.write_all(b"2\r\n{}\r\n").await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    Fixture::in_front_of(upstream, METADATA, false, got, tasks).await
}

#[tokio::test]
async fn t32_a_watch_is_flushed_event_by_event_and_its_head_at_once() {
    let chunks = Arc::new(Semaphore::new(0));
    let fixture = stream(Arc::clone(&chunks)).await;
    let mut client = TcpStream::connect(fixture.addr).await.unwrap();
    client.write_all(WATCH.as_bytes()).await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200"));
    let events = fixture.events_when(2).await;
    assert_eq!(
        stages(&events),
        expected(&[("RequestReceived", 0), ("ResponseStarted", 200)])
    );
    for _ in 0..3 {
        chunks.add_permits(1);
        let mut chunk = [0; 7];
        client.read_exact(&mut chunk).await.unwrap();
        assert_eq!(&chunk, b"2\r\n{}\r\n");
    }
    drop(client);
    chunks.add_permits(1);
    let events = fixture.events_when(3).await;
    assert_eq!(events[2]["stage"], "ResponseComplete");
    assert_eq!(events[2]["annotations"]["kaudit.dev/aborted"], "client");
    fixture.finish().await;
}

#[tokio::test]
async fn t39_watches_end_whole_when_the_gateway_stops() {
    let fixture = stream(Arc::new(Semaphore::new(0))).await;
    let mut client = TcpStream::connect(fixture.addr).await.unwrap();
    client.write_all(WATCH.as_bytes()).await.unwrap();
    head(&mut client).await;
    fixture.events_when(2).await;
    fixture.stop.cancel();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "0\r\n\r\n");
    let events = fixture.events_when(3).await;
    assert_eq!(events[2]["stage"], "ResponseComplete");
    fixture.finish().await;
}

#[tokio::test]
async fn t37_a_client_that_leaves_before_the_head_has_one_final_event() {
    let (upstream, tasks) = raw_upstream(|mut stream, _| async move {
        past_reviews(&mut stream).await;
        // It never answers.
        std::future::pending::<()>().await;
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let fixture = Fixture::in_front_of(upstream, METADATA, false, got, tasks).await;
    let mut client = TcpStream::connect(fixture.addr).await.unwrap();
    let request = "GET /api/v1/pods HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    fixture.events_when(1).await;
    drop(client);
    let events = fixture.events_when(2).await;
    assert_eq!(
        stages(&events),
        expected(&[("RequestReceived", 0), ("ResponseComplete", 200)])
    );
    assert_eq!(events[1]["responseStatus"]["message"], "Connection closed early");
    assert_eq!(events[1]["annotations"]["kaudit.dev/aborted"], "client");
    fixture.finish().await;
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_503_that_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = listener.local_addr().unwrap();
    drop(listener);
    let got = Arc::new(Mutex::new(Vec::new()));
    let fixture = Fixture::in_front_of(nowhere, METADATA, false, got, JoinSet::new()).await;
    let answer = fixture.get("/api/v1/pods", "").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("cannot connect to"), "{answer}");
    fixture.finish().await;
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_told_from_an_end() {
    let (upstream, tasks) = raw_upstream(|mut stream, _| async move {
        past_reviews(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
        // The gateway may be gone already.
        drop(stream.write_all(head.as_bytes()).await);
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let fixture = Fixture::in_front_of(upstream, METADATA, false, got, tasks).await;
    let mut client = TcpStream::connect(fixture.addr).await.unwrap();
    let request = "GET /api/v1/pods HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let events = fixture.events_when(2).await;
    let aborted = events[1]["annotations"]["kaudit.dev/aborted"].as_str().unwrap();
    assert!(aborted.starts_with("upstream: "), "{aborted}");
    drop(client);
    fixture.finish().await;
}
