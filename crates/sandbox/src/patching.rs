//! A PATCH request: which kind of patch, and what it makes of an object.

use jiff::Timestamp;
use kaudit_history::patch::{self, DirectiveError, Manager, PatchError, PatchType, Resource};
use serde_json::Value;

use crate::call::{Call, yaml};
use crate::object::{child, fields, text, timestamp};
use crate::status::{ApiError, Cause};

/// Media types that a patch may have.
const MEDIA_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";
/// Those for custom resources, which have no strategy to follow.
const CUSTOM_MEDIA_TYPES: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// A patch as it was sent.
#[derive(Debug)]
pub(crate) enum Patch {
    /// JSON text that is decoded when it is applied.
    Body(PatchType, bytes::Bytes),
    /// A document to apply.
    Apply(Value),
}

/// What a patch needs to know of its request.
#[derive(Debug)]
pub(crate) struct Context {
    group: String,
    plural: String,
    kind: String,
    manager: String,
    api_version: String,
    subresource: String,
    now: Timestamp,
}

impl Context {
    pub(crate) fn of(call: &Call) -> Self {
        Self {
            group: call.kind.group.to_string(),
            plural: call.kind.plural.to_string(),
            kind: call.kind.kind.to_string(),
            manager: call.field_manager(),
            api_version: call.kind.api_version(),
            subresource: call.subresource.clone(),
            now: call.now,
        }
    }

    fn resource(&self) -> Resource<'_> {
        Resource {
            group: &self.group,
            resource: &self.plural,
        }
    }
}

impl Patch {
    /// Decodes the body by its media type.
    ///
    /// # Errors
    ///
    /// 415 for another media type, 422 for an apply without a manager, 400 for what cannot be decoded.
    pub(crate) fn parse(call: &Call) -> Result<Self, ApiError> {
        let accepted = if call.kind.custom.is_some() {
            CUSTOM_MEDIA_TYPES
        } else {
            MEDIA_TYPES
        };
        let kind = match call.content_type() {
            "application/json-patch+json" => PatchType::Json,
            "application/merge-patch+json" => PatchType::Merge,
            "application/strategic-merge-patch+json" if call.kind.custom.is_some() => {
                return Err(ApiError::unsupported_media_type(accepted));
            }
            "application/strategic-merge-patch+json" => PatchType::Strategic,
            "application/apply-patch+yaml" => return Self::parse_apply(call),
            _ => return Err(ApiError::router_media_type()),
        };
        Ok(Self::Body(kind, call.body.clone()))
    }

    fn parse_apply(call: &Call) -> Result<Self, ApiError> {
        if call.query.text("fieldManager").is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        Ok(Self::Apply(yaml(&call.body)?))
    }

    pub(crate) fn is_apply(&self) -> bool {
        matches!(self, Self::Apply(_))
    }

    /// The object that applying to nothing makes.
    ///
    /// # Errors
    ///
    /// As [`Patch::apply`].
    pub(crate) fn applied_to_nothing(&self, call: &Call) -> Result<Value, ApiError> {
        self.make(&Context::of(call), None, &call.name)
    }

    /// What the patch makes of an object.
    ///
    /// # Errors
    ///
    /// 400 or 422 for a patch that does not fit, 413 for one that would take too much.
    pub(crate) fn apply(&self, context: &Context, before: &Value) -> Result<Value, ApiError> {
        self.make(context, Some(before), text(before, "/metadata/name"))
    }

    fn make(&self, context: &Context, before: Option<&Value>, name: &str) -> Result<Value, ApiError> {
        let resource = context.resource();
        let mut out = match self {
            Self::Body(kind, body) => {
                let empty = Value::Object(serde_json::Map::new());
                patch::apply_patch_text(resource, *kind, before.unwrap_or(&empty), body)
            }
            Self::Apply(document) => {
                let (found, wanted) = (text(document, "/kind"), &context.kind);
                if context.subresource != "scale" && found != wanted {
                    return Err(ApiError::bad_request(format!(
                        "error decoding the applied document: its kind {found:?} is not {wanted:?}"
                    )));
                }
                let manager = Manager {
                    name: &context.manager,
                    api_version: &context.api_version,
                    subresource: &context.subresource,
                    time: &timestamp(context.now),
                };
                patch::apply(resource, before, document, manager)
            }
        }
        .map_err(refusal)?;
        if before.is_none() && text(&out, "/metadata/name").is_empty() {
            child(fields(&mut out), "metadata").insert("name".to_owned(), name.into());
        }
        if text(&out, "/metadata/name") != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                text(&out, "/metadata/name")
            )));
        }
        Ok(out)
    }
}

/// Source: k8s.io/apiserver pkg/endpoints/handlers/patch.go, interpretStrategicMergePatchError.
fn refusal(error: PatchError) -> ApiError {
    let message = error.to_string();
    match error {
        PatchError::TooLarge(_) => ApiError {
            code: 413,
            reason: "RequestEntityTooLarge",
            message,
            details: None,
        },
        PatchError::NotApplicable(_)
        | PatchError::Directive(DirectiveError::ListOfLists | DirectiveError::NotRetained) => {
            ApiError::rejected()
        }
        PatchError::Directive(
            DirectiveError::NoMergeKey { .. }
            | DirectiveError::UnknownDirective { .. }
            | DirectiveError::MergeList
            | DirectiveError::MixedList,
        ) => ApiError {
            code: 500,
            reason: "",
            message,
            details: None,
        },
        _ => ApiError::bad_request(message),
    }
}
