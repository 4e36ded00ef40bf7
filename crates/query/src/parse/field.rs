//! A field's name, and what is wrong with one.

use std::ops::Range;

use super::{Node, Parser, Sign, Want};
use crate::column::{self, Column, Lookup};
use crate::diagnostic::{self as codes, Diagnostic};
use crate::path::{self, PathError, QuoteError};

impl Parser<'_> {
    /// A field with its comparison, or a bare text.
    pub(super) fn named(&mut self, sign: Sign) -> Node {
        let start = self.at;
        let (segments, length) = match path::scan(self.rest()) {
            Ok(scanned) => scanned,
            Err(error) => {
                self.bad_path(start, error);
                return self.comparison(None, start, sign);
            }
        };
        self.at = start + length;
        let name = self.slice(start..self.at).to_owned();
        let lookup = Lookup::of(&segments);
        if let Lookup::Found(column) = &lookup {
            self.want(Want::Operator(column.clone()));
            if self.rest().trim_start().is_empty() {
                self.wanted
                    .push((self.text.len(), Want::Operator(column.clone())));
            }
        }
        let is_field =
            self.sees_operator() || (matches!(lookup, Lookup::Found(_)) && self.sees_list_operator());
        if !is_field {
            self.at = start;
            return self.text();
        }
        let span = start..self.at;
        let column = match lookup {
            Lookup::Found(column) => {
                self.check_path(&column, span.clone());
                Some(column)
            }
            Lookup::Incomplete(names) => {
                self.incomplete(&name, span, &names);
                None
            }
            Lookup::Unknown => {
                self.unknown(&name, span);
                None
            }
        };
        self.comparison(column, start, sign)
    }

    fn check_path(&mut self, column: &Column, span: Range<usize>) {
        let (Column::RequestObject(path) | Column::ResponseObject(path)) = column else {
            return;
        };
        let text = self.slice(span.clone());
        for segment in path.segments() {
            let is_index = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
            let pattern = format!(".{segment}");
            if is_index && let Some(at) = text.find(&pattern) {
                let span = span.start + at..span.start + at + pattern.len();
                self.index(span);
                return;
            }
        }
    }

    fn index(&mut self, span: Range<usize>) {
        self.report(
            Diagnostic::error(
                codes::ARRAY_INDEX,
                span.clone(),
                "a path has no index: any item of the array may match".to_owned(),
            )
            .help("leave the index out; a key of digits stands in quotes")
            .fix(span, ""),
        );
    }

    fn incomplete(&mut self, name: &str, span: Range<usize>, names: &[&'static str]) {
        let mut diagnostic = Diagnostic::error(
            codes::INCOMPLETE_FIELD,
            span.clone(),
            format!("`{name}` is no value by itself"),
        );
        diagnostic = match names {
            [only] if *only == name || name.len() < 5 => {
                diagnostic.help(format!("a key follows: `{only}.\"example.com/key\": *`"))
            }
            names => diagnostic.help(format!("it has `{}`", names.join("`, `"))),
        };
        self.report(diagnostic);
    }

    fn unknown(&mut self, name: &str, span: Range<usize>) {
        let mut diagnostic = Diagnostic::error(
            codes::UNKNOWN_FIELD,
            span.clone(),
            format!("unknown field `{name}`"),
        );
        let near = column::nearest(name);
        diagnostic = match near.first() {
            Some(best) => {
                let short = best.short.map(|short| format!("  (shorthand: `{short}`)")).unwrap_or_default();
                diagnostic
                    .help(format!("did you mean `{}`?{short}", best.name))
                    .fix(span, best.name)
            }
            None => diagnostic.help(format!(
                "fields are the paths of an event's JSON; a text with a colon stands in quotes: `\"{name}:...\"`"
            )),
        };
        self.report(diagnostic);
    }

    fn bad_path(&mut self, start: usize, error: PathError) {
        match error {
            PathError::Quote(at, error) => self.bad_quote(start + at, error),
            PathError::Index { at, length } => {
                self.index(start + at..start + at + length);
                self.at = start + at + length;
                // The rest of the path is passed over, so that what follows is read as its comparison.
                while self
                    .peek()
                    .is_some_and(|next| path::is_name_char(next) || next == '.')
                {
                    self.at += 1;
                }
                return;
            }
            PathError::Bracket { at } => {
                let at = start + at;
                self.report(
                    Diagnostic::error(codes::UNEXPECTED, at..at + 1, "`[` cannot stand here".to_owned())
                        .help("a key in brackets has quotes: `annotations[\"a/b\"]`"),
                );
            }
        }
        let rest = self.rest();
        self.at += rest.find(char::is_whitespace).unwrap_or(rest.len());
    }

    fn bad_quote(&mut self, start: usize, error: QuoteError) {
        match error {
            QuoteError::NotClosed => {
                let quote = self.slice(start..start + 1).to_owned();
                let end = self.text.len();
                self.report(
                    Diagnostic::error(
                        codes::STRING_NOT_CLOSED,
                        start..end,
                        "this quote is never closed".to_owned(),
                    )
                    .fix(end..end, quote),
                );
                self.at = end;
            }
            QuoteError::Escape { at, length } => {
                let span = start + at..start + at + length;
                let escape = self.slice(span.clone()).to_owned();
                self.report(
                    Diagnostic::error(
                        codes::BAD_ESCAPE,
                        span.clone(),
                        format!("`{escape}` is no escape"),
                    )
                    .help(
                        "escapes are \\\" \\' \\\\ \\n \\r \\t \\uXXXX; a backslash itself is written twice",
                    )
                    .fix(span.start..span.start, "\\"),
                );
            }
        }
    }

    /// A text in quotes at this place. After a bad escape, the text is passed over.
    pub(super) fn scan_quoted(&mut self) -> Option<String> {
        let start = self.at;
        match path::scan_quoted(self.rest()) {
            Ok((value, length)) => {
                self.at = start + length;
                Some(value)
            }
            Err(error) => {
                self.bad_quote(start, error);
                if matches!(error, QuoteError::Escape { .. }) {
                    self.at = start + quoted_len(self.slice(start..self.text.len()));
                }
                None
            }
        }
    }
}

/// Bytes of a quoted text that is closed, whatever its escapes.
fn quoted_len(text: &str) -> usize {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    while let Some((at, char)) = chars.next() {
        if char == '\\' {
            chars.next();
        } else if Some(char) == quote {
            return at + char.len_utf8();
        }
    }
    text.len()
}
