//! A sink of one's own: it keeps the last events in memory, in a ring that has a bound.
//!
//! `cargo run --example memory_sink --features test-util` makes one and runs the conformance suite on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kaudit_sink::conformance::{self, Subject};
use kaudit_sink::{Counters, Emission, Outcome, Reason, Refusal, Reservation, Reserve, Sink};

/// Keeps up to `capacity` events; the oldest makes room for the newest and is counted.
#[derive(Debug)]
struct Memory {
    capacity: usize,
    events: Mutex<VecDeque<Emission<'static>>>,
    counters: Arc<Counters>,
}

impl Memory {
    fn events(&self) -> MutexGuard<'_, VecDeque<Emission<'static>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Memory {
    fn reserve(&self, _: u32) -> Reserve {
        // There is always room: the oldest goes.
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        let mut events = self.events();
        events.push_back(emission.keep());
        let oldest = (events.len() > self.capacity).then(|| events.pop_front());
        drop(events);
        if let Some(oldest) = oldest.flatten() {
            let refusal = Refusal {
                plugin: "memory",
                reason: Reason::DroppedOldest,
                message: "the ring is full".to_owned(),
            };
            self.counters.plugin_error(&refusal, [oldest.event()]);
        }
        Outcome::Accepted
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}

fn main() {
    conformance::check(|| {
        let counters = Arc::new(Counters::default());
        let sink = Arc::new(Memory {
            capacity: 150,
            events: Mutex::default(),
            counters: Arc::clone(&counters),
        });
        let memory = Arc::clone(&sink);
        Subject {
            sink,
            counters,
            kept: Box::new(move || {
                let events = memory.events();
                events
                    .iter()
                    .map(|kept| kept.event().audit_id.to_string())
                    .collect()
            }),
        }
    });
}

#[test]
fn the_example_passes_the_suite() {
    main();
}
