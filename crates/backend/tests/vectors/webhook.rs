//! webhook-body.jsonl and webhook-answers.jsonl: all of both.

use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use kaudit_backend::Webhook;
use kaudit_backend::webhook::WebhookConfig;
use kaudit_dial::{Cluster, Trust};
use kaudit_event::Event;
use kaudit_sink::{Counters, Emission, Reason, Sink, conformance};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::description;
use crate::server::Server;

fn webhook(url: &str, counters: &Arc<Counters>) -> Webhook {
    let cluster = Cluster::new(url.parse().unwrap(), Trust::Public);
    let config = WebhookConfig {
        initial_backoff: Duration::ZERO,
        attempts: 2,
        ..WebhookConfig::default()
    };
    Webhook::new(&cluster, config, Arc::clone(counters), Handle::current()).unwrap()
}

fn ok_answer() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()
}

/// What kaudit sends where upstream sends nothing: the bodies that cannot be printed are left out.
fn stripped(events: &[Event]) -> Vec<u8> {
    let printable: Vec<Event> = events
        .iter()
        .map(|event| {
            event
                .without_unprintable_bodies()
                .map_or_else(|| event.clone(), |(event, _)| event)
        })
        .collect();
    let mut body = Vec::new();
    kaudit_event::write_event_list(&printable, &mut body).unwrap();
    body
}

#[tokio::test]
async fn webhook_body_vectors_match_in_every_byte_and_header() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks).await;
    server.answer(ok_answer());
    let cases = description::cases("webhook-body.jsonl");
    assert!(!cases.is_empty());
    for case in cases {
        let id = &case["id"];
        let events: Vec<Event> = case["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(description::event)
            .collect();
        let counters = Arc::new(Counters::default());
        let webhook = webhook(&format!("http://{}", server.address), &counters);
        let batch = events.iter().map(Emission::new).collect();
        assert_eq!(webhook.submit_batch(batch).end().await, Ok(()), "{id}");
        let arrived = server.arrived();
        let [request] = arrived.as_slice() else {
            panic!("{id}: one request, not {}", arrived.len())
        };
        let left_out = counters.snapshot().bodies_left_out;
        if case["ok"] == false {
            assert_eq!(request.body, stripped(&events), "{id}: stripped body");
            assert!(left_out > 0, "{id}: what is left out is counted");
            continue;
        }
        assert_eq!(left_out, 0, "{id}");
        let body = BASE64_STANDARD
            .decode(case["body_b64"].as_str().unwrap())
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&request.body),
            String::from_utf8_lossy(&body),
            "{id}: body"
        );
        assert_eq!(request.body, body, "{id}: body");
        assert_eq!(request.method, case["method"], "{id}");
        let target = format!(
            "{}?{}",
            case["path"].as_str().unwrap(),
            case["query"].as_str().unwrap()
        );
        assert_eq!(request.target, target, "{id}");
        for (name, value) in case["headers"].as_object().unwrap() {
            assert_eq!(request.header(name), value.as_str(), "{id}: {name}");
        }
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "Host",
                "User-Agent",
                "Content-Length",
                "Accept",
                "Content-Type",
                "Accept-Encoding"
            ],
            "{id}: order of headers"
        );
    }
}

fn answer(case: &Value) -> Vec<u8> {
    let status = case["status"].as_u64().unwrap();
    let body = case["body"].as_str().unwrap();
    let mut answer = format!("HTTP/1.1 {status} \r\n");
    for header in case["headers"].as_array().unwrap() {
        let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    // Go's server sends neither with these.
    if !matches!(status, 204 | 304) {
        answer.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    format!("{answer}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn webhook_answers_vectors_match_in_result_attempts_and_error() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks).await;
    let cases = description::cases("webhook-answers.jsonl");
    assert!(!cases.is_empty());
    for case in cases {
        let id = &case["id"];
        let is_path = id.as_str().unwrap().starts_with("path");
        let suffix = case["server_url_suffix"].as_str().unwrap_or_default();
        let counters = Arc::new(Counters::default());
        let webhook = webhook(&format!("http://{}{suffix}", server.address), &counters);
        server.answer(if is_path { ok_answer() } else { answer(&case) });
        let event = conformance::event(0, 0);
        let end = webhook.submit_batch(vec![Emission::new(&event)]).end().await;
        let arrived = server.arrived();
        assert_eq!(end.is_ok(), case["ok"], "{id}: {end:?}");
        if is_path {
            let target = format!(
                "{}?{}",
                case["path"].as_str().unwrap(),
                case["query"].as_str().unwrap()
            );
            assert_eq!(arrived[0].target, target, "{id}");
            continue;
        }
        assert_eq!(arrived.len() as u64, case["attempts"].as_u64().unwrap(), "{id}");
        let Err(refusals) = end else {
            assert_eq!(counters.snapshot().total_lost(), 0, "{id}");
            assert_eq!(webhook.metrics().delivered_events, 1, "{id}");
            continue;
        };
        assert_eq!(refusals[0].message, case["error"], "{id}");
        assert_eq!(
            counters.snapshot().lost,
            [("webhook", Reason::Delivery, 1)],
            "{id}"
        );
        let failures: u64 = webhook.metrics().failures.iter().map(|(_, count)| count).sum();
        assert_eq!(failures, arrived.len() as u64, "{id}: failures have a class");
    }
}
