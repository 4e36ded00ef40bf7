//! truncate.jsonl: all of it, without exceptions.

use std::sync::{Arc, Mutex};

use kaudit_backend::{Truncate, TruncateConfig};
use kaudit_event::Event;
use kaudit_sink::{
    Counters, Emission, Outcome, Reason, Refusal, Reservation, Reserve, Sink, annotate_truncated,
};
use serde_json::Value;

use crate::description;

/// Records what it is called with and answers as it is told.
#[derive(Debug)]
struct Delegate {
    calls: Mutex<Vec<Vec<Value>>>,
    results: Mutex<Vec<bool>>,
}

impl Delegate {
    fn call(&self, batch: &[Emission<'_>]) -> Outcome {
        let lines = batch
            .iter()
            .map(|emission| serde_json::from_slice(emission.line().unwrap()).unwrap())
            .collect();
        self.calls.lock().unwrap().push(lines);
        match self.results.lock().unwrap().pop() {
            Some(false) => Outcome::Refused(vec![Refusal {
                plugin: "delegate",
                reason: Reason::Write,
                message: "told to".to_owned(),
            }]),
            _ => Outcome::Accepted,
        }
    }
}

impl Sink for Delegate {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        self.call(&[emission.share()])
    }

    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        self.call(&batch)
    }

    fn name(&self) -> String {
        "delegate".to_owned()
    }
}

/// A live event, as its producer has it.
struct Live {
    event: Event,
    has_map: bool,
}

impl Live {
    fn emission(&self) -> Emission<'_> {
        if self.has_map {
            Emission::with_annotation_map(&self.event)
        } else {
            Emission::new(&self.event)
        }
    }
}

fn limit(value: &Value) -> usize {
    usize::try_from(value.as_i64().unwrap()).unwrap_or_default()
}

#[test]
fn vectors_of_truncate_match_in_calls_results_and_the_live_events() {
    let cases = description::cases("truncate.jsonl");
    assert!(!cases.is_empty());
    for case in cases {
        check(&case, Way::InBatches);
        // One by one is how a request chain submits; where every call has one event it is the same.
        if case["calls"]
            .as_array()
            .unwrap()
            .iter()
            .all(|call| call.as_array().unwrap().len() == 1)
        {
            check(&case, Way::OneByOne);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    InBatches,
    OneByOne,
}

fn check(case: &Value, way: Way) {
    let id = &case["id"];
    let mut live: Vec<Live> = case["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| Live {
            event: description::event(event),
            has_map: event["annotations"].is_array(),
        })
        .collect();
    let mut results: Vec<bool> = case["delegate_results"]
        .as_array()
        .map(|results| results.iter().map(|result| result.as_bool().unwrap()).collect())
        .unwrap_or_default();
    results.reverse();
    let delegate = Arc::new(Delegate {
        calls: Mutex::default(),
        results: Mutex::new(results),
    });
    let counters = Arc::new(Counters::default());
    let config = TruncateConfig {
        max_event_size: limit(&case["max_event_size"]),
        max_batch_size: limit(&case["max_batch_size"]),
    };
    let truncate = Truncate::new(Arc::<Delegate>::clone(&delegate), config, Arc::clone(&counters));
    let calls = case["calls"].as_array().unwrap();
    for (call, expected) in calls.iter().zip(case["results"].as_array().unwrap()) {
        let indexes: Vec<usize> = call.as_array().unwrap().iter().map(limit).collect();
        let lost = counters.snapshot().total_lost();
        let marked: Vec<bool>;
        let outcome;
        {
            let emissions: Vec<Emission<'_>> = indexes.iter().map(|at| live[*at].emission()).collect();
            outcome = match way {
                Way::OneByOne => truncate.submit(&emissions[0], &mut Reservation::none()),
                Way::InBatches => truncate.submit_all(&emissions),
            };
            marked = emissions.iter().map(Emission::is_marked_truncated).collect();
        }
        for (at, marked) in indexes.iter().zip(marked) {
            if marked {
                annotate_truncated(&mut live[*at].event);
            }
        }
        assert_eq!(outcome.wait().is_ok(), expected["result"], "{id}: result");
        let lines: Vec<Vec<Value>> = std::mem::take(&mut delegate.calls.lock().unwrap());
        let expected_lines: Vec<Vec<Value>> = expected["delegate_calls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| {
                let lines = call.as_array().unwrap().iter();
                lines
                    .map(|line| serde_json::from_slice(description::text(line).as_bytes()).unwrap())
                    .collect()
            })
            .collect();
        assert_eq!(lines, expected_lines, "{id}: delegate's calls");
        for (live, expected) in live
            .iter()
            .zip(case["live_event_annotated_after"].as_array().unwrap())
        {
            if call == calls.last().unwrap() {
                let is_annotated = live
                    .event
                    .annotations
                    .iter()
                    .any(|(key, _)| *key == "audit.k8s.io/truncated");
                assert_eq!(
                    is_annotated,
                    expected.as_bool().unwrap_or_default(),
                    "{id}: live event"
                );
            }
        }
        let impacted = expected["impacted"].as_u64().unwrap_or_default();
        assert_eq!(
            counters.snapshot().total_lost() - lost,
            impacted,
            "{id}: impacted events"
        );
    }
}
