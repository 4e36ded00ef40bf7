//! EventLists.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use kaudit_collect::Way;
use kaudit_event::record::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::world::{Plan, TOKEN, certificate, grant, item, line, list, origin, padded, post, records};

const PATH: &str = "/v1/audit/prod/cp-1?timeout=30s";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lines(intake: &kaudit_collect::Intake) -> Vec<String> {
    let records = records(intake);
    records
        .iter()
        .map(|record| String::from_utf8(record.event.to_vec()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_list_is_kept_as_lines_over_http2_and_over_http1() {
    let central = Plan::new().start().await;
    let client = central.client(Some("apiserver"), None);
    let answer = post(
        &client,
        PATH,
        &[("content-type", "application/json")],
        &list(&[item(0), item(1)]),
    )
    .await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    let (status, _) = central
        .post_http1(Some("apiserver"), PATH, "", &list(&[item(1), item(2)]))
        .await;
    assert_eq!(status, 200);
    let expected: Vec<String> = (0..3).map(|number| line(&item(number))).collect();
    assert_eq!(lines(&central.intake), expected);
    let record = &records(&central.intake)[0];
    assert_eq!(
        (
            record.cluster.as_str(),
            record.instance.as_str(),
            record.source.as_str(),
            record.transport
        ),
        ("prod", "cp-1", "webhook", Transport::Webhook)
    );
    drop(central.intake.sources());
    let counts = central
        .intake
        .source(&origin("prod", "cp-1", Way::Webhook, ""))
        .unwrap()
        .counts();
    assert_eq!((counts.events, counts.duplicates), (3, 1));
    assert!(counts.certificate_not_after.is_some());
    client.close().await;
}

#[tokio::test]
async fn a_source_is_bound_to_a_certificate_or_a_token_and_everything_else_is_refused() {
    let central = Plan::new().start().await;
    let body = list(&[item(0)]);
    let json = [("content-type", "application/json")];
    for (name, token, path, headers, expected) in [
        (Some("apiserver"), None, "/v1/audit/prod/cp-9", &json[..], 200),
        (None, Some(TOKEN), "/v1/audit/dev/cp-1", &json, 200),
        (Some("somebody"), Some(TOKEN), "/v1/audit/dev/cp-1", &[], 200),
        (None, None, "/v1/audit/prod/cp-1", &json, 401),
        (Some("somebody"), None, "/v1/audit/prod/cp-1", &json, 401),
        (
            None,
            Some("another-token-than-that"),
            "/v1/audit/dev/cp-1",
            &json,
            401,
        ),
        (Some("apiserver"), None, "/v1/audit/dev/cp-1", &json, 403),
        (None, Some(TOKEN), "/v1/audit/dev/cp-2", &json, 403),
        (Some("apiserver"), None, "/", &json, 404),
        (Some("apiserver"), None, "/v1/audit/prod", &json, 404),
        (Some("apiserver"), None, "/v1/audit/prod/cp-1/x", &json, 404),
        (Some("apiserver"), None, "/v1/audit/prod/%2e%2e", &json, 404),
        (
            Some("apiserver"),
            None,
            "/v1/audit/prod/cp-1",
            &[("content-type", "text/plain")],
            415,
        ),
        (
            Some("apiserver"),
            None,
            "/v1/audit/prod/cp-1",
            &[
                ("content-encoding", "br"),
                ("content-type", "application/json; charset=utf-8"),
            ],
            415,
        ),
    ] {
        let client = central.client(name, token);
        let answer = post(&client, path, headers, &body).await;
        assert_eq!(answer.status.as_u16(), expected, "{name:?} {token:?} {path}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), expected == 401);
        client.close().await;
    }
    let mut stream = central.connect(Some("apiserver")).await;
    stream
        .write_all(b"GET /v1/audit/prod/cp-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: POST"),
        "{answer}"
    );
}

#[tokio::test]
async fn rights_may_change_while_it_serves() {
    let central = Plan::new().start().await;
    let client = central.client(Some("late"), None);
    assert_eq!(post(&client, PATH, &[], &list(&[item(0)])).await.status, 401);
    let access = kaudit_collect::Access::new(vec![grant("*", "*", certificate("late"))]);
    central.access.store(Arc::new(access));
    assert_eq!(post(&client, PATH, &[], &list(&[item(0)])).await.status, 200);
    client.close().await;
}

#[tokio::test]
async fn a_compressed_list_is_inflated_and_a_bomb_is_not() {
    let central = Plan::new().start().await;
    let client = central.client(Some("apiserver"), None);
    let coding = [("content-encoding", "gzip")];
    let items: Vec<String> = (0..2000).map(item).collect();
    assert_eq!(
        post(&client, PATH, &coding, &gzip(&list(&items))).await.status,
        200
    );
    assert_eq!(lines(&central.intake).len(), 2000);
    let bomb = gzip(&list(&[padded(9999, &"x".repeat(20 << 20))]));
    let answer = post(&client, PATH, &coding, &bomb).await;
    assert_eq!(answer.status, 400);
    assert!(String::from_utf8_lossy(&answer.body).contains("100 times"));
    let answer = post(&client, PATH, &coding, b"not gzip").await;
    assert_eq!(answer.status, 400);
    let whole = gzip(&list(&[item(5000)]));
    let answer = post(&client, PATH, &coding, &whole[..whole.len() - 12]).await;
    assert_eq!(answer.status, 400, "a compressed body that is cut");
    client.close().await;
}

#[tokio::test]
async fn what_is_no_event_goes_to_quarantine_and_costs_no_neighbour() {
    let central = Plan::new().start().await;
    let client = central.client(Some("apiserver"), None);
    let items = [
        item(0),
        r#"{"level":"Metadata","stage":7}"#.to_owned(),
        "17".to_owned(),
        item(1),
    ];
    assert_eq!(post(&client, PATH, &[], &list(&items)).await.status, 200);
    assert_eq!(lines(&central.intake), [line(&item(0)), line(&item(1))]);
    let quarantine = central.quarantine();
    assert!(
        quarantine.contains(r#"{"level":"Metadata","stage":7}"#),
        "{quarantine}"
    );
    let source = central
        .intake
        .source(&origin("prod", "cp-1", Way::Webhook, ""))
        .unwrap();
    assert_eq!(source.counts().quarantined, 2);
    for body in [
        "",
        "hello",
        r#"{"kind":"PodList","apiVersion":"v1","items":[]}"#,
        "[1]",
    ] {
        assert_eq!(
            post(&client, PATH, &[], body.as_bytes()).await.status,
            400,
            "{body}"
        );
    }
    assert!(central.quarantine().contains("hello"));
    // What came before the fault stays.
    let mut cut = list(&[item(2), item(3)]);
    cut.truncate(cut.len() - 20);
    assert_eq!(post(&client, PATH, &[], &cut).await.status, 400);
    assert_eq!(lines(&central.intake)[2], line(&item(2)));
    client.close().await;
}

#[tokio::test]
async fn a_list_of_the_beta_version_is_kept_as_lines_of_the_version() {
    let central = Plan::new().start().await;
    let client = central.client(Some("apiserver"), None);
    let body = String::from_utf8(list(&[item(0)]))
        .unwrap()
        .replace("audit.k8s.io/v1", "audit.k8s.io/v1beta1");
    assert_eq!(post(&client, PATH, &[], body.as_bytes()).await.status, 200);
    assert_eq!(lines(&central.intake), [line(&item(0))]);
    client.close().await;
}

#[tokio::test]
async fn an_event_that_is_too_large_is_kept_without_bodies() {
    let mut plan = Plan::new();
    plan.receiver.max_event_bytes = 10_000;
    let central = plan.start().await;
    let client = central.client(Some("apiserver"), None);
    let items = [item(0), padded(1, &"x".repeat(50_000)), item(2)];
    assert_eq!(post(&client, PATH, &[], &list(&items)).await.status, 200);
    let lines = lines(&central.intake);
    assert_eq!(
        (lines.len(), &lines[0], &lines[2]),
        (3, &line(&item(0)), &line(&item(2)))
    );
    assert!(
        lines[1].contains("kaudit.dev/bodies-omitted") && !lines[1].contains("xxx"),
        "{}",
        lines[1]
    );
    assert!(lines[1].contains("\"auditID\":\"id-1\""));
    let source = central
        .intake
        .source(&origin("prod", "cp-1", Way::Webhook, ""))
        .unwrap();
    assert_eq!(source.counts().oversized, 1);
    client.close().await;
}

#[tokio::test]
async fn when_the_memory_is_used_up_a_sender_is_told_to_come_again() {
    let mut plan = Plan::new();
    plan.receiver.max_event_bytes = 1 << 20;
    plan.receiver.memory_bytes = 2 << 20;
    plan.receiver.patience = Duration::from_millis(50);
    let central = plan.start().await;
    // One that holds most of it and does not go on.
    let mut holder = central.connect(Some("apiserver")).await;
    let body = list(&[
        padded(0, &"x".repeat(1_000_000)),
        padded(1, &"x".repeat(1_000_000)),
    ]);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    holder.write_all(head.as_bytes()).await.unwrap();
    holder.write_all(&body[..1_900_000]).await.unwrap();
    holder.flush().await.unwrap();
    let client = central.client(Some("apiserver"), None);
    let large = list(&[padded(2, &"y".repeat(900_000))]);
    let mut others = JoinSet::new();
    for _ in 0..4 {
        let (client, large) = (client.clone(), large.clone());
        others.spawn(async move { post(&client, PATH, &[], &large).await });
    }
    let mut answers = Vec::new();
    while let Some(answer) = others.join_next().await {
        answers.push(answer.unwrap());
    }
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|answer| answer.headers["retry-after"] == "1"));
    let source = central
        .intake
        .source(&origin("prod", "cp-1", Way::Webhook, ""))
        .unwrap();
    assert!(source.counts().held_back["memory"] > 0);
    // And when it is free again, all is taken.
    drop(holder);
    while post(&client, PATH, &[], &large).await.status != 200 {}
    client.close().await;
}

#[tokio::test]
async fn a_refusal_is_read_by_a_sender_that_is_still_writing() {
    let mut plan = Plan::new();
    plan.receiver.max_event_bytes = 1 << 20;
    plan.receiver.memory_bytes = 2 << 20;
    plan.receiver.patience = Duration::from_millis(1);
    let central = plan.start().await;
    let body = vec![b'x'; 8 << 20];
    for (name, expected) in [(Some("apiserver"), 400), (None, 401)] {
        let (status, _) = central.post_http1(name, PATH, "", &body).await;
        assert_eq!(status, expected);
    }
}

#[tokio::test]
async fn a_sender_that_rests_too_long_is_let_go() {
    let mut plan = Plan::new();
    plan.receiver.idle = Duration::from_millis(50);
    let central = plan.start().await;
    let mut stream = central.connect(Some("apiserver")).await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{\"kind\":");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_senders_at_once_are_all_taken() {
    let central = Plan::new().start().await;
    let trust = central.cluster(central.address, Some("apiserver"), None);
    let mut senders = JoinSet::new();
    for sender in 0..300 {
        let trust = trust.clone();
        senders.spawn(async move {
            let client = kaudit_dial::Client::new(&trust).unwrap();
            for round in 0..3 {
                let first = (sender * 3 + round) * 10;
                let items: Vec<String> = (first..first + 10).map(item).collect();
                assert_eq!(post(&client, PATH, &[], &list(&items)).await.status, 200);
            }
            client.close().await;
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
    let mut lines = lines(&central.intake);
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 9000);
}

#[tokio::test]
async fn what_a_real_apiserver_posted_is_kept_byte_by_byte() {
    let central = Plan::new().start().await;
    let client = central.client(Some("apiserver"), None);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/real/webhook");
    let mut expected = Vec::new();
    for name in [
        "1-http1-mixed.http",
        "2-http1-mixed-small.http",
        "3-http2-rr-nomf.body.json",
    ] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let at = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let body = at
            .filter(|_| name.ends_with(".http"))
            .map_or(&bytes[..], |at| &bytes[at + 4..]);
        let answer = post(&client, PATH, &[("content-type", "application/json")], body).await;
        assert_eq!(answer.status, 200, "{name}");
        let text = std::str::from_utf8(body).unwrap();
        let items: Vec<&serde_json::value::RawValue> = {
            #[derive(serde::Deserialize)]
            struct List<'a> {
                #[serde(borrow)]
                items: Vec<&'a serde_json::value::RawValue>,
            }
            serde_json::from_str::<List<'_>>(text).unwrap().items
        };
        expected.extend(items.iter().map(|item| line(item.get())));
    }
    let mut seen = std::collections::BTreeSet::new();
    expected.retain(|line| seen.insert(line.clone()));
    assert!(expected.len() > 30, "{}", expected.len());
    assert_eq!(lines(&central.intake), expected);
    client.close().await;
}

#[tokio::test]
async fn a_list_is_acknowledged_only_when_it_is_durable() {
    let mut plan = Plan::new();
    // After its first commit the journal does not begin another for a minute.
    plan.journal.linger = Duration::from_secs(60);
    plan.journal.commit_share = u32::MAX;
    plan.receiver.deadline = Duration::from_millis(100);
    let central = plan.start().await;
    let client = central.client(Some("apiserver"), None);
    assert_eq!(post(&client, PATH, &[], &list(&[item(0)])).await.status, 200);
    for _ in 0..2 {
        // Also when it is a duplicate of what is not durable.
        let answer = post(&client, PATH, &[], &list(&[item(1)])).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.headers["retry-after"], "1");
    }
    assert_eq!(lines(&central.intake), [line(&item(0))]);
    client.close().await;
}
