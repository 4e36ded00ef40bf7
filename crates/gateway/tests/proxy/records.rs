//! T40, T41, T44: what stands in the log.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::fixture::{Fixture, METADATA, Plan, SSR, expected, head, raw_upstream, stages};

#[tokio::test]
async fn t40_the_arguments_of_exec_are_in_the_uri_at_level_metadata() {
    let fixture = Fixture::start(Plan::default()).await;
    let target = "/api/v1/namespaces/n/pods/p/exec?command=mysql&command=-psecret&stdin=true";
    fixture.get(target, "").await;
    let events = fixture.events_when(3).await;
    for event in &events {
        assert_eq!(event["level"], "Metadata");
        assert_eq!(event["requestURI"], target);
        assert!(event["requestObject"].is_null());
    }
    fixture.finish().await;
}

#[tokio::test]
async fn t41_a_sink_that_refuses_fails_requests_at_their_first_stage() {
    let fixture = Fixture::start(Plan {
        sink_refuses: true,
        ..Plan::default()
    })
    .await;
    for request in [
        "GET /api/v1/pods",
        "GET /api/v1/pods?watch=1",
        "DELETE /api/v1/nodes/n",
    ] {
        let request = format!(
            "{request} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer good\r\n\r\n"
        );
        let answer = fixture.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    }
    assert!(fixture.forwarded().is_empty());
    assert_eq!(fixture.gateway.audit_metrics().rejected, 3);
    fixture.finish().await;
}

#[tokio::test]
async fn t44_whatever_a_client_or_a_user_is_called_an_event_is_one_line() {
    let name = "root\"}\n{\"kind\":\"Event\",\"user\":\u{2028}\u{7f}\0";
    let user = json!({"username": name, "groups": ["a\r\nb", "\u{1b}[2J"], "extra": {"k\n": ["v\n"]}});
    let review = json!({"status": {"userInfo": user}}).to_string();
    let (upstream, tasks) = raw_upstream(move |mut stream, _| {
        let review = review.clone();
        async move {
            loop {
                let request = head(&mut stream).await;
                if request.is_empty() {
                    return;
                }
                let body = if request.contains(SSR) { &review } else { "{}" };
                let answer = format!(
                    "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let fixture = Fixture::in_front_of(upstream, METADATA, false, got, tasks).await;
    let mut client = TcpStream::connect(fixture.addr).await.unwrap();
    let request =
        b"GET /version?a=%0a{%22b%22:1} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\
                    User-Agent: a\"\xff\xe2\x80b\tc\r\nAudit-ID: \"i\xfe\r\n\r\n";
    client.write_all(request).await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    // The fixture takes an event only if it is one line without any byte below a blank.
    let events = fixture.events_when(2).await;
    assert_eq!(
        stages(&events),
        expected(&[("RequestReceived", 0), ("ResponseComplete", 201)])
    );
    for event in &events {
        assert_eq!(event["user"]["username"], name);
        assert_eq!(event["user"]["groups"], json!(["a\r\nb", "\u{1b}[2J"]));
        assert_eq!(event["user"]["extra"], json!({"k\n": ["v\n"]}));
        assert_eq!(event["userAgent"], "a\"\u{fffd}\u{fffd}\u{fffd}b\tc");
        assert_eq!(event["auditID"], "\"i\u{fffd}");
    }
    drop(client);
    fixture.finish().await;
}
