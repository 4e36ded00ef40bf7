//! T32, T34, T38: answers pass byte for byte and as they were flushed, and what is kept of them.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::fixture::{Fixture, METADATA, expected, head, past_reviews, raw_upstream, stages};

/// A gateway before an upstream that answers each request with these bytes: a first piece, and a further one
/// for each permit.
async fn answering(level: &str, pieces: Vec<Vec<u8>>, permits: Arc<Semaphore>) -> Fixture {
    let pieces = Arc::new(pieces);
    let (upstream, tasks) = raw_upstream(move |mut stream, _| {
        let (pieces, permits) = (Arc::clone(&pieces), Arc::clone(&permits));
        async move {
            while !past_reviews(&mut stream).await.is_empty() {
                for (index, piece) in pieces.iter().enumerate() {
                    if index > 0 {
                        permits.acquire().await.unwrap().forget();
                    }
                    stream.write_all(piece).await.unwrap();
                }
            }
        }
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    Fixture::in_front_of(upstream, level, false, got, tasks).await
}

fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n{more}\r\n")
}

async fn ask(fixture: &Fixture, request: &str) -> TcpStream {
    let mut client = TcpStream::connect(fixture.addr).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

async fn body(client: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.unwrap();
    body
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:X}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

const WATCH: &str = "/api/v1/pods?watch=1";
const PODS: &str = "/api/v1/namespaces/n/pods";

#[tokio::test]
async fn t32_a_slow_reader_of_a_watch_holds_up_its_own_watch_only() {
    static EVENT: [u8; 64 << 10] = [b'x'; 64 << 10];
    const EVENTS: usize = 1024;
    const WHOLE: usize = EVENTS * (64 << 10);
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let (upstream, tasks) = raw_upstream(move |mut stream, _| {
        let counted = Arc::clone(&counted);
        async move {
            loop {
                let request = past_reviews(&mut stream).await;
                if request.is_empty() {
                    return;
                }
                if !request.contains("slow") {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .await
                        .unwrap();
                    continue;
                }
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                for _ in 0..EVENTS {
                    stream.write_all(&chunk(&EVENT)).await.unwrap();
                    counted.fetch_add(EVENT.len(), Ordering::Relaxed);
                }
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let fixture = Fixture::in_front_of(upstream, METADATA, false, got, tasks).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut slow = socket.connect(fixture.addr).await.unwrap();
    let request = get("/api/v1/pods?watch=1&slow=1", "Connection: close\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    // The head is there before any event is read.
    assert!(head(&mut slow).await.starts_with("HTTP/1.1 200"));

    // Others are served as before; all runs on one thread, so that a gateway which took what the slow one
    // leaves would have had time to take all of it.
    let mut other = ask(&fixture, "").await;
    for _ in 0..EVENTS {
        other.write_all(get("/version", "").as_bytes()).await.unwrap();
        head(&mut other).await;
        assert_eq!(body(&mut other, 2).await, b"ok");
    }
    // What is under way fills the sockets' buffers, which the kernel bounds, and little more.
    let under_way = written.load(Ordering::Relaxed);
    assert!(under_way < WHOLE / 2, "{under_way} of {WHOLE}");

    let mut rest = vec![0; 1 << 20];
    let mut read = 0;
    while let Ok(more @ 1..) = slow.read(&mut rest).await {
        read += more;
    }
    assert!(read > WHOLE, "{read} of {WHOLE}");
    assert_eq!(written.load(Ordering::Relaxed), WHOLE);
    drop((slow, other));
    fixture.finish().await;
}

/// What kube-apiserver does with lists over 128 KiB, and newer ones with watches: each flush ends a block.
fn gzipped(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let mut flushed: Vec<Vec<u8>> = pieces
        .iter()
        .map(|piece| {
            gzip.write_all(piece).unwrap();
            gzip.flush().unwrap();
            std::mem::take(gzip.get_mut())
        })
        .collect();
    flushed.push(gzip.finish().unwrap());
    flushed
}

#[tokio::test]
async fn t34_a_list_in_gzip_passes_unchanged_and_is_recorded_in_plain() {
    let items: Vec<Value> = (0..4000)
        .map(|number| json!({"metadata": {"name": format!("pod-{number}"), "namespace": "n"}}))
        .collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}).to_string();
    assert!(list.len() > 128 << 10);
    let gzip = gzipped(&[list.as_bytes()]).concat();
    let answer_head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        gzip.len()
    );
    for (level, is_recorded) in [(METADATA, false), ("RequestResponse", true)] {
        let permits = Arc::new(Semaphore::new(0));
        let answer = [answer_head.as_bytes(), &gzip].concat();
        let fixture = answering(level, vec![answer], permits).await;
        let mut client = ask(&fixture, &get(PODS, "Accept-Encoding: gzip\r\n")).await;
        let head = head(&mut client).await;
        assert!(head.contains("content-encoding: gzip"), "{head}");
        assert_eq!(body(&mut client, gzip.len()).await, gzip);
        let events = fixture.events_when(2).await;
        let recorded = &events[1]["responseObject"];
        if is_recorded {
            assert_eq!(*recorded, serde_json::from_str::<Value>(&list).unwrap());
        } else {
            assert!(recorded.is_null());
        }
        drop(client);
        fixture.finish().await;
    }
}

#[tokio::test]
async fn t34_a_watch_in_gzip_is_flushed_as_it_came() {
    for level in [METADATA, "RequestResponse"] {
        let events: [&[u8]; 3] = [
            b"{\"type\":\"ADDED\"}\n",
            b"{\"type\":\"MODIFIED\"}\n",
            b"{\"type\":\"BOOKMARK\"}\n",
        ];
        let flushed = gzipped(&events);
        let head_bytes = b"HTTP/1.1 200 OK\r\nContent-Type: application/json;stream=watch\r\n\
                           Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n";
        let pieces = std::iter::once(head_bytes.to_vec())
            .chain(flushed.iter().map(|bytes| chunk(bytes)))
            .chain([b"0\r\n\r\n".to_vec()])
            .collect();
        let permits = Arc::new(Semaphore::new(0));
        let fixture = answering(level, pieces, Arc::clone(&permits)).await;
        let mut client = ask(&fixture, &get(WATCH, "Accept-Encoding: gzip\r\n")).await;
        head(&mut client).await;
        for bytes in &flushed {
            // Nothing more is sent before this has come.
            permits.add_permits(1);
            let chunk = chunk(bytes);
            assert_eq!(body(&mut client, chunk.len()).await, chunk);
        }
        permits.add_permits(1);
        assert_eq!(body(&mut client, 5).await, b"0\r\n\r\n");
        let events = fixture.events_when(3).await;
        assert_eq!(
            stages(&events),
            expected(&[
                ("RequestReceived", 0),
                ("ResponseStarted", 200),
                ("ResponseComplete", 200)
            ])
        );
        assert!(events[2]["responseObject"].is_null());
        drop(client);
        fixture.finish().await;
    }
}

#[tokio::test]
async fn t38_answers_without_a_body_or_of_known_length_end_with_their_last_byte() {
    for (method, answer, code, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, 0),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, 0),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", 304, 0),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, 0),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, 5),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            200,
            15,
        ),
    ] {
        let permits = Arc::new(Semaphore::new(0));
        let fixture = answering(METADATA, vec![answer.as_bytes().to_vec()], permits).await;
        let request = get(PODS, "").replacen("GET", method, 1);
        let mut client = ask(&fixture, &request).await;
        head(&mut client).await;
        body(&mut client, length).await;
        // The connection stays, and so does whoever would drop the body.
        let events = fixture.events_when(2).await;
        assert_eq!(
            stages(&events),
            expected(&[("RequestReceived", 0), ("ResponseComplete", code)]),
            "{method} {answer}"
        );
        let aborted = events[1]["annotations"].get("kaudit.dev/aborted");
        assert_eq!(aborted, None, "{method} {answer}");
        drop(client);
        fixture.finish().await;
    }
}
