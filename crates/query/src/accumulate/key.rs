//! Values as they are counted.

use std::borrow::Cow;
use std::fmt;

use crate::json;
use crate::row::Value;

/// A value of a column, owned, with an order of its own. Texts are cut at [`Key::MAX_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "who shows values must know each kind")]
pub enum Key {
    /// There is no value.
    Absent,
    /// True or false.
    Bool(bool),
    /// A number, an instant or a duration in microseconds.
    Number(i64),
    /// A text.
    Text(Box<[u8]>),
}

impl Key {
    /// Longer texts are cut, so that two which begin alike count as one.
    pub const MAX_BYTES: usize = 1024;

    /// What is counted of a value: each text of a list once, each scalar of a body once, an absent value
    /// as itself.
    pub fn each(value: &Value<'_>, mut count: impl FnMut(Borrowed<'_>)) {
        match value {
            Value::Absent => count(Borrowed::Absent),
            Value::Bool(value) => count(Borrowed::Bool(*value)),
            Value::Number(value) | Value::Time(value) | Value::Duration(value) => {
                count(Borrowed::Number(*value))
            }
            Value::Text(text) => count(Borrowed::text(text)),
            Value::Texts(texts) => {
                for (at, text) in texts.iter().enumerate() {
                    if !texts.iter().take(at).any(|earlier| earlier == text) {
                        count(Borrowed::text(text));
                    }
                }
            }
            Value::Json(values) => {
                let mut seen: Vec<Cow<'_, [u8]>> = Vec::new();
                for value in values.iter().take(MAX_SCALARS) {
                    let text = json::text_of(value);
                    if !seen.contains(&text) {
                        count(Borrowed::text(&text));
                        seen.push(text);
                    }
                }
            }
        }
    }
}

/// Of a body's path, so many values of one event are counted.
const MAX_SCALARS: usize = 64;

/// A key that is not yet owned: most values are known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the same as Key")]
pub enum Borrowed<'a> {
    /// As [`Key::Absent`].
    Absent,
    /// As [`Key::Bool`].
    Bool(bool),
    /// As [`Key::Number`].
    Number(i64),
    /// As [`Key::Text`].
    Text(&'a [u8]),
}

impl<'a> Borrowed<'a> {
    fn text(text: &'a [u8]) -> Self {
        Self::Text(text.get(..Key::MAX_BYTES).unwrap_or(text))
    }

    /// The key that stays.
    #[must_use]
    pub fn to_key(self) -> Key {
        match self {
            Self::Absent => Key::Absent,
            Self::Bool(value) => Key::Bool(value),
            Self::Number(value) => Key::Number(value),
            Self::Text(text) => Key::Text(text.into()),
        }
    }

    /// A text of which an absent one is `None`.
    #[must_use]
    pub fn of_text(text: Option<&'a [u8]>) -> Self {
        text.map_or(Self::Absent, Self::text)
    }
}

impl Key {
    /// The same without owning it.
    #[must_use]
    pub fn borrowed(&self) -> Borrowed<'_> {
        match self {
            Self::Absent => Borrowed::Absent,
            Self::Bool(value) => Borrowed::Bool(*value),
            Self::Number(value) => Borrowed::Number(*value),
            Self::Text(text) => Borrowed::Text(text),
        }
    }

    /// Bytes that it takes beside its own size.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Absent | Self::Bool(_) | Self::Number(_) => 0,
        }
    }
}

/// For people; an absent value is `-`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("-"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(text) => f.write_str(&String::from_utf8_lossy(text)),
        }
    }
}
