//! Clients of HTTP/2 that ask for more than anybody needs. Frames are written by hand: a client's library would not
//! send what this sends.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use crate::fixture::{Fixture, Plan};

const LONG: Duration = Duration::from_secs(60);

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /api/v1/pods` with a good token; no field is remembered or compressed.
fn head() -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let mut head = vec![0x82, 0x86, 0x04];
    head.extend(text("/api/v1/pods"));
    head.push(0x01);
    head.extend(text("gateway"));
    // The name is the static table's 23rd.
    head.extend([0x0f, 0x08]);
    head.extend(text("Bearer good"));
    head
}

/// A field of 16,000 bytes and a bit; its name is new.
fn large_field() -> Vec<u8> {
    // 127 + 15,873, in seven bits at a time.
    let length = [0x7f, 0x81, 0x7c];
    [&[0x00, 0x05][..], b"x-big", &length, &[b'a'; 16_000]].concat()
}

async fn connect(fixture: &Fixture) -> TcpStream {
    let mut stream = TcpStream::connect(fixture.addr).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// The kinds of the frames that come, up to one of `last` or the end of the connection.
async fn kinds(reading: &mut OwnedReadHalf, last: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    let read = async {
        loop {
            let mut head = [0; 9];
            if reading.read_exact(&mut head).await.is_err() {
                return;
            }
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            if reading.read_exact(&mut payload).await.is_err() {
                return;
            }
            kinds.push(head[3]);
            if last.contains(&head[3]) {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, read).await.unwrap();
    kinds
}

/// Waits until every request that began has ended.
async fn settled(fixture: &Fixture) -> u64 {
    let waited = tokio::time::timeout(LONG, async {
        loop {
            let metrics = fixture.gateway.audit_metrics();
            if metrics.received == metrics.finals {
                return metrics.received;
            }
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap()
}

#[tokio::test]
async fn t29_rapid_resets_end_the_connection_and_each_accepted_request_has_both_events() {
    const STREAMS: u32 = 10_000;
    let fixture = Fixture::start(Plan::default()).await;
    let (mut reading, mut writing) = connect(&fixture).await.into_split();
    let write = async {
        let head = head();
        for number in 0..STREAMS {
            let stream = 2 * number + 1;
            let mut both = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
            both.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            if writing.write_all(&both).await.is_err() {
                return;
            }
        }
        // Keeps the connection open: who ends it is the gateway.
        std::future::pending().await
    };
    tokio::select! {
        // To the end of the connection.
        _ = kinds(&mut reading, &[]) => {}
        () = write => {}
    }
    let accepted = settled(&fixture).await;
    assert!(accepted < u64::from(STREAMS), "{accepted} were accepted");
    let mut stages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in fixture.events() {
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        stages.entry(text("auditID")).or_default().push(text("stage"));
    }
    assert_eq!(u64::try_from(stages.len()).unwrap(), accepted);
    for (id, stages) in &stages {
        assert_eq!(stages, &["RequestReceived", "ResponseComplete"], "{id}");
    }
    let answer = fixture.get("/api/v1/pods", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    fixture.finish().await;
}

#[tokio::test]
async fn t30_a_head_without_end_ends_the_connection() {
    let fixture = Fixture::start(Plan::default()).await;
    let (mut reading, mut writing) = connect(&fixture).await.into_split();
    writing
        .write_all(&frame(HEADERS, END_STREAM, 1, &head()))
        .await
        .unwrap();
    let write = async {
        let field = frame(CONTINUATION, 0, 1, &large_field());
        // A thousand times what a head may have; nobody reads that far.
        for _ in 0..64_000 {
            if writing.write_all(&field).await.is_err() {
                return;
            }
        }
        panic!("a gigabyte of head was read");
    };
    let ((), _) = tokio::join!(write, kinds(&mut reading, &[]));
    assert_eq!(fixture.events().len(), 0);
    assert!(fixture.forwarded().is_empty());
    fixture.finish().await;
}

#[tokio::test]
async fn t30_small_pieces_of_a_head_without_end_end_the_connection_too() {
    let fixture = Fixture::start(Plan::default()).await;
    let (mut reading, mut writing) = connect(&fixture).await.into_split();
    writing
        .write_all(&frame(HEADERS, END_STREAM, 1, &head()))
        .await
        .unwrap();
    let write = async {
        let nothing = frame(CONTINUATION, 0, 1, &[]).repeat(100);
        for _ in 0..10_000 {
            if writing.write_all(&nothing).await.is_err() {
                return;
            }
        }
        panic!("a million frames of one head were read");
    };
    let ((), _) = tokio::join!(write, kinds(&mut reading, &[]));
    assert!(fixture.forwarded().is_empty());
    fixture.finish().await;
}

#[tokio::test]
async fn t30_a_head_of_more_than_a_mebibyte_is_refused_over_http2() {
    let fixture = Fixture::start(Plan::default()).await;
    let (mut reading, mut writing) = connect(&fixture).await.into_split();
    let write = async {
        let mut all = frame(HEADERS, END_STREAM, 1, &head());
        for _ in 0..70 {
            all.extend(frame(CONTINUATION, 0, 1, &large_field()));
        }
        all.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
        // It may be over before all is written.
        drop(writing.write_all(&all).await);
        writing
    };
    // 431 is a head on the stream.
    let (kept, kinds) = tokio::join!(write, kinds(&mut reading, &[HEADERS, RST_STREAM, GOAWAY]));
    assert!(
        kinds
            .last()
            .is_none_or(|last| [HEADERS, RST_STREAM, GOAWAY].contains(last)),
        "{kinds:?}"
    );
    assert!(fixture.forwarded().is_empty());
    drop(kept);
    fixture.finish().await;
}

#[tokio::test]
async fn t30_a_head_of_more_than_a_mebibyte_is_431_over_http1() {
    let fixture = Fixture::start(Plan::default()).await;
    let (mut reading, mut writing) = TcpStream::connect(fixture.addr).await.unwrap().into_split();
    let write = async {
        let field = format!("X-Big: {}\r\n", "a".repeat(16_000));
        let head = format!("GET / HTTP/1.1\r\nHost: gateway\r\n{}", field.repeat(70));
        // It may be over before all is written.
        drop(writing.write_all(head.as_bytes()).await);
    };
    let mut answer = [0; 12];
    let ((), read) = tokio::join!(write, reading.read_exact(&mut answer));
    read.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    assert!(fixture.forwarded().is_empty());
    fixture.finish().await;
}
