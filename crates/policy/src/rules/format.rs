//! Policies in one form: keys in a fixed order, two spaces per level, lists on one line where they fit,
//! and every comment where it was.

mod comments;

use comments::Comments;

use super::document::{Member, Node, Value};
use super::{MAX_POLICY_BYTES, PolicyError, yaml};

/// A list that would make its line longer than this is written one item per line.
const WIDTH: usize = 100;

/// A longer key does not stand before its colon on the same line: YAML readers give up at 1024 letters.
const LONGEST_KEY: usize = 1000;

/// Why a document is not formatted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It is neither YAML nor JSON.
    #[error(transparent)]
    Unreadable(#[from] PolicyError),
    /// A field stands twice, and only one of them counts: keeping either might be wrong.
    #[error("line {line}: field {field:?} stands here twice; delete the one that is not meant")]
    Repeated {
        /// The line of one of them, from 1.
        line: usize,
        /// The field's name.
        field: String,
    },
    /// The API server reads the first document and no other.
    #[error("line {line} begins a second document, which the API server would not read")]
    SeveralDocuments {
        /// The line of the second document, from 1.
        line: usize,
    },
}

/// Writes `document` in its canonical form, in YAML. Formatting what is formatted changes nothing, and
/// the result loads as the document did: what a policy means is never touched, nor are unknown fields,
/// comments and blank lines between them.
///
/// # Errors
///
/// [`FormatError`] for documents that have no structure to keep.
pub fn format(document: &[u8]) -> Result<String, FormatError> {
    if document.len() > MAX_POLICY_BYTES {
        return Err(PolicyError::TooLarge(document.len()).into());
    }
    let (root, _) = super::read(document)?;
    if let Some(error) = repeated(document, &root) {
        return Err(error);
    }
    let text = yaml::to_utf8(document);
    let mut items = Vec::new();
    places(&root, &mut items);
    items.sort_unstable();
    items.dedup();
    let comments = Comments::read(&text, items)?;
    let mut writer = Writer {
        text: String::new(),
        comments,
    };
    writer.document(&root);
    Ok(writer.text)
}

fn repeated(document: &[u8], root: &Node) -> Option<FormatError> {
    let mut twice = Vec::new();
    super::lint::repeated_keys(document, &mut twice);
    let from_yaml = twice.into_iter().next().map(|finding| FormatError::Repeated {
        line: finding.at.line,
        field: finding.message.split('"').nth(1).unwrap_or_default().to_owned(),
    });
    from_yaml.or_else(|| repeated_member(root))
}

fn repeated_member(node: &Node) -> Option<FormatError> {
    match &node.value {
        Value::Map(members) => members.iter().enumerate().find_map(|(index, member)| {
            let earlier = members.get(..index).unwrap_or_default();
            if earlier.iter().any(|earlier| earlier.key == member.key) {
                return Some(FormatError::Repeated {
                    line: member.at.line,
                    field: member.key.clone(),
                });
            }
            repeated_member(&member.node)
        }),
        Value::List(items) => items.iter().find_map(repeated_member),
        _ => None,
    }
}

/// Where the keys and items of a document begin.
fn places(node: &Node, into: &mut Vec<super::Position>) {
    match &node.value {
        Value::Map(members) => {
            for member in members {
                into.push(member.at);
                places(&member.node, into);
            }
        }
        Value::List(items) => {
            for item in items {
                into.push(item.at);
                places(item, into);
            }
        }
        _ => {}
    }
}

/// What a map is, which decides the order of its keys.
#[derive(Clone, Copy)]
enum Kind {
    Policy,
    Rule,
    Resources,
    Other,
}

impl Kind {
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Policy => &[
                "apiVersion",
                "kind",
                "metadata",
                "omitStages",
                "omitManagedFields",
                "rules",
            ],
            Self::Rule => &[
                "level",
                "users",
                "userGroups",
                "verbs",
                "resources",
                "namespaces",
                "nonResourceURLs",
                "omitStages",
                "omitManagedFields",
            ],
            Self::Resources => &["group", "resources", "resourceNames"],
            Self::Other => &[],
        }
    }

    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Policy, "rules") => Self::Rule,
            (Self::Rule, "resources") => Self::Resources,
            _ => Self::Other,
        }
    }

    /// Known keys in their order, then the others as they stood.
    fn sorted(self, members: &[Member]) -> Vec<&Member> {
        let mut sorted: Vec<&Member> = members.iter().collect();
        let rank = |member: &Member| {
            let known = self.keys().iter().position(|key| *key == member.key);
            (known.unwrap_or(usize::MAX), member.at)
        };
        sorted.sort_by_key(|member| rank(member));
        sorted
    }
}

struct Writer {
    text: String,
    comments: Comments,
}

impl Writer {
    fn document(&mut self, root: &Node) {
        let head = self.comments.head();
        self.leading(head, 0);
        match &root.value {
            Value::Map(members) if !members.is_empty() => self.map(members, Kind::Policy, 0),
            Value::List(items) if !items.is_empty() => self.list(items, Kind::Other, 0),
            Value::Null => {}
            _ => {
                self.text += &inline(root).unwrap_or_default();
                self.text.push('\n');
            }
        }
        let tail = self.comments.tail();
        self.leading(tail, 0);
    }

    fn leading(&mut self, comments: comments::Leading, indent: usize) {
        for line in comments.lines {
            if line.blank_before {
                self.blank();
            }
            self.text += &" ".repeat(indent);
            self.text += &line.text;
            self.text.push('\n');
        }
        if comments.blank_after {
            self.blank();
        }
    }

    fn blank(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    fn map(&mut self, members: &[Member], kind: Kind, indent: usize) {
        for member in kind.sorted(members) {
            let leading = self.comments.leading(member.at);
            self.leading(leading, indent);
            self.text += &" ".repeat(indent);
            self.member(member, kind, indent);
        }
    }

    /// `key: value` from the key on.
    fn member(&mut self, member: &Member, kind: Kind, indent: usize) {
        let key = scalar(&member.key);
        if key.len() > LONGEST_KEY {
            self.text += &format!("? {key}\n{}:", " ".repeat(indent));
        } else {
            self.text += &format!("{key}:");
        }
        let trailing = self.comments.trailing(member.at);
        let comment = trailing.map(|text| format!(" {text}")).unwrap_or_default();
        let fits = |line: &str| line.chars().count() + indent + member.key.chars().count() + 2 <= WIDTH;
        let one_line = inline(&member.node).filter(|line| {
            let is_list = matches!(&member.node.value, Value::List(items) if !items.is_empty());
            !is_list || (fits(line) && !self.has_comments(&member.node))
        });
        if let Some(line) = one_line {
            self.text += &format!(" {line}{comment}\n");
            return;
        }
        self.text += &format!("{comment}\n");
        let below = kind.below(&member.key);
        match &member.node.value {
            Value::Map(members) => self.map(members, below, indent + 2),
            Value::List(items) => self.list(items, below, indent + 2),
            _ => {}
        }
    }

    fn has_comments(&self, node: &Node) -> bool {
        match &node.value {
            Value::List(items) => items.iter().any(|item| self.comments.are_at(item.at)),
            _ => false,
        }
    }

    fn list(&mut self, items: &[Node], kind: Kind, indent: usize) {
        let quotes = Quotes::of(items);
        for item in items {
            let leading = self.comments.leading(item.at);
            self.leading(leading, indent);
            match &item.value {
                Value::Map(members) if !members.is_empty() => self.item(item, members, kind, indent),
                Value::List(items) if inline(item).is_none() => {
                    self.text += &" ".repeat(indent);
                    self.text += "-\n";
                    self.list(items, Kind::Other, indent + 2);
                }
                _ => {
                    let trailing = self.comments.trailing(item.at);
                    let comment = trailing.map(|text| format!(" {text}")).unwrap_or_default();
                    let value = quotes.write(item).unwrap_or_default();
                    self.text += &format!("{}- {value}{comment}\n", " ".repeat(indent));
                }
            }
        }
    }

    /// A map with its dash. Comments on the item and on the key that comes first stand before it.
    fn item(&mut self, item: &Node, members: &[Member], kind: Kind, indent: usize) {
        if !members.iter().any(|member| member.at == item.at)
            && let Some(text) = self.comments.trailing(item.at)
        {
            self.text += &format!("{}{text}\n", " ".repeat(indent));
        }
        for (index, member) in kind.sorted(members).into_iter().enumerate() {
            let is_first = index == 0;
            let leading = self.comments.leading(member.at);
            self.leading(leading, if is_first { indent } else { indent + 2 });
            self.text += &" ".repeat(indent);
            self.text += if is_first { "- " } else { "  " };
            self.member(member, kind, indent + 2);
        }
    }
}

/// Whether the texts of a list are quoted: all of them where one has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    All,
}

impl Quotes {
    fn of(items: &[Node]) -> Self {
        let needs = |item: &Node| matches!(&item.value, Value::String(text) if scalar(text).starts_with('"'));
        if items.iter().any(needs) {
            Self::All
        } else {
            Self::None
        }
    }

    fn write(self, item: &Node) -> Option<String> {
        match &item.value {
            Value::String(text) if self == Self::All => {
                Some(serde_json::Value::from(text.as_str()).to_string())
            }
            _ => inline(item),
        }
    }
}

/// A value on one line; `None` for maps with members and lists of lists or of maps.
fn inline(node: &Node) -> Option<String> {
    Some(match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(text) => text.clone(),
        Value::String(text) => scalar(text),
        Value::Map(members) if members.is_empty() => "{}".to_owned(),
        Value::Map(_) => return None,
        Value::List(items) => {
            if items
                .iter()
                .any(|item| matches!(item.value, Value::List(_) | Value::Map(_)))
            {
                return None;
            }
            let quotes = Quotes::of(items);
            let items: Option<Vec<String>> = items.iter().map(|item| quotes.write(item)).collect();
            format!("[{}]", items?.join(", "))
        }
    })
}

/// A text without quotes where every YAML reader takes it for a text.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte))
        && yaml::is_plain_text(text);
    if is_plain { text.to_owned() } else { quoted(text) }
}

/// A text in double quotes: JSON's escapes, and those of letters that break YAML's lines or may not stand
/// in it.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut quoted = String::with_capacity(json.len());
    for letter in json.chars() {
        match u32::from(letter) {
            code @ (0x7f..=0x9f | 0x2028 | 0x2029 | 0xd800..=0xf8ff | 0xfeff | 0xfffe | 0xffff) => {
                quoted += &format!("\\u{code:04x}");
            }
            code @ 0x1_0000.. => quoted += &format!("\\U{code:08x}"),
            _ => quoted.push(letter),
        }
    }
    quoted
}
