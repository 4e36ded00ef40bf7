//! Apply: a document that its manager owns is merged, and what the manager no longer applies goes away.
//!
//! Conflicts between managers are not looked for: an apply always takes what it names.
//!
//! Source: sigs.k8s.io/structured-merge-diff v4 merge/update.go, and k8s.io/apimachinery
//! pkg/util/managedfields.

use serde_json::{Map, Value, json};

use super::schema::{Field, List, Type, key_default, root};
use super::{PatchError, Resource, check_depth};

/// Who applies, as `metadata.managedFields` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the parts of an entry that its writer gives"
)]
pub struct Manager<'a> {
    /// The field manager.
    pub name: &'a str,
    /// The version in which it applies.
    pub api_version: &'a str,
    /// The part it applies to; empty for the object itself.
    pub subresource: &'a str,
    /// The entry's time, as metav1.Time prints it.
    pub time: &'a str,
}

/// What applying a document makes of an object, or of nothing.
///
/// # Errors
///
/// [`PatchError`] for a document that is no object, nests too deeply, or brings managed fields.
pub fn apply(
    resource: Resource<'_>,
    current: Option<&Value>,
    applied: &Value,
    manager: Manager<'_>,
) -> Result<Value, PatchError> {
    check_depth(applied)?;
    if !applied.is_object() {
        return Err(PatchError::Applied(
            "the applied document is not an object".to_owned(),
        ));
    }
    let brings = applied.pointer("/metadata/managedFields");
    if brings.is_some_and(|fields| !fields.is_null() && fields.as_array().is_none_or(|list| !list.is_empty()))
    {
        return Err(PatchError::Applied(
            "metadata.managedFields must be nil".to_owned(),
        ));
    }
    let ty = root(resource);
    let mut out = current.cloned().unwrap_or_else(|| json!({}));
    let entries = match out.pointer_mut("/metadata/managedFields").map(Value::take) {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    };
    let fields = fields_v1(resource, applied);
    let (own, others): (Vec<Value>, Vec<Value>) =
        entries.into_iter().partition(|entry| is_own(entry, manager));
    if let Some(before) = own.first().and_then(|entry| entry.get("fieldsV1")) {
        let owners: Vec<&Value> = others
            .iter()
            .filter_map(|entry| entry.get("fieldsV1"))
            .filter(|fields| fields.as_object().is_some_and(|fields| !fields.is_empty()))
            .collect();
        prune(&mut out, before, Some(&fields), &owners, ty);
    }
    merge(&mut out, applied, ty);
    let mut entries = others;
    entries.push(entry(manager, fields, own.first()));
    if let Value::Object(top) = &mut out
        && let Value::Object(metadata) = top.entry("metadata").or_insert_with(|| json!({}))
    {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
    Ok(out)
}

fn is_own(entry: &Value, manager: Manager<'_>) -> bool {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    text("manager") == manager.name
        && text("operation") == "Apply"
        && text("subresource") == manager.subresource
}

/// An entry keeps its time while its fields stay the same.
fn entry(manager: Manager<'_>, fields: Value, before: Option<&Value>) -> Value {
    let time = before
        .filter(|before| before.get("fieldsV1") == Some(&fields))
        .and_then(|before| before.get("time"))
        .cloned()
        .unwrap_or_else(|| json!(manager.time));
    let mut out = json!({
        "manager": manager.name,
        "operation": "Apply",
        "apiVersion": manager.api_version,
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    });
    if let (false, Value::Object(out)) = (manager.subresource.is_empty(), &mut out) {
        out.insert("subresource".to_owned(), json!(manager.subresource));
    }
    out
}

fn merge(target: &mut Value, applied: &Value, ty: Type) {
    let Value::Object(applied) = applied else { return };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in applied {
        if value.is_null() {
            continue;
        }
        let field = ty.field(key);
        match (target.get_mut(key), value) {
            (Some(before @ Value::Object(_)), Value::Object(_)) if !field.atomic => {
                merge(before, value, field.ty);
            }
            (Some(Value::Array(before)), Value::Array(items)) => merge_list(before, items, field),
            (Some(before), _) => *before = value.clone(),
            (None, _) => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

fn merge_list(before: &mut Vec<Value>, applied: &[Value], field: Field) {
    match field.list {
        List::Atomic => applied.clone_into(before),
        List::Set => {
            for item in applied {
                if !before.contains(item) {
                    before.push(item.clone());
                }
            }
        }
        List::Map(keys) => {
            for item in applied {
                let key = item_key(item, keys);
                match before.iter_mut().find(|other| item_key(other, keys) == key) {
                    Some(other) => merge(other, item, field.ty),
                    None => before.push(item.clone()),
                }
            }
        }
    }
}

/// `k:{"name":"a"}`: what tells an item apart, in the notation of FieldsV1.
fn item_key(item: &Value, keys: &[&str]) -> String {
    let mut sorted: Vec<&str> = keys.to_vec();
    sorted.sort_unstable();
    let mut out = Map::new();
    for key in sorted {
        let value = match item.get(key) {
            Some(value) if !value.is_null() => value.clone(),
            _ => match key_default(key) {
                Some(value) => json!(value),
                None => continue,
            },
        };
        out.insert(key.to_owned(), value);
    }
    format!("k:{}", Value::Object(out))
}

/// The fields that a document has, in the notation of `metadata.managedFields`.
#[must_use]
pub fn fields_v1(resource: Resource<'_>, document: &Value) -> Value {
    let Value::Object(fields) = document else {
        return json!({});
    };
    let ty = root(resource);
    let mut out = Map::new();
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("apiVersion" | "kind", _) => {}
            ("metadata", Value::Object(metadata)) => {
                // Only what clients own: the server owns the rest.
                let owned: Map<String, Value> = metadata
                    .iter()
                    .filter(|(key, _)| {
                        matches!(
                            key.as_str(),
                            "annotations" | "labels" | "finalizers" | "ownerReferences"
                        )
                    })
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                if !owned.is_empty() {
                    out.insert("f:metadata".to_owned(), object_fields(&owned, Type::Metadata));
                }
            }
            _ => {
                if let Some(inner) = field_set(value, ty.field(key)) {
                    out.insert(format!("f:{key}"), inner);
                }
            }
        }
    }
    Value::Object(out)
}

fn object_fields(fields: &Map<String, Value>, ty: Type) -> Value {
    let mut out = Map::new();
    for (key, value) in fields {
        if let Some(inner) = field_set(value, ty.field(key)) {
            out.insert(format!("f:{key}"), inner);
        }
    }
    Value::Object(out)
}

/// The set below one field; `None` for a field that is applied as `null`.
fn field_set(value: &Value, field: Field) -> Option<Value> {
    match (value, field.list) {
        (Value::Null, _) => None,
        (Value::Object(fields), _) if !field.atomic => Some(object_fields(fields, field.ty)),
        (Value::Array(items), List::Set) => Some(Value::Object(
            items
                .iter()
                .map(|item| (format!("v:{item}"), json!({})))
                .collect(),
        )),
        (Value::Array(items), List::Map(keys)) => {
            let mut out = Map::new();
            for item in items {
                let mut inner = Map::new();
                inner.insert(".".to_owned(), json!({}));
                if let Value::Object(item) = item
                    && let Value::Object(fields) = object_fields(item, field.ty)
                {
                    inner.extend(fields);
                }
                out.insert(item_key(item, keys), Value::Object(inner));
            }
            Some(Value::Object(out))
        }
        _ => Some(json!({})),
    }
}

/// Removes what is in `before`, not in `now`, and nobody else's.
fn prune(target: &mut Value, before: &Value, now: Option<&Value>, others: &[&Value], ty: Type) {
    let (Value::Object(target), Value::Object(before)) = (target, before) else {
        return;
    };
    for (path, inner) in before {
        let Some(key) = path.strip_prefix("f:") else {
            continue;
        };
        let field = ty.field(key);
        let below = Below::of(path, inner, now, others);
        if below.is_leaf {
            if below.is_abandoned() {
                target.shift_remove(key);
            }
            continue;
        }
        let Some(value) = target.get_mut(key) else {
            continue;
        };
        let is_empty = match value {
            Value::Object(_) => {
                prune(value, inner, below.now, &below.others, field.ty);
                value.as_object().is_some_and(Map::is_empty)
            }
            Value::Array(items) => {
                prune_list(items, inner, &below, field);
                items.is_empty()
            }
            _ => false,
        };
        if is_empty && below.is_abandoned() {
            target.shift_remove(key);
        }
    }
}

fn prune_list(items: &mut Vec<Value>, before: &Value, below: &Below<'_>, field: Field) {
    let Value::Object(before) = before else { return };
    for (path, inner) in before {
        let item = Below::of(path, inner, below.now, &below.others);
        let found = items.iter().position(|item| match field.list {
            List::Map(keys) => item_key(item, keys) == *path,
            List::Set => format!("v:{item}") == *path,
            List::Atomic => false,
        });
        let Some(index) = found else { continue };
        if item.is_abandoned() {
            items.remove(index);
        } else if let Some(value) = items.get_mut(index) {
            prune(value, inner, item.now, &item.others, field.ty);
        }
    }
}

/// One path of the set that a manager had, with what stands there in other sets.
struct Below<'a> {
    is_leaf: bool,
    now: Option<&'a Value>,
    others: Vec<&'a Value>,
}

impl<'a> Below<'a> {
    fn of(path: &str, before: &Value, now: Option<&'a Value>, others: &[&'a Value]) -> Self {
        let is_leaf = |set: &Value| set.as_object().is_none_or(Map::is_empty);
        Self {
            is_leaf: is_leaf(before),
            now: now.and_then(|now| now.get(path)),
            // Who owns a list or an object as a whole owns all below it.
            others: others
                .iter()
                .filter_map(|other| {
                    if is_leaf(other) {
                        Some(*other)
                    } else {
                        other.get(path)
                    }
                })
                .collect(),
        }
    }

    fn is_abandoned(&self) -> bool {
        self.now.is_none() && self.others.is_empty()
    }
}

#[cfg(test)]
mod tests;
