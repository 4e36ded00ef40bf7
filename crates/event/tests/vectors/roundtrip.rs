//! Decoding and encoding again, compared with what upstream's decoder and encoder made of it.

use base64::prelude::{BASE64_STANDARD, Engine};
use kaudit_event::{DecodeError, Event, EventList};

use crate::description::cases;

/// What went wrong, as far as both sides tell it apart.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    Syntax,
    Kind,
    Type,
    Time,
    Encode,
}

fn theirs(case: &serde_json::Value) -> Class {
    let Some(error) = case["decode_error"].as_str() else {
        return Class::Encode;
    };
    if error.contains("couldn't get version/kind") {
        Class::Syntax
    } else if error.contains("parsing time") {
        Class::Time
    } else if error.contains("cannot unmarshal") {
        Class::Type
    } else {
        Class::Kind
    }
}

fn ours(error: &DecodeError) -> Class {
    match error {
        DecodeError::Syntax(_) | DecodeError::NotObject(_) | DecodeError::TooLarge(_) => Class::Syntax,
        DecodeError::Unnamed(_) | DecodeError::OtherKind { .. } => Class::Kind,
        DecodeError::Time { .. } => Class::Time,
        _ => Class::Type,
    }
}

/// Upstream's decoder also takes YAML, which it turns into JSON first; that step is not this crate's.
fn json_of(input: &[u8]) -> Vec<u8> {
    let text = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input).trim_ascii();
    let is_json = text.first().is_none_or(|byte| matches!(byte, b'{' | b'['));
    let Some(text) = (!is_json).then(|| std::str::from_utf8(text).ok()).flatten() else {
        return input.to_vec();
    };
    let value: Result<serde_json::Value, _> = serde_saphyr::from_str(text);
    match value {
        Ok(value) if value.is_object() => serde_json::to_vec(&value).unwrap(),
        // A legacy line is a YAML mapping to upstream and none to this reader: both find no kind in it.
        _ if text.contains(": ") || text.contains("AUDIT:") => b"{}".to_vec(),
        _ => input.to_vec(),
    }
}

fn round(input: &[u8]) -> Result<Vec<u8>, Class> {
    let mut out = Vec::new();
    match Event::decode(input) {
        Ok(event) => event.write_json_line(&mut out).map_err(|_| Class::Encode)?,
        Err(DecodeError::OtherKind { kind, .. }) if kind == "\"EventList\"" => EventList::decode(input)
            .map_err(|error| ours(&error))?
            .write_json_line(&mut out)
            .map_err(|_| Class::Encode)?,
        Err(error) => return Err(ours(&error)),
    }
    Ok(out)
}

#[test]
fn vector_event_roundtrip() {
    let cases = cases("event-roundtrip.jsonl");
    assert!(!cases.is_empty());
    let bytes = |value: &serde_json::Value| {
        BASE64_STANDARD
            .decode(value.as_str().unwrap_or_default())
            .unwrap()
    };
    let mut wrong = Vec::new();
    for case in &cases {
        let outcome = round(&json_of(&bytes(&case["input_b64"])));
        let expected = if case["ok"].as_bool().unwrap() {
            Ok(bytes(&case["output_b64"]))
        } else {
            Err(theirs(case))
        };
        if outcome != expected {
            let show = |outcome: &Result<Vec<u8>, Class>| match outcome {
                Ok(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Err(class) => format!("{class:?}\n"),
            };
            wrong.push(format!(
                "{} ({})\n  ours   {}  theirs {}",
                case["id"],
                case["note"],
                show(&outcome),
                show(&expected)
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}
