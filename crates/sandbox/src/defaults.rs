//! Defaults that upstream's versioned types fill in, for the kinds that a demo cluster looks at.
//!
//! Source: kubernetes pkg/apis/{core,apps}/v1/defaults.go.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::object::{child, default, fields};

/// Fills in the defaults of a decoded object.
pub(crate) fn apply(kind: &Kind, object: &mut Value) {
    let top = fields(object);
    match (&*kind.group, &*kind.plural) {
        ("", "namespaces") => namespace(top),
        ("", "pods") => pod_spec(child(top, "spec")),
        ("", "secrets") => secret(top),
        ("", "services") => service(child(top, "spec")),
        ("", "events") => {
            default(top, "type", json!("Normal"));
            default(top, "count", json!(1));
        }
        ("apps", "deployments") => {
            let spec = child(top, "spec");
            default(spec, "replicas", json!(1));
            default(spec, "progressDeadlineSeconds", json!(600));
            default(spec, "revisionHistoryLimit", json!(10));
            let rolling = json!({
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
            });
            default(spec, "strategy", rolling);
            pod_spec(child(child(spec, "template"), "spec"));
        }
        ("apps", "replicasets" | "statefulsets") => {
            let spec = child(top, "spec");
            default(spec, "replicas", json!(1));
            pod_spec(child(child(spec, "template"), "spec"));
        }
        ("apps", "daemonsets") => pod_spec(child(child(child(top, "spec"), "template"), "spec")),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => binding(top),
        ("apiextensions.k8s.io", _) => definition(child(top, "spec")),
        _ => {}
    }
}

/// What the server itself sets in a new object, after its body was recorded.
pub(crate) fn initial_state(kind: &Kind, object: &mut Value, name: &str) {
    let top = fields(object);
    match (&*kind.group, &*kind.plural) {
        ("", "namespaces") => {
            top.insert("status".to_owned(), json!({"phase": "Active"}));
            default(
                child(child(top, "metadata"), "labels"),
                "kubernetes.io/metadata.name",
                json!(name),
            );
        }
        ("", "pods") => {
            top.insert(
                "status".to_owned(),
                json!({"phase": "Pending", "qosClass": "BestEffort"}),
            );
        }
        ("", "services") => {
            top.insert("status".to_owned(), json!({"loadBalancer": {}}));
        }
        ("apps" | "batch", _) => {
            top.insert("status".to_owned(), json!({}));
        }
        _ if kind.subresource("status").is_some() => {
            top.shift_remove("status");
        }
        _ => {}
    }
}

fn namespace(top: &mut Map<String, Value>) {
    default(child(top, "spec"), "finalizers", json!(["kubernetes"]));
    default(child(top, "status"), "phase", json!("Active"));
}

fn pod_spec(spec: &mut Map<String, Value>) {
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let Value::Object(container) = container else {
                continue;
            };
            default(container, "resources", json!({}));
            default(container, "terminationMessagePath", json!("/dev/termination-log"));
            default(container, "terminationMessagePolicy", json!("File"));
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let tag = image
                .rsplit('/')
                .next()
                .and_then(|last| last.split_once(':'))
                .map(|(_, tag)| tag);
            let policy = if matches!(tag, None | Some("latest")) {
                "Always"
            } else {
                "IfNotPresent"
            };
            default(container, "imagePullPolicy", json!(policy));
            for port in container
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                default(fields(port), "protocol", json!("TCP"));
            }
        }
    }
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "securityContext", json!({}));
    default(spec, "schedulerName", json!("default-scheduler"));
}

fn secret(top: &mut Map<String, Value>) {
    default(top, "type", json!("Opaque"));
    let Some(Value::Object(plain)) = top.shift_remove("stringData") else {
        return;
    };
    let data = child(top, "data");
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(key, json!(encoded));
    }
}

fn service(spec: &mut Map<String, Value>) {
    default(spec, "sessionAffinity", json!("None"));
    default(spec, "type", json!("ClusterIP"));
    default(spec, "internalTrafficPolicy", json!("Cluster"));
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let port = fields(port);
        default(port, "protocol", json!("TCP"));
        let number = port.get("port").cloned().unwrap_or_default();
        default(port, "targetPort", number);
    }
}

/// Source: kubernetes pkg/apis/rbac/v1/defaults.go.
fn binding(top: &mut Map<String, Value>) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    default(child(top, "roleRef"), "apiGroup", json!(GROUP));
    for subject in top
        .get_mut("subjects")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let subject = fields(subject);
        if matches!(
            subject.get("kind").and_then(Value::as_str),
            Some("User" | "Group")
        ) {
            default(subject, "apiGroup", json!(GROUP));
        }
    }
}

fn definition(spec: &mut Map<String, Value>) {
    default(spec, "conversion", json!({"strategy": "None"}));
    let names = child(spec, "names");
    let kind = names
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    default(names, "singular", json!(kind.to_ascii_lowercase()));
    default(names, "listKind", json!(format!("{kind}List")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn applied(group: &str, plural: &str, mut object: Value) -> Value {
        let kinds = Kinds::new([].into_iter());
        apply(kinds.find(group, "v1", plural).unwrap(), &mut object);
        object
    }

    #[test]
    fn a_pods_pull_policy_follows_its_tag() {
        let pod = json!({"spec": {"containers": [
            {"image": "r:5000/a"}, {"image": "a:1"}, {"image": "a:latest"}, {"image": "a:1", "imagePullPolicy": "Never"},
        ]}});
        let pod = applied("", "pods", pod);
        let policies: Vec<&str> = pod["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|c| c["imagePullPolicy"].as_str())
            .collect();
        assert_eq!(policies, ["Always", "IfNotPresent", "Always", "Never"]);
        assert_eq!(pod["spec"]["restartPolicy"], "Always");
    }

    #[test]
    fn string_data_of_a_secret_becomes_data() {
        let secret = applied("", "secrets", json!({"stringData": {"a": "b"}}));
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "Yg=="}}));
    }
}
