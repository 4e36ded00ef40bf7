//! A YAML or JSON file as a tree that remembers where everything stood.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A larger file is refused unread.
pub(crate) const MAX_FILE_BYTES: usize = 4 << 20;

/// A place in the file, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value and where it began.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// A value; scalars that are not text keep a spelling.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Why a text is no document.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) at: Position,
    pub(crate) message: String,
}

/// Every document of `text`; empty ones are left out.
pub(crate) fn read(text: &str) -> Result<Vec<Node>, Unreadable> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Unreadable {
            at: Position { line: 1, column: 1 },
            message: format!(
                "the file has {} bytes, at most {MAX_FILE_BYTES} are read",
                text.len()
            ),
        });
    }
    serde_saphyr::from_multiple::<Node>(text).map_err(|error| {
        let error = error.without_snippet();
        Unreadable {
            at: error.location().map_or(Position { line: 1, column: 1 }, position),
            message: error.to_string(),
        }
    })
}

fn position(at: serde_saphyr::Location) -> Position {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX).max(1);
    Position {
        line: number(at.line()),
        column: number(at.column()),
    }
}

impl Node {
    /// The member's value.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.member(key).map(|(_, value)| value)
    }

    /// Key and value.
    pub(crate) fn member(&self, key: &str) -> Option<&(Self, Self)> {
        self.members()
            .iter()
            .find(|(name, _)| name.text().as_deref() == Some(key))
    }

    /// The value at the end of `path`.
    pub(crate) fn at_path(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The members of a map, otherwise none.
    pub(crate) fn members(&self) -> &[(Self, Self)] {
        match &self.value {
            Value::Map(members) => members,
            _ => &[],
        }
    }

    /// The items of a list, otherwise none.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// A scalar as text.
    pub(crate) fn text(&self) -> Option<String> {
        match &self.value {
            Value::String(text) | Value::Number(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The text of the member `key`.
    pub(crate) fn text_of(&self, key: &str) -> Option<String> {
        self.get(key)?.text()
    }

    /// Whether the member `key` is `true`.
    pub(crate) fn is_true(&self, key: &str) -> bool {
        matches!(
            self.get(key),
            Some(Self {
                value: Value::Bool(true),
                ..
            })
        )
    }

    pub(crate) const fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    pub(crate) const fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            at: position(spanned.referenced),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry()? {
            map.push(member);
        }
        Ok(Value::Map(map))
    }
}

/// How positions in a text that stands inside of a file become positions in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shift {
    lines: usize,
    columns: usize,
    /// The text's lines are no lines of the file: everything stands where the text begins.
    is_fixed: bool,
}

impl Shift {
    /// Of the text in the scalar `node` of `file`, which is itself shifted by nothing.
    pub(crate) fn of(file: &str, node: &Node) -> Self {
        let text = node.text().unwrap_or_default();
        let blank = text.lines().take_while(|line| line.trim().is_empty()).count();
        let first = text.lines().nth(blank).unwrap_or_default();
        let (line, column) = (node.at.line.saturating_sub(1), node.at.column.saturating_sub(1));
        let is_block = file
            .lines()
            .nth(line)
            .is_some_and(|source| text.contains('\n') && source.chars().skip(column).eq(first.chars()));
        if is_block {
            Self {
                lines: line.saturating_sub(blank),
                columns: column,
                is_fixed: false,
            }
        } else {
            Self {
                lines: line,
                columns: column,
                is_fixed: true,
            }
        }
    }

    pub(crate) const fn apply(self, at: Position) -> Position {
        if self.is_fixed {
            return Position {
                line: self.lines + 1,
                column: self.columns + 1,
            };
        }
        Position {
            line: self.lines + at.line,
            column: self.columns + at.column,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_where_it_stands() {
        let text = "a: 1\nb:\n  - x: \"y\"\n    z: true\n---\n{\"k\": [null]}\n";
        let documents = read(text).unwrap();
        assert_eq!(documents.len(), 2);
        let item = &documents[0].get("b").unwrap().items()[0];
        assert_eq!(item.get("z").unwrap().at, Position { line: 4, column: 8 });
        assert_eq!(item.member("z").unwrap().0.at, Position { line: 4, column: 5 });
        assert_eq!(documents[1].get("k").unwrap().at.line, 6);
        assert_eq!(documents[0].text_of("a").as_deref(), Some("1"));
    }

    #[test]
    fn a_line_of_a_literal_block_is_a_line_of_the_file() {
        let text = "a:\n- |\n\n  kind: X\n  b: 1\nc: \"x: 1\\ny: 2\"\n";
        let documents = read(text).unwrap();
        let block = &documents[0].get("a").unwrap().items()[0];
        let shift = Shift::of(text, block);
        let inner = read(&block.text().unwrap()).unwrap();
        let at = inner[0].member("b").unwrap().0.at;
        assert_eq!(shift.apply(at), Position { line: 5, column: 3 });
        let quoted = documents[0].get("c").unwrap();
        let at = Position { line: 2, column: 4 };
        assert_eq!(Shift::of(text, quoted).apply(at), quoted.at);
    }

    #[test]
    fn a_text_that_is_no_document_names_its_line() {
        let error = read("a: 1\nb: [\n").unwrap_err();
        assert!(error.at.line >= 2, "{error:?}");
    }
}
