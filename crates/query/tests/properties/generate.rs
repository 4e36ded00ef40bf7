//! Events and filters that meet each other.

use bytes::Bytes;
use kaudit_event::{Event, Level, MicroTime, ObjectReference, Stage, Status, Text, Unknown, UserInfo};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Words that stand in events and in filters alike.
const WORDS: &[&str] = &[
    "get",
    "list",
    "delete",
    "deletecollection",
    "pods",
    "secrets",
    "exec",
    "alice",
    "system:node:n1",
    "system:serviceaccount:ci:bot",
    "10.3.4.9",
    "203.0.113.7",
    "::1",
    "kubectl/v1.36.3 (linux/amd64)",
    "Kubectl",
    "kubectl",
    "a&b<c>",
    "é\u{2028}\"\\",
    "allow",
    "forbid",
    "",
    "x",
    "status",
    "GET",
    "a*b?",
];

pub(crate) fn word() -> impl Strategy<Value = Text> {
    prop_oneof![
        12 => select(WORDS).prop_map(Text::from_static),
        2 => "\\PC{0,8}".prop_map(Text::from),
        1 => vec(any::<u8>(), 0..5).prop_map(Text::from),
    ]
}

fn user() -> impl Strategy<Value = UserInfo> {
    let extra = btree_map("[a-c./]{1,2}", vec(word(), 0..3), 0..2);
    (word(), word(), option::of(vec(word(), 1..3)), extra).prop_map(|(username, uid, groups, extra)| {
        UserInfo {
            username,
            uid,
            groups,
            extra: extra
                .into_iter()
                .map(|(key, values)| (Text::from(key), Some(values)))
                .collect(),
        }
    })
}

fn object() -> impl Strategy<Value = ObjectReference> {
    (word(), word(), word(), word(), word()).prop_map(
        |(resource, namespace, name, api_group, subresource)| ObjectReference {
            resource,
            namespace,
            name,
            api_group,
            subresource,
            ..ObjectReference::default()
        },
    )
}

fn status() -> impl Strategy<Value = Status> {
    let code = select(&[0, 200, 201, 400, 401, 403, 404, 500][..]);
    let message = prop_oneof![
        word(),
        Just(Text::from_static(
            "admission webhook \"w\" denied the request: <no>"
        )),
        Just(Text::from_static("violates PodSecurity")),
    ];
    (code, word(), message).prop_map(|(code, reason, message)| Status {
        code,
        reason,
        message,
        ..Status::default()
    })
}

/// Bodies, among them some that look like the end of an event.
fn body() -> impl Strategy<Value = Option<Unknown>> {
    let bodies: &[&str] = &[
        r#"{"spec":{"replicas":3,"containers":[{"image":"nginx:latest"},{"image":"x"}]},"a":null}"#,
        r#"{"requestReceivedTimestamp":"2026-11-23T14:02:10.000000Z","stageTimestamp":"2026-11-23T14:02:11.000000Z","annotations":{"authorization.k8s.io/decision":"forbid"}}"#,
        r#"{"verb":"delete","user":{"username":"alice"},"responseStatus":{"code":403}}"#,
        r#"[1,"get",true,{"spec":"delete"}]"#,
    ];
    option::of(select(bodies).prop_map(|text| Unknown::json(Bytes::from_static(text.as_bytes()))))
}

fn time() -> impl Strategy<Value = MicroTime> {
    prop_oneof![
        6 => (1_795_440_000_i64..1_795_450_000, 0_u32..1_000_000)
            .prop_map(|(seconds, micros)| MicroTime::from_unix(seconds, micros * 1000)),
        1 => Just(MicroTime::ZERO),
        1 => (-70_000_000_000_i64..300_000_000_000).prop_map(|seconds| MicroTime::from_unix(seconds, 0)),
    ]
}

fn annotations() -> impl Strategy<Value = Vec<(Text, Text)>> {
    let key = select(
        &[
            "authorization.k8s.io/decision",
            "authorization.k8s.io/reason",
            "a.b/c",
            "stageTimestamp",
            "annotations",
        ][..],
    );
    let value = prop_oneof![word(), Just(Text::from_static("2026-11-23T14:02:11.000000Z"))];
    btree_map(key, value, 0..4).prop_map(|map| {
        map.into_iter()
            .map(|(key, value)| (Text::from_static(key), value))
            .collect()
    })
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let uri = prop_oneof![
        word(),
        Just(Text::from_static(
            "/api/v1/namespaces/n/pods/p/exec?command=sh&command=-c"
        )),
    ];
    let first = (
        select(&Level::ALL[..]),
        select(&Stage::ALL[..]),
        word(),
        uri,
        word(),
        user(),
        option::of(user()),
    );
    let second = (
        vec(word(), 0..3),
        word(),
        option::of(object()),
        option::of(status()),
        body(),
        body(),
        time(),
        time(),
        annotations(),
    );
    (first, second).prop_map(
        |(
            (level, stage, audit_id, request_uri, verb, user, impersonated_user),
            (
                source_ips,
                user_agent,
                object_ref,
                response_status,
                request,
                response,
                received,
                stage_time,
                annotations,
            ),
        )| Event {
            level: level.into(),
            stage: stage.into(),
            audit_id,
            request_uri,
            verb,
            user,
            impersonated_user,
            source_ips,
            user_agent,
            object_ref,
            response_status,
            request_object: request,
            response_object: response,
            request_received_timestamp: received,
            stage_timestamp: stage_time,
            annotations,
            ..Event::default()
        },
    )
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// One condition as a text.
fn condition() -> impl Strategy<Value = String> {
    let texts: &[&str] = &[
        "verb",
        "auditID",
        "requestURI",
        "user.username",
        "user.uid",
        "user.groups",
        "user.extra.a",
        "as",
        "impersonatedUser.groups",
        "userAgent",
        "client",
        "resource",
        "ns",
        "name",
        "objectRef.apiGroup",
        "objectRef.subresource",
        "reason",
        "responseStatus.message",
        "decision",
        "annotations.\"authorization.k8s.io/decision\"",
        "annotations.a.b/c",
        "annotations.stageTimestamp",
        "execCommand",
        "req.spec.containers.image",
        "requestObject",
        "resp.annotations",
        "cluster",
    ];
    let op = select(&[": ", " = ", " != "][..]);
    let calls = select(&["startsWith", "endsWith", "contains"][..]);
    let lower = select(&["", "", ".lower()"][..]);
    let word = || select(WORDS);
    let fixed: &[&str] = &[
        "code >= 400",
        "code: 403",
        "code: (200 or 404)",
        "code: [400 TO 403]",
        "code: *",
        "time >= 2026-11-23",
        "time < now-1h",
        "time: 2026-11-23T14:30",
        "latency > 1s",
        "latency <= 0s",
        "mutating: true",
        "bulk: false",
        "level: Metadata",
        "stage: (Panic or ResponseComplete)",
        "actorKind: (human or node)",
        "deniedBy: *",
        "deniedBy: webhook",
        "sourceIPs: 10.0.0.0/8",
        "sourceIP: 10.3.4.9",
        "ip: (203.0.113.0/24 or ::1)",
        "ip: 10.*",
        "req.spec.replicas >= 3",
        "requestReceivedTimestamp: *",
        "actorKind: none",
        "*",
        "not *",
        "eventBytes > 1",
        "seq: *",
    ];
    prop_oneof![
        4 => (select(texts), lower.clone(), op, word()).prop_map(|(field, lower, op, word)| {
            format!("{field}{lower}{op}{}", quoted(word))
        }),
        2 => (select(texts), vec(word(), 1..4)).prop_map(|(field, words)| {
            let words: Vec<String> = words.into_iter().map(quoted).collect();
            format!("{field} in ({})", words.join(", "))
        }),
        2 => (select(texts), lower.clone(), select(&["d*", "*l*", "sys*:n?", "*st", "?et", "*"][..]))
            .prop_map(|(field, lower, pattern)| format!("{field}{lower}: {pattern}")),
        2 => (select(texts), lower, calls, word())
            .prop_map(|(field, lower, call, word)| format!("{field}{lower}.{call}({})", quoted(word))),
        1 => (select(texts), select(&["^de", "l+", "[0-9]$"][..]))
            .prop_map(|(field, regex)| format!("{field} ~ {}", quoted(regex))),
        4 => select(fixed).prop_map(str::to_owned),
        1 => word().prop_map(quoted),
        1 => select(&["ali*", "kube", "n?"][..]).prop_map(str::to_owned),
    ]
}

/// A whole filter as a text.
pub(crate) fn filter() -> impl Strategy<Value = String> {
    condition().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join(" and "))),
            vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join(" or "))),
            inner.prop_map(|part| format!("not {part}")),
        ]
    })
}

/// Texts that are mostly no filters.
pub(crate) fn noise() -> impl Strategy<Value = String> {
    let tokens: &[&str] = &[
        "verb",
        "code",
        "time",
        "user.username",
        "annotations",
        ":",
        "=",
        "!=",
        ">=",
        "=>",
        "~",
        "(",
        ")",
        "[",
        "]",
        "\"",
        "'",
        "and",
        "or",
        "not",
        "in",
        "TO",
        "*",
        "?",
        "-",
        "!",
        ",",
        "400",
        "now-1h",
        "10.0.0.0/8",
        "\\",
        "\u{e9}",
        ".lower()",
        ".matches(",
        "{",
        "&&",
        "||",
        " ",
        " ",
        " ",
        "req.a[0]",
        ".\"k\"",
        "latency",
        "1h",
        "bulk",
        "true",
    ];
    vec(select(tokens), 0..16).prop_map(|tokens| tokens.concat())
}
