//! The events of this process on their way into the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kaudit_journal::{Reject, Room};
use kaudit_sink::{
    Counters, Emission, Outcome, Reason, Refusal, Refusals, Reservation, Reserve, Sink,
};

use crate::arrival::Arrival;
use crate::clock;
use crate::intake::{Beside, Intake, NotKept};
use crate::parcel::{About, Parcel};
use crate::settler::{Appended, Durable, STOPPED, Settler, SinkMode, kept_line, reason, with_cause};
use crate::source::{Origin, Source};

const PLUGIN: &str = "journal";

/// Room that is taken for each event of a request when it arrives. Nine of ten events at level Metadata are
/// smaller with their frame; a larger one needs as much more as is free when it comes.
const EVENT_BYTES: usize = 4096;

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
    options: JournalSinkOptions,
    reserved: Arc<AtomicUsize>,
}

/// Room for the events of one request, one piece for each.
struct Rooms {
    rooms: Vec<Room>,
    reserved: Arc<AtomicUsize>,
}

impl Rooms {
    fn take(&mut self) -> Option<Room> {
        let room = self.rooms.pop()?;
        self.reserved.fetch_sub(EVENT_BYTES, Ordering::Relaxed);
        Some(room)
    }
}

impl Drop for Rooms {
    fn drop(&mut self) {
        self.reserved
            .fetch_sub(EVENT_BYTES * self.rooms.len(), Ordering::Relaxed);
    }
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
        Ok(Self {
            intake,
            source,
            settler,
            options,
            reserved: Arc::default(),
        })
    }

    /// As many pieces of room as there are events; `Err` when the journal's queue is full.
    fn rooms(intake: &Intake, reserved: &Arc<AtomicUsize>, events: usize) -> Result<Rooms, ()> {
        let mut rooms = Rooms {
            rooms: Vec::with_capacity(events),
            reserved: Arc::clone(reserved),
        };
        for _ in 0..events {
            let room = intake.journal().reserve(EVENT_BYTES).ok_or(())?;
            reserved.fetch_add(EVENT_BYTES, Ordering::Relaxed);
            rooms.rooms.push(room);
        }
        Ok(rooms)
    }

    fn push(&self, parcel: &mut Parcel, emission: &Emission<'_>) -> Result<(), (Reason, String)> {
        let line = emission.line().map_err(|error| (Reason::Encode, error.to_string()))?;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let cluster = self.source.origin().cluster.as_str();
        let arrival = Arrival::of_line(line, cluster, self.intake.keys())
            .map_err(|error| (Reason::Encode, error.to_string()))?;
        let about = About {
            received_micros: clock::now_micros(),
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

fn no_room() -> Refusals {
    vec![Refusal {
        plugin: PLUGIN,
        reason: Reason::QueueFull,
        message: Reject::QueueFull.to_string(),
    }]
}

impl Sink for JournalSink {
    /// In the modes in which requests wait, waits for room while the journal makes progress, for as long as
    /// its patience lasts; then `BlockingStrict` refuses.
    fn reserve(&self, events: u32) -> Reserve {
        let events = usize::try_from(events).unwrap_or(usize::MAX);
        let wanted = EVENT_BYTES.saturating_mul(events);
        let taken = self.reserved.load(Ordering::Relaxed);
        if taken.saturating_add(wanted) > self.options.reserved_bytes {
            return Reserve::Ready(Reservation::none());
        }
        if let Ok(rooms) = Self::rooms(&self.intake, &self.reserved, events) {
            return Reserve::Ready(Reservation::with(rooms));
        }
        let mode = self.options.mode;
        if mode == SinkMode::Batch {
            return Reserve::Ready(Reservation::none());
        }
        let (intake, reserved) = (self.intake.clone(), Arc::clone(&self.reserved));
        let patience = self.options.patience;
        Reserve::Wait(Box::pin(async move {
            let until = tokio::time::Instant::now() + patience;
            loop {
                let durable = intake.journal().durable();
                if let Ok(rooms) = Self::rooms(&intake, &reserved, events) {
                    return Ok(Reservation::with(rooms));
                }
                let progress = intake.journal().wait_durable(durable);
                if tokio::time::timeout_at(until, progress).await.is_err() {
                    return match mode {
                        SinkMode::BlockingStrict => Err(no_room()),
                        SinkMode::Batch | SinkMode::Blocking => Ok(Reservation::none()),
                    };
                }
                // A journal that was closed makes no progress.
                tokio::task::yield_now().await;
            }
        }))
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
        let room = reservation.permit_mut::<Rooms>().and_then(Rooms::take);
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
                    if self
                        .intake
                        .journal()
                        .wait_durable_timeout(durable, self.options.patience)
                        > durable => {}
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
