//! What Kubernetes' protobuf says without a schema: the envelope, an object's metadata, a Status.
//!
//! Source: k8s.io/apimachinery pkg/runtime/generated.proto (Unknown) and
//! pkg/apis/meta/v1/generated.proto (ObjectMeta, Status).

use kaudit_codec::protobuf::{self as wire, MAGIC, Value};
use kaudit_event::{Status, StatusCause, StatusDetails, Text};

use super::ObjectMeta;

/// The envelope around every object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) api_version: &'a [u8],
    pub(crate) kind: &'a [u8],
    /// The object itself.
    pub(crate) raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// `None` when the bytes are no envelope.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        let unknown = Message(body.strip_prefix(MAGIC)?);
        let type_meta = Message(unknown.bytes(1).unwrap_or_default());
        Some(Self {
            api_version: type_meta.bytes(1).unwrap_or_default(),
            kind: type_meta.bytes(2).unwrap_or_default(),
            raw: unknown.bytes(2)?,
        })
    }

    /// Every built-in object has its metadata in its first field.
    pub(crate) fn meta(&self) -> Option<ObjectMeta> {
        let meta = Message(Message(self.raw).bytes(1)?);
        Some(ObjectMeta {
            name: meta.text(1),
            namespace: meta.text(3),
            uid: meta.text(5),
            resource_version: meta.text(6),
        })
    }

    pub(crate) fn status(&self) -> Option<Status> {
        if self.kind != b"Status" || self.api_version != b"v1" {
            return None;
        }
        let status = Message(self.raw);
        Some(Status {
            status: status.text(2),
            message: status.text(3),
            reason: status.text(4),
            details: status.bytes(5).map(|details| {
                let details = Message(details);
                StatusDetails {
                    name: details.text(1),
                    group: details.text(2),
                    kind: details.text(3),
                    causes: details
                        .fields()
                        .filter_map(|(number, value)| match (number, value) {
                            (4, Value::Bytes(cause)) => Some(Message(cause)),
                            _ => None,
                        })
                        .map(|cause| StatusCause {
                            reason: cause.text(1),
                            message: cause.text(2),
                            field: cause.text(3),
                        })
                        .collect(),
                    retry_after_seconds: details.int(5),
                    uid: details.text(6),
                }
            }),
            code: status.int(6),
            ..Status::default()
        })
    }
}

/// A message of which only some fields are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Ends at the first byte that is no field.
    pub(super) fn fields(self) -> impl Iterator<Item = (u64, Value<'a>)> {
        wire::Message::new(self.0).fields().map_while(Result::ok)
    }

    pub(super) fn bytes(self, number: u64) -> Option<&'a [u8]> {
        self.fields().find_map(|(field, value)| match value {
            Value::Bytes(bytes) if field == number => Some(bytes),
            _ => None,
        })
    }

    fn text(self, number: u64) -> Text {
        self.bytes(number).map(Text::copy_from_slice).unwrap_or_default()
    }

    fn int(self, number: u64) -> i32 {
        self.fields()
            .find_map(|(field, value)| match value {
                // An int32 is written as its 64-bit sign extension.
                Value::Varint(int) if field == number => i32::try_from(int.cast_signed()).ok(),
                _ => None,
            })
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(kind: &[u8], raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, b"v1"), field(2, kind)].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
    }

    #[test]
    fn metadata_is_found_without_a_schema() {
        let meta = [field(1, b"db"), field(3, b"shop"), field(5, b"u"), field(6, b"7")].concat();
        let body = envelope(b"Secret", &[field(1, &meta), field(2, b"ignored")].concat());
        let parsed = Envelope::parse(&body).unwrap();
        assert_eq!((parsed.kind, parsed.api_version), (&b"Secret"[..], &b"v1"[..]));
        let meta = parsed.meta().unwrap();
        assert_eq!((meta.name, meta.namespace), ("db".into(), "shop".into()));
        assert_eq!((meta.uid, meta.resource_version), ("u".into(), "7".into()));
    }

    #[test]
    fn a_status_is_read_whole() {
        let cause = [field(1, b"R"), field(2, b"M"), field(3, b"F")].concat();
        let details = [
            field(1, b"x"),
            field(3, b"pods"),
            field(4, &cause),
            vec![5 << 3, 30],
        ]
        .concat();
        let status = [
            field(2, b"Failure"),
            field(3, b"no"),
            field(4, b"NotFound"),
            field(5, &details),
            vec![6 << 3, 0x94, 0x03],
        ]
        .concat();
        let body = envelope(b"Status", &status);
        let status = Envelope::parse(&body).unwrap().status().unwrap();
        assert_eq!((status.code, status.message), (404, "no".into()));
        let details = status.details.unwrap();
        assert_eq!((details.kind, details.retry_after_seconds), ("pods".into(), 30));
        assert_eq!(details.causes[0].field, "F");
    }

    #[test]
    fn anything_else_is_nothing() {
        assert!(Envelope::parse(b"{}").is_none());
        assert!(Envelope::parse(b"k8s\0").is_none());
        assert!(Envelope::parse(b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_none());
        let cut = envelope(b"Status", b"\x12\x05ab");
        assert_eq!(
            Envelope::parse(&cut).unwrap().status().unwrap(),
            Status::default()
        );
    }
}
