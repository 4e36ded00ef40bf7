//! One event that has just come, looked at as far as keeping it needs.

use std::borrow::Cow;
use std::hash::BuildHasher as _;

use foldhash::quality::RandomState;
use kaudit_event::{DecodeError, Eid, EncodeError, Event, EventLine, MicroTime, log_line_of_item};

/// What ids are made with.
#[derive(Clone)]
pub struct Keys {
    /// The store's key, which makes [`Eid`]s.
    store: [u8; 32],
    /// Of this process alone, for what is never written down.
    process: RandomState,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Keys with the store's 32 bytes.
    #[must_use]
    pub fn new(store: [u8; 32]) -> Self {
        Self {
            store,
            process: RandomState::default(),
        }
    }
}

/// Why a text is kept in quarantine instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAnEvent {
    /// It cannot be read as an event.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It is an object that says nothing that an event says.
    #[error("the object has neither an auditID nor a stage")]
    Nameless,
    /// It was read and cannot be written again.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// An event, its line and what tells it from others.
#[derive(Debug)]
pub struct Arrival<'a> {
    text: LineText<'a>,
    /// Decides whether it is a duplicate.
    pub eid: Eid,
    /// When its stage was reached, microseconds since 1970 in UTC.
    pub stage_micros: i64,
    /// What the use of its auditID is judged by; absent for an event that no apiserver writes.
    pub(crate) request: Option<RequestFacts>,
}

/// The log line of an event, or what it is made of.
#[derive(Debug)]
enum LineText<'a> {
    Whole(Cow<'a, [u8]>),
    Item(EventLine<'a>),
}

/// Which request an event belongs to, as hashes under a key of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestFacts {
    /// Of cluster and auditID.
    pub(crate) audit_id: u64,
    /// Of arrival time, verb, URI and user: the same for all stages of one request.
    pub(crate) request: u64,
    /// Of verb and URI: the same where one server hands a request to another.
    pub(crate) forwarded: u64,
    /// Which stage, and of when.
    pub(crate) stage: u64,
    /// When the request arrived, microseconds.
    pub(crate) received_micros: i64,
}

impl<'a> Arrival<'a> {
    /// An event that stands as a line of a log file, without its LF. Its bytes are kept.
    ///
    /// # Errors
    ///
    /// [`NotAnEvent`].
    pub fn of_line(text: &'a [u8], cluster: &str, keys: &Keys) -> Result<Self, NotAnEvent> {
        match EventLine::scan(text) {
            Some(line) if text.starts_with(LINE_HEAD) => Ok(Self::scanned(
                LineText::Whole(Cow::Borrowed(text)),
                &line,
                cluster,
                keys,
            )),
            _ => Self::decoded(text, cluster, keys),
        }
    }

    /// An event that stands as an item of an EventList. It is kept as a log line.
    ///
    /// # Errors
    ///
    /// [`NotAnEvent`].
    pub fn of_item(text: &'a [u8], cluster: &str, keys: &Keys) -> Result<Self, NotAnEvent> {
        match EventLine::scan(text) {
            Some(line) => Ok(Self::scanned(LineText::Item(line), &line, cluster, keys)),
            None => Self::decoded(text, cluster, keys),
        }
    }

    /// An item of an EventList that was scanned already.
    pub(crate) fn of_scanned_item(line: EventLine<'a>, cluster: &str, keys: &Keys) -> Self {
        Self::scanned(LineText::Item(line), &line, cluster, keys)
    }

    fn scanned(text: LineText<'a>, line: &EventLine<'_>, cluster: &str, keys: &Keys) -> Self {
        Self {
            text,
            eid: line.eid(&keys.store, cluster),
            stage_micros: micros(line.stage_timestamp()),
            request: Some(RequestFacts::of(line, cluster, keys)),
        }
    }

    /// The way of a text that is not as kube-apiserver writes it.
    #[inline(never)]
    fn decoded(text: &'a [u8], cluster: &str, keys: &Keys) -> Result<Self, NotAnEvent> {
        let event = Event::from_item(text)?;
        if event.audit_id.is_empty() && event.stage.as_bytes().is_empty() {
            return Err(NotAnEvent::Nameless);
        }
        let is_line = text.starts_with(LINE_HEAD) && !text.contains(&b'\r') && !text.contains(&b'\n');
        let line = if is_line {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(log_line_of_item(text)?)
        };
        let mut canonical = Vec::new();
        // The bodies were checked with the text they are part of.
        event.write_json_line(&mut canonical)?;
        let scanned = EventLine::scan(&canonical);
        let eid = match &scanned {
            Some(line) => line.eid(&keys.store, cluster),
            None => Eid::of(&keys.store, cluster, &event)?,
        };
        Ok(Self {
            text: LineText::Whole(line),
            eid,
            stage_micros: micros(event.stage_timestamp),
            request: scanned.map(|line| RequestFacts::of(&line, cluster, keys)),
        })
    }

    /// Appends the line without an LF.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        match &self.text {
            LineText::Whole(line) => out.extend_from_slice(line),
            LineText::Item(line) => line.write_line(out),
        }
    }
}

const LINE_HEAD: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;

impl RequestFacts {
    fn of(line: &EventLine<'_>, cluster: &str, keys: &Keys) -> Self {
        let hash = &keys.process;
        Self {
            audit_id: hash.hash_one((cluster, line.audit_id())),
            request: hash.hash_one((line.received(), line.verb(), line.request_uri(), line.user())),
            forwarded: hash.hash_one((line.verb(), line.request_uri())),
            stage: hash.hash_one((line.stage(), line.stage_timestamp())),
            received_micros: micros(line.received()),
        }
    }
}

pub(crate) fn micros(time: MicroTime) -> i64 {
    time.unix_seconds
        .saturating_mul(1_000_000)
        .saturating_add(i64::from(time.nanos / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = r#"{"level":"Metadata","auditID":"a","stage":"ResponseComplete","requestURI":"/x","verb":"get","user":{"username":"u"},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.000007Z"}"#;

    fn line(arrival: &Arrival<'_>) -> String {
        let mut out = Vec::new();
        arrival.write_line(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_an_item_and_a_reordered_item_of_one_event_are_the_same_event() {
        let keys = Keys::new([1; 32]);
        let expected = ITEM.replacen('{', r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#, 1);
        let item = Arrival::of_item(ITEM.as_bytes(), "c", &keys).unwrap();
        assert_eq!(line(&item), expected);
        let whole = Arrival::of_line(expected.as_bytes(), "c", &keys).unwrap();
        assert_eq!(line(&whole), expected);
        assert_eq!((whole.eid, whole.request), (item.eid, item.request));
        let old = expected
            .replace("k8s.io/v1", "k8s.io/v1beta1")
            .replace(",\"verb\"", ", \"verb\"");
        let old = Arrival::of_item(old.as_bytes(), "c", &keys).unwrap();
        assert_eq!((old.eid, old.request), (item.eid, item.request));
        assert_eq!(line(&old), expected);
        let elsewhere = Arrival::of_item(ITEM.as_bytes(), "d", &keys).unwrap();
        assert_ne!(elsewhere.eid, item.eid);
        assert_eq!(item.stage_micros, 1_767_323_045_000_007);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let keys = Keys::new([1; 32]);
        for text in [
            "",
            "[]",
            "{",
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            "null",
            r#"{"a":1}"#,
        ] {
            assert!(Arrival::of_line(text.as_bytes(), "c", &keys).is_err(), "{text}");
            assert!(Arrival::of_item(text.as_bytes(), "c", &keys).is_err(), "{text}");
        }
    }
}
