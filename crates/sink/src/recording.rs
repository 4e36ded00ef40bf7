//! A sink for tests.

use std::sync::{Arc, Mutex, PoisonError};

use kaudit_event::Stage;

use crate::{Emission, Outcome, Reason, Refusal, Reservation, Reserve, Sink};

/// Keeps the line of every event, also of those it is told to refuse.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    lines: Arc<Mutex<Vec<Vec<u8>>>>,
    refuses: Vec<Stage>,
}

impl Recording {
    /// A sink that refuses these stages.
    #[must_use]
    pub fn refusing(stages: &[Stage]) -> Self {
        Self {
            lines: Arc::default(),
            refuses: stages.to_vec(),
        }
    }

    /// The lines so far, each with its LF. An event that cannot be printed is here without the body
    /// that keeps it from being printed.
    #[must_use]
    pub fn lines(&self) -> Vec<Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for Recording {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        let line = match (emission.line(), emission.event().without_unprintable_bodies()) {
            (Ok(line), _) => line.to_vec(),
            (Err(_), Some((event, _))) => {
                let mut line = Vec::new();
                drop(event.write_json_line(&mut line));
                line
            }
            (Err(error), None) => error.to_string().into_bytes(),
        };
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
        let stage = emission.event().stage.known();
        if stage.is_some_and(|stage| self.refuses.contains(&stage)) {
            let message = "told to refuse this stage".to_owned();
            return Outcome::Refused(vec![Refusal {
                plugin: "recording",
                reason: Reason::Write,
                message,
            }]);
        }
        Outcome::Accepted
    }

    fn name(&self) -> String {
        "recording".to_owned()
    }
}
