//! The roles a cluster starts with, and roles that are made of others.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::kinds::store_key;
use crate::object::{fields, items, text};
use crate::seed::put;
use crate::selectors::Selector;
use crate::state::State;
use crate::store::{Key, Write};

const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";
const DEFAULTS: &str = include_str!("seed/roles.yaml");

/// Stores the roles and bindings of a new cluster.
pub(crate) fn plant(state: &Arc<State>) {
    let defaults: Value = match serde_saphyr::from_str(DEFAULTS) {
        Ok(defaults) => defaults,
        Err(error) => {
            tracing::error!(%error, "the default roles cannot be read");
            return;
        }
    };
    let empty = Map::new();
    let section = |name: &str| defaults.get(name).and_then(Value::as_object).unwrap_or(&empty);
    for (name, role) in section("clusterRoles") {
        put(state, GROUP, "clusterroles", cluster_role(name, role));
    }
    for (name, groups) in section("clusterRoleBindings") {
        let subjects: Vec<Value> = items(groups, "")
            .map(|group| json!({"kind": "Group", "apiGroup": GROUP, "name": group}))
            .collect();
        let binding = json!({
            "apiVersion": API_VERSION,
            "kind": "ClusterRoleBinding",
            "metadata": metadata(name),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
            "subjects": subjects,
        });
        put(state, GROUP, "clusterrolebindings", binding);
    }
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn cluster_role(name: &str, role: &Value) -> Value {
    let mut metadata = metadata(name);
    if let (Some(Value::Object(own)), Some(Value::Object(labels))) =
        (role.get("labels"), metadata.pointer_mut("/labels"))
    {
        labels.extend(own.clone());
    }
    let mut out = json!({"apiVersion": API_VERSION, "kind": "ClusterRole", "metadata": metadata});
    let top = fields(&mut out);
    if let Some(label) = role.get("aggregate").and_then(Value::as_str) {
        top.insert(
            "aggregationRule".to_owned(),
            json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}),
        );
    }
    top.insert(
        "rules".to_owned(),
        role.get("rules").cloned().unwrap_or_else(|| json!([])),
    );
    out
}

/// Fills the roles that are made of others, after one of them changed.
///
/// Source: kubernetes pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go.
pub(crate) fn aggregate(state: &State) {
    let resource = store_key(GROUP, "clusterroles");
    // A role may be made of a role that is; no chain is longer than there are roles.
    let rounds = state.store.all(&resource, "").len();
    for _ in 0..rounds {
        let roles = state.store.all(&resource, "");
        let mut changed = false;
        for role in &roles {
            let Some(rules) = aggregated(role, &roles) else {
                continue;
            };
            if role.get("rules") == Some(&rules) {
                continue;
            }
            changed = true;
            let key = Key::new(&resource, "", text(role, "/metadata/name"));
            let written = state.store.write(&key, |before| {
                let Some(before) = before else {
                    return Ok(Write::Keep);
                };
                let mut after = Value::clone(before);
                fields(&mut after).insert("rules".to_owned(), rules);
                Ok(Write::Put(after))
            });
            if let Err(error) = written {
                tracing::warn!(%error, name = key.name, "an aggregated role was refused");
            }
        }
        if !changed {
            return;
        }
    }
}

/// The rules of the roles that a role selects; `None` for a role with rules of its own.
fn aggregated(role: &Value, roles: &[Arc<Value>]) -> Option<Value> {
    let selectors: Vec<Selector> = role
        .pointer("/aggregationRule/clusterRoleSelectors")?
        .as_array()?
        .iter()
        .map(Selector::from_label_selector)
        .collect();
    let name = text(role, "/metadata/name");
    let mut rules: Vec<Value> = Vec::new();
    for selector in &selectors {
        for other in roles {
            if text(other, "/metadata/name") == name || !selector.matches(other) {
                continue;
            }
            for rule in items(other, "/rules") {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(Value::Array(rules))
}
