//! G-1, G-2, G-3.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::fixture::{Fixture, Got, Identities, Plan, json_response, status};

/// INVARIANT G-1: whatever the audit path does, the request goes on unchanged; only a sink that stands
/// for itself (blocking-strict) refuses it, at RequestReceived.
#[tokio::test]
async fn g1_requests_pass_unchanged_whatever_is_recorded() {
    let mut seen = Vec::new();
    for level in ["None", "Metadata", "Request", "RequestResponse"] {
        let fixture = Fixture::start(Plan {
            level,
            ..Plan::default()
        })
        .await;
        let answer = fixture
            .get(
                "/api/v1/pods?limit=1",
                "X-Some: thing\r\nAccept: a/b;q=0.1\r\nAudit-ID: i\r\n",
            )
            .await;
        let mut got = fixture.forwarded().remove(0);
        got.headers.remove("host");
        let answer: Vec<String> = answer
            .lines()
            .filter(|line| !line.starts_with("date"))
            .map(str::to_owned)
            .collect();
        seen.push((
            got.method,
            got.target,
            format!("{:?}", got.headers),
            got.body,
            answer,
        ));
        fixture.finish().await;
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");

    let strict = Fixture::start(Plan {
        sink_refuses: true,
        ..Plan::default()
    })
    .await;
    let answer = strict.get("/api/v1/pods", "").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(answer.contains("failed to store audit event"), "{answer}");
    assert!(strict.forwarded().is_empty());
    strict.finish().await;
}

/// INVARIANT G-2: each audited request has exactly one final event, also when the client leaves.
#[tokio::test]
async fn g2_each_request_has_exactly_one_final_event() {
    let answers = |got: &Got| match got.target.as_str() {
        "/missing" => status(404, "NotFound", "no"),
        "/boom" => status(500, "InternalError", "boom"),
        _ => json_response(200, &serde_json::json!({})),
    };
    let fixture = Fixture::start(Plan {
        answers: Arc::new(answers),
        ..Plan::default()
    })
    .await;
    for target in [
        "/a",
        "/missing",
        "/boom",
        "/api/v1/pods?watch=1",
        "/api/v1/x/../y",
    ] {
        fixture.get(target, "").await;
    }
    // A client that leaves in the middle of its request.
    let mut stream = TcpStream::connect(fixture.addr).await.unwrap();
    let half = "POST /api/v1/namespaces/n/pods HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\
                Content-Length: 100\r\n\r\nhalf";
    stream.write_all(half.as_bytes()).await.unwrap();
    fixture.events_when(12).await;
    drop(stream);
    let events = fixture.events_when(13).await;
    let of = |stage: &str| -> Vec<&Value> { events.iter().filter(|event| event["stage"] == stage).collect() };
    let (received, complete) = (of("RequestReceived"), of("ResponseComplete"));
    assert_eq!((received.len(), complete.len()), (6, 6), "{events:#?}");
    for event in received {
        let finals = complete
            .iter()
            .filter(|end| end["auditID"] == event["auditID"])
            .count();
        assert_eq!(finals, 1);
    }
    fixture.finish().await;
}

/// INVARIANT G-3: a request is forwarded with its own credentials, or not at all.
#[tokio::test]
async fn g3_a_request_has_the_clients_rights_or_is_not_forwarded() {
    let fixture = Fixture::start(Plan::default()).await;
    fixture.get("/api/v1/secrets", "").await;
    fixture
        .exchange(b"GET /version HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        .await;
    let credentials: Vec<Option<String>> = fixture
        .forwarded()
        .iter()
        .map(|got| {
            got.headers
                .get("authorization")
                .map(|value| value.to_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(credentials, [Some("Bearer good".to_owned()), None]);
    fixture.finish().await;

    let broken = Fixture::start(Plan {
        identities: Identities::Broken(503),
        ..Plan::default()
    })
    .await;
    for request in ["GET /api/v1/secrets", "DELETE /api/v1/nodes/n", "GET /version"] {
        let request = format!(
            "{request} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer good\r\n\r\n"
        );
        let answer = broken.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
    assert!(broken.forwarded().is_empty());
    broken.finish().await;
}
