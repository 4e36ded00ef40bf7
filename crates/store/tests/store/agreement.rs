//! the scan finds what `Filter::matches` says, in the tail, in sealed files and in compacted ones.

use std::collections::BTreeMap;

use bytes::Bytes;
use kaudit_event::{DecodedEvent, MicroTime};
use kaudit_query::{Column, Envelope, Filter, Row, Value};
use kaudit_store::{Compaction, Hit, Order, Scan};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::bed::{Bed, NOW, odd_lines, real_lines};

/// The conditions from which filters are made.
const CONDITIONS: &[&str] = &[
    "verb: get",
    "verb: (create or delete or patch)",
    "user.username: system:*",
    "user.username: system:apiserver",
    "user.username: *",
    "user.groups: system:masters",
    "objectRef.resource: secrets",
    "objectRef.resource: (pods or configmaps)",
    "objectRef.name: *a*",
    "objectRef.namespace: kube-system",
    "objectRef.subresource: *",
    "responseStatus.code: 403",
    "responseStatus.code >= 400",
    "responseStatus.code: 99999999999",
    "responseStatus.reason: Forbidden",
    "stage: ResponseComplete",
    "level: RequestResponse",
    "sourceIPs: 127.0.0.1",
    "sourceIP: *",
    "userAgent: kubectl",
    "client: kubectl",
    "actorKind: human",
    "actorKind: none",
    "deniedBy: rbac",
    "mutating: true",
    "bulk: true",
    "execCommand: *",
    "latency > 1ms",
    "requestObject.metadata.name: *",
    "requestObject.metadata.name: a*",
    "requestObject.spec.replicas > 2",
    "requestObject.type: (true or *erge* or Opaque)",
    "responseObject.kind: Status",
    "annotations[\"authorization.k8s.io/decision\"]: forbid",
    "annotations.a: *",
    "decision: allow",
    "requestURI: *watch*",
    "impersonatedUser.username: *",
    "impersonatedUser.uid: *",
    "user.extra[\"authentication.kubernetes.io/credential-id\"]: *",
    "authenticationMetadata.impersonationConstraint: *",
    "cluster: b",
    "seq > 1000",
    "policyRule: 7",
    "eventBytes > 1500",
    "stageTimestamp > 2026-11-01",
    "stageTimestamp < 2026-11-24T10:00:00Z",
    "requestReceivedTimestamp: *",
    "auditID: odd",
    "nginx",
];

fn filters() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(CONDITIONS).prop_map(str::to_owned);
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" and "))),
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" or "))),
            inner.prop_map(|part| format!("not {part}")),
        ]
    })
}

fn parse(text: &str) -> Filter {
    Filter::parse(text, MicroTime::from_unix(NOW / 1_000_000, 0))
        .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// What is in the store, as the definition sees it.
struct Known {
    cluster: &'static str,
    decoded: Option<DecodedEvent>,
    bytes: u64,
}

fn matching(known: &[Known], filter: &Filter) -> Vec<u64> {
    let mut found = Vec::new();
    for (at, known) in known.iter().enumerate() {
        let seq = u64::try_from(at).unwrap() + 1;
        let Some(decoded) = &known.decoded else { continue };
        let envelope = Envelope {
            cluster: Some(known.cluster),
            source: Some("audit.log"),
            instance: Some("cp-1"),
            seq: Some(seq),
            received_micros: Some(NOW),
            policy_rule: Some(7),
            event_bytes: Some(known.bytes),
        };
        let event = decoded.view();
        if filter.matches(&Row { event, envelope }) {
            found.push(seq);
        }
    }
    found
}

/// The number of a record, which was asked for at this place.
fn seq_of(hit: &Hit<'_>, at: usize) -> u64 {
    match hit.value(at) {
        Value::Number(seq) => u64::try_from(seq).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn stored(bed: &Bed, filter: &Filter) -> Vec<u64> {
    let scan = Scan::new(filter.clone());
    let each = |found: &mut Vec<u64>, hit: &Hit<'_>| found.push(seq_of(hit, 1));
    let snapshot = bed.store.snapshot();
    let (found, _) = snapshot
        .fold(&scan, &[Column::Verb, Column::Seq], Vec::new, each)
        .unwrap();
    let mut found: Vec<u64> = found.into_iter().flatten().collect();
    found.sort_unstable();
    assert_eq!(snapshot.count(&scan).unwrap().0, found.len() as u64);
    found
}

/// A store with events of two clusters; a part of them in the tail.
fn filled() -> (Bed, Vec<Known>) {
    let bed = Bed::new();
    let mut known = Vec::new();
    let mut take = |cluster: &'static str, lines: &[Vec<u8>]| {
        bed.take(cluster, lines.iter().map(Vec::as_slice));
        known.extend(lines.iter().map(|line| Known {
            cluster,
            decoded: DecodedEvent::parse(Bytes::copy_from_slice(line)).ok(),
            bytes: line.len() as u64,
        }));
    };
    let real = real_lines();
    let odd: Vec<Vec<u8>> = odd_lines()
        .into_iter()
        .filter(|line| line.starts_with(b"{"))
        .collect();
    let small: Vec<Vec<u8>> = real
        .into_iter()
        .filter(|line| line.len() < 20_000)
        .step_by(3)
        .collect();
    take("a", &small[..small.len() / 3]);
    take("b", &odd);
    take("b", &small[small.len() / 3..small.len() / 2]);
    (bed, known)
}

#[test]
fn the_scan_finds_what_the_definition_says() {
    let (bed, known) = filled();
    let check = |cases: u32, when: &str| {
        for text in CONDITIONS {
            let filter = parse(text);
            assert_eq!(stored(&bed, &filter), matching(&known, &filter), "{when}: {text}");
        }
        let mut runner = TestRunner::new(Config {
            failure_persistence: None,
            ..Config::with_cases(cases)
        });
        let outcome = runner.run(&filters(), |text| {
            let filter = parse(&text);
            prop_assert_eq!(
                stored(&bed, &filter),
                matching(&known, &filter),
                "{}: {}",
                when,
                text
            );
            Ok(())
        });
        outcome.unwrap();
    };
    bed.catch_up();
    check(24, "in the tail");
    bed.seal();
    check(24, "sealed");
    let before = bed.all();
    let done = bed.store.compact(&Compaction::before(i64::MAX), NOW).unwrap();
    assert!(done.removed.len() >= done.added.len());
    check(24, "compacted");
    assert!(bed.all() == before);
}

#[test]
fn pages_hold_the_newest_or_oldest_and_follow_each_other() {
    let (bed, known) = filled();
    bed.catch_up();
    bed.seal();
    let filter = parse("verb: (get or list) and not user.username: system:apiserver");
    let wanted = matching(&known, &filter);
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = bed.page(filter.clone(), order, 37, after);
            found.extend(page.events.iter().map(|event| event.position));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut sorted = found.clone();
        sorted.sort_unstable();
        if order == Order::NewestFirst {
            sorted.reverse();
        }
        assert_eq!(found, sorted);
        let mut seqs: Vec<u64> = found.iter().map(|position| position.seq).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, wanted);
    }
}

#[test]
fn values_are_those_of_the_definition() {
    let (bed, known) = filled();
    bed.catch_up();
    bed.seal();
    let columns: Vec<Column> = kaudit_query::COLUMNS
        .iter()
        .filter_map(|info| Column::from_name(info.name))
        .collect();
    assert!(columns.len() > 30);
    for columns in columns.chunks(5) {
        let asked: Vec<Column> = columns.iter().cloned().chain([Column::Seq]).collect();
        let each = |found: &mut BTreeMap<u64, Vec<String>>, hit: &Hit<'_>| {
            let values = (0..columns.len())
                .map(|at| format!("{:?}", hit.value(at)))
                .collect();
            found.insert(seq_of(hit, columns.len()), values);
        };
        let scan = Scan::new(Filter::everything());
        let (found, _) = bed
            .store
            .snapshot()
            .fold(&scan, &asked, BTreeMap::new, each)
            .unwrap();
        let found: BTreeMap<u64, Vec<String>> = found.into_iter().flatten().collect();
        for (at, known) in known.iter().enumerate() {
            let Some(decoded) = &known.decoded else { continue };
            let seq = at as u64 + 1;
            let envelope = Envelope {
                cluster: Some(known.cluster),
                source: Some("audit.log"),
                instance: Some("cp-1"),
                seq: Some(seq),
                received_micros: Some(NOW),
                policy_rule: Some(7),
                event_bytes: Some(known.bytes),
            };
            let event = decoded.view();
            let row = Row { event, envelope };
            let expected: Vec<String> = columns
                .iter()
                .map(|column| format!("{:?}", row.value(column)))
                .collect();
            assert_eq!(
                found[&seq],
                expected,
                "{columns:?} of {}",
                String::from_utf8_lossy(decoded.text())
            );
        }
    }
}
