//! `DeleteOptions`, as kube-apiserver records them.
//!
//! Whatever version the client named, upstream decodes the options into its internal one and prints that.
//!
//! Source: k8s.io/apiserver pkg/endpoints/handlers/delete.go; k8s.io/apimachinery
//! pkg/apis/meta/v1/types.go and generated.proto (DeleteOptions, Preconditions).

use bytes::Bytes;
use kaudit_codec::protobuf::Value;
use kaudit_codec::{Unprintable, cbor, yaml};
use serde::{Deserialize, Serialize};

use super::Encoding;
use super::protobuf::{Envelope, Message};

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct DeleteOptions {
    #[serde(skip_deserializing)]
    kind: &'static str,
    #[serde(skip_deserializing)]
    api_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preconditions: Option<Preconditions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orphan_dependents: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    propagation_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ignore_store_read_error_with_cluster_breaking_potential: Option<bool>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
}

/// The options that a body is; its JSON has at most `limit` bytes.
///
/// # Errors
///
/// It is none, or too large.
pub(crate) fn delete_options(body: &[u8], encoding: Encoding, limit: usize) -> Result<Bytes, Unprintable> {
    let of_json = |json: &[u8]| serde_json::from_slice(json).map_err(|_| Unprintable::NotUnderstood);
    let options = match (Envelope::parse(body), encoding) {
        (Some(envelope), _) => from_protobuf(Message::new(envelope.raw)),
        (None, Encoding::JsonOrProtobuf) => of_json(body)?,
        (None, Encoding::Yaml) => of_json(&yaml::to_json(body, limit)?)?,
        (None, Encoding::Cbor) => of_json(&cbor::to_json(body, limit)?)?,
    };
    let printed = DeleteOptions {
        kind: "DeleteOptions",
        api_version: "meta.k8s.io/__internal",
        dry_run: options.dry_run.filter(|stages| !stages.is_empty()),
        ..options
    };
    let json = serde_json::to_vec(&printed).map_err(|_| Unprintable::NotUnderstood)?;
    Ok(json.into())
}

fn from_protobuf(message: Message<'_>) -> DeleteOptions {
    let mut options = DeleteOptions::default();
    for (number, value) in message.fields() {
        match (number, value) {
            (1, Value::Varint(seconds)) => options.grace_period_seconds = Some(seconds.cast_signed()),
            (2, Value::Bytes(bytes)) => {
                let message = Message::new(bytes);
                options.preconditions = Some(Preconditions {
                    uid: message.bytes(1).map(text),
                    resource_version: message.bytes(2).map(text),
                });
            }
            (3, Value::Varint(flag)) => options.orphan_dependents = Some(flag != 0),
            (4, Value::Bytes(policy)) => options.propagation_policy = Some(text(policy)),
            (5, Value::Bytes(stage)) => options.dry_run.get_or_insert_default().push(text(stage)),
            (6, Value::Varint(flag)) => {
                options.ignore_store_read_error_with_cluster_breaking_potential = Some(flag != 0);
            }
            _ => {}
        }
    }
    options
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete_options(body: &[u8]) -> Option<Bytes> {
        super::delete_options(body, Encoding::JsonOrProtobuf, 1 << 20).ok()
    }

    #[track_caller]
    fn recorded(body: &[u8], expected: &str) {
        let found = delete_options(body).map(|json| String::from_utf8(json.to_vec()).unwrap());
        assert_eq!(found.as_deref(), Some(expected));
    }

    #[test]
    fn options_are_printed_in_the_internal_version() {
        recorded(
            br#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background","gracePeriodSeconds":0}"#,
            r#"{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/__internal","gracePeriodSeconds":0,"propagationPolicy":"Background"}"#,
        );
        recorded(
            br#"{"preconditions":{"uid":"u"},"dryRun":[],"orphanDependents":null,"other":1}"#,
            r#"{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/__internal","preconditions":{"uid":"u"}}"#,
        );
    }

    #[test]
    fn options_in_protobuf_are_the_same() {
        let body = b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12\x11\x08\x05\x22\x06Orphan\x2a\x03All\x18\x01\x32\x00";
        // What follows the message's length is not part of it.
        recorded(
            body,
            r#"{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/__internal","gracePeriodSeconds":5,"orphanDependents":true,"propagationPolicy":"Orphan","dryRun":["All"]}"#,
        );
    }

    #[test]
    fn options_in_yaml_and_cbor_are_the_same() {
        let of = |body: &[u8], encoding| super::delete_options(body, encoding, 1 << 20).unwrap();
        let expected =
            r#"{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/__internal","gracePeriodSeconds":5}"#;
        assert_eq!(
            of(b"kind: DeleteOptions\ngracePeriodSeconds: 5\n", Encoding::Yaml),
            expected
        );
        assert_eq!(of(b"\xa1\x52gracePeriodSeconds\x05", Encoding::Cbor), expected);
    }

    #[test]
    fn anything_else_is_no_options() {
        assert!(delete_options(b"kind: DeleteOptions").is_none());
        assert!(delete_options(br#"{"gracePeriodSeconds":"5"}"#).is_none());
    }
}
