//! The vectors' description of an event, as `testdata/vectors/README.md` defines it.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use kaudit_event::{
    AuthenticationMetadata, Event, ListMeta, MicroTime, ObjectReference, Open, ShardInfo, Status,
    StatusCause, StatusDetails, Text, Unknown, UserInfo,
};
use serde_json::Value;

/// The cases of a family.
pub(crate) fn cases(file: &str) -> Vec<Value> {
    let folder = std::env::var_os("KAUDIT_VECTORS").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors").into(),
        std::path::PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A byte string: text, or base64 where it is not UTF-8.
pub(crate) fn text(value: &Value) -> Text {
    match value {
        Value::Null => Text::default(),
        Value::String(text) => Text::from(text.clone()),
        other => Text::from(BASE64_STANDARD.decode(other["b64"].as_str().unwrap()).unwrap()),
    }
}

fn texts(value: &Value) -> Vec<Text> {
    value
        .as_array()
        .map(|list| list.iter().map(text).collect())
        .unwrap_or_default()
}

fn optional<T>(value: &Value, make: impl Fn(&Value) -> T) -> Option<T> {
    (!value.is_null()).then(|| make(value))
}

pub(crate) fn event(value: &Value) -> Event {
    Event {
        kind: text(&value["kind"]),
        api_version: text(&value["apiVersion"]),
        level: Open::<kaudit_event::Level>::from_text(text(&value["level"])),
        audit_id: text(&value["auditID"]),
        stage: Open::<kaudit_event::Stage>::from_text(text(&value["stage"])),
        request_uri: text(&value["requestURI"]),
        verb: text(&value["verb"]),
        user: user(&value["user"]),
        impersonated_user: optional(&value["impersonatedUser"], user),
        authentication_metadata: optional(&value["authenticationMetadata"], |metadata| {
            AuthenticationMetadata {
                impersonation_constraint: text(&metadata["impersonationConstraint"]),
            }
        }),
        source_ips: texts(&value["sourceIPs"]),
        user_agent: text(&value["userAgent"]),
        object_ref: optional(&value["objectRef"], |reference| ObjectReference {
            resource: text(&reference["resource"]),
            namespace: text(&reference["namespace"]),
            name: text(&reference["name"]),
            uid: text(&reference["uid"]),
            api_group: text(&reference["apiGroup"]),
            api_version: text(&reference["apiVersion"]),
            resource_version: text(&reference["resourceVersion"]),
            subresource: text(&reference["subresource"]),
        }),
        response_status: optional(&value["responseStatus"], status),
        request_object: optional(&value["requestObject"], unknown),
        response_object: optional(&value["responseObject"], unknown),
        request_received_timestamp: time(&value["requestReceivedTimestamp"]),
        stage_timestamp: time(&value["stageTimestamp"]),
        annotations: pairs(&value["annotations"], text),
    }
}

fn pairs<V>(value: &Value, make: impl Fn(&Value) -> V) -> Vec<(Text, V)> {
    let Some(list) = value.as_array() else {
        return Vec::new();
    };
    list.iter().map(|pair| (text(&pair[0]), make(&pair[1]))).collect()
}

fn user(value: &Value) -> UserInfo {
    UserInfo {
        username: text(&value["username"]),
        uid: text(&value["uid"]),
        groups: optional(&value["groups"], texts),
        extra: pairs(&value["extra"], |values| optional(values, texts)),
    }
}

fn status(value: &Value) -> Status {
    let metadata = &value["metadata"];
    let number = |value: &Value| i32::try_from(value.as_i64().unwrap_or_default()).unwrap();
    Status {
        kind: text(&value["kind"]),
        api_version: text(&value["apiVersion"]),
        metadata: ListMeta {
            self_link: text(&metadata["selfLink"]),
            resource_version: text(&metadata["resourceVersion"]),
            continue_token: text(&metadata["continue"]),
            remaining_item_count: metadata["remainingItemCount"].as_i64(),
            shard_info: optional(&metadata["shardInfo"], |info| ShardInfo {
                selector: text(&info["selector"]),
            }),
        },
        status: text(&value["status"]),
        message: text(&value["message"]),
        reason: text(&value["reason"]),
        details: optional(&value["details"], |details| StatusDetails {
            name: text(&details["name"]),
            group: text(&details["group"]),
            kind: text(&details["kind"]),
            uid: text(&details["uid"]),
            causes: details["causes"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|cause| StatusCause {
                    reason: text(&cause["reason"]),
                    message: text(&cause["message"]),
                    field: text(&cause["field"]),
                })
                .collect(),
            retry_after_seconds: number(&details["retryAfterSeconds"]),
        }),
        code: number(&value["code"]),
    }
}

fn unknown(value: &Value) -> Unknown {
    let raw = value["raw_b64"]
        .as_str()
        .map(|raw| Bytes::from(BASE64_STANDARD.decode(raw).unwrap()));
    Unknown {
        raw,
        content_type: text(&value["contentType"]),
    }
}

/// RFC 3339 with nanoseconds in its own zone, or seconds, nanoseconds and offset.
fn time(value: &Value) -> MicroTime {
    if let Some(unix) = value["unix"].as_i64() {
        return MicroTime {
            unix_seconds: unix,
            nanos: u32::try_from(value["nanos"].as_u64().unwrap_or_default()).unwrap(),
            offset_seconds: i32::try_from(value["offset"].as_i64().unwrap_or_default()).unwrap(),
        };
    }
    let Some(text) = value.as_str() else {
        return MicroTime::ZERO;
    };
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let rest = &text[19..];
    let digits = rest
        .strip_prefix('.')
        .map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    let nanos = if digits == 0 {
        0
    } else {
        format!("{:0<9}", &rest[1..=digits]).parse().unwrap()
    };
    let zone = if digits == 0 { rest } else { &rest[digits + 1..] };
    let offset = match zone.as_bytes()[0] {
        b'Z' => 0,
        sign => {
            let minutes = zone[1..3].parse::<i64>().unwrap() * 60 + zone[4..6].parse::<i64>().unwrap();
            if sign == b'-' { -minutes * 60 } else { minutes * 60 }
        }
    };
    // Days from civil, the inverse of what the encoder does.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let year_of_era = shifted.rem_euclid(400);
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    MicroTime {
        unix_seconds: days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19) - offset,
        nanos,
        offset_seconds: i32::try_from(offset).unwrap(),
    }
}
