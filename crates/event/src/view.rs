//! Events as readers see them: fields of a text that stays where it is.

use std::borrow::Cow;

use bytes::Bytes;

use crate::decode::json::{Kind, Reading, Value};
use crate::decode::{parse_time, root_of_event};
use crate::{DecodeError, Event, Level, MicroTime, Stage};

/// Where a value stands in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

/// The fields that are found in one pass, in their order in [`NAMES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Spans {
    known: [Span; NAMES.len()],
    unknown: Vec<(Span, Span)>,
}

const NAMES: [&[u8]; 19] = [
    b"kind",
    b"apiVersion",
    b"level",
    b"auditID",
    b"stage",
    b"requestURI",
    b"verb",
    b"user",
    b"impersonatedUser",
    b"authenticationMetadata",
    b"sourceIPs",
    b"userAgent",
    b"objectRef",
    b"responseStatus",
    b"requestObject",
    b"responseObject",
    b"requestReceivedTimestamp",
    b"stageTimestamp",
    b"annotations",
];

/// Positions in [`NAMES`].
mod at {
    pub(super) const LEVEL: usize = 2;
    pub(super) const AUDIT_ID: usize = 3;
    pub(super) const STAGE: usize = 4;
    pub(super) const REQUEST_URI: usize = 5;
    pub(super) const VERB: usize = 6;
    pub(super) const USER: usize = 7;
    pub(super) const IMPERSONATED_USER: usize = 8;
    pub(super) const AUTHENTICATION_METADATA: usize = 9;
    pub(super) const SOURCE_IPS: usize = 10;
    pub(super) const USER_AGENT: usize = 11;
    pub(super) const OBJECT_REF: usize = 12;
    pub(super) const RESPONSE_STATUS: usize = 13;
    pub(super) const REQUEST_OBJECT: usize = 14;
    pub(super) const RESPONSE_OBJECT: usize = 15;
    pub(super) const RECEIVED: usize = 16;
    pub(super) const STAGE_TIME: usize = 17;
    pub(super) const ANNOTATIONS: usize = 18;
}

/// An event that owns its text. Unknown fields and every byte survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedEvent {
    text: Bytes,
    spans: Spans,
}

impl DecodedEvent {
    /// Finds the fields of an event of `audit.k8s.io/v1`. Their values are looked at when asked for.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for a text that is no JSON object, or an object of another kind.
    pub fn parse(text: Bytes) -> Result<Self, DecodeError> {
        let root = root_of_event(&text)?;
        let offset = |part: &[u8]| part.as_ptr().addr() - text.as_ptr().addr();
        let span = |part: &[u8]| Span {
            start: u32::try_from(offset(part)).unwrap_or(u32::MAX),
            end: u32::try_from(offset(part) + part.len()).unwrap_or(u32::MAX),
        };
        let mut spans = Spans::default();
        for (key, value) in root.raw_members() {
            match NAMES.iter().position(|name| *name == &*key.unescaped()) {
                Some(at) => {
                    if let Some(known) = spans.known.get_mut(at) {
                        *known = span(value.raw());
                    }
                }
                None => spans.unknown.push((span(key.raw()), span(value.raw()))),
            }
        }
        Ok(Self { text, spans })
    }

    /// The text as it was given.
    #[must_use]
    pub const fn text(&self) -> &Bytes {
        &self.text
    }

    /// The fields.
    #[must_use]
    pub fn view(&self) -> EventView<'_> {
        EventView {
            text: &self.text,
            spans: &self.spans,
        }
    }

    /// The owned form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for a field of a wrong type.
    pub fn to_event(&self) -> Result<Event, DecodeError> {
        Event::from_json_line(&self.text)
    }
}

/// The fields of an event, borrowed. A field of a wrong type reads as absent; of a repeated field the
/// last one counts.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    text: &'a [u8],
    spans: &'a Spans,
}

/// Text of a field: borrowed unless it holds escapes or stray bytes.
pub type FieldText<'a> = Cow<'a, [u8]>;

impl<'a> EventView<'a> {
    fn at(&self, span: Span) -> Option<Value<'a>> {
        let raw = self.text.get(span.start as usize..span.end as usize)?;
        (!raw.is_empty()).then(|| Value::new(raw, Reading::Inverse))
    }

    fn field(&self, at: usize) -> Option<Value<'a>> {
        let value = self.at(*self.spans.known.get(at)?)?;
        (value.kind() != Kind::Null).then_some(value)
    }

    fn string(&self, at: usize) -> FieldText<'a> {
        self.field(at).map(Value::unescaped).unwrap_or_default()
    }

    /// How much was recorded, if it is one of the known levels.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        Level::from_name(&self.string(at::LEVEL))
    }

    /// `auditID`.
    #[must_use]
    pub fn audit_id(&self) -> FieldText<'a> {
        self.string(at::AUDIT_ID)
    }

    /// The stage, if it is one of the known ones.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        Stage::from_name(&self.string(at::STAGE))
    }

    /// `requestURI`.
    #[must_use]
    pub fn request_uri(&self) -> FieldText<'a> {
        self.string(at::REQUEST_URI)
    }

    /// `verb`.
    #[must_use]
    pub fn verb(&self) -> FieldText<'a> {
        self.string(at::VERB)
    }

    /// Who asked.
    #[must_use]
    pub fn user(&self) -> ObjectView<'a> {
        ObjectView(self.field(at::USER))
    }

    /// Who it was carried out as; absent without impersonation.
    #[must_use]
    pub fn impersonated_user(&self) -> Option<ObjectView<'a>> {
        self.field(at::IMPERSONATED_USER)
            .map(|value| ObjectView(Some(value)))
    }

    /// How the identity was obtained.
    #[must_use]
    pub fn authentication_metadata(&self) -> Option<ObjectView<'a>> {
        self.field(at::AUTHENTICATION_METADATA)
            .map(|value| ObjectView(Some(value)))
    }

    /// `sourceIPs`, the peer last.
    pub fn source_ips(&self) -> impl Iterator<Item = FieldText<'a>> {
        self.field(at::SOURCE_IPS)
            .into_iter()
            .flat_map(Value::items)
            .map(Value::unescaped)
    }

    /// `userAgent`.
    #[must_use]
    pub fn user_agent(&self) -> FieldText<'a> {
        self.string(at::USER_AGENT)
    }

    /// What was asked for; absent for non-resource requests.
    #[must_use]
    pub fn object_ref(&self) -> Option<ObjectView<'a>> {
        self.field(at::OBJECT_REF).map(|value| ObjectView(Some(value)))
    }

    /// How the request ended.
    #[must_use]
    pub fn response_status(&self) -> Option<ObjectView<'a>> {
        self.field(at::RESPONSE_STATUS)
            .map(|value| ObjectView(Some(value)))
    }

    /// The request's body as it stands.
    #[must_use]
    pub fn request_object(&self) -> Option<&'a [u8]> {
        self.field(at::REQUEST_OBJECT).map(Value::raw)
    }

    /// The response's body as it stands.
    #[must_use]
    pub fn response_object(&self) -> Option<&'a [u8]> {
        self.field(at::RESPONSE_OBJECT).map(Value::raw)
    }

    /// When the request arrived.
    #[must_use]
    pub fn request_received_timestamp(&self) -> Option<MicroTime> {
        parse_time(&self.string(at::RECEIVED))
    }

    /// When this stage was reached.
    #[must_use]
    pub fn stage_timestamp(&self) -> Option<MicroTime> {
        parse_time(&self.string(at::STAGE_TIME))
    }

    /// Keys and values, in their order.
    pub fn annotations(&self) -> impl Iterator<Item = (FieldText<'a>, FieldText<'a>)> {
        self.field(at::ANNOTATIONS)
            .into_iter()
            .flat_map(Value::members)
            .map(|(key, value)| (key, value.unescaped()))
    }

    /// The value of one annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<FieldText<'a>> {
        self.annotations()
            .find(|(name, _)| &**name == key.as_bytes())
            .map(|(_, value)| value)
    }

    /// Fields that `audit.k8s.io/v1` does not have: name and raw value.
    pub fn unknown_fields(&self) -> impl Iterator<Item = (FieldText<'a>, &'a [u8])> {
        self.spans
            .unknown
            .iter()
            .filter_map(|(key, value)| Some((self.at(*key)?.unescaped(), self.at(*value)?.raw())))
    }
}

/// An object inside an event: a user, a reference, a status.
#[derive(Clone, Copy, Debug)]
pub struct ObjectView<'a>(Option<Value<'a>>);

impl<'a> ObjectView<'a> {
    fn value(&self, key: &str) -> Option<Value<'a>> {
        let mut found = None;
        for (name, value) in self.0?.members() {
            if &*name == key.as_bytes() {
                found = Some(value);
            }
        }
        found.filter(|value| value.kind() != Kind::Null)
    }

    /// A text by its name in JSON, for example `username`, `namespace` or `reason`; empty if absent.
    #[must_use]
    pub fn text(&self, key: &str) -> FieldText<'a> {
        self.value(key).map(Value::unescaped).unwrap_or_default()
    }

    /// A whole number, for example `code`.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<i64> {
        std::str::from_utf8(self.value(key)?.raw()).ok()?.parse().ok()
    }

    /// The texts of a list, for example `groups`.
    pub fn texts(&self, key: &str) -> impl Iterator<Item = FieldText<'a>> {
        self.value(key)
            .into_iter()
            .flat_map(Value::items)
            .map(Value::unescaped)
    }

    /// An object in this one, for example `details`.
    #[must_use]
    pub fn object(&self, key: &str) -> Self {
        Self(self.value(key))
    }

    /// The text as it stands.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.0.map_or(b"", Value::raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_where_they_stand() {
        let text = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","stage":"Panic","verb":"a\u0062",
            "user":{"username":"u","groups":["g","h"]},"sourceIPs":["1.1.1.1"],"objectRef":null,"x":[1],
            "responseStatus":{"code":403,"details":{"name":"n"}},"requestObject":{"a": 1},
            "stageTimestamp":"1970-01-01T00:00:01.000000Z","annotations":{"k":"v"}}"#;
        let decoded = DecodedEvent::parse(Bytes::from_static(text)).unwrap();
        let view = decoded.view();
        assert_eq!(
            (view.level(), view.stage()),
            (Some(Level::Request), Some(Stage::Panic))
        );
        assert_eq!(&*view.verb(), b"ab");
        assert_eq!(&*view.user().text("username"), b"u");
        assert_eq!(view.user().texts("groups").count(), 2);
        assert!(view.object_ref().is_none());
        let status = view.response_status().unwrap();
        assert_eq!(status.integer("code"), Some(403));
        assert_eq!(&*status.object("details").text("name"), b"n");
        assert_eq!(view.request_object(), Some(&br#"{"a": 1}"#[..]));
        assert_eq!(view.stage_timestamp(), Some(MicroTime::from_unix(1, 0)));
        assert_eq!(view.request_received_timestamp(), None);
        assert_eq!(view.annotation("k").as_deref(), Some(&b"v"[..]));
        let unknown: Vec<_> = view.unknown_fields().collect();
        assert_eq!(unknown, [(Cow::Borrowed(&b"x"[..]), &b"[1]"[..])]);
        assert_eq!(decoded.text().as_ref(), text);
    }
}
