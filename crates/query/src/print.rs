//! From a tree to text, so that the text reads as the same tree.

use std::fmt::{self, Write as _};

use crate::column::Column;
use crate::expr::{Case, Expr, Literal, Op, Test, TextTest};
use crate::filter::Filter;
use crate::parse::UNITS;
use crate::path::push_quoted;
use crate::pattern::{Pattern, PatternPart};

/// The filter as text. Of a filter that was parsed, [`Filter::parse`] gives the same filter again, also
/// where the text held `now`: the instant is printed. The text may be longer than what is parsed.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr().fmt(f)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        push(&mut text, self);
        f.write_str(&text)
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        push_test(&mut text, self);
        f.write_str(&text)
    }
}

fn push(out: &mut String, expr: &Expr) {
    match expr {
        Expr::Everything => out.push('*'),
        Expr::Nothing => out.push_str("not *"),
        Expr::And(parts) => push_joined(out, parts, " and ", |part| {
            matches!(part, Expr::Or(_) | Expr::And(_))
        }),
        Expr::Or(parts) => push_joined(out, parts, " or ", |part| matches!(part, Expr::Or(_))),
        Expr::Not(inner) => {
            out.push_str("not ");
            push_part(out, inner, matches!(**inner, Expr::Or(_) | Expr::And(_)));
        }
        Expr::Test(test) => push_test(out, test),
        Expr::Text(text) => push_text(out, text),
    }
}

fn push_joined(out: &mut String, parts: &[Expr], word: &str, in_parentheses: impl Fn(&Expr) -> bool) {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            out.push_str(word);
        }
        push_part(out, part, in_parentheses(part));
    }
}

fn push_part(out: &mut String, part: &Expr, in_parentheses: bool) {
    if in_parentheses {
        out.push('(');
    }
    push(out, part);
    if in_parentheses {
        out.push(')');
    }
}

fn push_test(out: &mut String, test: &Test) {
    out.push_str(&test.column.name());
    if test.case == Case::Insensitive {
        out.push_str(".lower()");
    }
    // `:` says more than equality of these.
    let is_loose = matches!(
        test.column,
        Column::UserAgent | Column::SourceIps | Column::SourceIp
    );
    match &test.op {
        Op::Exists => out.push_str(": *"),
        Op::Equals(literal) => {
            let is_exact = is_loose || matches!(literal, Literal::Time(_));
            out.push_str(if is_exact { " = " } else { ": " });
            push_literal(out, literal);
        }
        Op::EqualsAny(literals) => {
            let is_exact = is_loose || literals.iter().any(|literal| matches!(literal, Literal::Time(_)));
            let (open, separator) = if is_exact {
                (" in (", ", ")
            } else {
                (": (", " or ")
            };
            push_list(out, open, separator, literals, push_literal);
        }
        Op::EqualsProduct(texts) => push_alternatives(out, texts, |out, text| push_word(out, text)),
        Op::InNetwork(networks) => {
            push_alternatives(out, networks, |out, network| push_word(out, &network.to_string()));
        }
        Op::Wildcard(pattern) => {
            out.push_str(": ");
            push_pattern(out, pattern);
        }
        Op::Regex(regex) => {
            out.push_str(" ~ ");
            push_quoted(out, regex.as_str());
        }
        Op::StartsWith(text) => push_call(out, "startsWith", text),
        Op::EndsWith(text) => push_call(out, "endsWith", text),
        Op::Contains(text) => push_call(out, "contains", text.as_str()),
        Op::Compare(comparison, literal) => {
            out.push(' ');
            out.push_str(comparison.as_str());
            out.push(' ');
            push_literal(out, literal);
        }
        Op::Range { least, most } => {
            out.push_str(": [");
            push_literal(out, least);
            out.push_str(" TO ");
            push_literal(out, most);
            out.push(']');
        }
    }
}

fn push_call(out: &mut String, name: &str, text: &str) {
    out.push('.');
    out.push_str(name);
    out.push('(');
    push_quoted(out, text);
    out.push(')');
}

fn push_alternatives<T>(out: &mut String, values: &[T], push_one: impl Fn(&mut String, &T)) {
    match values {
        [only] => {
            out.push_str(": ");
            push_one(out, only);
        }
        values => push_list(out, ": (", " or ", values, push_one),
    }
}

fn push_list<T>(
    out: &mut String,
    open: &str,
    separator: &str,
    values: &[T],
    push_one: impl Fn(&mut String, &T),
) {
    out.push_str(open);
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push_str(separator);
        }
        push_one(out, value);
    }
    out.push(')');
}

fn push_literal(out: &mut String, literal: &Literal) {
    // Writing to a String cannot fail.
    let _written = match literal {
        Literal::Text(text) => {
            push_word(out, text);
            Ok(())
        }
        Literal::Number(number) => write!(out, "{number}"),
        Literal::Bool(value) => write!(out, "{value}"),
        Literal::Time(micros) => {
            out.push_str(&instant(*micros));
            Ok(())
        }
        Literal::Duration(micros) => {
            let (unit, length) = UNITS
                .iter()
                .find(|(_, length)| micros % length == 0)
                .unwrap_or(&("us", 1));
            match micros {
                0 => write!(out, "0s"),
                micros => write!(out, "{}{unit}", micros / length),
            }
        }
    };
}

/// RFC 3339 in UTC with six digits of fraction. What the calendar does not reach is its nearest end.
#[must_use]
pub fn instant(micros: i64) -> String {
    use jiff::Timestamp;
    let timestamp = Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    });
    format!("{timestamp:.6}")
}

/// A text that stands for itself: bare if every reader would take it so.
fn push_word(out: &mut String, text: &str) {
    let is_bare = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/')
        && text.chars().all(|char| {
            char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.' | '/' | ':' | '@' | '%' | '+')
        })
        && !text.ends_with(':')
        && !["and", "or", "not", "to", "in"]
            .iter()
            .any(|keyword| text.eq_ignore_ascii_case(keyword));
    if is_bare {
        out.push_str(text);
    } else {
        push_quoted(out, text);
    }
}

/// A bare word with wildcards.
fn push_pattern(out: &mut String, pattern: &Pattern) {
    for part in pattern.parts() {
        match part {
            PatternPart::Run => out.push('*'),
            PatternPart::One => out.push('?'),
            PatternPart::Literal(text) => {
                for char in text.chars() {
                    if !(char.is_alphanumeric() || matches!(char, '-' | '_' | '.' | '/' | '@')) {
                        out.push('\\');
                    }
                    out.push(char);
                }
            }
        }
    }
}

fn push_text(out: &mut String, test: &TextTest) {
    let parts: Vec<PatternPart<'_>> = test.pattern.parts().collect();
    let inner = match parts.as_slice() {
        [PatternPart::Run, inner @ .., PatternPart::Run] => Pattern::new(inner.iter().copied()),
        _ => test.pattern.clone(),
    };
    match inner.as_literal() {
        Some(text) => push_quoted(out, text),
        None => {
            let mut word = String::new();
            push_pattern(&mut word, &inner);
            // A minus in front would be an exclusion.
            if word.starts_with('-') {
                out.push('\\');
            }
            out.push_str(&word);
        }
    }
}
