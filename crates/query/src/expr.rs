//! The checked tree of a filter.

use std::fmt;
use std::hash::{Hash, Hasher};

use ipnet::IpNet;

use crate::column::Column;
use crate::pattern::{Pattern, Substring};

/// A condition on one event. Two-valued: what is not true is false, and [`Expr::Not`] is the exact
/// complement, so a field that is absent satisfies `verb != get`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a plan must look at each node")]
pub enum Expr {
    /// Every event.
    Everything,
    /// No event.
    Nothing,
    /// All of these, at least two.
    And(Vec<Self>),
    /// Any of these, at least two.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// A test of one column.
    Test(Test),
    /// A text somewhere in the event.
    Text(TextTest),
}

/// A test of one column. On a list, and on a path of a body, it holds when it holds for any value. It
/// never holds for an absent value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a column, how to compare, and with what"
)]
pub struct Test {
    /// What is looked at.
    pub column: Column,
    /// How texts are compared.
    pub case: Case,
    /// What must hold of it.
    pub op: Op,
}

/// Whether upper and lower case differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "they do or they do not")]
pub enum Case {
    /// They differ.
    #[default]
    Sensitive,
    /// They do not: values are compared in lower case. A regular expression has its own flags and takes
    /// no notice.
    Insensitive,
}

/// What must hold of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a plan must look at each")]
pub enum Op {
    /// There is one.
    Exists,
    /// It is this.
    Equals(Literal),
    /// It is one of these.
    EqualsAny(Vec<Literal>),
    /// It, or what stands before its first `/`, is one of these: `:` on user agents.
    EqualsProduct(Vec<String>),
    /// It matches a pattern with `*` and `?`, as a whole.
    Wildcard(Pattern),
    /// A regular expression is found in it.
    Regex(Regex),
    /// It begins with this.
    StartsWith(String),
    /// It ends with this.
    EndsWith(String),
    /// This is in it.
    Contains(Substring),
    /// It is less or more than this. Of numbers, times, durations, and of numbers in a body.
    Compare(Comparison, Literal),
    /// It lies between these, both included.
    Range {
        /// The least that is taken.
        least: Literal,
        /// The most that is taken.
        most: Literal,
    },
    /// It is an address in one of these networks.
    InNetwork(Vec<IpNet>),
}

/// Less or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there are four")]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    /// As a filter writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// Whether it holds of a value that stands so to the literal.
    #[must_use]
    pub const fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// A value that a filter holds, of the type of its column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a plan must look at each")]
pub enum Literal {
    /// For texts, lists of texts and bodies, where a number and `true` are compared as they are spelled.
    Text(String),
    /// For numbers; in a body only where it is compared by size.
    Number(i64),
    /// For yes or no.
    Bool(bool),
    /// An instant, microseconds since 1970 in UTC.
    Time(i64),
    /// Microseconds.
    Duration(i64),
}

impl Literal {
    /// The number, instant or duration as a number.
    #[must_use]
    pub const fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(value) | Self::Time(value) | Self::Duration(value) => Some(*value),
            Self::Text(_) | Self::Bool(_) => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A text to be found in the object's name, a user's name, the request URI or the user agent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what and where")]
pub struct TextTest {
    /// What is to be found; wildcards count, its ends are open.
    pub pattern: Pattern,
    /// Whether the bodies are looked through as well.
    pub bodies: Bodies,
}

/// Whether free text is looked for in bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "it is or it is not")]
pub enum Bodies {
    /// It is not.
    #[default]
    Skipped,
    /// It is, in every text, number and word of theirs.
    Searched,
}

/// A regular expression that is searched for in linear time.
#[derive(Clone)]
pub struct Regex {
    compiled: regex::bytes::Regex,
}

/// A compiled expression may be this large.
const MAX_REGEX_BYTES: usize = 1 << 20;

impl Regex {
    /// Compiles it.
    ///
    /// # Errors
    ///
    /// [`regex::Error`] for what is none or would be larger than 1 MiB.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        regex::bytes::RegexBuilder::new(source)
            .size_limit(MAX_REGEX_BYTES)
            .dfa_size_limit(MAX_REGEX_BYTES)
            .nest_limit(64)
            .build()
            .map(|compiled| Self { compiled })
            .map_err(|error| RegexError(error.to_string()))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.compiled.as_str()
    }

    /// Whether it is found in `value`.
    #[must_use]
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.compiled.is_match(value)
    }
}

/// Why a text is no regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegexError(String);

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Regex {}

impl Hash for Regex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Regex").field(&self.as_str()).finish()
    }
}

impl Expr {
    /// All of them, in the plainest form that says the same.
    #[must_use]
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut kept = Vec::new();
        for part in parts {
            match part {
                Self::Everything => {}
                Self::Nothing => return Self::Nothing,
                Self::And(inner) => kept.extend(inner),
                part => kept.push(part),
            }
        }
        match kept.len() {
            0 => Self::Everything,
            1 => kept.remove(0),
            _ => Self::And(kept),
        }
    }

    /// Any of them, in the plainest form that says the same.
    #[must_use]
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut kept = Vec::new();
        for part in parts {
            match part {
                Self::Everything => return Self::Everything,
                Self::Nothing => {}
                Self::Or(inner) => kept.extend(inner),
                part => kept.push(part),
            }
        }
        match kept.len() {
            0 => Self::Nothing,
            1 => kept.remove(0),
            _ => Self::Or(kept),
        }
    }

    /// The complement, in the plainest form that says the same.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::Everything => Self::Nothing,
            Self::Nothing => Self::Everything,
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// A test as a node.
    #[must_use]
    pub const fn test(column: Column, case: Case, op: Op) -> Self {
        Self::Test(Test { column, case, op })
    }

    /// Calls `each` with every test and free text in the tree, from left to right.
    pub fn visit<'a>(&'a self, each: &mut impl FnMut(Leaf<'a>)) {
        match self {
            Self::Everything | Self::Nothing => {}
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.visit(each)),
            Self::Not(inner) => inner.visit(each),
            Self::Test(test) => each(Leaf::Test(test)),
            Self::Text(text) => each(Leaf::Text(text)),
        }
    }
}

/// A node without nodes in it.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the two kinds of Expr that look at an event"
)]
pub enum Leaf<'a> {
    /// A test of one column.
    Test(&'a Test),
    /// A text somewhere.
    Text(&'a TextTest),
}
