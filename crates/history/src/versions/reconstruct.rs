//! What a request makes of an object, when its answer was not recorded.

use serde_json::{Map, Value, json};

use super::Origin;
use crate::patch::{Manager, PatchError, PatchType, Resource, apply, apply_patch};
use crate::target::is_builtin_group;

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) origin: &'a Origin,
    pub(super) resource: Resource<'a>,
    /// The object's namespace; empty for objects of the cluster.
    pub(super) namespace: &'a str,
    /// Group and version of the request, as objects name them.
    pub(super) api_version: &'a str,
    pub(super) body: Option<&'a Value>,
    /// `force` was given, which only apply takes.
    pub(super) is_forced: bool,
    /// The time as metav1.Time prints it.
    pub(super) time: &'a str,
}

/// An object after a request, and what had to be supposed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub(super) object: Value,
    pub(super) supposed: Option<String>,
}

impl Made {
    const fn certain(object: Value) -> Self {
        Self {
            object,
            supposed: None,
        }
    }
}

/// A definition of a custom resource says which field its scale stands for.
const UNKNOWN_SCALE: &str = "which field the scale of a custom resource changes is not recorded";

/// What an update of the object itself cannot set.
const KEPT: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
];

impl Request<'_> {
    /// The object after this request, or in words why it is not known.
    pub(super) fn make(&self, previous: Option<&Value>) -> Result<Made, String> {
        let verb = self.origin.verb.as_str();
        let body = self
            .body
            .ok_or_else(|| "the request's body was not recorded".to_owned())?;
        match (verb, self.origin.subresource.as_str()) {
            (_, "scale") if !is_builtin_group(self.resource.group) => Err(UNKNOWN_SCALE.to_owned()),
            ("create", "") => Ok(Made::certain(self.placed(without_version(body.clone())))),
            ("create", "binding") => bound(previous, body).map(Made::certain),
            ("update", "") => {
                let made = updated(previous, body);
                Ok(Made {
                    object: self.placed(made.object),
                    ..made
                })
            }
            ("patch", "") => self.patched(previous, body),
            ("update", "scale") => scaled(known(previous)?, body).map(Made::certain),
            ("patch", "scale") => {
                let previous = known(previous)?;
                let replicas = previous.pointer("/spec/replicas").cloned().unwrap_or(Value::Null);
                let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
                    "metadata": {}, "spec": {"replicas": replicas}});
                let resource = Resource {
                    group: "autoscaling",
                    resource: "scales",
                };
                let (scale, _) = self.apply(resource, &scale, body)?;
                scaled(previous, &scale).map(Made::certain)
            }
            ("update", part) => {
                let previous = known(previous)?;
                Ok(Made::certain(with_parts(previous, body, self.parts(part)?)))
            }
            ("patch", part) => {
                let previous = self.same_version(known(previous)?)?;
                let parts = self.parts(part)?;
                let (object, supposed) = self.apply(self.resource, previous, body)?;
                Ok(Made {
                    object: with_parts(previous, &object, parts),
                    supposed,
                })
            }
            (verb, part) => Err(format!("what {verb} of {part} does to the object is not known")),
        }
    }

    /// A body need not name the namespace that its request names.
    fn placed(&self, mut object: Value) -> Value {
        if !self.namespace.is_empty()
            && let Some(Value::Object(metadata)) = object.get_mut("metadata")
        {
            metadata
                .entry("namespace")
                .or_insert_with(|| self.namespace.into());
        }
        object
    }

    fn patched(&self, previous: Option<&Value>, body: &Value) -> Result<Made, String> {
        // Only apply makes objects.
        let Some(previous) = previous.filter(|_| self.origin.code != 201) else {
            return if self.origin.code == 201 {
                let object = apply(self.resource, None, body, self.manager()).map_err(in_words)?;
                Ok(Made::certain(self.placed(without_version(object))))
            } else {
                known(previous).map(|object| Made::certain(object.clone()))
            };
        };
        let previous = self.same_version(previous)?;
        let (mut object, mut supposed) = self.apply(self.resource, previous, body)?;
        if object.get("status") != previous.get("status") {
            set(&mut object, "status", previous.get("status").cloned());
            if !is_builtin_group(self.resource.group) {
                supposed
                    .get_or_insert_with(|| "supposing that the resource has a status subresource".to_owned());
            }
        }
        for key in KEPT {
            if key != "managedFields" {
                keep(&mut object, previous, key);
            }
        }
        Ok(Made {
            object: without_version(object),
            supposed,
        })
    }

    /// The kind of a patch is not recorded; it follows from the patch, or is supposed.
    fn apply(
        &self,
        resource: Resource<'_>,
        previous: &Value,
        body: &Value,
    ) -> Result<(Value, Option<String>), String> {
        let run = |kind| apply_patch(resource, kind, previous, body).map_err(in_words);
        if body.is_array() {
            return Ok((run(PatchType::Json)?, None));
        }
        let named = |key| body.get(key).is_some_and(Value::is_string);
        if self.is_forced || (self.origin.field_manager.is_some() && named("kind") && named("apiVersion")) {
            let object = apply(resource, Some(previous), body, self.manager()).map_err(in_words)?;
            let has_managers = previous
                .pointer("/metadata/managedFields")
                .and_then(Value::as_array)
                .is_some_and(|entries| !entries.is_empty());
            let supposed = if !has_managers {
                Some("fields that its manager no longer applies may be gone: managedFields were not recorded")
            } else if self.is_forced {
                None
            } else {
                Some("read as server-side apply, which the event does not say")
            };
            return Ok((object, supposed.map(str::to_owned)));
        }
        if !is_builtin_group(resource.group) {
            return Ok((run(PatchType::Merge)?, None));
        }
        if has_directive(body) {
            return Ok((run(PatchType::Strategic)?, None));
        }
        match (run(PatchType::Strategic), run(PatchType::Merge)) {
            (Ok(strategic), Ok(merge)) if strategic == merge => Ok((strategic, None)),
            (Ok(strategic), _) => Ok((
                strategic,
                Some("read as a strategic merge patch; as a merge patch it would replace lists".to_owned()),
            )),
            (Err(_), merge) => Ok((merge?, None)),
        }
    }

    fn manager(&self) -> Manager<'_> {
        Manager {
            name: self.origin.field_manager.as_deref().unwrap_or_default(),
            api_version: self.api_version,
            subresource: &self.origin.subresource,
            time: self.time,
        }
    }

    /// A patch is written for one version of the API.
    fn same_version<'v>(&self, previous: &'v Value) -> Result<&'v Value, String> {
        match previous.get("apiVersion").and_then(Value::as_str) {
            Some(version) if !self.api_version.is_empty() && version != self.api_version => Err(format!(
                "the patch is for {}, the object is known as {version} only",
                self.api_version
            )),
            _ => Ok(previous),
        }
    }

    /// What a subresource may change.
    fn parts(&self, subresource: &str) -> Result<&'static [&'static [&'static str]], String> {
        Ok(match (self.resource.group, self.resource.resource, subresource) {
            ("", "pods" | "nodes", "status") => {
                &[&["status"], &["metadata", "labels"], &["metadata", "annotations"]]
            }
            (_, _, "status") => &[&["status"]],
            ("", "pods", "ephemeralcontainers") => &[&["spec", "ephemeralContainers"]],
            ("", "pods", "resize") => &[&["spec", "containers"], &["spec", "initContainers"]],
            ("", "namespaces", "finalize") => &[&["spec", "finalizers"]],
            ("certificates.k8s.io", _, "approval") => &[&["status", "conditions"]],
            _ => return Err(format!("what {subresource} changes in the object is not known")),
        })
    }
}

fn in_words(error: PatchError) -> String {
    format!("the recorded patch does not fit what is known of the object: {error}")
}

fn known(previous: Option<&Value>) -> Result<&Value, String> {
    previous.ok_or_else(|| "what the object was before is not known".to_owned())
}

/// The version that the server gives is not known from a request.
fn without_version(mut object: Value) -> Value {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.shift_remove("resourceVersion");
    }
    object
}

fn set(object: &mut Value, key: &str, value: Option<Value>) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    match value {
        Some(value) => drop(fields.insert(key.to_owned(), value)),
        None => drop(fields.shift_remove(key)),
    }
}

fn keep(object: &mut Value, previous: &Value, key: &str) {
    if let Some(metadata) = object.get_mut("metadata") {
        set(
            metadata,
            key,
            previous
                .pointer("/metadata")
                .and_then(|old| old.get(key))
                .cloned(),
        );
    }
}

fn updated(previous: Option<&Value>, body: &Value) -> Made {
    let mut object = without_version(body.clone());
    let Some(previous) = previous else {
        return Made {
            object,
            supposed: Some(
                "what the server keeps of the object before, as its status, is not known".to_owned(),
            ),
        };
    };
    if previous.get("apiVersion") == body.get("apiVersion") {
        set(&mut object, "status", previous.get("status").cloned());
    }
    if let Some(fields) = object.as_object_mut() {
        fields.entry("metadata").or_insert_with(|| json!({}));
    }
    for key in KEPT {
        keep(&mut object, previous, key);
    }
    Made::certain(object)
}

/// The object before, with some parts as they are in `from`.
fn with_parts(previous: &Value, from: &Value, parts: &[&[&str]]) -> Value {
    let mut out = without_version(previous.clone());
    for part in parts {
        let value = part.iter().try_fold(from, |value, key| value.get(key)).cloned();
        let Some((last, path)) = part.split_last() else {
            continue;
        };
        let mut at = &mut out;
        for key in path {
            let Some(fields) = at.as_object_mut() else {
                return out;
            };
            at = fields.entry(*key).or_insert_with(|| Value::Object(Map::new()));
        }
        set(at, last, value);
    }
    out
}

/// The object before, with the replicas of a Scale.
pub(super) fn scaled(previous: &Value, scale: &Value) -> Result<Value, String> {
    if previous.get("spec").is_none_or(|spec| !spec.is_object()) {
        return Err("the object has no spec to scale".to_owned());
    }
    let replicas = scale
        .pointer("/spec/replicas")
        .cloned()
        .unwrap_or_else(|| json!(0));
    Ok(with_parts(
        previous,
        &json!({"spec": {"replicas": replicas}}),
        &[&["spec", "replicas"]],
    ))
}

fn bound(previous: Option<&Value>, binding: &Value) -> Result<Value, String> {
    let node = binding.pointer("/target/name").cloned();
    Ok(with_parts(
        known(previous)?,
        &json!({"spec": {"nodeName": node}}),
        &[&["spec", "nodeName"]],
    ))
}

/// Whether a patch says of itself that it is a strategic merge patch.
fn has_directive(patch: &Value) -> bool {
    let mut stack = vec![patch];
    while let Some(value) = stack.pop() {
        match value {
            Value::Object(fields) => {
                let is_directive = |key: &String| {
                    matches!(key.as_str(), "$patch" | "$retainKeys")
                        || key.starts_with("$setElementOrder/")
                        || key.starts_with("$deleteFromPrimitiveList/")
                };
                if fields.keys().any(is_directive) {
                    return true;
                }
                stack.extend(fields.values());
            }
            Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
    false
}
