//! OpenAPI documents, as small as kubectl accepts.
//!
//! kubectl looks for the `fieldValidation` parameter of a kind's patch operation to learn that the
//! server validates by itself; `kubectl explain` reads the schemas, which say nothing about fields
//! except for custom resources, whose definitions hold one.

use serde_json::{Map, Value, json};

use crate::kinds::{Kind, Kinds};

/// `/openapi/v3`: where the document of each group and version is.
pub(crate) fn index(kinds: &Kinds) -> Value {
    let mut paths = Map::new();
    for (group, versions) in kinds.groups() {
        for version in versions {
            let path = prefix(&group, &version);
            let url = format!("/openapi/v3/{path}?hash=0");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// `/openapi/v3/<prefix>`.
pub(crate) fn document(kinds: &Kinds, wanted: &str) -> Option<Value> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in kinds
        .iter()
        .filter(|kind| prefix(&kind.group, &kind.version) == wanted)
    {
        let scope = if kind.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let collection = format!("/{wanted}{scope}/{}", kind.plural);
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({"patch": operation("patch", kind)}),
        );
        paths.insert(collection, json!({"post": operation("post", kind)}));
        schemas.insert(schema_name(kind), schema(kind));
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "kaudit sandbox", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// `/openapi/v2`: the schemas alone.
pub(crate) fn swagger(kinds: &Kinds) -> Value {
    let definitions: Map<String, Value> = kinds
        .iter()
        .map(|kind| (schema_name(kind), schema(kind)))
        .collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "kaudit sandbox", "version": "v1"},
        "paths": {},
        "definitions": definitions,
    })
}

fn identity(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn operation(action: &str, kind: &Kind) -> Value {
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation", "force"]
        .into_iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    json!({
        "operationId": format!("{action}{}", kind.kind),
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": identity(kind),
    })
}

fn schema_name(kind: &Kind) -> String {
    let group = if kind.group.is_empty() {
        "core"
    } else {
        &*kind.group
    };
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind)
}

fn schema(kind: &Kind) -> Value {
    let custom = kind
        .custom
        .as_ref()
        .and_then(|custom| custom.schema.as_object().cloned());
    let mut out = custom.unwrap_or_default();
    out.insert("type".to_owned(), json!("object"));
    out.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    out.insert(
        "x-kubernetes-group-version-kind".to_owned(),
        json!([identity(kind)]),
    );
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_version_of_the_index_has_a_document() {
        let kinds = Kinds::new([].into_iter());
        for path in index(&kinds)["paths"].as_object().unwrap().keys() {
            let document = document(&kinds, path).unwrap();
            assert!(
                !document["components"]["schemas"].as_object().unwrap().is_empty(),
                "{path}"
            );
        }
        assert!(document(&kinds, "apis/none/v1").is_none());
    }
}
