//! Texts with wildcards, texts to be found in others, and comparison without regard to case.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use memchr::memmem;

/// A text with `*` (any run, also none) and `?` (one character) in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Literal(String),
    Run,
    One,
}

/// What a pattern is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing else in a pattern")]
pub enum PatternPart<'a> {
    /// This text.
    Literal(&'a str),
    /// `*`
    Run,
    /// `?`
    One,
}

impl Pattern {
    /// The pattern of these parts; neighbours of one kind become one.
    pub fn new<'a>(parts: impl IntoIterator<Item = PatternPart<'a>>) -> Self {
        let mut own: Vec<Part> = Vec::new();
        for part in parts {
            match (part, own.last_mut()) {
                (PatternPart::Literal(""), _) | (PatternPart::Run, Some(Part::Run)) => {}
                (PatternPart::Literal(text), Some(Part::Literal(last))) => last.push_str(text),
                (PatternPart::Literal(text), _) => own.push(Part::Literal(text.to_owned())),
                (PatternPart::Run, _) => own.push(Part::Run),
                (PatternPart::One, _) => own.push(Part::One),
            }
        }
        Self { parts: own }
    }

    /// Reads `*`, `?` and `\` before any of the three, as in a Sigma rule or a bare word.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['*', '?', '\\']) {
            let (before, found) = rest.split_at_checked(at).unwrap_or((rest, ""));
            parts.push(PatternPart::Literal(before));
            let mut chars = found.chars();
            match chars.next() {
                Some('*') => parts.push(PatternPart::Run),
                Some('?') => parts.push(PatternPart::One),
                _ => {
                    let after = chars.as_str();
                    let length = usize::from(after.starts_with(['*', '?', '\\']));
                    let (escaped, tail) = after.split_at_checked(length).unwrap_or(("", after));
                    parts.push(PatternPart::Literal(if length == 0 { "\\" } else { escaped }));
                    rest = tail;
                    continue;
                }
            }
            rest = chars.as_str();
        }
        parts.push(PatternPart::Literal(rest));
        Self::new(parts)
    }

    /// A text without wildcards.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        Self::new([PatternPart::Literal(text)])
    }

    /// What it is made of, in order.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = PatternPart<'_>> {
        self.parts.iter().map(|part| match part {
            Part::Literal(text) => PatternPart::Literal(text),
            Part::Run => PatternPart::Run,
            Part::One => PatternPart::One,
        })
    }

    /// Its text, if it has no wildcards.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether every value matches, the empty one included.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.parts == [Part::Run]
    }

    /// The text that every match begins with; empty if there is none.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// The same pattern, found anywhere in a value.
    pub(crate) fn open(&self) -> Self {
        let inner = self.parts();
        Self::new(
            [PatternPart::Run]
                .into_iter()
                .chain(inner)
                .chain([PatternPart::Run]),
        )
    }

    pub(crate) fn lowered(&self) -> Self {
        let parts = self.parts.iter().map(|part| match part {
            Part::Literal(text) => Part::Literal(text.to_lowercase()),
            other => other.clone(),
        });
        Self {
            parts: parts.collect(),
        }
    }

    /// Whether the whole of `value` matches.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        match self.parts.as_slice() {
            [] => value.is_empty(),
            [Part::Literal(text)] => value == text.as_bytes(),
            [Part::Literal(text), Part::Run] => value.starts_with(text.as_bytes()),
            [Part::Run, Part::Literal(text)] => value.ends_with(text.as_bytes()),
            [Part::Run, Part::Literal(text), Part::Run] => memmem::find(value, text.as_bytes()).is_some(),
            parts => matches_parts(parts, value),
        }
    }
}

/// Each run takes as little as it can; when what follows fails, the last run takes one byte more. What
/// stood before the last run never has to be tried again.
fn matches_parts(parts: &[Part], value: &[u8]) -> bool {
    let (mut at_parts, mut at_value) = (parts, value);
    let mut retry: Option<(&[Part], &[u8])> = None;
    loop {
        match at_parts.split_first() {
            Some((Part::Run, rest)) => {
                at_parts = rest;
                retry = Some((rest, at_value));
                continue;
            }
            Some((Part::Literal(text), rest)) => {
                if let Some(after) = at_value.strip_prefix(text.as_bytes()) {
                    // The last literal has to be at the end, which a run before it may reach at once.
                    (at_parts, at_value) = (rest, after);
                    continue;
                }
            }
            Some((Part::One, rest)) => {
                let length = char_len(at_value);
                if length > 0 {
                    at_parts = rest;
                    at_value = at_value.get(length..).unwrap_or_default();
                    continue;
                }
            }
            None if at_value.is_empty() => return true,
            None => {}
        }
        let Some((after_run, from)) = retry else {
            return false;
        };
        let Some(mut next) = from.get(char_len(from).max(1)..) else {
            return false;
        };
        if let Some(Part::Literal(text)) = after_run.first() {
            match memmem::find(next, text.as_bytes()) {
                Some(skip) => next = next.get(skip..).unwrap_or_default(),
                None => return false,
            }
        }
        retry = Some((after_run, next));
        (at_parts, at_value) = (after_run, next);
    }
}

/// Bytes of the first character; a byte that is not UTF-8 is a character.
fn char_len(value: &[u8]) -> usize {
    let longest = value.get(..4).unwrap_or(value);
    match value.first() {
        None => 0,
        Some(0..0x80) => 1,
        Some(_) => longest
            .utf8_chunks()
            .next()
            .and_then(|chunk| chunk.valid().chars().next())
            .map_or(1, char::len_utf8),
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.to_string()).finish()
    }
}

/// With `\` before a star, question mark or backslash that stands for itself.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Run => f.write_str("*")?,
                Part::One => f.write_str("?")?,
                Part::Literal(text) => {
                    for char in text.chars() {
                        if matches!(char, '*' | '?' | '\\') {
                            f.write_str("\\")?;
                        }
                        write!(f, "{char}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A text that is looked for in others.
#[derive(Clone)]
pub struct Substring {
    text: String,
    finder: Box<memmem::Finder<'static>>,
}

impl Substring {
    /// Prepares the search.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            finder: Box::new(memmem::Finder::new(text.as_bytes()).into_owned()),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is in `value`.
    #[must_use]
    pub fn is_in(&self, value: &[u8]) -> bool {
        self.finder.find(value).is_some()
    }
}

impl PartialEq for Substring {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Substring {}

impl Hash for Substring {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Debug for Substring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Substring").field(&self.text).finish()
    }
}

/// `value` in lower case; stray bytes stay. Borrowed where nothing changes.
pub(crate) fn lowered(value: &[u8]) -> Cow<'_, [u8]> {
    if value.is_ascii() {
        if value.iter().any(u8::is_ascii_uppercase) {
            return Cow::Owned(value.to_ascii_lowercase());
        }
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        out.extend_from_slice(chunk.valid().to_lowercase().as_bytes());
        out.extend_from_slice(chunk.invalid());
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_whole_values() {
        for (pattern, value, expected) in [
            ("delete*", "deletecollection", true),
            ("delete*", "delete", true),
            ("delete", "deletecollection", false),
            ("*latest", "nginx:latest", true),
            ("*a*b*c", "xxaxxbxxbcxc", true),
            ("*a*b*c", "xxaxxbxxbcxd", false),
            ("a?c", "abc", true),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("?*", "", false),
            ("*", "", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("a\\b", "a\\b", true),
            ("*aab", "aaaab", true),
            ("*ab?", "abab", false),
            ("*ab?", "ababc", true),
        ] {
            assert_eq!(
                Pattern::parse(pattern).matches(value.as_bytes()),
                expected,
                "{pattern} {value}"
            );
        }
        assert!(
            Pattern::parse("a?b").matches(b"a\xffb"),
            "a stray byte is a character"
        );
    }

    #[test]
    fn a_pattern_prints_as_it_is_read() {
        for text in ["a*b?c", "\\*\\?\\\\", "x\\\\*"] {
            assert_eq!(Pattern::parse(text).to_string(), text);
        }
    }
}
