//! What bodies say about the object they hold.

mod deprecation;
mod encoding;
mod options;
mod protobuf;
mod token;

use kaudit_codec::{cbor, yaml};
use kaudit_event::{Status, StatusCause, StatusDetails, Text};
use memchr::memmem;
use serde::Deserialize;

pub(crate) use deprecation::Deprecation;
pub(crate) use encoding::{Encoding, Read, patch, read};
pub(crate) use options::delete_options;
pub(crate) use protobuf::Envelope;
pub(crate) use token::{credential_id, issues_token};

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

/// Bytes of a Status in any encoding.
pub(crate) const STATUS_BYTES: usize = 64 << 10;

/// What a Status in YAML begins with, as the server writes it.
const YAML_BEGINNING: &[u8] = b"apiVersion: v1\n";

/// Whether a body that begins with `data` can be a Status, as far as can be seen.
pub(crate) fn can_be_status(data: &[u8]) -> bool {
    /// So far into JSON or protobuf its kind can be read.
    const HEAD: usize = 256;
    let head = if data.starts_with(b"{") || data.starts_with(b"k8s\0") {
        data.get(..HEAD).unwrap_or(data)
    } else if data.starts_with(YAML_BEGINNING) || data.starts_with(cbor::MAGIC) {
        data.get(..STATUS_BYTES).unwrap_or(data)
    } else {
        return false;
    };
    data.len() < HEAD || memmem::find(head, b"Status").is_some()
}

/// The Status that `body` is, in any encoding, as an event records it: without type meta and metadata.
#[must_use]
pub fn parse_status(body: &[u8]) -> Option<Status> {
    if let Some(envelope) = Envelope::parse(body) {
        return envelope.status();
    }
    let read = if body.starts_with(cbor::MAGIC) {
        cbor::to_json
    } else if body.starts_with(YAML_BEGINNING) {
        yaml::to_json
    } else {
        return status_of_json(body);
    };
    // It may be anything, and is read only if it can be this.
    let can_be = body.len() <= STATUS_BYTES && can_be_status(body);
    can_be
        .then(|| read(body, STATUS_BYTES).ok())
        .flatten()
        .and_then(|json| status_of_json(&json))
}

fn status_of_json(body: &[u8]) -> Option<Status> {
    if !body.starts_with(b"{") || memmem::find(body, b"\"Status\"").is_none() {
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
