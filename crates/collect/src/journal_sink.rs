//! The events of this process on their way into the journal.

use std::sync::Arc;
use std::time::Duration;

use kaudit_journal::Reject;
use kaudit_sink::{Counters, Emission, Outcome, Reason, Reservation, Reserve, Sink};

use crate::arrival::Arrival;
use crate::clock;
use crate::intake::{Beside, Intake, NotKept};
use crate::parcel::{About, Parcel};
use crate::rooms::{self, Rooms};
use crate::settler::{Appended, Durable, STOPPED, Settler, SinkMode, kept_line, reason, with_cause};
use crate::source::{Origin, Source};

const PLUGIN: &str = "journal";

/// Bounds of a [`JournalSink`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct JournalSinkOptions {
    /// Whether requests wait.
    pub mode: SinkMode,
    /// Bytes of the journal's queue that requests under way may have reserved together. Those beyond, like
    /// thousands of watches, have no room reserved: each event takes its chance when it comes.
    pub reserved_bytes: usize,
    /// How long a request waits for room in the journal's queue, in the modes in which it waits.
    pub patience: Duration,
}

impl Default for JournalSinkOptions {
    fn default() -> Self {
        Self {
            mode: SinkMode::Batch,
            reserved_bytes: 8 << 20,
            patience: Duration::from_secs(5),
        }
    }
}

/// Puts the events of this process into the journal.
///
/// It takes every event as it is given; where the policy shows a sink less than was recorded, that is the
/// matter of a decorator before it.
#[derive(Debug)]
pub struct JournalSink {
    intake: Intake,
    source: Source,
    settler: Settler,
    rooms: Rooms,
    patience: Duration,
}

impl JournalSink {
    /// A sink before `intake` for the events of `origin`, whose way is the gateway's.
    ///
    /// # Errors
    ///
    /// When there are too many sources, or no thread can be started.
    pub fn new(
        intake: Intake,
        origin: &Origin,
        counters: Arc<Counters>,
        options: JournalSinkOptions,
    ) -> Result<Self, JournalSinkError> {
        let source = intake.source(origin)?;
        let settler = Settler::start(PLUGIN, options.mode, Durable::Kept, counters)?;
        let rooms = Rooms {
            plugin: PLUGIN,
            mode: options.mode,
            max_bytes: options.reserved_bytes,
            patience: options.patience,
            journal: intake.journal().clone(),
            taken: Arc::default(),
        };
        Ok(Self {
            intake,
            source,
            settler,
            rooms,
            patience: options.patience,
        })
    }

    fn push(&self, parcel: &mut Parcel, emission: &Emission<'_>) -> Result<(), (Reason, String)> {
        let line = emission
            .line()
            .map_err(|error| (Reason::Encode, error.to_string()))?;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let cluster = self.source.origin().cluster.as_str();
        let arrival = Arrival::of_line(line, cluster, self.intake.keys())
            .map_err(|error| (Reason::Encode, error.to_string()))?;
        let about = About {
            received_micros: clock::now_micros(),
            matched_rule: emission.rule(),
            ..About::default()
        };
        parcel
            .push(&arrival, about)
            .map_err(|error| (Reason::TooLarge, error.to_string()))
    }
}

/// Why there is no sink.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalSinkError {
    /// The source cannot be had.
    #[error(transparent)]
    Source(#[from] NotKept),
    /// No thread can be started.
    #[error("cannot start a thread for the audit journal")]
    Thread(#[from] std::io::Error),
}

impl Sink for JournalSink {
    fn reserve(&self, events: u32) -> Reserve {
        self.rooms.reserve(events)
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        let Some(begun) = self.settler.begin() else {
            return self.settler.refuse(Reason::ShutDown, STOPPED, [emission.event()]);
        };
        let kept = match kept_line(emission, self.settler.counters()) {
            Ok(kept) => kept,
            Err(message) => return self.settler.refuse(Reason::Encode, message, [emission.event()]),
        };
        let mut parcel = Parcel::new(self.source.clone());
        if let Err((reason, message)) = self.push(&mut parcel, &kept) {
            return self.settler.refuse(reason, message, [emission.event()]);
        }
        let room = rooms::room_of(reservation);
        match self
            .intake
            .take_in(&parcel, Beside::default(), clock::now_micros(), room)
        {
            Ok(taken) => begun.settle(Appended::Taken(taken), vec![kept]),
            Err(error) => self
                .settler
                .refuse(reason(&error), with_cause(&error), [emission.event()]),
        }
    }

    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        let Some(begun) = self.settler.begin() else {
            let events = batch.iter().map(Emission::event);
            return self.settler.refuse(Reason::ShutDown, STOPPED, events);
        };
        let mut outcome = Outcome::Accepted;
        let mut parcel = Parcel::new(self.source.clone());
        let mut kept = Vec::with_capacity(batch.len());
        for emission in &batch {
            let pushed = kept_line(emission, self.settler.counters())
                .map_err(|message| (Reason::Encode, message))
                .and_then(|line| self.push(&mut parcel, &line).map(|()| line));
            match pushed {
                Ok(line) => kept.push(line),
                Err((reason, message)) => {
                    outcome = outcome.and(self.settler.refuse(reason, message, [emission.event()]));
                }
            }
        }
        if kept.is_empty() {
            return outcome;
        }
        loop {
            let durable = self.intake.journal().durable();
            match self.intake.take(&parcel, Beside::default(), clock::now_micros()) {
                Ok(taken) => return outcome.and(begun.settle(Appended::Taken(taken), kept)),
                // This thread may block.
                Err(NotKept::Rejected(Reject::QueueFull))
                    if self.intake.journal().wait_durable_timeout(durable, self.patience) > durable => {}
                Err(error) => {
                    let events = kept.iter().map(Emission::event);
                    return outcome.and(self.settler.refuse(reason(&error), with_cause(&error), events));
                }
            }
        }
    }

    fn takes_lines(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        PLUGIN.to_owned()
    }

    /// Waits until all that was appended is durable. The journal itself stays open.
    fn shutdown(&self) {
        self.settler.finish();
    }
}

#[cfg(test)]
mod tests;
