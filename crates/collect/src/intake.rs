//! The one way into the journal: what is here already is not kept again, and nobody is told that an event is
//! kept before it is durable.
//!
//! # Why a duplicate may be acknowledged
//!
//! An event that is here already may have been appended a moment ago and not be durable yet. So whoever brings
//! a duplicate waits, too: for a batch that is appended after it, under the lock under which the duplicate was
//! recognised. Should the earlier batch fail, the later one fails with it, or was appended after the failure;
//! then the failure was seen under that lock, the ids of the failed batch were forgotten first, and the event
//! was no duplicate.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kaudit_event::record::RecordError;
use kaudit_journal::{AppendError, Batch, Item, Journal, ReadError, Reject, Room, Seq, Ticket};

use crate::arrival::Keys;
use crate::audit_ids::{AuditIds, Use};
use crate::completeness::Reconciler;
use crate::dedup::{self, Dedup};
use crate::parcel::{Parcel, ParcelEvent};
use crate::quarantine::{Piece, Quarantine};
use crate::source::{Name, Origin, Source};

/// Signals that are kept for those who ask.
const SIGNALS: usize = 100;

/// Signals closer together than this are counted, not logged.
const SIGNAL_INTERVAL: Duration = Duration::from_secs(1);

/// Bounds of an [`Intake`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct IntakeOptions {
    /// The newest events of which duplicates are recognised. Each takes at most 39 bytes of memory.
    pub dedup_events: usize,
    /// The newest auditIDs whose use is watched. Each takes at most 260 bytes of memory.
    pub audit_ids: usize,
    /// Sources that are told apart.
    pub sources: usize,
}

impl Default for IntakeOptions {
    fn default() -> Self {
        Self {
            dedup_events: 4_000_000,
            audit_ids: 250_000,
            sources: 2048,
        }
    }
}

/// Takes events in from every transport. Its clones are the same intake.
#[derive(Clone, Debug)]
pub struct Intake(Arc<Inner>);

struct Inner {
    journal: Journal,
    keys: Keys,
    quarantine: Quarantine,
    options: IntakeOptions,
    ledger: Mutex<Ledger>,
    sources: Mutex<BTreeMap<Origin, Source>>,
    signals: Mutex<Signals>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake")
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

struct Ledger {
    dedup: Dedup,
    audit_ids: AuditIds,
    /// Batches that were appended and are not known to be durable, oldest first.
    pending: VecDeque<Pending>,
    /// Failures of the journal that were dealt with.
    failures: u64,
    /// All kept events before this one were counted, and fed to those who watch.
    settled: Seq,
    /// Who watches which apiserver's events.
    watched: BTreeMap<(Name, Name), Arc<Mutex<Reconciler>>>,
}

struct Pending {
    /// Behind its last record.
    end: Seq,
    ids: Vec<u128>,
    /// Stage times of its distinct events, microseconds since 1970: another copy of one that is here is none.
    stages: Vec<i64>,
    source: Source,
    arrived: Arrived,
}

/// What one batch brought, to be counted when it is durable.
#[derive(Clone, Copy, Debug, Default)]
struct Arrived {
    events: u64,
    bytes: u64,
    other_copies: u64,
    reused: u64,
    newest_stage_micros: Option<i64>,
    now_micros: i64,
}

/// What else is written with the events of a batch.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Beside<'a> {
    /// Small values by their names, durable with the events and never before them; for example a position in
    /// a file.
    pub marks: &'a [(&'a [u8], &'a [u8])],
}

impl<'a> Beside<'a> {
    /// Writes `marks`.
    #[must_use]
    pub const fn marks(marks: &'a [(&'a [u8], &'a [u8])]) -> Self {
        Self { marks }
    }
}

/// Events that were appended. They are kept when [`Taken::durable`] says so.
#[derive(Debug)]
#[must_use = "nothing is kept before it is durable"]
pub struct Taken {
    ticket: Ticket,
    /// Events that are new.
    pub events: u64,
    /// Events that are here already.
    pub duplicates: u64,
}

/// Why events are not kept. The sender is to bring them again.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotKept {
    /// The journal does not accept them now.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// The journal accepted them and could not make them durable.
    #[error(transparent)]
    Failed(#[from] AppendError),
    /// A record cannot be written: a name is too long.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Bytes that were no event could not be put into quarantine.
    #[error("cannot write to the quarantine")]
    Quarantine(#[source] Arc<std::io::Error>),
    /// There are more sources than are told apart.
    #[error("there are too many sources")]
    TooManySources,
}

impl NotKept {
    /// A word for counters.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Rejected(Reject::QueueFull) => "queue_full",
            Self::Rejected(Reject::JournalFull) | Self::Failed(AppendError::JournalFull) => "journal_full",
            Self::Rejected(Reject::DiskFull) | Self::Failed(AppendError::DiskFull { .. }) => "disk_full",
            Self::Rejected(Reject::Closed) | Self::Failed(AppendError::Closed) => "shut_down",
            Self::Rejected(Reject::TooLarge) | Self::Record(_) => "too_large",
            Self::Rejected(_) | Self::Failed(_) => "disk_fails",
            Self::Quarantine(_) => "quarantine",
            Self::TooManySources => "too_many_sources",
        }
    }
}

/// One auditID on two requests, neither of which was handed on to make the other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditIdReused {
    /// Where the second request was recorded.
    pub origin: Origin,
    /// The auditID, as it stands in JSON.
    pub audit_id: String,
    /// When it was noticed, microseconds since 1970 in UTC.
    pub at_micros: i64,
}

#[derive(Debug, Default)]
struct Signals {
    newest: VecDeque<AuditIdReused>,
    total: u64,
    last_logged: Option<Instant>,
}

impl Taken {
    /// Waits until the events are durable.
    ///
    /// # Errors
    ///
    /// [`NotKept::Failed`] when they are not.
    pub async fn durable(self) -> Result<(), NotKept> {
        self.ticket.await?;
        Ok(())
    }

    /// The same on a thread that may block.
    ///
    /// # Errors
    ///
    /// As [`Taken::durable`].
    pub fn wait(self) -> Result<(), NotKept> {
        self.ticket.wait()?;
        Ok(())
    }

    /// As [`Taken::wait`], for at most so long; `None` when it is not decided then.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<(), NotKept>> {
        let outcome = self.ticket.wait_timeout(timeout)?;
        Some(outcome.map(drop).map_err(NotKept::from))
    }
}

impl Intake {
    /// An intake before `journal`, which knows the events that are in it.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub fn new(
        journal: Journal,
        keys: Keys,
        quarantine: Quarantine,
        options: IntakeOptions,
    ) -> Result<Self, ReadError> {
        let mut dedup = Dedup::new(options.dedup_events);
        remember(&journal, &mut dedup, options.dedup_events)?;
        let failures = journal.failures();
        let settled = journal.durable();
        Ok(Self(Arc::new(Inner {
            journal,
            keys,
            quarantine,
            options,
            ledger: Mutex::new(Ledger {
                dedup,
                audit_ids: AuditIds::new(options.audit_ids),
                pending: VecDeque::new(),
                failures,
                settled,
                watched: BTreeMap::new(),
            }),
            sources: Mutex::default(),
            signals: Mutex::default(),
        })))
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// What ids are made with.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// The quarantine.
    #[must_use]
    pub fn quarantine(&self) -> &Quarantine {
        &self.0.quarantine
    }

    /// The source of `origin`, which from now on is among the [sources](Intake::sources).
    ///
    /// # Errors
    ///
    /// [`NotKept::TooManySources`].
    pub fn source(&self, origin: &Origin) -> Result<Source, NotKept> {
        let mut sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get(origin) {
            return Ok(source.clone());
        }
        let number = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        if sources.len() >= self.0.options.sources {
            return Err(NotKept::TooManySources);
        }
        let source = Source::new(origin.clone(), number);
        sources.insert(origin.clone(), source.clone());
        Ok(source)
    }

    /// All sources, in the order of their origins.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        self.settle();
        let sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.values().cloned().collect()
    }

    /// Appends the events that are not here yet, with what is written beside them. Never waits.
    ///
    /// # Errors
    ///
    /// [`NotKept`]; then nothing of it will be kept.
    pub fn take(&self, parcel: &Parcel, beside: Beside<'_>, now_micros: i64) -> Result<Taken, NotKept> {
        self.take_in(parcel, beside, now_micros, None)
    }

    /// As [`Intake::take`], within room that was reserved in the journal.
    pub(crate) fn take_in(
        &self,
        parcel: &Parcel,
        beside: Beside<'_>,
        now_micros: i64,
        room: Option<Room>,
    ) -> Result<Taken, NotKept> {
        let source = parcel.source();
        let mut batch = Batch::with_capacity(parcel.bytes() + 64 * parcel.len());
        for (key, value) in beside.marks {
            if batch.mark(key, value).is_err() {
                return Err(NotKept::Rejected(Reject::TooManyMarks));
            }
        }
        let mut fresh = Vec::with_capacity(parcel.len());
        let mut ids = Vec::with_capacity(parcel.len());
        let mut ledger = self.ledger();
        ledger.settle(&self.0.journal);
        for event in parcel.events() {
            let id = dedup::short(event.eid.as_bytes());
            if ledger.dedup.insert(id) {
                ids.push(id);
                batch.push(Some(*event.eid.as_bytes()), event.record);
                fresh.push(event);
            }
        }
        let appended = match room {
            Some(room) => self.0.journal.append_reserved(batch, room),
            None => self.0.journal.append(batch),
        };
        let ticket = match appended {
            Ok(ticket) => ticket,
            Err(rejected) => {
                ledger.forget(&ids);
                return Err(rejected.reason.into());
            }
        };
        let mut arrived = Arrived {
            now_micros,
            ..Arrived::default()
        };
        let mut reused = Vec::new();
        let mut stages = Vec::with_capacity(fresh.len());
        for event in &fresh {
            arrived.add(event);
            stages.push(event.stage_micros);
            match event
                .request
                .map(|facts| ledger.audit_ids.observe(facts, source.number()))
            {
                Some(Use::OtherCopy) => {
                    arrived.other_copies += 1;
                    stages.pop();
                }
                Some(Use::Reused) => {
                    arrived.reused += 1;
                    reused.push(event.audit_id());
                }
                Some(Use::Proper) | None => {}
            }
        }
        let events = arrived.events;
        if events > 0 {
            ledger.pending.push_back(Pending {
                end: ticket.first_seq().plus(events),
                ids,
                stages,
                source: source.clone(),
                arrived,
            });
        }
        drop(ledger);
        let duplicates = u64::try_from(parcel.len()).unwrap_or(u64::MAX) - events;
        if duplicates > 0 {
            let mut counts = source.counting();
            counts.duplicates += duplicates;
            counts.came(now_micros, parcel.events().map(|event| event.stage_micros).max());
        }
        self.signal(source, reused, now_micros);
        Ok(Taken {
            ticket,
            events,
            duplicates,
        })
    }

    /// Puts what was no event into quarantine. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`NotKept::Quarantine`].
    pub fn put_away(&self, source: &Source, pieces: &[Piece<'_>], now_micros: i64) -> Result<(), NotKept> {
        if pieces.is_empty() {
            return Ok(());
        }
        self.0
            .quarantine
            .put(source.origin(), pieces, now_micros)
            .map_err(|error| NotKept::Quarantine(Arc::new(error)))?;
        source.counting().quarantined += u64::try_from(pieces.len()).unwrap_or_default();
        let reason = pieces.first().map(|piece| piece.reason.as_str());
        tracing::warn!(
            cluster = %source.origin().cluster,
            instance = %source.origin().instance,
            source = source.name(),
            pieces = pieces.len(),
            reason,
            "not an event; its bytes are in quarantine"
        );
        Ok(())
    }

    /// Writes `beside` alone.
    ///
    /// # Errors
    ///
    /// [`NotKept`]; then nothing of it will be kept.
    pub(crate) fn write(&self, beside: Beside<'_>) -> Result<Ticket, NotKept> {
        let mut batch = Batch::new();
        for (key, value) in beside.marks {
            if batch.mark(key, value).is_err() {
                return Err(NotKept::Rejected(Reject::TooManyMarks));
            }
        }
        Ok(self.0.journal.append(batch).map_err(|rejected| rejected.reason)?)
    }

    /// Feeds the reconciler with the events of an apiserver that become durable from now on, and answers up to
    /// where they are before. `None` when one is fed already.
    pub(crate) fn feed(
        &self,
        cluster: &Name,
        instance: &Name,
        reconciler: &Arc<Mutex<Reconciler>>,
    ) -> Option<Seq> {
        let mut ledger = self.ledger();
        ledger.settle(&self.0.journal);
        let settled = ledger.settled;
        match ledger.watched.entry((cluster.clone(), instance.clone())) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(Arc::clone(reconciler));
                Some(settled)
            }
        }
    }

    /// Feeds what became durable, then looks at the reconcilers while nothing more is fed: all events before
    /// the number were, and none behind it.
    pub(crate) fn while_settled<T>(&self, look: impl FnOnce(Seq) -> T) -> T {
        let mut ledger = self.ledger();
        ledger.settle(&self.0.journal);
        look(ledger.settled)
    }

    /// Counts what became durable since the last call.
    fn settle(&self) {
        self.ledger().settle(&self.0.journal);
    }

    /// The newest uses of one auditID for two requests, oldest first, and how many there were in all.
    #[must_use]
    pub fn audit_ids_reused(&self) -> (Vec<AuditIdReused>, u64) {
        let signals = self.0.signals.lock().unwrap_or_else(PoisonError::into_inner);
        (signals.newest.iter().cloned().collect(), signals.total)
    }

    /// Events whose duplicates would be recognised.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.ledger().dedup.len()
    }

    fn signal(&self, source: &Source, reused: Vec<String>, now_micros: i64) {
        if reused.is_empty() {
            return;
        }
        let mut signals = self.0.signals.lock().unwrap_or_else(PoisonError::into_inner);
        for audit_id in reused {
            signals.total += 1;
            if signals.newest.len() >= SIGNALS {
                signals.newest.pop_front();
            }
            signals.newest.push_back(AuditIdReused {
                origin: source.origin().clone(),
                audit_id,
                at_micros: now_micros,
            });
        }
        let now = Instant::now();
        if signals
            .last_logged
            .is_none_or(|last| now.duration_since(last) >= SIGNAL_INTERVAL)
        {
            signals.last_logged = Some(now);
            tracing::warn!(
                cluster = %source.origin().cluster,
                instance = %source.origin().instance,
                audit_id = signals.newest.back().map(|signal| signal.audit_id.as_str()),
                total = signals.total,
                "Audit-ID reused with different content"
            );
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrived {
    fn add(&mut self, event: &ParcelEvent<'_>) {
        self.events += 1;
        self.bytes += u64::try_from(event.record.len()).unwrap_or_default();
        self.newest_stage_micros = self.newest_stage_micros.max(Some(event.stage_micros));
    }
}

impl Ledger {
    /// Counts the batches that are durable, and forgets the events of those that will not be.
    fn settle(&mut self, journal: &Journal) {
        // In this order: what was durable before a failure is durable after it.
        let failures = journal.failures();
        let durable = journal.durable();
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.end <= durable) {
            self.feed(&pending);
            self.settled = pending.end;
            let Arrived {
                events,
                bytes,
                other_copies,
                reused,
                newest_stage_micros,
                now_micros,
            } = pending.arrived;
            let mut counts = pending.source.counting();
            counts.kept(events, bytes, now_micros, newest_stage_micros);
            counts.other_copies += other_copies;
            counts.audit_id_reused += reused;
        }
        if failures != self.failures {
            self.failures = failures;
            for pending in std::mem::take(&mut self.pending) {
                self.forget(&pending.ids);
            }
        }
    }

    /// Hands the stage times of a batch to whoever watches its apiserver.
    fn feed(&self, pending: &Pending) {
        if self.watched.is_empty() {
            return;
        }
        let origin = pending.source.origin();
        let key = (origin.cluster.clone(), origin.instance.clone());
        if let Some(reconciler) = self.watched.get(&key) {
            reconciler
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .all_arrived(&pending.stages);
        }
    }

    fn forget(&mut self, ids: &[u128]) {
        for id in ids {
            self.dedup.remove(*id);
        }
    }
}

/// Remembers the newest events of the journal, oldest first.
fn remember(journal: &Journal, dedup: &mut Dedup, events: usize) -> Result<(), ReadError> {
    let segments: Vec<_> = journal.tags().collect();
    let mut room = u64::try_from(events).unwrap_or(u64::MAX);
    let mut from = segments.len();
    while let Some(at) = from.checked_sub(1)
        && room > 0
        && let Some(segment) = segments.get(at)
    {
        room = room.saturating_sub(segment.next.since(segment.first));
        from = at;
    }
    for segment in segments.get(from..).unwrap_or_default() {
        if let Some(tags) = &segment.tags {
            for (_, tag) in tags {
                dedup.insert(dedup::short(tag));
            }
            continue;
        }
        let mut reader = journal.reader(segment.first);
        while reader.position() < segment.next {
            match reader.next()? {
                Some(Item::Record { tag: Some(tag), .. }) => {
                    dedup.insert(dedup::short(&tag));
                }
                Some(_) => {}
                None => break,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
