//! Paths: names with points between them, as a filter writes them and as they lead through a body.

use std::fmt;

/// A way into a JSON value: names of members, one in the other. Arrays on the way are looked through.
///
/// A member whose name holds points is met by several names in a row as well, so that
/// `metadata.labels.app.kubernetes.io/name` leads where a person expects.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<String>);

impl Path {
    /// The path of these names, outermost first.
    #[must_use]
    pub const fn new(segments: Vec<String>) -> Self {
        Self(segments)
    }

    /// The names, outermost first; none for the whole value.
    #[must_use]
    pub fn segments(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (at, segment) in self.0.iter().enumerate() {
            if at > 0 {
                text.push('.');
            }
            push_segment(&mut text, segment);
        }
        f.write_str(&text)
    }
}

/// Characters of a name that needs no quotes.
pub(crate) const fn is_name_char(char: char) -> bool {
    matches!(char, 'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' | '/' | '$' | '@')
}

/// Whether a name may stand without quotes.
fn is_plain(segment: &str) -> bool {
    segment.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && segment.chars().all(is_name_char)
}

pub(crate) fn push_segment(out: &mut String, segment: &str) {
    if is_plain(segment) {
        out.push_str(segment);
    } else {
        push_quoted(out, segment);
    }
}

/// Appends a text in double quotes, with the escapes that [`scan_quoted`] reads.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            char if char.is_control() => {
                out.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            char => out.push(char),
        }
    }
    out.push('"');
}

/// Why a quoted text cannot be read; the offset is from its first quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuoteError {
    NotClosed,
    Escape { at: usize, length: usize },
}

/// The text in quotes, single or double, that `text` begins with, and how long it is with its quotes.
pub(crate) fn scan_quoted(text: &str) -> Result<(String, usize), QuoteError> {
    let mut chars = text.char_indices();
    let Some((_, quote)) = chars.next() else {
        return Err(QuoteError::NotClosed);
    };
    let mut value = String::new();
    let mut bad = None;
    while let Some((at, char)) = chars.next() {
        if char == quote {
            return bad.map_or(Ok((value, at + char.len_utf8())), Err);
        }
        if char != '\\' {
            value.push(char);
            continue;
        }
        match chars.next() {
            Some((_, 'n')) => value.push('\n'),
            Some((_, 't')) => value.push('\t'),
            Some((_, 'r')) => value.push('\r'),
            Some((_, same @ ('"' | '\'' | '\\' | '/'))) => value.push(same),
            Some((_, 'u')) => match escaped_char(text.get(at..).unwrap_or_default()) {
                Some((char, length)) => {
                    value.push(char);
                    while chars.as_str().len() > text.len() - at - length {
                        chars.next();
                    }
                }
                None => {
                    bad.get_or_insert(QuoteError::Escape { at, length: 2 });
                }
            },
            Some((_, other)) => {
                bad.get_or_insert(QuoteError::Escape {
                    at,
                    length: 1 + other.len_utf8(),
                });
            }
            None => break,
        }
    }
    Err(QuoteError::NotClosed)
}

/// The character of `\uXXXX`, or of a pair of surrogates, and the length of its escape.
fn escaped_char(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<u32> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let first = unit(0)?;
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, unit(6)) {
        return Some((
            char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?,
            12,
        ));
    }
    Some((char::from_u32(first)?, 6))
}

/// What went wrong in a path, where, from the path's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathError {
    /// A quoted name cannot be read.
    Quote(usize, QuoteError),
    /// `[0]`: arrays are looked through.
    Index { at: usize, length: usize },
    /// `[` is not followed by a quoted name and `]`.
    Bracket { at: usize },
}

/// The path that `text` begins with: its names, and how long it is. No name: length 0. A final point is
/// left for the caller, and so is a name that a `(` follows: that is a function.
pub(crate) fn scan(text: &str) -> Result<(Vec<String>, usize), PathError> {
    let mut segments = Vec::new();
    let first = name_len(text);
    if first == 0 {
        return Ok((segments, 0));
    }
    segments.push(text.get(..first).unwrap_or_default().to_owned());
    let mut at = first;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        if let Some(inner) = rest.strip_prefix('.') {
            if inner.starts_with(['"', '\'']) {
                let (name, length) = scan_quoted(inner).map_err(|error| PathError::Quote(at + 1, error))?;
                segments.push(name);
                at += 1 + length;
                continue;
            }
            let length = name_len(inner);
            let is_call = inner.get(length..).is_some_and(|after| after.starts_with('('));
            if length == 0 || is_call {
                return Ok((segments, at));
            }
            segments.push(inner.get(..length).unwrap_or_default().to_owned());
            at += 1 + length;
        } else if let Some(inner) = rest.strip_prefix('[') {
            if !inner.starts_with(['"', '\'']) {
                let close = inner.find(']').map_or(inner.len(), |close| close + 1);
                let is_index = inner
                    .get(..close)
                    .and_then(|index| index.strip_suffix(']'))
                    .is_some_and(|index| index == "*" || index.bytes().all(|byte| byte.is_ascii_digit()));
                return Err(if is_index {
                    PathError::Index {
                        at,
                        length: close + 1,
                    }
                } else {
                    PathError::Bracket { at }
                });
            }
            let (name, length) = scan_quoted(inner).map_err(|error| PathError::Quote(at + 1, error))?;
            if !inner.get(length..).is_some_and(|after| after.starts_with(']')) {
                return Err(PathError::Bracket { at });
            }
            segments.push(name);
            at += length + 2;
        } else {
            return Ok((segments, at));
        }
    }
}

fn name_len(text: &str) -> usize {
    text.find(|char| !is_name_char(char)).unwrap_or(text.len())
}
