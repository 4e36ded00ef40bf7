//! From text to a checked tree: recursive descent that goes on after a mistake, so that all are told.
//!
//! ```text
//! filter     := or?
//! or         := and (("or" | "||") and)*
//! and        := not (("and" | "&&")? not)*      without a word between: two comparisons, or two texts
//! not        := ("not" | "!") not | "-" comparison | "(" or ")" | comparison | text
//! comparison := field operator values
//! ```

mod check;
mod comparison;
mod complete;
mod field;
mod time;
mod word;

use std::ops::Range;

use jiff::tz::TimeZone;
use kaudit_event::MicroTime;

use crate::column::Column;
use crate::diagnostic::{self as codes, Diagnostic};
use crate::expr::{Bodies, Expr, TextTest};
use crate::path;
use crate::pattern::Pattern;
use crate::row::micros;

pub use complete::{Completion, CompletionKind, Completions, complete};
pub(crate) use time::UNITS;
pub use time::duration;
use word::{Word, is_word_char};

/// A longer text is refused unread.
pub const MAX_TEXT_BYTES: usize = 64 << 10;

/// Parentheses and `not` may be nested so deep, in the text and in what a filter prints as.
pub const MAX_DEPTH: usize = 64;

/// A filter may have so many regular expressions, each of which may take a megabyte.
const MAX_REGEXES: usize = 50;

/// So many mistakes are told; the text is long past help then.
const MAX_DIAGNOSTICS: usize = 100;

pub(crate) fn parse(text: &str, now: MicroTime, zone: &TimeZone) -> Result<Expr, Vec<Diagnostic>> {
    if text.len() > MAX_TEXT_BYTES {
        let message = format!(
            "the filter has {} bytes, at most {MAX_TEXT_BYTES} are read",
            text.len()
        );
        return Err(vec![Diagnostic::error(codes::TOO_LONG, 0..0, message)]);
    }
    let mut parser = Parser::new(text, now, zone);
    let expr = parser.filter();
    if parser.found.is_empty() {
        return Ok(expr);
    }
    parser
        .found
        .sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.code));
    Err(parser.found)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    now: i64,
    /// Of times that say none.
    zone: &'t TimeZone,
    depth: usize,
    found: Vec<Diagnostic>,
    regexes: usize,
    /// What could stand where, for completion.
    wanted: Vec<(usize, Want)>,
}

/// What may stand at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Want {
    /// A field, a text, `not` or a parenthesis.
    Operand,
    Operator(Column),
    Value(Column),
    /// `and`, `or`, and a closing parenthesis if one is open.
    Join {
        in_group: bool,
    },
    /// `or` and the end of a list.
    ListJoin,
    /// `TO` of a range.
    To,
}

/// What stands side by side without a word between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Comparison,
    Text,
    Mixed,
}

struct Node {
    expr: Expr,
    kind: Kind,
    span: Range<usize>,
    /// Of a comparison by `:` with one value: where the value stands.
    value: Option<Range<usize>>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, now: MicroTime, zone: &'t TimeZone) -> Self {
        Self {
            text,
            at: 0,
            now: micros(now),
            zone,
            depth: 0,
            found: Vec::new(),
            regexes: 0,
            wanted: Vec::new(),
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn slice(&self, span: Range<usize>) -> &'t str {
        self.text.get(span).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn has(&mut self, token: &str) -> bool {
        let has = self.rest().starts_with(token);
        if has {
            self.at += token.len();
        }
        has
    }

    fn sees_keyword(&self, keyword: &str) -> bool {
        let rest = self.rest();
        rest.get(..keyword.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(keyword))
            && !rest
                .get(keyword.len()..)
                .and_then(|after| after.chars().next())
                .is_some_and(|next| is_word_char(next) || next == ':')
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let has = self.sees_keyword(keyword);
        if has {
            self.at += keyword.len();
        }
        has
    }

    fn want(&mut self, want: Want) {
        self.wanted.push((self.at, want));
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < MAX_DIAGNOSTICS {
            self.found.push(diagnostic);
        }
    }

    fn error(&mut self, code: &'static str, span: Range<usize>, message: impl Into<String>) {
        self.report(Diagnostic::error(code, span, message.into()));
    }

    fn filter(&mut self) -> Expr {
        self.blanks();
        if self.rest().is_empty() {
            self.want(Want::Operand);
            return Expr::Everything;
        }
        let mut expr = self.or().expr;
        loop {
            self.blanks();
            let Some(next) = self.peek() else {
                return expr;
            };
            self.unexpected(next);
            self.blanks();
            if self.peek().is_some_and(|next| next != ')') {
                expr = Expr::all([expr, self.or().expr]);
            }
        }
    }

    /// Passes over one character that cannot stand here.
    fn unexpected(&mut self, char: char) {
        let span = self.at..self.at + char.len_utf8();
        let mut diagnostic = Diagnostic::error(
            codes::UNEXPECTED,
            span.clone(),
            format!("`{char}` cannot stand here"),
        );
        diagnostic = match char {
            ')' => diagnostic.help("no parenthesis is open").fix(span, ""),
            ',' => diagnostic.help("several values stand in parentheses: `verb: (get, list)`"),
            '{' | '}' => diagnostic.help("a range is `[400 TO 499]`; a text with braces stands in quotes"),
            '[' | ']' => diagnostic.help("brackets hold a range or a list behind an operator"),
            _ => diagnostic.help("a text with this character stands in quotes"),
        };
        self.report(diagnostic);
        self.at += char.len_utf8();
    }

    fn or(&mut self) -> Node {
        let first = self.and();
        let mut parts = vec![first.expr];
        let (mut kind, start, mut end, mut value) =
            (first.kind, first.span.start, first.span.end, first.value);
        loop {
            self.blanks();
            if !(self.keyword("or") || self.has("||")) {
                break;
            }
            let next = self.and();
            parts.push(next.expr);
            kind = joined(kind, next.kind);
            end = next.span.end;
            value = None;
        }
        Node {
            expr: Expr::any(parts),
            kind,
            span: start..end,
            value,
        }
    }

    fn and(&mut self) -> Node {
        let first = self.not();
        let mut parts = vec![first.expr];
        let (mut kind, start, mut end, mut value) =
            (first.kind, first.span.start, first.span.end, first.value);
        loop {
            self.blanks();
            let in_group = self.depth > 0;
            self.want(Want::Join { in_group });
            let is_said = self.keyword("and") || self.has("&&");
            if !is_said {
                if self.sees_keyword("or") || self.rest().starts_with("||") || !self.sees_operand() {
                    break;
                }
                self.want(Want::Operand);
            }
            let next = self.not();
            if !is_said
                && matches!(
                    (kind, next.kind),
                    (Kind::Comparison, Kind::Text) | (Kind::Text, Kind::Comparison)
                )
            {
                self.bare_words(kind, start..end, value.take(), &next);
            }
            parts.push(next.expr);
            kind = joined(kind, next.kind);
            end = next.span.end.max(end);
            value = next.value;
        }
        Node {
            expr: Expr::all(parts),
            kind,
            span: start..end,
            value: value.filter(|_| kind == Kind::Comparison),
        }
    }

    /// Whether something begins here that may stand behind another condition.
    fn sees_operand(&self) -> bool {
        self.peek().is_some_and(|next| {
            is_word_char(next)
                || matches!(next, '(' | '"' | '\'')
                || (next == '!' && !self.rest().starts_with("!="))
        })
    }

    /// A comparison with a text beside it. Texts that follow belong to the same mistake.
    fn bare_words(&mut self, before: Kind, left: Range<usize>, value: Option<Range<usize>>, next: &Node) {
        if before == Kind::Text {
            let text = self.slice(left.clone()).trim_end();
            let message = format!("the bare text `{text}` stands next to a comparison");
            self.report(
                Diagnostic::error(codes::BARE_WORD, left.clone(), message)
                    .help("free text beside a comparison: put `and` between them")
                    .fix(left.end..left.end, " and"),
            );
            return;
        }
        let mut end = next.span.end;
        let mut words = vec![self.slice(next.span.clone())];
        let saved = self.at;
        loop {
            self.blanks();
            let from = self.at;
            let is_text = !["and", "or", "not"].iter().any(|word| self.sees_keyword(word))
                && self.sees_operand()
                && !self.rest().starts_with(['(', '-', '!', '&', '|']);
            if !is_text {
                break;
            }
            let found = self.found.len();
            let more = self.not();
            if more.kind != Kind::Text || self.found.len() > found {
                self.found.truncate(found);
                self.at = from;
                break;
            }
            words.push(self.slice(more.span.clone()));
            end = more.span.end;
        }
        self.at = self.at.max(saved);
        let first = words.first().copied().unwrap_or_default();
        let mut diagnostic = Diagnostic::error(
            codes::BARE_WORD,
            next.span.clone(),
            format!("the bare word `{first}` stands next to a comparison"),
        );
        let quoted = first.trim_matches('"');
        diagnostic = match value {
            Some(value) => {
                let list = format!("({} or {})", self.slice(value.clone()), words.join(" or "));
                diagnostic
                    .help(format!(
                        "several values: `{}{list}`   free text: `... and \"{quoted}\"`",
                        self.slice(left.start..value.start)
                    ))
                    .fix(value.start..end, list)
            }
            None => diagnostic.help(format!("free text: `... and \"{quoted}\"`")),
        };
        self.report(diagnostic);
    }

    fn deeper(&mut self, from: usize) -> bool {
        if self.depth >= MAX_DEPTH {
            let message = format!("parentheses and `not` are nested deeper than {MAX_DEPTH}");
            self.error(codes::TOO_DEEP, from..from + 1, message);
            self.at = self.text.len();
            return false;
        }
        self.depth += 1;
        true
    }

    fn not(&mut self) -> Node {
        self.blanks();
        self.want(Want::Operand);
        let start = self.at;
        let is_not = self.keyword("not") || (!self.rest().starts_with("!=") && self.has("!"));
        if is_not {
            if !self.deeper(start) {
                return self.nothing_read(start);
            }
            let inner = self.not();
            self.depth -= 1;
            return Node {
                expr: inner.expr.negated(),
                span: start..inner.span.end,
                value: None,
                ..inner
            };
        }
        self.operand()
    }

    /// What stands for an operand that could not be read.
    fn nothing_read(&self, start: usize) -> Node {
        Node {
            expr: Expr::Everything,
            kind: Kind::Mixed,
            span: start..self.at.max(start),
            value: None,
        }
    }

    fn operand(&mut self) -> Node {
        let start = self.at;
        match self.peek() {
            None => self.missing(start),
            Some('(') => self.group(),
            Some('"' | '\'') => self.quoted(),
            Some('-') => self.minus(),
            Some(_) if self.sees_keyword("and") || self.sees_keyword("or") => self.missing(start),
            Some(next) if path::is_name_char(next) => self.named(Sign::Plain),
            Some(next) if is_word_char(next) => self.text(),
            Some(')') => self.missing(start),
            Some(next) => {
                self.unexpected(next);
                self.nothing_read(start)
            }
        }
    }

    fn missing(&mut self, start: usize) -> Node {
        let before = self.slice(0..start).trim_end();
        let after = before.len();
        let last = before
            .rsplit(|char: char| char.is_whitespace() || char == '(')
            .next()
            .unwrap_or_default();
        let is_word = ["and", "or", "not"]
            .iter()
            .any(|word| last.eq_ignore_ascii_case(word));
        let span = match self.peek() {
            Some(_) => start..start + 1,
            None => after.saturating_sub(1).min(self.text.len())..after,
        };
        let span = if self.text.is_char_boundary(span.start) {
            span
        } else {
            after..after
        };
        let message = if is_word {
            format!("`{last}` has no condition behind it")
        } else {
            "a condition is missing here".to_owned()
        };
        self.report(
            Diagnostic::error(codes::MISSING_OPERAND, span, message)
                .help("a condition is a comparison as `verb: delete`, or a text"),
        );
        self.nothing_read(start)
    }

    fn group(&mut self) -> Node {
        let start = self.at;
        if !self.deeper(start) {
            return self.nothing_read(start);
        }
        self.at += 1;
        let inner = self.or();
        self.blanks();
        while let Some(next) = self.peek().filter(|next| *next != ')') {
            self.unexpected(next);
            self.blanks();
            if self.sees_operand() {
                self.or();
                self.blanks();
            }
        }
        let is_given_up = self
            .found
            .iter()
            .any(|diagnostic| diagnostic.code == codes::TOO_DEEP);
        if !self.has(")") && !is_given_up {
            let end = self.text.len();
            self.report(
                Diagnostic::error(
                    codes::NOT_CLOSED,
                    start..start + 1,
                    "this parenthesis is never closed".to_owned(),
                )
                .label(end..end, "`)` is missing")
                .fix(end..end, ")"),
            );
        }
        self.depth -= 1;
        Node {
            span: start..self.at,
            value: None,
            ..inner
        }
    }

    /// A text in quotes; with an operator behind it, a field that should have none.
    fn quoted(&mut self) -> Node {
        let start = self.at;
        let Some(value) = self.scan_quoted() else {
            return self.nothing_read(start);
        };
        let end = self.at;
        if self.sees_operator() {
            let mut diagnostic = Diagnostic::error(
                codes::QUOTED_FIELD,
                start..end,
                format!("the field `{value}` stands in quotes"),
            );
            diagnostic = match Column::from_name(&value) {
                Some(_) => diagnostic
                    .help("field names have no quotes")
                    .fix(start..end, value.clone()),
                None => diagnostic.help("only keys behind a point have quotes: `annotations.\"a/b\"`"),
            };
            self.report(diagnostic);
            return self.comparison(None, start, Sign::Plain);
        }
        self.text_node(Pattern::literal(&value), start)
    }

    fn text_node(&self, pattern: Pattern, start: usize) -> Node {
        let open = pattern.open();
        let expr = if open.is_everything() {
            Expr::Everything
        } else {
            Expr::Text(TextTest {
                pattern: open,
                bodies: Bodies::Skipped,
            })
        };
        let kind = if expr == Expr::Everything {
            Kind::Mixed
        } else {
            Kind::Text
        };
        Node {
            expr,
            kind,
            span: start..self.at,
            value: None,
        }
    }

    fn text(&mut self) -> Node {
        let start = self.at;
        let Word { pattern, .. } = self.word();
        self.text_node(pattern, start)
    }

    /// `-verb: get`. A minus before anything else could mean two things.
    fn minus(&mut self) -> Node {
        let start = self.at;
        let after = self.slice(start + 1..self.text.len());
        if after.starts_with(path::is_name_char) {
            let (at, found, wanted) = (self.at, self.found.len(), self.wanted.len());
            self.at += 1;
            let node = self.named(Sign::Minus);
            if node.kind == Kind::Comparison {
                return Node {
                    span: start..node.span.end,
                    ..node
                };
            }
            self.at = at;
            self.found.truncate(found);
            self.wanted.truncate(wanted);
        }
        self.at += 1;
        let end = match self.peek() {
            Some(next) if is_word_char(next) => {
                self.word();
                self.at
            }
            _ => self.at,
        };
        let word = self.slice(start..end);
        self.report(
            Diagnostic::error(
                codes::UNEXPECTED,
                start..end,
                format!("`{word}` could be a text or an exclusion"),
            )
            .help(format!("the text: `\"{word}\"`; an exclusion: `not ...`")),
        );
        self.nothing_read(start)
    }
}

/// Whether a comparison is negated by what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Plain,
    Minus,
}

fn joined(left: Kind, right: Kind) -> Kind {
    if left == right { left } else { Kind::Mixed }
}
