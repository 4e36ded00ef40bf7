//! Union: order, partial failure, names; and what the conformance suite notices.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kaudit_event::Stage;
use kaudit_sink::conformance::{self, Subject};
use kaudit_sink::recording::Recording;
use kaudit_sink::{
    Counters, Discard, Emission, Outcome, Reason, Receipt, Refusal, Refusals, Reservation, Reserve, Sink,
    Union,
};

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
fn a_batch_goes_whole_to_each_member_and_refusals_add_up() {
    let (first, second) = (
        Recording::refusing(&[Stage::ResponseComplete]),
        Recording::default(),
    );
    let union = Union::of(vec![Arc::new(first.clone()), Arc::new(second.clone())]);
    let events = [conformance::event(0, 0), conformance::event(0, 1)];
    let outcome = union.submit_batch(events.iter().map(Emission::new).collect());
    assert!(matches!(outcome, Outcome::Refused(refusals) if refusals.len() == 2));
    assert_eq!(first.lines(), second.lines());
    assert_eq!(first.lines().len(), 2);
}

/// Answers every event with a receipt that ends as it is told.
#[derive(Debug)]
struct Slow(Result<(), Refusals>);

impl Sink for Slow {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, _: &Emission<'_>, _: &mut Reservation) -> Outcome {
        let end = self.0.clone();
        Outcome::Pending(Receipt::new(async move { end }))
    }

    fn name(&self) -> String {
        "slow".to_owned()
    }
}

#[test]
fn a_union_is_pending_while_a_member_is_and_then_all_refusals_are_there() {
    let refusal = Refusal {
        plugin: "slow",
        reason: Reason::Delivery,
        message: "no".to_owned(),
    };
    let union = Union::of(vec![
        Arc::new(Slow(Err(vec![refusal.clone()]))),
        Arc::new(Recording::refusing(&[Stage::ResponseComplete])),
        Arc::new(Slow(Ok(()))),
    ]);
    let event = conformance::event(0, 0);
    let outcome = union.submit(&Emission::new(&event), &mut Reservation::none());
    assert!(matches!(outcome, Outcome::Pending(_)));
    let refusals = outcome.wait().unwrap_err();
    assert_eq!(
        refusals.iter().map(|refusal| refusal.plugin).collect::<Vec<_>>(),
        ["slow", "recording"]
    );
}

fn subject(recording: Recording) -> Subject<Recording> {
    let copy = recording.clone();
    Subject {
        sink: Arc::new(recording),
        counters: Arc::new(Counters::default()),
        kept: Box::new(move || {
            let ids = copy.lines().into_iter().map(|line| {
                let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
                line["auditID"].as_str().unwrap().to_owned()
            });
            ids.collect()
        }),
    }
}

#[test]
fn recording_passes_the_conformance_suite() {
    conformance::check(|| subject(Recording::default()));
    conformance::check_never_blocks(Arc::new(Recording::default()));
}

#[test]
#[should_panic(expected = "is counted")]
fn a_sink_that_does_not_count_its_refusals_fails_the_suite() {
    conformance::check(|| subject(Recording::refusing(&[Stage::ResponseComplete])));
}

/// Says that it took an event and forgets every third.
#[derive(Debug)]
struct Forgetful(Recording, AtomicUsize);

impl Sink for Forgetful {
    fn reserve(&self, events: u32) -> Reserve {
        self.0.reserve(events)
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        if self.1.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            return Outcome::Accepted;
        }
        self.0.submit(emission, reservation)
    }

    fn name(&self) -> String {
        "forgetful".to_owned()
    }
}

#[test]
#[should_panic(expected = "is kept")]
fn a_sink_that_loses_events_quietly_fails_the_suite() {
    conformance::check(|| {
        let Subject { sink, counters, kept } = subject(Recording::default());
        let recording = sink.as_ref().clone();
        Subject {
            sink: Arc::new(Forgetful(recording, AtomicUsize::new(1))),
            counters,
            kept,
        }
    });
}
