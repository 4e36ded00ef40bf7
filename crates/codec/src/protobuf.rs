//! Kubernetes' protobuf: an envelope that says what is in it, and the object.
//!
//! Source: k8s.io/apimachinery pkg/runtime/serializer/protobuf and generated.proto (Unknown).

mod print;
pub(crate) mod table;
mod wire;

use print::Printer;
pub use wire::{Message, NoField, Value};

use crate::Unprintable;

/// What a body in protobuf begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// The object that `body` is, as encoding/json prints the Go struct that it decodes to, with its kind.
///
/// A list is printed as kube-apiserver records it: `items` is `[]` where there are none, and the items of a
/// PartialObjectMetadataList have their kind, which the wire does not carry.
///
/// # Errors
///
/// [`Unprintable::NotUnderstood`] for what is no such body, for kinds that are not in the published API, for
/// fields that are not in them, and for whatever an encoder would not have written: then nobody can tell what
/// a server made of it. [`Unprintable::TooLarge`] when the JSON would have more than `limit` bytes.
pub fn to_json(body: &[u8], limit: usize) -> Result<Vec<u8>, Unprintable> {
    let (version, kind, raw) = envelope(body).ok_or(Unprintable::NotUnderstood)?;
    Printer::new(limit).object(version, kind, raw)
}

/// Version, kind and bytes of the object, where each is said once and nothing else is said.
fn envelope(body: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (mut type_meta, mut raw) = (None, None);
    for field in Message::new(body.strip_prefix(MAGIC)?).fields() {
        match field.ok()? {
            (1, Value::Bytes(bytes)) if type_meta.is_none() => type_meta = Some(bytes),
            (2, Value::Bytes(bytes)) if raw.is_none() => raw = Some(bytes),
            // How the object is encoded: as it is by default.
            (3 | 4, Value::Bytes(b"")) => {}
            _ => return None,
        }
    }
    let (mut version, mut kind) = (None, None);
    for field in Message::new(type_meta?).fields() {
        match field.ok()? {
            (1, Value::Bytes(bytes)) if version.is_none() => version = Some(bytes),
            (2, Value::Bytes(bytes)) if kind.is_none() => kind = Some(bytes),
            _ => return None,
        }
    }
    let text = |bytes: Option<_>| str::from_utf8(bytes.unwrap_or_default()).ok();
    Some((text(version)?, text(kind)?, raw.unwrap_or_default()))
}
