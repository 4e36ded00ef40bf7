//! A machine configuration of Talos, or a patch of one.

use super::server::{self, below};
use super::{Code, Node, Report, Seen, Shift, kubeconfig};
use crate::setup::document::{self, Value};
use crate::setup::records_responses;

/// The user that Talos runs the API server as reads what everybody may read.
const READ_BY_OTHERS: u32 = 0o004;

pub(super) fn look(
    file: &str,
    document: &Node,
    documents: &[Node],
    now: i64,
    seen: &mut Seen,
    report: &mut Report,
) {
    match document.text_of("kind").as_deref() {
        Some("KubeAPIServerConfig") => {
            seen.servers.push((
                report.file,
                Shift::default(),
                server::of_talos(document.at, document),
            ));
            return;
        }
        Some("KubeAuditPolicyConfig") => {
            if let Some(policy) = document.get("configuration") {
                policy_of(policy, seen);
            }
            return;
        }
        Some(_) => return,
        None => {}
    }
    let api_server = document
        .get("cluster")
        .and_then(|cluster| cluster.member("apiServer"));
    let mut read_by_server = Vec::new();
    if let Some((key, value)) = api_server {
        if documents
            .iter()
            .any(|other| other.text_of("kind").as_deref() == Some("KubeAPIServerConfig"))
        {
            report.add(
                Code::TwoTalosForms,
                key.at,
                "cluster.apiServer stands beside a KubeAPIServerConfig".to_owned(),
                "keep one: cluster.apiServer can mount a webhook's kubeconfig, KubeAPIServerConfig cannot",
            );
        }
        if let Some(policy) = value.get("auditPolicy") {
            policy_of(policy, seen);
        }
        let server = server::of_talos(key.at, value);
        // Where the webhook's kubeconfig is on the node, and whatever lies beside it.
        if let Some(flag) = server.flag("audit-webhook-config-file")
            && let Some(mount) = server.mount_of(&flag.value)
        {
            read_by_server.extend(mount.host.clone());
        }
        seen.servers.push((report.file, Shift::default(), server));
    }
    let files = document.at_path(&["machine", "files"]).map(Node::items);
    for entry in files.unwrap_or_default() {
        machine_file(file, entry, &read_by_server, now, seen, report);
    }
}

fn machine_file(
    file: &str,
    entry: &Node,
    read_by_server: &[String],
    now: i64,
    seen: &mut Seen,
    report: &mut Report,
) {
    let Some((_, path)) = entry.member("path") else {
        return;
    };
    let path_text = path.text().unwrap_or_default();
    let op = entry.text_of("op").unwrap_or_else(|| "create".to_owned());
    if op == "create" && below(&path_text, "/var").is_none() {
        report.add(
            Code::OutsideVar,
            path.at,
            format!("machine.files cannot create `{path_text}`"),
            "put it below /var, such as /var/kaudit, and mount that by extraVolumes",
        );
    }
    if !read_by_server
        .iter()
        .any(|folder| below(&path_text, folder).is_some())
    {
        return;
    }
    if let Some((_, permissions)) = entry.member("permissions")
        && let Some(mode) = mode_of(permissions)
        && mode & READ_BY_OTHERS == 0
    {
        report.add(
            Code::FileMode,
            permissions.at,
            format!("`{path_text}` has mode {mode:04o}"),
            "write `permissions: 0o644`",
        );
    }
    let Some((_, content)) = entry.member("content") else {
        return;
    };
    let Some(text) = content.text() else { return };
    if !text.contains("clusters:") {
        return;
    }
    report.shift = Shift::of(file, content);
    match document::read(&text) {
        Ok(documents) => {
            for inner in &documents {
                kubeconfig::check(inner, now, seen, report);
            }
        }
        Err(error) => report.add(
            Code::Unreadable,
            error.at,
            format!("the content of `{path_text}` is no YAML: {}", error.message),
            "indent its lines alike below `content: |`",
        ),
    }
    report.shift = Shift::default();
}

/// An octal mode: a number that YAML has read already, or its text.
fn mode_of(node: &Node) -> Option<u32> {
    match &node.value {
        Value::Number(text) => text.parse().ok(),
        Value::String(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    }
}

/// The policy that is a value here, judged as the file it becomes.
fn policy_of(node: &Node, seen: &mut Seen) {
    let text = as_json(node).to_string();
    if let Ok((policy, _)) = kaudit_policy::Policy::parse(text.as_bytes()) {
        seen.records_responses =
            Some(seen.records_responses.unwrap_or_default() || records_responses(&policy));
    }
}

fn as_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
        Value::String(text) => text.clone().into(),
        Value::List(items) => items.iter().map(as_json).collect(),
        Value::Map(members) => members
            .iter()
            .filter_map(|(key, value)| Some((key.text()?, as_json(value))))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
