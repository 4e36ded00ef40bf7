//! Bytes to lines, and what to do with a line that is none. Pure functions.
//!
//! A full disk, two writers, an emptied file leave half a line with the next event on it, or a hole of NUL
//! bytes. Such a line is taken apart at the places where an event can begin, and only there: a body may
//! hold something that looks like an audit event, and a client must not be able to pass it off as one.

mod container;

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::{Line, TornReason};

pub use container::{Entry, Stream, entry};

use crate::import::Reached;

/// What each line of a log begins with. Items of an EventList do not.
const EVENT_START: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/"#;

static EVENT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(EVENT_START));

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a line is made of these")]
pub enum Piece {
    /// A JSON object.
    Object(Range<usize>),
    /// Bytes that are none.
    Torn(Range<usize>, TornReason),
    /// NUL bytes.
    Hole(Range<usize>),
}

/// What a text is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Split {
    /// In order, their ends as offsets in the file.
    pub lines: Vec<Line>,
    /// Torn pieces, as ranges of the text.
    pub torn: Vec<(Range<usize>, TornReason)>,
    /// Runs of NUL bytes.
    pub holes: u64,
    /// Their bytes.
    pub hole_bytes: u64,
}

/// Splits a text that ends with a line. `base` is where it begins in its file.
///
/// A line that begins and ends as an object and has no other event inside goes on as it is, byte for byte;
/// that is all that is looked at. Every other one is taken apart as [`resync`] does. Empty lines vanish.
pub fn split(text: &[u8], base: u64) -> Split {
    let mut split = Split::default();
    let has_holes = memchr::memchr(0, text).is_some();
    let mut inner_events = EVENT
        .find_iter(text)
        .filter(|at| !begins_line(text, *at) && !is_nested(text, *at))
        .peekable();
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', text).chain(std::iter::once(text.len()));
    for end in ends {
        let raw = text.get(start..end).unwrap_or_default();
        let next = (end + 1).min(text.len());
        let is_suspect = inner_events.next_if(|at| *at < end).is_some();
        while inner_events.next_if(|at| *at < end).is_some() {}
        match raw {
            [b'{', .., b'}'] if !(is_suspect || has_holes && memchr::memchr(0, raw).is_some()) => {
                split.lines.push(Line {
                    start,
                    end,
                    end_offset: base + next as u64,
                });
            }
            [] => {}
            _ => split.take_apart(text, start..end, base, base + next as u64),
        }
        start = next;
    }
    split
}

impl Split {
    fn take_apart(&mut self, text: &[u8], line: Range<usize>, base: u64, end_offset: u64) {
        let first = self.lines.len();
        let from = line.start;
        for piece in resync(text.get(line).unwrap_or_default()) {
            match piece {
                Piece::Object(range) => self.lines.push(Line {
                    start: from + range.start,
                    end: from + range.end,
                    end_offset: base + (from + range.end) as u64,
                }),
                Piece::Torn(range, reason) => {
                    self.torn.push((from + range.start..from + range.end, reason));
                }
                Piece::Hole(range) => {
                    self.holes += 1;
                    self.hole_bytes += range.len() as u64;
                }
            }
        }
        if self.lines.len() > first
            && let Some(last) = self.lines.last_mut()
        {
            last.end_offset = end_offset;
        }
    }
}

/// Takes a line apart: objects that are valid JSON, torn pieces, holes; blanks between them vanish. For a
/// line that is one object the answer is that object. Linear in the length of the line.
pub fn resync(line: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let rest = line.get(at..).unwrap_or_default();
        let nuls = rest.iter().take_while(|byte| **byte == 0).count();
        if nuls > 0 {
            pieces.push(Piece::Hole(at..at + nuls));
            at += nuls;
            continue;
        }
        let hole = memchr::memchr(0, rest);
        let segment = rest.get(..hole.unwrap_or(rest.len())).unwrap_or_default();
        take_segment(&mut pieces, segment, at, hole.is_some());
        at += segment.len();
    }
    pieces
}

/// A segment has no NUL byte. No valid object reaches over the place where an event begins that is not
/// nested, so each is looked for only up to the next such place.
fn take_segment(pieces: &mut Vec<Piece>, segment: &[u8], base: usize, is_before_hole: bool) {
    let mut starts = EVENT
        .find_iter(segment)
        .filter(|at| *at > 0 && !is_nested(segment, *at));
    let mut start = 0;
    while start < segment.len() {
        let next = starts.next();
        let end = next.unwrap_or(segment.len());
        let reason = match next {
            None if !is_before_hole => TornReason::Cut,
            _ => TornReason::Overwritten,
        };
        take_objects(
            pieces,
            segment.get(start..end).unwrap_or_default(),
            base + start,
            reason,
        );
        start = end;
    }
}

fn take_objects(pieces: &mut Vec<Piece>, text: &[u8], base: usize, reason: TornReason) {
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let blanks = rest.len() - rest.trim_ascii_start().len();
        at += blanks;
        let rest = text.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        let object = object_len(rest).filter(|length| {
            rest.get(..*length)
                .is_some_and(|object| kaudit_event::check_json(object).is_ok())
        });
        match object {
            Some(length) => {
                pieces.push(Piece::Object(base + at..base + at + length));
                at += length;
            }
            None => {
                let reason = match rest.first() {
                    Some(b'{') => reason,
                    _ => TornReason::NotObject,
                };
                let length = rest.trim_ascii_end().len();
                pieces.push(Piece::Torn(base + at..base + at + length, reason));
                return;
            }
        }
    }
}

/// Whether a text is the beginning of an audit event.
pub(crate) fn begins_event(text: &[u8]) -> bool {
    text.starts_with(EVENT_START)
}

fn begins_line(text: &[u8], at: usize) -> bool {
    at == 0 || text.get(at - 1) == Some(&b'\n')
}

/// Whether what stands at `at` is a value inside another: a key's, or an array's item.
fn is_nested(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default().trim_ascii_end();
    matches!(before.last(), Some(b':' | b',' | b'['))
}

/// Bytes of the object that a text begins with, brackets counted.
fn object_len(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'{') {
        return None;
    }
    Nesting::default().feed(text)
}

/// Counts brackets outside strings, over a text that comes in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nesting {
    depth: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Outside,
    InString,
    BehindBackslash,
}

impl Nesting {
    /// Inside an object, behind its opening bracket.
    pub(crate) const fn in_object() -> Self {
        Self {
            depth: 1,
            place: Place::Outside,
        }
    }

    /// Takes the next part; how much of it belongs to the value when the outermost bracket closes in it.
    pub(crate) fn feed(&mut self, text: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let (step, bracket) = self.next_bracket(text.get(at..)?)?;
            at += step;
            if matches!(bracket, b'}' | b']') && self.depth == 0 {
                return Some(at);
            }
        }
    }

    /// The same, with a stop behind each array that opens at the first level. How much was taken, and where
    /// it stopped before the end of the part.
    pub(crate) fn feed_to_array(&mut self, text: &[u8]) -> (usize, Option<Reached>) {
        let mut at = 0;
        loop {
            let Some((step, bracket)) = text.get(at..).and_then(|rest| self.next_bracket(rest)) else {
                return (text.len(), None);
            };
            at += step;
            match (bracket, self.depth) {
                (b'}' | b']', 0) => return (at, Some(Reached::End)),
                (b'[', 2) => return (at, Some(Reached::Array)),
                _ => {}
            }
        }
    }

    /// Up to and with the next bracket outside strings.
    fn next_bracket(&mut self, text: &[u8]) -> Option<(usize, u8)> {
        let mut at = 0;
        loop {
            let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
            match self.place {
                Place::BehindBackslash => {
                    at += 1;
                    self.place = Place::InString;
                }
                Place::InString => {
                    let found = memchr::memchr2(b'"', b'\\', rest)?;
                    self.place = match rest.get(found) {
                        Some(b'\\') => Place::BehindBackslash,
                        _ => Place::Outside,
                    };
                    at += found + 1;
                }
                Place::Outside => {
                    let found = rest
                        .iter()
                        .position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
                    at += found + 1;
                    match *rest.get(found)? {
                        b'"' => self.place = Place::InString,
                        bracket @ (b'{' | b'[') => {
                            self.depth += 1;
                            return Some((at, bracket));
                        }
                        bracket => {
                            self.depth = self.depth.saturating_sub(1);
                            return Some((at, bracket));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
