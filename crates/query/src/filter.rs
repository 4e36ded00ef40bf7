//! A filter: a checked tree that is evaluated on events.

use jiff::tz::TimeZone;
use kaudit_event::MicroTime;

use crate::column::{Column, ColumnType};
use crate::diagnostic::Diagnostic;
use crate::expr::{Bodies, Case, Expr, Leaf, Literal, Op, Test, TextTest};
use crate::json;
use crate::parse;
use crate::pattern::{Pattern, Substring};
use crate::row::Row;

/// A condition on events. What it means is [`Filter::matches`]; everything else that evaluates a filter
/// must agree with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    expr: Expr,
}

impl Filter {
    /// Reads a filter. `now` is what `now-1h` is counted from; the filter holds the instant. The empty
    /// text is the filter that every event satisfies.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the text, in the order in which it stands there.
    pub fn parse(text: &str, now: MicroTime) -> Result<Self, Vec<Diagnostic>> {
        Self::parse_in(text, now, &TimeZone::UTC)
    }

    /// The same, with times that name no offset in `zone` in place of UTC; the filter holds instants.
    ///
    /// # Errors
    ///
    /// As of [`Filter::parse`].
    pub fn parse_in(text: &str, now: MicroTime, zone: &TimeZone) -> Result<Self, Vec<Diagnostic>> {
        parse::parse(text, now, zone).map(Self::new)
    }

    /// The filter of a tree. Literals of tests that do not regard case are brought to lower case, and
    /// nodes to their plainest form.
    #[must_use]
    pub fn new(expr: Expr) -> Self {
        Self { expr: plain(expr) }
    }

    /// Every event.
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            expr: Expr::Everything,
        }
    }

    /// What satisfies both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            expr: Expr::all([self.expr, other.expr]),
        }
    }

    /// The same filter, whose free texts are also looked for in bodies. [`Filter`] prints without this.
    #[must_use]
    pub fn searching_bodies(self) -> Self {
        Self {
            expr: map_text(self.expr, &|test| TextTest {
                bodies: Bodies::Searched,
                ..test
            }),
        }
    }

    /// The same filter with every test disregarding case: what to suggest when nothing satisfies it.
    #[must_use]
    pub fn disregarding_case(self) -> Self {
        Self::new(map_test(self.expr, &|test| Test {
            case: match test.op {
                Op::Equals(Literal::Text(_))
                | Op::EqualsAny(_)
                | Op::EqualsProduct(_)
                | Op::Wildcard(_)
                | Op::StartsWith(_)
                | Op::EndsWith(_)
                | Op::Contains(_)
                    if matches!(
                        test.column.column_type(),
                        ColumnType::Text | ColumnType::TextList | ColumnType::Json
                    ) =>
                {
                    Case::Insensitive
                }
                _ => test.case,
            },
            ..test
        }))
    }

    /// The checked tree.
    #[must_use]
    pub const fn expr(&self) -> &Expr {
        &self.expr
    }

    /// The columns it looks at, each once, in their order in the table. Free text looks at further ones:
    /// see [`TextTest`].
    #[must_use]
    pub fn columns(&self) -> Vec<Column> {
        let mut columns = Vec::new();
        self.expr.visit(&mut |leaf| {
            if let Leaf::Test(test) = leaf {
                columns.push(test.column.clone());
            }
        });
        columns.sort();
        columns.dedup();
        columns
    }

    /// Whether an event satisfies it: the definition of the language.
    #[must_use]
    pub fn matches(&self, row: &Row<'_>) -> bool {
        matches(&self.expr, row)
    }
}

fn matches(expr: &Expr, row: &Row<'_>) -> bool {
    match expr {
        Expr::Everything => true,
        Expr::Nothing => false,
        Expr::And(parts) => parts.iter().all(|part| matches(part, row)),
        Expr::Or(parts) => parts.iter().any(|part| matches(part, row)),
        Expr::Not(inner) => !matches(inner, row),
        Expr::Test(test) => test.holds(row),
        Expr::Text(text) => text.holds(row),
    }
}

/// The columns that free text is looked for in, beside the bodies.
pub const TEXT_COLUMNS: &[Column] = &[
    Column::ObjectName,
    Column::UserUsername,
    Column::ImpersonatedUsername,
    Column::RequestUri,
    Column::UserAgent,
];

impl TextTest {
    /// Of the text of one of [`TEXT_COLUMNS`].
    #[must_use]
    pub fn holds_text(&self, value: Option<&[u8]>) -> bool {
        value.is_some_and(|value| self.pattern.matches(value))
    }

    /// Of a body, if bodies are looked through.
    #[must_use]
    pub fn holds_body(&self, body: Option<&[u8]>) -> bool {
        self.bodies == Bodies::Searched
            && body.is_some_and(|body| {
                json::scalars(body, &mut |scalar| self.pattern.matches(&json::text_of(scalar)))
            })
    }

    /// Whether it holds in a row.
    #[must_use]
    pub fn holds(&self, row: &Row<'_>) -> bool {
        TEXT_COLUMNS
            .iter()
            .any(|column| self.holds_text(row.text(column).as_deref()))
            || self.holds_body(row.event.request_object())
            || self.holds_body(row.event.response_object())
    }
}

fn map_text(expr: Expr, change: &impl Fn(TextTest) -> TextTest) -> Expr {
    let all = |parts: Vec<Expr>| parts.into_iter().map(|part| map_text(part, change)).collect();
    match expr {
        Expr::And(parts) => Expr::And(all(parts)),
        Expr::Or(parts) => Expr::Or(all(parts)),
        Expr::Not(inner) => Expr::Not(Box::new(map_text(*inner, change))),
        Expr::Text(text) => Expr::Text(change(text)),
        other => other,
    }
}

fn map_test(expr: Expr, change: &impl Fn(Test) -> Test) -> Expr {
    let all = |parts: Vec<Expr>| parts.into_iter().map(|part| map_test(part, change)).collect();
    match expr {
        Expr::And(parts) => Expr::And(all(parts)),
        Expr::Or(parts) => Expr::Or(all(parts)),
        Expr::Not(inner) => Expr::Not(Box::new(map_test(*inner, change))),
        Expr::Test(test) => Expr::Test(change(test)),
        other => other,
    }
}

fn plain(expr: Expr) -> Expr {
    match expr {
        Expr::And(parts) => Expr::all(parts.into_iter().map(plain)),
        Expr::Or(parts) => Expr::any(parts.into_iter().map(plain)),
        Expr::Not(inner) => plain(*inner).negated(),
        Expr::Test(test) => plain_test(test),
        other => other,
    }
}

fn plain_test(mut test: Test) -> Expr {
    if test.case == Case::Insensitive {
        test.op = lowered(test.op);
    }
    let is_empty = match &test.op {
        Op::EqualsAny(literals) => literals.is_empty(),
        Op::EqualsProduct(texts) => texts.is_empty(),
        Op::InNetwork(networks) => networks.is_empty(),
        _ => false,
    };
    if is_empty {
        return Expr::Nothing;
    }
    test.op = match test.op {
        Op::EqualsAny(mut literals) if literals.len() == 1 => Op::Equals(literals.remove(0)),
        Op::Wildcard(pattern) if pattern.is_everything() => Op::Exists,
        Op::Wildcard(pattern) => match pattern.as_literal() {
            Some(text) => Op::Equals(Literal::Text(text.to_owned())),
            None => Op::Wildcard(pattern),
        },
        other => other,
    };
    Expr::Test(test)
}

fn lowered(op: Op) -> Op {
    let low = |literal: Literal| match literal {
        Literal::Text(text) => Literal::Text(text.to_lowercase()),
        other => other,
    };
    match op {
        Op::Equals(literal) => Op::Equals(low(literal)),
        Op::EqualsAny(literals) => Op::EqualsAny(literals.into_iter().map(low).collect()),
        Op::EqualsProduct(texts) => {
            Op::EqualsProduct(texts.into_iter().map(|text| text.to_lowercase()).collect())
        }
        Op::Wildcard(pattern) => Op::Wildcard(Pattern::lowered(&pattern)),
        Op::StartsWith(text) => Op::StartsWith(text.to_lowercase()),
        Op::EndsWith(text) => Op::EndsWith(text.to_lowercase()),
        Op::Contains(text) => Op::Contains(Substring::new(&text.as_str().to_lowercase())),
        other => other,
    }
}
