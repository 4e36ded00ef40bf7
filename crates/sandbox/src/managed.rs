//! `metadata.managedFields`: who wrote which field last, coarsely.
//!
//! Field ownership as server-side apply has it is not the aim: an entry names what its manager
//! changed, and conflicts are not looked for.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::object::{child, fields, timestamp};

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// Enters a create, update or patch in the manager's entry.
pub(crate) fn record_update(
    object: &mut Value,
    before: Option<&Value>,
    manager: &str,
    api_version: &str,
    subresource: &str,
    now: Timestamp,
) {
    let old_entries = before
        .and_then(|before| before.pointer("/metadata/managedFields"))
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let changed = changed(before.unwrap_or(&Value::Null), object, 0);
    let mut entries = old_entries;
    if let Some(Value::Object(mut changed)) = changed {
        let is_own = |entry: &Value| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            text("manager") == manager && text("operation") == "Update" && text("subresource") == subresource
        };
        if let Some(own) = entries.iter().find(|entry| is_own(entry))
            && let Some(Value::Object(owned)) = own.get("fieldsV1")
        {
            merge(&mut changed, owned);
        }
        entries.retain(|entry| !is_own(entry));
        let mut entry = json!({
            "manager": manager,
            "operation": "Update",
            "apiVersion": api_version,
            "time": timestamp(now),
            "fieldsType": "FieldsV1",
            "fieldsV1": changed,
        });
        if !subresource.is_empty() {
            fields(&mut entry).insert("subresource".to_owned(), json!(subresource));
        }
        entries.push(entry);
    }
    let metadata = child(fields(object), "metadata");
    if entries.is_empty() {
        metadata.shift_remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// Objects nest deeper than anyone wants to read in a field set.
const DEPTH: u32 = 16;

/// The fields of `after` that differ from `before`, in the notation of FieldsV1; lists are leaves.
fn changed(before: &Value, after: &Value, depth: u32) -> Option<Value> {
    if before == after {
        return None;
    }
    let Value::Object(after) = after else {
        return Some(json!({}));
    };
    if depth == DEPTH {
        return Some(json!({}));
    }
    let mut out = Map::new();
    for (key, value) in after {
        let system = match depth {
            0 => matches!(key.as_str(), "apiVersion" | "kind"),
            _ => false,
        };
        if system {
            continue;
        }
        let old = before.get(key).unwrap_or(&Value::Null);
        let inner = if depth == 0 && key == "metadata" {
            metadata(old, value)
        } else {
            changed(old, value, depth + 1)
        };
        if let Some(inner) = inner {
            out.insert(format!("f:{key}"), inner);
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// Only what clients own of the metadata.
fn metadata(before: &Value, after: &Value) -> Option<Value> {
    let mut out = Map::new();
    for key in ["annotations", "labels", "finalizers", "ownerReferences"] {
        let Some(value) = after.get(key) else { continue };
        if let Some(inner) = changed(before.get(key).unwrap_or(&Value::Null), value, 1) {
            out.insert(format!("f:{key}"), inner);
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from),
            (Some(_), _) => {}
            (None, value) => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_what_its_manager_changed() {
        let mut first =
            json!({"kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "1"}}, "data": {"k": "v"}});
        record_update(&mut first, None, "kubectl", "v1", "", Timestamp::UNIX_EPOCH);
        let entry = &first["metadata"]["managedFields"][0];
        assert_eq!(
            entry["fieldsV1"],
            json!({"f:metadata": {"f:labels": {"f:x": {}}}, "f:data": {"f:k": {}}})
        );
        let mut second = first.clone();
        second["data"] = json!({"k": "v", "l": "w"});
        record_update(
            &mut second,
            Some(&first),
            "other",
            "v1",
            "",
            Timestamp::UNIX_EPOCH,
        );
        let entries = second["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1]["fieldsV1"], json!({"f:data": {"f:l": {}}}));
    }

    #[test]
    fn a_write_that_changes_nothing_enters_nobody() {
        let mut first = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
        record_update(&mut first, None, "kubectl", "v1", "", Timestamp::UNIX_EPOCH);
        let mut second = first.clone();
        record_update(
            &mut second,
            Some(&first),
            "other",
            "v1",
            "",
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(first, second);
    }
}
