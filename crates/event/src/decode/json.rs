//! Values of a JSON text that is known to be valid: read where they stand, without a tree and without
//! recursion.

use std::borrow::Cow;

use memchr::memchr2;

/// One value with its own bytes, without blanks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    raw: &'a [u8],
    reading: Reading,
}

/// What becomes of bytes that are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As Go reads: each stray byte is U+FFFD, and so is the escape `\ufffd`.
    Go,
    /// Backwards what the encoder wrote: it writes the escape `\ufffd` for a stray byte and for nothing
    /// else, so the escape is a stray byte, and stray bytes stay.
    Inverse,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl<'a> Value<'a> {
    /// `text` must be one valid JSON value without blanks around it.
    pub(crate) const fn new(raw: &'a [u8], reading: Reading) -> Self {
        Self { raw, reading }
    }

    pub(crate) const fn raw(self) -> &'a [u8] {
        self.raw
    }

    pub(crate) const fn reading(self) -> Reading {
        self.reading
    }

    pub(crate) fn kind(self) -> Kind {
        match self.raw.first() {
            Some(b'"') => Kind::String,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// The members of an object, in order; none of anything else.
    pub(crate) fn members(self) -> impl Iterator<Item = (Cow<'a, [u8]>, Self)> {
        self.raw_members().map(|(key, value)| (key.unescaped(), value))
    }

    /// The same with the keys as they stand.
    pub(crate) fn raw_members(self) -> impl Iterator<Item = (Self, Self)> {
        let mut cursor = Cursor::inside(self, Kind::Object);
        std::iter::from_fn(move || Some((cursor.next()?, cursor.next()?)))
    }

    /// The items of an array, in order; none of anything else.
    pub(crate) fn items(self) -> impl Iterator<Item = Self> {
        let mut cursor = Cursor::inside(self, Kind::Array);
        std::iter::from_fn(move || cursor.next())
    }

    /// The text of a string, as Go decodes it; empty for anything else.
    pub(crate) fn unescaped(self) -> Cow<'a, [u8]> {
        let [b'"', inner @ .., b'"'] = self.raw else {
            return Cow::Borrowed(b"");
        };
        let is_plain = memchr::memchr(b'\\', inner).is_none();
        if is_plain && (self.reading == Reading::Inverse || std::str::from_utf8(inner).is_ok()) {
            return Cow::Borrowed(inner);
        }
        Cow::Owned(unescape(inner, self.reading))
    }
}

/// Reads one value after another, passing over separators.
struct Cursor<'a> {
    rest: &'a [u8],
    reading: Reading,
}

impl<'a> Cursor<'a> {
    fn inside(value: Value<'a>, kind: Kind) -> Self {
        let rest = match value.raw {
            [_, inner @ .., _] if value.kind() == kind => inner,
            _ => b"",
        };
        let reading = value.reading;
        Self { rest, reading }
    }

    fn next(&mut self) -> Option<Value<'a>> {
        while let [b' ' | b'\t' | b'\r' | b'\n' | b',' | b':', rest @ ..] = self.rest {
            self.rest = rest;
        }
        let length = value_len(self.rest)?;
        let (value, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Value::new(value, self.reading))
    }
}

/// Bytes of the value that `text` begins with; `None` at the end.
pub(crate) fn value_len(text: &[u8]) -> Option<usize> {
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
                    _ => {
                        let rest = text.get(at..)?;
                        at += rest
                            .iter()
                            .position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
                    }
                }
            }
        }
        _ => Some(
            text.iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
                .unwrap_or(text.len()),
        ),
    }
}

/// Bytes of the string that `text` begins with, quotes included.
fn string_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        let rest = text.get(at..)?;
        let found = memchr2(b'"', b'\\', rest)?;
        if rest.get(found) == Some(&b'"') {
            return Some(at + found + 1);
        }
        at += found + 2;
    }
}

/// Source: Go 1.26 encoding/json decode.go, unquoteBytes: lone surrogates and each byte that is not
/// UTF-8 become U+FFFD.
fn unescape(inner: &[u8], reading: Reading) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(plain) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at_checked(plain).unwrap_or((rest, b""));
        push_plain(&mut out, before, reading);
        let (char, length) = match escape {
            [_, b'u', b'f', b'f', b'f', b'd', rest_of @ ..] if reading == Reading::Inverse => {
                out.push(STRAY);
                rest = rest_of;
                continue;
            }
            [_, b'u', ..] => unicode(escape),
            [_, b'b', ..] => ('\u{8}', 2),
            [_, b'f', ..] => ('\u{c}', 2),
            [_, b'n', ..] => ('\n', 2),
            [_, b'r', ..] => ('\r', 2),
            [_, b't', ..] => ('\t', 2),
            [_, other, ..] => (char::from(*other), 2),
            _ => ('\u{fffd}', escape.len()),
        };
        let mut buffer = [0; 4];
        out.extend_from_slice(char.encode_utf8(&mut buffer).as_bytes());
        rest = escape.get(length..).unwrap_or_default();
    }
    push_plain(&mut out, rest, reading);
    out
}

/// The character of `\uXXXX`, or of two of them that make a pair, and how long they are.
fn unicode(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| -> Option<u32> {
        let text = escape.get(at..at + 6)?;
        let digits = text.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let Some(first) = unit(0) else {
        return ('\u{fffd}', escape.len().min(6));
    };
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, unit(6)) {
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or('\u{fffd}'), 12);
    }
    (char::from_u32(first).unwrap_or('\u{fffd}'), 6)
}

/// A byte that no UTF-8 text has.
const STRAY: u8 = 0xff;

fn push_plain(out: &mut Vec<u8>, bytes: &[u8], reading: Reading) {
    if reading == Reading::Inverse {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_items_are_read_where_they_stand() {
        let value = Value::new(
            br#"{"a" : [1, "x,]\"", {"b":null} ] , "\u0063":-1.5e3}"#,
            Reading::Go,
        );
        let members: Vec<_> = value.members().collect();
        assert_eq!(&*members[1].0, b"c");
        assert_eq!(members[1].1.raw(), b"-1.5e3");
        let items: Vec<_> = members[0].1.items().map(Value::raw).collect();
        assert_eq!(items, [&b"1"[..], br#""x,]\"""#, br#"{"b":null}"#]);
        assert_eq!(Value::new(b"{ }", Reading::Go).members().count(), 0);
        assert_eq!(Value::new(b"[]", Reading::Go).items().count(), 0);
    }

    #[test]
    fn stray_bytes_are_read_in_two_ways() {
        let text = b"\"a\\ufffd\xfe\xef\xbf\xbd\"";
        let go = Value::new(text, Reading::Go).unescaped();
        assert_eq!(&*go, "a\u{fffd}\u{fffd}\u{fffd}".as_bytes());
        let inverse = Value::new(text, Reading::Inverse).unescaped();
        assert_eq!(&*inverse, b"a\xff\xfe\xef\xbf\xbd");
    }

    #[test]
    fn nesting_needs_no_stack() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert_eq!(value_len(&deep), Some(200_000));
    }
}
