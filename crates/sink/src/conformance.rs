//! What every [`Sink`] has to do, as a suite.
//!
//! Give [`check`] a way to make a [`Subject`]: the sink, its counters, and a way to read back what it
//! kept. A sink that passes keeps the order of one submitter, one by one as in batches; keeps every event
//! exactly once that it neither refused nor counted as lost; counts every refusal with its reason; after
//! its shutdown counts an event as lost, refusing it or not as its mode says, or keeps it as before; and
//! has a name in the notation of compositions.
//!
//! [`check_never_blocks`] takes a sink whose medium is stuck.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use kaudit_event::{Event, Level, MicroTime, Stage};

use crate::{Counters, Emission, Outcome, Refusals, Reservation, Reserve, Sink};

/// Events of one submitter.
const EVENTS: usize = 50;

/// Submitters at once.
const SUBMITTERS: usize = 4;

/// Events of one batch.
const BATCH: usize = 7;

/// A submit that takes longer is stuck.
const STUCK: Duration = Duration::from_secs(20);

/// A sink to be checked.
pub struct Subject<S> {
    /// A fresh sink.
    pub sink: Arc<S>,
    /// Where it counts what it did not keep.
    pub counters: Arc<Counters>,
    /// The auditIDs of what it kept, in order; called after the shutdown.
    pub kept: Box<dyn Fn() -> Vec<String>>,
}

impl<S> std::fmt::Debug for Subject<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subject")
    }
}

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

/// Runs the suite: events one by one, then batches. Call it from a thread that may block.
///
/// # Panics
///
/// When the sink breaks the contract; the message says which sentence of it.
pub fn check<S: Sink + 'static>(make: impl Fn() -> Subject<S>) {
    check_with(&make(), submit_singly);
    check_with(&make(), submit_in_batches);
}

fn check_with<S: Sink>(subject: &Subject<S>, submit: fn(&dyn Sink, usize) -> Submitted) {
    let Subject { sink, counters, kept } = subject;
    let name = sink.name();
    assert!(
        !name.is_empty() && !name.contains(char::is_whitespace),
        "a sink has a name without blanks: `{name}`"
    );
    let submitted: Vec<Submitted> = std::thread::scope(|scope| {
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|submitter| {
                let sink = Arc::clone(sink);
                scope.spawn(move || submit(sink.as_ref(), submitter))
            })
            .collect();
        submitters
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default())
            .collect()
    });
    let reserved: u64 = submitted.iter().map(|submitted| submitted.events).sum();
    assert_eq!(
        reserved,
        (SUBMITTERS * EVENTS) as u64,
        "a submitter panicked: a sink does not"
    );
    sink.shutdown();
    let late = submit_late(sink.as_ref(), counters);

    let kept = kept();
    let mut lost = counters.snapshot().total_lost();
    let refused: u64 = submitted.iter().map(|submitted| submitted.refused).sum();
    assert!(lost >= refused, "{refused} refusals are counted, not {lost}");
    match late {
        Late::Accepted { id, .. } if kept.contains(&id) => {}
        // A mode to which losses do not matter accepts and counts.
        Late::Accepted { is_loss_counted, .. } => {
            assert!(
                is_loss_counted,
                "an event that is accepted after the shutdown is kept, or counted as lost"
            );
            lost -= 1;
        }
        Late::Refused => lost -= 1,
    }
    let kept: Vec<&String> = kept
        .iter()
        .filter(|id| !id.starts_with(&format!("{SUBMITTERS}/")))
        .collect();
    assert_eq!(
        kept.len() as u64 + lost,
        reserved,
        "every event is kept or counted as lost"
    );
    let distinct: BTreeSet<_> = kept.iter().collect();
    assert_eq!(distinct.len(), kept.len(), "no event is kept twice");
    for (submitter, submitted) in submitted.iter().enumerate() {
        let prefix = format!("{submitter}/");
        let numbers: Vec<usize> = kept
            .iter()
            .filter_map(|id| id.strip_prefix(&prefix)?.parse().ok())
            .collect();
        assert!(
            numbers.is_sorted(),
            "events are kept in the order of their submitter: {numbers:?}"
        );
        assert!(
            submitted.refused > 0 || lost > 0 || numbers.len() == EVENTS,
            "what is accepted is kept"
        );
    }
}

/// What a submitter saw.
#[derive(Default)]
struct Submitted {
    events: u64,
    refused: u64,
}

impl Submitted {
    fn count(&mut self, events: usize, end: Result<(), Refusals>) {
        self.events += events as u64;
        if let Err(refusals) = end {
            assert!(!refusals.is_empty(), "a refusal says who refused and why");
            self.refused += 1;
        }
    }
}

fn submit_singly(sink: &dyn Sink, submitter: usize) -> Submitted {
    let mut submitted = Submitted::default();
    for number in 0..EVENTS {
        let event = event(submitter, number);
        let mut reservation = match sink.reserve(1) {
            Reserve::Ready(reservation) => reservation,
            Reserve::Refused(refusals) => {
                assert!(!refusals.is_empty(), "a refusal says who refused and why");
                Reservation::none()
            }
            Reserve::Wait(room) => crate::wait(room).unwrap_or_default(),
        };
        let outcome = sink.submit(&Emission::new(&event), &mut reservation);
        submitted.count(1, outcome.wait());
    }
    submitted
}

fn submit_in_batches(sink: &dyn Sink, submitter: usize) -> Submitted {
    let mut submitted = Submitted::default();
    let events: Vec<Event> = (0..EVENTS).map(|number| event(submitter, number)).collect();
    for batch in events.chunks(BATCH) {
        let outcome = sink.submit_batch(batch.iter().map(Emission::new).collect());
        submitted.count(batch.len(), outcome.wait());
    }
    submitted
}

enum Late {
    Accepted { id: String, is_loss_counted: bool },
    Refused,
}

/// An event after the shutdown.
fn submit_late(sink: &dyn Sink, counters: &Counters) -> Late {
    let event = event(SUBMITTERS, 0);
    let before = counters.snapshot().total_lost();
    match sink
        .submit(&Emission::new(&event), &mut Reservation::none())
        .wait()
    {
        Ok(()) => Late::Accepted {
            id: event.audit_id.to_string(),
            is_loss_counted: counters.snapshot().total_lost() == before + 1,
        },
        Err(refusals) => {
            assert!(!refusals.is_empty(), "a refusal says who refused and why");
            assert_eq!(
                counters.snapshot().total_lost(),
                before + 1,
                "a refusal after the shutdown is counted"
            );
            Late::Refused
        }
    }
}

/// Submits to a sink whose medium is stuck: `submit` has to return all the same, with whatever outcome.
/// Receipts are dropped, as the end of a request drops them.
///
/// # Panics
///
/// When `submit` does not return.
pub fn check_never_blocks(sink: Arc<dyn Sink>) {
    let (done, returned) = mpsc::channel();
    // Not joined: where it is stuck, it stays so.
    drop(std::thread::spawn(move || {
        for number in 0..EVENTS {
            let event = event(0, number);
            let outcome = sink.submit(&Emission::new(&event), &mut Reservation::none());
            if let Outcome::Refused(refusals) = outcome {
                assert!(!refusals.is_empty(), "a refusal says who refused and why");
            }
        }
        done.send(()).ok();
    }));
    assert!(
        returned.recv_timeout(STUCK).is_ok(),
        "submit returns although the medium is stuck"
    );
}
