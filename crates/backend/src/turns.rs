//! Mode `blocking` for producers that take requests further in turns: the events of one turn are one write.

use std::sync::Arc;

use kaudit_sink::{Emission, Outcome, Reservation, Reserve, Sink, put_off};

/// A sink that is handed the events of a turn at once, at its end; outside of turns they are handed on as they come.
///
/// For sinks whose refusals are of no matter to requests, since by then nobody waits for the outcome, and which are done
/// when they return: a turn ends on a thread that serves others.
#[derive(Debug)]
pub struct Turns(Arc<dyn Sink>);

impl Turns {
    /// Decorates `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self(sink)
    }
}

impl Sink for Turns {
    fn reserve(&self, events: u32) -> Reserve {
        self.0.reserve(events)
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        if put_off(&self.0, emission) {
            Outcome::Accepted
        } else {
            self.0.submit(emission, reservation)
        }
    }

    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        self.0.submit_batch(batch)
    }

    fn takes_lines(&self) -> bool {
        self.0.takes_lines()
    }

    fn name(&self) -> String {
        self.0.name()
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use kaudit_sink::conformance::event;
    use kaudit_sink::in_turn;
    use kaudit_sink::recording::Recording;

    use super::*;

    #[test]
    fn events_of_a_turn_come_at_its_end_and_others_at_once() {
        let recording = Recording::default();
        let sink = Turns::new(Arc::new(recording.clone()));
        let submit = |number| {
            let event = event(0, number);
            let outcome = sink.submit(&Emission::new(&event), &mut Reservation::none());
            assert!(outcome.is_accepted());
        };
        submit(0);
        assert_eq!(recording.lines().len(), 1);
        in_turn(|| {
            submit(1);
            submit(2);
            assert_eq!(recording.lines().len(), 1);
        });
        assert_eq!(recording.lines().len(), 3);
    }
}
