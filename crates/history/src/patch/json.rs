//! JSON patch, RFC 6902.

use json_patch::PatchOperation;
use serde_json::Value;

use super::{MAX_BYTES, PatchError};

/// Operations that one patch may have.
///
/// Source: k8s.io/apiserver pkg/endpoints/handlers/patch.go, maxJSONPatchOperations.
pub const MAX_OPERATIONS: usize = 10_000;

/// Applies a patch; all of it or nothing.
pub(super) fn patch(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, \
             got {count}"
        )));
    }
    if patch.is_null() {
        return Ok(current.clone());
    }
    let operations: Vec<PatchOperation> = serde::Deserialize::deserialize(patch)
        .map_err(|error: serde_json::Error| PatchError::Decode(error.to_string()))?;
    let mut out = current.clone();
    let mut copied = 0;
    for operation in &operations {
        // A few copies of a document into itself would fill any memory.
        if let PatchOperation::Copy(copy) = operation
            && let Ok(source) = copy.from.resolve(&out)
        {
            copied += size(source);
            if copied > MAX_BYTES {
                return Err(PatchError::TooLarge(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, \
                     exceeding the limit {MAX_BYTES}"
                )));
            }
        }
        json_patch::patch(&mut out, std::slice::from_ref(operation))
            .map_err(|error| PatchError::NotApplicable(error.to_string()))?;
    }
    Ok(out)
}

/// About as many bytes as the JSON text has.
fn size(value: &Value) -> usize {
    let mut total = 0;
    let mut stack = vec![value];
    while let Some(value) = stack.pop() {
        total += match value {
            Value::String(text) => text.len() + 2,
            Value::Object(fields) => {
                stack.extend(fields.values());
                fields.keys().map(|key| key.len() + 4).sum::<usize>() + 2
            }
            Value::Array(items) => {
                stack.extend(items);
                items.len() + 2
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        };
    }
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn patched(current: &Value, operations: &Value) -> Value {
        patch(current, operations).unwrap()
    }

    /// RFC 6902, appendix A.
    #[test]
    fn the_examples_of_the_rfc_hold() {
        let cases = [
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux"}]),
                json!({"baz": "qux", "foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "baz"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
                json!({"foo": ["bar", "qux", "baz"]}),
            ),
            (
                json!({"baz": "qux", "foo": "bar"}),
                json!([{"op": "remove", "path": "/baz"}]),
                json!({"foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "qux", "baz"]}),
                json!([{"op": "remove", "path": "/foo/1"}]),
                json!({"foo": ["bar", "baz"]}),
            ),
            (
                json!({"baz": "qux", "foo": "bar"}),
                json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
                json!({"baz": "boo", "foo": "bar"}),
            ),
            (
                json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
                json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
                json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
            ),
            (
                json!({"foo": ["all", "grass", "cows", "eat"]}),
                json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
                json!({"foo": ["all", "cows", "eat", "grass"]}),
            ),
            (
                json!({"baz": "qux", "foo": ["a", 2, "c"]}),
                json!([{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}]),
                json!({"baz": "qux", "foo": ["a", 2, "c"]}),
            ),
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/child", "value": {"grandchild": {}}}]),
                json!({"foo": "bar", "child": {"grandchild": {}}}),
            ),
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]),
                json!({"foo": "bar", "baz": "qux"}),
            ),
            (
                json!({"/": 9, "~1": 10}),
                json!([{"op": "test", "path": "/~01", "value": 10}]),
                json!({"/": 9, "~1": 10}),
            ),
            (
                json!({"foo": ["bar"]}),
                json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
                json!({"foo": ["bar", ["abc", "def"]]}),
            ),
        ];
        for (current, operations, expected) in cases {
            assert_eq!(patched(&current, &operations), expected, "{operations}");
        }
    }

    #[test]
    fn a_patch_that_does_not_fit_is_refused() {
        let current = json!({"baz": "qux"});
        for operations in [
            json!([{"op": "test", "path": "/baz", "value": "bar"}]),
            json!([{"op": "test", "path": "/baz", "value": 10}]),
            json!([{"op": "add", "path": "/a/b", "value": 1}]),
            json!([{"op": "remove", "path": "/gone"}]),
            json!([{"op": "replace", "path": "/gone", "value": 1}]),
        ] {
            assert!(
                matches!(patch(&current, &operations), Err(PatchError::NotApplicable(_))),
                "{operations}"
            );
        }
        for operations in [
            json!({}),
            json!([{"op": "nonsense", "path": "/a"}]),
            json!([{"path": "/a"}]),
        ] {
            assert!(
                matches!(patch(&current, &operations), Err(PatchError::Decode(_))),
                "{operations}"
            );
        }
    }

    #[test]
    fn operations_and_copies_are_bounded() {
        let many: Vec<Value> = (0..=MAX_OPERATIONS)
            .map(|_| json!({"op": "add", "path": "/a", "value": 1}))
            .collect();
        assert_eq!(
            patch(&json!({}), &json!(many)).unwrap_err().to_string(),
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
        let copies: Vec<Value> = (0..64)
            .map(|index| json!({"op": "copy", "from": "/a", "path": format!("/a/c{index}")}))
            .collect();
        assert!(matches!(
            patch(&json!({"a": {"b": "x".repeat(100)}}), &json!(copies)),
            Err(PatchError::TooLarge(_))
        ));
    }
}
