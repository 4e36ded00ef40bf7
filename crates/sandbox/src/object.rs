//! What all objects have in common: metadata, names, generations.
//!
//! Source: k8s.io/apiserver pkg/registry/rest/{create,update,meta}.go and
//! k8s.io/apimachinery pkg/api/validation/objectmeta.go.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::status::{ApiError, Cause};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
/// Bytes of all annotations together.
const ANNOTATION_LIMIT: usize = 256 * 1024;

/// A string below a JSON pointer; empty when absent.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The elements of a list below a JSON pointer.
pub(crate) fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The object below a key, made if it is absent or `null`.
pub(crate) fn child<'a>(object: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = object.entry(key.to_owned()).or_insert_with(|| json!({}));
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(fields) => fields,
        // The line above made it an object.
        _ => unreachable!("not an object"),
    }
}

/// Sets a field that is absent.
pub(crate) fn default(object: &mut Map<String, Value>, key: &str, value: Value) {
    if object.get(key).is_none_or(Value::is_null) {
        object.insert(key.to_owned(), value);
    }
}

/// The fields of an object; the decoder has made sure that it is one.
pub(crate) fn fields(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    match object {
        Value::Object(fields) => fields,
        _ => unreachable!("not an object"),
    }
}

/// `2026-01-02T03:04:05Z`, as metav1.Time prints it.
pub(crate) fn timestamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Random bytes; the system's source does not fail once it is seeded.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "the system gives no random bytes");
    }
    bytes
}

/// A version 4 UUID.
pub(crate) fn uuid() -> String {
    let bits = u128::from_be_bytes(random());
    let bits =
        (bits & !(0xf000_u128 << 64) & !(0xc000_u128 << 48)) | (0x4000_u128 << 64) | (0x8000_u128 << 48);
    let hex = format!("{bits:032x}");
    let mut out = String::with_capacity(36);
    for (index, c) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(c);
    }
    out
}

/// Five letters and digits that spell no words.
pub(crate) fn name_suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    random::<5>()
        .iter()
        .filter_map(|byte| LETTERS.get(usize::from(*byte) % LETTERS.len()))
        .map(|c| char::from(*c))
        .collect()
}

/// Fills in what the server owns in a new object, and checks its metadata.
///
/// # Errors
///
/// 400 for a name or namespace that is not the request's, 422 for metadata that is invalid.
pub(crate) fn prepare_create(
    object: &mut Value,
    kind: &Kind,
    namespace: &str,
    request_name: &str,
    now: Timestamp,
) -> Result<(), ApiError> {
    let top = fields(object);
    top.insert("apiVersion".to_owned(), json!(kind.api_version()));
    top.insert("kind".to_owned(), json!(kind.kind));
    let metadata = child(top, "metadata");
    match metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or_default()
    {
        "" => {}
        found if found == namespace => {}
        _ => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    if namespace.is_empty() {
        metadata.shift_remove("namespace");
    } else {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    let mut name = metadata
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if name.is_empty() && !request_name.is_empty() {
        name = request_name.to_owned();
    }
    if name.is_empty() {
        let prefix = metadata
            .get("generateName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !prefix.is_empty() {
            name = format!("{}{}", prefix.chars().take(58).collect::<String>(), name_suffix());
        }
    }
    if !request_name.is_empty() && name != request_name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({request_name})"
        )));
    }
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("uid".to_owned(), json!(uuid()));
    metadata.insert("creationTimestamp".to_owned(), json!(timestamp(now)));
    for owned in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
    ] {
        metadata.shift_remove(owned);
    }
    if has_generation(kind) {
        metadata.insert("generation".to_owned(), json!(1));
    }
    let causes = metadata_causes(metadata, kind, &name);
    if causes.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(&kind.group, &kind.kind, &name, causes))
    }
}

/// Carries over what an update may not change, and checks the rest of the metadata.
///
/// # Errors
///
/// 409 for another resource version or uid, 422 for metadata that is invalid.
pub(crate) fn prepare_update(object: &mut Value, before: &Value, kind: &Kind) -> Result<(), ApiError> {
    let name = text(before, "/metadata/name").to_owned();
    let wanted = text(object, "/metadata/resourceVersion");
    if !wanted.is_empty() && wanted != text(before, "/metadata/resourceVersion") {
        return Err(ApiError::modified(&kind.group, &kind.plural, &name));
    }
    let (uid, old_uid) = (text(object, "/metadata/uid"), text(before, "/metadata/uid"));
    if !uid.is_empty() && uid != old_uid {
        return Err(ApiError::conflict(
            &kind.group,
            &kind.plural,
            &name,
            &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}"),
        ));
    }
    let bump = has_generation(kind) && without_bookkeeping(object) != without_bookkeeping(before);
    let top = fields(object);
    top.insert("apiVersion".to_owned(), json!(kind.api_version()));
    top.insert("kind".to_owned(), json!(kind.kind));
    let metadata = child(top, "metadata");
    for owned in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "selfLink",
    ] {
        match before.pointer(&format!("/metadata/{owned}")) {
            Some(value) => metadata.insert(owned.to_owned(), value.clone()),
            None => metadata.shift_remove(owned),
        };
    }
    if bump {
        let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
    let causes = metadata_causes(metadata, kind, &name);
    if causes.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(&kind.group, &kind.kind, &name, causes))
    }
}

/// Kinds whose desired state is counted in `metadata.generation`.
fn has_generation(kind: &Kind) -> bool {
    kind.custom.is_some()
        || matches!(
            &*kind.group,
            "apps" | "batch" | "apiextensions.k8s.io" | "networking.k8s.io"
        )
}

fn without_bookkeeping(object: &Value) -> Vec<(&String, &Value)> {
    let skip = ["metadata", "status", "apiVersion", "kind"];
    let mut out: Vec<_> = object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !skip.contains(&key.as_str()))
        .collect();
    out.sort_by_key(|(key, _)| *key);
    out
}

fn metadata_causes(metadata: &Map<String, Value>, kind: &Kind, name: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(detail) = name_fault(kind, name) {
        causes.push(Cause::invalid("metadata.name", &json!(name), detail));
    }
    for (field, limit) in [("labels", usize::MAX), ("annotations", ANNOTATION_LIMIT)] {
        let mut total = 0_usize;
        match metadata.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (key, value) in entries {
                    match value.as_str() {
                        Some(value) => {
                            total += key.len() + value.len();
                            if field == "labels" && !label_value_is_valid(value) {
                                causes.push(Cause::invalid("metadata.labels", &json!(value), LABEL_VALUE));
                            }
                        }
                        None => causes.push(Cause::invalid(
                            format!("metadata.{field}"),
                            value,
                            "must be a string",
                        )),
                    }
                    if !label_key_is_valid(key) {
                        causes.push(Cause::invalid(
                            format!("metadata.{field}"),
                            &json!(key),
                            QUALIFIED_NAME,
                        ));
                    }
                }
            }
            Some(other) => causes.push(Cause::invalid(
                format!("metadata.{field}"),
                other,
                "must be an object",
            )),
        }
        if total > limit {
            causes.push(Cause::too_long(format!("metadata.{field}"), limit));
        }
    }
    causes
}

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and \
    end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn label_value_is_valid(value: &str) -> bool {
    value.is_empty() || name_part_is_valid(value)
}

fn label_key_is_valid(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && name_part_is_valid(name),
        None => name_part_is_valid(key),
    }
}

fn name_part_is_valid(part: &str) -> bool {
    let bytes = part.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    part.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// What is wrong with a name, if anything is.
fn name_fault(kind: &Kind, name: &str) -> Option<&'static str> {
    match (&*kind.group, &*kind.plural) {
        ("rbac.authorization.k8s.io", _) => match name {
            "." => Some("may not be '.'"),
            ".." => Some("may not be '..'"),
            _ if name.contains('/') => Some("may not contain '/'"),
            _ if name.contains('%') => Some("may not contain '%'"),
            _ => None,
        },
        ("", "namespaces" | "services") if name.len() > 63 => Some("must be no more than 63 characters"),
        ("", "namespaces" | "services") => (!is_label(name)).then_some(LABEL),
        _ if name.len() > 253 => Some("must be no more than 253 characters"),
        _ => (!is_subdomain(name)).then_some(SUBDOMAIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn kind(plural: &str) -> std::sync::Arc<Kind> {
        let kinds = Kinds::new([].into_iter());
        let found = kinds.iter().find(|kind| kind.plural == plural).unwrap();
        std::sync::Arc::clone(found)
    }

    fn create(plural: &str, mut object: Value) -> Result<Value, ApiError> {
        prepare_create(&mut object, &kind(plural), "ns", "", Timestamp::UNIX_EPOCH).map(|()| object)
    }

    #[test]
    fn a_new_object_gets_what_the_server_owns() {
        let object = create(
            "configmaps",
            json!({"metadata": {"generateName": "a-", "resourceVersion": "7"}}),
        )
        .unwrap();
        let name = text(&object, "/metadata/name");
        assert!(name.starts_with("a-") && name.len() == 7, "{name}");
        assert_eq!(
            text(&object, "/metadata/creationTimestamp"),
            "1970-01-01T00:00:00Z"
        );
        assert_eq!(text(&object, "/metadata/namespace"), "ns");
        assert_eq!(text(&object, "/metadata/uid").len(), 36);
        assert_eq!(text(&object, "/metadata/resourceVersion"), "");
    }

    #[test]
    fn bad_metadata_is_refused_with_upstreams_texts() {
        let error = create("configmaps", json!({"metadata": {"name": "A"}})).unwrap_err();
        assert!(error.message.starts_with(
            "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must"
        ));
        let error = create("configmaps", json!({})).unwrap_err();
        assert_eq!(
            error.message,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
        );
        let error = create(
            "configmaps",
            json!({"metadata": {"name": "a", "namespace": "other"}}),
        )
        .unwrap_err();
        assert_eq!(error.code, 400);
        assert!(create("roles", json!({"metadata": {"name": "system:x"}})).is_ok());
        assert!(
            create(
                "configmaps",
                json!({"metadata": {"name": "a", "labels": {"k": "a b"}}})
            )
            .is_err()
        );
    }

    #[test]
    fn an_update_of_an_old_version_conflicts() {
        let before = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "5"}});
        let mut object = json!({"metadata": {"name": "a", "resourceVersion": "4"}});
        assert_eq!(
            prepare_update(&mut object, &before, &kind("configmaps"))
                .unwrap_err()
                .reason,
            "Conflict"
        );
        let mut object = json!({"metadata": {"name": "a"}});
        prepare_update(&mut object, &before, &kind("configmaps")).unwrap();
        assert_eq!(text(&object, "/metadata/uid"), "u");
    }

    #[test]
    fn a_changed_spec_is_a_new_generation() {
        let before = json!({"metadata": {"name": "a", "generation": 3}, "spec": {"replicas": 1}});
        let mut same = json!({"metadata": {"name": "a"}, "spec": {"replicas": 1}, "status": {"x": 1}});
        prepare_update(&mut same, &before, &kind("deployments")).unwrap();
        assert_eq!(same["metadata"]["generation"], 3);
        let mut changed = json!({"metadata": {"name": "a"}, "spec": {"replicas": 2}});
        prepare_update(&mut changed, &before, &kind("deployments")).unwrap();
        assert_eq!(changed["metadata"]["generation"], 4);
    }

    #[test]
    fn uuids_are_version_4() {
        let uuid = uuid();
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}
