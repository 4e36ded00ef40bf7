//! Union: order, partial failure, names.

use std::sync::Arc;

use kaudit_event::Stage;
use kaudit_sink::recording::Recording;
use kaudit_sink::{Discard, Emission, Outcome, Reservation, Union, conformance};

#[test]
fn a_refusal_of_one_does_not_keep_the_event_from_the_next() {
    let (first, second) = (
        Recording::refusing(&[Stage::ResponseComplete]),
        Recording::default(),
    );
    let union = Union::of(vec![Arc::new(first.clone()), Arc::new(second.clone())]);
    let event = conformance::event(0, 0);
    let outcome = union.submit(&Emission::new(&event), &mut Reservation::none());
    assert!(matches!(outcome, Outcome::Refused(refusals) if refusals.len() == 1));
    assert_eq!((first.lines().len(), second.lines().len()), (1, 1));
}

#[test]
fn a_union_names_its_members_and_of_one_it_is_that_one() {
    assert_eq!(
        Union::of(vec![Arc::new(Discard), Arc::new(Recording::default())]).name(),
        "union[discard,recording]"
    );
    assert_eq!(Union::of(vec![Arc::new(Discard)]).name(), "discard");
}

#[test]
fn recording_passes_the_conformance_suite() {
    conformance::check(|| {
        let sink = Arc::new(Recording::default());
        let copy = Arc::clone(&sink);
        let kept = move || {
            let ids = copy.lines().into_iter().map(|line| {
                let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
                line["auditID"].as_str().unwrap().to_owned()
            });
            ids.collect()
        };
        (sink, Box::new(kept))
    });
}
