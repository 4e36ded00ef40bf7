//! Values into the fields of an event.
//!
//! Each function decodes into what is there already, since repeated keys merge: objects and maps by
//! key, lists item by item, scalars by the last.

use bytes::Bytes;

use super::json::{Kind, Reading, Value};
use super::{DecodeError, EventList, time};
use crate::{
    AuthenticationMetadata, Event, ListMeta, MicroTime, ObjectReference, Open, ShardInfo, Status,
    StatusCause, StatusDetails, Text, Unknown, UserInfo,
};

type Decoded = Result<(), DecodeError>;

pub(super) fn into_event(value: Value<'_>, event: &mut Event) -> Decoded {
    for (key, value) in object(value, "Event", "v1.Event")? {
        match &*key {
            b"kind" => text(value, "Event.kind", &mut event.kind)?,
            b"apiVersion" => text(value, "Event.apiVersion", &mut event.api_version)?,
            b"level" => {
                let mut level = Text::copy_from_slice(event.level.as_bytes());
                text(value, "Event.level", &mut level)?;
                event.level = Open::<crate::Level>::from_text(level);
            }
            b"auditID" => text(value, "Event.auditID", &mut event.audit_id)?,
            b"stage" => {
                let mut stage = Text::copy_from_slice(event.stage.as_bytes());
                text(value, "Event.stage", &mut stage)?;
                event.stage = Open::<crate::Stage>::from_text(stage);
            }
            b"requestURI" => text(value, "Event.requestURI", &mut event.request_uri)?,
            b"verb" => text(value, "Event.verb", &mut event.verb)?,
            b"user" => user(value, "Event.user", &mut event.user)?,
            b"impersonatedUser" => optional(value, &mut event.impersonated_user, |value, user_info| {
                user(value, "Event.impersonatedUser", user_info)
            })?,
            b"authenticationMetadata" => {
                optional(value, &mut event.authentication_metadata, authentication_metadata)?;
            }
            b"sourceIPs" => {
                let mut addresses = Some(std::mem::take(&mut event.source_ips));
                texts(value, "Event.sourceIPs", &mut addresses)?;
                event.source_ips = addresses.unwrap_or_default();
            }
            b"userAgent" => text(value, "Event.userAgent", &mut event.user_agent)?,
            b"objectRef" => optional(value, &mut event.object_ref, object_ref)?,
            b"responseStatus" => optional(value, &mut event.response_status, status)?,
            b"requestObject" => body(value, &mut event.request_object),
            b"responseObject" => body(value, &mut event.response_object),
            b"requestReceivedTimestamp" => micro_time(
                value,
                "Event.requestReceivedTimestamp",
                &mut event.request_received_timestamp,
            )?,
            b"stageTimestamp" => micro_time(value, "Event.stageTimestamp", &mut event.stage_timestamp)?,
            b"annotations" => {
                if value.kind() == Kind::Null {
                    event.annotations.clear();
                    continue;
                }
                for (key, value) in object(value, "Event.annotations", "map[string]string")? {
                    let mut annotation = Text::default();
                    text(value, "Event.annotations", &mut annotation)?;
                    put(&mut event.annotations, key.into_owned().into(), annotation);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn into_list(value: Value<'_>, list: &mut EventList) -> Decoded {
    for (key, value) in object(value, "EventList", "v1.EventList")? {
        match &*key {
            b"metadata" => list_meta(value, &mut list.metadata)?,
            b"items" => sequence(
                value,
                "EventList.items",
                "[]v1.Event",
                &mut list.items,
                into_event,
            )?,
            _ => {}
        }
    }
    Ok(())
}

fn user(value: Value<'_>, field: &'static str, user: &mut UserInfo) -> Decoded {
    for (key, value) in object(value, field, "v1.UserInfo")? {
        match &*key {
            b"username" => text(value, field, &mut user.username)?,
            b"uid" => text(value, field, &mut user.uid)?,
            b"groups" => texts(value, field, &mut user.groups)?,
            b"extra" if value.kind() == Kind::Null => user.extra.clear(),
            b"extra" => {
                for (key, value) in object(value, field, "map[string]v1.ExtraValue")? {
                    let mut values = None;
                    texts(value, field, &mut values)?;
                    put(&mut user.extra, key.into_owned().into(), values);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn authentication_metadata(value: Value<'_>, metadata: &mut AuthenticationMetadata) -> Decoded {
    const FIELD: &str = "Event.authenticationMetadata";
    for (key, value) in object(value, FIELD, "v1.AuthenticationMetadata")? {
        if &*key == b"impersonationConstraint" {
            text(value, FIELD, &mut metadata.impersonation_constraint)?;
        }
    }
    Ok(())
}

fn object_ref(value: Value<'_>, reference: &mut ObjectReference) -> Decoded {
    const FIELD: &str = "Event.objectRef";
    for (key, value) in object(value, FIELD, "v1.ObjectReference")? {
        let target = match &*key {
            b"resource" => &mut reference.resource,
            b"namespace" => &mut reference.namespace,
            b"name" => &mut reference.name,
            b"uid" => &mut reference.uid,
            b"apiGroup" => &mut reference.api_group,
            b"apiVersion" => &mut reference.api_version,
            b"resourceVersion" => &mut reference.resource_version,
            b"subresource" => &mut reference.subresource,
            _ => continue,
        };
        text(value, FIELD, target)?;
    }
    Ok(())
}

fn status(value: Value<'_>, status: &mut Status) -> Decoded {
    const FIELD: &str = "Status.responseStatus";
    for (key, value) in object(value, FIELD, "v1.Status")? {
        match &*key {
            b"kind" => text(value, FIELD, &mut status.kind)?,
            b"apiVersion" => text(value, FIELD, &mut status.api_version)?,
            b"metadata" => list_meta(value, &mut status.metadata)?,
            b"status" => text(value, FIELD, &mut status.status)?,
            b"message" => text(value, FIELD, &mut status.message)?,
            b"reason" => text(value, FIELD, &mut status.reason)?,
            b"details" => optional(value, &mut status.details, details)?,
            b"code" => integer(value, "Status.responseStatus.code", "int32", &mut status.code)?,
            _ => {}
        }
    }
    Ok(())
}

fn details(value: Value<'_>, details: &mut StatusDetails) -> Decoded {
    const FIELD: &str = "Status.responseStatus.details";
    for (key, value) in object(value, FIELD, "v1.StatusDetails")? {
        match &*key {
            b"name" => text(value, FIELD, &mut details.name)?,
            b"group" => text(value, FIELD, &mut details.group)?,
            b"kind" => text(value, FIELD, &mut details.kind)?,
            b"uid" => text(value, FIELD, &mut details.uid)?,
            b"causes" => {
                let mut causes = Some(std::mem::take(&mut details.causes));
                sequence(value, FIELD, "[]v1.StatusCause", &mut causes, cause)?;
                details.causes = causes.unwrap_or_default();
            }
            b"retryAfterSeconds" => integer(value, FIELD, "int32", &mut details.retry_after_seconds)?,
            _ => {}
        }
    }
    Ok(())
}

fn cause(value: Value<'_>, cause: &mut StatusCause) -> Decoded {
    const FIELD: &str = "Status.responseStatus.details.causes";
    for (key, value) in object(value, FIELD, "v1.StatusCause")? {
        match &*key {
            b"reason" => text(value, FIELD, &mut cause.reason)?,
            b"message" => text(value, FIELD, &mut cause.message)?,
            b"field" => text(value, FIELD, &mut cause.field)?,
            _ => {}
        }
    }
    Ok(())
}

fn list_meta(value: Value<'_>, meta: &mut ListMeta) -> Decoded {
    const FIELD: &str = "metadata";
    for (key, value) in object(value, FIELD, "v1.ListMeta")? {
        match &*key {
            b"selfLink" => text(value, FIELD, &mut meta.self_link)?,
            b"resourceVersion" => text(value, FIELD, &mut meta.resource_version)?,
            b"continue" => text(value, FIELD, &mut meta.continue_token)?,
            b"remainingItemCount" => optional(value, &mut meta.remaining_item_count, |value, count| {
                integer(value, FIELD, "int64", count)
            })?,
            b"shardInfo" => optional(value, &mut meta.shard_info, shard_info)?,
            _ => {}
        }
    }
    Ok(())
}

fn shard_info(value: Value<'_>, info: &mut ShardInfo) -> Decoded {
    const FIELD: &str = "metadata.shardInfo";
    for (key, value) in object(value, FIELD, "v1.ShardInfo")? {
        if &*key == b"selector" {
            text(value, FIELD, &mut info.selector)?;
        }
    }
    Ok(())
}

fn wrong(value: Value<'_>, field: &'static str, expected: &'static str) -> DecodeError {
    let found = match value.kind() {
        Kind::Null => "null".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::Number => format!("number {}", String::from_utf8_lossy(value.raw())),
        Kind::String => "string".to_owned(),
        Kind::Array => "array".to_owned(),
        Kind::Object => "object".to_owned(),
    };
    DecodeError::Type {
        field,
        expected,
        found,
    }
}

/// The members of an object; null has none.
fn object<'a>(
    value: Value<'a>,
    field: &'static str,
    expected: &'static str,
) -> Result<impl Iterator<Item = (std::borrow::Cow<'a, [u8]>, Value<'a>)>, DecodeError> {
    match value.kind() {
        Kind::Object | Kind::Null => Ok(value.members()),
        _ => Err(wrong(value, field, expected)),
    }
}

/// A string; null leaves what is there.
pub(super) fn text(value: Value<'_>, field: &'static str, target: &mut Text) -> Decoded {
    match value.kind() {
        Kind::String => *target = value.unescaped().into_owned().into(),
        Kind::Null => {}
        _ => return Err(wrong(value, field, "string")),
    }
    Ok(())
}

fn texts(value: Value<'_>, field: &'static str, target: &mut Option<Vec<Text>>) -> Decoded {
    sequence(value, field, "[]string", target, |value, item| {
        text(value, field, item)
    })
}

/// A list: null makes it nil; items are decoded into those that are there.
fn sequence<T: Default>(
    value: Value<'_>,
    field: &'static str,
    expected: &'static str,
    target: &mut Option<Vec<T>>,
    mut each: impl FnMut(Value<'_>, &mut T) -> Decoded,
) -> Decoded {
    match value.kind() {
        Kind::Null => *target = None,
        Kind::Array => {
            let list = target.get_or_insert_default();
            let mut count = 0;
            for value in value.items() {
                if count == list.len() {
                    list.push(T::default());
                }
                if let Some(item) = list.get_mut(count) {
                    each(value, item)?;
                }
                count += 1;
            }
            list.truncate(count);
        }
        _ => return Err(wrong(value, field, expected)),
    }
    Ok(())
}

/// A pointer: null makes it nil; anything else is decoded into what it points to.
fn optional<T: Default>(
    value: Value<'_>,
    target: &mut Option<T>,
    each: impl FnOnce(Value<'_>, &mut T) -> Decoded,
) -> Decoded {
    if value.kind() == Kind::Null {
        *target = None;
        return Ok(());
    }
    each(value, target.get_or_insert_default())
}

fn integer<T: std::str::FromStr>(
    value: Value<'_>,
    field: &'static str,
    expected: &'static str,
    target: &mut T,
) -> Decoded {
    if value.kind() == Kind::Null {
        return Ok(());
    }
    let number = std::str::from_utf8(value.raw())
        .ok()
        .filter(|_| value.kind() == Kind::Number)
        .and_then(|text| text.parse().ok());
    *target = number.ok_or_else(|| wrong(value, field, expected))?;
    Ok(())
}

fn micro_time(value: Value<'_>, field: &'static str, target: &mut MicroTime) -> Decoded {
    match value.kind() {
        Kind::Null => *target = MicroTime::ZERO,
        Kind::String => {
            let text = value.unescaped();
            *target = time::parse(&text).ok_or_else(|| DecodeError::Time {
                field,
                text: crate::go_quoted(&text),
            })?;
        }
        _ => return Err(wrong(value, field, "string")),
    }
    Ok(())
}

/// A body stays as it stands.
fn body(value: Value<'_>, target: &mut Option<Unknown>) {
    *target = match (value.kind(), value.reading()) {
        (Kind::Null, Reading::Go) => None,
        (Kind::Null, Reading::Inverse) => Some(Unknown::default()),
        _ => Some(Unknown::json(Bytes::copy_from_slice(value.raw()))),
    };
}

/// Sets a key of a map; a repeated one is overwritten in its place.
fn put<V>(map: &mut Vec<(Text, V)>, key: Text, value: V) {
    match map.iter_mut().find(|(present, _)| *present == key) {
        Some((_, present)) => *present = value,
        None => map.push((key, value)),
    }
}
