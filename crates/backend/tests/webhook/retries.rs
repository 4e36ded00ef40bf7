//! Waits, repetitions, redirects, and what a request waits for.

use std::sync::Arc;
use std::time::Duration;

use kaudit_backend::webhook::{FailureClass, WebhookConfig};
use kaudit_backend::{IgnoreErrors, Webhook};
use kaudit_dial::{Cluster, Trust};
use kaudit_sink::{Counters, Emission, Outcome, Reason, Reservation, Reserve, Sink, conformance};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::server::Server;

fn webhook(url: &str, config: WebhookConfig) -> (Arc<Webhook>, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let cluster = Cluster::new(url.parse().unwrap(), Trust::Public);
    let webhook = Webhook::new(&cluster, config, Arc::clone(&counters), Handle::current()).unwrap();
    (Arc::new(webhook), counters)
}

fn once() -> WebhookConfig {
    WebhookConfig {
        initial_backoff: Duration::ZERO,
        attempts: 1,
        ..WebhookConfig::default()
    }
}

async fn post(webhook: &Webhook) -> Result<(), String> {
    let event = conformance::event(0, 0);
    let outcome = webhook.submit_batch(vec![Emission::new(&event)]);
    outcome
        .end()
        .await
        .map_err(|refusals| refusals[0].message.clone())
}

#[tokio::test(start_paused = true)]
async fn five_attempts_wait_as_upstreams_do() {
    for (jitter, seconds) in [((|| 0.0) as fn() -> f64, 81.25), (|| 1.0, 97.5)] {
        let config = WebhookConfig {
            jitter,
            ..WebhookConfig::default()
        };
        // Nobody listens there.
        let (webhook, counters) = webhook("http://127.0.0.1:1", config);
        let started = Instant::now();
        assert!(post(&webhook).await.is_err());
        let waited = started.elapsed().as_secs_f64();
        assert!(
            (waited - seconds).abs() < 0.1,
            "{waited} s instead of {seconds} s"
        );
        assert_eq!(webhook.metrics().failures, [(FailureClass::Connect, 5)]);
        assert_eq!(counters.snapshot().lost, [("webhook", Reason::Delivery, 1)]);
    }
}

#[tokio::test]
async fn a_server_that_says_when_to_come_back_is_asked_ten_times_more_within_an_attempt() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks).await;
    server.answer(b"HTTP/1.1 429 \r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".to_vec());
    let config = WebhookConfig {
        attempts: 5,
        ..once()
    };
    let (webhook, _) = webhook(&format!("http://{}", server.address), config);
    assert!(post(&webhook).await.is_err());
    assert_eq!(server.arrived().len(), 55);
}

#[tokio::test]
async fn an_attempt_of_a_caller_that_keeps_its_events_loses_none() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks).await;
    server.answer(b"HTTP/1.1 503 \r\nContent-Length: 4\r\n\r\nbusy".to_vec());
    let config = WebhookConfig {
        attempts: 5,
        ..once()
    };
    let (webhook, counters) = webhook(&format!("http://{}", server.address), config);
    let event = conformance::event(0, 0);
    let batch = || {
        vec![
            Emission::new(&event).keep_line(),
            Emission::new(&event).keep_line(),
        ]
    };
    let failed = webhook.attempt(batch()).await.unwrap_err();
    assert_eq!(failed.class, FailureClass::Server);
    assert_eq!(server.arrived().len(), 1);
    assert_eq!(counters.snapshot().total_lost(), 0);
    assert_eq!(counters.snapshot().failed_attempts, [("server_error", 1)]);
    server.answer(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n".to_vec());
    webhook.attempt(batch()).await.unwrap();
    assert_eq!(server.arrived().len(), 1);
    assert_eq!(webhook.metrics().delivered_events, 2);
    // Whoever keeps the events counts them.
    assert_eq!(counters.snapshot().kept, 0);
}

#[tokio::test]
async fn redirects_are_followed_with_the_body_on_the_same_origin_only() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks).await;
    let (webhook, _) = webhook(&format!("http://{}/audit", server.address), once());
    for (status, location, requests, expected) in [
        (
            302,
            "/x",
            1,
            "the server answered 302, whose redirect would lose the events",
        ),
        (
            307,
            "http://127.0.0.1:1/x",
            1,
            "a redirect to another origin is not followed: `http://127.0.0.1:1/x`",
        ),
        (308, "/x", 11, "stopped after 10 redirects"),
    ] {
        server.answer(
            format!("HTTP/1.1 {status} \r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes(),
        );
        assert_eq!(post(&webhook).await, Err(expected.to_owned()), "{status}");
        let arrived = server.arrived();
        assert_eq!(arrived.len(), requests, "{status}");
        for request in &arrived {
            assert_eq!(request.method, "POST");
            assert_eq!(request.body, arrived[0].body);
            assert_eq!(request.header("Content-Type"), Some("application/json"));
        }
        if status == 308 {
            assert_eq!(arrived[1].target, "/x");
        }
    }
}

#[tokio::test]
async fn a_compressed_answer_is_read() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks).await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, b"oops").unwrap();
    let body = encoder.finish().unwrap();
    let mut answer = format!(
        "HTTP/1.1 500 \r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    server.answer(answer);
    let (webhook, _) = webhook(&format!("http://{}", server.address), once());
    assert_eq!(
        post(&webhook).await,
        Err("an error on the server (\"oops\") has prevented the request from succeeding".to_owned())
    );
}

#[tokio::test]
async fn a_request_waits_for_the_receipt_and_learns_of_a_refusal_only_in_strict_mode() {
    let (strict, counters) = webhook("http://127.0.0.1:1", once());
    let blocking = IgnoreErrors::new(Arc::<Webhook>::clone(&strict) as Arc<dyn Sink>);
    let event = conformance::event(0, 0);
    for (sink, is_refused) in [(strict.as_ref() as &dyn Sink, true), (&blocking, false)] {
        let Reserve::Ready(mut reservation) = sink.reserve(3) else {
            panic!("there is room")
        };
        let outcome = sink.submit(&Emission::new(&event), &mut reservation);
        assert!(matches!(outcome, Outcome::Pending(_)));
        assert_eq!(outcome.end().await.is_err(), is_refused);
    }
    assert_eq!(counters.snapshot().total_lost(), 2);
}

#[tokio::test]
async fn events_under_way_are_bounded_and_reserving_waits_for_room() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks).await;
    // It never answers.
    server.answer(Vec::new());
    let config = WebhookConfig {
        max_pending_events: 4,
        ..once()
    };
    let (webhook, counters) = webhook(&format!("http://{}", server.address), config);
    let Reserve::Ready(mut first) = webhook.reserve(3) else {
        panic!("there is room")
    };
    let Reserve::Wait(second) = webhook.reserve(3) else {
        panic!("there is none")
    };
    let event = conformance::event(0, 0);
    let mut receipts = Vec::new();
    for _ in 0..4 {
        receipts.push(webhook.submit(&Emission::new(&event), &mut first));
    }
    assert!(
        matches!(receipts.pop(), Some(Outcome::Pending(_))),
        "one place was free"
    );
    let refused = webhook.submit(&Emission::new(&event), &mut Reservation::none());
    assert!(matches!(refused, Outcome::Refused(_)));
    assert_eq!(counters.snapshot().lost, [("webhook", Reason::QueueFull, 1)]);
    assert!(matches!(webhook.reserve(5), Reserve::Refused(_)));
    drop(second);
    let never_blocks: Arc<dyn Sink> = Arc::<Webhook>::clone(&webhook) as Arc<dyn Sink>;
    tokio::task::spawn_blocking(move || conformance::check_never_blocks(never_blocks))
        .await
        .unwrap();
}

#[test]
fn events_under_way_when_the_runtime_stops_are_counted() {
    // A receiver that never answers, and does not go with the runtime.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    // A runtime of one thread polls nothing more once it is left. One of several drops the tasks of one
    // thread, a connection for instance, while another still polls the delivery over it, whose last attempt
    // then fails like any other.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (webhook, counters, outcome, connection) = runtime.block_on(async {
        let (webhook, counters) = webhook(&format!("http://{address}"), once());
        let event = conformance::event(0, 0);
        let outcome = webhook.submit_batch(vec![Emission::new(&event)]);
        let connected = tokio::task::spawn_blocking(move || silent.accept());
        let (connection, _) = connected.await.unwrap().unwrap();
        (webhook, counters, outcome, connection)
    });
    drop(runtime);
    let refusals = outcome.wait().unwrap_err();
    assert_eq!(refusals[0].reason, Reason::ShutDown);
    assert_eq!(counters.snapshot().lost, [("webhook", Reason::ShutDown, 1)]);
    webhook.shutdown();
    drop(connection);
}
