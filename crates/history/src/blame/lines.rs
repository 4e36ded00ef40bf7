//! A version as YAML, line by line with its authors.

use serde_json::Value;

use super::{Author, Blame, Inner, Node, steps};
use crate::diff::{Noise, is_noise};
use crate::mask::Mask;
use crate::patch::Resource;
use crate::path::{Path, Step};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlameLine {
    /// Blanks before the text.
    pub indent: usize,
    /// The line, without its indent. It holds no control characters.
    pub text: String,
    /// The field that begins here or goes on.
    pub path: Path,
    /// Who wrote it: of a line that only begins an object or a list, the newest author of what is in it.
    pub author: Author,
    /// What the value was before, as it would be written here.
    pub was: Option<String>,
}

impl Blame {
    /// The lines of the whole object, or of one field of it; none if it has no such field. What is noise is
    /// left out, what `mask` covers is masked.
    #[must_use]
    pub fn lines(
        &self,
        field: Option<&Path>,
        noise: Noise,
        mask: &Mask,
        resource: Resource<'_>,
    ) -> Vec<BlameLine> {
        let mut writer = Lines {
            out: Vec::new(),
            path: Path::default(),
            noise,
            mask,
            is_covered: mask.covers_object(resource, &self.object),
        };
        match field.filter(|field| !field.steps().is_empty()) {
            None => writer.inside(&self.object, &self.root, 0, None),
            Some(field) => {
                let Some((path, value, node)) = self.find(field) else {
                    return Vec::new();
                };
                let head = match path.steps().last() {
                    Some(Step::Field(name)) => format!("{}:", key(name)),
                    _ => "-".to_owned(),
                };
                // Who asks for a field wants to see it.
                writer.noise = Noise::Shown;
                writer.path = path;
                match (head.as_str(), value) {
                    ("-", Value::Object(fields)) if !fields.is_empty() => {
                        writer.inside(value, node, 2, Some("- "));
                    }
                    _ => writer.field(&head, value, node, 0),
                }
            }
        }
        writer.out
    }
}

struct Lines<'a> {
    out: Vec<BlameLine>,
    path: Path,
    noise: Noise,
    mask: &'a Mask,
    is_covered: bool,
}

impl Lines<'_> {
    fn push(&mut self, indent: usize, text: String, author: Author, was: Option<String>) {
        self.out.push(BlameLine {
            indent,
            text,
            path: self.path.clone(),
            author,
            was,
        });
    }

    /// What an object or a list holds. The first line of an item begins with `lead`.
    fn inside(&mut self, value: &Value, node: &Node, indent: usize, lead: Option<&str>) {
        let mut lead = lead;
        match (value, &node.inner) {
            (Value::Object(fields), Inner::Fields(nodes)) => {
                for (name, value) in fields {
                    let Some(node) = nodes.get(name) else { continue };
                    self.path.push(Step::Field(name.clone()));
                    if !is_noise(&self.path, self.noise) {
                        let head = format!("{}{}:", lead.take().unwrap_or_default(), key(name));
                        // The dash stands where the indent would.
                        let outdent = if head.starts_with("- ") && lead.is_none() {
                            2
                        } else {
                            0
                        };
                        self.field_at(&head, value, node, indent - outdent.min(indent), indent);
                    }
                    self.path.pop();
                }
            }
            (Value::Array(items), Inner::Items(nodes)) => {
                for ((step, value), node) in steps(items).zip(items).zip(nodes) {
                    self.path.push(step);
                    match value {
                        Value::Object(fields) if !fields.is_empty() => {
                            self.inside(value, node, indent + 2, Some("- "));
                        }
                        _ => self.field_at("-", value, node, indent, indent + 2),
                    }
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    /// The newest author of what is shown of an object.
    fn newest(&mut self, node: &Node) -> Author {
        let Inner::Fields(nodes) = &node.inner else {
            return node.newest();
        };
        let mut author = node.author;
        for (name, node) in nodes {
            self.path.push(Step::Field(name.clone()));
            if !is_noise(&self.path, self.noise) {
                author = author.newer(node.newest());
            }
            self.path.pop();
        }
        author
    }

    fn field(&mut self, head: &str, value: &Value, node: &Node, indent: usize) {
        self.field_at(head, value, node, indent, indent);
    }

    fn field_at(&mut self, head: &str, value: &Value, node: &Node, indent: usize, inner: usize) {
        let masked = self.is_covered && self.mask.covers(&self.path);
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                let author = self.newest(node);
                self.push(indent, head.to_owned(), author, None);
                let deeper = if head == "-" { inner } else { inner + 2 };
                self.inside(value, node, deeper, None);
            }
            // As kubectl prints them, lists are not indented under their field.
            Value::Array(items) if !items.is_empty() => {
                self.push(indent, head.to_owned(), node.newest(), None);
                self.inside(value, node, inner, None);
            }
            Value::String(text) if !masked && is_block(text) => self.block(head, text, node, indent, inner),
            _ => {
                let shown = |value: &Value| {
                    if masked {
                        self.mask.text(value)
                    } else {
                        inline(value)
                    }
                };
                let was = node.was.as_ref().map(|was| {
                    let was = shown(was);
                    if masked { format!("{was}, changed") } else { was }
                });
                let text = format!("{head} {}", shown(value));
                self.push(indent, text, node.author, was);
            }
        }
    }

    fn block(&mut self, head: &str, text: &str, node: &Node, indent: usize, inner: usize) {
        let chomping = match (text.ends_with("\n\n"), text.ends_with('\n')) {
            (true, _) => "|+",
            (_, true) => "|",
            _ => "|-",
        };
        self.push(indent, format!("{head} {chomping}"), node.author, None);
        let body = text.strip_suffix('\n').unwrap_or(text);
        for (at, line) in body.split('\n').enumerate() {
            let author = match &node.inner {
                Inner::Lines(authors) => authors.get(at).copied().unwrap_or(node.author),
                _ => node.author,
            };
            self.push(inner + 2, line.to_owned(), author, None);
        }
    }
}

/// Texts that YAML can hold as they are, line by line.
fn is_block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || is_printable(c))
}

fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
}

fn key(name: &str) -> String {
    inline(&Value::from(name))
}

/// A scalar, or an empty object or list, as YAML on one line.
pub(crate) fn inline(value: &Value) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    if is_plain(text) {
        text.clone()
    } else {
        quoted(text)
    }
}

/// In double quotes, everything that does not print escaped.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let escape = if code > 0xffff {
                    format!("\\U{code:08x}")
                } else {
                    format!("\\u{code:04x}")
                };
                out.push_str(&escape);
            }
        }
    }
    out.push('"');
    out
}

/// Texts that YAML reads back as themselves without quotes.
fn is_plain(text: &str) -> bool {
    let first_is_fine = text.chars().next().is_some_and(|c| {
        c.is_alphabetic() || matches!(c, '/' | '_' | '.' | '$' | '(' | ')' | '+') || c.is_ascii_digit()
    });
    let is_word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n" | ".inf" | ".nan" | "+.inf"
    );
    // Numbers, times and what resembles them.
    let is_number = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_digit() || matches!(c, '.' | '+'))
        && text.chars().all(|c| {
            c.is_ascii_hexdigit() || matches!(c, '.' | '+' | '-' | '_' | ':' | 'x' | 'o' | 'T' | 'Z' | 't')
        });
    first_is_fine
        && !is_word
        && !is_number
        && text.chars().all(is_printable)
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([':', ' '])
}
