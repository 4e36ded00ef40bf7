//! An API server as a file configures it: flags, and what it can see of the node.

use super::{Code, Report, Seen};
use crate::setup::document::{self, Node, Position, Shift};

/// What a file says about an API server.
#[derive(Clone, Debug, Default)]
pub(super) struct ApiServer {
    /// Where it is configured.
    pub(super) at: Position,
    pub(super) flags: Vec<Flag>,
    pub(super) mounts: Vec<Mount>,
    pub(super) sight: Sight,
    /// The distribution gives a policy if none is configured.
    pub(super) has_own_policy: bool,
    /// The distribution gives log and rotation if none are configured.
    pub(super) has_own_log: bool,
    /// What a kind node gets from the machine below it: `None` where there is no such thing.
    pub(super) node_mounts: Option<Vec<String>>,
}

/// A flag without its dashes.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) at: Position,
}

/// Which files of the node the API server sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sight {
    /// What is mounted.
    #[default]
    Mounts,
    /// All of them: it is a process of the node.
    Node,
    /// What flags name, and the mounts.
    FlagsAndMounts,
}

/// A folder or file of the node in the pod.
#[derive(Clone, Debug)]
pub(super) struct Mount {
    /// In the pod.
    pub(super) path: String,
    /// On the node; `None` for volumes of another kind than hostPath.
    pub(super) host: Option<String>,
    /// hostPath's type; `None` where it is another's business.
    pub(super) host_type: Option<String>,
    pub(super) is_read_only: bool,
    pub(super) at: Position,
}

impl Mount {
    fn own(path: &str, is_read_only: bool) -> Self {
        Self {
            path: path.to_owned(),
            host: None,
            host_type: None,
            is_read_only,
            at: Position::default(),
        }
    }

    /// The node's path of the pod's `path`, where that is below this mount.
    pub(super) fn on_node(&self, path: &str) -> Option<String> {
        let rest = below(path, &self.path)?;
        Some(format!("{}{rest}", self.host.as_deref()?.trim_end_matches('/')))
    }
}

/// What follows `folder` in `path`, if it is that folder or below it.
pub(super) fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

impl ApiServer {
    /// The last value of a flag, which is the one that counts.
    pub(super) fn flag(&self, name: &str) -> Option<&Flag> {
        self.flags.iter().rev().find(|flag| flag.name == name)
    }

    /// The mount that shows `path`.
    pub(super) fn mount_of(&self, path: &str) -> Option<&Mount> {
        self.mounts
            .iter()
            .filter(|mount| below(path, &mount.path).is_some())
            .max_by_key(|mount| mount.path.len())
    }
}

/// A name as pflag takes it: underscores are dashes.
fn flag_name(text: &str) -> String {
    text.trim_start_matches('-').replace('_', "-")
}

/// `name=value`, with or without dashes.
fn flag(text: &str, at: Position) -> Flag {
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    Flag {
        name: flag_name(name),
        value: value.to_owned(),
        at,
    }
}

/// Reads the manifest of a static pod; false if it runs something else.
pub(super) fn of_pod(document: &Node, seen: &mut Seen, report: &mut Report) -> bool {
    let Some(spec) = document.get("spec") else {
        return false;
    };
    let containers = spec.get("containers").map(Node::items).unwrap_or_default();
    let words = |container: &Node| -> Vec<(String, Position)> {
        ["command", "args"]
            .iter()
            .filter_map(|key| container.get(key))
            .flat_map(Node::items)
            .filter_map(|word| Some((word.text()?, word.at)))
            .collect()
    };
    let Some(container) = containers.iter().find(|container| {
        container.text_of("name").as_deref() == Some("kube-apiserver")
            || words(container)
                .iter()
                .any(|(word, _)| word.rsplit('/').next() == Some("kube-apiserver"))
    }) else {
        return false;
    };
    let mut server = ApiServer {
        at: container.at,
        ..ApiServer::default()
    };
    let words = words(container);
    let mut rest = words.iter().peekable();
    while let Some((word, at)) = rest.next() {
        if !word.starts_with("--") {
            continue;
        }
        let mut flag = flag(word, *at);
        // `--flag value`, which a bool flag does not take.
        let takes_next = !word.contains('=')
            && !crate::setup::flags::ALL
                .iter()
                .any(|(name, kind)| *name == flag.name && *kind == crate::setup::flags::Kind::Bool);
        if takes_next && let Some((value, _)) = rest.next_if(|(next, _)| !next.starts_with("--")) {
            flag.value.clone_from(value);
        }
        server.flags.push(flag);
    }
    let volumes = spec.get("volumes").map(Node::items).unwrap_or_default();
    for mount in container.get("volumeMounts").map(Node::items).unwrap_or_default() {
        let (Some(name), Some(path)) = (mount.text_of("name"), mount.text_of("mountPath")) else {
            continue;
        };
        let volume = volumes
            .iter()
            .find(|volume| volume.text_of("name").as_deref() == Some(name.as_str()));
        if volume.is_none() {
            report.add(
                Code::DanglingMount,
                mount.at,
                format!("the volumeMount `{name}` has no volume of that name"),
                format!("add `- name: {name}` with its hostPath to the pod's `volumes`"),
            );
        }
        let host_path = volume.and_then(|volume| volume.get("hostPath"));
        server.mounts.push(Mount {
            path,
            host: host_path.and_then(|host| host.text_of("path")),
            host_type: host_path.map(|host| host.text_of("type").unwrap_or_default()),
            is_read_only: mount.is_true("readOnly"),
            at: mount.at,
        });
    }
    seen.servers.push((report.file, report.shift, server));
    true
}

/// What kubeadm mounts by itself.
///
/// Source: k8s.io/kubernetes cmd/kubeadm/app/phases/controlplane/volumes.go.
fn kubeadm_mounts() -> Vec<Mount> {
    [
        "/etc/kubernetes/pki",
        "/etc/ssl/certs",
        "/etc/ca-certificates",
        "/etc/pki",
        "/etc/pki/ca-trust",
        "/etc/pki/tls/certs",
        "/usr/share/ca-certificates",
        "/usr/local/share/ca-certificates",
    ]
    .iter()
    .map(|path| Mount::own(path, true))
    .collect()
}

/// Reads a ClusterConfiguration; positions are those of the text that `shift` belongs to.
pub(super) fn of_kubeadm(
    document: &Node,
    shift: Shift,
    node_mounts: Option<&[String]>,
    seen: &mut Seen,
    report: &mut Report,
) {
    let mut server = ApiServer {
        at: document.at,
        mounts: kubeadm_mounts(),
        node_mounts: node_mounts.map(<[String]>::to_vec),
        ..ApiServer::default()
    };
    report.shift = shift;
    let version = document.text_of("apiVersion").unwrap_or_default();
    let version = version.rsplit('/').next().unwrap_or_default();
    if let Some((_, api_server)) = document.member("apiServer") {
        server.at = api_server.at;
        if let Some((key, arguments)) = api_server.member("extraArgs") {
            old_form(version, key, arguments, report);
            for (name, value) in arguments.members() {
                server.flags.extend(named_flag(name.text(), value, name.at));
            }
            for item in arguments.items() {
                if let Some((_, value)) = item.member("value") {
                    server
                        .flags
                        .extend(named_flag(item.text_of("name"), value, value.at));
                }
            }
        }
        for volume in api_server
            .get("extraVolumes")
            .map(Node::items)
            .unwrap_or_default()
        {
            let Some(path) = volume.text_of("mountPath") else {
                continue;
            };
            server.mounts.push(Mount {
                path,
                host: volume.text_of("hostPath"),
                host_type: Some(volume.text_of("pathType").unwrap_or_default()),
                is_read_only: volume.is_true("readOnly"),
                at: volume.at,
            });
        }
    }
    seen.servers.push((report.file, shift, server));
}

fn named_flag(name: Option<String>, value: &Node, at: Position) -> Option<Flag> {
    Some(Flag {
        name: flag_name(&name?),
        value: value.text().unwrap_or_default(),
        at,
    })
}

fn old_form(version: &str, key: &Node, arguments: &Node, report: &mut Report) {
    let (message, fix) = match version {
        "v1beta4" if arguments.is_map() => (
            "v1beta4 takes `extraArgs` as a list of names and values, this is a map",
            "write `- name: FLAG` and `value: \"VALUE\"` for each, or let `kubeadm config migrate` do it",
        ),
        "v1beta3" if arguments.is_list() => (
            "v1beta3 takes `extraArgs` as a map of flags and values, this is a list",
            "write `apiVersion: kubeadm.k8s.io/v1beta4`, or each flag as `FLAG: \"VALUE\"`",
        ),
        "v1alpha1" | "v1alpha2" | "v1alpha3" | "v1beta1" | "v1beta2" => (
            "this version is no longer read by kubeadm",
            "let `kubeadm config migrate --old-config FILE --new-config FILE` of an older kubeadm bring it to v1beta4",
        ),
        _ => return,
    };
    report.add(Code::OldKubeadmForm, key.at, message.to_owned(), fix);
}

/// Reads a kind cluster: its patches, and what its nodes get from the machine.
pub(super) fn of_kind(file: &str, document: &Node, seen: &mut Seen, report: &mut Report) {
    let nodes = document.get("nodes").map(Node::items).unwrap_or_default();
    let is_control_plane = |node: &&Node| node.text_of("role").is_none_or(|role| role == "control-plane");
    let mounts: Vec<String> = nodes
        .iter()
        .filter(is_control_plane)
        .filter_map(|node| node.get("extraMounts"))
        .flat_map(Node::items)
        .filter_map(|mount| mount.text_of("containerPath"))
        .collect();
    let before = seen.servers.len();
    let patches = std::iter::once(document)
        .chain(nodes.iter().filter(is_control_plane))
        .filter_map(|owner| owner.get("kubeadmConfigPatches"))
        .flat_map(Node::items);
    for patch in patches {
        let Some(text) = patch.text() else { continue };
        let shift = Shift::of(file, patch);
        let documents = match document::read(&text) {
            Ok(documents) => documents,
            Err(error) => {
                report.shift = shift;
                report.add(
                    Code::Unreadable,
                    error.at,
                    format!("the patch is no YAML: {}", error.message),
                    "indent the patch's lines alike below `- |`",
                );
                report.shift = Shift::default();
                continue;
            }
        };
        for inner in &documents {
            if inner.text_of("kind").as_deref() == Some("ClusterConfiguration") {
                of_kubeadm(inner, shift, Some(&mounts), seen, report);
            }
        }
    }
    report.shift = Shift::default();
    if seen.servers.len() == before {
        seen.servers.push((
            report.file,
            Shift::default(),
            ApiServer {
                at: document.at,
                mounts: kubeadm_mounts(),
                node_mounts: Some(mounts),
                ..ApiServer::default()
            },
        ));
    }
}

/// Keys by which a configuration of k3s or RKE2 is known.
const RANCHER_KEYS: [&str; 21] = [
    "kube-apiserver-arg",
    "kube-apiserver-arg+",
    "kube-apiserver-extra-mount",
    "audit-policy-file",
    "write-kubeconfig-mode",
    "tls-san",
    "cluster-init",
    "token",
    "server",
    "node-label",
    "disable",
    "cni",
    "profile",
    "secrets-encryption",
    "agent-token",
    "data-dir",
    "datastore-endpoint",
    "flannel-backend",
    "kubelet-arg",
    "node-ip",
    "node-name",
];

pub(super) fn is_rancher(document: &Node) -> bool {
    RANCHER_KEYS.iter().any(|key| document.get(key).is_some())
}

/// Keys that RKE2 has and k3s has not.
const RKE2_KEYS: [&str; 4] = [
    "audit-policy-file",
    "kube-apiserver-extra-mount",
    "cni",
    "profile",
];

/// Reads a configuration of k3s or RKE2.
pub(super) fn of_rancher(document: &Node, seen: &mut Seen, report: &Report) {
    let mut server = ApiServer {
        at: document.at,
        ..ApiServer::default()
    };
    let is_rke2 = RKE2_KEYS.iter().any(|key| document.get(key).is_some());
    server.sight = if is_rke2 {
        Sight::FlagsAndMounts
    } else {
        Sight::Node
    };
    if let Some(policy) = document.get("audit-policy-file") {
        server.has_own_log = true;
        server.flags.extend(named_flag(
            Some("audit-policy-file".to_owned()),
            policy,
            policy.at,
        ));
    }
    for key in ["kube-apiserver-arg", "kube-apiserver-arg+"] {
        let Some(arguments) = document.get(key) else {
            continue;
        };
        let alone = arguments.text().map(|text| flag(&text, arguments.at));
        let listed = arguments
            .items()
            .iter()
            .filter_map(|item| Some(flag(&item.text()?, item.at)));
        server.flags.extend(alone.into_iter().chain(listed));
    }
    for mount in document
        .get("kube-apiserver-extra-mount")
        .map(Node::items)
        .unwrap_or_default()
    {
        let Some(text) = mount.text() else { continue };
        let mut parts = text.split(':');
        if let (Some(host), Some(path)) = (parts.next(), parts.next()) {
            server.mounts.push(Mount {
                path: path.to_owned(),
                host: Some(host.to_owned()),
                host_type: None,
                is_read_only: parts.next() == Some("ro"),
                at: mount.at,
            });
        }
    }
    seen.servers.push((report.file, report.shift, server));
}

/// What Talos mounts by itself, and that it always has a policy and a log.
///
/// Source: siderolabs/talos internal/app/machined/pkg/controllers/k8s/control_plane_static_pod.go.
pub(super) fn of_talos(at: Position, api_server: &Node) -> ApiServer {
    let mut server = ApiServer {
        at,
        mounts: vec![
            Mount::own("/system/config/kubernetes/kube-apiserver", true),
            Mount::own("/system/secrets/kubernetes/kube-apiserver", true),
            Mount::own("/var/log/audit/kube", false),
        ],
        has_own_policy: true,
        has_own_log: true,
        ..ApiServer::default()
    };
    for (name, value) in api_server.get("extraArgs").map(Node::members).unwrap_or_default() {
        // Since 1.12 a flag may have a list of values.
        let last = value.items().last().unwrap_or(value);
        server.flags.extend(named_flag(name.text(), last, name.at));
    }
    for volume in api_server
        .get("extraVolumes")
        .map(Node::items)
        .unwrap_or_default()
    {
        let Some(path) = volume.text_of("mountPath") else {
            continue;
        };
        server.mounts.push(Mount {
            path,
            host: volume.text_of("hostPath"),
            host_type: None,
            is_read_only: volume.is_true("readonly"),
            at: volume.at,
        });
    }
    server
}
