//! What may stand at a place in a text.

use std::ops::Range;

use jiff::tz::TimeZone;
use kaudit_event::MicroTime;
use serde::Serialize;

use super::comparison::FUNCTIONS;
use super::word::is_word_char;
use super::{MAX_TEXT_BYTES, Parser, Want};
use crate::column::{COLUMNS, Column, ColumnType};

/// What an editor offers at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Completions {
    /// What the chosen one replaces, in bytes of the text: the word that is half written.
    pub replaces: Range<usize>,
    /// The field whose value may stand here, so that values from elsewhere may be offered as well.
    pub value_of: Option<String>,
    /// What this crate knows, best first.
    pub items: Vec<Completion>,
}

/// One thing that may stand at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Completion {
    /// What is put in.
    pub text: String,
    /// What it is.
    pub kind: CompletionKind,
    /// One line for people; may be empty.
    pub doc: &'static str,
}

/// What a completion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CompletionKind {
    /// A field.
    Field,
    /// An operator or function.
    Operator,
    /// A value.
    Value,
    /// `and`, `or`, `not`, `TO` and parentheses.
    Keyword,
}

/// What may stand at `cursor`, a byte of `text`. A cursor inside a character, or beyond the end, is moved
/// to the character's beginning or the end; what stands behind it is not looked at.
#[must_use]
pub fn complete(text: &str, cursor: usize) -> Completions {
    let mut end = cursor.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or_default();
    if before.len() > MAX_TEXT_BYTES {
        return Completions {
            replaces: end..end,
            value_of: None,
            items: Vec::new(),
        };
    }
    // What a time means is of no interest here.
    let (now, zone) = (MicroTime::from_unix(0, 0), TimeZone::UTC);
    let mut parser = Parser::new(before, now, &zone);
    parser.filter();
    // The last place where something was expected, with nothing but one half-written word behind it.
    let is_one_word = |at: usize| {
        before.get(at..).is_some_and(|word| {
            word.chars().all(|char| is_word_char(char) || char == '"')
                && !word.contains("&&")
                && !word.contains("||")
        })
    };
    let mut wants: Vec<&(usize, Want)> = parser.wanted.iter().filter(|(at, _)| is_one_word(*at)).collect();
    wants.dedup();
    let start = wants.iter().map(|(at, _)| *at).filter(|at| *at < end).max();
    let start = start.unwrap_or(end);
    let mut found = Completions {
        replaces: start..end,
        value_of: None,
        items: Vec::new(),
    };
    let typed = before.get(start..).unwrap_or_default();
    for (at, want) in &wants {
        if *at == start {
            found.offer(want, typed);
        }
    }
    // Behind a whole field, its operators; they replace nothing. A value that is not known here may be begun, though.
    let is_value = found.value_of.is_some();
    if (found.items.is_empty() && !is_value) || Column::from_name(typed).is_some() {
        let more: Vec<_> = wants.iter().filter(|(at, _)| *at == end && start < end).collect();
        if !more.is_empty() {
            found = Completions {
                replaces: end..end,
                value_of: None,
                items: Vec::new(),
            };
            for (_, want) in more {
                found.offer(want, "");
            }
        }
    }
    found
}

/// Verbs that Kubernetes has.
const VERBS: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];

impl Completions {
    fn push(&mut self, typed: &str, text: impl Into<String>, kind: CompletionKind, doc: &'static str) {
        let text = text.into();
        let is_meant = text
            .get(..typed.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(typed));
        if is_meant && !self.items.iter().any(|item| item.text == text) {
            self.items.push(Completion { text, kind, doc });
        }
    }

    fn offer(&mut self, want: &Want, typed: &str) {
        use CompletionKind::{Field, Keyword, Operator, Value};
        match want {
            Want::Operand => {
                for info in COLUMNS {
                    if let Some(short) = info
                        .short
                        .filter(|short| !typed.is_empty() && short.starts_with(typed))
                    {
                        self.push(typed, short, Field, info.doc);
                    }
                    let follows = if info.has_key() { ".\"" } else { "" };
                    self.push(typed, format!("{}{follows}", info.name), Field, info.doc);
                }
                self.push(typed, "not", Keyword, "the opposite");
                self.push(typed, "(", Keyword, "");
            }
            Want::Operator(column) => {
                let column_type = column.column_type();
                self.push(typed, ":", Operator, "is, with wildcards and lists");
                self.push(typed, "=", Operator, "is exactly");
                self.push(typed, "!=", Operator, "is not, or is absent");
                match column_type {
                    ColumnType::Text | ColumnType::TextList | ColumnType::Json => {
                        self.push(typed, "~", Operator, "matches a regular expression");
                        for function in FUNCTIONS {
                            self.push(typed, format!(".{function}(\""), Operator, "");
                        }
                    }
                    ColumnType::Number | ColumnType::Time | ColumnType::Duration | ColumnType::Bool => {}
                }
                if matches!(
                    column_type,
                    ColumnType::Number | ColumnType::Time | ColumnType::Duration | ColumnType::Json
                ) {
                    for operator in [">=", ">", "<=", "<"] {
                        self.push(typed, operator, Operator, "");
                    }
                }
                self.push(typed, "in (", Operator, "is one of");
            }
            Want::Value(column) => {
                self.value_of = Some(column.name().into_owned());
                let values = match column {
                    Column::Verb => VERBS,
                    Column::Decision => &["allow", "forbid"],
                    Column::StageTimestamp | Column::RequestReceivedTimestamp => {
                        &["now-1h", "now-24h", "now"]
                    }
                    column if column.column_type() == ColumnType::Bool => &["true", "false"],
                    column => column.info().values,
                };
                for value in values {
                    self.push(typed, *value, Value, "");
                }
                self.push(typed, "*", Value, "any value");
            }
            Want::Join { in_group } => {
                self.push(typed, "and", Keyword, "");
                self.push(typed, "or", Keyword, "");
                if *in_group {
                    self.push(typed, ")", Keyword, "");
                }
            }
            Want::ListJoin => {
                self.push(typed, "or", Keyword, "");
                self.push(typed, ")", Keyword, "");
            }
            Want::To => self.push(typed, "TO", Keyword, ""),
        }
    }
}
