//! A turn: the time in which a thread takes many requests further, before anything of them leaves the process.
//!
//! An event of a request is to be kept before the request has an effect. Whoever takes a hundred requests one step
//! further and only then sends what came of it can have the hundred events kept at once in between.

use std::cell::RefCell;
use std::sync::Arc;

use crate::{Emission, Sink};

/// Events of one turn that are kept at once, at most.
const MOST: usize = 256;

thread_local! {
    /// `None` outside of a turn.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// What was put off for each sink.
type Turn = Vec<(Arc<dyn Sink>, Vec<Emission<'static>>)>;

/// Runs `act` as a turn: events that are [put off](put_off) meanwhile are handed to their sinks when it ends, also by a
/// panic. Within `act` nothing must leave the process that the events are to come before. A turn within a turn is a part
/// of it.
pub fn in_turn<T>(act: impl FnOnce() -> T) -> T {
    let is_outer = TURN.with_borrow_mut(|turn| {
        let is_outer = turn.is_none();
        turn.get_or_insert_default();
        is_outer
    });
    // Not `then_some`, which would drop the one that is not wanted.
    let _ending = is_outer.then(|| Ending);
    act()
}

/// Ends the turn when it is dropped.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        let turn = TURN.take().unwrap_or_default();
        for (sink, batch) in turn {
            deliver(sink.as_ref(), batch);
        }
    }
}

/// Whoever puts events off has no use for the outcome: the sink counts what it refuses.
fn deliver(sink: &dyn Sink, batch: Vec<Emission<'static>>) {
    drop(sink.submit_batch(batch).wait());
}

/// Has `sink` take the event at the end of the turn that the thread is in; `false` outside of one. A sink that answers
/// [`Pending`](crate::Outcome::Pending) would hold the thread until it is done.
pub fn put_off(sink: &Arc<dyn Sink>, emission: &Emission<'_>) -> bool {
    let full = TURN.with_borrow_mut(|turn| {
        let turn = turn.as_mut()?;
        let kept = if sink.takes_lines() {
            emission.keep_line()
        } else {
            emission.keep()
        };
        let batch = match turn.iter_mut().find(|(other, _)| Arc::ptr_eq(other, sink)) {
            Some((_, batch)) => batch,
            None => &mut turn.push_mut((Arc::clone(sink), Vec::new())).1,
        };
        batch.push(kept);
        Some((batch.len() >= MOST).then(|| std::mem::take(batch)))
    });
    let is_put_off = full.is_some();
    if let Some(batch) = full.flatten() {
        deliver(sink.as_ref(), batch);
    }
    is_put_off
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::event;
    use crate::recording::Recording;

    fn recorded() -> (Recording, Arc<dyn Sink>) {
        let recording = Recording::default();
        let sink = Arc::new(recording.clone());
        (recording, sink)
    }

    #[test]
    fn events_of_a_turn_are_handed_over_at_its_end_in_order_and_to_each_sink_its_own() {
        let ((first, to_first), (second, to_second)) = (recorded(), recorded());
        let expected: Vec<Vec<u8>> = (0..600)
            .map(|number| {
                let mut line = Vec::new();
                event(0, number).write_json_line(&mut line).unwrap();
                line
            })
            .collect();
        assert!(
            !put_off(&to_first, &Emission::new(&event(0, 0))),
            "outside of a turn"
        );
        in_turn(|| {
            for number in 0..600 {
                let sink = if number % 3 == 0 { &to_second } else { &to_first };
                in_turn(|| assert!(put_off(sink, &Emission::new(&event(0, number)))));
            }
            assert!(first.lines().len() < 400);
        });
        let of = |wanted: bool| -> Vec<Vec<u8>> {
            (0..600)
                .filter(|number| (number % 3 == 0) == wanted)
                .map(|number| expected[number].clone())
                .collect()
        };
        assert!(first.lines() == of(false));
        assert!(second.lines() == of(true));
        assert!(!put_off(&to_first, &Emission::new(&event(0, 0))));
    }

    #[test]
    fn a_panic_ends_a_turn_with_its_events_kept() {
        let (recording, sink) = recorded();
        let turn = || {
            in_turn(|| {
                put_off(&sink, &Emission::new(&event(0, 0)));
                panic!("of one request");
            })
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(turn)).unwrap_err();
        assert_eq!(recording.lines().len(), 1);
    }
}
