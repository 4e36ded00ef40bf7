use kaudit_history::{Author, Blame, Exactness, Path, Step, Taken};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Said, Told};

/// What of a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    Both,
    Request,
    Nothing,
}

#[derive(Clone, Debug)]
enum Write {
    Merge(Value),
    /// An operation on the leaf or object that the number picks.
    Json(usize, Value),
    Update(Value),
}

fn spec() -> impl Strategy<Value = Value> {
    let scalar = (0_u8..4).prop_map(Value::from);
    let item = |name: u8, value: u8| json!({"name": format!("i{name}"), "v": value});
    let list = prop::collection::btree_map(0_u8..4, 0_u8..4, 0..4)
        .prop_map(move |items| Value::from_iter(items.into_iter().map(|(name, value)| item(name, value))));
    scalar.prop_recursive(3, 24, 4, move |inner| {
        (
            prop::collection::btree_map("[a-d]", inner, 0..4),
            prop::option::of(list.clone()),
        )
            .prop_map(|(fields, list)| {
                let mut out: Map<String, Value> = fields.into_iter().collect();
                if let Some(list) = list {
                    out.insert("l".to_owned(), list);
                }
                Value::Object(out)
            })
    })
}

fn object() -> impl Strategy<Value = Value> {
    spec().prop_map(|value| {
        if value.is_object() {
            value
        } else {
            json!({"a": value})
        }
    })
}

/// An object some of whose fields are null.
fn merge_patch() -> impl Strategy<Value = Value> {
    (object(), prop::collection::vec("[a-dl]", 0..2)).prop_map(|(mut patch, gone)| {
        for key in gone {
            patch[key] = Value::Null;
        }
        patch
    })
}

fn write(recorded: impl Strategy<Value = Recorded>) -> impl Strategy<Value = (Write, Recorded)> {
    let write = prop_oneof![
        merge_patch().prop_map(Write::Merge),
        (any::<usize>(), object()).prop_map(|(at, value)| Write::Json(at, value)),
        object().prop_map(Write::Update),
    ];
    (write, recorded)
}

/// RFC 7386 once more, in the test's own words.
fn merged(target: &Value, patch: &Value) -> Value {
    let Some(patch) = patch.as_object() else {
        return patch.clone();
    };
    let mut out = target.as_object().cloned().unwrap_or_default();
    for (key, value) in patch {
        if value.is_null() {
            out.shift_remove(key);
        } else {
            let before = out.get(key).cloned().unwrap_or(json!({}));
            out.insert(key.clone(), merged(&before, value));
        }
    }
    Value::Object(out)
}

/// Pointers to everything that is a field of an object, not in a list.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let pointer = format!("{at}/{key}");
        pointers(value, &pointer, out);
        out.push(pointer);
    }
}

/// The request of a write, and what it truly makes of a spec.
fn carried_out(write: &Write, before: &Value) -> (&'static str, Value, Value) {
    let whole = |spec: &Value| json!({"kind": "Thing", "apiVersion": "example.com/v1", "metadata": {"name": "a", "namespace": "n"}, "spec": spec});
    match write {
        Write::Merge(patch) => ("patch", json!({"spec": patch}), merged(before, patch)),
        Write::Update(spec) => ("update", whole(spec), spec.clone()),
        Write::Json(at, value) => {
            let mut after = before.clone();
            let mut places = Vec::new();
            pointers(before, "", &mut places);
            let Some(pointer) = places.get(at % places.len().max(1)) else {
                after["d"] = value.clone();
                return (
                    "patch",
                    json!([{"op": "add", "path": "/spec/d", "value": value}]),
                    after,
                );
            };
            let path = format!("/spec{pointer}");
            let request = if at % 3 == 0 {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                after
                    .pointer_mut(parent)
                    .unwrap()
                    .as_object_mut()
                    .unwrap()
                    .shift_remove(key);
                json!([{"op": "test", "path": path, "value": before.pointer(pointer)}, {"op": "remove", "path": path}])
            } else {
                *after.pointer_mut(pointer).unwrap() = value.clone();
                json!([{"op": "replace", "path": path, "value": value}])
            };
            ("patch", request, after)
        }
    }
}

/// Looks a path up in the test's own way; its items have names.
fn at<'a>(spec: &'a Value, path: &Path) -> Option<&'a Value> {
    path.steps()
        .iter()
        .skip(1)
        .try_fold(spec, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Key(key) => value.as_array()?.iter().find(|item| item["name"] == **key),
            Step::Index(_) => None,
        })
}

/// Plays the writes and checks each version against what truly was.
fn told(first: &Value, first_recorded: Recorded, writes: &[(Write, Recorded)]) -> (Told, Vec<Value>) {
    let mut told = Told::about("example.com", "things");
    let mut truth: Vec<Value> = Vec::new();
    let mut version = 1;
    let create = Write::Update(first.clone());
    let all = std::iter::once((&create, first_recorded))
        .chain(writes.iter().map(|(write, recorded)| (write, *recorded)));
    for (number, (write, recorded)) in all.enumerate() {
        let before = truth.last().cloned().unwrap_or(json!({}));
        let (verb, request, after) = carried_out(write, &before);
        version += u64::from(after != before);
        let mut said = Said::new(if number == 0 { "create" } else { verb });
        if recorded != Recorded::Nothing {
            said = said.request(request);
        }
        if recorded == Recorded::Both {
            said = said.response(json!({"kind": "Thing", "apiVersion": "example.com/v1",
                "metadata": {"name": "a", "namespace": "n", "resourceVersion": version.to_string()}, "spec": after}));
        }
        truth.push(after);
        assert_eq!(told.say(said), Taken::Version);
    }
    (told, truth)
}

fn check_versions(told: &Told, truth: &[Value]) {
    for (version, truth) in told.history.versions().zip(truth) {
        match &version.object {
            Some(object) => assert_eq!(&object["spec"], truth, "{}", version.reason),
            None => assert_eq!(version.exactness, Exactness::Unavailable),
        }
    }
}

/// The write that gave the leaf the value that it has in the end.
fn last_writer(truth: &[Value], path: &Path) -> usize {
    let last = truth.len() - 1;
    let value = at(&truth[last], path);
    assert!(value.is_some(), "{path}");
    (0..last)
        .rev()
        .take_while(|number| at(&truth[*number], path) == value)
        .last()
        .unwrap_or(last)
}

fn authors(told: &Told, index: usize) -> Vec<(Path, Author)> {
    let blame = Blame::of(&told.history, index).unwrap();
    blame
        .leaves()
        .into_iter()
        .filter(|leaf| leaf.path.is_under(&["spec"]) && leaf.path.steps().len() > 1)
        .map(|leaf| (leaf.path, leaf.author))
        .collect()
}

proptest! {
    #[test]
    fn what_is_reconstructed_is_what_was_and_its_authors_are_its_writers(
        first in object(),
        writes in prop::collection::vec(
            write(prop_oneof![Just(Recorded::Request)]), 0..12),
    ) {
        let (told, truth) = told(&first, Recorded::Request, &writes);
        check_versions(&told, &truth);
        prop_assert!(told.history.versions().all(|version| version.object.is_some()));
        for (path, author) in authors(&told, truth.len() - 1) {
            prop_assert_eq!(author, Author::Version(last_writer(&truth, &path)), "{}", path);
        }
    }

    #[test]
    fn exact_versions_give_exact_authors(
        first in object(),
        writes in prop::collection::vec(write(Just(Recorded::Both)), 0..12),
    ) {
        let (told, truth) = told(&first, Recorded::Both, &writes);
        check_versions(&told, &truth);
        for (path, author) in authors(&told, truth.len() - 1) {
            prop_assert_eq!(author, Author::Version(last_writer(&truth, &path)), "{}", path);
        }
    }

    #[test]
    fn whatever_is_recorded_no_author_is_wrong(
        first in object(),
        first_recorded in prop_oneof![Just(Recorded::Both), Just(Recorded::Request), Just(Recorded::Nothing)],
        writes in prop::collection::vec(
            write(prop_oneof![Just(Recorded::Both), Just(Recorded::Request), Just(Recorded::Nothing)]), 0..12),
    ) {
        let (told, truth) = told(&first, first_recorded, &writes);
        check_versions(&told, &truth);
        let Some(index) = told.history.newest_known(None) else { return Ok(()) };
        for (path, author) in authors(&told, index) {
            // A value that went and came back where nobody looked cannot be told from one that stayed.
            let value = at(&truth[index], &path);
            let first_known = (0..=index)
                .rev()
                .filter(|number| told.history.get(*number).unwrap().object.is_some())
                .take_while(|number| at(&truth[*number], &path) == value)
                .last()
                .unwrap();
            let writer = last_writer(&truth[..=first_known], &path);
            match author {
                Author::Version(at) => prop_assert_eq!(at, writer, "{}", path),
                Author::Within { after, until } => prop_assert!(
                    writer <= until && after.is_none_or(|after| writer > after),
                    "{} was written by {}, not within {:?}..{}", path, writer, after, until
                ),
                Author::NotRecorded => prop_assert!(false, "{} is since the creation", path),
            }
        }
    }
}
