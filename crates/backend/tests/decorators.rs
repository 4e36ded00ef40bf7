//! Each decorator passes the conformance suite of sinks.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::sync::Arc;
use std::time::Duration;

use kaudit_backend::dynamic::{AuditSink, Dynamic, Surroundings};
use kaudit_backend::{
    BatchConfig, Buffered, Enforced, IgnoreErrors, Truncate, TruncateConfig, Turns, WhenFull,
};
use kaudit_sink::conformance::{self, Subject};
use kaudit_sink::recording::Recording;
use kaudit_sink::{Counters, Demand, Sink};
use serde_json::Value;

fn subject<S: Sink>(make: impl FnOnce(Arc<Recording>, Arc<Counters>) -> S) -> Subject<S> {
    let recording = Recording::default();
    let counters = Arc::new(Counters::default());
    let sink = make(Arc::new(recording.clone()), Arc::clone(&counters));
    Subject {
        sink: Arc::new(sink),
        counters,
        kept: Box::new(move || ids(&recording)),
    }
}

fn ids(recording: &Recording) -> Vec<String> {
    let lines = recording.lines();
    lines
        .iter()
        .map(|line| {
            let event: Value = serde_json::from_slice(line).unwrap();
            event["auditID"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn enforced_ignore_errors_turns_and_truncate_pass_the_conformance_suite() {
    conformance::check(|| subject(|recording, _| Enforced::new(recording)));
    conformance::check(|| subject(|recording, _| IgnoreErrors::new(recording)));
    conformance::check(|| subject(|recording, _| Turns::new(recording)));
    for max_event_size in [100, 102_400] {
        let config = TruncateConfig {
            max_event_size,
            max_batch_size: 1000,
        };
        conformance::check(|| subject(|recording, counters| Truncate::new(recording, config, counters)));
    }
}

#[test]
fn a_dynamic_sink_passes_the_conformance_suite() {
    conformance::check(|| {
        let recording = Recording::default();
        let behind = recording.clone();
        let start = move |_: &AuditSink, counters: &Arc<Counters>| {
            let config = BatchConfig {
                buffer_size: 10_000,
                max_batch_size: 10,
                max_batch_wait: Duration::ZERO,
                throttle: None,
                max_in_flight: 1,
                when_full: WhenFull::DropNewest,
            };
            let delegate = Buffered::new(Arc::new(behind.clone()), config, Arc::clone(counters));
            Ok(Arc::new(delegate) as Arc<dyn Sink>)
        };
        let dynamic = Dynamic::new(Demand::default(), Box::new(start));
        let object = "{apiVersion: auditregistration.k8s.io/v1alpha1, kind: AuditSink, metadata: {name: a}, spec: {policy: \
                      {level: Metadata, stages: [ResponseComplete]}, webhook: {clientConfig: {url: 'https://a'}}}}";
        let object = AuditSink::parse_all(object, Surroundings::Outside)
            .remove(0)
            .unwrap();
        assert!(dynamic.replace(vec![object]).is_empty());
        Subject {
            counters: Arc::clone(&dynamic.counters()[0]),
            sink: Arc::new(dynamic),
            kept: Box::new(move || ids(&recording)),
        }
    });
}
