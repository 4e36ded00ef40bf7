//! Proxies that say whose connections they pass on.

use std::time::Duration;

use kaudit_listen::{Listener, ListenerMetrics, ProxyProtocol, Refused};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::fixture::{Server, ask, plain, rest};

async fn start(from: &str, time: Duration) -> (Server, ListenerMetrics) {
    let mut config = plain(|limits| {
        limits.handshake = time;
        limits.linger = Duration::from_millis(20);
    });
    config.proxies = ProxyProtocol::from(vec![from.parse().unwrap()]);
    let listener = Listener::bind(config).await.unwrap();
    let metrics = listener.metrics();
    (Server::serve(listener), metrics)
}

const TIME: Duration = Duration::from_secs(10);

#[tokio::test]
async fn t43_a_proxys_word_is_the_connections_address() {
    let (server, metrics) = start("127.0.0.0/8", TIME).await;
    for (header, expected) in [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.1 12345 6443\r\n",
            Some("192.0.2.1:12345"),
        ),
        ("PROXY UNKNOWN\r\n", None),
    ] {
        let mut client = TcpStream::connect(server.addr).await.unwrap();
        client.write_all(header.as_bytes()).await.unwrap();
        let own = client.local_addr().unwrap().to_string();
        let (_, address) = ask(&mut client).await;
        assert_eq!(address, expected.unwrap_or(&own));
        assert_eq!(metrics.open(), 1);
        drop(client);
        while metrics.open() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(metrics.accepted(), 2);
    server.end().await;
}

#[tokio::test]
async fn t43_nobody_else_is_asked_for_a_header_or_believed() {
    let (server, _) = start("192.0.2.0/24", TIME).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let own = client.local_addr().unwrap().to_string();
    assert_eq!(ask(&mut client).await.1, own);
    let mut liar = TcpStream::connect(server.addr).await.unwrap();
    liar.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 6443\r\nGET / HTTP/1.1\r\nHost: server\r\n\r\n")
        .await
        .unwrap();
    let answer = String::from_utf8(rest(&mut liar).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    server.end().await;
}

#[tokio::test]
async fn connections_of_proxies_without_a_header_are_closed_and_counted_by_reason() {
    let (server, metrics) = start("127.0.0.0/8", Duration::from_millis(200)).await;
    let mut seen = Refused::ALL.map(|_| 0);
    let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
    for (sent, ends, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", false, Refused::ProxyMalformed),
        (&long, false, Refused::ProxyTooLong),
        ("PROXY TCP4 192.0.2.1", true, Refused::ProxyIncomplete),
        ("PROXY TCP4 192.0.2.1", false, Refused::ProxyTimeout),
    ] {
        let mut client = TcpStream::connect(server.addr).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        if ends {
            client.shutdown().await.unwrap();
        }
        assert!(rest(&mut client).await.unwrap_or_default().is_empty(), "{sent}");
        while metrics.open() > 0 {
            tokio::task::yield_now().await;
        }
        let before = std::mem::replace(&mut seen, Refused::ALL.map(|reason| metrics.refused(reason)));
        let more = Refused::ALL.into_iter().zip(before.iter().zip(&seen));
        let counted: Vec<Refused> = more
            .filter(|(_, (before, now))| now > before)
            .map(|(reason, _)| reason)
            .collect();
        assert_eq!(counted, [reason], "{sent}");
    }
    server.end().await;
}
