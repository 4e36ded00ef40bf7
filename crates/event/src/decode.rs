//! Decoding as upstream's universal decoder does it: into the owned form.
//!
//! Unknown fields are passed over, repeated keys merge, names are case-sensitive, bodies stay raw. Text
//! that is not UTF-8 is taken: in strings each stray byte becomes U+FFFD, in bodies it stays.
//!
//! Source: k8s.io/apimachinery pkg/runtime/serializer/json and sigs.k8s.io/json.

mod event;
pub(crate) mod json;
mod time;

use crate::encode::check_json;
use crate::{BodyError, EncodeError, Event, ListMeta, MicroTime, Text};
use json::{Reading, Value};

/// A larger text is refused unread.
pub const MAX_EVENT_BYTES: usize = 64 << 20;

/// Why a text is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is larger than [`MAX_EVENT_BYTES`].
    #[error("the event has {0} bytes, more than {MAX_EVENT_BYTES}")]
    TooLarge(usize),
    /// It is not JSON.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Syntax(BodyError),
    /// It is JSON, but no object.
    #[error("couldn't get version/kind; the text is no JSON object but begins with `{0}`")]
    NotObject(String),
    /// It does not say what it is.
    #[error("Object '{0}' is missing")]
    Unnamed(&'static str),
    /// It is something else, or of another version.
    #[error(
        "no kind {kind} is registered for version {version}: an event is an `Event` of `audit.k8s.io/v1`"
    )]
    OtherKind {
        /// The kind, quoted.
        kind: String,
        /// The version, quoted.
        version: String,
    },
    /// A field holds a value of another type.
    #[error("cannot unmarshal {found} into field {field} of type {expected}")]
    Type {
        /// The field's path.
        field: &'static str,
        /// What the field takes.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A time is not RFC 3339 with exactly six digits of fraction.
    #[error("{field}: cannot parse {text} as a time like \"2006-01-02T15:04:05.000000Z\"")]
    Time {
        /// The field's path.
        field: &'static str,
        /// The text, quoted.
        text: String,
    },
}

impl Event {
    /// Decodes one event of `audit.k8s.io/v1`; blanks around it and a byte order mark before it are
    /// allowed.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else.
    pub fn decode(text: &[u8]) -> Result<Self, DecodeError> {
        Self::read(text, Reading::Go)
    }

    /// Decodes a line that an audit backend wrote, as the inverse of [`Event::write_json_line`].
    ///
    /// Upstream's decoder, which [`Event::decode`] is, is not: it takes the escape `\ufffd`, by which the
    /// encoder stands for a byte that is not UTF-8, for the character, and forgets `"requestObject":null`.
    /// Which byte an escape stood for is lost, so annotations whose keys differ in such a byte alone may
    /// change places when they are written again.
    ///
    /// # Errors
    ///
    /// As [`Event::decode`].
    pub fn from_json_line(line: &[u8]) -> Result<Self, DecodeError> {
        Self::read(line, Reading::Inverse)
    }

    fn read(text: &[u8], reading: Reading) -> Result<Self, DecodeError> {
        let root = root(text, reading)?;
        expect_kind(root, "Event")?;
        let mut event = Self::default();
        event::into_event(root, &mut event)?;
        Ok(event)
    }
}

/// A list of events: the body of an audit webhook's request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the fields of audit.k8s.io/v1 EventList"
)]
pub struct EventList {
    /// Always printed.
    pub metadata: ListMeta,
    /// `None` is Go's nil.
    pub items: Option<Vec<Event>>,
}

impl EventList {
    /// Decodes a whole list; one bad item fails it. Readers that must not lose the others take
    /// [`event_list_items`](crate::event_list_items).
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else.
    pub fn decode(text: &[u8]) -> Result<Self, DecodeError> {
        let root = root(text, Reading::Go)?;
        expect_kind(root, "EventList")?;
        let mut list = Self::default();
        event::into_list(root, &mut list)?;
        Ok(list)
    }

    /// Appends the list with its final LF.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] of the first event that cannot be printed; then nothing is appended.
    pub fn write_json_line(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        crate::encode::write_list(&self.metadata, self.items.as_deref(), out)
    }
}

/// The fields of a text that says it is an event.
pub(crate) fn root_of_event(text: &[u8]) -> Result<Value<'_>, DecodeError> {
    let root = root(text, Reading::Inverse)?;
    expect_kind(root, "Event")?;
    Ok(root)
}

pub(crate) fn into_event(root: Value<'_>, event: &mut Event) -> Result<(), DecodeError> {
    event::into_event(root, event)
}

pub(crate) fn parse_time(text: &[u8]) -> Option<MicroTime> {
    time::parse(text)
}

/// The one JSON object that `text` is.
pub(crate) fn root(text: &[u8], reading: Reading) -> Result<Value<'_>, DecodeError> {
    if text.len() > MAX_EVENT_BYTES {
        return Err(DecodeError::TooLarge(text.len()));
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(DecodeError::Unnamed("Kind"));
    }
    // Nearly every text is what the quick check takes; the other one knows why it is not.
    if serde_json::from_slice::<serde::de::IgnoredAny>(text).is_err() {
        check_json(text).map_err(DecodeError::Syntax)?;
    }
    match text.first() {
        Some(b'{') => Ok(Value::new(text, reading)),
        Some(b'n') => Err(DecodeError::Unnamed("Kind")),
        _ => Err(DecodeError::NotObject(
            text.first()
                .map(|byte| char::from(*byte).to_string())
                .unwrap_or_default(),
        )),
    }
}

fn expect_kind(root: Value<'_>, expected: &str) -> Result<(), DecodeError> {
    let (mut kind, mut version) = (Text::default(), Text::default());
    for (key, value) in root.members() {
        match &*key {
            b"kind" => event::text(value, "kind", &mut kind)?,
            b"apiVersion" => event::text(value, "apiVersion", &mut version)?,
            _ => {}
        }
    }
    if kind.is_empty() {
        return Err(DecodeError::Unnamed("Kind"));
    }
    if version.is_empty() {
        return Err(DecodeError::Unnamed("apiVersion"));
    }
    if kind != expected || version != "audit.k8s.io/v1" {
        return Err(DecodeError::OtherKind {
            kind: crate::go_quoted(kind.as_bytes()),
            version: crate::go_quoted(version.as_bytes()),
        });
    }
    Ok(())
}
