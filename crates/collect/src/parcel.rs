//! Events of one source on their way into the journal.

use kaudit_event::record::{RecordError, RecordHead};
use kaudit_event::{Eid, EventLine};

use crate::arrival::{Arrival, RequestFacts};
use crate::source::Source;

/// Events of one source that are taken in together, as the records that they will be.
#[derive(Debug)]
pub struct Parcel {
    source: Source,
    records: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Where the record ends.
    end: usize,
    /// Where its event begins.
    event: usize,
    eid: Eid,
    stage_micros: i64,
    request: Option<RequestFacts>,
}

/// What is known of an event beside the event.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "what a record holds")]
pub struct About<'a> {
    /// When it came, microseconds since 1970 in UTC.
    pub received_micros: i64,
    /// Where it ended in the file it was read from: the file's identity and the offset.
    pub tail: Option<(&'a str, u64)>,
    /// The policy rule that decided its level, where this process produced it.
    pub matched_rule: Option<u32>,
    /// What the kaudit that collected it says of it, where that is another one: how it came there, and its
    /// number there.
    pub forwarded: Option<(&'a str, u64)>,
}

/// One event of a parcel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParcelEvent<'a> {
    pub(crate) record: &'a [u8],
    line: &'a [u8],
    pub(crate) eid: Eid,
    pub(crate) stage_micros: i64,
    pub(crate) request: Option<RequestFacts>,
}

impl Parcel {
    /// No events of `source`.
    #[must_use]
    pub const fn new(source: Source) -> Self {
        Self {
            source,
            records: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Adds an event.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when something that is known of it is too long; the event is then not added.
    pub fn push(&mut self, arrival: &Arrival<'_>, about: About<'_>) -> Result<(), RecordError> {
        let origin = self.source.origin();
        let start = self.records.len();
        let (source, seq) = about.forwarded.unwrap_or((self.source.name(), 0));
        RecordHead {
            cluster: origin.cluster.as_str(),
            source,
            instance: origin.instance.as_str(),
            seq,
            received_micros: about.received_micros,
            transport: origin.transport.transport(),
            tail: about.tail,
            matched_rule: about.matched_rule,
        }
        .write(&mut self.records)?;
        let event = self.records.len();
        arrival.write_line(&mut self.records);
        let length = self.records.len() - event;
        if length > kaudit_event::MAX_EVENT_BYTES {
            self.records.truncate(start);
            return Err(RecordError::TooLarge(length));
        }
        self.entries.push(Entry {
            end: self.records.len(),
            event,
            eid: arrival.eid,
            stage_micros: arrival.stage_micros,
            request: arrival.request,
        });
        Ok(())
    }

    /// The source.
    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// Events.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the records.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.records.len()
    }

    /// Takes all events out, and keeps the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.entries.clear();
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = ParcelEvent<'_>> {
        let starts = std::iter::once(0).chain(self.entries.iter().map(|entry| entry.end));
        starts.zip(&self.entries).map(|(start, entry)| ParcelEvent {
            record: self.records.get(start..entry.end).unwrap_or_default(),
            line: self.records.get(entry.event..entry.end).unwrap_or_default(),
            eid: entry.eid,
            stage_micros: entry.stage_micros,
            request: entry.request,
        })
    }
}

impl ParcelEvent<'_> {
    /// The auditID as it stands in JSON, at most 200 bytes of it.
    pub(crate) fn audit_id(&self) -> String {
        let id = EventLine::scan(self.line).map_or(&b""[..], |line| line.audit_id());
        String::from_utf8_lossy(id.get(..id.len().min(200)).unwrap_or_default()).into_owned()
    }
}
