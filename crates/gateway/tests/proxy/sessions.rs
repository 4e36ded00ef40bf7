//! Connections that become tunnels.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::fixture::{Fixture, METADATA, expected, past_reviews, raw_upstream, stages};

const EXEC: &str = "/api/v1/namespaces/n/pods/p/exec?command=sh&stdin=true";

fn upgrade(connection: &str, protocol: &str) -> String {
    format!(
        "GET {EXEC} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\nConnection: {connection}\r\n\
         Upgrade: {protocol}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"
    )
}

/// A gateway in front of an upstream that answers each upgrade with `answer` and then echoes.
async fn echo(answer: &'static str) -> (Fixture, mpsc::Receiver<String>) {
    let (sender, heads) = mpsc::channel(8);
    let (upstream, tasks) = raw_upstream(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            let head = past_reviews(&mut stream).await;
            if head.is_empty() {
                return;
            }
            sender.send(head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..read]).await.unwrap();
            }
        }
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    (
        Fixture::in_front_of(upstream, METADATA, false, got, tasks).await,
        heads,
    )
}

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: x\r\n\r\n";

#[tokio::test]
async fn t20_a_session_is_audited_to_its_last_byte() {
    let (fixture, mut heads) = echo(SWITCHED).await;
    let mut stream = TcpStream::connect(fixture.addr).await.unwrap();
    stream
        .write_all(upgrade("Upgrade", "websocket").as_bytes())
        .await
        .unwrap();
    let answer = crate::fixture::head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-accept: x"), "{answer}");
    let forwarded = heads.recv().await.unwrap();
    assert!(forwarded.starts_with(&format!("GET {EXEC} ")), "{forwarded}");
    assert!(forwarded.contains("upgrade: websocket"), "{forwarded}");

    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    let events = fixture.events_when(2).await;
    assert_eq!(
        stages(&events),
        expected(&[("RequestReceived", 0), ("ResponseStarted", 101)])
    );

    drop(stream);
    let events = fixture.events_when(3).await;
    assert_eq!(events[2]["stage"], "ResponseComplete");
    assert_eq!(events[2]["responseStatus"]["code"], 101);
    assert_eq!(events[2]["verb"], "get");
    assert_eq!(events[2]["objectRef"]["subresource"], "exec");
    assert!(
        events
            .iter()
            .all(|event| event["auditID"] == events[0]["auditID"])
    );
    assert_eq!(events[2]["annotations"]["authorization.k8s.io/decision"], "allow");
    fixture.finish().await;
}

#[tokio::test]
async fn t22_a_refused_upgrade_is_an_ordinary_answer() {
    let (fixture, _heads) = echo(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    )
    .await;
    let mut stream = TcpStream::connect(fixture.addr).await.unwrap();
    stream
        .write_all(upgrade("Upgrade", "websocket").as_bytes())
        .await
        .unwrap();
    let answer = crate::fixture::head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let events = fixture.events_when(3).await;
    assert_eq!(
        stages(&events),
        expected(&[
            ("RequestReceived", 0),
            ("ResponseStarted", 403),
            ("ResponseComplete", 403)
        ])
    );
    assert_eq!(fixture.gateway.metrics().tunnels, 0);
    drop(stream);
    fixture.finish().await;
}

#[tokio::test]
async fn t24_other_upgrades_are_forwarded_as_ordinary_requests() {
    for (connection, protocol) in [
        ("Upgrade", "h2c"),
        ("notupgrade", "websocket"),
        ("Upgrade", "TLS/1.0"),
    ] {
        let (fixture, mut heads) = echo("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        let mut stream = TcpStream::connect(fixture.addr).await.unwrap();
        stream
            .write_all(upgrade(connection, protocol).as_bytes())
            .await
            .unwrap();
        let answer = crate::fixture::head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let forwarded = heads.recv().await.unwrap().to_ascii_lowercase();
        assert!(!forwarded.contains("upgrade:"), "{forwarded}");
        assert_eq!(fixture.gateway.metrics().tunnels, 0);
        drop(stream);
        fixture.finish().await;
    }
}

#[tokio::test]
async fn a_switch_to_another_protocol_is_refused() {
    let (fixture, _heads) =
        echo("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n").await;
    let mut stream = TcpStream::connect(fixture.addr).await.unwrap();
    stream
        .write_all(upgrade("Upgrade", "websocket").as_bytes())
        .await
        .unwrap();
    let answer = crate::fixture::head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let events = fixture.events_when(3).await;
    assert_eq!(events[2]["responseStatus"]["code"], 502);
    drop(stream);
    fixture.finish().await;
}
