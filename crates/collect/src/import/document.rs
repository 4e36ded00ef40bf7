//! JSON documents that are no lines: EventLists, one or several, printed in whatever way, and events that
//! stretch over lines. They come in parts; only the value that is being read is held.

use bytes::Bytes;

use crate::lines::Nesting;
use crate::{Chunk, Form, Line, OVERSIZED_HEAD_BYTES, Oversized, Torn, TornReason};

/// Splits a stream of documents into events.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    place: Place,
    /// The value that is being read, from its first byte on.
    value: Vec<u8>,
    nesting: Nesting,
    /// Offset of the next byte in the text.
    offset: u64,
    value_offset: u64,
    long: Option<Long>,
    max_value_bytes: usize,
    out: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between documents.
    #[default]
    Outside,
    /// In an object that may be an event, or a list whose items have not begun.
    Object,
    /// Between the items of a list.
    Items,
    /// In an item that is an object or an array.
    Item,
    /// In something else.
    Scalar(Scalar),
    /// Behind the items of a list, in the rest of its object.
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    /// Between documents, up to where one can begin.
    Outside,
    /// An item.
    Item,
}

#[derive(Debug)]
struct Long {
    head: Vec<u8>,
    hasher: blake3::Hasher,
    length: u64,
}

impl Documents {
    pub(crate) fn new(max_value_bytes: usize) -> Self {
        Self {
            max_value_bytes,
            ..Self::default()
        }
    }

    /// Takes the next part of the text; what is complete goes to the chunk. Stops where events of the other
    /// form begin; how much was taken.
    pub(crate) fn feed(&mut self, text: &[u8], chunk: &mut Chunk) -> usize {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if !chunk.lines.is_empty() && chunk.form != self.form() {
                break;
            }
            let first = rest.first().copied().unwrap_or_default();
            let taken = self.step(first, rest, chunk).clamp(1, rest.len());
            self.offset += taken as u64;
            at += taken;
        }
        at
    }

    /// What is complete so far.
    pub(crate) fn take(&mut self, chunk: &mut Chunk) {
        chunk.buffer = Bytes::from(std::mem::take(&mut self.out));
    }

    /// The text ends.
    pub(crate) fn finish(&mut self, chunk: &mut Chunk) {
        let is_inside = !matches!(self.place, Place::Outside);
        if let Some(long) = self.long.take() {
            self.push_oversized(long, chunk);
        } else if !self.value.is_empty() && is_inside {
            let reason = match self.place {
                Place::Scalar(_) => TornReason::NotObject,
                _ => TornReason::Unterminated,
            };
            self.push_torn(reason, chunk);
        } else if matches!(self.place, Place::Items | Place::Rest) {
            chunk.anomalies.torn_lines += 1;
            chunk.torn.push(Torn {
                bytes: Bytes::new(),
                offset: self.offset,
                reason: TornReason::Unterminated,
            });
        }
        self.place = Place::Outside;
    }

    fn step(&mut self, first: u8, rest: &[u8], chunk: &mut Chunk) -> usize {
        let is_blank = first.is_ascii_whitespace() || first == 0;
        match self.place {
            Place::Outside | Place::Items if is_blank => blanks(rest),
            Place::Items if first == b',' => 1,
            Place::Outside => {
                self.begin(if first == b'{' {
                    Place::Object
                } else {
                    Place::Scalar(Scalar::Outside)
                });
                self.step_inside(rest, chunk)
            }
            Place::Items => match first {
                b']' => {
                    self.place = Place::Rest;
                    1
                }
                b'{' | b'[' => {
                    self.begin(Place::Item);
                    self.step_inside(rest, chunk)
                }
                _ => {
                    self.begin(Place::Scalar(Scalar::Item));
                    self.step_inside(rest, chunk)
                }
            },
            Place::Object | Place::Item | Place::Scalar(_) | Place::Rest => self.step_inside(rest, chunk),
        }
    }

    fn begin(&mut self, place: Place) {
        self.place = place;
        self.value.clear();
        self.value_offset = self.offset;
        self.nesting = Nesting::default();
    }

    fn step_inside(&mut self, rest: &[u8], chunk: &mut Chunk) -> usize {
        match self.place {
            Place::Object => self.in_object(rest, chunk),
            Place::Item => {
                let end = self.nesting.feed(rest);
                let taken = end.unwrap_or(rest.len());
                self.hold(rest.get(..taken).unwrap_or_default());
                if end.is_some() {
                    self.end_value(Form::Items, chunk);
                    self.place = Place::Items;
                }
                taken
            }
            Place::Scalar(scalar) => {
                let is_end = |byte: &u8| match scalar {
                    Scalar::Outside => matches!(byte, b'\n' | b'{'),
                    Scalar::Item => matches!(byte, b',' | b']' | b'\n'),
                };
                let end = rest.iter().position(is_end);
                let taken = end.unwrap_or(rest.len());
                self.hold(rest.get(..taken).unwrap_or_default());
                if end.is_none() {
                    return taken;
                }
                self.end_torn(TornReason::NotObject, chunk);
                self.place = match scalar {
                    Scalar::Outside => Place::Outside,
                    Scalar::Item => Place::Items,
                };
                if taken == 0 {
                    // Only the delimiter itself is left; the next step takes it.
                    return 1;
                }
                taken
            }
            Place::Rest => {
                // The object is open: its nesting stands at one.
                let end = self.nesting.feed(rest);
                if end.is_some() {
                    self.place = Place::Outside;
                    self.value.clear();
                }
                end.unwrap_or(rest.len())
            }
            Place::Outside | Place::Items => 0,
        }
    }

    /// Until it closes, or `"items": [` at its first level tells a list.
    fn in_object(&mut self, rest: &[u8], chunk: &mut Chunk) -> usize {
        let mut taken = 0;
        loop {
            let part = rest.get(taken..).unwrap_or_default();
            let (step, event) = self.nesting.feed_to_array(part);
            self.hold(part.get(..step).unwrap_or_default());
            taken += step;
            match event {
                Some(Reached::End) => {
                    self.end_value(Form::Lines, chunk);
                    self.place = Place::Outside;
                    return taken;
                }
                Some(Reached::Array) if self.long.is_none() && ends_with_items_key(&self.value) => {
                    self.nesting = Nesting::in_object();
                    self.value.clear();
                    self.place = Place::Items;
                    return taken;
                }
                Some(Reached::Array) => {}
                None => return taken,
            }
        }
    }

    fn hold(&mut self, part: &[u8]) {
        if let Some(long) = &mut self.long {
            long.take(part);
            return;
        }
        self.value.extend_from_slice(part);
        if self.value.len() > self.max_value_bytes {
            let mut long = Long {
                head: Vec::new(),
                hasher: blake3::Hasher::new(),
                length: 0,
            };
            long.take(&self.value);
            self.value = Vec::new();
            self.long = Some(long);
        }
    }

    fn end_value(&mut self, form: Form, chunk: &mut Chunk) {
        if let Some(long) = self.long.take() {
            self.push_oversized(long, chunk);
            return;
        }
        if self.value.first() != Some(&b'{') {
            self.push_torn(TornReason::NotObject, chunk);
            return;
        }
        chunk.form = form;
        let start = self.out.len();
        push_without_breaks(&mut self.out, &self.value);
        chunk.lines.push(Line {
            start,
            end: self.out.len(),
            end_offset: self.value_offset + self.value.len() as u64,
        });
        self.out.push(b'\n');
        self.value.clear();
    }

    fn end_torn(&mut self, reason: TornReason, chunk: &mut Chunk) {
        match self.long.take() {
            Some(long) => self.push_oversized(long, chunk),
            None => self.push_torn(reason, chunk),
        }
    }

    fn push_torn(&mut self, reason: TornReason, chunk: &mut Chunk) {
        let value = std::mem::take(&mut self.value);
        let kept = value.trim_ascii();
        if kept.is_empty() {
            return;
        }
        chunk.anomalies.torn_lines += 1;
        chunk.torn.push(Torn {
            bytes: Bytes::copy_from_slice(kept),
            offset: self.value_offset,
            reason,
        });
    }

    fn push_oversized(&mut self, long: Long, chunk: &mut Chunk) {
        chunk.anomalies.oversized_lines += 1;
        chunk.oversized.push(Oversized {
            offset: self.value_offset,
            length: long.length,
            head: Bytes::from(long.head),
            hash: *long.hasher.finalize().as_bytes(),
        });
    }

    /// The form of what is being read, to keep chunks of one form.
    pub(crate) const fn form(&self) -> Form {
        match self.place {
            Place::Items | Place::Item | Place::Rest | Place::Scalar(Scalar::Item) => Form::Items,
            Place::Outside | Place::Object | Place::Scalar(Scalar::Outside) => Form::Lines,
        }
    }
}

impl Long {
    fn take(&mut self, part: &[u8]) {
        let missing = OVERSIZED_HEAD_BYTES
            .saturating_sub(self.head.len())
            .min(part.len());
        self.head
            .extend_from_slice(part.get(..missing).unwrap_or_default());
        self.hasher.update(part);
        self.length += part.len() as u64;
    }
}

/// Where a scan of an object stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Behind its last bracket.
    End,
    /// Behind the bracket that opens an array at its first level.
    Array,
}

fn blanks(text: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| byte.is_ascii_whitespace() || **byte == 0)
        .count()
}

/// Whether an object's text up to and with `[` ends with `"items": [`.
pub(super) fn ends_with_items_key(text: &[u8]) -> bool {
    let before = text.strip_suffix(b"[").unwrap_or(text).trim_ascii_end();
    let before = before.strip_suffix(b":").unwrap_or_default().trim_ascii_end();
    // A key follows the opening bracket or a comma; a string value would not.
    before
        .strip_suffix(b"\"items\"")
        .map(<[u8]>::trim_ascii_end)
        .is_some_and(|before| matches!(before.last(), Some(b'{' | b',')))
}

/// A value printed over lines becomes one line; what has no line break stays as it is.
fn push_without_breaks(out: &mut Vec<u8>, value: &[u8]) {
    if memchr::memchr2(b'\n', b'\r', value).is_none() {
        out.extend_from_slice(value);
        return;
    }
    let mut rest = value;
    while let Some(at) = memchr::memchr(b'"', rest) {
        let (before, string) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        out.extend(before.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let mut end = 1;
        while let Some(found) = memchr::memchr2(b'"', b'\\', string.get(end..).unwrap_or_default()) {
            end += found + 1;
            if string.get(end - 1) == Some(&b'"') {
                break;
            }
            end += 1;
        }
        let (string, after) = string.split_at_checked(end).unwrap_or((string, &[]));
        // A break inside a string is no JSON; it must not end the line.
        out.extend(string.iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
        rest = after;
    }
    out.extend(rest.iter().filter(|byte| !byte.is_ascii_whitespace()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &[u8], part: usize) -> (Vec<String>, Vec<String>) {
        let mut documents = Documents::new(60);
        let mut chunk = Chunk::default();
        let mut lines = Vec::new();
        let mut torn = Vec::new();
        let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let mut keep = |documents: &mut Documents, chunk: Chunk| {
            let mut chunk = chunk;
            documents.take(&mut chunk);
            lines.extend(chunk.texts().map(shown));
            torn.extend(chunk.torn.iter().map(|torn| shown(&torn.bytes)));
            torn.extend(chunk.oversized.iter().map(|long| format!("long {}", long.length)));
        };
        for mut part in text.chunks(part) {
            while !part.is_empty() {
                let taken = documents.feed(part, &mut chunk);
                part = &part[taken..];
                keep(&mut documents, std::mem::take(&mut chunk));
            }
        }
        documents.finish(&mut chunk);
        keep(&mut documents, chunk);
        (lines, torn)
    }

    #[test]
    fn events_come_out_of_whatever_they_were_printed_in() {
        let table: [(&str, &[&str], &[&str]); 14] = [
            ("", &[], &[]),
            (r#"{"a":1}"#, &[r#"{"a":1}"#], &[]),
            (
                "{\"a\":1}\n{\"b\":[2]} {\"c\":3}",
                &[r#"{"a":1}"#, r#"{"b":[2]}"#, r#"{"c":3}"#],
                &[],
            ),
            (
                "{\n  \"a\": \"x y\\\"\",\n  \"b\": [ 1, 2 ]\n}\n",
                &[r#"{"a":"x y\"","b":[1,2]}"#],
                &[],
            ),
            (
                r#"{"kind":"EventList","metadata":{"items":[9]},"items":[{"a": 1},{"b":"]"}]}"#,
                &[r#"{"a": 1}"#, r#"{"b":"]"}"#],
                &[],
            ),
            (
                "{\n \"items\" : [\n  {\n   \"a\": 1\n  },\n  {}\n ],\n \"kind\": \"EventList\"\n}\n",
                &[r#"{"a":1}"#, "{}"],
                &[],
            ),
            (
                r#"{"items":[{"a":1}]}{"items":[{"b":1}],"x":["]"]}"#,
                &[r#"{"a":1}"#, r#"{"b":1}"#],
                &[],
            ),
            (r#"{"items":[]} {"items":null}"#, &[r#"{"items":null}"#], &[]),
            (
                r#"{"items":[{"a":1},7,"x",[1],null,{"b":1}]}"#,
                &[r#"{"a":1}"#, r#"{"b":1}"#],
                &["7", "\"x\"", "[1]", "null"],
            ),
            (r#"{"items":[{"a":1},{"b":"#, &[r#"{"a":1}"#], &["{\"b\":"]),
            (r#"{"items":[{"a":1}"#, &[r#"{"a":1}"#], &[""]),
            (
                "nonsense\n{\"a\":1}]\n{\"b\":1}",
                &[r#"{"a":1}"#, r#"{"b":1}"#],
                &["nonsense", "]"],
            ),
            (r#"{"a":1"#, &[], &[r#"{"a":1"#]),
            (
                r#"{"items":[{"a":"0123456789012345678901234567890123456789012345678901234567890"},{"b":1}]}"#,
                &[r#"{"b":1}"#],
                &["long 69"],
            ),
        ];
        for (text, lines, torn) in table {
            for part in [1, 2, 3, 7, 1000] {
                let (found, bad) = split(text.as_bytes(), part);
                assert_eq!(found, lines, "{text} by {part}");
                assert_eq!(bad, torn, "{text} by {part}");
            }
        }
    }
}
