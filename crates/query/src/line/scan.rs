//! The members of a line where they stand.

use memchr::{memchr2, memmem};

use super::{NeedsDecoding, Read, Stop, as_it_stands};
use crate::json::value_len;

/// The members before the bodies, as far as they were read. Strings are what stands between their quotes,
/// objects and lists stand with their brackets; what is not there, or was not read, is empty.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Front<'a> {
    pub(super) level: &'a [u8],
    pub(super) audit_id: &'a [u8],
    pub(super) stage: &'a [u8],
    pub(super) request_uri: &'a [u8],
    pub(super) verb: &'a [u8],
    pub(super) user: Option<&'a [u8]>,
    pub(super) impersonated: Option<&'a [u8]>,
    pub(super) constraint: Option<&'a [u8]>,
    pub(super) source_ips: Option<&'a [u8]>,
    pub(super) user_agent: &'a [u8],
    pub(super) object_ref: Option<&'a [u8]>,
    pub(super) response_status: Option<&'a [u8]>,
}

const HEAD: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"#;

impl<'a> Front<'a> {
    /// Reads up to the member that `stop` names. `None` for another form.
    pub(super) fn read(line: &'a [u8], stop: Stop) -> Option<Self> {
        let mut rest = Rest(line.strip_prefix(HEAD)?);
        let mut front = Self {
            level: rest.string()?,
            ..Self::default()
        };
        if stop <= Stop::Level {
            return Some(front);
        }
        front.audit_id = rest.always(b",\"auditID\":")?;
        if stop <= Stop::AuditId {
            return Some(front);
        }
        front.stage = rest.always(b",\"stage\":")?;
        if stop <= Stop::Stage {
            return Some(front);
        }
        front.request_uri = rest.always(b",\"requestURI\":")?;
        if stop <= Stop::RequestUri {
            return Some(front);
        }
        front.verb = rest.always(b",\"verb\":")?;
        if stop <= Stop::Verb {
            return Some(front);
        }
        front.user = Some(rest.member(b",\"user\":", b'{')??);
        if stop <= Stop::User {
            return Some(front);
        }
        front.impersonated = rest.member(b",\"impersonatedUser\":", b'{')?;
        if stop <= Stop::Impersonated {
            return Some(front);
        }
        front.constraint = rest.member(b",\"authenticationMetadata\":", b'{')?;
        if stop <= Stop::Constraint {
            return Some(front);
        }
        front.source_ips = rest.member(b",\"sourceIPs\":", b'[')?;
        if stop <= Stop::SourceIps {
            return Some(front);
        }
        if let Some(after) = rest.0.strip_prefix(b",\"userAgent\":") {
            rest = Rest(after);
            front.user_agent = rest.string()?;
        }
        if stop <= Stop::UserAgent {
            return Some(front);
        }
        front.object_ref = rest.member(b",\"objectRef\":", b'{')?;
        if stop <= Stop::ObjectRef {
            return Some(front);
        }
        front.response_status = rest.member(b",\"responseStatus\":", b'{')?;
        // Nothing that is looked for may come later.
        let follows = [
            &b",\"requestObject\":"[..],
            b",\"responseObject\":",
            b",\"requestReceivedTimestamp\":",
        ];
        follows
            .iter()
            .any(|next| rest.0.starts_with(next))
            .then_some(front)
    }
}

/// What is left of a line.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A string; what is between its quotes.
    #[inline]
    fn string(&mut self) -> Option<&'a [u8]> {
        let inner = self.0.strip_prefix(b"\"")?;
        let length = string_len(inner)?;
        let (text, rest) = inner.split_at_checked(length)?;
        self.0 = rest.get(1..)?;
        Some(text)
    }

    fn always(&mut self, key: &[u8]) -> Option<&'a [u8]> {
        self.0 = self.0.strip_prefix(key)?;
        self.string()
    }

    /// The value of a member that may be missing, if it begins with `open`; `None` if it is another.
    #[expect(clippy::option_option, reason = "another form, a missing member, and a value")]
    fn member(&mut self, key: &[u8], open: u8) -> Option<Option<&'a [u8]>> {
        let Some(rest) = self.0.strip_prefix(key) else {
            return Some(None);
        };
        self.0 = rest;
        if rest.first() != Some(&open) {
            return None;
        }
        self.take(value_len(rest)?).map(Some)
    }
}

/// Bytes up to the quote that ends a string.
#[inline]
fn string_len(inner: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = inner.get(at..)?;
        let found = memchr2(b'"', b'\\', rest)?;
        if rest.get(found) == Some(&b'"') {
            return Some(at + found);
        }
        at += found + 2;
    }
}

/// The members of an object.
#[derive(Clone, Copy)]
pub(super) struct Members<'a>(Option<&'a [u8]>);

impl<'a> Members<'a> {
    pub(super) const fn of(object: Option<&'a [u8]>) -> Self {
        Self(object)
    }

    /// A member's value as it stands; `null` is none. A key with an escape may be any key.
    pub(super) fn value(self, key: &[u8]) -> Read<Option<&'a [u8]>> {
        let Some(object) = self.0 else {
            return Ok(None);
        };
        if object == b"{}" {
            return Ok(None);
        }
        let mut rest = Rest(object.strip_prefix(b"{").ok_or(NeedsDecoding)?);
        loop {
            let name = as_it_stands(rest.string().ok_or(NeedsDecoding)?)?;
            rest.0 = rest.0.strip_prefix(b":").ok_or(NeedsDecoding)?;
            let length = value_len(rest.0)
                .filter(|length| *length > 0)
                .ok_or(NeedsDecoding)?;
            let value = rest.take(length).ok_or(NeedsDecoding)?;
            if name == key {
                return Ok((value != b"null").then_some(value));
            }
            match rest.0 {
                b"}" => return Ok(None),
                [b',', after @ ..] => rest.0 = after,
                _ => return Err(NeedsDecoding),
            }
        }
    }

    /// The text of a member.
    pub(super) fn text(self, key: &[u8]) -> Read<Option<&'a [u8]>> {
        match self.value(key)? {
            None => Ok(None),
            Some([b'"', inner @ .., b'"']) => as_it_stands(inner).map(Some),
            Some(_) => Err(NeedsDecoding),
        }
    }

    /// The whole number of a member.
    pub(super) fn number(self, key: &[u8]) -> Read<Option<i64>> {
        match self.value(key)? {
            None => Ok(None),
            Some(value) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Some)
                .ok_or(NeedsDecoding),
        }
    }
}

/// The strings of a list, between their quotes. What is no string ends it with a text that has an escape,
/// so that it is decoded.
#[derive(Clone, Copy)]
pub(super) struct Strings<'a> {
    rest: &'a [u8],
}

impl<'a> Strings<'a> {
    pub(super) fn of(list: Option<&'a [u8]>) -> Self {
        let rest = match list {
            Some([b'[', inner @ .., b']']) => inner,
            Some(_) => b"?",
            None => b"",
        };
        Self { rest }
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let mut rest = Rest(self.rest);
        let text = rest.string();
        match (text, rest.0) {
            (Some(text), []) => {
                self.rest = b"";
                Some(text)
            }
            (Some(text), [b',', after @ ..]) => {
                self.rest = after;
                Some(text)
            }
            _ => {
                self.rest = b"";
                Some(b"\\")
            }
        }
    }
}

/// The members behind the bodies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tail<'a> {
    pub(super) received: Option<i64>,
    pub(super) stage: Option<i64>,
    pub(super) annotations: Option<&'a [u8]>,
}

const STAGE: &[u8] = b",\"stageTimestamp\":\"";
const RECEIVED: &[u8] = b",\"requestReceivedTimestamp\":\"";
const ANNOTATIONS: &[u8] = b",\"annotations\":";
const TIME_BYTES: usize = 27;

impl<'a> Tail<'a> {
    /// Reads from the end. A quote inside a string is escaped, so the key of `stageTimestamp` stands only
    /// where a key stands; the last one is the event's own if nothing but its annotations follows, since
    /// it follows the bodies.
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let (before, found) = line.split_at_checked(last(line)?)?;
        let mut rest = Rest(found.get(STAGE.len()..)?);
        let stage = time(rest.take(TIME_BYTES)?)?;
        rest.0 = rest.0.strip_prefix(b"\"")?;
        let annotations = match rest.0 {
            b"}" => None,
            after => {
                let object = after.strip_prefix(ANNOTATIONS)?.strip_suffix(b"}")?;
                if value_len(object)? != object.len() || object.first() != Some(&b'{') {
                    return None;
                }
                Some(object)
            }
        };
        let received = before.len().checked_sub(RECEIVED.len() + TIME_BYTES + 1)?;
        let received = before
            .get(received..)?
            .strip_prefix(RECEIVED)?
            .strip_suffix(b"\"")?;
        Some(Self {
            received: Some(time(received)?),
            stage: Some(stage),
            annotations,
        })
    }
}

/// Where the last key of `stageTimestamp` stands. Annotations are mostly short, so the end is searched
/// first.
fn last(line: &[u8]) -> Option<usize> {
    const NEAR: usize = 512;
    let from = line.len().saturating_sub(NEAR);
    let near = line.get(from..)?;
    let mut found = None;
    for at in memmem::find_iter(near, STAGE) {
        found = Some(from + at);
    }
    found.or_else(|| memmem::rfind(line, STAGE))
}

/// Microseconds since 1970 of `2026-11-22T00:00:00.758230Z`, and of no other form.
fn time(text: &[u8]) -> Option<i64> {
    let digits = |from: usize, length: usize| -> Option<i64> {
        text.get(from..from + length)?
            .iter()
            .try_fold(0, |number, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| number * 10 + i64::from(digit - b'0'))
            })
    };
    let separators = [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'.'),
        (26, b'Z'),
    ];
    if !separators.iter().all(|(at, byte)| text.get(*at) == Some(byte)) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    if !(1..=12).contains(&month) || !is_day(year, month, day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970-01-01, in years that begin in March, so that a leap day comes last.
    let from_march = year - i64::from(month <= 2);
    let era = from_march.div_euclid(400);
    let year_of_era = from_march.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds * 1_000_000 + digits(20, 6)?)
}

const fn is_day(year: i64, month: i64, day: i64) -> bool {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    1 <= day && day <= last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(b"1970-01-01T00:00:00.000001Z"), Some(1));
        assert_eq!(time(b"2024-02-29T23:59:59.999999Z"), Some(1_709_251_199_999_999));
        assert_eq!(time(b"2023-02-29T00:00:00.000000Z"), None);
        assert_eq!(time(b"2023-02-28T24:00:00.000000Z"), None);
        assert_eq!(time(b"2023-02-28T00:00:00,000000Z"), None);
    }

    #[test]
    fn a_tail_is_the_events_own() {
        let times = br#","requestReceivedTimestamp":"1970-01-01T00:00:00.000001Z","stageTimestamp":"1970-01-01T00:00:00.000003Z""#;
        let line = |before: &str, after: &str| [before.as_bytes(), times, after.as_bytes()].concat();
        let tail = |line: &[u8]| {
            Tail::read(line).map(|tail| (tail.received, tail.stage, tail.annotations.map(<[u8]>::len)))
        };
        assert_eq!(tail(&line("{", "}")), Some((Some(1), Some(3), None)));
        assert_eq!(
            tail(&line("{", r#","annotations":{"a":"b"}}"#)),
            Some((Some(1), Some(3), Some(9)))
        );
        assert_eq!(
            tail(&line("{", r#"},"x":{}}"#)),
            None,
            "a body that looks like an event"
        );
        assert_eq!(
            tail(&line(
                "{",
                r#","annotations":{"a":"b","stageTimestamp":"1970-01-01T00:00:00.000003Z"}}"#
            )),
            None
        );
        assert_eq!(tail(br#"{"stageTimestamp":null}"#), None);
    }
}
