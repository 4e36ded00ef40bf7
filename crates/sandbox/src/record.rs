//! What the handlers tell the audit event of their request.
//!
//! Source: k8s.io/apiserver pkg/audit/request.go, LogRequestObject, LogRequestPatch, LogResponseObject.

use bytes::Bytes;
use kaudit_event::{Level, Status, StatusCause, StatusDetails, Text};
use kaudit_tower::{AuditContext, ObjectMeta, SessionGuard};
use serde_json::Value;

use crate::object::{items, text};

/// The audit event of a request; says nothing where no chain stands around the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    audit: Option<AuditContext>,
}

impl Recorder {
    /// The recorder that the chain put beside a request.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        Self {
            audit: extensions.get::<AuditContext>().cloned(),
        }
    }

    /// The context and the level, where anything is recorded at all.
    fn enabled(&self) -> Option<(&AuditContext, Level)> {
        let audit = self.audit.as_ref()?;
        let level = audit.level().filter(|level| *level >= Level::Metadata)?;
        Some((audit, level))
    }

    /// Keeps the event open until the value is dropped.
    pub(crate) fn hold_open(&self) -> Option<SessionGuard> {
        self.audit.as_ref().map(AuditContext::hold_open)
    }

    /// The decoded and defaulted body of a create or update, or the options of a deletion.
    pub(crate) fn request_object(&self, object: &Value) {
        let Some((audit, level)) = self.enabled() else {
            return;
        };
        let part = |pointer: &str| owned(text(object, pointer));
        let meta = ObjectMeta {
            name: part("/metadata/name"),
            namespace: part("/metadata/namespace"),
            uid: part("/metadata/uid"),
            resource_version: part("/metadata/resourceVersion"),
        };
        let json = if level >= Level::Request {
            encode(object)
        } else {
            Bytes::new()
        };
        audit.request_object(json, &meta);
    }

    /// The body of a patch as it was sent.
    pub(crate) fn request_patch(&self, patch: &Bytes) {
        if let Some((audit, _)) = self.enabled() {
            audit.request_patch(patch.clone());
        }
    }

    /// An object or Status that is answered.
    pub(crate) fn response_object(&self, code: u16, object: &Value) {
        let Some((audit, level)) = self.enabled() else {
            return;
        };
        if text(object, "/kind") == "Status" && text(object, "/apiVersion") == "v1" {
            audit.response_status(&status(code, object));
        }
        if level >= Level::RequestResponse {
            audit.response_object(encode(object));
        }
    }

    /// An annotation of the event.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        if let Some(audit) = &self.audit {
            audit.annotate(owned(key), owned(value));
        }
    }
}

fn owned(text: &str) -> Text {
    Text::copy_from_slice(text.as_bytes())
}

fn encode(object: &Value) -> Bytes {
    // A value of ours always has a text.
    serde_json::to_vec(object).unwrap_or_default().into()
}

fn status(code: u16, object: &Value) -> Status {
    let details = object.get("details").map(|details| StatusDetails {
        name: owned(text(details, "/name")),
        group: owned(text(details, "/group")),
        kind: owned(text(details, "/kind")),
        uid: owned(text(details, "/uid")),
        causes: items(details, "/causes")
            .map(|cause| StatusCause {
                reason: owned(text(cause, "/reason")),
                message: owned(text(cause, "/message")),
                field: owned(text(cause, "/field")),
            })
            .collect(),
        retry_after_seconds: details
            .get("retryAfterSeconds")
            .and_then(Value::as_i64)
            .and_then(|seconds| i32::try_from(seconds).ok())
            .unwrap_or(0),
    });
    Status {
        status: owned(text(object, "/status")),
        message: owned(text(object, "/message")),
        reason: owned(text(object, "/reason")),
        details,
        code: i32::from(code),
        ..Status::default()
    }
}
