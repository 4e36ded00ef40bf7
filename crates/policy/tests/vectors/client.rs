//! Source addresses and user agents.

use kaudit_event::{Event, Level, MicroTime, Open, Stage};
use kaudit_policy::{source_ips, user_agent};
use serde_json::Value;

use crate::cases::{bytes, cases, report};

/// The first value of a header.
fn first(case: &Value, name: &str) -> Option<Vec<u8>> {
    case["headers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|header| {
            header[0]
                .as_str()
                .is_some_and(|present| present.eq_ignore_ascii_case(name))
        })
        .map(|header| bytes(&header[1]))
}

#[test]
fn t43_vector_source_ips() {
    let cases = cases("source-ips.jsonl");
    let mut wrong = Vec::new();
    for case in &cases {
        let (forwarded_for, real_ip) = (first(case, "X-Forwarded-For"), first(case, "X-Real-Ip"));
        let ours: Vec<String> = source_ips(
            forwarded_for.as_deref(),
            real_ip.as_deref(),
            &bytes(&case["remote_addr"]),
        )
        .iter()
        .map(ToString::to_string)
        .collect();
        if Value::from(ours.clone()) != case["source_ips"] {
            wrong.push(format!(
                "{}: ours {ours:?}, theirs {}",
                case["id"], case["source_ips"]
            ));
        }
    }
    report(&wrong, cases.len());
}

#[test]
fn vector_user_agent() {
    let cases = cases("user-agent.jsonl");
    let mut wrong = Vec::new();
    for case in &cases {
        let ours = user_agent(first(case, "User-Agent").as_deref());
        if ours.as_bytes() != bytes(&case["user_agent"]) {
            wrong.push(format!("{}: ours {ours}", case["id"]));
        }
        let event = Event {
            level: Open::Known(Level::Metadata),
            stage: Open::Known(Stage::RequestReceived),
            request_uri: "/x".into(),
            verb: "get".into(),
            source_ips: vec!["127.0.0.1".into()],
            user_agent: ours,
            request_received_timestamp: MicroTime::from_unix(0, 0),
            stage_timestamp: MicroTime::from_unix(0, 0),
            ..Event::default()
        };
        let mut line = Vec::new();
        event.write_json_line(&mut line).unwrap();
        if line != bytes(&serde_json::json!({"b64": case["json_b64"]})) {
            wrong.push(format!("{}: line {}", case["id"], String::from_utf8_lossy(&line)));
        }
    }
    report(&wrong, cases.len());
}
