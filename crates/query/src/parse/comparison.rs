//! A field's operator and the values behind it.

use std::ops::Range;

use super::check::Wanted;
use super::word::is_word_char;
use super::{Kind, MAX_DEPTH, Node, Parser, Sign, Want};
use crate::column::Column;
use crate::diagnostic::{self as codes, Diagnostic};
use crate::expr::{Case, Comparison, Expr};
use crate::pattern::Pattern;

/// What stands between a field and its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `:`
    Match,
    /// `=`, `==`, and each of a list behind `in`.
    Exact,
    Compare(Comparison),
    /// `~`
    Regex,
}

/// A value as it stands in the text.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) span: Range<usize>,
    pub(super) text: String,
    pub(super) pattern: Pattern,
    pub(super) has_wildcards: bool,
}

/// Operators that people write and that do not exist, with what they mean.
const MISTAKEN: &[(&str, &str)] = &[
    ("===", "="),
    ("!==", "!="),
    ("=~", "~"),
    ("~=", "~"),
    ("=>", ">="),
    ("=<", "<="),
    ("<>", "!="),
    (":=", "="),
    (":~", "~"),
    (":!", "!="),
];

/// Functions on texts, as CEL names them.
pub(super) const FUNCTIONS: &[&str] = &["startsWith", "endsWith", "contains", "matches"];

impl Parser<'_> {
    /// Whether an operator stands here, perhaps behind blanks.
    pub(super) fn sees_operator(&self) -> bool {
        if self.sees_call().is_some() {
            return true;
        }
        let rest = self.rest().trim_start();
        if rest.starts_with([':', '=', '<', '>', '~']) || rest.starts_with("!=") || rest.starts_with("!~") {
            return true;
        }
        let after = word_after(rest, "in").or_else(|| {
            let rest = word_after(rest, "not")?.trim_start();
            word_after(rest, "in")
        });
        after.is_some_and(|after| after.trim_start().starts_with(['(', '[']))
    }

    /// `in`, also without its list: only a field has that behind it.
    pub(super) fn sees_list_operator(&self) -> bool {
        word_after(self.rest().trim_start(), "in").is_some()
    }

    /// The name of a function that is called here.
    fn sees_call(&self) -> Option<&str> {
        let inner = self.rest().strip_prefix('.')?;
        let end = inner.find(|char: char| !char.is_ascii_alphanumeric())?;
        let (name, after) = inner.split_at_checked(end)?;
        (!name.is_empty() && after.starts_with('(')).then_some(name)
    }

    /// Everything behind a field. Without a column, the values are read and forgotten.
    pub(super) fn comparison(&mut self, column: Option<Column>, start: usize, sign: Sign) -> Node {
        let field = start..self.at;
        let mut case = Case::Sensitive;
        while let Some(name) = self.sees_call() {
            let name = name.to_owned();
            let call = self.at + 1..self.at + 1 + name.len();
            self.at = call.end + 1;
            if matches!(name.as_str(), "lower" | "lowerAscii") {
                case = Case::Insensitive;
                self.blanks();
                if !self.has(")") {
                    self.error(codes::NOT_CLOSED, call, format!("`{name}(` has no `)`"));
                }
                if let Some(column) = &column {
                    self.want(Want::Operator(column.clone()));
                }
                continue;
            }
            let expr = self.function(column.as_ref(), &name, call, case);
            return self.finished(expr, start, sign, false, None);
        }
        self.blanks();
        let at = self.at;
        if let Some((mistaken, meant)) = MISTAKEN.iter().find(|(token, _)| self.rest().starts_with(token)) {
            let span = at..at + mistaken.len();
            self.at = span.end;
            self.report(
                Diagnostic::error(
                    codes::UNKNOWN_OPERATOR,
                    span.clone(),
                    format!("there is no operator `{mistaken}`"),
                )
                .help(format!("did you mean `{meant}`?"))
                .fix(span, *meant),
            );
            self.values(None, Operator::Exact, field, case);
            return self.finished(Expr::Everything, start, sign, false, None);
        }
        let (operator, is_negated, is_list) = self.operator();
        if let Some(operator) = operator {
            let (expr, value) = if is_list {
                (self.listed(column.as_ref(), field, case), None)
            } else {
                self.values(column.as_ref(), operator, field, case)
            };
            return self.finished(expr, start, sign, is_negated, value);
        }
        // A field that could not be read was told already.
        if column.is_some() {
            let span = self.end_of_read();
            self.error(codes::UNEXPECTED, span, "an operator is missing behind this");
        }
        self.finished(Expr::Everything, start, sign, false, None)
    }

    /// The operator, whether it is negated, and whether a list must follow.
    fn operator(&mut self) -> (Option<Operator>, bool, bool) {
        if self.keyword("in") {
            return (Some(Operator::Exact), false, true);
        }
        if self.keyword("not") {
            self.blanks();
            return (self.keyword("in").then_some(Operator::Exact), true, true);
        }
        let compare = |parser: &mut Self| {
            [
                ("<=", Comparison::LessOrEqual),
                (">=", Comparison::GreaterOrEqual),
                ("<", Comparison::Less),
                (">", Comparison::Greater),
            ]
            .into_iter()
            .find(|(token, _)| parser.has(token))
            .map(|(_, comparison)| Operator::Compare(comparison))
        };
        if self.has("!=") {
            return (Some(Operator::Exact), true, false);
        }
        if self.has("!~") {
            return (Some(Operator::Regex), true, false);
        }
        if self.has("==") || self.has("=") {
            return (Some(Operator::Exact), false, false);
        }
        if self.has("~") {
            return (Some(Operator::Regex), false, false);
        }
        if self.has(":") {
            let at = self.at;
            self.blanks();
            if let Some(operator) = compare(self) {
                return (Some(operator), false, false);
            }
            self.at = at;
            return (Some(Operator::Match), false, false);
        }
        (compare(self), false, false)
    }

    fn finished(
        &mut self,
        expr: Expr,
        start: usize,
        sign: Sign,
        is_negated: bool,
        value: Option<Range<usize>>,
    ) -> Node {
        let mut expr = expr;
        if is_negated {
            expr = expr.negated();
        }
        if sign == Sign::Minus {
            expr = expr.negated();
        }
        let levels = match &expr {
            Expr::Not(inner) => 1 + usize::from(matches!(**inner, Expr::Or(_))),
            Expr::Or(_) => 1,
            _ => 0,
        };
        if self.depth + levels > MAX_DEPTH {
            let message = format!("parentheses and `not` are nested deeper than {MAX_DEPTH}");
            self.error(codes::TOO_DEEP, start..self.at, message);
        }
        Node {
            expr,
            kind: Kind::Comparison,
            span: start..self.at,
            value,
        }
    }

    /// What stands behind `:` and the other operators, and where a single value stands.
    fn values(
        &mut self,
        column: Option<&Column>,
        operator: Operator,
        field: Range<usize>,
        case: Case,
    ) -> (Expr, Option<Range<usize>>) {
        self.blanks();
        let wanted = Wanted {
            column,
            operator,
            field: field.clone(),
            case,
        };
        if operator == Operator::Match {
            match self.peek() {
                Some('(') => {
                    let raws = self.list(column, ')', &wanted);
                    return (self.check(&wanted, &raws), None);
                }
                Some('[') => return (self.range(&wanted), None),
                _ => {}
            }
        }
        if operator == Operator::Regex
            && self.peek().is_some_and(|next| !matches!(next, '"' | '\''))
            && let Some(raw) = self.bare_regex()
        {
            return (self.check(&wanted, &[raw]), None);
        }
        match self.value(column, &wanted) {
            Some(raw) => {
                let span = raw.span.clone();
                let expr = self.check(&wanted, &[raw]);
                (expr, (operator == Operator::Match).then_some(span))
            }
            None => (Expr::Everything, None),
        }
    }

    /// A regular expression without quotes keeps its backslashes.
    fn bare_regex(&mut self) -> Option<Raw> {
        let start = self.at;
        if !self.peek().is_some_and(is_word_char) || self.sees_keyword("and") || self.sees_keyword("or") {
            return None;
        }
        self.word();
        let text = self.slice(start..self.at).to_owned();
        Some(Raw {
            span: start..self.at,
            pattern: Pattern::literal(&text),
            text,
            has_wildcards: false,
        })
    }

    fn listed(&mut self, column: Option<&Column>, field: Range<usize>, case: Case) -> Expr {
        self.blanks();
        let wanted = Wanted {
            column,
            operator: Operator::Exact,
            field,
            case,
        };
        let close = match self.peek() {
            Some('(') => ')',
            Some('[') => ']',
            _ => {
                let span = self.end_of_read();
                self.report(
                    Diagnostic::error(
                        codes::MISSING_VALUE,
                        span,
                        "a list is missing behind `in`".to_owned(),
                    )
                    .help("`verb in (get, list)`"),
                );
                return Expr::Everything;
            }
        };
        let raws = self.list(column, close, &wanted);
        self.check(&wanted, &raws)
    }

    /// The last character that was read, to point at when something is missing behind it.
    fn end_of_read(&self) -> Range<usize> {
        let before = self.slice(0..self.at).trim_end();
        let last = before.chars().next_back().map_or(0, char::len_utf8);
        before.len() - last..before.len()
    }

    fn value(&mut self, column: Option<&Column>, wanted: &Wanted<'_>) -> Option<Raw> {
        self.blanks();
        if let Some(column) = column {
            self.want(Want::Value(column.clone()));
        }
        let start = self.at;
        match self.peek() {
            Some('"' | '\'') => {
                let text = self.scan_quoted()?;
                Some(Raw {
                    span: start..self.at,
                    pattern: Pattern::literal(&text),
                    text,
                    has_wildcards: false,
                })
            }
            Some(next)
                if is_word_char(next)
                    && !["and", "or", "not"].iter().any(|word| self.sees_keyword(word))
                    && !self.rest().starts_with("&&")
                    && !self.rest().starts_with("||") =>
            {
                let word = self.word();
                Some(Raw {
                    span: start..self.at,
                    text: word.text,
                    pattern: word.pattern,
                    has_wildcards: word.has_wildcards,
                })
            }
            _ => {
                self.no_value(wanted);
                None
            }
        }
    }

    /// Tells that a value is missing, and passes over what stands in its place.
    fn no_value(&mut self, wanted: &Wanted<'_>) {
        let span = self.end_of_read();
        let field = self.slice(wanted.field.clone());
        let message = format!("a value for `{field}` is missing");
        let mut diagnostic = Diagnostic::error(codes::MISSING_VALUE, span, message);
        if self.sees_keyword("not") {
            diagnostic = diagnostic.help(format!("`not` stands before the field: `not {field}: ...`"));
            self.keyword("not");
            self.blanks();
            if self.peek().is_some_and(is_word_char) {
                self.word();
            }
        } else if self.peek() == Some('(') {
            diagnostic = diagnostic.help(format!(
                "several values: `{field} in (...)`, with wildcards `{field}: (...)`"
            ));
            let found = self.found.len();
            self.list(None, ')', wanted);
            self.found.truncate(found);
        } else {
            diagnostic = diagnostic.help(format!("whether there is one at all: `{field}: *`"));
        }
        self.report(diagnostic);
    }

    /// The values of a list, whose bracket is read here.
    fn list(&mut self, column: Option<&Column>, close: char, wanted: &Wanted<'_>) -> Vec<Raw> {
        let open = self.at;
        self.at += 1;
        let mut raws = Vec::new();
        loop {
            self.blanks();
            if !raws.is_empty() {
                self.want(Want::ListJoin);
            }
            while (!raws.is_empty() && self.keyword("or"))
                || self.has(",")
                || (!raws.is_empty() && self.has("||"))
            {
                self.blanks();
            }
            let Some(next) = self.peek() else {
                let end = self.text.len();
                self.report(
                    Diagnostic::error(
                        codes::NOT_CLOSED,
                        open..open + 1,
                        "this list is never closed".to_owned(),
                    )
                    .fix(end..end, close.to_string()),
                );
                return raws;
            };
            if next == close {
                self.at += 1;
                break;
            }
            let at = self.at;
            if self.keyword("and") || self.has("&&") {
                let field = self.slice(wanted.field.clone()).to_owned();
                self.report(
                    Diagnostic::error(codes::UNEXPECTED, at..self.at, "a list has no `and`".to_owned())
                        .help(format!("write the field twice: `{field}: a and {field}: b`")),
                );
                continue;
            }
            let found = self.found.len();
            match self.value(column, wanted) {
                Some(raw) => raws.push(raw),
                None if self.at > at => {}
                None => {
                    // One mistake, not two: what stands here is no value, and it is passed over.
                    self.found.truncate(found);
                    if self.keyword("not") || self.keyword("or") {
                        self.error(codes::UNEXPECTED, at..self.at, "a list holds values and `or`");
                    } else {
                        self.unexpected(next);
                    }
                }
            }
        }
        if raws.is_empty() && self.found.iter().all(|diagnostic| diagnostic.span.start < open) {
            let span = open..self.at;
            self.error(codes::EMPTY_LIST, span, "this list has no values");
        }
        raws
    }

    /// `[400 TO 499]`
    fn range(&mut self, wanted: &Wanted<'_>) -> Expr {
        let open = self.at;
        self.at += 1;
        let least = self.value(wanted.column, wanted);
        self.blanks();
        self.want(Want::To);
        if least.is_some() && !self.keyword("to") {
            let end = self
                .rest()
                .find(']')
                .map_or(self.text.len(), |at| self.at + at + 1);
            self.at = end;
            let field = self.slice(wanted.field.clone()).to_owned();
            self.report(
                Diagnostic::error(
                    codes::UNEXPECTED,
                    open..end,
                    "a range has `TO` between two values".to_owned(),
                )
                .help(format!(
                    "a range: `{field}: [400 TO 499]`   a list: `{field}: (a or b)`"
                )),
            );
            return Expr::Everything;
        }
        let most = least
            .is_some()
            .then(|| self.value(wanted.column, wanted))
            .flatten();
        self.blanks();
        if !self.has("]") {
            let at = self.at;
            self.report(
                Diagnostic::error(
                    codes::NOT_CLOSED,
                    open..open + 1,
                    "this range is never closed".to_owned(),
                )
                .fix(at..at, "]"),
            );
        }
        match (least, most) {
            (Some(least), Some(most)) => self.check_range(wanted, &least, &most, open..self.at),
            _ => Expr::Everything,
        }
    }

    /// `.startsWith("...")`, whose parenthesis is read already.
    fn function(&mut self, column: Option<&Column>, name: &str, call: Range<usize>, case: Case) -> Expr {
        let is_known = FUNCTIONS.contains(&name);
        if !is_known {
            let near = FUNCTIONS
                .iter()
                .min_by_key(|known| strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase()))
                .filter(|known| {
                    let distance = strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase());
                    distance <= 6
                });
            let mut diagnostic = Diagnostic::error(
                codes::UNKNOWN_FUNCTION,
                call.clone(),
                format!("there is no function `{name}`"),
            );
            diagnostic = match near {
                Some(near) => diagnostic
                    .help(format!("did you mean `{near}`?"))
                    .fix(call.clone(), *near),
                None => diagnostic.help(format!("there are `{}` and `lower`", FUNCTIONS.join("`, `"))),
            };
            self.report(diagnostic);
        }
        self.blanks();
        let start = self.at;
        let argument = match self.peek() {
            Some('"' | '\'') => self.scan_quoted(),
            _ => {
                self.report(
                    Diagnostic::error(
                        codes::MISSING_VALUE,
                        call.start..self.at,
                        format!("`{name}` takes a text in quotes"),
                    )
                    .help(format!("`{name}(\"...\")`")),
                );
                let rest = self.rest();
                self.at += rest.find(')').unwrap_or(rest.len());
                None
            }
        };
        let span = start..self.at;
        self.blanks();
        if !self.has(")") {
            let at = self.at;
            self.report(
                Diagnostic::error(
                    codes::NOT_CLOSED,
                    call.end..call.end + 1,
                    "this parenthesis is never closed".to_owned(),
                )
                .fix(at..at, ")"),
            );
        }
        match (column, argument, is_known) {
            (Some(column), Some(argument), true) => {
                self.check_function(column, name, call, &argument, span, case)
            }
            _ => Expr::Everything,
        }
    }
}

/// What follows a keyword that `text` begins with.
fn word_after<'t>(text: &'t str, keyword: &str) -> Option<&'t str> {
    let (start, after) = text.split_at_checked(keyword.len())?;
    let is_word =
        start.eq_ignore_ascii_case(keyword) && !after.starts_with(|next| is_word_char(next) || next == ':');
    is_word.then_some(after)
}
