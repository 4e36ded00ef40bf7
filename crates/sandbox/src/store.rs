//! Versioned objects in memory.
//!
//! One revision counter serves all resources, as etcd's does. The last changes are kept, so that a
//! watch can start in the past and a list can be continued at the revision it began with; what lies
//! further back is answered 410.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::broadcast;

use crate::status::ApiError;

/// Changes kept for watches that start in the past and for continued lists.
const HISTORY: usize = 4096;
/// Changes a watcher may lag behind before its watch ends with 410.
const WATCH_QUEUE: usize = 1024;

/// Where an object lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// `plural` or `plural.group`.
    pub(crate) resource: Arc<str>,
    /// Empty for cluster-scoped objects.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(resource: &Arc<str>, namespace: &str, name: &str) -> Self {
        Self {
            resource: Arc::clone(resource),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

/// What a write decided under the lock.
#[derive(Debug)]
pub(crate) enum Write {
    /// Store this object at the next revision.
    Put(Value),
    /// Remove the object.
    Remove,
    /// Leave things as they are.
    Keep,
}

/// The result of a write.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) object: Arc<Value>,
    pub(crate) removed: bool,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) revision: u64,
    pub(crate) items: Vec<Arc<Value>>,
    /// Where the next page starts: after this namespace and name.
    pub(crate) last: Option<(String, String)>,
    /// Objects after this page, selectors aside.
    pub(crate) remaining: usize,
}

/// A watch: what already happened since the asked revision, then what happens.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) past: Vec<Arc<Change>>,
    pub(crate) live: broadcast::Receiver<Arc<Change>>,
}

/// All objects of the sandbox.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Arc<Change>>,
    /// The revision before the oldest kept change.
    compacted: u64,
    /// The revision of the last change of a role or binding.
    access: u64,
    changes: broadcast::Sender<Arc<Change>>,
}

impl Store {
    pub(crate) fn new() -> Self {
        let (changes, _) = broadcast::channel(WATCH_QUEUE);
        let inner = Inner {
            revision: 1,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            compacted: 1,
            access: 1,
            changes,
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    /// No code that panics runs under the lock except a write's decision, which comes before the
    /// first change: the data is whole even after a panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// The revision of the last change of a role or binding.
    pub(crate) fn access_revision(&self) -> u64 {
        self.lock().access
    }

    pub(crate) fn read(&self, key: &Key) -> Option<Arc<Value>> {
        self.lock().objects.get(key).cloned()
    }

    /// All objects of a resource; `namespace` empty means all namespaces.
    pub(crate) fn all(&self, resource: &Arc<str>, namespace: &str) -> Vec<Arc<Value>> {
        let inner = self.lock();
        inner
            .range(resource, namespace, None)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// How many objects each resource has.
    pub(crate) fn counts(&self) -> BTreeMap<Arc<str>, usize> {
        let mut counts = BTreeMap::new();
        for key in self.lock().objects.keys() {
            *counts.entry(Arc::clone(&key.resource)).or_default() += 1;
        }
        counts
    }

    /// The keys of every object in a namespace.
    pub(crate) fn keys_in_namespace(&self, namespace: &str) -> Vec<Key> {
        self.lock()
            .objects
            .keys()
            .filter(|key| key.namespace == namespace)
            .cloned()
            .collect()
    }

    /// The keys of every object that names `uid` as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Key> {
        let owned = |object: &Value| {
            let owners = object
                .pointer("/metadata/ownerReferences")
                .and_then(Value::as_array);
            owners
                .into_iter()
                .flatten()
                .any(|owner| owner.get("uid").and_then(Value::as_str) == Some(uid))
        };
        let inner = self.lock();
        inner
            .objects
            .iter()
            .filter(|(_, object)| owned(object))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Reads, decides and writes one object in one step.
    ///
    /// # Errors
    ///
    /// The decision's.
    pub(crate) fn write(
        &self,
        key: &Key,
        decide: impl FnOnce(Option<&Arc<Value>>) -> Result<Write, ApiError>,
    ) -> Result<Option<Written>, ApiError> {
        let mut inner = self.lock();
        let before = inner.objects.get(key).cloned();
        match decide(before.as_ref())? {
            Write::Keep => Ok(before.map(|object| Written {
                object,
                removed: false,
            })),
            Write::Put(mut object) => {
                if before
                    .as_deref()
                    .is_some_and(|before| same_but_for_revision(before, &object))
                {
                    return Ok(before.map(|object| Written {
                        object,
                        removed: false,
                    }));
                }
                let revision = inner.revision + 1;
                set_revision(&mut object, revision);
                let object = Arc::new(object);
                inner.objects.insert(key.clone(), Arc::clone(&object));
                inner.publish(Change {
                    revision,
                    key: key.clone(),
                    before,
                    after: Some(Arc::clone(&object)),
                });
                Ok(Some(Written {
                    object,
                    removed: false,
                }))
            }
            Write::Remove => {
                let Some(removed) = inner.objects.remove(key) else {
                    return Ok(None);
                };
                let revision = inner.revision + 1;
                inner.publish(Change {
                    revision,
                    key: key.clone(),
                    before: Some(Arc::clone(&removed)),
                    after: None,
                });
                Ok(Some(Written {
                    object: removed,
                    removed: true,
                }))
            }
        }
    }

    /// A page of a resource, at `revision` if one is given.
    ///
    /// # Errors
    ///
    /// 410 when `revision` lies before the kept changes.
    pub(crate) fn list(
        &self,
        resource: &Arc<str>,
        namespace: &str,
        revision: Option<u64>,
        after: Option<&(String, String)>,
        limit: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Page, ApiError> {
        let inner = self.lock();
        let at = revision.unwrap_or(inner.revision);
        let old = if at < inner.revision {
            Some(inner.as_of(resource, at)?)
        } else {
            None
        };
        let after = after.map(|(namespace, name)| Key::new(resource, namespace, name));
        let objects: Vec<(&Key, &Arc<Value>)> = match &old {
            None => inner.range(resource, namespace, after.as_ref()).collect(),
            Some(old) => old
                .iter()
                .filter(|(key, _)| namespace.is_empty() || key.namespace == namespace)
                .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
                .collect(),
        };
        let mut items = Vec::new();
        let mut last = None;
        let mut remaining = 0;
        for (index, (key, object)) in objects.iter().enumerate() {
            if limit > 0 && items.len() == limit {
                remaining = objects.len() - index;
                break;
            }
            if wanted(object) {
                items.push(Arc::clone(object));
                last = Some((key.namespace.clone(), key.name.clone()));
            }
        }
        let last = if remaining > 0 { last } else { None };
        Ok(Page {
            revision: at,
            items,
            last,
            remaining,
        })
    }

    /// Changes after `revision`, or from now on.
    ///
    /// # Errors
    ///
    /// 410 when `revision` lies before the kept changes.
    pub(crate) fn watch(&self, revision: Option<u64>) -> Result<Watch, ApiError> {
        let inner = self.lock();
        let past = match revision {
            None => Vec::new(),
            Some(revision) if revision < inner.compacted => {
                return Err(ApiError::expired(format!(
                    "too old resource version: {revision} ({})",
                    inner.compacted
                )));
            }
            Some(revision) => inner
                .history
                .iter()
                .filter(|change| change.revision > revision)
                .cloned()
                .collect(),
        };
        Ok(Watch {
            past,
            live: inner.changes.subscribe(),
        })
    }

    /// A consistent pair of all objects of a resource and the watch that goes on from there.
    pub(crate) fn list_and_watch(
        &self,
        resource: &Arc<str>,
        namespace: &str,
    ) -> (Vec<Arc<Value>>, u64, Watch) {
        let inner = self.lock();
        let items = inner
            .range(resource, namespace, None)
            .map(|(_, object)| Arc::clone(object))
            .collect();
        (
            items,
            inner.revision,
            Watch {
                past: Vec::new(),
                live: inner.changes.subscribe(),
            },
        )
    }
}

impl Inner {
    fn range(
        &self,
        resource: &Arc<str>,
        namespace: &str,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let first = Key::new(resource, namespace, "");
        let start = match after {
            Some(after) if *after > first => Bound::Excluded(after.clone()),
            _ => Bound::Included(first),
        };
        let resource = Arc::clone(resource);
        let namespace = namespace.to_owned();
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| {
                key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
            })
    }

    /// The objects of a resource as they were, by undoing kept changes.
    fn as_of(&self, resource: &Arc<str>, revision: u64) -> Result<BTreeMap<Key, Arc<Value>>, ApiError> {
        if revision < self.compacted {
            return Err(ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. \
                 You must start a new list without the continue parameter.",
            ));
        }
        let mut objects: BTreeMap<Key, Arc<Value>> = self
            .range(resource, "", None)
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        let undo = self
            .history
            .iter()
            .rev()
            .take_while(|change| change.revision > revision);
        for change in undo.filter(|change| change.key.resource == *resource) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), Arc::clone(before)),
                None => objects.remove(&change.key),
            };
        }
        Ok(objects)
    }

    fn publish(&mut self, change: Change) {
        self.revision = change.revision;
        if change.key.resource.ends_with(".rbac.authorization.k8s.io") {
            self.access = change.revision;
        }
        let change = Arc::new(change);
        if self.history.len() == HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.compacted = oldest.revision;
        }
        self.history.push_back(Arc::clone(&change));
        // An error only says that nobody watches.
        drop(self.changes.send(change));
    }
}

/// Stamps an object with a revision.
pub(crate) fn set_revision(object: &mut Value, revision: u64) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    }
}

/// Whether a write would change nothing but the revision: then it is none, as upstream has it.
fn same_but_for_revision(before: &Value, after: &Value) -> bool {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return before == after;
    };
    before.len() == after.len()
        && before.iter().all(|(key, value)| {
            let Some(other) = after.get(key) else { return false };
            match (key.as_str(), value, other) {
                ("metadata", Value::Object(value), Value::Object(other)) => {
                    let significant = |key: &str| key != "resourceVersion";
                    let count = |fields: &serde_json::Map<String, Value>| {
                        fields.keys().filter(|key| significant(key)).count()
                    };
                    count(value) == count(other)
                        && value
                            .iter()
                            .filter(|(key, _)| significant(key))
                            .all(|(key, value)| other.get(key) == Some(value))
                }
                _ => value == other,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(store: &Store, resource: &Arc<str>, namespace: &str, name: &str, value: u32) -> Written {
        let object = json!({"metadata": {"name": name, "namespace": namespace}, "value": value});
        store
            .write(&Key::new(resource, namespace, name), |_| Ok(Write::Put(object)))
            .unwrap()
            .unwrap()
    }

    fn names(page: &Page) -> Vec<&str> {
        page.items
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str())
            .collect()
    }

    #[test]
    fn a_continued_list_sees_the_revision_it_began_with() {
        let store = Store::new();
        let resource: Arc<str> = "configmaps".into();
        for name in ["a", "b", "c", "d"] {
            put(&store, &resource, "ns", name, 1);
        }
        put(&store, &"pods".into(), "ns", "other", 1);
        let first = store.list(&resource, "ns", None, None, 2, |_| true).unwrap();
        assert_eq!((names(&first), first.remaining), (vec!["a", "b"], 2));
        store
            .write(&Key::new(&resource, "ns", "c"), |_| Ok(Write::Remove))
            .unwrap();
        put(&store, &resource, "ns", "e", 1);
        put(&store, &resource, "ns", "d", 2);
        let second = store
            .list(
                &resource,
                "ns",
                Some(first.revision),
                first.last.as_ref(),
                2,
                |_| true,
            )
            .unwrap();
        assert_eq!(names(&second), ["c", "d"]);
        assert_eq!(second.items[1]["value"], 1);
        assert!(second.last.is_none());
    }

    #[test]
    fn a_write_that_changes_nothing_keeps_the_revision() {
        let store = Store::new();
        let resource: Arc<str> = "configmaps".into();
        let first = put(&store, &resource, "ns", "a", 1);
        let second = put(&store, &resource, "ns", "a", 1);
        assert_eq!(
            first.object["metadata"]["resourceVersion"],
            second.object["metadata"]["resourceVersion"]
        );
    }

    #[test]
    fn a_watch_from_the_past_replays_and_goes_on() {
        let store = Store::new();
        let resource: Arc<str> = "configmaps".into();
        put(&store, &resource, "ns", "a", 1);
        let revision = store.revision();
        put(&store, &resource, "ns", "b", 1);
        let mut watch = store.watch(Some(revision)).unwrap();
        assert_eq!(watch.past.len(), 1);
        put(&store, &resource, "ns", "c", 1);
        assert_eq!(watch.live.try_recv().unwrap().key.name, "c");
    }

    #[test]
    fn a_revision_before_the_kept_changes_is_gone() {
        let store = Store::new();
        let resource: Arc<str> = "configmaps".into();
        let start = store.revision();
        for value in 0..=HISTORY {
            put(&store, &resource, "ns", "a", u32::try_from(value).unwrap());
        }
        assert_eq!(store.watch(Some(start)).unwrap_err().code, 410);
        assert_eq!(
            store
                .list(&resource, "", Some(start), None, 0, |_| true)
                .unwrap_err()
                .code,
            410
        );
    }

    #[test]
    fn a_watcher_that_lags_is_told_and_costs_a_bound() {
        let store = Store::new();
        let resource: Arc<str> = "configmaps".into();
        let mut watch = store.watch(None).unwrap();
        for value in 0..WATCH_QUEUE + 10 {
            put(&store, &resource, "ns", "a", u32::try_from(value).unwrap());
        }
        assert!(matches!(
            watch.live.try_recv(),
            Err(broadcast::error::TryRecvError::Lagged(_))
        ));
    }
}
