//! Lines that stand as the encoder writes them, read without decoding.

use crate::decode::json::{Kind, Reading, Value};
use crate::decode::{parse_time, root};
use crate::encode::string_len_as_encoded;
use crate::encode::{HEAD, compact::compact_len};
use crate::view::{NAMES, at};
use crate::{DecodeError, Eid, Event, MicroTime};

/// An event whose text is, byte by byte, what the encoder writes for it: a log line, or an item of an
/// EventList without type meta. kube-apiserver writes no other.
///
/// Such a text needs no decoding to be hashed, compared or turned from an item into a line. Whatever has
/// another order of fields, blanks, other escapes or unknown fields is none, and is to be
/// [decoded](Event::from_item).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLine<'a> {
    /// From the value of `level` to the closing brace.
    rest: &'a [u8],
    level: &'a [u8],
    audit_id: &'a [u8],
    stage: &'a [u8],
    request_uri: &'a [u8],
    verb: &'a [u8],
    user: &'a [u8],
    received: MicroTime,
    stage_timestamp: MicroTime,
}

/// Texts that are quoted, as they stand between their quotes, with their escapes: since the encoder knows
/// one way to write a text, two are equal when their bytes are.
impl<'a> EventLine<'a> {
    /// Reads a line, with or without its final LF, or an item. `None` for every text that the encoder
    /// would not have written.
    #[must_use]
    pub fn scan(text: &'a [u8]) -> Option<Self> {
        let (values, rest) = values(text)?;
        let inner = |at: usize| -> Option<&'a [u8]> {
            let quoted = *values.get(at)?;
            quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")
        };
        let time = |at: usize| -> Option<MicroTime> {
            let value = *values.get(at)?;
            if value == b"null" {
                return Some(MicroTime::default());
            }
            parse_time(value.get(1..28)?).filter(|time| !time.is_zero())
        };
        Some(Self {
            rest,
            level: inner(at::LEVEL)?,
            audit_id: inner(at::AUDIT_ID)?,
            stage: inner(at::STAGE)?,
            request_uri: inner(at::REQUEST_URI)?,
            verb: inner(at::VERB)?,
            user: values.get(at::USER)?,
            received: time(at::RECEIVED)?,
            stage_timestamp: time(at::STAGE_TIME)?,
        })
    }

    /// What [`Eid::of`] gives for the event.
    #[must_use]
    pub fn eid(&self, key: &[u8; 32], cluster: &str) -> Eid {
        Eid::of_canonical(key, cluster, [ITEM_HEAD, self.rest])
    }

    /// Appends the log line without an LF.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        out.reserve(HEAD.len() + self.rest.len());
        out.extend_from_slice(HEAD);
        out.extend_from_slice(self.rest);
    }

    /// How much was recorded, quoted.
    #[must_use]
    pub const fn level(&self) -> &'a [u8] {
        self.level
    }

    /// The ID that the client chose or the server made, quoted.
    #[must_use]
    pub const fn audit_id(&self) -> &'a [u8] {
        self.audit_id
    }

    /// The stage, quoted.
    #[must_use]
    pub const fn stage(&self) -> &'a [u8] {
        self.stage
    }

    /// Path and query, quoted.
    #[must_use]
    pub const fn request_uri(&self) -> &'a [u8] {
        self.request_uri
    }

    /// The verb, quoted.
    #[must_use]
    pub const fn verb(&self) -> &'a [u8] {
        self.verb
    }

    /// Who asked, as a JSON object.
    #[must_use]
    pub const fn user(&self) -> &'a [u8] {
        self.user
    }

    /// When the request arrived.
    #[must_use]
    pub const fn received(&self) -> MicroTime {
        self.received
    }

    /// When the stage was reached.
    #[must_use]
    pub const fn stage_timestamp(&self) -> MicroTime {
        self.stage_timestamp
    }
}

/// The values of the members of a line or an item, in the order of [`NAMES`], and the text from the value of `level`
/// on. `None` for what the encoder would not have written, except that a time may be none that the calendar has.
pub(crate) fn values(text: &[u8]) -> Option<([&[u8]; NAMES.len()], &[u8])> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut values = [&b""[..]; NAMES.len()];
    let rest = match text.strip_prefix(HEAD) {
        Some(rest) => {
            values[at::KIND] = text.get(HEAD_KIND)?;
            values[at::API_VERSION] = text.get(HEAD_API_VERSION)?;
            rest
        }
        None => text.strip_prefix(ITEM_HEAD)?,
    };
    let mut scan = Scan { rest };
    values[at::LEVEL] = scan.spanned(|scan| scan.string().map(drop))?;
    values[at::AUDIT_ID] = scan.always(b",\"auditID\":")?;
    values[at::STAGE] = scan.always(b",\"stage\":")?;
    values[at::REQUEST_URI] = scan.always(b",\"requestURI\":")?;
    values[at::VERB] = scan.always(b",\"verb\":")?;
    scan.token(b",\"user\":")?;
    values[at::USER] = scan.spanned(Scan::user)?;
    if scan.has(b",\"impersonatedUser\":") {
        values[at::IMPERSONATED_USER] = scan.spanned(Scan::user)?;
    }
    if scan.has(b",\"authenticationMetadata\":") {
        values[at::AUTHENTICATION_METADATA] =
            scan.spanned(|scan| scan.object(|members| members.text(b"\"impersonationConstraint\":")))?;
    }
    if scan.has(b",\"sourceIPs\":") {
        values[at::SOURCE_IPS] = scan.spanned(Scan::strings)?;
    }
    if scan.has(b",\"userAgent\":") {
        values[at::USER_AGENT] = scan.spanned(|scan| scan.some_string().map(drop))?;
    }
    if scan.has(b",\"objectRef\":") {
        values[at::OBJECT_REF] = scan
            .spanned(|scan| scan.object(|members| OBJECT_REF.iter().try_for_each(|key| members.text(key))))?;
    }
    if scan.has(b",\"responseStatus\":") {
        values[at::RESPONSE_STATUS] = scan.spanned(Scan::status)?;
    }
    if scan.has(b",\"requestObject\":") {
        values[at::REQUEST_OBJECT] = scan.advance(compact_len(scan.rest)?)?;
    }
    if scan.has(b",\"responseObject\":") {
        values[at::RESPONSE_OBJECT] = scan.advance(compact_len(scan.rest)?)?;
    }
    scan.token(b",\"requestReceivedTimestamp\":")?;
    values[at::RECEIVED] = scan.time()?;
    scan.token(b",\"stageTimestamp\":")?;
    values[at::STAGE_TIME] = scan.time()?;
    if scan.has(b",\"annotations\":") {
        values[at::ANNOTATIONS] = scan.spanned(|scan| scan.map(Scan::string))?;
    }
    (scan.rest == b"}").then_some((values, rest))
}

/// Where the values stand in [`HEAD`].
const HEAD_KIND: std::ops::Range<usize> = 8..15;
const HEAD_API_VERSION: std::ops::Range<usize> = 29..46;

impl Event {
    /// Decodes an event that another program wrote: `audit.k8s.io/v1` or the older `audit.k8s.io/v1beta1`,
    /// whose fields are the same, or an item of a list, which says neither kind nor version.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else.
    pub fn from_item(text: &[u8]) -> Result<Self, DecodeError> {
        let root = item(text)?;
        let mut event = Self::default();
        crate::decode::into_event(root, &mut event)?;
        Ok(event)
    }
}

/// The log line, without an LF, of an event as [`Event::from_item`] takes it: its own members in their
/// own bytes and order behind `kind` and `apiVersion` of `audit.k8s.io/v1`. Line breaks between members
/// become spaces.
///
/// # Errors
///
/// [`DecodeError`] as [`Event::from_item`].
pub fn log_line_of_item(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let root = item(text)?;
    let mut line = Vec::with_capacity(root.raw().len() + HEAD.len());
    line.extend_from_slice(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1""#);
    for (key, value) in root.raw_members() {
        if matches!(&*key.unescaped(), b"kind" | b"apiVersion") {
            continue;
        }
        line.push(b',');
        line.extend_from_slice(key.raw());
        line.push(b':');
        line.extend_from_slice(value.raw());
    }
    line.push(b'}');
    // A string of JSON holds no line break, so these stand between members.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    Ok(line)
}

fn item(text: &[u8]) -> Result<Value<'_>, DecodeError> {
    let root = root(text, Reading::Inverse)?;
    let (mut kind, mut version) = (None, None);
    for (key, value) in root.members() {
        match &*key {
            b"kind" => kind = Some(value),
            b"apiVersion" => version = Some(value),
            _ => {}
        }
    }
    let is = |value: Option<Value<'_>>, known: &[&[u8]]| {
        value.is_none_or(|value| {
            let text = value.unescaped();
            matches!(value.kind(), Kind::String | Kind::Null)
                && (text.is_empty() || known.iter().any(|known| *known == &*text))
        })
    };
    if is(kind, &[b"Event"]) && is(version, &[b"audit.k8s.io/v1", b"audit.k8s.io/v1beta1"]) {
        return Ok(root);
    }
    let shown = |value: Option<Value<'_>>| crate::go_quoted(&value.map(Value::unescaped).unwrap_or_default());
    Err(DecodeError::OtherKind {
        kind: shown(kind),
        version: shown(version),
    })
}

const ITEM_HEAD: &[u8] = br#"{"level":"#;

const OBJECT_REF: [&[u8]; 8] = [
    b"\"resource\":",
    b"\"namespace\":",
    b"\"name\":",
    b"\"uid\":",
    b"\"apiGroup\":",
    b"\"apiVersion\":",
    b"\"resourceVersion\":",
    b"\"subresource\":",
];

/// What is left of the text. Each method passes over one thing, and gives `None` when the encoder would
/// have written another.
struct Scan<'a> {
    rest: &'a [u8],
}

/// The inside of an object.
struct Members<'s, 'a> {
    scan: &'s mut Scan<'a>,
    first: bool,
}

impl<'a> Scan<'a> {
    fn advance(&mut self, length: usize) -> Option<&'a [u8]> {
        let (passed, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(passed)
    }

    #[inline(always)]
    fn has(&mut self, token: &[u8]) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn token(&mut self, token: &[u8]) -> Option<()> {
        self.has(token).then_some(())
    }

    /// A member that is always there; its string with the quotes.
    #[inline(always)]
    fn always(&mut self, key: &[u8]) -> Option<&'a [u8]> {
        self.token(key)?;
        self.spanned(|scan| scan.string().map(drop))
    }

    /// What `pass` passes over.
    fn spanned(&mut self, pass: impl FnOnce(&mut Self) -> Option<()>) -> Option<&'a [u8]> {
        let before = self.rest;
        pass(self)?;
        before.get(..before.len() - self.rest.len())
    }

    /// A string; what is between its quotes.
    #[inline(always)]
    fn string(&mut self) -> Option<&'a [u8]> {
        let inner = self.rest.strip_prefix(b"\"")?;
        let (text, rest) = inner.split_at_checked(string_len_as_encoded(inner)?)?;
        self.rest = rest.strip_prefix(b"\"")?;
        Some(text)
    }

    fn some_string(&mut self) -> Option<&'a [u8]> {
        self.string().filter(|text| !text.is_empty())
    }

    /// A list of strings that is not empty.
    fn strings(&mut self) -> Option<()> {
        self.token(b"[")?;
        loop {
            self.string()?;
            if self.has(b"]") {
                return Some(());
            }
            self.token(b",")?;
        }
    }

    fn object(&mut self, fill: impl FnOnce(&mut Members<'_, 'a>) -> Option<()>) -> Option<()> {
        self.token(b"{")?;
        fill(&mut Members {
            scan: self,
            first: true,
        })?;
        self.token(b"}")
    }

    /// A map that is not empty, in the bytewise order of its keys.
    fn map<T>(&mut self, mut value: impl FnMut(&mut Self) -> Option<T>) -> Option<()> {
        self.token(b"{")?;
        let mut last: Option<&[u8]> = None;
        loop {
            let quoted = self.spanned(|scan| scan.string().map(drop))?;
            if last.is_some_and(|last| !in_order(last, quoted)) {
                return None;
            }
            last = Some(quoted);
            self.token(b":")?;
            value(self)?;
            if self.has(b"}") {
                return Some(());
            }
            self.token(b",")?;
        }
    }

    fn user(&mut self) -> Option<()> {
        self.object(|members| {
            members.text(b"\"username\":")?;
            members.text(b"\"uid\":")?;
            if members.key(b"\"groups\":") {
                members.scan.strings()?;
            }
            if members.key(b"\"extra\":") {
                members.scan.map(|scan| {
                    if scan.has(b"null") || scan.has(b"[]") {
                        return Some(());
                    }
                    scan.strings()
                })?;
            }
            Some(())
        })
    }

    fn status(&mut self) -> Option<()> {
        self.object(|members| {
            members.text(b"\"kind\":")?;
            members.text(b"\"apiVersion\":")?;
            if !members.key(b"\"metadata\":") {
                return None;
            }
            members.scan.list_meta()?;
            members.text(b"\"status\":")?;
            members.text(b"\"message\":")?;
            members.text(b"\"reason\":")?;
            if members.key(b"\"details\":") {
                members.scan.details()?;
            }
            members.number(b"\"code\":", i64::from(i32::MIN), i64::from(i32::MAX))
        })
    }

    fn list_meta(&mut self) -> Option<()> {
        self.object(|members| {
            members.text(b"\"selfLink\":")?;
            members.text(b"\"resourceVersion\":")?;
            members.text(b"\"continue\":")?;
            // Rare enough that the decoder may look at it.
            (!members.key(b"\"remainingItemCount\":") && !members.key(b"\"shardInfo\":")).then_some(())
        })
    }

    fn details(&mut self) -> Option<()> {
        self.object(|members| {
            members.text(b"\"name\":")?;
            members.text(b"\"group\":")?;
            members.text(b"\"kind\":")?;
            members.text(b"\"uid\":")?;
            if members.key(b"\"causes\":") {
                members.scan.causes()?;
            }
            members.number(
                b"\"retryAfterSeconds\":",
                i64::from(i32::MIN),
                i64::from(i32::MAX),
            )
        })
    }

    fn causes(&mut self) -> Option<()> {
        self.token(b"[")?;
        loop {
            self.object(|cause| {
                cause.text(b"\"reason\":")?;
                cause.text(b"\"message\":")?;
                cause.text(b"\"field\":")
            })?;
            if self.has(b"]") {
                return Some(());
            }
            self.token(b",")?;
        }
    }

    /// A time in UTC with six digits of fraction, with its quotes, or `null`. Whether the calendar has it is not
    /// looked at.
    fn time(&mut self) -> Option<&'a [u8]> {
        if self.rest.starts_with(b"null") {
            return self.advance(4);
        }
        let quoted = self.advance(29)?;
        let form = b"\"0000-00-00T00:00:00.000000Z\"";
        let is_formed = quoted.iter().zip(form).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte == form,
        });
        is_formed.then_some(quoted)
    }
}

impl Members<'_, '_> {
    fn key(&mut self, key: &[u8]) -> bool {
        let rest = self.scan.rest;
        let at = if self.first {
            Some(rest)
        } else {
            rest.strip_prefix(b",")
        };
        match at.and_then(|rest| rest.strip_prefix(key)) {
            Some(rest) => {
                self.scan.rest = rest;
                self.first = false;
                true
            }
            None => false,
        }
    }

    /// A text that is left out when it is empty.
    fn text(&mut self, key: &[u8]) -> Option<()> {
        if self.key(key) {
            self.scan.some_string()?;
        }
        Some(())
    }

    /// A number that is left out when it is 0.
    fn number(&mut self, key: &[u8], least: i64, most: i64) -> Option<()> {
        if !self.key(key) {
            return Some(());
        }
        let length = self
            .scan
            .rest
            .iter()
            .take_while(|byte| matches!(byte, b'-' | b'0'..=b'9'))
            .count();
        let text = std::str::from_utf8(self.scan.advance(length)?).ok()?;
        let number: i64 = text.parse().ok()?;
        let as_written = !text.starts_with(['0', '+']) && !text.starts_with("-0");
        (as_written && (least..=most).contains(&number)).then_some(())
    }
}

/// Whether `next` is printed after `last`, both with their quotes.
fn in_order(last: &[u8], next: &[u8]) -> bool {
    if memchr::memchr(b'\\', last).is_none() && memchr::memchr(b'\\', next).is_none() {
        // The closing quote would decide between a key and a longer one.
        return last.split_last().map(|(_, key)| key) < next.split_last().map(|(_, key)| key);
    }
    let value = |quoted| Value::new(quoted, Reading::Inverse).unescaped();
    value(last) < value(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces?limit=500\u0026x=1","verb":"list","user":{"username":"admin","groups":["a","b"],"extra":{"k":["v"],"l":null}},"sourceIPs":["10.0.0.1"],"userAgent":"kubectl","objectRef":{"resource":"namespaces","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestObject":{"a":[1,2.50,"x y"]},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.000007Z","annotations":{"a":"b","c":"d"}}"#;

    #[test]
    fn a_line_of_the_encoder_is_read_and_has_the_id_of_its_event() {
        let line = EventLine::scan(LINE.as_bytes()).unwrap();
        assert_eq!(line.audit_id(), b"a-1");
        assert_eq!(line.request_uri(), br"/api/v1/namespaces?limit=500\u0026x=1");
        assert_eq!(line.user().first(), Some(&b'{'));
        let event = Event::from_json_line(LINE.as_bytes()).unwrap();
        assert_eq!(line.stage_timestamp(), event.stage_timestamp);
        assert_eq!(line.received(), event.request_received_timestamp);
        assert_eq!(line.eid(&[7; 32], "c"), Eid::of(&[7; 32], "c", &event).unwrap());
        let item = format!("{{{}", LINE.split_once("v1\",").unwrap().1);
        let item = EventLine::scan(item.as_bytes()).unwrap();
        let mut out = Vec::new();
        item.write_line(&mut out);
        assert_eq!(out, LINE.as_bytes());
    }

    #[test]
    fn what_the_encoder_writes_otherwise_is_refused() {
        for (from, to) in [
            ("\"verb\":\"list\"", "\"verb\": \"list\""),
            ("\\u0026", "&"),
            ("\\u0026", "\\/"),
            ("\\u0026", "\\u0041"),
            ("\\u0026", "\\u000a"),
            ("\"code\":200", "\"code\":0"),
            ("\"code\":200", "\"code\":0200"),
            ("\"code\":200", "\"code\":99999999999"),
            ("[\"10.0.0.1\"]", "[]"),
            ("\"userAgent\":\"kubectl\"", "\"userAgent\":\"\""),
            ("[1,2.50,", "[1, 2.50,"),
            ("x y", "x<y"),
            (".000006Z", ".000006+00:00"),
            (".000006Z", ",000006Z"),
            ("-01-02T03:04:05.000006", "-02-30T03:04:05.000006"),
            ("{\"a\":\"b\",\"c\":\"d\"}", "{\"c\":\"b\",\"a\":\"d\"}"),
            ("{\"a\":\"b\",\"c\":\"d\"}", "{\"a\":\"b\",\"a\":\"d\"}"),
            ("{\"a\":\"b\",\"c\":\"d\"}", "{}"),
            ("\"annotations\":{\"a\":\"b\",\"c\":\"d\"}}", "\"x\":1}"),
            ("d\"}}", "d\"}} "),
            ("d\"}}", "d\"}"),
        ] {
            assert!(LINE.contains(from), "{from}");
            let text = LINE.replacen(from, to, 1);
            assert_eq!(EventLine::scan(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_item_becomes_a_line_with_its_own_bytes() {
        let line =
            |text: &str| log_line_of_item(text.as_bytes()).map(|line| String::from_utf8(line).unwrap());
        assert_eq!(
            line("{ \"verb\" : \"get\",\n \"x\": {\"y\":\n1},\"apiVersion\":\"audit.k8s.io/v1beta1\",\"kind\":\"Event\"}")
                .unwrap(),
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","verb":"get","x":{"y": 1}}"#
        );
        assert!(matches!(
            line(r#"{"kind":"Pod","apiVersion":"v1"}"#),
            Err(DecodeError::OtherKind { .. })
        ));
        assert!(line("[]").is_err());
        let event = Event::from_item(br#"{"verb":"get","level":"Metadata"}"#).unwrap();
        assert_eq!(event.verb, "get");
    }
}
