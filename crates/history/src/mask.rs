//! What nobody should read in passing: the values of Secrets, tokens, what kubectl keeps of Secrets.
//!
//! A masked value says how long it is, roughly, and with a key which value it is, without telling the value:
//! two that differ look different, and nobody without the key can try values.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::diff::LAST_APPLIED;
use crate::patch::Resource;
use crate::path::{Path, Step};

/// Whether masked values are shown after all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a question of yes or no")]
pub enum Reveal {
    /// They stay masked.
    #[default]
    No,
    /// They are shown.
    Yes,
}

/// Masks values.
#[derive(Clone)]
pub struct Mask {
    reveal: Reveal,
    key: Option<[u8; 32]>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask")
            .field("reveal", &self.reveal)
            .finish_non_exhaustive()
    }
}

/// What a body is about, as far as masking goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Secret,
    TokenRequest,
    TokenReview,
    SigningRequest,
}

const SECRET_FIELDS: [&[&str]; 3] = [
    &["data"],
    &["stringData"],
    &["metadata", "annotations", LAST_APPLIED],
];

impl Content {
    fn of_resource(resource: Resource<'_>, subresource: &str) -> Option<Self> {
        Some(match (resource.group, resource.resource, subresource) {
            ("", "secrets", _) => Self::Secret,
            ("", "serviceaccounts", "token") => Self::TokenRequest,
            ("authentication.k8s.io", "tokenreviews", _) => Self::TokenReview,
            ("authentication.k8s.io", "tokenrequests", _) => Self::TokenRequest,
            ("certificates.k8s.io", "certificatesigningrequests", _) => Self::SigningRequest,
            _ => return None,
        })
    }

    fn of_kind(object: &Value) -> Option<Self> {
        Some(match object.get("kind")?.as_str()? {
            "Secret" | "SecretList" => Self::Secret,
            "TokenRequest" => Self::TokenRequest,
            "TokenReview" => Self::TokenReview,
            "CertificateSigningRequest" | "CertificateSigningRequestList" => Self::SigningRequest,
            _ => return None,
        })
    }

    const fn fields(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Secret => &SECRET_FIELDS,
            Self::TokenRequest => &[&["status", "token"]],
            Self::TokenReview => &[&["spec", "token"]],
            Self::SigningRequest => &[&["spec", "request"], &["status", "certificate"]],
        }
    }
}

/// How long a masked value is.
const LENGTHS: [&str; 4] = ["1-16 bytes", "17-64 bytes", "65-1024 bytes", "over 1 KiB"];

/// Whether a text stands for a value: nothing but a length and a hash, which tell what they tell.
fn is_masked(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix("(masked: ")
        .and_then(|text| text.strip_suffix(')'))
    else {
        return false;
    };
    let is_hash =
        |text: &str| text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    inner == "empty"
        || LENGTHS.iter().any(|length| {
            inner
                .strip_prefix(length)
                .is_some_and(|rest| rest.is_empty() || rest.strip_prefix(", ").is_some_and(is_hash))
        })
}

/// How deep lists may hold lists of objects: a List of SecretLists of Secrets.
const MAX_LISTS: usize = 4;

impl Mask {
    /// Masks with a keyed hash, so that a change shows. The key must be secret and the same wherever values
    /// are to be compared.
    #[must_use]
    pub const fn keyed(key: [u8; 32], reveal: Reveal) -> Self {
        Self {
            reveal,
            key: Some(key),
        }
    }

    /// Masks with the length only.
    #[must_use]
    pub const fn without_key(reveal: Reveal) -> Self {
        Self { reveal, key: None }
    }

    /// A body of an event as it may be shown: an object, a list, a table, a patch of any kind. Unchanged
    /// unless it may hold something to mask; then the order of fields stays, their spacing does not. A body
    /// that may hold secrets and cannot be read is masked as a whole.
    #[must_use]
    pub fn body<'a>(&self, resource: Resource<'_>, subresource: &str, json: &'a [u8]) -> Cow<'a, [u8]> {
        if self.reveal == Reveal::Yes {
            return Cow::Borrowed(json);
        }
        let named = Content::of_resource(resource, subresource);
        if named.is_none() && !may_name_content(json) {
            return Cow::Borrowed(json);
        }
        let mut value = match crate::body::parse(json) {
            Ok(parsed) => parsed.value,
            Err(_) => {
                let text = Value::from(format!("{} and could not be read", self.of_bytes(json)));
                return Cow::Owned(text.to_string().into_bytes());
            }
        };
        // Of a field that is there twice, only one was looked at.
        if self.value(named, &mut value, 0) == Touched::No && named.is_none() {
            return Cow::Borrowed(json);
        }
        Cow::Owned(value.to_string().into_bytes())
    }

    /// As [`body`](Self::body), for a value.
    pub fn object(&self, resource: Resource<'_>, subresource: &str, object: &mut Value) {
        if self.reveal == Reveal::No {
            self.value(Content::of_resource(resource, subresource), object, 0);
        }
    }

    /// Whether anything of an object of this resource is masked.
    pub(crate) fn covers_object(&self, resource: Resource<'_>, object: &Value) -> bool {
        self.reveal == Reveal::No
            && (Content::of_resource(resource, "") == Some(Content::Secret)
                || Content::of_kind(object) == Some(Content::Secret))
    }

    /// Whether the value at `path` of a Secret is masked: it is one of those, or stands in one.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        self.reveal == Reveal::No
            && SECRET_FIELDS
                .iter()
                .any(|fields| path.is_under(fields) && !path.steps().is_empty())
    }

    /// What stands for a value. What stands for one already stays: it may have been masked before it came here, with
    /// a key that is not this one.
    #[must_use]
    pub fn text(&self, value: &Value) -> String {
        match value {
            Value::String(text) if is_masked(text) => text.clone(),
            Value::String(text) => self.of_bytes(text.as_bytes()),
            value => self.of_bytes(value.to_string().as_bytes()),
        }
    }

    fn of_bytes(&self, bytes: &[u8]) -> String {
        let length = match bytes.len() {
            0 => return "(masked: empty)".to_owned(),
            1..=16 => LENGTHS[0],
            17..=64 => LENGTHS[1],
            65..=1024 => LENGTHS[2],
            _ => LENGTHS[3],
        };
        match &self.key {
            None => format!("(masked: {length})"),
            Some(key) => {
                let mut hasher = blake3::Hasher::new_keyed(key);
                hasher.update(b"kaudit masked value\0").update(bytes);
                let hash = hasher.finalize().to_hex();
                format!("(masked: {length}, {})", hash.get(..8).unwrap_or_default())
            }
        }
    }

    fn value(&self, named: Option<Content>, value: &mut Value, lists: usize) -> Touched {
        if let Value::Array(operations) = value {
            return match named {
                Some(content) => operations
                    .iter_mut()
                    .map(|operation| self.operation(content, operation))
                    .fold(Touched::No, Touched::or),
                None => Touched::No,
            };
        }
        // What a body says of itself takes nothing from what its request was about.
        let stated = Content::of_kind(value).filter(|stated| Some(*stated) != named);
        let mut touched = Touched::No;
        for content in [named, stated].into_iter().flatten() {
            touched = touched.or(self.status(value));
            for field in content.fields() {
                touched = touched.or(self.field(value, field));
            }
            // An object in another encoding.
            touched = touched.or(self.field(value, &["raw"]));
        }
        if lists >= MAX_LISTS {
            return touched;
        }
        for (list, item) in [("items", None), ("rows", Some("object"))] {
            let Some(Value::Array(items)) = value.get_mut(list) else {
                continue;
            };
            for inner in items {
                let inner = match item {
                    None => Some(inner),
                    Some(name) => inner.get_mut(name),
                };
                if let Some(inner) = inner.filter(|inner| inner.is_object()) {
                    touched = touched.or(self.value(named.or(stated), inner, lists + 1));
                }
            }
        }
        touched
    }

    /// An error about a body may quote it.
    fn status(&self, value: &mut Value) -> Touched {
        let is_about_body = value.get("kind").is_some_and(|kind| kind == "Status")
            && value.get("reason").is_none_or(|reason| {
                ![
                    "NotFound",
                    "Forbidden",
                    "AlreadyExists",
                    "Conflict",
                    "Unauthorized",
                ]
                .iter()
                .any(|harmless| reason == harmless)
            });
        if !is_about_body {
            return Touched::No;
        }
        let mut touched = self.field(value, &["message"]);
        if let Some(Value::Array(causes)) = value.pointer_mut("/details/causes") {
            for cause in causes {
                touched = touched.or(self.field(cause, &["message"]));
            }
        }
        touched
    }

    fn field(&self, value: &mut Value, field: &[&str]) -> Touched {
        let mut at = value;
        for name in field {
            let Some(inner) = at.get_mut(*name) else {
                return Touched::No;
            };
            at = inner;
        }
        self.leaves(at)
    }

    fn leaves(&self, value: &mut Value) -> Touched {
        match value {
            Value::Null => Touched::No,
            Value::Object(fields) => fields
                .values_mut()
                .map(|value| self.leaves(value))
                .fold(Touched::No, Touched::or),
            Value::Array(items) => items
                .iter_mut()
                .map(|value| self.leaves(value))
                .fold(Touched::No, Touched::or),
            value => {
                *value = Value::from(self.text(value));
                Touched::Yes
            }
        }
    }

    /// One operation of a JSON patch.
    fn operation(&self, content: Content, operation: &mut Value) -> Touched {
        let path = operation
            .get("path")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let Some(value) = operation.get_mut("value") else {
            return Touched::No;
        };
        if !path.is_empty() && !path.starts_with('/') {
            return self.leaves(value);
        }
        let steps: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|step| step.replace("~1", "/").replace("~0", "~"))
            .collect();
        let mut touched = Touched::No;
        for field in content.fields() {
            let common = steps
                .iter()
                .zip(*field)
                .take_while(|(step, name)| step == *name)
                .count();
            if common == field.len() {
                touched = touched.or(self.leaves(value));
            } else if common == steps.len() {
                touched = touched.or(self.field(value, field.get(common..).unwrap_or_default()));
            }
        }
        touched
    }
}

/// Whether something was masked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touched {
    No,
    Yes,
}

impl Touched {
    const fn or(self, other: Self) -> Self {
        match self {
            Self::Yes => Self::Yes,
            Self::No => other,
        }
    }
}

/// Whether a text names a kind that is masked, be it escaped: then it is worth reading.
fn may_name_content(json: &[u8]) -> bool {
    [&b"Secret"[..], b"TokenRe", b"CertificateSigningRequest", b"\\u"]
        .iter()
        .any(|name| memchr::memmem::find(json, name).is_some())
}

/// The change of a masked field, as it may be shown.
pub(crate) fn masked_change(mask: &Mask, path: &Path, value: &Value) -> Value {
    if mask.covers(path) {
        return match value {
            Value::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(key, value)| (key.clone(), Value::from(mask.text(value))))
                    .collect::<Map<_, _>>(),
            ),
            value => Value::from(mask.text(value)),
        };
    }
    // A whole part of the object that came or went may hold masked fields.
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(key, value)| {
                    let inner = path.with(Step::Field(key.clone()));
                    (key.clone(), masked_change(mask, &inner, value))
                })
                .collect(),
        ),
        value => value.clone(),
    }
}
