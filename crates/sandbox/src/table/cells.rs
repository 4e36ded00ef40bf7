//! Columns and cells of each kind.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, age};
use crate::kinds::Kind;
use crate::object::{items, text};

type Row = Vec<Value>;

/// The columns of a kind.
pub(super) fn columns(kind: &Kind) -> Vec<Column> {
    if let Some(custom) = &kind.custom {
        let mut out = vec![column("Name")];
        if custom.columns.is_empty() {
            out.push(column("Age"));
        }
        out.extend(custom.columns.iter().map(|custom| Column {
            name: custom.name.clone(),
            kind: custom.kind.clone(),
            format: "",
            priority: custom.priority,
        }));
        return out;
    }
    let (narrow, wide) = headings(kind);
    let narrow = narrow.iter().map(|name| column(name));
    let wide = wide.iter().map(|name| Column {
        priority: 1,
        ..column(name)
    });
    narrow.chain(wide).collect()
}

fn column(name: &str) -> Column {
    let kind = match name {
        "Data" | "Secrets" | "Desired" | "Current" | "Up-to-date" | "Available" => "integer",
        _ => "string",
    };
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: if name == "Name" { "name" } else { "" },
        priority: 0,
    }
}

/// The narrow columns, and those that `-o wide` adds.
fn headings(kind: &Kind) -> (&'static [&'static str], &'static [&'static str]) {
    const TEMPLATE: &[&str] = &["Containers", "Images", "Selector"];
    match &*kind.plural {
        "pods" => (
            &["Name", "Ready", "Status", "Restarts", "Age"],
            &["IP", "Node", "Nominated Node", "Readiness Gates"],
        ),
        "namespaces" => (&["Name", "Status", "Age"], &[]),
        "configmaps" => (&["Name", "Data", "Age"], &[]),
        "secrets" => (&["Name", "Type", "Data", "Age"], &[]),
        "serviceaccounts" => (&["Name", "Secrets", "Age"], &[]),
        "services" => (
            &["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age"],
            &["Selector"],
        ),
        "deployments" => (&["Name", "Ready", "Up-to-date", "Available", "Age"], TEMPLATE),
        "replicasets" => (&["Name", "Desired", "Current", "Ready", "Age"], TEMPLATE),
        "statefulsets" => (&["Name", "Ready", "Age"], &["Containers", "Images"]),
        "daemonsets" => (
            &[
                "Name",
                "Desired",
                "Current",
                "Ready",
                "Up-to-date",
                "Available",
                "Node Selector",
                "Age",
            ],
            TEMPLATE,
        ),
        "jobs" => (&["Name", "Status", "Completions", "Duration", "Age"], TEMPLATE),
        "cronjobs" => (
            &[
                "Name",
                "Schedule",
                "Timezone",
                "Suspend",
                "Active",
                "Last Schedule",
                "Age",
            ],
            &["Containers", "Images", "Selector"],
        ),
        "nodes" => (
            &["Name", "Status", "Roles", "Age", "Version"],
            &[
                "Internal-IP",
                "External-IP",
                "OS-Image",
                "Kernel-Version",
                "Container-Runtime",
            ],
        ),
        "events" => (
            &["Last Seen", "Type", "Reason", "Object", "Message"],
            &["Subobject", "Source", "First Seen", "Count", "Name"],
        ),
        "leases" => (&["Name", "Holder", "Age"], &[]),
        "roles" | "clusterroles" | "customresourcedefinitions" => (&["Name", "Created At"], &[]),
        "rolebindings" | "clusterrolebindings" => {
            (&["Name", "Role", "Age"], &["Users", "Groups", "ServiceAccounts"])
        }
        _ => (&["Name", "Age"], &[]),
    }
}

/// The cells of one object; as many as there are columns.
pub(super) fn row(kind: &Kind, object: &Value, now: Timestamp) -> Row {
    let name = json!(text(object, "/metadata/name"));
    let created = text(object, "/metadata/creationTimestamp");
    let old = json!(age(created, now));
    if let Some(custom) = &kind.custom {
        let mut out = vec![name];
        if custom.columns.is_empty() {
            out.push(old);
        }
        out.extend(
            custom
                .columns
                .iter()
                .map(|column| custom_cell(object, &column.json_path, &column.kind, now)),
        );
        return out;
    }
    match &*kind.plural {
        "pods" => pod(object, name, old),
        "namespaces" => vec![name, json!(text(object, "/status/phase")), old],
        "configmaps" => {
            let count = size(object, "/data") + size(object, "/binaryData");
            vec![name, json!(count), old]
        }
        "secrets" => vec![
            name,
            json!(text(object, "/type")),
            json!(size(object, "/data")),
            old,
        ],
        "serviceaccounts" => vec![name, json!(items(object, "/secrets").count()), old],
        "services" => service(object, name, old),
        "deployments" => workload(
            object,
            [
                name,
                ratio(object),
                count(object, "updatedReplicas"),
                count(object, "availableReplicas"),
                old,
            ],
            true,
        ),
        "replicasets" => workload(
            object,
            [
                name,
                json!(desired(object)),
                count(object, "replicas"),
                count(object, "readyReplicas"),
                old,
            ],
            true,
        ),
        "statefulsets" => workload(object, [name, ratio(object), old], false),
        "daemonsets" => {
            let selector = or_none(&pairs(object.pointer("/spec/template/spec/nodeSelector")));
            let [desired, current, ready, updated, available] = [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ]
            .map(|field| count(object, field));
            workload(
                object,
                [name, desired, current, ready, updated, available, selector, old],
                true,
            )
        }
        "jobs" => {
            let wanted = object
                .pointer("/spec/completions")
                .and_then(Value::as_i64)
                .unwrap_or(1);
            let done = object
                .pointer("/status/succeeded")
                .and_then(Value::as_i64)
                .unwrap_or(0);
            let status = if done >= wanted { "Complete" } else { "Running" };
            let completions = json!(format!("{done}/{wanted}"));
            workload(object, [name, json!(status), completions, json!(""), old], true)
        }
        "cronjobs" => cron_job(object, name, old),
        "nodes" => node(object, name, old),
        "events" => event(object, now),
        "leases" => vec![name, json!(text(object, "/spec/holderIdentity")), old],
        "roles" | "clusterroles" | "customresourcedefinitions" => vec![name, json!(created)],
        "rolebindings" | "clusterrolebindings" => binding(object, name, old),
        _ => vec![name, old],
    }
}

fn size(object: &Value, pointer: &str) -> usize {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

fn pod(object: &Value, name: Value, old: Value) -> Row {
    let total = items(object, "/spec/containers").count();
    let statuses = || items(object, "/status/containerStatuses");
    let ready = statuses()
        .filter(|status| status.get("ready").and_then(Value::as_bool) == Some(true))
        .count();
    let restarts: i64 = statuses()
        .filter_map(|status| status.get("restartCount").and_then(Value::as_i64))
        .sum();
    let waiting =
        statuses().find_map(|status| status.pointer("/state/waiting/reason").and_then(Value::as_str));
    let phase = if object.pointer("/metadata/deletionTimestamp").is_some() {
        "Terminating"
    } else {
        match (text(object, "/status/reason"), waiting) {
            ("", Some(waiting)) => waiting,
            ("", None) => text(object, "/status/phase"),
            (reason, _) => reason,
        }
    };
    vec![
        name,
        json!(format!("{ready}/{total}")),
        json!(phase),
        json!(restarts.to_string()),
        old,
        or_none(text(object, "/status/podIP")),
        or_none(text(object, "/spec/nodeName")),
        json!("<none>"),
        json!("<none>"),
    ]
}

fn service(object: &Value, name: Value, old: Value) -> Row {
    let ports: Vec<String> = items(object, "/spec/ports")
        .map(|port| {
            let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
            match port.get("nodePort").and_then(Value::as_i64) {
                Some(node) => format!("{number}:{node}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    vec![
        name,
        json!(text(object, "/spec/type")),
        or_none(text(object, "/spec/clusterIP")),
        json!("<none>"),
        or_none(&ports.join(",")),
        old,
        or_none(&pairs(object.pointer("/spec/selector"))),
    ]
}

fn pairs(value: Option<&Value>) -> String {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<String> = entries
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

fn desired(object: &Value) -> i64 {
    object
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(0)
}

fn count(object: &Value, field: &str) -> Value {
    json!(
        object
            .pointer(&format!("/status/{field}"))
            .and_then(Value::as_i64)
            .unwrap_or(0)
    )
}

fn ratio(object: &Value) -> Value {
    let ready = object
        .pointer("/status/readyReplicas")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    json!(format!("{ready}/{}", desired(object)))
}

fn workload<const N: usize>(object: &Value, narrow: [Value; N], selector: bool) -> Row {
    let list = |field: &str| {
        let found: Vec<&str> = items(object, "/spec/template/spec/containers")
            .filter_map(|container| container.get(field).and_then(Value::as_str))
            .collect();
        json!(found.join(","))
    };
    let mut out = Vec::from(narrow);
    out.extend([list("name"), list("image")]);
    if selector {
        out.push(or_none(&pairs(object.pointer("/spec/selector/matchLabels"))));
    }
    out
}

fn cron_job(object: &Value, name: Value, old: Value) -> Row {
    let suspended = object.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
    let template = json!({"spec": {"template": object.pointer("/spec/jobTemplate/spec/template")}});
    let narrow = [
        name,
        json!(text(object, "/spec/schedule")),
        or_none(text(object, "/spec/timeZone")),
        json!(if suspended { "True" } else { "False" }),
        json!(items(object, "/status/active").count()),
        json!("<none>"),
        old,
    ];
    workload(&template, narrow, true)
}

fn node(object: &Value, name: Value, old: Value) -> Row {
    const ROLE: &str = "node-role.kubernetes.io/";
    let ready = items(object, "/status/conditions")
        .any(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True");
    let mut status = if ready {
        "Ready".to_owned()
    } else {
        "NotReady".to_owned()
    };
    if object.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let roles: Vec<&str> = labels.filter_map(|(key, _)| key.strip_prefix(ROLE)).collect();
    let address = items(object, "/status/addresses")
        .find(|address| text(address, "/type") == "InternalIP")
        .map_or("", |address| text(address, "/address"));
    let info = |field: &str| json!(text(object, &format!("/status/nodeInfo/{field}")));
    vec![
        name,
        json!(status),
        or_none(&roles.join(",")),
        old,
        info("kubeletVersion"),
        or_none(address),
        json!("<none>"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn event(object: &Value, now: Timestamp) -> Row {
    let first = text(object, "/firstTimestamp");
    let last = match text(object, "/lastTimestamp") {
        "" => text(object, "/eventTime"),
        last => last,
    };
    let target = format!(
        "{}/{}",
        text(object, "/involvedObject/kind").to_ascii_lowercase(),
        text(object, "/involvedObject/name")
    );
    vec![
        json!(age(last, now)),
        json!(text(object, "/type")),
        json!(text(object, "/reason")),
        json!(target),
        json!(text(object, "/message").trim()),
        json!(text(object, "/involvedObject/fieldPath")),
        json!(text(object, "/source/component")),
        json!(age(first, now)),
        json!(object.get("count").and_then(Value::as_i64).unwrap_or(1)),
        json!(text(object, "/metadata/name")),
    ]
}

fn binding(object: &Value, name: Value, old: Value) -> Row {
    let role = format!(
        "{}/{}",
        text(object, "/roleRef/kind"),
        text(object, "/roleRef/name")
    );
    let subjects = |kind: &str| {
        let found: Vec<String> = items(object, "/subjects")
            .filter(|subject| text(subject, "/kind") == kind)
            .map(|subject| match text(subject, "/namespace") {
                "" => text(subject, "/name").to_owned(),
                namespace => format!("{namespace}/{}", text(subject, "/name")),
            })
            .collect();
        json!(found.join(", "))
    };
    vec![
        name,
        json!(role),
        old,
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

/// The value at a simple JSON path such as `.spec.size` or `.status.conditions[0].type`.
fn custom_cell(object: &Value, path: &str, kind: &str, now: Timestamp) -> Value {
    let pointer = path
        .replace('[', ".")
        .replace([']', '\'', '"'], "")
        .replace('.', "/");
    match object.pointer(&pointer) {
        None => Value::Null,
        Some(value) if kind == "date" => json!(age(value.as_str().unwrap_or_default(), now)),
        Some(value @ (Value::Array(_) | Value::Object(_))) => json!(value.to_string()),
        Some(value) => value.clone(),
    }
}
