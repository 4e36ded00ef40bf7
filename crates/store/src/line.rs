//! A log line taken apart in one pass, where it stands as the encoder writes it.
//!
//! Nothing here is trusted: [`columns`](crate::columns) puts every event together again and compares.

use std::borrow::Cow;

/// The parts of a line. Texts are as they stand between their quotes; JSON values as they stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line<'a> {
    pub(crate) level: &'a str,
    pub(crate) audit_id: &'a str,
    pub(crate) stage: &'a str,
    pub(crate) request_uri: &'a str,
    pub(crate) verb: &'a str,
    pub(crate) user: User<'a>,
    pub(crate) impersonated: Option<User<'a>>,
    pub(crate) authentication: Option<&'a str>,
    pub(crate) source_ips: Option<&'a str>,
    pub(crate) user_agent: Option<&'a str>,
    /// resource, namespace, name, uid, apiGroup, apiVersion, resourceVersion, subresource.
    pub(crate) object: [Option<&'a str>; 8],
    pub(crate) response: Response<'a>,
    pub(crate) request_object: Option<&'a str>,
    pub(crate) response_object: Option<&'a str>,
    pub(crate) received: Option<i64>,
    pub(crate) stage_time: Option<i64>,
    pub(crate) annotations: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct User<'a> {
    pub(crate) username: Option<&'a str>,
    pub(crate) uid: Option<&'a str>,
    pub(crate) groups: Option<&'a str>,
    pub(crate) extra: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Response<'a> {
    pub(crate) kind: Option<&'a str>,
    pub(crate) api_version: Option<&'a str>,
    /// Unless it is `{}`.
    pub(crate) metadata: Option<&'a str>,
    pub(crate) status: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) details: Option<&'a str>,
    pub(crate) code: Option<i32>,
}

/// What every line begins with.
pub(crate) const HEAD: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"#;

/// The keys of `objectRef` in their order.
pub(crate) const OBJECT_KEYS: [&str; 8] = [
    "\"resource\":",
    "\"namespace\":",
    "\"name\":",
    "\"uid\":",
    "\"apiGroup\":",
    "\"apiVersion\":",
    "\"resourceVersion\":",
    "\"subresource\":",
];

impl<'a> Line<'a> {
    /// Takes a line apart; `None` where a field is missing, out of order or of another type.
    pub(crate) fn scan(text: &'a str) -> Option<Self> {
        let mut scan = Scan {
            rest: text.strip_prefix(HEAD)?,
        };
        let mut line = Self {
            level: scan.string()?,
            audit_id: scan.always(",\"auditID\":")?,
            stage: scan.always(",\"stage\":")?,
            request_uri: scan.always(",\"requestURI\":")?,
            verb: scan.always(",\"verb\":")?,
            ..Self::default()
        };
        scan.token(",\"user\":")?;
        line.user = scan.user()?;
        if scan.has(",\"impersonatedUser\":") {
            line.impersonated = Some(scan.user()?);
        }
        if scan.has(",\"authenticationMetadata\":") {
            line.authentication = Some(scan.object()?);
        }
        if scan.has(",\"sourceIPs\":") {
            line.source_ips = Some(scan.array()?);
        }
        if scan.has(",\"userAgent\":") {
            line.user_agent = Some(scan.string()?);
        }
        if scan.has(",\"objectRef\":") {
            scan.token("{")?;
            let mut first = true;
            for (key, value) in OBJECT_KEYS.into_iter().zip(&mut line.object) {
                *value = scan.member(key, &mut first, Scan::string)?;
            }
            scan.token("}")?;
        }
        if scan.has(",\"responseStatus\":") {
            line.response = scan.response()?;
        }
        if scan.has(",\"requestObject\":") {
            line.request_object = Some(scan.value()?);
        }
        if scan.has(",\"responseObject\":") {
            line.response_object = Some(scan.value()?);
        }
        scan.token(",\"requestReceivedTimestamp\":")?;
        line.received = scan.time()?;
        scan.token(",\"stageTimestamp\":")?;
        line.stage_time = scan.time()?;
        if scan.has(",\"annotations\":") {
            line.annotations = Some(scan.object()?);
        }
        (scan.rest == "}").then_some(line)
    }
}

/// The texts of a list as they stand between their quotes; ends early at anything else.
pub(crate) fn texts(array: &str) -> impl Iterator<Item = Option<&str>> {
    let mut scan = Scan {
        rest: array.strip_prefix('[').unwrap_or_default(),
    };
    let mut ended = scan.has("]");
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let text = scan.string();
        ended = text.is_none() || !scan.has(",");
        Some(text)
    })
}

/// The members of a map from text to text, as [`texts`].
pub(crate) fn pairs(object: &str) -> impl Iterator<Item = Option<(&str, &str)>> {
    let mut scan = Scan {
        rest: object.strip_prefix('{').unwrap_or_default(),
    };
    let mut ended = scan.has("}");
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let pair = scan
            .string()
            .and_then(|key| scan.token(":").map(|()| key))
            .and_then(|key| Some((key, scan.string()?)));
        ended = pair.is_none() || !scan.has(",");
        Some(pair)
    })
}

/// A text from between its quotes without its escapes; `None` for escapes that the encoder does not write
/// or that stand for no character.
pub(crate) fn unescaped(inner: &str) -> Option<Cow<'_, str>> {
    let Some(first) = memchr::memchr(b'\\', inner.as_bytes()) else {
        return Some(Cow::Borrowed(inner));
    };
    let (plain, mut rest) = inner.split_at_checked(first)?;
    let mut out = String::with_capacity(inner.len());
    out.push_str(plain);
    while let Some(escape) = rest.strip_prefix('\\') {
        let (char, length) = match escape.as_bytes() {
            [b'"', ..] => ('"', 1),
            [b'\\', ..] => ('\\', 1),
            [b'b', ..] => ('\u{8}', 1),
            [b'f', ..] => ('\u{c}', 1),
            [b'n', ..] => ('\n', 1),
            [b'r', ..] => ('\r', 1),
            [b't', ..] => ('\t', 1),
            [b'u', ..] => {
                let code = u32::from_str_radix(escape.get(1..5)?, 16).ok()?;
                // The escape of U+FFFD stands for a stray byte.
                (char::from_u32(code).filter(|char| *char != '\u{fffd}')?, 5)
            }
            _ => return None,
        };
        out.push(char);
        let after = escape.get(length..)?;
        let plain = memchr::memchr(b'\\', after.as_bytes()).unwrap_or(after.len());
        let (plain, next) = after.split_at_checked(plain)?;
        out.push_str(plain);
        rest = next;
    }
    Some(Cow::Owned(out))
}

struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    #[inline(always)]
    fn has(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn token(&mut self, token: &str) -> Option<()> {
        self.has(token).then_some(())
    }

    fn always(&mut self, key: &str) -> Option<&'a str> {
        self.token(key)?;
        self.string()
    }

    fn advance(&mut self, length: usize) -> Option<&'a str> {
        let (passed, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(passed)
    }

    fn string(&mut self) -> Option<&'a str> {
        let length = string_len(self.rest.as_bytes())?;
        let quoted = self.advance(length)?;
        quoted.get(1..length - 1)
    }

    fn value(&mut self) -> Option<&'a str> {
        let value = self.advance(value_len(self.rest.as_bytes())?)?;
        (value != "null").then_some(value)
    }

    fn object(&mut self) -> Option<&'a str> {
        self.value().filter(|value| value.starts_with('{'))
    }

    fn array(&mut self) -> Option<&'a str> {
        self.value().filter(|value| value.starts_with('['))
    }

    /// A member that may be absent: `Some(None)`.
    #[expect(
        clippy::option_option,
        reason = "the outer one is the scan's failure, the inner one absence"
    )]
    fn member<T>(
        &mut self,
        key: &str,
        first: &mut bool,
        value: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        let at = if *first {
            Some(self.rest)
        } else {
            self.rest.strip_prefix(',')
        };
        match at.and_then(|rest| rest.strip_prefix(key)) {
            Some(rest) => {
                self.rest = rest;
                *first = false;
                value(self).map(Some)
            }
            None => Some(None),
        }
    }

    fn user(&mut self) -> Option<User<'a>> {
        self.token("{")?;
        let mut first = true;
        let user = User {
            username: self.member("\"username\":", &mut first, Self::string)?,
            uid: self.member("\"uid\":", &mut first, Self::string)?,
            groups: self.member("\"groups\":", &mut first, Self::array)?,
            extra: self.member("\"extra\":", &mut first, Self::object)?,
        };
        self.token("}")?;
        Some(user)
    }

    fn response(&mut self) -> Option<Response<'a>> {
        self.token("{")?;
        let mut first = true;
        let response = Response {
            kind: self.member("\"kind\":", &mut first, Self::string)?,
            api_version: self.member("\"apiVersion\":", &mut first, Self::string)?,
            metadata: self
                .member("\"metadata\":", &mut first, Self::object)?
                .filter(|metadata| *metadata != "{}"),
            status: self.member("\"status\":", &mut first, Self::string)?,
            message: self.member("\"message\":", &mut first, Self::string)?,
            reason: self.member("\"reason\":", &mut first, Self::string)?,
            details: self.member("\"details\":", &mut first, Self::object)?,
            code: self.member("\"code\":", &mut first, |scan| scan.value()?.parse().ok())?,
        };
        self.token("}")?;
        Some(response)
    }

    /// Microseconds since 1970, or `Some(None)` for `null`.
    #[expect(
        clippy::option_option,
        reason = "the outer one is the scan's failure, the inner one absence"
    )]
    fn time(&mut self) -> Option<Option<i64>> {
        if self.has("null") {
            return Some(None);
        }
        micros_of(self.string()?.as_bytes()).map(Some)
    }
}

/// Bytes of the string that `text` begins with, quotes included.
fn string_len(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        let rest = text.get(at..)?;
        let found = memchr::memchr2(b'"', b'\\', rest)?;
        if rest.get(found) == Some(&b'"') {
            return Some(at + found + 1);
        }
        at += found + 2;
    }
}

/// Bytes of the value that `text` begins with.
fn value_len(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => string_len(text),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut at = 0;
            loop {
                match text.get(at)? {
                    b'"' => at += string_len(text.get(at..)?)?,
                    b'{' | b'[' => {
                        depth += 1;
                        at += 1;
                    }
                    b'}' | b']' => {
                        depth -= 1;
                        at += 1;
                        if depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => at += 1,
                }
            }
        }
        _ => text.iter().position(|byte| matches!(byte, b',' | b'}' | b']')),
    }
}

/// Microseconds since 1970 of `2006-01-02T15:04:05.000000Z`, for the years 0 to 9999.
fn micros_of(text: &[u8]) -> Option<i64> {
    let text: &[u8; 27] = text.try_into().ok()?;
    let separators = [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'.'),
        (26, b'Z'),
    ];
    if separators.iter().any(|(at, byte)| text.get(*at) != Some(byte)) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        text.get(range)?.iter().try_fold(0_i64, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = crate::calendar::days_of(year, month, day);
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + number(20..26)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_loses_the_escapes_that_the_encoder_writes_and_no_others() {
        assert_eq!(unescaped("ab"), Some(Cow::Borrowed("ab")));
        assert_eq!(
            unescaped(r#"a\u0026b\"\\\n\u2028"#).as_deref(),
            Some("a&b\"\\\n\u{2028}")
        );
        for broken in [r"\ufffd", r"\ud83d\ude00", r"\/", r"\u12", "\\"] {
            assert_eq!(unescaped(broken), None, "{broken}");
        }
    }

    #[test]
    fn times_become_microseconds() {
        assert_eq!(micros_of(b"1970-01-01T00:00:01.000002Z"), Some(1_000_002));
        assert_eq!(
            micros_of(b"2026-01-02T03:04:05.000006Z"),
            Some(1_767_323_045_000_006)
        );
        assert_eq!(micros_of(b"2026-13-02T03:04:05.000006Z"), None);
        assert_eq!(micros_of(b"2026-01-02T03:04:05Z"), None);
    }
}
