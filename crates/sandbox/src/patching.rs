//! A PATCH request: which kind of patch, and what it makes of an object.

use serde_json::{Value, json};

use crate::call::{Call, yaml};
use crate::managed;
use crate::object::{fields, text};
use crate::status::ApiError;

/// Media types that a patch may have.
const MEDIA_TYPES: &str = "application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatchKind {
    Merge,
    Strategic,
    Apply,
}

/// A decoded patch.
#[derive(Debug)]
pub(crate) struct Patch {
    kind: PatchKind,
    document: Value,
}

/// What a patch needs to know of its request.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) manager: String,
    pub(crate) api_version: String,
    pub(crate) time: String,
}

impl Context {
    pub(crate) fn of(call: &Call) -> Self {
        Self {
            manager: call.field_manager(),
            api_version: call.kind.api_version(),
            time: crate::object::timestamp(call.now),
        }
    }
}

impl Patch {
    /// Decodes the body by its media type.
    ///
    /// # Errors
    ///
    /// 415 for another media type, 400 for what cannot be decoded.
    pub(crate) fn parse(call: &Call) -> Result<Self, ApiError> {
        let kind = match call.content_type() {
            "application/merge-patch+json" => PatchKind::Merge,
            // Custom resources have no strategy to follow.
            "application/strategic-merge-patch+json" if call.kind.custom.is_none() => PatchKind::Strategic,
            "application/apply-patch+yaml" => PatchKind::Apply,
            _ => return Err(ApiError::unsupported_media_type(MEDIA_TYPES)),
        };
        if kind == PatchKind::Apply && call.query.text("fieldManager").is_empty() {
            return Err(ApiError::unprocessable(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        let document = match kind {
            PatchKind::Apply => yaml(&call.body)?,
            _ => serde_json::from_slice(&call.body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?,
        };
        Ok(Self { kind, document })
    }

    pub(crate) fn is_apply(&self) -> bool {
        self.kind == PatchKind::Apply
    }

    /// The object that applying to nothing makes.
    ///
    /// # Errors
    ///
    /// 400 for a patch of another object.
    pub(crate) fn applied_to_nothing(&self, call: &Call) -> Result<Value, ApiError> {
        let empty = json!({"apiVersion": call.kind.api_version(), "kind": call.kind.kind, "metadata": {"name": call.name}});
        self.apply(&Context::of(call), &empty)
    }

    /// What the patch makes of an object.
    ///
    /// # Errors
    ///
    /// 400 or 422 for a patch that does not fit.
    pub(crate) fn apply(&self, context: &Context, before: &Value) -> Result<Value, ApiError> {
        let mut out = before.clone();
        // A strategic merge whose lists are replaced as a whole: the least that is right for maps.
        merge(&mut out, &self.document);
        let name = text(before, "/metadata/name");
        if text(&out, "/metadata/name") != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                text(&out, "/metadata/name")
            )));
        }
        if self.kind == PatchKind::Apply {
            managed::record_apply(&mut out, before, &self.document, context);
        }
        Ok(out)
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let target = fields(target);
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
