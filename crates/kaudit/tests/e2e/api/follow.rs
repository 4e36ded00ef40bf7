//! Events as they come, and clients that go.

use std::io::Write as _;

use serde_json::Value;

use super::Running;

const UNSEALED: &str = "{sealAfter: 1h}";

/// Adds an event to the log that is another one than those before.
pub(super) fn append(running: &Running, audit_id: &str) -> Value {
    let mut event = running.events[0].clone();
    event["auditID"] = audit_id.into();
    let mut log = std::fs::OpenOptions::new()
        .append(true)
        .open(&running.log)
        .unwrap();
    log.write_all(format!("{event}\n").as_bytes()).unwrap();
    event
}

#[test]
fn a_tail_begins_now_and_is_resumed_after_what_was_seen() {
    let running = Running::with("mixed", UNSEALED);
    let mut tail = running.client.stream("/api/v1/tail", &[]);
    assert_eq!(tail.code, 200);
    let first = append(&running, "first");
    let sent = tail.sent();
    assert_eq!(sent.data["event"], first, "what was there before is not sent");
    assert_eq!(sent.data["seq"], sent.id);
    let second = append(&running, "second");
    assert_eq!(tail.sent().data["event"], second);
    drop(tail);

    let (mut all, _) = running.streamed("/api/v1/events");
    all.sort_by_key(|item| item["seq"].as_u64());
    let middle = all.len() / 2;
    let id = all[middle]["seq"].to_string();
    for (target, headers) in [
        ("/api/v1/tail".to_owned(), vec![("last-event-id", id.as_str())]),
        (format!("/api/v1/tail?after={id}"), Vec::new()),
        // The newer one is the client's own.
        (
            "/api/v1/tail?after=0".to_owned(),
            vec![("last-event-id", id.as_str())],
        ),
    ] {
        let mut tail = running.client.stream(&target, &headers);
        for item in &all[middle + 1..] {
            let sent = tail.sent();
            assert!(&sent.data == item, "{} in place of {}", sent.data, item);
        }
        let audit_id = format!("after {target} {}", headers.len());
        let next = append(&running, &audit_id);
        let sent = tail.sent();
        assert_eq!(sent.data["event"], next, "exactly the rest");
        all.push(sent.data);
    }

    let mut refused = running
        .client
        .stream("/api/v1/tail?q=responseStatus.code%20%3E%3D%20400&after=0", &[]);
    let wanted = all
        .iter()
        .filter(|item| item["seq"] != 0)
        .filter(|item| item["event"]["responseStatus"]["code"].as_i64() >= Some(400));
    for item in wanted {
        assert_eq!(&refused.sent().data, item);
    }
    drop(refused);
    running.process.stop();
}

#[test]
fn clients_that_leave_stop_nobody() {
    let running = Running::with("rr-all", UNSEALED);
    let mut tail = running.client.stream("/api/v1/tail", &[]);
    // More than may scan at once, each with most of its answer unread.
    for _ in 0..6 {
        let mut left = running
            .client
            .stream("/api/v1/events", &[("accept", "application/x-ndjson")]);
        assert!(left.line().unwrap().starts_with("{\"ref\":"));
        let mut left = running.client.stream("/api/v1/tail?after=0", &[]);
        left.sent();
    }
    // Nor do those who stay and do not read.
    let idle: Vec<_> = (0..6)
        .map(|_| {
            running
                .client
                .stream("/api/v1/events", &[("accept", "application/x-ndjson")])
        })
        .collect();
    assert_eq!(running.json("/api/v1/count")["count"], running.lines.len());
    let event = append(&running, "new");
    assert_eq!(tail.sent().data["event"], event);
    for mut stream in idle {
        let mut lines = 0;
        while let Some(line) = stream.line() {
            lines += 1;
            if line.starts_with("{\"end\":") {
                break;
            }
        }
        assert_eq!(lines, running.lines.len() + 1, "one view, and the end");
    }
    // An answer without an end of its own ends as it should when kaudit does.
    running.process.stop();
    while let Some(line) = tail.line() {
        assert!(
            line.is_empty() || line.starts_with("id: ") || line.starts_with(':'),
            "{line}"
        );
    }
}
