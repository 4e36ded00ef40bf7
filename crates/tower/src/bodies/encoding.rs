//! Bodies in all the encodings that kube-apiserver takes and gives.

use std::borrow::Cow;

use kaudit_codec::{Unprintable, cbor, protobuf, yaml};

use super::Envelope;

/// How a body is encoded, as far as its content type has to say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Its first bytes tell.
    #[default]
    JsonOrProtobuf,
    Yaml,
    Cbor,
}

impl Encoding {
    /// `None` for what is no object.
    ///
    /// Source: k8s.io/apimachinery pkg/runtime/types.go; patches are `application/apply-patch+yaml`.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default();
        match media_type.trim().to_ascii_lowercase().as_str() {
            "" => Some(Self::JsonOrProtobuf),
            media_type if media_type.ends_with("json") || media_type.ends_with("protobuf") => {
                Some(Self::JsonOrProtobuf)
            }
            media_type if media_type.ends_with("yaml") => Some(Self::Yaml),
            media_type if media_type.ends_with("cbor") => Some(Self::Cbor),
            _ => None,
        }
    }
}

/// A body that was read.
#[derive(Debug)]
pub(crate) enum Read<'a> {
    /// Its JSON, which may be what was sent.
    Json(Cow<'a, [u8]>),
    /// An object in protobuf, of which this is known.
    Encoded(Envelope<'a>),
}

/// Reads a body. What is made of it has at most `limit` bytes; what is JSON already is not looked at.
///
/// # Errors
///
/// It is not what its content type says, or too large.
pub(crate) fn read(body: &[u8], encoding: Encoding, limit: usize) -> Result<Read<'_>, Unprintable> {
    let json = match encoding {
        Encoding::JsonOrProtobuf => match Envelope::parse(body) {
            None => Cow::Borrowed(body),
            Some(envelope) => match protobuf::to_json(body, limit) {
                Ok(json) => Cow::Owned(json),
                Err(_) => return Ok(Read::Encoded(envelope)),
            },
        },
        Encoding::Yaml => Cow::Owned(yaml::to_json(body, limit)?),
        Encoding::Cbor => Cow::Owned(cbor::to_json(body, limit)?),
    };
    Ok(Read::Json(json))
}

/// A patch as it is recorded: as it was sent, unless it is in YAML or CBOR, which become JSON.
///
/// Source: k8s.io/apiserver 1.37 pkg/endpoints/handlers/patch.go, validateAndTranscodePatch.
pub(crate) fn patch(body: &[u8], content_type: &str, limit: usize) -> Option<Vec<u8>> {
    match Encoding::of(content_type)? {
        Encoding::JsonOrProtobuf => None,
        Encoding::Cbor => cbor::to_json(body, limit).ok(),
        // JSON is YAML, and is recorded as it was sent.
        Encoding::Yaml if kaudit_event::check_json(body).is_ok() => None,
        Encoding::Yaml => yaml::to_json(body, limit).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_tell_the_encoding() {
        for (content_type, expected) in [
            ("", Some(Encoding::JsonOrProtobuf)),
            ("application/json; charset=utf-8", Some(Encoding::JsonOrProtobuf)),
            (
                "application/vnd.kubernetes.protobuf",
                Some(Encoding::JsonOrProtobuf),
            ),
            (
                "application/strategic-merge-patch+json",
                Some(Encoding::JsonOrProtobuf),
            ),
            ("Application/YAML", Some(Encoding::Yaml)),
            ("application/apply-patch+yaml", Some(Encoding::Yaml)),
            ("application/cbor", Some(Encoding::Cbor)),
            ("application/apply-patch+cbor", Some(Encoding::Cbor)),
            ("text/plain", None),
        ] {
            assert_eq!(Encoding::of(content_type), expected, "{content_type}");
        }
    }

    #[test]
    fn patches_in_yaml_and_cbor_become_json() {
        let of = |body: &[u8], content_type| patch(body, content_type, 1 << 20);
        let apply = "application/apply-patch+yaml";
        assert_eq!(of(b"b: 1\na: 2\n", apply).unwrap(), br#"{"a":2,"b":1}"#);
        assert_eq!(of(b"{a: b}", apply).unwrap(), br#"{"a":"b"}"#);
        assert_eq!(of(br#"{"b": 1.0, "a": 2}"#, apply), None);
        assert_eq!(of(b":\n  invalid", apply), None);
        assert_eq!(
            of(b"\xa1\x61a\x01", "application/apply-patch+cbor").unwrap(),
            br#"{"a":1}"#
        );
        assert_eq!(of(b"\xff\xff", "application/apply-patch+cbor"), None);
        assert_eq!(of(b"a: 1", "application/merge-patch+json"), None);
    }
}
