//! The comments of a YAML document, each with the key or item that it is about.

use std::collections::HashMap;

use libyaml_safer::{EventData, Mark, Parser, ScalarStyle};

use super::super::{PolicyError, Position, yaml};
use super::FormatError;

/// Comments on lines of their own, and a blank line between them and what follows.
#[derive(Default)]
pub(super) struct Leading {
    pub(super) lines: Vec<Line>,
    pub(super) blank_after: bool,
}

pub(super) struct Line {
    pub(super) blank_before: bool,
    /// With its `#`.
    pub(super) text: String,
}

/// The comments that are not yet written.
pub(super) struct Comments {
    head: Leading,
    leading: HashMap<Position, Leading>,
    trailing: HashMap<Position, String>,
    tail: Leading,
}

impl Comments {
    /// Finds the comments of `text`, whose keys and items begin at `places`, in order.
    pub(super) fn read(text: &[u8], places: Vec<Position>) -> Result<Self, FormatError> {
        let is_json = String::from_utf8_lossy(text).trim_start().starts_with('{');
        let scalars = if is_json { Vec::new() } else { scalars(text)? };
        let mut comments = Self {
            head: Leading::default(),
            leading: HashMap::new(),
            trailing: HashMap::new(),
            tail: Leading::default(),
        };
        if is_json {
            return Ok(comments);
        }
        let text = String::from_utf8_lossy(text);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut pending: Vec<Line> = Vec::new();
        let mut blank = false;
        let mut places = places.into_iter().peekable();
        for (number, line) in lines(text).enumerate().map(|(index, line)| (index + 1, line)) {
            if line.trim().is_empty()
                && !within(
                    &scalars,
                    Position {
                        line: number,
                        column: 1,
                    },
                )
            {
                blank = true;
                continue;
            }
            let comment = comment_in(line, number, &scalars);
            let before = comment.map_or(line, |(before, _)| before);
            let mut first = None;
            while let Some(at) = places.next_if(|at| at.line == number) {
                first.get_or_insert(at);
            }
            if let Some(first) = first {
                let leading = Leading {
                    lines: std::mem::take(&mut pending),
                    blank_after: blank,
                };
                blank = false;
                if !leading.lines.is_empty() || leading.blank_after {
                    comments.leading.insert(first, leading);
                }
            }
            let Some((_, comment)) = comment else {
                blank = false;
                continue;
            };
            match first {
                Some(first) if !before.trim().is_empty() => {
                    comments.trailing.insert(first, comment.to_owned());
                }
                _ => pending.push(Line {
                    blank_before: std::mem::take(&mut blank),
                    text: comment.to_owned(),
                }),
            }
        }
        comments.tail.lines = pending;
        if let Some(first) = comments.first_place(text) {
            comments.head = comments.leading.remove(&first).unwrap_or_default();
        }
        Ok(comments)
    }

    /// The place with the comments that begin the document, whichever key they precede.
    fn first_place(&self, text: &str) -> Option<Position> {
        let first_comment = lines(text).position(|line| line.trim_start().starts_with('#'))? + 1;
        let first_text = lines(text)
            .position(|line| {
                let line = line.trim();
                !line.is_empty() && !line.starts_with(['#', '%']) && line != "---"
            })
            .map_or(usize::MAX, |index| index + 1);
        if first_comment > first_text {
            return None;
        }
        self.leading
            .keys()
            .copied()
            .min()
            .filter(|place| place.line == first_text)
    }

    pub(super) fn head(&mut self) -> Leading {
        std::mem::take(&mut self.head)
    }

    pub(super) fn leading(&mut self, at: Position) -> Leading {
        self.leading.remove(&at).unwrap_or_default()
    }

    pub(super) fn trailing(&mut self, at: Position) -> Option<String> {
        self.trailing.remove(&at)
    }

    pub(super) fn are_at(&self, at: Position) -> bool {
        self.trailing.contains_key(&at)
            || self
                .leading
                .get(&at)
                .is_some_and(|leading| !leading.lines.is_empty())
    }

    /// What follows the last item, and what found no place.
    pub(super) fn tail(&mut self) -> Leading {
        let mut tail = Leading::default();
        let mut left: Vec<(Position, Leading)> = self.leading.drain().collect();
        left.sort_by_key(|(at, _)| *at);
        tail.lines
            .extend(left.into_iter().flat_map(|(_, leading)| leading.lines));
        let mut left: Vec<(Position, String)> = self.trailing.drain().collect();
        left.sort();
        tail.lines.extend(left.into_iter().map(|(_, text)| Line {
            blank_before: false,
            text,
        }));
        tail.lines.append(&mut self.tail.lines);
        tail
    }
}

/// The lines of a YAML text, which more breaks than the line feed end.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let breaks = |letter: char| matches!(letter, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
        let Some((line, after)) = text.find(breaks).and_then(|at| text.split_at_checked(at)) else {
            rest = None;
            return (!text.is_empty()).then_some(text);
        };
        let one_break = match after.strip_prefix("\r\n") {
            Some(after) => after,
            None => after.strip_prefix(breaks).unwrap_or_default(),
        };
        rest = Some(one_break);
        Some(line)
    })
}

/// Where a scalar stands: a `#` between is none of a comment.
struct Span {
    from: Position,
    to: Position,
    is_block: bool,
}

fn position(mark: Mark) -> Position {
    let from_one = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).saturating_add(1);
    Position {
        line: from_one(mark.line),
        column: from_one(mark.column),
    }
}

fn scalars(text: &[u8]) -> Result<Vec<Span>, FormatError> {
    let mut input = text;
    let mut parser = Parser::new();
    parser.set_input_string(&mut input);
    let mut spans = Vec::new();
    let mut documents = 0;
    loop {
        let event = yaml::next_event(&mut parser).map_err(PolicyError::Decode)?;
        match event.data {
            EventData::DocumentStart { .. } => {
                documents += 1;
                if documents > 1 {
                    let line = position(event.start_mark).line;
                    return Err(FormatError::SeveralDocuments { line });
                }
            }
            EventData::Scalar { style, .. } => spans.push(Span {
                from: position(event.start_mark),
                to: position(event.end_mark),
                is_block: matches!(style, ScalarStyle::Literal | ScalarStyle::Folded),
            }),
            EventData::StreamEnd => return Ok(spans),
            _ => {}
        }
    }
}

fn within(scalars: &[Span], at: Position) -> bool {
    let after = scalars.partition_point(|span| span.from <= at);
    let Some(span) = after.checked_sub(1).and_then(|index| scalars.get(index)) else {
        return false;
    };
    at < span.to && !(span.is_block && at.line == span.from.line)
}

/// A line's text before its comment, and the comment.
fn comment_in<'a>(line: &'a str, number: usize, scalars: &[Span]) -> Option<(&'a str, &'a str)> {
    let mut follows_space = true;
    for (column, (byte, letter)) in line.char_indices().enumerate() {
        let at = Position {
            line: number,
            column: column + 1,
        };
        if letter == '#' && follows_space && !within(scalars, at) {
            let (before, comment) = line.split_at_checked(byte)?;
            return Some((before, comment.trim_end()));
        }
        follows_space = letter == ' ' || letter == '\t';
    }
    None
}
