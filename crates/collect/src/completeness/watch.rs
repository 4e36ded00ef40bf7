//! A reconciler that is fed by the intake and kept in the journal.
//!
//! The state is a mark, and beside it stands the number up to which its events are counted. Both are of one
//! moment, at which nothing is fed. After a restart the events behind that number are read from the journal.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kaudit_event::record::Record;
use kaudit_journal::{Item, ReadError, Seq};

use super::{Bounds, Finding, Reconciler, Scrape, Status, UnixMicros};
use crate::arrival::Arrival;
use crate::audit_ids::{AuditIds, Use};
use crate::intake::{Beside, Intake, NotKept};
use crate::source::Name;

/// With more events behind the saved state it is not worth it: counting begins anew.
const MAX_REPLAY: u64 = 1_000_000;

/// Requests whose copies are told apart while events are read again.
const REPLAY_AUDIT_IDS: usize = 100_000;

/// Watches the events of one apiserver, whichever way they come.
#[derive(Debug)]
pub struct Watch {
    intake: Intake,
    cluster: Name,
    instance: Name,
    reconciler: Arc<Mutex<Reconciler>>,
    /// Of the state.
    mark: Vec<u8>,
    /// Of the number up to which it counts.
    seq_mark: Vec<u8>,
}

/// How a watch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Beginning {
    /// There was nothing to go on from.
    New,
    /// It goes on from its saved state; so many events were counted since that was saved.
    Restored {
        /// Of this apiserver.
        events: u64,
    },
    /// It cannot go on from its saved state, and begins anew: what was missing before is forgotten.
    Anew {
        /// Why.
        reason: &'static str,
    },
}

/// Why an apiserver cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// It is watched already.
    #[error("{0}/{1} is watched twice")]
    Twice(Name, Name),
    /// The events behind the saved state cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Watch {
    /// Watches `instance` of `cluster` from now on, after the events that came since the state was saved. Blocks
    /// while it reads them from the journal, at most a million records.
    ///
    /// # Errors
    ///
    /// [`WatchError`].
    pub fn start(
        intake: Intake,
        cluster: Name,
        instance: Name,
        bounds: Bounds,
        now: UnixMicros,
    ) -> Result<(Self, Beginning), WatchError> {
        let name = blake3::hash(format!("{cluster}/{instance}").as_bytes()).to_hex();
        let mark = format!("completeness/{name}").into_bytes();
        let seq_mark = format!("completeness/{name}/seq").into_bytes();
        let saved = intake.journal().mark(&mark);
        let from = intake.journal().mark(&seq_mark);
        let from = from.and_then(|seq| Some(Seq::new(u64::from_le_bytes(seq.try_into().ok()?))));
        let (reconciler, beginning) = match (saved, from) {
            (Some(saved), Some(from)) => match Reconciler::restore(&saved, bounds, now) {
                Ok(restored) => (restored, Ok(from)),
                Err(_) => (
                    Reconciler::new(bounds, now),
                    Err(Beginning::Anew {
                        reason: "the saved state cannot be read",
                    }),
                ),
            },
            _ => (Reconciler::new(bounds, now), Err(Beginning::New)),
        };
        let watch = Self {
            reconciler: Arc::new(Mutex::new(reconciler)),
            intake,
            cluster,
            instance,
            mark,
            seq_mark,
        };
        // What becomes durable from here on is fed, so that this is all that is to be read.
        let to = watch
            .intake
            .feed(&watch.cluster, &watch.instance, &watch.reconciler)
            .ok_or_else(|| WatchError::Twice(watch.cluster.clone(), watch.instance.clone()))?;
        let beginning = match beginning {
            Ok(from) => watch.replay(from, to)?,
            Err(beginning) => beginning,
        };
        if matches!(beginning, Beginning::Anew { .. }) {
            *watch.reconciler() = Reconciler::new(bounds, now);
        }
        Ok((watch, beginning))
    }

    /// Feeds the events of the journal that the saved state does not count.
    fn replay(&self, from: Seq, to: Seq) -> Result<Beginning, WatchError> {
        let anew = |reason| Ok(Beginning::Anew { reason });
        if from > to {
            return anew("the journal is another one");
        }
        if to.since(from) > MAX_REPLAY {
            return anew("too many events came since the state was saved");
        }
        let keys = self.intake.keys();
        // The copies of an event that came by two ways are one event. Copies from before are not known any more.
        let mut audit_ids = AuditIds::new(REPLAY_AUDIT_IDS);
        let mut stages = Vec::new();
        let mut reader = self.intake.journal().reader(from);
        while reader.position() < to {
            let payload = match reader.next()? {
                Some(Item::Record { payload, .. }) => payload,
                Some(_) => return anew("events that came since the state was saved are lost"),
                None => break,
            };
            let Ok(record) = Record::read(&payload) else {
                return anew("an event that came since the state was saved cannot be read");
            };
            if record.cluster != self.cluster.as_str() || record.instance != self.instance.as_str() {
                continue;
            }
            if let Ok(arrival) = Arrival::of_line(&record.event, self.cluster.as_str(), keys) {
                let of = arrival.request.map(|facts| audit_ids.observe(facts, 0));
                if of != Some(Use::OtherCopy) {
                    stages.push(arrival.stage_micros);
                }
            }
        }
        self.reconciler().all_arrived(&stages);
        Ok(Beginning::Restored {
            events: u64::try_from(stages.len()).unwrap_or(u64::MAX),
        })
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The apiserver.
    #[must_use]
    pub fn instance(&self) -> &Name {
        &self.instance
    }

    /// As [`Reconciler::best_moment`].
    #[must_use]
    pub fn best_moment(&self, now: UnixMicros) -> Duration {
        self.reconciler().best_moment(now)
    }

    /// As [`Reconciler::hold`].
    pub fn hold(&self, now: UnixMicros) {
        self.reconciler().hold(now);
    }

    /// As [`Reconciler::scraped`], after all that is durable was fed.
    pub fn scraped(&self, scrape: &Scrape, now: UnixMicros) -> Vec<Finding> {
        self.intake
            .while_settled(|_| self.reconciler().scraped(scrape, now))
    }

    /// As [`Reconciler::advance`], after all that is durable was fed.
    pub fn advance(&self, now: UnixMicros) -> Vec<Finding> {
        self.intake.while_settled(|_| self.reconciler().advance(now))
    }

    /// How things are.
    #[must_use]
    pub fn status(&self) -> Status {
        self.reconciler().status()
    }

    /// Saves the state, which is durable when this returns. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`NotKept`]; then the state that was saved before holds, and more is read again after a restart.
    pub fn save(&self) -> Result<(), NotKept> {
        let (seq, state) = self
            .intake
            .while_settled(|seq| (seq.get().to_le_bytes(), self.reconciler().save()));
        let marks: [(&[u8], &[u8]); 2] = [(&self.mark, &state), (&self.seq_mark, &seq)];
        self.intake.write(Beside::marks(&marks))?.wait()?;
        Ok(())
    }

    fn reconciler(&self) -> MutexGuard<'_, Reconciler> {
        self.reconciler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
