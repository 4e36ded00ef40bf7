//! Bodies in protobuf, which kubectl's typed clients send. They are only read; answers are JSON.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown` message: field 1 is the type (1
//! apiVersion, 2 kind), field 2 the object's own message. What each field means stands in
//! `messages.txt`.
//!
//! Source: k8s.io/apimachinery pkg/runtime/serializer/protobuf/protobuf.go.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Messages nest no deeper than this; Kubernetes' own schemas for JSON properties are not read.
const DEPTH: u32 = 48;

static TABLE: &str = include_str!("protobuf/messages.txt");

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: illegal wireType {0}")]
    WireType(u64),
    #[error("the message nests too deep")]
    Depth,
    #[error("no kind {kind:?} is registered for version {version:?}")]
    UnknownKind { version: String, kind: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zero {
    Dropped,
    Kept,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    number: u64,
    name: &'static str,
    kind: &'static str,
    zero: Zero,
}

type Messages = HashMap<&'static str, Vec<Field>>;

fn messages() -> &'static Messages {
    static MESSAGES: OnceLock<Messages> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, fields)| (name, parse_fields(fields)))
            .collect()
    })
}

fn parse_fields(fields: &'static str) -> Vec<Field> {
    let parse = |field: &'static str| {
        let (number, rest) = field.split_once(' ')?;
        let (name, kind) = rest.split_once(':')?;
        let (name, zero) = match name.strip_suffix(['?', '!']) {
            Some(name) => (name, Zero::Kept),
            None => (name, Zero::Dropped),
        };
        Some(Field {
            number: number.parse().ok()?,
            name,
            kind,
            zero,
        })
    };
    fields.split(", ").filter_map(parse).collect()
}

/// Reads a body as the JSON value that says the same.
///
/// # Errors
///
/// [`ProtobufError`] for what is no message of a kind that is served.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let message = body.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
    let (mut version, mut kind, mut raw): (&[u8], &[u8], &[u8]) = (b"", b"", b"");
    for_each(message, |number, wire| {
        match (number, wire) {
            (1, Wire::Bytes(types)) => for_each(types, |number, wire| {
                match (number, wire) {
                    (1, Wire::Bytes(text)) => version = text,
                    (2, Wire::Bytes(text)) => kind = text,
                    _ => {}
                }
                Ok(())
            })?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
        Ok(())
    })?;
    let (version, kind) = (String::from_utf8_lossy(version), String::from_utf8_lossy(kind));
    let group = version
        .split_once('/')
        .map_or("core", |(group, _)| group.split('.').next().unwrap_or(group));
    let unknown = || ProtobufError::UnknownKind {
        version: version.clone().into_owned(),
        kind: kind.clone().into_owned(),
    };
    let package = if kind == "DeleteOptions" { "meta" } else { group };
    let name = format!("{package}.{kind}");
    let fields = messages().get(name.as_str()).ok_or_else(unknown)?;
    let mut out = Map::new();
    out.insert("kind".to_owned(), json!(kind));
    out.insert("apiVersion".to_owned(), json!(version));
    message_into(fields, raw, &mut out, DEPTH)?;
    Ok(Value::Object(out))
}

/// A field as it stands on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Calls `each` for every field of a message.
fn for_each<'a>(
    mut message: &'a [u8],
    mut each: impl FnMut(u64, Wire<'a>) -> Result<(), ProtobufError>,
) -> Result<(), ProtobufError> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut message)?),
            1 => {
                let (bytes, rest) = message.split_first_chunk::<8>().ok_or(ProtobufError::Truncated)?;
                message = rest;
                Wire::Number(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| ProtobufError::Truncated)?;
                let (bytes, rest) = message.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
                message = rest;
                Wire::Bytes(bytes)
            }
            5 => {
                let (bytes, rest) = message.split_first_chunk::<4>().ok_or(ProtobufError::Truncated)?;
                message = rest;
                Wire::Number(u64::from(u32::from_le_bytes(*bytes)))
            }
            other => return Err(ProtobufError::WireType(other)),
        };
        each(tag >> 3, wire)?;
    }
    Ok(())
}

fn varint(message: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().ok_or(ProtobufError::Truncated)?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ProtobufError::Truncated)
}

fn message_into(
    fields: &[Field],
    message: &[u8],
    out: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Depth)?;
    for_each(message, |number, wire| {
        let Some(field) = fields.iter().find(|field| field.number == number) else {
            return Ok(());
        };
        if field.name == "^" {
            if let (Some(inner), Wire::Bytes(bytes)) = (messages().get(field.kind), wire) {
                message_into(inner, bytes, out, depth)?;
            }
        } else if let Some(element) = field
            .kind
            .strip_prefix('[')
            .and_then(|kind| kind.strip_suffix(']'))
        {
            let value = value(element, wire, depth)?;
            let list = out.entry(field.name.to_owned()).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(value);
            }
        } else if let Some(element) = field
            .kind
            .strip_prefix('{')
            .and_then(|kind| kind.strip_suffix('}'))
        {
            let Wire::Bytes(bytes) = wire else { return Ok(()) };
            let (mut key, mut inner) = (String::new(), None);
            for_each(bytes, |number, wire| {
                match (number, wire) {
                    (1, Wire::Bytes(text)) => key = String::from_utf8_lossy(text).into_owned(),
                    (2, wire) => inner = Some(value(element, wire, depth)?),
                    _ => {}
                }
                Ok(())
            })?;
            let inner = inner.unwrap_or_else(|| json!(""));
            if let Value::Object(entries) = out.entry(field.name.to_owned()).or_insert_with(|| json!({})) {
                entries.insert(key, inner);
            }
        } else {
            let value = value(field.kind, wire, depth)?;
            let is_zero = matches!(&value, Value::Null)
                || (field.zero == Zero::Dropped && (value == "" || value == 0 || value == false));
            if !is_zero {
                out.insert(field.name.to_owned(), value);
            }
        }
        Ok(())
    })
}

/// One value; [`Value::Null`] for a time that is not set.
fn value(kind: &str, wire: Wire<'_>, depth: u32) -> Result<Value, ProtobufError> {
    Ok(match (kind, wire) {
        ("bool", Wire::Number(number)) => json!(number != 0),
        // Negative numbers are written as their two's complement.
        ("int", Wire::Number(number)) => json!(number.cast_signed()),
        ("double", Wire::Number(number)) => json!(f64::from_bits(number)),
        ("string", Wire::Bytes(text)) => json!(String::from_utf8_lossy(text)),
        ("bytes", Wire::Bytes(bytes)) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
        ("time" | "microtime", Wire::Bytes(bytes)) => time(kind, bytes)?,
        ("duration", Wire::Bytes(_)) => Value::Null,
        ("quantity", Wire::Bytes(bytes)) => json!(String::from_utf8_lossy(first_bytes(bytes)?)),
        ("json", Wire::Bytes(bytes)) => serde_json::from_slice(first_bytes(bytes)?).unwrap_or(Value::Null),
        ("intorstring", Wire::Bytes(bytes)) => int_or_string(bytes)?,
        ("strings", Wire::Bytes(bytes)) => {
            let mut list = Vec::new();
            for_each(bytes, |_, wire| {
                if let Wire::Bytes(text) = wire {
                    list.push(json!(String::from_utf8_lossy(text)));
                }
                Ok(())
            })?;
            Value::Array(list)
        }
        (name, Wire::Bytes(bytes)) => {
            let mut out = Map::new();
            if let Some(fields) = messages().get(name) {
                message_into(fields, bytes, &mut out, depth)?;
            }
            Value::Object(out)
        }
        (_, Wire::Number(_)) => Value::Null,
    })
}

/// The bytes of field 1.
fn first_bytes(message: &[u8]) -> Result<&[u8], ProtobufError> {
    let mut found: &[u8] = b"";
    for_each(message, |number, wire| {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            found = bytes;
        }
        Ok(())
    })?;
    Ok(found)
}

fn time(kind: &str, message: &[u8]) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos, mut set) = (0_i64, 0_i32, false);
    for_each(message, |number, wire| {
        if let Wire::Number(value) = wire {
            set = true;
            match number {
                1 => seconds = value.cast_signed(),
                2 => nanos = i32::try_from(value.cast_signed()).unwrap_or(0),
                _ => {}
            }
        }
        Ok(())
    })?;
    let Some(time) = set.then(|| Timestamp::new(seconds, nanos).ok()).flatten() else {
        return Ok(Value::Null);
    };
    let format = if kind == "microtime" {
        "%Y-%m-%dT%H:%M:%S%.6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Ok(json!(time.strftime(format).to_string()))
}

fn int_or_string(message: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for_each(message, |field, wire| {
        match (field, wire) {
            (1, Wire::Number(value)) => is_text = value == 1,
            (2, Wire::Number(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => text = String::from_utf8_lossy(bytes).into_owned(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(if is_text { json!(text) } else { json!(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_table_is_in_the_table() {
        let simple = [
            "bool",
            "int",
            "double",
            "string",
            "bytes",
            "time",
            "microtime",
            "duration",
            "quantity",
            "json",
            "intorstring",
            "strings",
        ];
        for (name, fields) in messages() {
            for field in fields {
                let kind = field.kind.trim_matches(['[', ']', '{', '}']);
                assert!(
                    simple.contains(&kind) || messages().contains_key(kind),
                    "{name}.{}: {kind}",
                    field.name
                );
            }
        }
    }

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn an_object_is_read_with_its_type() {
        let types = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        let metadata = [field(1, b"a"), field(3, b""), field(8, b"")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let object = [field(1, &metadata), field(2, &entry)].concat();
        let body = [MAGIC.to_vec(), field(1, &types), field(2, &object)].concat();
        assert_eq!(
            decode(&body).unwrap(),
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}})
        );
        for cut in 5..body.len() {
            drop(decode(body.get(..cut).unwrap()));
        }
        assert_eq!(decode(b"{}"), Err(ProtobufError::Prefix));
    }
}
