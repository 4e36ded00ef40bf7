//! Byte-exact encoding: the JSON line, the EventList, the legacy line.
//!
//! The output is Go's `encoding/json` with its defaults, compact and with HTML escaping, of the v1
//! types. Nothing is formatted through `fmt`; runs of plain bytes are copied.

pub(crate) mod compact;
mod legacy;
mod plain;
pub(crate) mod string;

use std::fmt;

use crate::time::Civil;
use crate::{
    Event, ListMeta, MicroTime, ObjectReference, Open, Stage, Status, StatusDetails, Text, Unknown, UserInfo,
};
use string::push_json_string;
pub(crate) use string::string_len_as_encoded;

/// Why an event could not be encoded. The text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A body is not JSON.
    #[error("json: error calling MarshalJSON for type *runtime.Unknown: {0}")]
    Body(BodyError),
}

/// Why a body is not JSON, in the words of Go's scanner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The text ended inside a value.
    #[error("unexpected end of JSON input")]
    UnexpectedEnd,
    /// A byte that cannot stand there; the byte is quoted as Go quotes it.
    #[error("invalid character {quoted} {context}")]
    InvalidCharacter {
        /// The byte, taken as a Latin-1 character, in single quotes.
        quoted: String,
        /// What was expected.
        context: String,
    },
    /// The bytes are in another encoding than JSON.
    #[error("runtime.Unknown: MarshalJSON on non-json data")]
    NotJson,
}

/// A body that was left out of an event because it cannot be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Which body.
    pub body: Body,
    /// Why.
    pub error: BodyError,
}

/// One of the two bodies of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "an event has two bodies")]
pub enum Body {
    /// `requestObject`.
    Request,
    /// `responseObject`.
    Response,
}

impl Body {
    /// The annotation that says why this body is missing.
    #[must_use]
    pub const fn annotation(self) -> &'static str {
        match self {
            Self::Request => "kaudit.dev/request-object-omitted",
            Self::Response => "kaudit.dev/response-object-omitted",
        }
    }
}

/// Checks that `text` is one JSON value, as Go's scanner does.
///
/// # Errors
///
/// The scanner's error.
pub fn check_json(text: &[u8]) -> Result<(), BodyError> {
    compact::push_compact(&mut Vec::new(), text)
}

/// `text` as Go's `%q` prints it.
#[must_use]
pub fn go_quoted(text: &[u8]) -> String {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    legacy::push_quoted(&mut quoted, text);
    // Bytes that are not UTF-8 were escaped.
    String::from_utf8_lossy(&quoted).into_owned()
}

pub(crate) const HEAD: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"#;

impl Event {
    /// Appends the log line of format `json` with its final LF.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] with the text of Go's encoder; then nothing is appended.
    pub fn write_json_line(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        out.extend_from_slice(HEAD);
        self.write_rest(out).inspect_err(|_| out.truncate(start))?;
        out.push(b'\n');
        Ok(())
    }

    /// Appends the event as it is hashed: an item without type meta.
    pub(crate) fn write_canonical(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(br#"{"level":"#);
        self.write_rest(out)
    }

    /// Appends the event as an item of an EventList: with its own type meta, without LF.
    ///
    /// # Errors
    ///
    /// As [`Event::write_json_line`].
    pub fn write_json_item(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        out.push(b'{');
        let mut members = Members { out, first: true };
        members.text(key!("kind"), &self.kind);
        members.text(key!("apiVersion"), &self.api_version);
        members.key(key!("level"));
        self.write_rest(out).inspect_err(|_| out.truncate(start))
    }

    /// Appends the log line of format `legacy` with its final LF.
    pub fn write_legacy_line(&self, out: &mut Vec<u8>) {
        legacy::write_line(self, out);
    }

    /// This event without the bodies that cannot be printed, each replaced by an annotation that
    /// says why; `None` when both can be printed.
    ///
    /// Upstream loses the whole event.
    #[must_use]
    pub fn without_unprintable_bodies(&self) -> Option<(Self, Vec<LeftOut>)> {
        let mut scratch = Vec::new();
        let mut left_out = Vec::new();
        for (body, object) in [
            (Body::Request, &self.request_object),
            (Body::Response, &self.response_object),
        ] {
            let Some(object) = object else { continue };
            scratch.clear();
            if let Err(error) = object.write(&mut scratch) {
                left_out.push(LeftOut { body, error });
            }
        }
        if left_out.is_empty() {
            return None;
        }
        let mut event = self.clone();
        for LeftOut { body, error } in &left_out {
            match body {
                Body::Request => event.request_object = None,
                Body::Response => event.response_object = None,
            }
            let key = body.annotation();
            event.annotations.retain(|(present, _)| *present != key);
            event
                .annotations
                .push((Text::from_static(key), Text::from(error.to_string())));
        }
        Some((event, left_out))
    }

    /// Everything from the value of `level` on.
    fn write_rest(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.reserve(640);
        push_json_string(out, self.level.as_bytes());
        let mut members = Members { out, first: false };
        members.always(key!("auditID"), self.audit_id.as_bytes());
        members.always(key!("stage"), Open::<Stage>::as_bytes(&self.stage));
        members.always(key!("requestURI"), self.request_uri.as_bytes());
        members.always(key!("verb"), self.verb.as_bytes());
        members.key(key!("user"));
        self.user.write(members.out);
        if let Some(user) = &self.impersonated_user {
            members.key(key!("impersonatedUser"));
            user.write(members.out);
        }
        if let Some(metadata) = &self.authentication_metadata {
            members.key(key!("authenticationMetadata"));
            members.object(|inner| {
                inner.text(
                    key!("impersonationConstraint"),
                    &metadata.impersonation_constraint,
                )
            });
        }
        if !self.source_ips.is_empty() {
            members.key(key!("sourceIPs"));
            push_strings(members.out, &self.source_ips);
        }
        members.text(key!("userAgent"), &self.user_agent);
        if let Some(reference) = &self.object_ref {
            members.key(key!("objectRef"));
            reference.write(members.out);
        }
        if let Some(status) = &self.response_status {
            members.key(key!("responseStatus"));
            status.write(members.out);
        }
        for (key, object) in [
            (key!("requestObject"), &self.request_object),
            (key!("responseObject"), &self.response_object),
        ] {
            if let Some(object) = object {
                members.key(key);
                object.write(members.out).map_err(EncodeError::Body)?;
            }
        }
        members.key(key!("requestReceivedTimestamp"));
        self.request_received_timestamp.write(members.out);
        members.key(key!("stageTimestamp"));
        self.stage_timestamp.write(members.out);
        if !self.annotations.is_empty() {
            members.key(key!("annotations"));
            members.out.push(b'{');
            let mut map = Members {
                out: members.out,
                first: true,
            };
            in_order(&self.annotations, |key, value| {
                map.name(key.as_bytes());
                push_json_string(map.out, value.as_bytes());
            });
            members.out.push(b'}');
        }
        out.push(b'}');
        Ok(())
    }
}

/// Appends an `EventList` of `audit.k8s.io/v1` with its final LF: the body of a webhook request.
///
/// # Errors
///
/// [`EncodeError`] of the first event that cannot be printed; then nothing is appended.
pub fn write_event_list(events: &[Event], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let items = (!events.is_empty()).then_some(events);
    write_list(&ListMeta::default(), items, out)
}

pub(crate) fn write_list(
    metadata: &ListMeta,
    items: Option<&[Event]>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":"#);
    metadata.write(out);
    out.extend_from_slice(br#","items":"#);
    match items {
        None => out.extend_from_slice(b"null"),
        Some([]) => out.extend_from_slice(b"[]"),
        Some(events) => {
            for (index, event) in events.iter().enumerate() {
                out.push(if index == 0 { b'[' } else { b',' });
                event.write_json_item(out).inspect_err(|_| out.truncate(start))?;
            }
            out.push(b']');
        }
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// Calls `each` with the pairs in the bytewise order of their keys.
fn in_order<V>(pairs: &[(Text, V)], mut each: impl FnMut(&Text, &V)) {
    if pairs.is_sorted_by(|a, b| a.0 <= b.0) {
        pairs.iter().for_each(|(key, value)| each(key, value));
    } else {
        let mut sorted: Vec<&(Text, V)> = pairs.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        sorted.into_iter().for_each(|(key, value)| each(key, value));
    }
}

/// Appends an event as an item of an EventList, from the log line that was made of it and its own type meta:
/// what [`Event::write_json_item`] appends, without encoding anything again.
pub fn write_json_item_of_line(kind: &Text, api_version: &Text, line: &[u8], out: &mut Vec<u8>) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let rest = line.strip_prefix(HEAD).unwrap_or_default();
    out.reserve(line.len());
    out.push(b'{');
    let mut members = Members { out, first: true };
    members.text(key!("kind"), kind);
    members.text(key!("apiVersion"), api_version);
    members.key(key!("level"));
    out.extend_from_slice(rest);
}

/// A key that is known to need no escaping, with all that stands around it after another member.
macro_rules! key {
    ($name:literal) => {
        Key(concat!(",\"", $name, "\":").as_bytes())
    };
}
use key;

#[derive(Clone, Copy)]
struct Key(&'static [u8]);

/// The members of one JSON object.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Members<'_> {
    fn separate(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }

    #[inline(always)]
    fn key(&mut self, key: Key) {
        let Key(after_another) = key;
        let text = match after_another {
            [_comma, first @ ..] if self.first => first,
            after_another => after_another,
        };
        self.out.extend_from_slice(text);
        self.first = false;
    }

    /// A key from outside.
    fn name(&mut self, key: &[u8]) {
        self.separate();
        push_json_string(self.out, key);
        self.out.push(b':');
    }

    /// A string that is printed even if it is empty.
    #[inline]
    fn always(&mut self, key: Key, value: &[u8]) {
        self.key(key);
        push_json_string(self.out, value);
    }

    /// A string that is left out if it is empty.
    #[inline]
    fn text(&mut self, key: Key, value: &Text) {
        if !value.is_empty() {
            self.always(key, value.as_bytes());
        }
    }

    /// A number that is left out if it is 0.
    fn number(&mut self, key: Key, value: i64) {
        if value != 0 {
            self.key(key);
            push_number(self.out, value);
        }
    }

    fn object(&mut self, fill: impl FnOnce(&mut Members<'_>)) {
        self.out.push(b'{');
        fill(&mut Members {
            out: self.out,
            first: true,
        });
        self.out.push(b'}');
    }
}

fn push_strings(out: &mut Vec<u8>, values: &[Text]) {
    out.push(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_json_string(out, value.as_bytes());
    }
    out.push(b']');
}

/// The last two decimal digits.
pub(crate) fn two_digits(value: u32) -> [u8; 2] {
    let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or_default();
    [digit(value / 10), digit(value)]
}

fn push_number(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_padded(out, value.unsigned_abs(), 1);
}

/// Decimal digits, with leading zeros up to `width`.
pub(crate) fn push_padded(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        if value == 0 && used >= width {
            break;
        }
        *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
        used += 1;
    }
    out.extend(digits.iter().skip(20 - used));
}

impl UserInfo {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut members = Members { out, first: true };
        members.text(key!("username"), &self.username);
        members.text(key!("uid"), &self.uid);
        if let Some(groups) = self.groups.as_deref()
            && !groups.is_empty()
        {
            members.key(key!("groups"));
            push_strings(members.out, groups);
        }
        if !self.extra.is_empty() {
            members.key(key!("extra"));
            members.out.push(b'{');
            let mut map = Members {
                out: members.out,
                first: true,
            };
            in_order(&self.extra, |key, values| {
                map.name(key.as_bytes());
                match values {
                    None => map.out.extend_from_slice(b"null"),
                    Some(values) => push_strings(map.out, values),
                }
            });
            members.out.push(b'}');
        }
        out.push(b'}');
    }
}

impl ObjectReference {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut members = Members { out, first: true };
        members.text(key!("resource"), &self.resource);
        members.text(key!("namespace"), &self.namespace);
        members.text(key!("name"), &self.name);
        members.text(key!("uid"), &self.uid);
        members.text(key!("apiGroup"), &self.api_group);
        members.text(key!("apiVersion"), &self.api_version);
        members.text(key!("resourceVersion"), &self.resource_version);
        members.text(key!("subresource"), &self.subresource);
        out.push(b'}');
    }
}

impl Status {
    /// Appends the object as compact JSON, as it stands in an event's `responseStatus`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write(out);
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut members = Members { out, first: true };
        members.text(key!("kind"), &self.kind);
        members.text(key!("apiVersion"), &self.api_version);
        members.key(key!("metadata"));
        self.metadata.write(members.out);
        members.text(key!("status"), &self.status);
        members.text(key!("message"), &self.message);
        members.text(key!("reason"), &self.reason);
        if let Some(details) = &self.details {
            members.key(key!("details"));
            details.write(members.out);
        }
        members.number(key!("code"), i64::from(self.code));
        out.push(b'}');
    }
}

impl ListMeta {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut members = Members { out, first: true };
        members.text(key!("selfLink"), &self.self_link);
        members.text(key!("resourceVersion"), &self.resource_version);
        members.text(key!("continue"), &self.continue_token);
        if let Some(count) = self.remaining_item_count {
            members.key(key!("remainingItemCount"));
            push_number(members.out, count);
        }
        if let Some(shard) = &self.shard_info {
            members.key(key!("shardInfo"));
            members.object(|info| info.always(key!("selector"), shard.selector.as_bytes()));
        }
        out.push(b'}');
    }
}

impl StatusDetails {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut members = Members { out, first: true };
        members.text(key!("name"), &self.name);
        members.text(key!("group"), &self.group);
        members.text(key!("kind"), &self.kind);
        members.text(key!("uid"), &self.uid);
        if !self.causes.is_empty() {
            members.key(key!("causes"));
            for (index, cause) in self.causes.iter().enumerate() {
                members.out.push(if index == 0 { b'[' } else { b',' });
                members.object(|inner| {
                    inner.text(key!("reason"), &cause.reason);
                    inner.text(key!("message"), &cause.message);
                    inner.text(key!("field"), &cause.field);
                });
            }
            members.out.push(b']');
        }
        members.number(key!("retryAfterSeconds"), i64::from(self.retry_after_seconds));
        out.push(b'}');
    }
}

impl Unknown {
    /// Source: k8s.io/apimachinery pkg/runtime/extension.go and types.go, Unknown.MarshalJSON.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        if !self.content_type.is_empty() && self.content_type != "application/json" {
            return Err(BodyError::NotJson);
        }
        match &self.raw {
            None => {
                out.extend_from_slice(b"null");
                Ok(())
            }
            Some(raw) => compact::push_compact(out, raw),
        }
    }
}

/// UTC with six fraction digits, as in JSON.
impl fmt::Display for MicroTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut quoted = Vec::with_capacity(32);
        self.write_quoted(&mut quoted);
        f.write_str(String::from_utf8_lossy(&quoted).trim_matches('"'))
    }
}

impl MicroTime {
    /// UTC with six fraction digits, or `null` for the zero time.
    ///
    /// Source: k8s.io/apimachinery pkg/apis/meta/v1/micro_time.go, MarshalJSON.
    fn write(self, out: &mut Vec<u8>) {
        if self.is_zero() {
            out.extend_from_slice(b"null");
        } else {
            self.write_quoted(out);
        }
    }

    fn write_quoted(self, out: &mut Vec<u8>) {
        let micros = self.nanos / 1000;
        match Civil::from_unix(self.unix_seconds).digits() {
            Some(seconds) => {
                let mut text = *b"\"0000-00-00T00:00:00.000000Z\"";
                text[1..20].copy_from_slice(&seconds);
                text[21..23].copy_from_slice(&two_digits(micros / 10_000));
                text[23..25].copy_from_slice(&two_digits(micros / 100 % 100));
                text[25..27].copy_from_slice(&two_digits(micros % 100));
                out.extend_from_slice(&text);
            }
            None => {
                out.push(b'"');
                Civil::from_unix(self.unix_seconds).push(out);
                out.push(b'.');
                push_padded(out, u64::from(micros), 6);
                out.extend_from_slice(b"Z\"");
            }
        }
    }
}
