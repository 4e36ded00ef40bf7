//! Whether values fit their column, and what they then mean.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::comparison::{Operator, Raw};
use super::time::{self, Interval};
use super::{MAX_REGEXES, Parser};
use crate::column::{Column, ColumnType};
use crate::diagnostic::{self as codes, Diagnostic};
use crate::expr::{Case, Comparison, Expr, Literal, Op, Regex};
use crate::pattern::Substring;

/// What the values are for.
pub(super) struct Wanted<'c> {
    pub(super) column: Option<&'c Column>,
    pub(super) operator: Operator,
    /// Where the field stands.
    pub(super) field: Range<usize>,
    pub(super) case: Case,
}

/// What is found in a list of values, by kind.
#[derive(Default)]
struct Gathered {
    equal: Vec<Literal>,
    products: Vec<String>,
    networks: Vec<IpNet>,
    others: Vec<Op>,
    /// The empty text was among them, and stands for no value.
    absent: bool,
}

const fn is_address(column: &Column) -> bool {
    matches!(column, Column::SourceIps | Column::SourceIp)
}

impl Parser<'_> {
    /// The condition that any of `raws` sets. With a mistake, it is told, and the answer means nothing.
    pub(super) fn check(&mut self, wanted: &Wanted<'_>, raws: &[Raw]) -> Expr {
        let Some(column) = wanted.column else {
            return Expr::Everything;
        };
        let column_type = column.column_type();
        let is_text = matches!(
            column_type,
            ColumnType::Text | ColumnType::TextList | ColumnType::Json
        );
        if wanted.case == Case::Insensitive && !is_text {
            let message = format!("`lower()` is for texts; `{column}` is a {}", column_type.name());
            self.error(codes::WRONG_OPERATOR, wanted.field.clone(), message);
            return Expr::Everything;
        }
        match wanted.operator {
            Operator::Compare(comparison) => match raws {
                [raw] => self.compare(wanted, column, comparison, raw),
                _ => Expr::Everything,
            },
            Operator::Regex => match raws {
                [raw] if is_text => self.regex(column, raw),
                _ => self.wrong_operator(wanted, column, "a regular expression is for texts"),
            },
            Operator::Match | Operator::Exact => {
                let mut gathered = Gathered::default();
                for raw in raws {
                    self.gather(wanted, column, raw, &mut gathered);
                }
                gathered.into_expr(column, wanted.case)
            }
        }
    }

    fn wrong_operator(&mut self, wanted: &Wanted<'_>, column: &Column, why: &str) -> Expr {
        let message = format!("{why}; `{column}` is a {}", column.column_type().name());
        self.error(codes::WRONG_OPERATOR, wanted.field.start..self.at, message);
        Expr::Everything
    }

    fn wrong_type(&mut self, column: &Column, raw: &Raw, help: &str) {
        let message = format!(
            "`{}` is no value of `{column}`, a {}",
            raw.text,
            column.column_type().name()
        );
        self.report(Diagnostic::error(codes::WRONG_TYPE, raw.span.clone(), message).help(help));
    }

    fn gather(&mut self, wanted: &Wanted<'_>, column: &Column, raw: &Raw, into: &mut Gathered) {
        if raw.has_wildcards {
            if wanted.operator == Operator::Exact {
                let field = self.slice(wanted.field.clone()).to_owned();
                self.report(
                    Diagnostic::error(
                        codes::WILDCARD,
                        raw.span.clone(),
                        format!(
                            "`{}` has a wildcard, and this operator compares exactly",
                            raw.text
                        ),
                    )
                    .help(format!(
                        "a wildcard: `{field}: {}`   the character itself: `\"{}\"`",
                        raw.text, raw.text
                    )),
                );
                return;
            }
            if raw.pattern.is_everything() {
                into.others.push(Op::Exists);
                return;
            }
        }
        match column.column_type() {
            ColumnType::Text | ColumnType::TextList | ColumnType::Json => {
                self.gather_text(wanted, column, raw, into)
            }
            ColumnType::Number => match raw.text.parse() {
                Ok(number) if !raw.has_wildcards => into.equal.push(Literal::Number(number)),
                _ => self.no_number(wanted, column, raw),
            },
            ColumnType::Bool => match raw.text.to_ascii_lowercase().as_str() {
                "true" => into.equal.push(Literal::Bool(true)),
                "false" => into.equal.push(Literal::Bool(false)),
                _ => self.wrong_type(column, raw, "write `true` or `false`"),
            },
            ColumnType::Time => {
                let Some(interval) = self.interval(column, raw) else {
                    return;
                };
                if interval.first == interval.last || (wanted.operator == Operator::Exact && !interval.is_day)
                {
                    into.equal.push(Literal::Time(interval.first));
                } else {
                    into.others.push(Op::Range {
                        least: Literal::Time(interval.first),
                        most: Literal::Time(interval.last),
                    });
                }
            }
            ColumnType::Duration => {
                if let Some(micros) = self.duration(column, raw) {
                    into.equal.push(Literal::Duration(micros));
                }
            }
        }
    }

    fn gather_text(&mut self, wanted: &Wanted<'_>, column: &Column, raw: &Raw, into: &mut Gathered) {
        let is_match = wanted.operator == Operator::Match;
        if raw.text.is_empty() && column.column_type() == ColumnType::Text && !column.knows_empty() {
            into.absent = true;
        } else if raw.has_wildcards {
            into.others.push(Op::Wildcard(raw.pattern.clone()));
        } else if is_address(column) && is_match {
            into.networks.extend(self.network(raw));
        } else if *column == Column::UserAgent && is_match {
            into.products.push(raw.text.clone());
        } else {
            if is_address(column) && raw.text.contains('/') {
                self.report(
                    Diagnostic::error(
                        codes::BAD_NETWORK,
                        raw.span.clone(),
                        format!("no address is the text `{}`", raw.text),
                    )
                    .help(format!("addresses in a network: `{column}: {}`", raw.text)),
                );
            }
            self.check_named(wanted, column, raw);
            into.equal.push(Literal::Text(raw.text.clone()));
        }
    }

    /// Of a column whose values are known, only these can be meant.
    fn check_named(&mut self, wanted: &Wanted<'_>, column: &Column, raw: &Raw) {
        let values = column.info().values;
        let is_known = values.is_empty()
            || values.iter().any(|value| match wanted.case {
                Case::Sensitive => *value == raw.text,
                Case::Insensitive => value.to_lowercase() == raw.text.to_lowercase(),
            });
        if is_known {
            return;
        }
        let distance =
            |value: &str| strsim::damerau_levenshtein(&value.to_lowercase(), &raw.text.to_lowercase());
        let contains = |value: &str| !value.to_lowercase().contains(&raw.text.to_lowercase());
        let mut diagnostic = Diagnostic::error(
            codes::UNKNOWN_VALUE,
            raw.span.clone(),
            format!("`{column}` is never `{}`", raw.text),
        )
        .help(format!("it is one of `{}`", values.join("`, `")));
        let near = values
            .iter()
            .min_by_key(|value| (contains(value), distance(value)));
        if let Some(near) = near.filter(|near| !contains(near) || distance(near) <= 3) {
            diagnostic = diagnostic.fix(raw.span.clone(), *near);
        }
        self.report(diagnostic);
    }

    fn no_number(&mut self, wanted: &Wanted<'_>, column: &Column, raw: &Raw) {
        let hundreds = raw.text.trim_end_matches(['*', 'x', 'X', '?']);
        let field = self.slice(wanted.field.clone()).to_owned();
        match hundreds {
            "1" | "2" | "3" | "4" | "5" if *column == Column::ResponseCode => {
                let range = format!("[{hundreds}00 TO {hundreds}99]");
                let message = format!("`{}` is no number", raw.text);
                self.report(
                    Diagnostic::error(codes::WRONG_TYPE, raw.span.clone(), message)
                        .help(format!("a range: `{field}: {range}`"))
                        .fix(raw.span.clone(), range),
                );
            }
            _ => self.wrong_type(column, raw, "write a whole number"),
        }
    }

    fn network(&mut self, raw: &Raw) -> Option<IpNet> {
        let network = match raw.text.contains('/') {
            true => raw.text.parse().ok(),
            false => raw.text.parse::<IpAddr>().ok().map(IpNet::from),
        };
        if network.is_none() {
            let message = format!("`{}` is no address and no network", raw.text);
            self.report(
                Diagnostic::error(codes::BAD_NETWORK, raw.span.clone(), message)
                    .help("write an address, a network as `10.0.0.0/8`, or a wildcard as `10.0.*`"),
            );
        }
        network
    }

    fn interval(&mut self, column: &Column, raw: &Raw) -> Option<Interval> {
        let interval = time::instant(&raw.text, self.now, self.zone).filter(|_| !raw.has_wildcards);
        if interval.is_none() {
            self.wrong_type(
                column,
                raw,
                "write `2026-11-20`, `2026-11-20T10:00:00Z`, `now` or `now-1h`",
            );
        }
        interval
    }

    fn duration(&mut self, column: &Column, raw: &Raw) -> Option<i64> {
        let duration = time::duration(&raw.text).filter(|_| !raw.has_wildcards);
        if duration.is_none() {
            self.wrong_type(
                column,
                raw,
                "write a number with its unit: `500ms`, `2s`, `1h30m`",
            );
        }
        duration
    }

    fn regex(&mut self, column: &Column, raw: &Raw) -> Expr {
        self.regexes += 1;
        if self.regexes > MAX_REGEXES {
            let message = format!("a filter has at most {MAX_REGEXES} regular expressions");
            self.error(codes::BAD_REGEX, raw.span.clone(), message);
            return Expr::Everything;
        }
        match Regex::new(&raw.text) {
            Ok(regex) => Expr::test(column.clone(), Case::Sensitive, Op::Regex(regex)),
            Err(error) => {
                let why = error.to_string();
                let last = why
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
                    .to_owned();
                self.report(
                    Diagnostic::error(
                        codes::BAD_REGEX,
                        raw.span.clone(),
                        format!("this is no regular expression: {last}"),
                    )
                    .help("the syntax is RE2's: no look-around and no back-references"),
                );
                Expr::Everything
            }
        }
    }

    fn compare(&mut self, wanted: &Wanted<'_>, column: &Column, comparison: Comparison, raw: &Raw) -> Expr {
        let literal = match column.column_type() {
            ColumnType::Number | ColumnType::Json => match raw.text.parse() {
                Ok(number) => Some(Literal::Number(number)),
                Err(_) => {
                    self.wrong_type(column, raw, "write a whole number");
                    None
                }
            },
            ColumnType::Time => self.interval(column, raw).map(|interval| {
                // A day is passed when it is over, and reached when it begins.
                let is_end = matches!(comparison, Comparison::Greater | Comparison::LessOrEqual);
                Literal::Time(if is_end && interval.is_day {
                    interval.last
                } else {
                    interval.first
                })
            }),
            ColumnType::Duration => self.duration(column, raw).map(Literal::Duration),
            ColumnType::Text | ColumnType::TextList | ColumnType::Bool => {
                return self.wrong_operator(wanted, column, "less and more are for numbers and times");
            }
        };
        literal.map_or(Expr::Everything, |literal| {
            Expr::test(column.clone(), Case::Sensitive, Op::Compare(comparison, literal))
        })
    }

    /// `[least TO most]`, of which either may be `*`.
    pub(super) fn check_range(
        &mut self,
        wanted: &Wanted<'_>,
        least: &Raw,
        most: &Raw,
        span: Range<usize>,
    ) -> Expr {
        let Some(column) = wanted.column else {
            return Expr::Everything;
        };
        let is_open = |raw: &Raw| raw.has_wildcards && raw.pattern.is_everything();
        let from = Comparison::GreaterOrEqual;
        let to = Comparison::LessOrEqual;
        if wanted.case == Case::Insensitive {
            return self.wrong_operator(wanted, column, "`lower()` is for texts");
        }
        match (is_open(least), is_open(most)) {
            (true, true) => return Expr::test(column.clone(), Case::Sensitive, Op::Exists),
            (true, false) => return self.compare(wanted, column, to, most),
            (false, true) => return self.compare(wanted, column, from, least),
            (false, false) => {}
        }
        let bound = |expr: Expr| match expr {
            Expr::Test(test) => match test.op {
                Op::Compare(_, literal) => Some(literal),
                _ => None,
            },
            _ => None,
        };
        let least = bound(self.compare(wanted, column, from, least));
        // A column of the wrong type is told once.
        let most = least
            .is_some()
            .then(|| bound(self.compare(wanted, column, to, most)))
            .flatten();
        let (Some(least), Some(most)) = (least, most) else {
            return Expr::Everything;
        };
        if least.as_i64() > most.as_i64() {
            self.error(codes::EMPTY_RANGE, span, "this range ends before it begins");
        }
        Expr::test(column.clone(), Case::Sensitive, Op::Range { least, most })
    }

    pub(super) fn check_function(
        &mut self,
        column: &Column,
        name: &str,
        call: Range<usize>,
        argument: &str,
        span: Range<usize>,
        case: Case,
    ) -> Expr {
        if !matches!(
            column.column_type(),
            ColumnType::Text | ColumnType::TextList | ColumnType::Json
        ) {
            let message = format!(
                "`{name}` is for texts; `{column}` is a {}",
                column.column_type().name()
            );
            self.error(codes::WRONG_OPERATOR, call, message);
            return Expr::Everything;
        }
        let op = match name {
            "startsWith" => Op::StartsWith(argument.to_owned()),
            "endsWith" => Op::EndsWith(argument.to_owned()),
            "contains" => Op::Contains(Substring::new(argument)),
            _ => {
                let raw = Raw {
                    span,
                    text: argument.to_owned(),
                    pattern: crate::Pattern::literal(argument),
                    has_wildcards: false,
                };
                return self.regex(column, &raw);
            }
        };
        Expr::test(column.clone(), case, op)
    }
}

impl Gathered {
    fn into_expr(mut self, column: &Column, case: Case) -> Expr {
        let mut ops = Vec::new();
        match self.equal.len() {
            0 => {}
            1 => ops.push(Op::Equals(self.equal.remove(0))),
            _ => ops.push(Op::EqualsAny(self.equal)),
        }
        if !self.products.is_empty() {
            ops.push(Op::EqualsProduct(self.products));
        }
        if !self.networks.is_empty() {
            ops.push(Op::InNetwork(self.networks));
        }
        ops.extend(self.others);
        let has_case = |op: &Op| {
            !matches!(
                op,
                Op::Exists | Op::Compare(..) | Op::Range { .. } | Op::InNetwork(_) | Op::Regex(_)
            )
        };
        let test = |op: Op| {
            let case = if has_case(&op) { case } else { Case::Sensitive };
            Expr::test(column.clone(), case, op)
        };
        let absent = self.absent.then(|| test(Op::Exists).negated());
        let is_empty = ops.is_empty() && absent.is_none();
        if is_empty {
            return Expr::Everything;
        }
        Expr::any(ops.into_iter().map(test).chain(absent))
    }
}
