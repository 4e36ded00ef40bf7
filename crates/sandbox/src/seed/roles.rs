//! The roles and bindings that every cluster has.
//!
//! Source: kubernetes plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go, of which these are the
//! roles that people and workloads meet.

use std::sync::Arc;

use serde_json::{Value, json};

use super::put;
use crate::state::State;

const GROUP: &str = "rbac.authorization.k8s.io";

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

const CORE: [&str; 8] = [
    "configmaps",
    "endpoints",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "serviceaccounts",
    "services",
    "pods/log",
];

const APPS: [&str; 6] = [
    "daemonsets",
    "deployments",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
];

/// Stores them.
pub(super) fn plant(state: &Arc<State>) {
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let public = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    role(
        state,
        "cluster-admin",
        json!([
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ]),
    );
    role(
        state,
        "system:discovery",
        json!([{"nonResourceURLs": discovery, "verbs": ["get"]}]),
    );
    role(
        state,
        "system:public-info-viewer",
        json!([{"nonResourceURLs": public, "verbs": ["get"]}]),
    );
    role(
        state,
        "system:basic-user",
        json!([
            {"apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
                "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
            {"apiGroups": ["authentication.k8s.io"], "verbs": ["create"], "resources": ["selfsubjectreviews"]},
        ]),
    );
    let view = json!([
        {"apiGroups": [""], "resources": CORE, "verbs": READ},
        {"apiGroups": [""], "resources": ["events", "namespaces", "pods/status", "resourcequotas"], "verbs": READ},
        {"apiGroups": ["apps"], "resources": APPS, "verbs": READ},
    ]);
    let write = json!([
        {"apiGroups": [""], "resources": ["secrets"], "verbs": READ},
        {"apiGroups": [""], "resources": ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy"],
            "verbs": ["get", "create", "delete", "deletecollection", "patch", "update"]},
        {"apiGroups": [""], "resources": ["pods/eviction", "serviceaccounts/token"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": WRITE},
        {"apiGroups": [""], "resources": CORE, "verbs": WRITE},
        {"apiGroups": ["apps"], "resources": APPS, "verbs": WRITE},
    ]);
    let every = [READ.as_slice(), &WRITE].concat();
    let manage = json!([
        {"apiGroups": [GROUP], "resources": ["roles", "rolebindings"], "verbs": every},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]},
    ]);
    let join = |parts: &[&Value]| {
        Value::Array(
            parts
                .iter()
                .filter_map(|part| part.as_array())
                .flatten()
                .cloned()
                .collect(),
        )
    };
    role(state, "view", view.clone());
    role(state, "edit", join(&[&view, &write]));
    role(state, "admin", join(&[&view, &write, &manage]));
    bind(state, "cluster-admin", &["system:masters"]);
    bind(state, "system:basic-user", &["system:authenticated"]);
    bind(state, "system:discovery", &["system:authenticated"]);
    bind(
        state,
        "system:public-info-viewer",
        &["system:authenticated", "system:unauthenticated"],
    );
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}})
}

fn role(state: &Arc<State>, name: &str, rules: Value) {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": metadata(name), "rules": rules,
    });
    put(state, GROUP, "clusterroles", role);
}

/// Binds a role to groups, under the role's own name.
fn bind(state: &Arc<State>, name: &str, groups: &[&str]) {
    let subjects: Vec<Value> = groups
        .iter()
        .map(|group| json!({"apiGroup": GROUP, "kind": "Group", "name": group}))
        .collect();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": metadata(name), "subjects": subjects,
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
    });
    put(state, GROUP, "clusterrolebindings", binding);
}
