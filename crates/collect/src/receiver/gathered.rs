//! What a request brought, on its way into the journal and the quarantine.

use std::time::Duration;

use kaudit_journal::Reject;

use crate::arrival::Arrival;
use crate::clock;
use crate::intake::{Beside, Intake, NotKept, Taken};
use crate::parcel::{About, Parcel};
use crate::quarantine::Piece;
use crate::source::Source;

/// A parcel of so many bytes goes into the journal.
const PARCEL_BYTES: usize = 512 << 10;

/// Parcels that wait for the disk at once.
const PARCELS: usize = 64;

/// Events and what was none, of one source at a time, in the order in which they came.
pub(super) struct Gathered<'a> {
    intake: &'a Intake,
    patience: Duration,
    parcel: Parcel,
    strays: Vec<Stray>,
    taken: Vec<Taken>,
    counts: Counts,
}

/// What became of what was gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) duplicates: u64,
    pub(super) quarantined: u64,
}

/// What was no event, until it is put away.
struct Stray {
    bytes: Vec<u8>,
    reason: String,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(intake: &'a Intake, source: Source, patience: Duration) -> Self {
        Self {
            intake,
            patience,
            parcel: Parcel::new(source),
            strays: Vec::new(),
            taken: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(super) const fn source(&self) -> &Source {
        self.parcel.source()
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.parcel.bytes() + self.strays.iter().map(|stray| stray.bytes.len()).sum::<usize>()
    }

    /// Adds an event of the source.
    pub(super) fn push(&mut self, arrival: &Arrival<'_>, about: About<'_>) -> Result<(), String> {
        self.parcel
            .push(arrival, about)
            .map_err(|error| error.to_string())
    }

    /// Adds what is no event.
    pub(super) fn stray(&mut self, bytes: Vec<u8>, reason: String) {
        self.strays.push(Stray { bytes, reason });
    }

    /// From now on what comes is of this source.
    pub(super) async fn turn_to(&mut self, source: Source) -> Result<(), NotKept> {
        self.flush().await?;
        self.parcel = Parcel::new(source);
        Ok(())
    }

    pub(super) async fn flush_if_large(&mut self) -> Result<(), NotKept> {
        if self.held() >= PARCEL_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Hands over what was gathered; waits while the journal's queue is full.
    ///
    /// The journal comes first: a sender that is told to come again because it takes nothing would have its
    /// strays put away once more each time.
    async fn flush(&mut self) -> Result<(), NotKept> {
        if !self.parcel.is_empty() {
            let taken = self.take_when_there_is_room().await?;
            self.counts.accepted += taken.events;
            self.counts.duplicates += taken.duplicates;
            self.taken.push(taken);
            self.parcel.clear();
        }
        if !self.strays.is_empty() {
            self.put_away().await?;
        }
        if self.taken.len() >= PARCELS {
            self.settle().await?;
        }
        Ok(())
    }

    async fn put_away(&mut self) -> Result<(), NotKept> {
        let (intake, source) = (self.intake.clone(), self.source().clone());
        let strays = std::mem::take(&mut self.strays);
        self.counts.quarantined += u64::try_from(strays.len()).unwrap_or_default();
        let put = tokio::task::spawn_blocking(move || {
            let pieces: Vec<Piece<'_>> = strays
                .iter()
                .map(|stray| Piece {
                    bytes: &stray.bytes,
                    reason: stray.reason.clone(),
                    place: None,
                })
                .collect();
            intake.put_away(&source, &pieces, clock::now_micros())
        });
        put.await
            .map_err(|error| NotKept::Quarantine(std::sync::Arc::new(std::io::Error::other(error))))?
    }

    async fn settle(&mut self) -> Result<(), NotKept> {
        for taken in std::mem::take(&mut self.taken) {
            taken.durable().await?;
        }
        Ok(())
    }

    /// Hands over the rest and waits until all is durable.
    pub(super) async fn finish(&mut self) -> Result<Counts, NotKept> {
        self.flush().await?;
        self.settle().await?;
        Ok(self.counts)
    }

    /// As [`Intake::take`]; waits for the journal's queue to have room again.
    async fn take_when_there_is_room(&self) -> Result<Taken, NotKept> {
        let until = tokio::time::Instant::now() + self.patience;
        loop {
            let durable = self.intake.journal().durable();
            match self
                .intake
                .take(&self.parcel, Beside::default(), clock::now_micros())
            {
                Err(NotKept::Rejected(Reject::QueueFull)) => {
                    let progress = self.intake.journal().wait_durable(durable);
                    if tokio::time::timeout_at(until, progress).await.is_err() {
                        return Err(Reject::QueueFull.into());
                    }
                }
                outcome => return outcome,
            }
        }
    }
}
