//! YAML 1.1 as upstream's decoder reads it: one document, resolved to JSON values.
//!
//! Source: sigs.k8s.io/yaml goyaml.v2, decode.go and resolve.go.

use std::borrow::Cow;
use std::collections::HashMap;

pub(super) use kaudit_codec::yaml::next_event;
use kaudit_codec::yaml::{Scalar, resolve};
use libyaml_safer::{EventData, Mark, Parser, ScalarStyle, SequenceStyle};

use super::document::{MAX_DEPTH, MAX_NODES, Member, Node, Position, Value, quoted};

/// The first document, and the complaints of strict decoding.
pub(crate) struct Read {
    pub(crate) root: Node,
    /// `line 5: key "level" already set in map`
    pub(crate) repeated_keys: Vec<String>,
}

/// Reads the first document of `text`; an empty one is null. The error is upstream's text.
pub(crate) fn read(text: &[u8]) -> Result<Read, String> {
    let text = to_utf8(text);
    let mut input = text.as_ref();
    let mut parser = Parser::new();
    parser.set_input_string(&mut input);
    let mut reader = Reader {
        parser,
        anchors: HashMap::new(),
        repeated_keys: Vec::new(),
        nodes: 0,
    };
    loop {
        let event = reader.next()?;
        match event.data {
            EventData::StreamStart { .. } => {}
            EventData::DocumentStart {
                version_directive, ..
            } => {
                if version_directive.is_some_and(|version| version.major != 1 || version.minor != 1) {
                    return Err("yaml: found incompatible YAML document".to_owned());
                }
                let root = reader.node(0)?;
                // The document's end, where what follows the root turns out to be wrong.
                reader.next()?;
                return Ok(Read {
                    root,
                    repeated_keys: reader.repeated_keys,
                });
            }
            _ => {
                let root = Node {
                    at: Position { line: 1, column: 1 },
                    value: Value::Null,
                };
                return Ok(Read {
                    root,
                    repeated_keys: Vec::new(),
                });
            }
        }
    }
}

/// UTF-16 with a byte order mark is UTF-8 from here on.
pub(super) fn to_utf8(text: &[u8]) -> Cow<'_, [u8]> {
    let decode = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = rest.as_chunks::<2>().0.iter().map(|pair| unit(*pair)).collect();
        Cow::Owned(String::from_utf16_lossy(&units).into_bytes())
    };
    match text {
        [0xff, 0xfe, rest @ ..] => decode(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => decode(rest, u16::from_be_bytes),
        _ => Cow::Borrowed(text),
    }
}

struct Reader<'a, 'b> {
    parser: Parser<&'a mut &'b [u8]>,
    anchors: HashMap<String, Node>,
    repeated_keys: Vec<String>,
    nodes: usize,
}

fn position(mark: Mark) -> Position {
    let from_one = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).saturating_add(1);
    Position {
        line: from_one(mark.line),
        column: from_one(mark.column),
    }
}

impl Reader<'_, '_> {
    fn next(&mut self) -> Result<libyaml_safer::Event, String> {
        next_event(&mut self.parser)
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        let event = self.next()?;
        self.node_of(event, depth)
    }

    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err("yaml: document contains excessive aliasing".to_owned());
        }
        Ok(())
    }

    fn node_of(&mut self, event: libyaml_safer::Event, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err("yaml: exceeded max depth".to_owned());
        }
        self.count(1)?;
        let at = position(event.start_mark);
        let mut is_flow = false;
        let (anchor, value) = match event.data {
            EventData::Alias { anchor } => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(format!("yaml: unknown anchor '{anchor}' referenced"));
                };
                self.count(size(&node))?;
                return Ok(Node { at, ..node });
            }
            EventData::Scalar {
                anchor,
                tag,
                value,
                style,
                ..
            } => (
                anchor,
                resolve(tag.as_deref(), value, style == ScalarStyle::Plain).into(),
            ),
            EventData::SequenceStart { anchor, style, .. } => {
                is_flow = style == SequenceStyle::Flow;
                (anchor, Value::List(self.list(depth)?))
            }
            EventData::MappingStart { anchor, .. } => (anchor, Value::Map(self.map(depth)?)),
            _ => return Err("yaml: unknown problem parsing YAML content".to_owned()),
        };
        // A block list begins with its first dash, which the event's mark may precede.
        let first = match &value {
            Value::List(items) if !is_flow => items.first().map(|item| item.at),
            _ => None,
        };
        let node = Node {
            at: first.unwrap_or(at),
            value,
        };
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, String> {
        let mut items = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.data, EventData::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node_of(event, depth + 1)?);
        }
    }

    /// The last of repeated keys wins; members come in the order of their keys.
    fn map(&mut self, depth: usize) -> Result<Vec<Member>, String> {
        let mut members: Vec<Member> = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.data, EventData::MappingEnd) {
                members.sort_by(|a, b| a.key.cmp(&b.key));
                return Ok(members);
            }
            let is_merge = matches!(
                &event.data,
                EventData::Scalar { value, style: ScalarStyle::Plain, tag: None, .. } if value == "<<"
            );
            let key = self.node_of(event, depth + 1)?;
            let node = self.node(depth + 1)?;
            if is_merge {
                for member in merged(node)? {
                    self.insert(&mut members, member);
                }
                continue;
            }
            let name = key_name(key.value)?;
            self.insert(
                &mut members,
                Member {
                    at: key.at,
                    key: name,
                    node,
                },
            );
        }
    }

    fn insert(&mut self, members: &mut Vec<Member>, member: Member) {
        match members.iter_mut().find(|present| present.key == member.key) {
            Some(present) => {
                self.repeated_keys.push(format!(
                    "line {}: key {} already set in map",
                    member.node.at.line,
                    quoted(&member.key)
                ));
                *present = member;
            }
            None => members.push(member),
        }
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(members) => members.iter().map(|member| size(&member.node)).sum(),
        _ => 0,
    }
}

/// The members that a merge key brings in.
fn merged(node: Node) -> Result<Vec<Member>, String> {
    match node.value {
        Value::Map(members) => Ok(members),
        Value::List(items) => {
            let mut all = Vec::new();
            // Of a list, the first map wins: it is merged last.
            for item in items.into_iter().rev() {
                match item.value {
                    Value::Map(members) => all.extend(members),
                    _ => {
                        return Err(
                            "yaml: map merge requires map or sequence of maps as the value".to_owned()
                        );
                    }
                }
            }
            Ok(all)
        }
        _ => Err("yaml: map merge requires map or sequence of maps as the value".to_owned()),
    }
}

fn key_name(key: Value) -> Result<String, String> {
    match key {
        Value::String(name) | Value::Number(name) => Ok(name),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null => Ok("null".to_owned()),
        Value::List(_) | Value::Map(_) => Err(format!("yaml: invalid map key: {}", key.kind())),
    }
}

/// Whether the plain scalar `text` is this text, and not a number, a truth or nothing.
pub(super) fn is_plain_text(text: &str) -> bool {
    matches!(resolve(None, text.to_owned(), true), Scalar::Text(_))
}

impl From<Scalar> for Value {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Null => Self::Null,
            Scalar::Bool(value) => Self::Bool(value),
            Scalar::Number(text) => Self::Number(text),
            Scalar::Text(text) => Self::String(text),
        }
    }
}
