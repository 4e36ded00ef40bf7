//! Whether a test holds of a value: one code for events, lines and the columns of a store.

use std::net::IpAddr;

use crate::column::Column;
use crate::derived;
use crate::expr::{Case, Comparison, Literal, Op, Test};
use crate::json;
use crate::pattern::lowered;
use crate::row::Row;

impl Test {
    /// Of the value of a column of texts.
    #[must_use]
    pub fn holds_text(&self, value: Option<&[u8]>) -> bool {
        value.is_some_and(|value| self.holds_present_text(value))
    }

    /// Of the values of a list: whether it holds for any.
    pub fn holds_texts<'v>(&self, values: impl IntoIterator<Item = &'v [u8]>) -> bool {
        values.into_iter().any(|value| self.holds_present_text(value))
    }

    /// Of the value of a column of numbers.
    #[must_use]
    pub fn holds_number(&self, value: Option<i64>) -> bool {
        let Some(value) = value else {
            return false;
        };
        let is = |literal: &Literal| literal.as_i64() == Some(value);
        match &self.op {
            Op::Exists => true,
            Op::Equals(literal) => is(literal),
            Op::EqualsAny(literals) => literals.iter().any(is),
            Op::Compare(comparison, literal) => literal
                .as_i64()
                .is_some_and(|literal| comparison.holds(value.cmp(&literal))),
            Op::Range { least, most } => match (least.as_i64(), most.as_i64()) {
                (Some(least), Some(most)) => (least..=most).contains(&value),
                _ => false,
            },
            _ => false,
        }
    }

    /// Of the value of a column of times, microseconds since 1970 in UTC.
    #[must_use]
    pub fn holds_time(&self, micros: Option<i64>) -> bool {
        self.holds_number(micros)
    }

    /// Of the value of a column of durations, microseconds.
    #[must_use]
    pub fn holds_duration(&self, micros: Option<i64>) -> bool {
        self.holds_number(micros)
    }

    /// Of the value of a column of yes and no.
    #[must_use]
    pub fn holds_bool(&self, value: Option<bool>) -> bool {
        let Some(value) = value else {
            return false;
        };
        match &self.op {
            Op::Exists => true,
            Op::Equals(literal) => *literal == Literal::Bool(value),
            Op::EqualsAny(literals) => literals.contains(&Literal::Bool(value)),
            _ => false,
        }
    }

    /// Of a body, valid JSON, through the path of the column.
    #[must_use]
    pub fn holds_json(&self, body: Option<&[u8]>) -> bool {
        let (Column::RequestObject(path) | Column::ResponseObject(path)) = &self.column else {
            return false;
        };
        body.is_some_and(|body| {
            json::at_path(body, path.segments(), &mut |value| self.holds_json_value(value))
        })
    }

    /// Whether it holds in a row.
    #[must_use]
    pub fn holds(&self, row: &Row<'_>) -> bool {
        use crate::ColumnType as T;
        match self.column.column_type() {
            T::Text => self.holds_text(row.text(&self.column).as_deref()),
            T::TextList => row.texts(&self.column, &mut |text| self.holds_present_text(&text)),
            T::Number | T::Time | T::Duration => self.holds_number(row.number(&self.column)),
            T::Bool => self.holds_bool(row.bool(&self.column)),
            T::Json => row.json(&self.column, &mut |value| self.holds_json_value(value)),
        }
    }

    pub(crate) fn holds_json_value(&self, value: &[u8]) -> bool {
        let is_object = value.first() == Some(&b'{');
        match &self.op {
            Op::Exists => true,
            _ if is_object => false,
            Op::Compare(comparison, literal) => compare_json(value, *comparison, literal),
            Op::Range { least, most } => {
                compare_json(value, Comparison::GreaterOrEqual, least)
                    && compare_json(value, Comparison::LessOrEqual, most)
            }
            _ => self.holds_present_text(&json::text_of(value)),
        }
    }

    fn holds_present_text(&self, value: &[u8]) -> bool {
        match self.case {
            Case::Insensitive if !matches!(self.op, Op::Regex(_)) => self.holds_cased(&lowered(value)),
            _ => self.holds_cased(value),
        }
    }

    /// The literals of a test that does not regard case are in lower case already.
    fn holds_cased(&self, value: &[u8]) -> bool {
        let is = |literal: &Literal| literal.as_text().is_some_and(|text| text.as_bytes() == value);
        match &self.op {
            Op::Exists => true,
            Op::Equals(literal) => is(literal),
            Op::EqualsAny(literals) => literals.iter().any(is),
            Op::EqualsProduct(texts) => {
                let product = derived::product(value);
                texts
                    .iter()
                    .map(String::as_bytes)
                    .any(|text| text == value || text == product)
            }
            Op::Wildcard(pattern) => pattern.matches(value),
            Op::Regex(regex) => regex.is_match(value),
            Op::StartsWith(text) => value.starts_with(text.as_bytes()),
            Op::EndsWith(text) => value.ends_with(text.as_bytes()),
            Op::Contains(text) => text.is_in(value),
            Op::InNetwork(networks) => {
                let address = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse::<IpAddr>().ok());
                address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
            }
            Op::Compare(..) | Op::Range { .. } => false,
        }
    }
}

/// Of a number in a body; of nothing else.
fn compare_json(value: &[u8], comparison: Comparison, literal: &Literal) -> bool {
    let (Some(literal), Ok(text)) = (literal.as_i64(), std::str::from_utf8(value)) else {
        return false;
    };
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return false;
    }
    if let Ok(number) = text.parse::<i64>() {
        return comparison.holds(number.cmp(&literal));
    }
    // Fractions and exponents; exact up to 2^53.
    #[expect(
        clippy::cast_precision_loss,
        reason = "compared with a number that is no integer"
    )]
    let literal = literal as f64;
    text.parse::<f64>()
        .ok()
        .and_then(|number| number.partial_cmp(&literal))
        .is_some_and(|ordering| comparison.holds(ordering))
}
