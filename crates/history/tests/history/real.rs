use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kaudit_event::DecodedEvent;
use kaudit_history::{Exactness, History, Limits, Noise, Taken, Target, Version, What, diff};
use serde_json::Value;

/// The writes that a real server recorded with both bodies, in order; beside each, what would have been
/// recorded at level Request.
fn writes() -> Vec<(DecodedEvent, DecodedEvent)> {
    let packed = include_bytes!("../../../../testdata/real/rr-all.audit.jsonl.zst");
    let text = zstd::decode_all(&packed[..]).unwrap();
    let mut out: Vec<_> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| DecodedEvent::parse(Bytes::copy_from_slice(line)).unwrap())
        .filter(|event| {
            let view = event.view();
            let is_write = matches!(
                &*view.verb(),
                b"create" | b"update" | b"patch" | b"delete" | b"deletecollection"
            );
            is_write && view.object_ref().is_some()
        })
        .map(|event| {
            let mut value: Value = serde_json::from_str(&String::from_utf8_lossy(event.text())).unwrap();
            value.as_object_mut().unwrap().shift_remove("responseObject");
            value["level"] = "Request".into();
            let request = DecodedEvent::parse(Bytes::from(value.to_string())).unwrap();
            (event, request)
        })
        .collect();
    out.sort_by_key(|(event, _)| {
        let time = event.view().stage_timestamp().unwrap();
        (time.unix_seconds, time.nanos)
    });
    out
}

fn text(event: &DecodedEvent, key: &str) -> String {
    let reference = event.view().object_ref().unwrap();
    String::from_utf8(reference.text(key).into_owned()).unwrap()
}

/// What the server alone fills in.
fn is_filled_in(path: &str) -> bool {
    [
        "status",
        "metadata.managedFields",
        "metadata.uid",
        "metadata.creationTimestamp",
        "metadata.generation",
        "metadata.resourceVersion",
        "metadata.deletionTimestamp",
    ]
    .iter()
    .any(|filled| path.starts_with(filled))
}

#[test]
fn requests_alone_make_what_the_server_answered() {
    let writes = writes();
    let mut of_resource: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut targets = BTreeSet::new();
    for (number, (event, _)) in writes.iter().enumerate() {
        of_resource
            .entry(text(event, "resource"))
            .or_default()
            .push(number);
        if !text(event, "name").is_empty() {
            targets.insert(["apiGroup", "resource", "namespace", "name"].map(|key| text(event, key)));
        }
    }
    let (mut compared, mut by_patch) = (0, 0);
    for [group, resource, namespace, name] in &targets {
        let target = Target::new(group, resource, namespace, name);
        let mut full = History::new(target.clone(), Limits::default());
        let mut requests = History::new(target, Limits::default());
        for number in of_resource.get(resource).unwrap() {
            let (event, request) = &writes[*number];
            if full.push(*number as u64, &event.view()) != Taken::Unrelated {
                requests.push(*number as u64, &request.view());
            }
        }
        for made in requests.versions() {
            let Some(answered) = full
                .versions()
                .find(|version| version.origin.event == made.origin.event)
            else {
                continue;
            };
            let (Some(made_object), Some(answered_object)) = (&made.object, &answered.object) else {
                continue;
            };
            if answered.exactness != Exactness::Exact {
                continue;
            }
            compared += 1;
            by_patch += usize::from(made.origin.verb == "patch");
            for change in diff(made_object, answered_object, Noise::Shown).changes {
                // Defaults and admission add; nothing that a request says comes out otherwise.
                let path = change.path.to_string();
                assert!(
                    is_filled_in(&path) || matches!(change.what, What::Added(_)),
                    "{resource} {namespace}/{name}, {}: {path} {:?}",
                    made.origin.verb,
                    change.what
                );
            }
        }
    }
    assert!(
        compared > 300 && by_patch > 30,
        "{compared} versions, {by_patch} of patches"
    );
}

#[test]
fn the_history_of_a_deployment_is_as_it_was_recorded() {
    let target = Target::parse("deploy/web", "team-a").unwrap();
    let mut history = History::new(target, Limits::default());
    for (number, (event, _)) in writes().iter().enumerate() {
        history.push(number as u64, &event.view());
    }
    let line = |version: &Version| {
        format!(
            "{:?} {} {} {} {} {}",
            version.effect,
            version.exactness.as_str(),
            version.resource_version.as_deref().unwrap_or("-"),
            version.origin.user,
            version.origin.subresource,
            version.unseen.as_deref().unwrap_or_default(),
        )
        .trim_end()
        .to_owned()
    };
    let lines: Vec<String> = history.versions().map(line).collect();
    assert_eq!(lines, VERSIONS);
    let mut changes = Vec::new();
    for (at, version) in history.versions().enumerate() {
        let before = history
            .before(at)
            .and_then(|before| history.get(before)?.object.as_ref());
        if let (Some(before), Some(object)) = (before, &version.object) {
            changes.extend(diff(before, object, Noise::Folded).changes.iter().map(|change| {
                let what = match &change.what {
                    What::Added(value) => format!("+ {value}"),
                    What::Removed(value) => format!("- {value}"),
                    What::Changed { from, to } => format!("{from} -> {to}"),
                    What::Reordered => "reordered".to_owned(),
                };
                format!("{at} {} {what}", change.path)
            }));
        }
    }
    assert_eq!(changes, CHANGES);
}

const VERSIONS: &[&str] = &[
    "Created exact 240 alice@example.com",
    "Changed reconstructed 245 alice@example.com scale",
    "Changed exact 246 alice@example.com",
    "Changed exact 247 alice@example.com",
    "Changed exact 248 alice@example.com",
    "Changed exact 250 alice@example.com",
    "Changed exact 261 alice@example.com",
    "Changed exact 262 alice@example.com",
    "Changed exact 263 alice@example.com",
    "Changed reconstructed 264 alice@example.com scale",
    "Changed exact 274 carol@example.com",
    "Changed exact 313 carol@example.com status",
    "Changed reconstructed 431 alice@example.com scale",
    "Changed reconstructed 432 alice@example.com scale",
    "Deleted exact - alice@example.com",
];

const CHANGES: &[&str] = &[
    r#"1 spec.replicas 2 -> 4"#,
    r#"2 spec.template.spec.containers[web].image "registry.example.com/web:2.0" -> "registry.example.com/web:2.2""#,
    r#"3 metadata.annotations.note + "<b>&x""#,
    r#"4 metadata.labels.env + "prod""#,
    r#"5 spec.template.metadata.annotations + {"kubectl.kubernetes.io/restartedAt":"2026-11-23T18:55:07Z"}"#,
    r#"6 spec.paused + true"#,
    r#"7 spec.template.spec.containers[web].resources.limits + {"cpu":"1"}"#,
    r#"8 spec.paused - true"#,
    r#"9 spec.replicas 4 -> 1"#,
    r#"10 spec.template.spec.terminationGracePeriodSeconds 30 -> 31"#,
    r#"11 status.observedGeneration + 1"#,
    r#"11 status.replicas + 1"#,
    r#"12 spec.replicas 1 -> 3"#,
    r#"13 spec.replicas 3 -> 2"#,
];
