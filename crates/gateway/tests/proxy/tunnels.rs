//! T20, T21, T23: sessions through all their stages, whichever way they end.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::fixture::{Fixture, METADATA, expected, head, past_reviews, raw_upstream, stages};

/// A protocol of sessions, and how kubectl asks for it.
#[derive(Clone, Copy, Debug)]
struct Protocol {
    method: &'static str,
    verb: &'static str,
    name: &'static str,
    headers: &'static str,
}

const SPDY: Protocol = Protocol {
    method: "POST",
    verb: "create",
    name: "SPDY/3.1",
    headers: "X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n",
};

const WEBSOCKET: Protocol = Protocol {
    method: "GET",
    verb: "get",
    name: "websocket",
    headers: "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n",
};

/// Who ends a session, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    ClientCloses,
    ClientResets,
    ClusterCloses,
    ClusterResets,
    GatewayStops,
}

fn ask(protocol: Protocol, subresource: &str) -> String {
    let Protocol {
        method,
        name,
        headers,
        ..
    } = protocol;
    format!(
        "{method} /api/v1/namespaces/n/pods/p/{subresource}?stdin=true HTTP/1.1\r\nHost: gateway\r\n\
         Authorization: Bearer good\r\nConnection: Upgrade\r\nUpgrade: {name}\r\n{headers}\r\n"
    )
}

/// A gateway in front of a cluster that agrees to what it is asked and echoes, until it hears `Q` (then it
/// closes) or `R` (then it resets). What it hears in a session is told when that ends.
async fn cluster() -> (Fixture, mpsc::Receiver<Vec<u8>>) {
    let (tell, told) = mpsc::channel(8);
    let (upstream, tasks) = raw_upstream(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            let head = past_reviews(&mut stream).await;
            let Some(protocol) = head.lines().find(|line| line.starts_with("upgrade: ")) else {
                return;
            };
            // The first bytes of the session come with the head.
            let answer =
                format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{protocol}\r\n\r\nfirst");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                heard.extend_from_slice(&buffer[..read]);
                match buffer[..read].last() {
                    Some(b'Q') => break,
                    Some(b'R') => {
                        stream.set_zero_linger().unwrap();
                        break;
                    }
                    _ => stream.write_all(&buffer[..read]).await.unwrap(),
                }
            }
            drop(stream);
            tell.send(heard).await.unwrap();
        }
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    (
        Fixture::in_front_of(upstream, METADATA, false, got, tasks).await,
        told,
    )
}

/// One session to its end: its events.
async fn session(protocol: Protocol, subresource: &str, end: End) -> Vec<Value> {
    let (fixture, mut told) = cluster().await;
    let mut client = TcpStream::connect(fixture.addr).await.unwrap();
    client
        .write_all(ask(protocol, subresource).as_bytes())
        .await
        .unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let mut first = [0; 5];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first");
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    // While it is open the session has no final event.
    assert_eq!(
        stages(&fixture.events()),
        expected(&[("RequestReceived", 0), ("ResponseStarted", 101)])
    );
    let mut whole = b"hello".to_vec();
    match end {
        End::ClientCloses => {
            client.write_all(b"last").await.unwrap();
            client.shutdown().await.unwrap();
            whole.extend_from_slice(b"last");
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"last");
        }
        End::ClientResets => {
            client.set_zero_linger().unwrap();
            drop(client);
        }
        End::ClusterCloses => {
            client.write_all(b"Q").await.unwrap();
            whole.push(b'Q');
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            drop(client);
        }
        End::ClusterResets => {
            client.write_all(b"R").await.unwrap();
            whole.push(b'R');
            let mut rest = Vec::new();
            // The reset itself may reach the client.
            drop(client.read_to_end(&mut rest).await);
        }
        End::GatewayStops => fixture.stop.cancel(),
    }
    let events = fixture.events_when(3).await;
    assert_eq!(told.recv().await.unwrap(), whole);
    let metrics = fixture.gateway.metrics();
    assert_eq!((metrics.tunnels, metrics.tunnels_open), (1, 0));
    fixture.finish().await;
    events
}

#[tokio::test]
async fn t20_every_session_has_all_stages_whoever_ends_it() {
    for (protocol, subresource, end) in [
        (SPDY, "exec", End::ClientCloses),
        (SPDY, "exec", End::ClientResets),
        (SPDY, "exec", End::ClusterCloses),
        (SPDY, "exec", End::ClusterResets),
        (SPDY, "attach", End::ClientResets),
        (SPDY, "portforward", End::ClusterCloses),
        (WEBSOCKET, "exec", End::ClientCloses),
        (WEBSOCKET, "exec", End::ClientResets),
        (WEBSOCKET, "exec", End::ClusterCloses),
        (WEBSOCKET, "exec", End::ClusterResets),
        (WEBSOCKET, "attach", End::ClusterResets),
        (WEBSOCKET, "portforward", End::ClientCloses),
    ] {
        let events = session(protocol, subresource, end).await;
        let which = format!("{} {subresource} {end:?}", protocol.name);
        assert_eq!(
            stages(&events),
            expected(&[
                ("RequestReceived", 0),
                ("ResponseStarted", 101),
                ("ResponseComplete", 101)
            ]),
            "{which}"
        );
        for event in &events {
            assert_eq!(event["auditID"], events[0]["auditID"], "{which}");
            assert_eq!(event["objectRef"]["subresource"], subresource, "{which}");
            assert_eq!(event["user"]["username"], "alice", "{which}");
        }
    }
}

#[tokio::test]
async fn t20_a_session_that_outlives_the_grace_is_cut_and_has_all_stages() {
    let events = session(SPDY, "exec", End::GatewayStops).await;
    assert_eq!(events[2]["stage"], "ResponseComplete");
    assert_eq!(events[2]["responseStatus"]["code"], 101);
}

/// kube-apiserver takes the verb from the method, whatever the session is for.
#[tokio::test]
async fn t21_the_verb_of_a_session_is_its_methods() {
    for protocol in [SPDY, WEBSOCKET] {
        for event in session(protocol, "exec", End::ClusterCloses).await {
            assert_eq!(event["verb"], protocol.verb, "{}", protocol.name);
        }
    }
}

#[tokio::test]
async fn t23_a_session_that_is_refused_is_recorded_with_the_real_code() {
    let refusal = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"container c is not running","reason":"BadRequest","code":400}"#;
    for protocol in [SPDY, WEBSOCKET] {
        let (upstream, tasks) = raw_upstream(move |mut stream, _| async move {
            if past_reviews(&mut stream).await.is_empty() {
                return;
            }
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{refusal}",
                refusal.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let got = Arc::new(Mutex::new(Vec::new()));
        let fixture = Fixture::in_front_of(upstream, "RequestResponse", false, got, tasks).await;
        let mut client = TcpStream::connect(fixture.addr).await.unwrap();
        client.write_all(ask(protocol, "exec").as_bytes()).await.unwrap();
        let answer = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let mut body = vec![0; refusal.len()];
        client.read_exact(&mut body).await.unwrap();
        assert_eq!(body, refusal.as_bytes());
        let events = fixture.events_when(3).await;
        assert_eq!(
            stages(&events),
            expected(&[
                ("RequestReceived", 0),
                ("ResponseStarted", 400),
                ("ResponseComplete", 400)
            ])
        );
        for event in &events[1..] {
            assert_eq!(event["responseStatus"]["message"], "container c is not running");
            assert_eq!(event["responseObject"].to_string(), refusal);
        }
        assert_eq!(fixture.gateway.metrics().tunnels, 0);
        drop(client);
        fixture.finish().await;
    }
}

/// The kubelet's refusal of an exec, as the server passes it on: past its own writers, which say whose it is.
#[tokio::test]
async fn t23_what_the_kubelet_refuses_the_authorizer_had_allowed() {
    for (mark, decision) in [("", Some("allow")), ("Audit-Id: a\r\n", None)] {
        let (upstream, tasks) = raw_upstream(move |mut stream, _| async move {
            if past_reviews(&mut stream).await.is_empty() {
                return;
            }
            let answer = format!(
                "HTTP/1.1 403 Forbidden\r\n{mark}Content-Type: text/plain\r\nContent-Length: 9\r\n\r\nForbidden"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let got = Arc::new(Mutex::new(Vec::new()));
        let fixture = Fixture::in_front_of(upstream, METADATA, false, got, tasks).await;
        let mut client = TcpStream::connect(fixture.addr).await.unwrap();
        client.write_all(ask(SPDY, "exec").as_bytes()).await.unwrap();
        let answer = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let mut body = [0; 9];
        client.read_exact(&mut body).await.unwrap();
        let events = fixture.events_when(3).await;
        let annotations = &events[2]["annotations"];
        assert_eq!(annotations["authorization.k8s.io/decision"].as_str(), decision);
        let reason = decision.map(|_| "rule 7");
        assert_eq!(annotations["authorization.k8s.io/reason"].as_str(), reason);
        assert_eq!(events[2]["responseStatus"]["code"], 403);
        drop(client);
        fixture.finish().await;
    }
}
