//! Just enough of the controllers that a cluster seems alive: pods start, deployments have pods,
//! namespaces get a service account and go away when they are empty.
//!
//! Each runs to its end inside the write that caused it, so that a test sees its result at once.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::object::{child, fields, items, name_suffix, text, timestamp, uuid};
use crate::pod_security;
use crate::roles;
use crate::selectors::Selector;
use crate::state::State;
use crate::store::{Key, Write};

/// Pods that one workload may have here.
const REPLICAS_LIMIT: i64 = 100;

/// Brings about what follows from a change of one object.
pub(crate) fn settle(state: &Arc<State>, key: &Key) {
    let object = state.store.read(key);
    match (&*key.resource, object) {
        ("pods", Some(pod)) if text(&pod, "/status/phase") == "Pending" && !is_deleted(&pod) => {
            start(state, key)
        }
        ("pods", None) => {
            refill(state, &key.namespace);
            finish_namespace(state, &key.namespace);
        }
        ("deployments.apps", Some(deployment)) if !is_deleted(&deployment) => deploy(state, key, &deployment),
        ("namespaces", Some(namespace)) if !is_deleted(&namespace) => furnish(state, &key.name),
        ("customresourcedefinitions.apiextensions.k8s.io", object) => {
            match object {
                Some(definition) => establish(state, key, &definition),
                None => drop_custom_resources(state, key),
            }
            state.refresh_kinds();
        }
        ("clusterroles.rbac.authorization.k8s.io", _) => roles::aggregate(state),
        (_, None) => finish_namespace(state, &key.namespace),
        _ => {}
    }
}

fn is_deleted(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// Stores an object that a controller made or changed; it cannot be refused.
fn put(state: &State, key: &Key, change: impl FnOnce(Option<&Value>) -> Option<Value>) {
    let written = state.store.write(key, |before| {
        Ok(change(before.map(AsRef::as_ref)).map_or(Write::Keep, Write::Put))
    });
    if let Err(error) = written {
        tracing::warn!(%error, name = key.name, "a controller's write was refused");
    }
}

/// The kubelet: a pod with a node, an address and running containers.
fn start(state: &State, key: &Key) {
    let now = timestamp(state.now());
    let address = state.next_pod_ip();
    let node = state.node_name();
    put(state, key, |before| {
        let mut pod = before?.clone();
        let statuses: Vec<Value> = items(&pod, "/spec/containers")
            .map(|container| {
                json!({
                    "name": text(container, "/name"),
                    "image": text(container, "/image"),
                    "imageID": "",
                    "containerID": format!("containerd://{}", uuid()),
                    "ready": true,
                    "started": true,
                    "restartCount": 0,
                    "lastState": {},
                    "state": {"running": {"startedAt": now}},
                })
            })
            .collect();
        let conditions: Vec<Value> = [
            "PodReadyToStartContainers",
            "Initialized",
            "Ready",
            "ContainersReady",
            "PodScheduled",
        ]
        .into_iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": now}))
        .collect();
        let top = fields(&mut pod);
        child(top, "spec").entry("nodeName").or_insert(json!(node));
        top.insert(
            "status".to_owned(),
            json!({
                "phase": "Running",
                "conditions": conditions,
                "hostIP": "10.0.0.10",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "startTime": now,
                "containerStatuses": statuses,
                "qosClass": "BestEffort",
            }),
        );
        Some(pod)
    });
}

/// The deployment and replica set controllers in one: as many pods as asked for, from the current
/// template, owned by a replica set.
fn deploy(state: &Arc<State>, key: &Key, deployment: &Value) {
    let wanted = deployment
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1)
        .clamp(0, REPLICAS_LIMIT);
    let template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    let refusal = refusal(state, &key.namespace, &template);
    let running = if refusal.is_some() { 0 } else { wanted };
    let hash = template_hash(&template);
    let set = Key::new(
        &state.replica_sets,
        &key.namespace,
        &format!("{}-{hash}", key.name),
    );
    let owner = |kind: &str, api: &str, object: &Value| {
        json!([{
            "apiVersion": api, "kind": kind, "name": text(object, "/metadata/name"),
            "uid": text(object, "/metadata/uid"), "controller": true, "blockOwnerDeletion": true,
        }])
    };
    let mut labelled = template;
    child(child(fields(&mut labelled), "metadata"), "labels")
        .insert("pod-template-hash".to_owned(), json!(hash));
    let now = timestamp(state.now());
    let revision = revision(state, deployment, &set);
    let status = json!({"replicas": running, "readyReplicas": running, "availableReplicas": running,
        "fullyLabeledReplicas": running, "observedGeneration": 1});
    put(state, &set, |before| {
        let mut object = before.cloned().unwrap_or_else(|| {
            let mut selector = deployment.pointer("/spec/selector").cloned().unwrap_or_default();
            child(fields(&mut selector), "matchLabels").insert("pod-template-hash".to_owned(), json!(hash));
            json!({
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": set.name, "namespace": set.namespace, "uid": uuid(), "creationTimestamp": now,
                    "generation": 1,
                    "labels": labelled.pointer("/metadata/labels"),
                    "ownerReferences": owner("Deployment", "apps/v1", deployment),
                },
                "spec": {"selector": selector, "template": labelled},
            })
        });
        let top = fields(&mut object);
        child(child(top, "metadata"), "annotations").insert(REVISION.to_owned(), json!(revision));
        child(top, "spec").insert("replicas".to_owned(), json!(wanted));
        top.insert("status".to_owned(), status.clone());
        Some(object)
    });
    let Some(set_object) = state.store.read(&set) else {
        return;
    };
    let set_owner = owner("ReplicaSet", "apps/v1", &set_object);
    if refusal.is_none() {
        retire_other_sets(state, key, deployment, &set);
    }
    let mut owned: Vec<Key> = state.store.dependents(text(&set_object, "/metadata/uid"));
    owned.retain(|owned| {
        &*owned.resource == "pods" && state.store.read(owned).is_some_and(|pod| !is_deleted(&pod))
    });
    let wanted_pods = usize::try_from(running).unwrap_or(0);
    for _ in owned.len()..wanted_pods {
        let pod_key = Key::new(
            &state.pods,
            &key.namespace,
            &format!("{}-{}", set.name, name_suffix()),
        );
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod_key.name, "generateName": format!("{}-", set.name), "namespace": pod_key.namespace,
                "uid": uuid(), "creationTimestamp": now,
                "labels": labelled.pointer("/metadata/labels"),
                "annotations": labelled.pointer("/metadata/annotations").cloned().unwrap_or_else(|| json!({})),
                "ownerReferences": set_owner,
            },
            "spec": labelled.pointer("/spec"),
            "status": {"phase": "Pending"},
        });
        child(fields(&mut pod), "spec")
            .entry("serviceAccountName")
            .or_insert(json!("default"));
        put(state, &pod_key, |_| Some(pod));
        start(state, &pod_key);
    }
    for surplus in owned.iter().skip(wanted_pods) {
        drop(state.store.write(surplus, |_| Ok(Write::Remove)));
    }
    put(state, key, |before| {
        let mut object = before?.clone();
        let generation = object
            .pointer("/metadata/generation")
            .cloned()
            .unwrap_or(json!(1));
        let mut status = json!({
            "observedGeneration": generation,
            "conditions": [
                condition("Available", "MinimumReplicasAvailable", "Deployment has minimum availability.", &now),
                condition("Progressing", "NewReplicaSetAvailable",
                    &format!("ReplicaSet {:?} has successfully progressed.", set.name), &now),
            ],
        });
        if let Some(why) = &refusal {
            let message = format!("pods \"{}-{}\" is forbidden: {why}", set.name, name_suffix());
            fields(&mut status).insert(
                "conditions".to_owned(),
                json!([condition("ReplicaFailure", "FailedCreate", &message, &now)]),
            );
            fields(&mut status).insert("unavailableReplicas".to_owned(), json!(wanted));
        }
        if running > 0 {
            for field in [
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
            ] {
                fields(&mut status).insert(field.to_owned(), json!(running));
            }
        }
        // The times of conditions that still hold stay, or every pass would be a change.
        let same =
            |object: &Value, field: &str| object.pointer(&format!("/status/{field}")) == status.get(field);
        let fields_of_status = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ];
        if fields_of_status.iter().all(|field| same(&object, field)) {
            return None;
        }
        let top = fields(&mut object);
        child(child(top, "metadata"), "annotations").insert(REVISION.to_owned(), json!(revision));
        top.insert("status".to_owned(), status);
        Some(object)
    });
}

/// Why pods of a template are not admitted to a namespace.
fn refusal(state: &State, namespace: &str, template: &Value) -> Option<String> {
    let namespace = state.store.read(&Key::new(&state.namespaces, "", namespace))?;
    pod_security::pod(&namespace, template, None).refusal
}

const REVISION: &str = "deployment.kubernetes.io/revision";

/// The revision of the current template: one more than any other's, unless it is the newest already.
fn revision(state: &State, deployment: &Value, current: &Key) -> String {
    let pointer = format!("/metadata/annotations/{}", REVISION.replace('/', "~1"));
    let number = |object: &Value| text(object, &pointer).parse::<u64>().unwrap_or(0);
    let sets = state.store.dependents(text(deployment, "/metadata/uid"));
    let others = sets
        .iter()
        .filter(|key| *key != current)
        .filter_map(|key| state.store.read(key));
    let newest = others.map(|object| number(&object)).max().unwrap_or(0);
    let own = state.store.read(current).map_or(0, |object| number(&object));
    if own > newest { own } else { newest + 1 }.to_string()
}

fn condition(kind: &str, reason: &str, message: &str, now: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": now, "lastTransitionTime": now})
}

/// Replica sets of earlier templates lose their pods.
fn retire_other_sets(state: &Arc<State>, key: &Key, deployment: &Value, current: &Key) {
    for other in state.store.dependents(text(deployment, "/metadata/uid")) {
        if other == *current || other.resource != state.replica_sets || other.namespace != key.namespace {
            continue;
        }
        let Some(object) = state.store.read(&other) else {
            continue;
        };
        for pod in state.store.dependents(text(&object, "/metadata/uid")) {
            drop(state.store.write(&pod, |_| Ok(Write::Remove)));
        }
        put(state, &other, |before| {
            let mut object = before?.clone();
            let top = fields(&mut object);
            child(top, "spec").insert("replicas".to_owned(), json!(0));
            top.insert(
                "status".to_owned(),
                json!({"replicas": 0, "observedGeneration": 1}),
            );
            Some(object)
        });
    }
}

/// Ten letters that name a template.
fn template_hash(template: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a; collisions cost a demo two templates in one replica set.
    let text = template.to_string();
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut out = String::new();
    for _ in 0..10 {
        let index = usize::try_from(hash % 27).unwrap_or(0);
        out.extend(LETTERS.get(index).map(|letter| char::from(*letter)));
        hash /= 27;
    }
    out
}

/// A pod went away: its deployment makes another.
fn refill(state: &Arc<State>, namespace: &str) {
    for deployment in state.store.all(&state.deployments, namespace) {
        if is_deleted(&deployment) {
            continue;
        }
        let wanted = deployment
            .pointer("/spec/replicas")
            .and_then(Value::as_i64)
            .unwrap_or(1);
        let selector =
            Selector::from_label_selector(deployment.pointer("/spec/selector").unwrap_or(&Value::Null));
        let pods = state.store.all(&state.pods, namespace);
        let found = pods
            .iter()
            .filter(|pod| !is_deleted(pod) && selector.matches(pod))
            .count();
        if i64::try_from(found).unwrap_or(i64::MAX) < wanted {
            deploy(
                state,
                &Key::new(&state.deployments, namespace, text(&deployment, "/metadata/name")),
                &deployment,
            );
        }
    }
}

/// What every namespace has from the start.
fn furnish(state: &State, namespace: &str) {
    let now = timestamp(state.now());
    let account = Key::new(&state.service_accounts, namespace, "default");
    put(state, &account, |before| match before {
        Some(_) => None,
        None => Some(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace, "uid": uuid(), "creationTimestamp": now},
        })),
    });
    let roots = Key::new(&state.config_maps, namespace, "kube-root-ca.crt");
    put(state, &roots, |before| match before {
        Some(_) => None,
        None => Some(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "kube-root-ca.crt", "namespace": namespace, "uid": uuid(), "creationTimestamp": now,
                "annotations": {"kubernetes.io/description": "The certificates of this API server's authority."}},
            "data": {"ca.crt": state.certificate_authority()},
        })),
    });
}

/// Removes a namespace that is being deleted once nothing is left in it.
pub(crate) fn finish_namespace(state: &State, name: &str) {
    let key = Key::new(&state.namespaces, "", name);
    let Some(namespace) = state.store.read(&key) else {
        return;
    };
    if is_deleted(&namespace)
        && state.store.keys_in_namespace(name).is_empty()
        && items(&namespace, "/metadata/finalizers").next().is_none()
    {
        drop(state.store.write(&key, |_| Ok(Write::Remove)));
    }
}

/// The conditions of a definition whose resources are served.
fn establish(state: &State, key: &Key, definition: &Value) {
    let established =
        items(definition, "/status/conditions").any(|condition| text(condition, "/type") == "Established");
    if established || is_deleted(definition) {
        return;
    }
    let now = timestamp(state.now());
    put(state, key, |before| {
        let mut object = before?.clone();
        let stored: Vec<Value> = items(&object, "/spec/versions")
            .filter(|version| version.get("storage") == Some(&Value::Bool(true)))
            .filter_map(|version| version.get("name").cloned())
            .collect();
        let names = object.pointer("/spec/names").cloned().unwrap_or_default();
        let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now});
        let status = json!({
            "acceptedNames": names,
            "storedVersions": stored,
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
        });
        fields(&mut object).insert("status".to_owned(), status);
        Some(object)
    });
}

fn drop_custom_resources(state: &State, definition: &Key) {
    let resource: Arc<str> = definition.name.as_str().into();
    for object in state.store.all(&resource, "") {
        let key = Key::new(
            &resource,
            text(&object, "/metadata/namespace"),
            text(&object, "/metadata/name"),
        );
        drop(state.store.write(&key, |_| Ok(Write::Remove)));
    }
}
