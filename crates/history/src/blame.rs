//! Which version gave each field of an object its value.

mod lines;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::align::{Aligned, Pair, by_value};
use crate::path::{self, Path, Step};
use crate::versions::{Effect, Exactness, History, Version};

pub use lines::BlameLine;
pub(crate) use lines::inline;

/// Who gave a field its value. Versions are named by their place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "callers must show each")]
pub enum Author {
    /// It has it since before the first version that is known.
    NotRecorded,
    /// This version. A later write whose outcome is not known may have taken the value away and another
    /// may have brought it back.
    Version(usize),
    /// It did not have it in `after`, and has it in `until`; one of the writes in between, recorded or not,
    /// or that of `until`, gave it, and nothing recorded says which. Without `after` it may be any since
    /// the object was created.
    Within {
        /// The newest version without it.
        after: Option<usize>,
        /// The oldest version known to have it.
        until: usize,
    },
}

impl Author {
    /// The version that has it for the first time as far as is known.
    #[must_use]
    pub const fn first_seen(self) -> Option<usize> {
        match self {
            Self::NotRecorded => None,
            Self::Version(at) | Self::Within { until: at, .. } => Some(at),
        }
    }

    fn newer(self, other: Self) -> Self {
        if other.first_seen() > self.first_seen() {
            other
        } else {
            self
        }
    }
}

/// One version of an object with the author of each of its fields.
#[derive(Clone, Debug)]
pub struct Blame {
    version: usize,
    object: Arc<Value>,
    root: Node,
}

/// A value's author, and those of what is in it.
#[derive(Clone, Debug)]
struct Node {
    /// Of the value of a leaf; of what was put into or taken out of an object or a list.
    author: Author,
    /// What a leaf was before.
    was: Option<Value>,
    inner: Inner,
}

#[derive(Clone, Debug)]
enum Inner {
    Leaf,
    /// Of a text of several lines.
    Lines(Vec<Author>),
    Fields(BTreeMap<String, Node>),
    Items(Vec<Node>),
}

/// A field without fields of its own, and where its value comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BlamedLeaf<'a> {
    /// Where it stands.
    pub path: Path,
    /// Its value: a scalar, or an empty object or list.
    pub value: &'a Value,
    /// Who gave it the value.
    pub author: Author,
    /// What it was before.
    pub was: Option<&'a Value>,
}

impl Blame {
    /// The authors of the version at `index`; `None` if its object is not known.
    #[must_use]
    pub fn of(history: &History, index: usize) -> Option<Self> {
        let newest = history.get(index)?;
        let object = Arc::clone(newest.object.as_ref()?);
        let incarnation = newest.incarnation;
        let is_whole = |at: usize, version: &Version| version.effect == Effect::Created && at <= index;
        let mut known: Option<(Arc<Value>, Node)> = None;
        let mut trail = Trail::default();
        for (at, version) in history.versions().enumerate().take(index + 1) {
            if version.incarnation != incarnation {
                continue;
            }
            trail.is_from_birth |= is_whole(at, version) && known.is_none() && !trail.is_broken;
            let Some(object) = &version.object else {
                trail.is_broken |= !matches!(
                    version.effect,
                    Effect::MayHaveBeenCreated | Effect::MayHaveBeenDeleted
                );
                continue;
            };
            let writer = trail.writer(at, version, known.is_some());
            let node = match known.take() {
                None => Node::new(object, writer.author),
                Some((_, node)) if version.effect == Effect::Unchanged && !trail.is_broken => node,
                Some((old, node)) => {
                    let predicted = match &version.predicted {
                        Some(predicted) => Predicted::At(Some(predicted)),
                        None => Predicted::Nothing,
                    };
                    writer.advance(node, &old, object, predicted)
                }
            };
            known = Some((Arc::clone(object), node));
            trail.passed(at, version);
        }
        Some(Self {
            version: index,
            object,
            root: known?.1,
        })
    }

    /// The place of the version.
    #[must_use]
    pub const fn version(&self) -> usize {
        self.version
    }

    /// The fields without fields of their own, in their order.
    #[must_use]
    pub fn leaves(&self) -> Vec<BlamedLeaf<'_>> {
        let mut out = Vec::new();
        collect(&self.root, &self.object, &mut Path::default(), &mut out);
        out
    }

    /// A value with its node, and the path to it as it is in this version.
    fn find(&self, path: &Path) -> Option<(Path, &Value, &Node)> {
        let (path, places) = path::find(&self.object, path)?;
        let (mut value, mut node) = (&*self.object, &self.root);
        for (step, place) in path.steps().iter().zip(places) {
            (value, node) = match (step, &node.inner) {
                (Step::Field(name), Inner::Fields(fields)) => (value.get(name)?, fields.get(name)?),
                (_, Inner::Items(items)) => (value.get(place)?, items.get(place)?),
                _ => return None,
            };
        }
        Some((path, value, node))
    }
}

fn collect<'a>(node: &'a Node, value: &'a Value, path: &mut Path, out: &mut Vec<BlamedLeaf<'a>>) {
    let mut inside = |step, node, value, path: &mut Path| {
        path.push(step);
        collect(node, value, path, out);
        path.pop();
    };
    match (&node.inner, value) {
        (Inner::Fields(nodes), Value::Object(fields)) if !fields.is_empty() => {
            for (key, value) in fields {
                if let Some(node) = nodes.get(key) {
                    inside(Step::Field(key.clone()), node, value, path);
                }
            }
        }
        (Inner::Items(nodes), Value::Array(items)) if !items.is_empty() => {
            for ((step, value), node) in steps(items).zip(items).zip(nodes) {
                inside(step, node, value, path);
            }
        }
        _ => out.push(BlamedLeaf {
            path: path.clone(),
            value,
            author: node.author,
            was: node.was.as_ref(),
        }),
    }
}

/// How paths name the items of a list.
fn steps(items: &[Value]) -> impl Iterator<Item = Step> {
    let keys = path::keys([items]).map(|[keys]| keys);
    (0..items.len()).map(move |at| {
        keys.as_ref()
            .and_then(|keys| keys.get(at).cloned())
            .map_or(Step::Index(at), Step::Key)
    })
}

/// What is known of the versions so far.
#[derive(Debug, Default)]
struct Trail {
    /// The newest exact version.
    exact: Option<usize>,
    /// The newest known version is not exact.
    is_vague: bool,
    /// Since the newest known version something happened that is not known.
    is_broken: bool,
    /// All versions of the object are there.
    is_from_birth: bool,
}

impl Trail {
    fn writer(&self, at: usize, version: &Version, has_before: bool) -> Writer {
        let is_written = version.effect != Effect::Observed;
        let within = Author::Within {
            after: self.exact,
            until: at,
        };
        if !has_before {
            let author = match version.effect {
                Effect::Created => Author::Version(at),
                _ if self.is_from_birth => within,
                _ => Author::NotRecorded,
            };
            return Writer {
                version: at,
                author,
                otherwise: author,
            };
        }
        let is_alone = is_written
            && !self.is_broken
            && version.unseen.is_none()
            && (version.exactness == Exactness::Reconstructed || !self.is_vague);
        Writer {
            version: at,
            author: if is_alone { Author::Version(at) } else { within },
            otherwise: within,
        }
    }

    fn passed(&mut self, at: usize, version: &Version) {
        self.is_broken = false;
        self.is_vague = version.exactness != Exactness::Exact;
        if !self.is_vague {
            self.exact = Some(at);
        }
    }
}

/// What this request alone would have made of a value.
#[derive(Clone, Copy, Debug)]
enum Predicted<'a> {
    /// It is not known.
    Nothing,
    /// This, or no value.
    At(Option<&'a Value>),
}

impl<'a> Predicted<'a> {
    fn get(self, key: &str) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::At(value) => Self::At(value.and_then(|value| value.get(key))),
        }
    }

    /// For each item of the new list, the one of the same key, or of the same place.
    fn items(self, new: &[Value]) -> Vec<Self> {
        let Self::At(value) = self else {
            return vec![Self::Nothing; new.len()];
        };
        let items = value
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        match path::keys([items, new]) {
            Some([keys, others]) => {
                let places: HashMap<String, &Value> = keys.into_iter().zip(items).collect();
                others
                    .iter()
                    .map(|key| Self::At(places.get(key).copied()))
                    .collect()
            }
            None => (0..new.len()).map(|at| Self::At(items.get(at))).collect(),
        }
    }

    fn is(self, value: Option<&'a Value>) -> bool {
        matches!(self, Self::At(predicted) if predicted == value)
    }
}

/// The author of what a version changed.
#[derive(Clone, Copy, Debug)]
struct Writer {
    version: usize,
    author: Author,
    /// Where several may have written.
    otherwise: Author,
}

impl Writer {
    fn of(self, predicted: Predicted<'_>, new: Option<&Value>) -> Author {
        match self.author {
            Author::Version(_) => self.author,
            _ if predicted.is(new) => Author::Version(self.version),
            _ => self.otherwise,
        }
    }

    fn advance(self, node: Node, old: &Value, new: &Value, predicted: Predicted<'_>) -> Node {
        if old == new {
            return node;
        }
        match (old, new, node.inner) {
            (Value::Object(before), Value::Object(after), Inner::Fields(mut nodes)) => {
                let mut author = node.author;
                for key in before.keys().filter(|key| !after.contains_key(*key)) {
                    nodes.remove(key);
                    author = author.newer(self.of(predicted.get(key), None));
                }
                let mut inner = BTreeMap::new();
                for (key, value) in after {
                    let predicted = predicted.get(key);
                    let inside = match (before.get(key), nodes.remove(key)) {
                        (Some(before), Some(node)) => self.advance(node, before, value, predicted),
                        _ => self.grow(value, predicted),
                    };
                    inner.insert(key.clone(), inside);
                }
                Node {
                    author,
                    was: None,
                    inner: Inner::Fields(inner),
                }
            }
            (Value::Array(before), Value::Array(after), Inner::Items(nodes)) => {
                self.items(node.author, nodes, before, after, predicted)
            }
            (Value::String(before), Value::String(after), inner) => {
                let author = self.of(predicted, Some(new));
                Node {
                    author,
                    was: Some(old.clone()),
                    inner: text_lines(before, after, &inner, node.author, author),
                }
            }
            (old, new, _) => {
                let mut grown = self.grow(new, predicted);
                grown.was = (!old.is_object() && !old.is_array()).then(|| old.clone());
                grown
            }
        }
    }

    fn items(
        self,
        author: Author,
        nodes: Vec<Node>,
        before: &[Value],
        after: &[Value],
        predicted: Predicted<'_>,
    ) -> Node {
        let aligned = Aligned::of(before, after);
        let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
        let mut inner: Vec<Option<Node>> = Vec::new();
        inner.resize_with(after.len(), || None);
        let mut author = author;
        if aligned.is_reordered {
            author = author.newer(self.author);
        }
        let inside = predicted.items(after);
        let inside = |at: usize| inside.get(at).copied().unwrap_or(Predicted::Nothing);
        for pair in &aligned.pairs {
            let (at, node) = match *pair {
                Pair::Both(old_at, at) => {
                    let (Some(old), Some(new)) = (before.get(old_at), after.get(at)) else {
                        continue;
                    };
                    let node = nodes.get_mut(old_at).and_then(Option::take);
                    let predicted = inside(at);
                    let node = match node {
                        Some(node) => self.advance(node, old, new, predicted),
                        None => self.grow(new, predicted),
                    };
                    (at, node)
                }
                Pair::Added(at) => {
                    let Some(new) = after.get(at) else { continue };
                    (at, self.grow(new, inside(at)))
                }
                Pair::Removed(_) => {
                    author = author.newer(self.of(predicted, None).newer(self.author));
                    continue;
                }
            };
            if let Some(slot) = inner.get_mut(at) {
                *slot = Some(node);
            }
        }
        Node {
            author,
            was: None,
            inner: Inner::Items(inner.into_iter().flatten().collect()),
        }
    }

    /// A value that was not there, or was another one altogether.
    fn grow(self, value: &Value, predicted: Predicted<'_>) -> Node {
        let author = self.of(predicted, Some(value));
        if author == self.author && !matches!(predicted, Predicted::At(Some(_))) {
            return Node::new(value, author);
        }
        let inner = match value {
            Value::Object(fields) => Inner::Fields(
                fields
                    .iter()
                    .map(|(key, value)| (key.clone(), self.grow(value, predicted.get(key))))
                    .collect(),
            ),
            Value::Array(items) => Inner::Items(
                items
                    .iter()
                    .zip(predicted.items(items))
                    .map(|(value, predicted)| self.grow(value, predicted))
                    .collect(),
            ),
            value => return Node::new(value, author),
        };
        Node {
            author,
            was: None,
            inner,
        }
    }
}

/// The lines that stay keep their authors.
fn text_lines(before: &str, after: &str, inner: &Inner, old: Author, new: Author) -> Inner {
    if !after.contains('\n') {
        return Inner::Leaf;
    }
    let (before, after): (Vec<_>, Vec<_>) = (before.split('\n').collect(), after.split('\n').collect());
    let of_old = |at: usize| match inner {
        Inner::Lines(authors) => authors.get(at).copied().unwrap_or(old),
        _ => old,
    };
    let mut authors = vec![new; after.len()];
    for pair in by_value(&before, &after) {
        if let Pair::Both(old_at, at) = pair
            && before.get(old_at) == after.get(at)
            && let Some(slot) = authors.get_mut(at)
        {
            *slot = of_old(old_at);
        }
    }
    Inner::Lines(authors)
}

impl Node {
    /// A value that is of one author altogether.
    fn new(value: &Value, author: Author) -> Self {
        let inner = match value {
            Value::Object(fields) => Inner::Fields(
                fields
                    .iter()
                    .map(|(key, value)| (key.clone(), Self::new(value, author)))
                    .collect(),
            ),
            Value::Array(items) => Inner::Items(items.iter().map(|value| Self::new(value, author)).collect()),
            _ => Inner::Leaf,
        };
        Self {
            author,
            was: None,
            inner,
        }
    }

    /// The newest author of the value or of anything in it.
    fn newest(&self) -> Author {
        match &self.inner {
            Inner::Leaf | Inner::Lines(_) => self.author,
            Inner::Fields(fields) => fields
                .values()
                .fold(self.author, |author, node| author.newer(node.newest())),
            Inner::Items(items) => items
                .iter()
                .fold(self.author, |author, node| author.newer(node.newest())),
        }
    }
}
