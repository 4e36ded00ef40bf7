//! What every [`Sink`] has to do, as a suite.
//!
//! Give [`check`] a way to make the sink and a way to read back what it kept. A sink that passes keeps
//! the order of one submitter, keeps every accepted event exactly once, says of every other one that it
//! refused it, never blocks in `submit`, and has a name in the notation of compositions.

use std::sync::Arc;

use kaudit_event::{Event, Level, MicroTime, Stage};

use crate::{Emission, Outcome, Reservation, Reserve, Sink};

/// Events of one submitter.
const EVENTS: usize = 50;

/// Submitters at once.
const SUBMITTERS: usize = 4;

/// One event of one submitter.
#[must_use]
pub fn event(submitter: usize, number: usize) -> Event {
    Event {
        level: Level::Metadata.into(),
        audit_id: format!("{submitter}/{number}").into(),
        stage: Stage::ResponseComplete.into(),
        request_uri: "/api/v1/pods".into(),
        verb: "list".into(),
        request_received_timestamp: MicroTime::from_unix(1_700_000_000, 0),
        stage_timestamp: MicroTime::from_unix(1_700_000_000, 0),
        ..Event::default()
    }
}

/// Runs the suite. `make` gives a fresh sink; `kept` is called after its shutdown and gives the auditIDs
/// of what it kept, in order.
///
/// # Panics
///
/// When the sink breaks the contract; the message says which sentence of it.
pub fn check<S: Sink + 'static>(make: impl Fn() -> (Arc<S>, Box<dyn Fn() -> Vec<String>>)) {
    let (sink, kept) = make();
    let name = sink.name();
    assert!(
        !name.is_empty() && !name.contains(char::is_whitespace),
        "a sink has a name without blanks: `{name}`"
    );

    let accepted: Vec<Vec<String>> = std::thread::scope(|scope| {
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|submitter| {
                let sink = Arc::clone(&sink);
                scope.spawn(move || submit(sink.as_ref(), submitter))
            })
            .collect();
        submitters
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default())
            .collect()
    });
    sink.shutdown();
    let kept = kept();
    for (submitter, accepted) in accepted.iter().enumerate() {
        let prefix = format!("{submitter}/");
        let of_this: Vec<&String> = kept.iter().filter(|id| id.starts_with(&prefix)).collect();
        let accepted: Vec<&String> = accepted.iter().collect();
        assert_eq!(
            of_this, accepted,
            "accepted events are kept exactly once and in the order of their submitter"
        );
    }
}

/// Submits the events of one submitter; returns those that were accepted.
fn submit(sink: &dyn Sink, submitter: usize) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 0..EVENTS {
        let event = event(submitter, number);
        let mut reservation = match sink.reserve(1) {
            Reserve::Ready(reservation) => reservation,
            Reserve::Refused(refusals) => {
                assert!(!refusals.is_empty(), "a refusal says who refused and why");
                continue;
            }
            Reserve::Wait(_) => Reservation::none(),
        };
        match sink.submit(&Emission::new(&event), &mut reservation) {
            Outcome::Accepted => accepted.push(event.audit_id.to_string()),
            Outcome::Refused(refusals) => assert!(!refusals.is_empty(), "a refusal says who refused and why"),
        }
    }
    accepted
}
