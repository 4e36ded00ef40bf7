//! The four kinds of patch.

mod apply;
mod json;
mod merge;
mod schema;
mod strategic;

pub use apply::{Manager, apply, fields_v1};
pub use json::MAX_OPERATIONS;

use serde_json::Value;

/// How deep a patch or an object may nest; the real server's decoder stops later, at 10000.
pub const MAX_DEPTH: usize = 256;
/// Bytes of a patch, and bytes that the copies of one JSON patch may add.
///
/// Source: k8s.io/apiserver pkg/server/config.go, MaxRequestBodyBytes and JSONPatchMaxCopyBytes.
pub const MAX_BYTES: usize = 3 * 1024 * 1024;

/// The kinds of patch that take no field manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the API has these, and apply beside them")]
pub enum PatchType {
    /// `application/json-patch+json`: RFC 6902.
    Json,
    /// `application/merge-patch+json`: RFC 7386.
    Merge,
    /// `application/strategic-merge-patch+json`: merges lists by the keys of their items.
    Strategic,
}

/// What a patch is applied to, as a request names it: lists merge differently in each resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a resource is a group and a plural")]
pub struct Resource<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Plural name.
    pub resource: &'a str,
}

/// Why a patch was not applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The patch is not of its kind's form; the text is that of Go's decoder.
    #[error("error decoding patch: {0}")]
    Decode(String),
    /// A bound was exceeded before anything was done.
    #[error("{0}")]
    TooLarge(String),
    /// The patch names what is not there, or a test failed.
    #[error("the patch does not apply: {0}")]
    NotApplicable(String),
    /// A strategic merge patch with a directive that makes no sense.
    #[error("{0}")]
    Directive(#[from] DirectiveError),
    /// An applied document is no object, or of another kind.
    #[error("{0}")]
    Applied(String),
}

/// Directives and lists that no strategic merge can follow.
///
/// Source: k8s.io/apimachinery pkg/util/mergepatch/errors.go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectiveError {
    /// Neither the object nor the patch may be anything but an object.
    #[error("invalid JSON document")]
    BadDocument,
    /// A list has lists as items.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// A list has items of several types.
    #[error("list element types are not identical")]
    MixedList,
    /// `$deleteFromPrimitiveList` is not a list.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// `$retainKeys` is not a list.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// The patch sets a field that `$retainKeys` does not retain.
    #[error("patch format is not consistent with retainKeys")]
    NotRetained,
    /// `$setElementOrder` is not a list.
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    /// An item has no value for the key its list merges by.
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The item.
        item: String,
        /// The key.
        key: &'static str,
    },
    /// `$patch` is neither `replace`, `delete` nor `merge`.
    #[error("unknown patch type: {directive} in map: {item}")]
    UnknownDirective {
        /// What it is.
        directive: String,
        /// Where it is.
        item: String,
    },
    /// `$patch: merge` in a list.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeList,
}

/// What a patch makes of an object; the object itself is left alone.
///
/// # Errors
///
/// [`PatchError`] for a patch that is malformed, too large, or does not fit the object.
pub fn apply_patch(
    resource: Resource<'_>,
    kind: PatchType,
    current: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    check_depth(patch)?;
    check_form(kind, patch)?;
    match kind {
        PatchType::Json => json::patch(current, patch),
        PatchType::Merge => {
            let mut out = current.clone();
            if patch.is_object() {
                merge::merge(&mut out, patch);
            }
            Ok(out)
        }
        PatchType::Strategic => strategic::patch(resource, current, patch),
    }
}

/// As [`apply_patch`], with the patch as JSON text.
///
/// # Errors
///
/// As [`apply_patch`]; also for a text that is too long or no JSON.
pub fn apply_patch_text(
    resource: Resource<'_>,
    kind: PatchType,
    current: &Value,
    patch: &[u8],
) -> Result<Value, PatchError> {
    if patch.len() > MAX_BYTES {
        return Err(PatchError::TooLarge(format!(
            "Request entity too large: limit is {MAX_BYTES}"
        )));
    }
    let patch = serde_json::from_slice(patch).map_err(|error| {
        PatchError::Decode(match error.classify() {
            serde_json::error::Category::Eof => "unexpected end of JSON input".to_owned(),
            _ => error.to_string(),
        })
    })?;
    apply_patch(resource, kind, current, &patch)
}

/// Only a JSON patch is a list; the others are objects, or nothing at all.
fn check_form(kind: PatchType, patch: &Value) -> Result<(), PatchError> {
    let found = match patch {
        Value::Array(_) if kind == PatchType::Json => return Ok(()),
        Value::Object(_) if kind != PatchType::Json => return Ok(()),
        Value::Null => return Ok(()),
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
    };
    let wanted = match kind {
        PatchType::Json => "jsonpatch.Patch",
        PatchType::Merge | PatchType::Strategic => "map[string]interface {}",
    };
    Err(PatchError::Decode(format!(
        "json: cannot unmarshal {found} into Go value of type {wanted}"
    )))
}

/// Everything after this recurses.
fn check_depth(value: &Value) -> Result<(), PatchError> {
    let mut stack = vec![(value, 0)];
    while let Some((value, depth)) = stack.pop() {
        if depth > MAX_DEPTH {
            return Err(PatchError::TooLarge(format!(
                "the patch nests deeper than {MAX_DEPTH} levels"
            )));
        }
        match value {
            Value::Object(fields) => stack.extend(fields.values().map(|value| (value, depth + 1))),
            Value::Array(items) => stack.extend(items.iter().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CONFIG_MAPS: Resource<'_> = Resource {
        group: "",
        resource: "configmaps",
    };

    /// As a real server answered them.
    #[test]
    fn texts_of_malformed_patches_are_those_of_the_real_server() {
        for (kind, patch, expected) in [
            (PatchType::Merge, "", "unexpected end of JSON input"),
            (PatchType::Merge, "{\"a\":", "unexpected end of JSON input"),
            (
                PatchType::Merge,
                "[]",
                "json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            (
                PatchType::Strategic,
                "1",
                "json: cannot unmarshal number into Go value of type map[string]interface {}",
            ),
            (
                PatchType::Json,
                "{}",
                "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
            ),
        ] {
            let error = apply_patch_text(CONFIG_MAPS, kind, &json!({}), patch.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), format!("error decoding patch: {expected}"));
        }
    }

    #[test]
    fn a_patch_that_is_null_changes_nothing() {
        for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            let current = json!({"a": 1});
            assert_eq!(
                apply_patch(CONFIG_MAPS, kind, &current, &Value::Null).unwrap(),
                current
            );
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BYTES));
        let error = apply_patch_text(CONFIG_MAPS, PatchType::Merge, &json!({}), long.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "Request entity too large: limit is 3145728");
        let mut deep = json!(1);
        for _ in 0..=MAX_DEPTH {
            deep = json!({"a": deep});
        }
        assert!(matches!(
            apply_patch(CONFIG_MAPS, PatchType::Merge, &json!({}), &deep),
            Err(PatchError::TooLarge(_))
        ));
    }
}
