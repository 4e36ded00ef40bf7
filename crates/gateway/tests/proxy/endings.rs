//! T37, T39: whoever leaves, and whenever, each request has its final event.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, METADATA, expected, head, past_reviews, raw_upstream, stages};

const GET: &str = "GET /api/v1/pods HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\r\n";
const WATCH: &str =
    "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\r\n";
const EXEC: &str = "POST /api/v1/namespaces/n/pods/p/exec HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\
                    Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

fn create(body: &str, length: usize) -> String {
    format!(
        "POST /api/v1/namespaces/n/pods HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// A gateway before an upstream that answers with these bytes when it is let.
async fn held(answer: &'static str, let_go: &Arc<Semaphore>) -> Fixture {
    let let_go = Arc::clone(let_go);
    let (upstream, tasks) = raw_upstream(move |mut stream, _| {
        let let_go = Arc::clone(&let_go);
        async move {
            if past_reviews(&mut stream).await.is_empty() {
                return;
            }
            let_go.acquire().await.unwrap().forget();
            // The gateway may have left, as its client has.
            drop(stream.write_all(answer.as_bytes()).await);
            std::future::pending::<()>().await;
        }
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    Fixture::in_front_of(upstream, METADATA, false, got, tasks).await
}

async fn connect(fixture: &Fixture, request: &str) -> TcpStream {
    let mut client = TcpStream::connect(fixture.addr).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn t37_a_client_that_leaves_in_the_middle_of_the_answer_has_one_final_event() {
    let let_go = Arc::new(Semaphore::new(1));
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let_go.add_permits(1);
        let fixture = held(answer, &let_go).await;
        let mut client = connect(&fixture, GET).await;
        head(&mut client).await;
        client.read_u8().await.unwrap();
        drop(client);
        let events = fixture.events_when(2).await;
        assert_eq!(
            stages(&events),
            expected(&[("RequestReceived", 0), ("ResponseComplete", 200)])
        );
        assert_eq!(events[1]["annotations"]["kaudit.dev/aborted"], "client");
        fixture.finish().await;
    }
}

#[tokio::test]
async fn t37_a_client_that_leaves_in_the_middle_of_its_body_has_one_final_event() {
    let fixture = held("", &Arc::new(Semaphore::new(0))).await;
    let client = connect(&fixture, &create("half", 100)).await;
    fixture.events_when(1).await;
    drop(client);
    let events = fixture.events_when(2).await;
    assert_eq!(
        stages(&events),
        expected(&[("RequestReceived", 0), ("ResponseComplete", 400)])
    );
    let message = events[1]["responseStatus"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("the request's body is not whole: "),
        "{message}"
    );
    assert_eq!(fixture.gateway.metrics().broken, 0);
    fixture.finish().await;
}

#[tokio::test]
async fn t37_a_write_whose_client_left_before_the_head_has_the_code_of_its_end() {
    let let_go = Arc::new(Semaphore::new(0));
    let fixture = held("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", &let_go).await;
    let client = connect(&fixture, &create("{}", 2)).await;
    fixture.events_when(1).await;
    drop(client);
    let_go.add_permits(1);
    let events = fixture.events_when(2).await;
    assert_eq!(
        stages(&events),
        expected(&[("RequestReceived", 0), ("ResponseComplete", 201)])
    );
    fixture.finish().await;
}

#[tokio::test]
async fn t39_a_watch_ends_behind_the_event_that_is_under_way() {
    let rest = Arc::new(Semaphore::new(0));
    let let_go = Arc::clone(&rest);
    let (upstream, tasks) = raw_upstream(move |mut stream, _| {
        let let_go = Arc::clone(&let_go);
        async move {
            let request = past_reviews(&mut stream).await;
            let begun =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(begun.as_bytes()).await.unwrap();
            if request.contains("idle") {
                std::future::pending::<()>().await;
            }
            stream.write_all(b"A\r\n{\"type\":\"A\r\n").await.unwrap();
            let_go.acquire().await.unwrap().forget();
            stream.write_all(b"9\r\nDDED\"}\n{\"\r\n").await.unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let fixture = Fixture::in_front_of(upstream, METADATA, false, got, tasks).await;
    let mut client = connect(&fixture, WATCH).await;
    head(&mut client).await;
    let mut begun = [0; 15];
    client.read_exact(&mut begun).await.unwrap();
    let mut idle = connect(&fixture, &WATCH.replacen("watch=1", "watch=1&idle=1", 1)).await;
    head(&mut idle).await;
    fixture.stop.cancel();
    // The idle one began later: when it is over, the other's turn has come.
    // Not until the connections are closed: those linger for a request that may be on its way.
    let mut end = [0; 5];
    idle.read_exact(&mut end).await.unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
    rest.add_permits(1);
    let mut end = [0; 17];
    client.read_exact(&mut end).await.unwrap();
    assert_eq!(&end, b"7\r\nDDED\"}\n\r\n0\r\n\r\n");
    let events = fixture.events_when(6).await;
    for event in &events {
        assert_eq!(event["annotations"].get("kaudit.dev/aborted"), None);
    }
    assert_eq!(events[5]["stage"], "ResponseComplete");
    fixture.finish().await;
}

/// Requests of each kind that are open when the gateway stops. Of the short ones half are answered in time.
const WATCHES: usize = 200;
const SESSIONS: usize = 20;
const SHORT: usize = 50;

#[tokio::test]
async fn t39_a_stop_leaves_no_request_without_its_final_event() {
    let answered = Arc::new(Semaphore::new(0));
    let let_go = Arc::clone(&answered);
    let (upstream, tasks) = raw_upstream(move |mut stream, _| {
        let let_go = Arc::clone(&let_go);
        async move {
            let request = past_reviews(&mut stream).await;
            let answer = if request.contains("watch=1") {
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"
            } else if request.contains("/exec") {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
            } else {
                let_go.acquire().await.unwrap().forget();
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            };
            // The gateway may be gone when the answer comes.
            drop(stream.write_all(answer.as_bytes()).await);
            std::future::pending::<()>().await;
        }
    })
    .await;
    let got = Arc::new(Mutex::new(Vec::new()));
    let mut fixture = Fixture::in_front_of(upstream, METADATA, false, got, tasks).await;
    let mut watches = JoinSet::new();
    for _ in 0..WATCHES {
        let mut client = connect(&fixture, WATCH).await;
        head(&mut client).await;
        watches.spawn(async move {
            let mut events = String::new();
            client.read_to_string(&mut events).await.unwrap();
            events
        });
    }
    let mut others = Vec::new();
    for _ in 0..SESSIONS {
        let mut client = connect(&fixture, EXEC).await;
        head(&mut client).await;
        others.push(client);
    }
    for number in 0..SHORT {
        let request = if number % 3 == 0 {
            create("{}", 2)
        } else {
            GET.to_owned()
        };
        others.push(connect(&fixture, &request).await);
    }
    fixture.events_when(2 * (WATCHES + SESSIONS) + SHORT).await;

    fixture.stop.cancel();
    answered.add_permits(SHORT / 2);
    // Each watch ends with its connection whole, and the gateway ends with all that it held.
    for events in watches.join_all().await {
        assert_eq!(events, "3\r\n{}\n\r\n0\r\n\r\n");
    }
    fixture.served().await;
    let mut by_id: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in fixture.events() {
        let id = event["auditID"].as_str().unwrap().to_owned();
        by_id.entry(id).or_default().push(event);
    }
    assert_eq!(by_id.len(), WATCHES + SESSIONS + SHORT);
    let mut answers = 0;
    for events in by_id.values() {
        let received = events.iter().filter(|event| event["stage"] == "RequestReceived");
        let complete = events.iter().filter(|event| event["stage"] == "ResponseComplete");
        assert_eq!((received.count(), complete.count()), (1, 1), "{events:#?}");
        let is_short = events.len() == 2;
        answers += usize::from(is_short && events[1]["annotations"].get("kaudit.dev/aborted").is_none());
    }
    assert_eq!(answers, SHORT / 2);
    drop(others);
    fixture.finish().await;
}
