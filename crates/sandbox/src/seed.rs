//! What a sandbox holds when it starts: nodes, namespaces, the API's own service, roles.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::controllers::settle;
use crate::kinds::store_key;
use crate::object::{text, timestamp, uuid};
use crate::state::{NODES, State};
use crate::store::{Key, Write};

/// Fills an empty store.
pub(crate) fn plant(state: &Arc<State>) {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        put(
            state,
            "",
            "namespaces",
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            }),
        );
    }
    for (index, name) in NODES.iter().enumerate() {
        put(state, "", "nodes", node(name, index, &timestamp(state.now())));
        put(
            state,
            "coordination.k8s.io",
            "leases",
            json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40},
            }),
        );
    }
    crate::roles::plant(state);
    put(
        state,
        "",
        "services",
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "type": "ClusterIP", "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
            },
            "status": {"loadBalancer": {}},
        }),
    );
}

/// Stores an object that needs only what every object has.
pub(crate) fn put(state: &Arc<State>, group: &str, plural: &str, mut object: Value) {
    let key = Key::new(
        &store_key(group, plural),
        text(&object, "/metadata/namespace"),
        text(&object, "/metadata/name"),
    );
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert("uid".to_owned(), json!(uuid()));
        metadata.insert("creationTimestamp".to_owned(), json!(timestamp(state.now())));
    }
    if let Err(error) = state.store.write(&key, |_| Ok(Write::Put(object))) {
        tracing::warn!(%error, name = key.name, "a seeded object was refused");
    }
    settle(state, &key);
}

fn node(name: &str, index: usize, now: &str) -> Value {
    let mut labels =
        json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    if let (0, Value::Object(labels)) = (index, &mut labels) {
        labels.insert("node-role.kubernetes.io/control-plane".to_owned(), json!(""));
    }
    let capacity = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": format!("10.244.{index}.0/24")},
        "status": {
            "capacity": capacity, "allocatable": capacity,
            "addresses": [
                {"type": "InternalIP", "address": format!("10.0.0.{}", 10 + index)},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
                "lastHeartbeatTime": now, "lastTransitionTime": now}],
            "nodeInfo": {
                "kubeletVersion": "v1.36.3", "osImage": "Sandbox", "kernelVersion": "6.0.0",
                "containerRuntimeVersion": "containerd://2.0.0", "operatingSystem": "linux", "architecture": "amd64",
                "bootID": "", "machineID": "", "systemUUID": "", "kubeProxyVersion": "",
            },
        },
    })
}
