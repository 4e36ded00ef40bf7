//! A document as a tree that remembers where everything stood.

/// A place in the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A value and where it began.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// A JSON value; YAML is read into the same.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// The number's text.
    Number(String),
    String(String),
    List(Vec<Node>),
    /// Members in document order (JSON) or in the order of their keys (YAML), as the decoders see
    /// them.
    Map(Vec<Member>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) at: Position,
    pub(crate) key: String,
    pub(crate) node: Node,
}

impl Value {
    /// The word for this kind of value in Go's error texts.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::List(_) => "array",
            Self::Map(_) => "object",
        }
    }
}

/// Levels of nesting that are read.
pub(crate) const MAX_DEPTH: usize = 100;

/// Values that aliases may expand to.
pub(crate) const MAX_NODES: usize = 1_000_000;

/// A string as Go's `%q` prints it, for error texts.
pub(crate) fn quoted(text: &str) -> String {
    kaudit_event::go_quoted(text.as_bytes())
}
