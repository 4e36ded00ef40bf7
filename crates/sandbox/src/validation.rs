//! Rules of single kinds, as far as a demo cluster's users run into them.
//!
//! Source: kubernetes pkg/apis/*/validation.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::object::{items, text};
use crate::selectors::Selector;
use crate::status::{ApiError, Cause};

/// Bytes of data that a ConfigMap or Secret may hold.
const DATA_LIMIT: usize = 1024 * 1024;

/// Checks a new object, or the new state of an old one.
///
/// # Errors
///
/// 422 with every cause found.
pub(crate) fn check(kind: &Kind, object: &Value, before: Option<&Value>) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    match (&*kind.group, &*kind.plural) {
        ("", "pods") => {
            pod_spec(object, "/spec", "spec", &mut causes);
            if let Some(before) = before {
                pod_update(object, before, &mut causes);
            }
        }
        ("", "configmaps" | "secrets") => data(kind, object, before, &mut causes),
        ("", "services") => service(object, &mut causes),
        ("apps", _) => workload(kind, object, before, &mut causes),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            binding(object, before, &mut causes);
        }
        ("rbac.authorization.k8s.io", _) => rules(object, &mut causes),
        ("apiextensions.k8s.io", _) => definition(object, &mut causes),
        _ => custom(kind, object, &mut causes),
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        &kind.group,
        &kind.kind,
        text(object, "/metadata/name"),
        causes,
    ))
}

fn pod_spec(object: &Value, pointer: &str, path: &str, causes: &mut Vec<Cause>) {
    let containers = format!("{pointer}/containers");
    if items(object, &containers).next().is_none() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut names = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in items(object, &format!("{pointer}/{list}")).enumerate() {
            let field = format!("{path}.{list}[{index}]");
            let name = text(container, "/name");
            if name.is_empty() {
                causes.push(Cause::required(format!("{field}.name"), ""));
            } else if names.contains(&name) {
                let message = format!("Duplicate value: {}", json!(name));
                causes.push(Cause {
                    reason: "FieldValueDuplicate",
                    message,
                    field: format!("{field}.name"),
                });
            }
            names.push(name);
            if text(container, "/image").is_empty() {
                causes.push(Cause::required(format!("{field}.image"), ""));
            }
        }
    }
    let policy = text(object, &format!("{pointer}/restartPolicy"));
    if !matches!(policy, "Always" | "OnFailure" | "Never" | "") {
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {}: supported values: \"Always\", \"OnFailure\", \"Never\"",
                json!(policy)
            ),
            field: format!("{path}.restartPolicy"),
        });
    }
}

fn pod_update(object: &Value, before: &Value, causes: &mut Vec<Cause>) {
    let fixed = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        if let Value::Object(spec) = &mut spec {
            for free in [
                "activeDeadlineSeconds",
                "tolerations",
                "nodeName",
                "ephemeralContainers",
            ] {
                spec.shift_remove(free);
            }
            for list in ["containers", "initContainers"] {
                for container in spec
                    .get_mut(list)
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                {
                    if let Value::Object(container) = container {
                        container.shift_remove("image");
                        container.shift_remove("imagePullPolicy");
                    }
                }
            }
        }
        spec
    };
    if fixed(object) != fixed(before) {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
             existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)",
        ));
    }
}

fn data(kind: &Kind, object: &Value, before: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut total = 0;
    for field in ["data", "binaryData"] {
        let Some(value) = object.get(field).filter(|value| !value.is_null()) else {
            continue;
        };
        let Some(entries) = value.as_object() else {
            causes.push(Cause::invalid(field, value, "must be an object"));
            continue;
        };
        for (key, value) in entries {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if key.is_empty() || !key.chars().all(allowed) {
                causes.push(Cause::invalid(
                    format!("{field}[{key}]"),
                    &json!(key),
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  \
                     or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ));
            }
            let Some(value) = value.as_str() else {
                causes.push(Cause::invalid(
                    format!("{field}[{key}]"),
                    value,
                    "must be a string",
                ));
                continue;
            };
            let encoded = kind.plural == "secrets" || field == "binaryData";
            total += match encoded.then(|| base64::engine::general_purpose::STANDARD.decode(value)) {
                None => value.len(),
                Some(Ok(decoded)) => decoded.len(),
                Some(Err(error)) => {
                    causes.push(Cause::invalid(
                        format!("{field}[{key}]"),
                        &json!("<value>"),
                        &error.to_string(),
                    ));
                    0
                }
            };
        }
    }
    if total > DATA_LIMIT {
        let field = if kind.plural == "secrets" { "data" } else { "[]" };
        causes.push(Cause::too_long(field, DATA_LIMIT));
    }
    let Some(before) = before else { return };
    if before.get("immutable") == Some(&Value::Bool(true)) {
        for field in ["immutable", "data", "binaryData"] {
            if object.get(field) != before.get(field) {
                causes.push(Cause::forbidden(
                    field,
                    "field is immutable when `immutable` is set",
                ));
            }
        }
    }
    if kind.plural == "secrets" && before.get("type") != object.get("type") {
        causes.push(Cause::invalid(
            "type",
            object.get("type").unwrap_or(&Value::Null),
            "field is immutable",
        ));
    }
}

fn service(object: &Value, causes: &mut Vec<Cause>) {
    let headless = text(object, "/spec/clusterIP") == "None";
    let external = text(object, "/spec/type") == "ExternalName";
    if items(object, "/spec/ports").next().is_none() && !headless && !external {
        causes.push(Cause::required("spec.ports", ""));
    }
}

fn workload(kind: &Kind, object: &Value, before: Option<&Value>, causes: &mut Vec<Cause>) {
    if object
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .is_some_and(|replicas| replicas < 0)
    {
        let value = object.pointer("/spec/replicas").unwrap_or(&Value::Null);
        causes.push(Cause::invalid(
            "spec.replicas",
            value,
            "must be greater than or equal to 0",
        ));
    }
    match object.pointer("/spec/selector") {
        None | Some(Value::Null) => causes.push(Cause::required("spec.selector", "")),
        Some(selector) => {
            let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
            if !Selector::from_label_selector(selector).matches(template) {
                let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
                causes.push(Cause::invalid(
                    "spec.template.metadata.labels",
                    &labels,
                    "`selector` does not match template `labels`",
                ));
            }
            let old = before.and_then(|before| before.pointer("/spec/selector"));
            if kind.plural != "daemonsets" && old.is_some_and(|old| old != selector) {
                causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
            }
        }
    }
    pod_spec(object, "/spec/template/spec", "spec.template.spec", causes);
}

fn binding(object: &Value, before: Option<&Value>, causes: &mut Vec<Cause>) {
    if text(object, "/roleRef/name").is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    }
    if !matches!(text(object, "/roleRef/kind"), "Role" | "ClusterRole") {
        let message = format!(
            "Unsupported value: {}: supported values: \"Role\", \"ClusterRole\"",
            json!(text(object, "/roleRef/kind"))
        );
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message,
            field: "roleRef.kind".to_owned(),
        });
    }
    if let Some(before) = before
        && before.get("roleRef") != object.get("roleRef")
    {
        let value = object.get("roleRef").unwrap_or(&Value::Null);
        causes.push(Cause::invalid("roleRef", value, "cannot change roleRef"));
    }
}

fn rules(object: &Value, causes: &mut Vec<Cause>) {
    for (index, rule) in items(object, "/rules").enumerate() {
        let field = format!("rules[{index}]");
        if items(rule, "/verbs").next().is_none() {
            causes.push(Cause::required(
                format!("{field}.verbs"),
                "verbs must contain at least one value",
            ));
        }
        if items(rule, "/nonResourceURLs").next().is_none() && items(rule, "/resources").next().is_none() {
            causes.push(Cause::required(
                format!("{field}.resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
}

fn definition(object: &Value, causes: &mut Vec<Cause>) {
    for field in ["group", "scope"] {
        if text(object, &format!("/spec/{field}")).is_empty() {
            causes.push(Cause::required(format!("spec.{field}"), ""));
        }
    }
    let wanted = format!(
        "{}.{}",
        text(object, "/spec/names/plural"),
        text(object, "/spec/group")
    );
    let name = text(object, "/metadata/name");
    if name != wanted {
        causes.push(Cause::invalid(
            "metadata.name",
            &json!(name),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if items(object, "/spec/versions")
        .filter(|version| version.get("storage") == Some(&Value::Bool(true)))
        .count()
        != 1
    {
        let value = object.pointer("/spec/versions").unwrap_or(&Value::Null);
        causes.push(Cause::invalid(
            "spec.versions",
            value,
            "must have exactly one version marked as storage version",
        ));
    }
}

/// `required` and `type` of the top two levels of a custom resource's schema.
fn custom(kind: &Kind, object: &Value, causes: &mut Vec<Cause>) {
    if let Some(custom) = &kind.custom {
        schema(&custom.schema, object, "", causes, 0);
    }
}

/// Schemas nest as deep as their author likes; objects below this are not looked at.
const SCHEMA_DEPTH: usize = 32;

fn schema(schema_of: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>, depth: usize) {
    if depth > SCHEMA_DEPTH {
        return;
    }
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = text(schema_of, "/type");
    let either = schema_of.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    let fits = wanted.is_empty() || either || wanted == found || (wanted == "number" && found == "integer");
    if !fits {
        causes.push(Cause {
            reason: "FieldValueTypeInvalid",
            message: format!(
                "Invalid value: {}: {path} in body must be of type {wanted}: {}",
                json!(found),
                json!(found)
            ),
            field: path.to_owned(),
        });
        return;
    }
    let join = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    for required in items(schema_of, "/required").filter_map(Value::as_str) {
        if value.get(required).is_none() {
            causes.push(Cause::required(join(required), ""));
        }
    }
    if let (Some(Value::Object(properties)), Value::Object(fields)) = (schema_of.get("properties"), value) {
        for (key, inner) in properties {
            if let Some(value) = fields.get(key).filter(|_| key != "metadata") {
                schema(inner, value, &join(key), causes, depth + 1);
            }
        }
    }
    if let (Some(inner), Value::Array(list)) = (schema_of.get("items"), value) {
        for (index, value) in list.iter().enumerate() {
            schema(inner, value, &format!("{path}[{index}]"), causes, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    #[track_caller]
    fn fault(group: &str, plural: &str, object: &Value, before: Option<&Value>) -> String {
        let kinds = Kinds::new([].into_iter());
        check(kinds.find(group, "v1", plural).unwrap(), object, before)
            .map_or_else(|e| e.message, |()| String::new())
    }

    #[test]
    fn faults_have_upstreams_texts() {
        assert_eq!(
            fault("", "pods", &json!({"metadata": {"name": "a"}}), None),
            "Pod \"a\" is invalid: spec.containers: Required value"
        );
        assert_eq!(
            fault(
                "",
                "configmaps",
                &json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(DATA_LIMIT + 1)}}),
                None
            ),
            "ConfigMap \"a\" is invalid: []: Too long: may not be more than 1048576 bytes"
        );
        let old = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "1"}});
        let new = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "2"}});
        assert_eq!(
            fault("", "configmaps", &new, Some(&old)),
            "ConfigMap \"a\" is invalid: data: Forbidden: field is immutable when `immutable` is set"
        );
        let deployment = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "y"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }});
        assert_eq!(
            fault("apps", "deployments", &deployment, None),
            "Deployment.apps \"d\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"y\"}: \
             `selector` does not match template `labels`"
        );
    }

    #[test]
    fn custom_resources_follow_their_schema() {
        let definition = json!({"spec": {
            "group": "e.com", "scope": "Namespaced", "names": {"plural": "ws", "kind": "W"},
            "versions": [{"name": "v1", "served": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {
                    "type": "object", "required": ["size"], "properties": {"size": {"type": "integer"}},
                }},
            }}}],
        }});
        let kinds = Kinds::new([&definition].into_iter());
        let kind = kinds.find("e.com", "v1", "ws").unwrap();
        assert!(
            check(
                kind,
                &json!({"metadata": {"name": "a"}, "spec": {"size": 1}}),
                None
            )
            .is_ok()
        );
        let error = check(kind, &json!({"metadata": {"name": "a"}, "spec": {}}), None).unwrap_err();
        assert_eq!(
            error.message,
            "W.e.com \"a\" is invalid: spec.size: Required value"
        );
        let error = check(
            kind,
            &json!({"metadata": {"name": "a"}, "spec": {"size": "x"}}),
            None,
        )
        .unwrap_err();
        assert_eq!(
            error.message,
            "W.e.com \"a\" is invalid: spec.size: Invalid value: \"string\": spec.size in body must be of type \
             integer: \"string\""
        );
    }
}
