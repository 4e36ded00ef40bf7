//! Strategic merge patch: a merge that knows by which key a list's items are told apart, and takes
//! directives.
//!
//! Source: k8s.io/apimachinery pkg/util/strategicpatch/patch.go.

use serde_json::{Map, Value};

use super::schema::{List, Type, root};
use super::{DirectiveError, PatchError, Resource};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

/// Applies a patch to an object of a resource.
pub(super) fn patch(resource: Resource<'_>, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    if patch.is_null() {
        return Ok(current.clone());
    }
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(DirectiveError::BadDocument.into());
    };
    Ok(Value::Object(merge_map(
        current.clone(),
        patch.clone(),
        root(resource),
    )?))
}

/// Source: mergeMap.
fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    ty: Type,
) -> Result<Map<String, Value>, DirectiveError> {
    if let Some(directive) = patch.shift_remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => Err(unknown(&directive, patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_element_orders(&mut original, &mut patch, ty)?;
    for (key, value) in patch {
        let (key, is_deletion) = match key.strip_prefix(DELETE_PREFIX) {
            Some(list) => (list.to_owned(), true),
            None => (key, false),
        };
        if value.is_null() {
            original.shift_remove(&key);
            continue;
        }
        let field = ty.field(&key);
        match (original.get_mut(&key), value) {
            (Some(Value::Object(before)), Value::Object(value)) => {
                let before = std::mem::take(before);
                original.insert(key, Value::Object(merge_map(before, value, field.ty)?));
            }
            (Some(Value::Array(before)), Value::Array(value)) => {
                let before = std::mem::take(before);
                let after = merge_list(before, value, field.list, field.ty, is_deletion)?;
                original.insert(key, Value::Array(after));
            }
            (Some(_), _) | (None, _) if is_deletion => {}
            (_, value) => {
                original.insert(key, plain(value));
            }
        }
    }
    Ok(original)
}

fn unknown(directive: &Value, mut item: Map<String, Value>) -> DirectiveError {
    item.insert(DIRECTIVE.to_owned(), directive.clone());
    DirectiveError::UnknownDirective {
        directive: go_value(directive),
        item: go_value(&Value::Object(item)),
    }
}

/// Removes from the original what the patch does not retain.
///
/// Source: applyRetainKeysDirective.
fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), DirectiveError> {
    let Some(retained) = patch.shift_remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retained) = retained else {
        return Err(DirectiveError::RetainKeys);
    };
    let keeps = |key: &str| retained.iter().any(|item| item.as_str() == Some(key));
    let is_directive = |key: &str| key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX);
    if patch
        .iter()
        .any(|(key, value)| !value.is_null() && !is_directive(key) && !keeps(key))
    {
        return Err(DirectiveError::NotRetained);
    }
    original.retain(|key, _| keeps(key));
    Ok(())
}

/// Merges the lists whose order the patch gives, and takes them out of it.
///
/// Source: mergePatchIntoOriginal.
fn set_element_orders(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    ty: Type,
) -> Result<(), DirectiveError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(ORDER_PREFIX))
        .cloned()
        .collect();
    for directive in directives {
        let order = patch.shift_remove(&directive);
        let key = directive.strip_prefix(ORDER_PREFIX).unwrap_or_default();
        let Some(Value::Array(order)) = order else {
            return Err(DirectiveError::ElementOrder);
        };
        let field = ty.field(key);
        let identity = Identity::of(field.list);
        let before = match original.get(key) {
            Some(Value::Array(items)) => Some(items.clone()),
            _ => None,
        };
        let merged = match (patch.shift_remove(key), &before) {
            (Some(Value::Array(items)), Some(before)) => {
                merge_list(before.clone(), items, field.list, field.ty, false)?
            }
            (Some(Value::Array(items)), None) => match plain(Value::Array(items)) {
                Value::Array(items) => items,
                _ => Vec::new(),
            },
            (Some(Value::Null), _) => {
                original.shift_remove(key);
                continue;
            }
            (Some(other), _) => {
                original.insert(key.to_owned(), plain(other));
                continue;
            }
            (None, Some(before)) => before.clone(),
            (None, None) => continue,
        };
        let merged = in_order(merged, &order, before.as_deref().unwrap_or_default(), identity);
        original.insert(key.to_owned(), Value::Array(merged));
    }
    Ok(())
}

/// What tells a list's items apart.
#[derive(Clone, Copy)]
enum Identity {
    Itself,
    Key(&'static str),
}

impl Identity {
    fn of(list: List) -> Self {
        match list {
            List::Map(keys) => keys.first().map_or(Self::Itself, |key| Self::Key(key)),
            List::Set | List::Atomic => Self::Itself,
        }
    }

    fn same(self, a: &Value, b: &Value) -> bool {
        match self {
            Self::Itself => a == b,
            Self::Key(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        }
    }

    fn position(self, list: &[Value], item: &Value) -> Option<usize> {
        list.iter().position(|other| self.same(other, item))
    }
}

/// Source: mergeSliceHandler, mergeSlice.
fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    list: List,
    ty: Type,
    is_deletion: bool,
) -> Result<Vec<Value>, DirectiveError> {
    if list == List::Atomic && !is_deletion {
        return match plain(Value::Array(patch)) {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        };
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    check_items(original.iter().chain(&patch))?;
    if is_deletion {
        return Ok(original
            .into_iter()
            .filter(|item| !patch.contains(item))
            .collect());
    }
    let List::Map(keys) = list else {
        let mut merged: Vec<Value> = Vec::new();
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(in_order(merged, &patch, &original, Identity::Itself));
    };
    let Some(key) = keys.first() else {
        return Ok(patch);
    };
    let (original, patch) = special_items(original, patch, key)?;
    let identity = Identity::Key(key);
    let mut merged = original.clone();
    for item in &patch {
        let Value::Object(fields) = item else { continue };
        let Some(slot) = merged.iter_mut().find(|other| identity.same(other, item)) else {
            merged.push(plain(item.clone()));
            continue;
        };
        if let Value::Object(before) = slot {
            *before = merge_map(std::mem::take(before), fields.clone(), ty)?;
        }
    }
    Ok(in_order(merged, &patch, &original, identity))
}

/// All items are objects, or all are scalars; none is a list.
///
/// Source: sliceElementType.
fn check_items<'a>(items: impl Iterator<Item = &'a Value>) -> Result<(), DirectiveError> {
    let mut is_object = None;
    for item in items {
        if item.is_array() {
            return Err(DirectiveError::ListOfLists);
        }
        if *is_object.get_or_insert(item.is_object()) != item.is_object() {
            return Err(DirectiveError::MixedList);
        }
    }
    Ok(())
}

/// Carries out the items that are directives; what is left is to be merged.
///
/// Source: mergeSliceWithSpecialElements.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &'static str,
) -> Result<(Vec<Value>, Vec<Value>), DirectiveError> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut replaces = false;
    for item in patch {
        match item.get(DIRECTIVE).and_then(Value::as_str) {
            None if item.get(DIRECTIVE).is_some() => {
                let directive = item.get(DIRECTIVE).cloned().unwrap_or_default();
                return Err(unknown(&directive, item.as_object().cloned().unwrap_or_default()));
            }
            None if item.get(key).is_none() => return Err(no_key(&item, key)),
            None => rest.push(item),
            Some("delete") => {
                if item.get(key).is_none() {
                    return Err(no_key(&item, key));
                }
                original.retain(|other| other.get(key) != item.get(key));
            }
            Some("replace") => replaces = true,
            Some("merge") => return Err(DirectiveError::MergeList),
            Some(other) => {
                let directive = Value::from(other);
                return Err(unknown(&directive, item.as_object().cloned().unwrap_or_default()));
            }
        }
    }
    if replaces {
        let rest = rest.into_iter().map(plain).collect();
        return Ok((rest, Vec::new()));
    }
    Ok((original, rest))
}

fn no_key(item: &Value, key: &'static str) -> DirectiveError {
    DirectiveError::NoMergeKey {
        item: go_value(item),
        key,
    }
}

/// A value as Go's `%v` prints it.
fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_value).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{key}:{}", go_value(value)))
                .collect();
            fields.sort_unstable();
            format!("map[{}]", fields.join(" "))
        }
    }
}

/// Puts the items that the patch names into its order, and those it does not name where the original
/// had them.
///
/// Source: normalizeElementOrder, mergeSortedSlice.
fn in_order(merged: Vec<Value>, order: &[Value], original: &[Value], identity: Identity) -> Vec<Value> {
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| identity.position(order, item).is_some());
    named.sort_by_key(|item| identity.position(order, item));
    others.sort_by_key(|item| identity.position(original, item).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let place = identity.position(original, &item);
        while let Some(other) = others.next_if(|other| {
            let before = identity.position(original, other).zip(place);
            before.is_some_and(|(other, place)| other < place)
        }) {
            out.push(other);
        }
        out.push(item);
    }
    out.extend(others);
    out
}

/// A value of the patch that meets nothing of the original: without its directives and nulls.
///
/// Source: dropDirectives, discardNullValuesFromPatch.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(key, value)| {
                    let is_directive = key == DIRECTIVE
                        || key == RETAIN_KEYS
                        || key.starts_with(DELETE_PREFIX)
                        || key.starts_with(ORDER_PREFIX);
                    !is_directive && !value.is_null()
                })
                .map(|(key, value)| (key, plain(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(
            items
                .into_iter()
                .filter(|item| item.get(DIRECTIVE).is_none())
                .map(plain)
                .collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests;
