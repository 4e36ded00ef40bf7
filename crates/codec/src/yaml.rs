//! YAML 1.1 as Kubernetes reads it.
//!
//! Source: sigs.k8s.io/yaml yaml.go (YAMLToJSON) and goyaml.v2, decode.go and resolve.go.

mod scalar;

use std::collections::HashMap;
use std::rc::Rc;

use libyaml_safer::{EventData, Parser, ScalarStyle};
pub use scalar::{Scalar, next_event, resolve};

use crate::Unprintable;
use crate::tree::{MAX_DEPTH, MAX_NODES, Tree};

/// Bytes of a body that are read.
pub const MAX_BYTES: usize = 1 << 20;

const NOT_UNDERSTOOD: Unprintable = Unprintable::NotUnderstood;

/// The first document of `body` as JSON: members of a kind of the published API are in the order of its Go
/// structs, all others by their keys. An empty document is `null`.
///
/// # Errors
///
/// [`Unprintable::NotUnderstood`] for what is not YAML, for what JSON has no word for, and for what only YAML
/// has and hardly anyone writes: merge keys, keys that are neither text nor whole numbers nor truths, tags
/// other than that of text. [`Unprintable::TooLarge`] when the body has more than [`MAX_BYTES`], or the JSON
/// would have more than `limit`; what stands in several places counts in each.
pub fn to_json(body: &[u8], limit: usize) -> Result<Vec<u8>, Unprintable> {
    if body.len() > MAX_BYTES {
        return Err(Unprintable::TooLarge);
    }
    if str::from_utf8(body).is_err() {
        return Err(NOT_UNDERSTOOD);
    }
    let mut input = body;
    let mut parser = Parser::new();
    parser.set_input_string(&mut input);
    let mut reader = Reader {
        parser,
        anchors: HashMap::new(),
        nodes: 0,
    };
    reader.document().ok_or(NOT_UNDERSTOOD)?.to_json(limit)
}

struct Reader<'a, 'b> {
    parser: Parser<&'a mut &'b [u8]>,
    anchors: HashMap<String, Node>,
    nodes: usize,
}

/// A value, and how many levels are in it.
struct Node {
    tree: Tree,
    height: usize,
}

impl Reader<'_, '_> {
    fn next(&mut self) -> Option<EventData> {
        next_event(&mut self.parser).ok().map(|event| event.data)
    }

    fn document(&mut self) -> Option<Tree> {
        loop {
            match self.next()? {
                EventData::StreamStart { .. } => {}
                EventData::DocumentStart {
                    version_directive, ..
                } => {
                    if version_directive.is_some_and(|version| version.major != 1 || version.minor != 1) {
                        return None;
                    }
                    let first = self.next()?;
                    let root = self.node(first, 0)?;
                    // The document's end, where what follows the root turns out to be wrong.
                    self.next()?;
                    return Some(root.tree);
                }
                _ => return Some(Tree::Null),
            }
        }
    }

    fn node(&mut self, event: EventData, depth: usize) -> Option<Node> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return None;
        }
        let (anchor, node) = match event {
            EventData::Alias { anchor } => {
                let shared = self.anchors.get(&anchor)?;
                let Tree::Shared(tree) = &shared.tree else {
                    return None;
                };
                if depth + shared.height > MAX_DEPTH {
                    return None;
                }
                return Some(Node {
                    tree: Tree::Shared(Rc::clone(tree)),
                    height: shared.height,
                });
            }
            EventData::Scalar {
                anchor,
                tag,
                value,
                style,
                ..
            } => {
                if !matches!(tag.as_deref(), None | Some("!" | "tag:yaml.org,2002:str")) {
                    return None;
                }
                let tree = match resolve(tag.as_deref(), value, style == ScalarStyle::Plain) {
                    Scalar::Null => Tree::Null,
                    Scalar::Bool(value) => Tree::Bool(value),
                    Scalar::Number(text) => number(&text)?,
                    Scalar::Text(text) => Tree::Text(text),
                };
                (anchor, Node { tree, height: 0 })
            }
            EventData::SequenceStart {
                anchor, tag: None, ..
            } => (anchor, self.list(depth)?),
            EventData::MappingStart {
                anchor, tag: None, ..
            } => (anchor, self.map(depth)?),
            _ => return None,
        };
        let Some(anchor) = anchor else {
            return Some(node);
        };
        let shared = || Node {
            tree: Tree::Null,
            height: node.height,
        };
        let (mut kept, mut here) = (shared(), shared());
        let tree = Rc::new(node.tree);
        kept.tree = Tree::Shared(Rc::clone(&tree));
        here.tree = Tree::Shared(tree);
        self.anchors.insert(anchor, kept);
        Some(here)
    }

    fn list(&mut self, depth: usize) -> Option<Node> {
        let (mut items, mut height) = (Vec::new(), 0);
        loop {
            let event = self.next()?;
            if matches!(event, EventData::SequenceEnd) {
                let tree = Tree::List(items);
                return Some(Node { tree, height });
            }
            let item = self.node(event, depth + 1)?;
            height = height.max(item.height + 1);
            items.push(item.tree);
        }
    }

    fn map(&mut self, depth: usize) -> Option<Node> {
        let (mut members, mut height) = (Vec::new(), 0);
        loop {
            let key = match self.next()? {
                EventData::MappingEnd => {
                    let tree = Tree::map(members);
                    return Some(Node { tree, height });
                }
                // A key that is referred to elsewhere is not worth its while.
                EventData::Scalar {
                    anchor: None,
                    tag: None,
                    value,
                    style,
                    ..
                } => key(value, style == ScalarStyle::Plain)?,
                _ => return None,
            };
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            height = height.max(value.height + 1);
            members.push((key, value.tree));
        }
    }
}

/// A key's text in JSON.
fn key(text: String, is_plain: bool) -> Option<String> {
    if is_plain && text == "<<" {
        return None;
    }
    Some(match resolve(None, text, is_plain) {
        Scalar::Text(text) => text,
        Scalar::Bool(value) => value.to_string(),
        Scalar::Number(text) => match number(&text)? {
            Tree::Int(int) => int.to_string(),
            _ => return None,
        },
        Scalar::Null => return None,
    })
}

/// A number's value, as Go's strconv reads it in base 0.
fn number(text: &str) -> Option<Tree> {
    let plain = text.replace('_', "");
    let (is_negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, plain.get(1..)?),
        b'+' => (false, plain.get(1..)?),
        _ => (false, plain.as_str()),
    };
    let radix = match digits.get(..2) {
        Some("0x" | "0X") => Some((16, digits.get(2..)?)),
        Some("0b" | "0B") => Some((2, digits.get(2..)?)),
        Some("0o" | "0O") => Some((8, digits.get(2..)?)),
        Some(_) if digits.starts_with('0') => Some((8, digits.get(1..)?)),
        _ => Some((10, digits)),
    };
    let whole = radix
        .filter(|(radix, digits)| digits.chars().all(|digit| digit.is_digit(*radix)))
        .and_then(|(radix, digits)| u64::from_str_radix(digits, radix).ok());
    if let Some(size) = whole {
        if is_negative {
            if let Ok(int) = i64::try_from(-i128::from(size)) {
                return Some(Tree::Int(int));
            }
        } else {
            return Some(i64::try_from(size).map_or(Tree::Uint(size), Tree::Int));
        }
    }
    // Infinity and what is no number have no JSON; Rust's other words for them are not in YAML.
    if !digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return None;
    }
    let double: f64 = plain.parse().ok()?;
    double.is_finite().then_some(Tree::Double(double))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Option<&str>) {
        let found = to_json(body.as_bytes(), 1 << 20).ok();
        let found = found.map(|json| String::from_utf8(json).unwrap());
        assert_eq!(found.as_deref(), expected, "{body}");
    }

    #[test]
    fn values_are_those_of_yaml_1_1() {
        check(
            "z: <b>\na: 1.0\nn: 0x10\n",
            Some(r#"{"a":1,"false":16,"z":"\u003cb\u003e"}"#),
        );
        check(
            "[yes, Off, ~, null, '', \"1\", 2001-01-01]",
            Some(r#"[true,false,null,null,"","1","2001-01-01"]"#),
        );
        check(
            "[010, 08, 0b11, -0x1, +5, 1_000, .5, 1e3, 1e30]",
            Some("[8,8,3,-1,5,1000,0.5,1000,1e+30]"),
        );
        check(
            "[18446744073709551615, 18446744073709551616]",
            Some("[18446744073709551615,18446744073709552000]"),
        );
        check(
            "a: 1\n1: b\ntrue: c\na: 2\n",
            Some(r#"{"1":"b","a":2,"true":"c"}"#),
        );
        check(
            "a: &x [1, {b: c}]\nd: *x\n",
            Some(r#"{"a":[1,{"b":"c"}],"d":[1,{"b":"c"}]}"#),
        );
        check("a: !!str 1\n---\nb: 2\n", Some(r#"{"a":"1"}"#));
        check("{\"a\": [1, 2]}", Some(r#"{"a":[1,2]}"#));
        check("", Some("null"));
        check("# nothing\n", Some("null"));
    }

    #[test]
    fn a_known_kind_has_its_members_in_order() {
        check(
            "apiVersion: v1\ndata:\n  b: x\n  a: z\nkind: ConfigMap\nmetadata:\n  creationTimestamp: null\n  name: c\nother: 1\n",
            Some(
                r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","creationTimestamp":null},"data":{"a":"z","b":"x"},"other":1}"#,
            ),
        );
        check(
            "apiVersion: v1\nkind: Pod\nspec:\n  volumes:\n  - emptyDir: {}\n    name: v\n  containers:\n  - image: i\n    name: c\n",
            Some(
                r#"{"kind":"Pod","apiVersion":"v1","spec":{"volumes":[{"name":"v","emptyDir":{}}],"containers":[{"name":"c","image":"i"}]}}"#,
            ),
        );
    }

    #[test]
    fn what_is_no_json_or_hardly_ever_written_is_nothing() {
        for body in [
            "a: b: c",
            "[1, ",
            "a: .inf",
            "a: .nan",
            "1.5: a",
            "~: a",
            "[a]: b",
            "a: &x {<<: {b: c}}",
            "a: !!int \"1\"",
            "a: !thing b",
            "a: *x",
            "[!a,b]",
            "%YAML 1.2\n---\na: b\n",
            "a: \u{7}",
            "a: \"\\",
            "\"\\\\\\",
        ] {
            check(body, None);
        }
    }

    #[test]
    fn what_grows_beyond_its_bounds_is_nothing() {
        let mut bomb = "a0: &a0 [x, x]\n".to_owned();
        for level in 1..40 {
            bomb += &format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1);
        }
        assert_eq!(to_json(bomb.as_bytes(), 1 << 20), Err(Unprintable::TooLarge));
        let mut ladder = "a0: &a0 x\n".to_owned();
        for level in 1..10_000 {
            ladder += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        assert_eq!(to_json(ladder.as_bytes(), 1 << 20), Err(NOT_UNDERSTOOD));
        check(&"[".repeat(10_000), None);
        let large = vec![b'a'; MAX_BYTES + 1];
        assert_eq!(to_json(&large, 1 << 30), Err(Unprintable::TooLarge));
    }
}
