//! What a body in CBOR or YAML says, before it is JSON.

use std::rc::Rc;

use kaudit_event::push_json_string;

use crate::Unprintable;
use crate::order::Order;
use crate::scalars::{push_double, push_int};

/// Levels of nesting that are read.
pub(crate) const MAX_DEPTH: usize = 200;

/// Values that are read.
pub(crate) const MAX_NODES: usize = 1_000_000;

/// A value.
#[derive(Debug)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    List(Vec<Self>),
    /// Members by their keys, each of which is there once.
    Map(Vec<(String, Self)>),
    /// A value that stands in several places.
    Shared(Rc<Self>),
}

impl Tree {
    /// A map of `members`, of which the last with a key counts.
    pub(crate) fn map(mut members: Vec<(String, Self)>) -> Self {
        // Sorting keeps the order of equal keys; of those, the first that is left is kept.
        members.reverse();
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        members.dedup_by(|(later, _), (kept, _)| later == kept);
        Self::Map(members)
    }

    fn member(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(members) => find(members, key),
            Self::Shared(tree) => tree.member(key),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Shared(tree) => tree.text(),
            _ => None,
        }
    }

    /// The value as JSON: members of a kind of the published API in the order of its Go structs, all others
    /// by their keys.
    pub(crate) fn to_json(&self, limit: usize) -> Result<Vec<u8>, Unprintable> {
        let text = |key| self.member(key).and_then(Self::text);
        let order = match (text("apiVersion"), text("kind")) {
            (Some(version), Some(kind)) => Order::of_kind(version, kind),
            _ => Order::ByKey,
        };
        let mut out = Vec::new();
        self.write(&mut out, order, limit)?;
        Ok(out)
    }

    fn write(&self, out: &mut Vec<u8>, order: Order, limit: usize) -> Result<(), Unprintable> {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(int) => push_int(out, *int),
            Self::Uint(int) => out.extend_from_slice(int.to_string().as_bytes()),
            Self::Double(double) => push_double(out, *double).ok_or(Unprintable::NotUnderstood)?,
            Self::Text(text) => push_json_string(out, text.as_bytes()),
            Self::Shared(tree) => tree.write(out, order, limit)?,
            Self::List(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at != 0 {
                        out.push(b',');
                    }
                    item.write(out, order, limit)?;
                }
                out.push(b']');
            }
            Self::Map(members) => {
                out.push(b'{');
                let mut is_first = true;
                order.each(members, &mut |key, value: &Self, order| {
                    if !std::mem::take(&mut is_first) {
                        out.push(b',');
                    }
                    push_json_string(out, key.as_bytes());
                    out.push(b':');
                    value.write(out, order, limit)
                })?;
                out.push(b'}');
            }
        }
        if out.len() > limit {
            return Err(Unprintable::TooLarge);
        }
        Ok(())
    }
}

/// The member of this name, of members by their keys.
pub(crate) fn find<'a, T>(members: &'a [(String, T)], key: &str) -> Option<&'a T> {
    let at = members
        .binary_search_by(|(name, _)| name.as_str().cmp(key))
        .ok()?;
    members.get(at).map(|(_, value)| value)
}
