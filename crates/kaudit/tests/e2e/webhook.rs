//! The webhook backend of a real process, against a receiver that fails in every way.
//!
//! `KAUDIT_SOAK_SECONDS` says how long the receiver is down (2); `make soak` sets 300.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::capture::{Answer, Capture};
use crate::dev::Dev;
use crate::gateway::{Gateway, until};

/// Events of each request: RequestReceived and ResponseComplete.
const STAGES: [&str; 2] = ["RequestReceived", "ResponseComplete"];

/// Events that have to be somewhere.
fn expected(requests: usize) -> BTreeSet<(String, String)> {
    (0..requests)
        .flat_map(|number| STAGES.map(|stage| (format!("request-{number}"), stage.to_owned())))
        .collect()
}

#[test]
fn after_an_outage_every_event_was_delivered_or_is_counted_by_reason() {
    let down = std::env::var_os("KAUDIT_SOAK_SECONDS");
    let down: u64 = down.map_or(2, |seconds| seconds.to_str().unwrap().parse().unwrap());
    let dev = Dev::start(&["--no-traffic"]);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("webhook");
    let capture = Capture::start(&kubeconfig);
    let kubeconfig = kubeconfig.display().to_string();
    let mut gateway = Gateway::start(
        &dev,
        folder.path(),
        &[
            "--audit-webhook-config-file",
            &kubeconfig,
            "--audit-webhook-batch-max-size=5",
            "--audit-webhook-batch-max-wait=100ms",
            "--audit-webhook-batch-throttle-enable=false",
            "--audit-webhook-initial-backoff=200ms",
            "--audit-webhook-truncate-enabled",
        ],
    );
    gateway.send(10);
    until("the first events arrive", Duration::from_secs(20), || {
        capture.events().len() == 2 * gateway.sent
    });
    for answer in [
        Answer::Code(503),
        Answer::Code(500),
        Answer::Code(429),
        Answer::Code(413),
        Answer::KeptAndBroken,
    ] {
        capture.answers(answer);
        let (before, start) = (capture.requests(), Instant::now());
        // The outage lasts as long as it is told to, under requests all the while.
        loop {
            gateway.send(5);
            let is_tried = capture.requests() > before;
            if is_tried && start.elapsed() >= Duration::from_secs(down) / 5 {
                break;
            }
        }
        capture.answers(Answer::Ok);
    }
    gateway.send(5);
    let all = expected(gateway.sent);
    until("every event is accounted for", Duration::from_secs(120), || {
        let missing = all.len() - capture.events().keys().filter(|key| all.contains(key)).count();
        missing as u64 <= gateway.lost()
            && gateway
                .metric("kaudit_sink_queued_events")
                .values()
                .all(|queued| *queued == 0)
    });
    let events = capture.events();
    let missing = all.iter().filter(|key| !events.contains_key(key)).count() as u64;
    let lost = gateway.metric("kaudit_audit_events_lost_total");
    assert!(
        lost.keys()
            .all(|labels| labels.contains("plugin=\"webhook\"") || labels.contains("plugin=\"buffered\"")),
        "{lost:?}"
    );
    // An event that came although its delivery was given up is counted as lost and is there all the same.
    assert!(
        missing <= lost.values().sum(),
        "missing {missing}, counted {lost:?}"
    );
    assert_eq!(capture.without_certificate(), 0);
    assert_eq!(
        gateway
            .metric("apiserver_audit_event_total")
            .values()
            .sum::<u64>(),
        all.len() as u64
    );
    let said = gateway.stop();
    assert!(
        said.iter()
            .any(|line| line.contains("union[enforced<truncate<buffered<webhook>>>,dynamic[]]")),
        "{said:?}"
    );
    println!(
        "soak: {} s down, {} events, {} delivered, {missing} missing, counted as lost {lost:?}, {} sent twice",
        down,
        all.len(),
        events.len(),
        events.values().filter(|count| **count > 1).count()
    );
}

#[test]
fn a_stop_delivers_what_is_queued() {
    let dev = Dev::start(&["--no-traffic"]);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("webhook");
    let capture = Capture::start(&kubeconfig);
    let kubeconfig = kubeconfig.display().to_string();
    let mut gateway = Gateway::start(&dev, folder.path(), &["--audit-webhook-config-file", &kubeconfig]);
    gateway.send(20);
    assert_eq!(capture.events().len(), 0, "the batch waits for 30 s");
    gateway.stop();
    assert_eq!(capture.events().len(), 40);
}

#[test]
fn a_second_signal_ends_a_process_whose_receiver_is_dead_and_names_what_is_lost() {
    let dev = Dev::start(&["--no-traffic"]);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("webhook");
    let capture = Capture::start(&kubeconfig);
    capture.answers(Answer::Code(503));
    let kubeconfig = kubeconfig.display().to_string();
    // Its retries alone would take 81 s and more.
    let mut gateway = Gateway::start(&dev, folder.path(), &["--audit-webhook-config-file", &kubeconfig]);
    gateway.send(3);
    gateway.terminate();
    until("the queue is delivered in vain", Duration::from_secs(20), || {
        capture.requests() > 0
    });
    gateway.terminate();
    until("it ends", Duration::from_secs(30), || {
        gateway.child.try_wait().unwrap().is_some()
    });
    until("the loss is named", Duration::from_secs(20), || {
        let said = gateway.said.lock().unwrap();
        said.iter()
            .any(|line| line.contains("affecting 6 audit events: audit backend shut down"))
    });
}

#[test]
fn in_blocking_strict_a_request_whose_event_is_not_delivered_is_refused() {
    let dev = Dev::start(&["--no-traffic"]);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("webhook");
    let capture = Capture::start(&kubeconfig);
    let kubeconfig = kubeconfig.display().to_string();
    let mut gateway = Gateway::start(
        &dev,
        folder.path(),
        &[
            "--audit-webhook-config-file",
            &kubeconfig,
            "--audit-webhook-mode=blocking-strict",
            "--audit-webhook-initial-backoff=1ms",
        ],
    );
    assert_eq!(gateway.send(2), [200, 200]);
    // The request went on only when its first event had been delivered.
    let received = |events: &std::collections::HashMap<(String, String), usize>| {
        events
            .keys()
            .filter(|(_, stage)| stage == "RequestReceived")
            .count()
    };
    assert_eq!(received(&capture.events()), 2);
    capture.answers(Answer::Code(403));
    assert_eq!(gateway.send(1), [500]);
    assert_eq!(
        gateway
            .metric("apiserver_audit_requests_rejected_total")
            .values()
            .sum::<u64>(),
        1
    );
    capture.answers(Answer::Ok);
    assert_eq!(gateway.send(1), [200]);
    gateway.stop();
}

#[test]
fn a_sink_is_registered_changed_and_removed_under_load_without_a_lost_event() {
    let dev = Dev::start(&["--no-traffic"]);
    let folder = tempfile::tempdir().unwrap();
    let capture = Capture::start(&folder.path().join("unused"));
    let sinks = folder.path().join("sinks");
    std::fs::create_dir(&sinks).unwrap();
    let directory = sinks.display().to_string();
    let authority = {
        let unused: Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("unused")).unwrap()).unwrap();
        let data = &unused["clusters"][0]["cluster"]["certificate-authority-data"];
        data.as_str().unwrap().to_owned()
    };
    let object = |level: &str| {
        format!(
            "apiVersion: auditregistration.k8s.io/v1alpha1\nkind: AuditSink\nmetadata: {{name: capture}}\nspec:\n  \
             policy: {{level: {level}, stages: [RequestReceived, ResponseComplete]}}\n  \
             webhook: {{clientConfig: {{url: 'https://{}/x', caBundle: {authority}}}}}\n",
            capture.address()
        )
    };
    let mut gateway = Gateway::start(&dev, folder.path(), &["--audit-sink-dir", &directory]);
    let file = sinks.join("capture.yaml");
    std::fs::write(&file, object("Metadata")).unwrap();
    let is_there = |gateway: &Gateway, name: &str| {
        let working = gateway.metric("kaudit_sink_working");
        working.keys().any(|labels| labels.contains(name))
    };
    until("the sink is registered", Duration::from_secs(20), || {
        is_there(&gateway, "capture")
    });
    let first = gateway.sent;
    gateway.send(20);
    std::fs::write(&file, object("Request")).unwrap();
    // The change comes while these are under way.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        gateway.send(5);
    }
    std::fs::remove_file(&file).unwrap();
    let sent = gateway.sent;
    until("the sink is gone and drained", Duration::from_secs(60), || {
        !is_there(&gateway, "capture")
    });
    let all: BTreeSet<_> = expected(sent).into_iter().collect();
    let events = capture.events();
    let missing: Vec<_> = all.iter().filter(|key| !events.contains_key(key)).collect();
    assert!(missing.is_empty(), "of {first} to {sent}: {missing:?}");
    assert_eq!(gateway.lost(), 0);
    gateway.stop();
}

#[test]
fn what_is_in_the_spool_is_delivered_after_a_kill() {
    let dev = Dev::start(&["--no-traffic"]);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("webhook");
    let capture = Capture::start(&kubeconfig);
    capture.answers(Answer::Code(503));
    let kubeconfig = kubeconfig.display().to_string();
    let arguments = [
        "--audit-webhook-config-file",
        &kubeconfig,
        "--audit-webhook-spool-max-size=64Mi",
        "--audit-webhook-initial-backoff=200ms",
        "--audit-webhook-batch-max-wait=0s",
    ];
    let mut gateway = Gateway::start(&dev, folder.path(), &arguments);
    gateway.send(5);
    let before = capture.requests();
    // Between two attempts lie 200 ms, and between an event and the disk 5.
    until("it is tried twice in vain", Duration::from_secs(20), || {
        capture.requests() >= before + 2
    });
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();
    assert!(capture.events().is_empty());
    capture.answers(Answer::Ok);
    let gateway = Gateway::start(&dev, folder.path(), &arguments);
    until("they are delivered", Duration::from_secs(20), || {
        capture.events().len() == 10
    });
    let said = gateway.stop();
    assert!(
        said.iter().any(|line| line.contains("spool<webhook>")),
        "{said:?}"
    );
    assert_eq!(
        capture.events().keys().cloned().collect::<BTreeSet<_>>(),
        expected(5)
    );
}
