//! What bodies say about the object they hold.

mod deprecation;
mod options;
mod protobuf;

use kaudit_event::{Status, StatusCause, StatusDetails, Text};
use serde::Deserialize;

pub(crate) use deprecation::Deprecation;
pub(crate) use options::delete_options;
pub(crate) use protobuf::Envelope;

/// The parts of an object's metadata that an event refers to; as the client sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the parts that audit knows")]
pub struct ObjectMeta {
    /// `metadata.name`.
    pub name: Text,
    /// `metadata.namespace`.
    pub namespace: Text,
    /// `metadata.uid`.
    pub uid: Text,
    /// `metadata.resourceVersion`.
    pub resource_version: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
}

impl ObjectMeta {
    /// Reads the metadata of a JSON object; `None` when it is not one.
    #[must_use]
    pub fn from_json(body: &[u8]) -> Option<Self> {
        let Object { metadata } = serde_json::from_slice(body).ok()?;
        Some(Self {
            name: metadata.name.into(),
            namespace: metadata.namespace.into(),
            uid: metadata.uid.into(),
            resource_version: metadata.resource_version.into(),
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireStatus {
    kind: String,
    api_version: String,
    status: serde_json::Value,
    message: String,
    reason: String,
    details: Option<WireDetails>,
    code: i32,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireDetails {
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<WireCause>,
    retry_after_seconds: i32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireCause {
    reason: String,
    message: String,
    field: String,
}

/// The Status that `body` is, in JSON or protobuf, as an event records it: without type meta and metadata.
#[must_use]
pub fn parse_status(body: &[u8]) -> Option<Status> {
    if let Some(envelope) = Envelope::parse(body) {
        return envelope.status();
    }
    if !body.starts_with(b"{") || find(body, b"\"Status\"").is_none() {
        return None;
    }
    let wire: WireStatus = serde_json::from_slice(body).ok()?;
    let serde_json::Value::String(status) = wire.status else {
        return None;
    };
    (wire.kind == "Status" && wire.api_version == "v1").then(|| Status {
        status: status.into(),
        message: wire.message.into(),
        reason: wire.reason.into(),
        details: wire.details.map(|details| StatusDetails {
            name: details.name.into(),
            group: details.group.into(),
            kind: details.kind.into(),
            uid: details.uid.into(),
            causes: details
                .causes
                .into_iter()
                .map(|cause| StatusCause {
                    reason: cause.reason.into(),
                    message: cause.message.into(),
                    field: cause.field.into(),
                })
                .collect(),
            retry_after_seconds: details.retry_after_seconds,
        }),
        code: wire.code,
        ..Status::default()
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
