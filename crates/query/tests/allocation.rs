//! Common filters allocate nothing, on events and on lines.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use bytes::Bytes;
use kaudit_event::{DecodedEvent, MicroTime};
use kaudit_query::{Filter, Row};

const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/payments/secrets/db-password","verb":"delete","user":{"username":"alice","groups":["devs","system:authenticated"]},"sourceIPs":["203.0.113.7","10.3.4.9"],"userAgent":"kubectl/v1.36.3 (linux/amd64) kubernetes/1234567","objectRef":{"resource":"secrets","namespace":"payments","name":"db-password","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":403},"requestObject":{"spec":{"containers":[{"image":"nginx:latest"}]}},"requestReceivedTimestamp":"2026-11-23T14:02:10.000000Z","stageTimestamp":"2026-11-23T14:02:11.482913Z","annotations":{"authorization.k8s.io/decision":"forbid"}}"#;

#[test]
fn common_filters_allocate_nothing() {
    let event = DecodedEvent::parse(Bytes::from_static(EVENT.as_bytes())).unwrap();
    for text in [
        "responseStatus.code >= 400",
        "user.username: alice and verb: (delete or deletecollection)",
        "user.groups: system:* and not user.username: system:*",
        "sourceIPs: 10.0.0.0/8 and time >= now-1h",
        "annotations.\"authorization.k8s.io/decision\": forbid",
        "actorKind: human and deniedBy: rbac and mutating: true and client: kubectl",
        "userAgent: kubectl and latency > 1s",
        "requestObject.spec.containers.image: *latest",
        "\"db-password\"",
        "level: RequestResponse or stage: Panic or objectRef.name.contains(\"pass\")",
    ] {
        let filter = Filter::parse(text, MicroTime::from_unix(0, 0)).unwrap();
        let row = Row::of(event.view());
        assert!(filter.matches(&row), "{text}");
        let on_event = allocation_counter::measure(|| {
            let _answer = filter.matches(&row);
        });
        assert_eq!(on_event.count_total, 0, "{text}");
        let Some(lines) = filter.for_lines() else { continue };
        let on_line = allocation_counter::measure(|| {
            let _answer = lines.matches(EVENT.as_bytes());
        });
        assert_eq!(on_line.count_total, 0, "{text} on the line");
    }
}
