//! What changed between two versions of an object.

use serde_json::{Map, Value};

use crate::align::{Aligned, Pair};
use crate::mask::{Mask, masked_change};
use crate::patch::Resource;
use crate::path::{Path, Step};

/// The annotation in which `kubectl apply` keeps what it applied last.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A field that changed.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a place and what happened there")]
pub struct Change {
    /// Where.
    pub path: Path,
    /// What.
    pub what: What,
}

/// What happened to a field.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "callers must show each")]
pub enum What {
    /// It came to be, with all that is in it.
    Added(Value),
    /// It went, with all that was in it.
    Removed(Value),
    /// It had one value and has another.
    Changed {
        /// The old value.
        from: Value,
        /// The new one.
        to: Value,
    },
    /// A list whose items are told apart by keys has them in another order.
    Reordered,
}

/// What a diff leaves out and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "three grades of noise")]
pub enum Noise {
    /// Nothing is left out.
    Shown,
    /// What every write changes: managedFields, resourceVersion, generation, and kubectl's annotation of
    /// what was applied last.
    Folded,
    /// That, and the status: for writes of controllers.
    FoldedWithStatus,
}

/// What was left out, each counted in changed fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folded {
    /// In `metadata.managedFields`.
    pub managed_fields: usize,
    /// `metadata.resourceVersion`.
    pub resource_version: usize,
    /// `metadata.generation`.
    pub generation: usize,
    /// kubectl's annotation of what was applied last.
    pub last_applied: usize,
    /// In `status`.
    pub status: usize,
}

impl Folded {
    /// All together.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.managed_fields + self.resource_version + self.generation + self.last_applied + self.status
    }

    fn counter(&mut self, path: &Path, noise: Noise) -> Option<&mut usize> {
        if noise == Noise::Shown {
            None
        } else if path.is_under(&["metadata", "managedFields"]) {
            Some(&mut self.managed_fields)
        } else if path.is_under(&["metadata", "resourceVersion"]) {
            Some(&mut self.resource_version)
        } else if path.is_under(&["metadata", "generation"]) {
            Some(&mut self.generation)
        } else if path.is_under(&["metadata", "annotations", LAST_APPLIED]) {
            Some(&mut self.last_applied)
        } else if noise == Noise::FoldedWithStatus && path.is_under(&["status"]) {
            Some(&mut self.status)
        } else {
            None
        }
    }
}

/// Whether blame and diff leave a field out when noise is folded.
pub(crate) fn is_noise(path: &Path, noise: Noise) -> bool {
    Folded::default().counter(path, noise).is_some()
}

/// The changes from one version to another, in the order of the newer one's fields.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Diff {
    /// The changed fields.
    pub changes: Vec<Change>,
    /// What was left out.
    pub folded: Folded,
}

impl Diff {
    /// The same with what `mask` covers masked, for versions of `resource`. A masked value that changed is
    /// still a change.
    #[must_use]
    pub fn masked(mut self, mask: &Mask, resource: Resource<'_>, object: &Value) -> Self {
        if !mask.covers_object(resource, object) {
            return self;
        }
        for change in &mut self.changes {
            let masked = |value: &Value| masked_change(mask, &change.path, value);
            change.what = match &change.what {
                What::Added(value) => What::Added(masked(value)),
                What::Removed(value) => What::Removed(masked(value)),
                What::Changed { from, to } => What::Changed {
                    from: masked(from),
                    to: masked(to),
                },
                What::Reordered => What::Reordered,
            };
        }
        self
    }
}

/// Compares two versions. Items of lists are told apart by name, key, port or the like where all have one,
/// else by what they are.
#[must_use]
pub fn diff(old: &Value, new: &Value, noise: Noise) -> Diff {
    let mut walk = Walk {
        out: Diff::default(),
        path: Path::default(),
        noise,
    };
    walk.values(old, new);
    walk.out
}

struct Walk {
    out: Diff,
    path: Path,
    noise: Noise,
}

impl Walk {
    fn values(&mut self, old: &Value, new: &Value) {
        match (old, new) {
            (old, new) if old == new => {}
            (Value::Object(old), Value::Object(new)) => self.objects(old, new),
            (Value::Array(old), Value::Array(new)) => self.lists(old, new),
            (from, to) => self.change(What::Changed {
                from: from.clone(),
                to: to.clone(),
            }),
        }
    }

    fn objects(&mut self, old: &Map<String, Value>, new: &Map<String, Value>) {
        for (key, value) in new {
            self.path.push(Step::Field(key.clone()));
            match old.get(key) {
                Some(before) => self.values(before, value),
                None => self.added(value),
            }
            self.path.pop();
        }
        for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
            self.path.push(Step::Field(key.clone()));
            self.removed(value);
            self.path.pop();
        }
    }

    fn lists(&mut self, old: &[Value], new: &[Value]) {
        let aligned = Aligned::of(old, new);
        if aligned.is_reordered {
            self.change(What::Reordered);
        }
        for pair in &aligned.pairs {
            self.path.push(aligned.step(*pair));
            match *pair {
                Pair::Both(before, after) => {
                    if let (Some(before), Some(after)) = (old.get(before), new.get(after)) {
                        self.values(before, after);
                    }
                }
                Pair::Added(at) => {
                    if let Some(value) = new.get(at) {
                        self.added(value);
                    }
                }
                Pair::Removed(at) => {
                    if let Some(value) = old.get(at) {
                        self.removed(value);
                    }
                }
            }
            self.path.pop();
        }
    }

    /// `metadata` and `annotations` may come and go with noise and more in them.
    fn is_mixed(&self) -> bool {
        self.noise != Noise::Shown
            && matches!(self.path.steps(), [Step::Field(first), rest @ ..] if first == "metadata"
                && matches!(rest, [] | [Step::Field(_)])
                && rest.iter().all(|step| matches!(step, Step::Field(name) if name == "annotations")))
    }

    fn added(&mut self, value: &Value) {
        match value {
            Value::Object(fields) if self.is_mixed() && !fields.is_empty() => {
                self.objects(&Map::new(), fields)
            }
            _ => self.change(What::Added(value.clone())),
        }
    }

    fn removed(&mut self, value: &Value) {
        match value {
            Value::Object(fields) if self.is_mixed() && !fields.is_empty() => {
                self.objects(fields, &Map::new())
            }
            _ => self.change(What::Removed(value.clone())),
        }
    }

    fn change(&mut self, what: What) {
        match self.out.folded.counter(&self.path, self.noise) {
            Some(counter) => *counter += 1,
            None => self.out.changes.push(Change {
                path: self.path.clone(),
                what,
            }),
        }
    }
}

/// A value on one line, as a change of it is shown.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(_) => crate::blame::inline(value),
        value => value.to_string(),
    }
}
