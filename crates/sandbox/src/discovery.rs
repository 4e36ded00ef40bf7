//! What the server serves, in the legacy and the aggregated form.
//!
//! Source: k8s.io/apiserver pkg/endpoints/discovery.

use serde_json::{Map, Value, json};

use crate::kinds::{Kind, Kinds, group_version};

/// The aggregated form's media type for a version of `apidiscovery.k8s.io`.
pub(crate) fn aggregated_media_type(version: &str) -> String {
    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
}

/// `/api`.
pub(crate) fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`.
pub(crate) fn group_list(kinds: &Kinds) -> Value {
    let groups: Vec<Value> = kinds
        .groups()
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| entry(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(crate) fn group(kinds: &Kinds, name: &str) -> Option<Value> {
    let groups = kinds.groups();
    let (group, versions) = groups
        .iter()
        .find(|(group, _)| group == name && !group.is_empty())?;
    let mut out = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(out), Value::Object(entry)) = (&mut out, entry(group, versions)) {
        out.extend(entry);
    }
    Some(out)
}

fn entry(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": group_version(group, version), "version": version}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(crate) fn resource_list(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds
        .iter()
        .filter(|kind| kind.group == group && kind.version == version)
    {
        resources.push(resource(kind));
        for sub in &kind.subresources {
            let mut out = json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.namespaced,
            });
            if let Value::Object(out) = &mut out {
                if let Some((group, version)) = sub.group_version {
                    out.insert("group".to_owned(), json!(group));
                    out.insert("version".to_owned(), json!(version));
                }
                let name = if sub.kind.is_empty() {
                    &*kind.kind
                } else {
                    sub.kind
                };
                out.insert("kind".to_owned(), json!(name));
                out.insert("verbs".to_owned(), json!(sub.verbs));
            }
            resources.push(out);
        }
    }
    if resources.is_empty() {
        return None;
    }
    let mut out = json!({"kind": "APIResourceList"});
    if let Value::Object(out) = &mut out {
        if !group.is_empty() {
            out.insert("apiVersion".to_owned(), json!("v1"));
        }
        out.insert("groupVersion".to_owned(), json!(group_version(group, version)));
        out.insert("resources".to_owned(), Value::Array(resources));
    }
    Some(out)
}

fn resource(kind: &Kind) -> Value {
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(kind.plural));
    out.insert("singularName".to_owned(), json!(kind.singular));
    out.insert("namespaced".to_owned(), json!(kind.namespaced));
    out.insert("kind".to_owned(), json!(kind.kind));
    out.insert("verbs".to_owned(), json!(kind.verbs));
    if !kind.short_names.is_empty() {
        out.insert("shortNames".to_owned(), json!(kind.short_names));
    }
    if !kind.categories.is_empty() {
        out.insert("categories".to_owned(), json!(kind.categories));
    }
    Value::Object(out)
}

/// The aggregated form of `/api` (`core`) or `/apis`.
pub(crate) fn aggregated(kinds: &Kinds, version: &str, core: bool) -> Value {
    let groups = kinds.groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let of_version = kinds
                        .iter()
                        .filter(|kind| kind.group == *group && kind.version == *version);
                    let resources: Vec<Value> = of_version.map(|kind| aggregated_resource(kind)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() {
                json!({})
            } else {
                json!({"name": group})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &Kind) -> Value {
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| {
            let (group, version) = sub.group_version.unwrap_or((&kind.group, &kind.version));
            let name = if sub.kind.is_empty() {
                &*kind.kind
            } else {
                sub.kind
            };
            json!({
                "subresource": sub.name,
                "responseKind": {"group": group, "version": version, "kind": name},
                "verbs": sub.verbs,
            })
        })
        .collect();
    let mut out = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if let Value::Object(out) = &mut out {
        if !kind.short_names.is_empty() {
            out.insert("shortNames".to_owned(), json!(kind.short_names));
        }
        if !kind.categories.is_empty() {
            out.insert("categories".to_owned(), json!(kind.categories));
        }
        if !subresources.is_empty() {
            out.insert("subresources".to_owned(), Value::Array(subresources));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_resources() {
        let kinds = Kinds::new([].into_iter());
        let legacy = resource_list(&kinds, "apps", "v1").unwrap();
        let tops: Vec<&str> = legacy["resources"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|resource| resource["name"].as_str())
            .filter(|name| !name.contains('/'))
            .collect();
        let aggregated = aggregated(&kinds, "v2", false);
        let apps = aggregated["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["metadata"]["name"] == "apps");
        let others: Vec<&str> = apps.unwrap()["versions"][0]["resources"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|resource| resource["resource"].as_str())
            .collect();
        assert_eq!(tops, others);
        assert!(resource_list(&kinds, "apps", "v9").is_none());
        assert!(group(&kinds, "").is_none());
    }
}
