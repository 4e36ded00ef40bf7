//! The rules of the standards, each from the release that brought it.
//!
//! Source: k8s.io/pod-security-admission policy/check_*.go.

use std::collections::BTreeSet;

use kaudit_event::go_quoted;
use serde_json::Value;

use super::{Level, Standard, Version};
use crate::object::{items, text};

/// A rule that a pod breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) rule: &'static str,
    /// By what.
    pub(super) detail: String,
}

/// One rule as a function: how a pod breaks it, if it does.
type Check = fn(&Pod<'_>) -> Option<Broken>;

/// A pod or template, and the release whose rules it is held against.
struct Pod<'a> {
    object: &'a Value,
    version: Version,
}

/// The rules that a pod breaks, in the order of their identifiers, those of the baseline first.
pub(super) fn broken(standard: Standard, object: &Value) -> Vec<Broken> {
    let version = standard.version;
    let from = |minor: u32| version >= Version::Minor(minor);
    let restricted = standard.level == Level::Restricted;
    let baseline: [(bool, Check); 12] = [
        (true, app_armor),
        (!(restricted && from(22)), capabilities_baseline),
        (true, host_namespaces),
        (!restricted, host_path_volumes),
        (true, host_ports),
        (from(34), probe_hosts),
        (true, privileged),
        (!(restricted && from(35)), proc_mount_baseline),
        (true, se_linux),
        (!(restricted && from(19)), seccomp_baseline),
        (true, sysctls),
        (true, windows_host_process),
    ];
    let strict: [(bool, Check); 7] = [
        (from(8), privilege_escalation),
        (from(22), capabilities_restricted),
        (from(35), proc_mount),
        (true, restricted_volumes),
        (true, run_as_non_root),
        (from(23), run_as_user),
        (from(19), seccomp_restricted),
    ];
    let pod = Pod { object, version };
    let baseline = baseline.iter().filter(|_| standard.level >= Level::Baseline);
    let strict = strict.iter().filter(|_| restricted);
    baseline
        .chain(strict)
        .filter(|(applies, _)| *applies)
        .filter_map(|(_, check)| check(&pod))
        .collect()
}

impl<'a> Pod<'a> {
    fn spec(&self, pointer: &str) -> Option<&'a Value> {
        let object: &'a Value = self.object;
        object
            .pointer("/spec")?
            .pointer(pointer)
            .filter(|value| !value.is_null())
    }

    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let object: &'a Value = self.object;
        [
            "/spec/initContainers",
            "/spec/containers",
            "/spec/ephemeralContainers",
        ]
        .into_iter()
        .flat_map(move |list| items(object, list))
    }

    /// The names of containers for which something holds.
    fn named(&self, mut is_bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|container| is_bad(container))
            .map(|container| text(container, "/name"))
            .collect()
    }

    fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let object: &'a Value = self.object;
        object
            .pointer("/metadata/annotations")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// Whether the pod has a user namespace of its own.
    fn has_own_users(&self) -> bool {
        self.spec("/hostUsers") == Some(&Value::Bool(false))
    }

    fn is_windows(&self) -> bool {
        self.version >= Version::Minor(25) && self.spec("/os/name").and_then(Value::as_str) == Some("windows")
    }

    fn is_at_least(&self, minor: u32) -> bool {
        self.version >= Version::Minor(minor)
    }
}

fn field<'a>(container: &'a Value, pointer: &str) -> Option<&'a Value> {
    container.pointer(pointer).filter(|value| !value.is_null())
}

fn is_true(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool) == Some(true)
}

fn strings<'a>(object: &'a Value, pointer: &str) -> Vec<&'a str> {
    items(object, pointer).filter_map(Value::as_str).collect()
}

/// `"a", "b"`.
fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let names: Vec<String> = names
        .into_iter()
        .map(|name| format!("\"{}\"", name.as_ref()))
        .collect();
    names.join(", ")
}

fn plural<'a>(one: &'a str, several: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { several }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!(
        "{} {}",
        plural("container", "containers", names.len()),
        quoted(names)
    )
}

/// `pod and container "a"`: who sets something; `None` if nobody does.
fn setters(by_pod: bool, names: &[&str]) -> Option<String> {
    let mut out = Vec::new();
    if by_pod {
        out.push("pod".to_owned());
    }
    if !names.is_empty() {
        out.push(containers(names));
    }
    (!out.is_empty()).then(|| out.join(" and "))
}

fn breaks(rule: &'static str, detail: String) -> Option<Broken> {
    Some(Broken { rule, detail })
}

fn app_armor(pod: &Pod<'_>) -> Option<Broken> {
    const KEY: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = BTreeSet::new();
    let mut is_bad = |profile: Option<&Value>| {
        let Some(profile) = profile else { return false };
        let kind = text(profile, "/type");
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    };
    let by_pod = is_bad(pod.spec("/securityContext/appArmorProfile"));
    let names = pod.named(|container| is_bad(field(container, "/securityContext/appArmorProfile")));
    let mut annotations: Vec<String> = pod
        .annotations()
        .filter(|(key, value)| {
            let good = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(KEY) && !good
        })
        .map(|(key, value)| format!("{key}={}", go_quoted(value.as_bytes())))
        .collect();
    annotations.sort_unstable();
    let mut who: Vec<String> = setters(by_pod, &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    breaks(
        plural(
            "forbidden AppArmor profile",
            "forbidden AppArmor profiles",
            values.len(),
        ),
        format!(
            "{} must not set AppArmor profile type to {}",
            who.join(" and "),
            quoted(&values)
        ),
    )
}

const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Containers that add capabilities besides the allowed ones, and what they add.
fn adding<'a>(pod: &Pod<'a>, allowed: &[&str]) -> Option<String> {
    let mut added = BTreeSet::new();
    let names = pod.named(|container| {
        let bad: Vec<&str> = strings(container, "/securityContext/capabilities/add")
            .into_iter()
            .filter(|capability| !allowed.contains(capability))
            .collect();
        added.extend(bad.iter().copied());
        !bad.is_empty()
    });
    (!names.is_empty()).then(|| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&names),
            quoted(&added)
        )
    })
}

fn capabilities_baseline(pod: &Pod<'_>) -> Option<Broken> {
    breaks("non-default capabilities", adding(pod, DEFAULT_CAPABILITIES)?)
}

fn capabilities_restricted(pod: &Pod<'_>) -> Option<Broken> {
    if pod.is_windows() {
        return None;
    }
    let keeping =
        pod.named(|container| !strings(container, "/securityContext/capabilities/drop").contains(&"ALL"));
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            containers(&keeping)
        ));
    }
    details.extend(adding(pod, &["NET_BIND_SERVICE"]));
    if details.is_empty() {
        return None;
    }
    breaks("unrestricted capabilities", details.join("; "))
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Broken> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|name| is_true(pod.spec(&format!("/{name}"))))
        .map(|name| format!("{name}=true"))
        .collect();
    if set.is_empty() {
        return None;
    }
    breaks("host namespaces", set.join(", "))
}

fn host_path_volumes(pod: &Pod<'_>) -> Option<Broken> {
    let names: Vec<&str> = items(pod.object, "/spec/volumes")
        .filter(|volume| field(volume, "/hostPath").is_some())
        .map(|volume| text(volume, "/name"))
        .collect();
    if names.is_empty() {
        return None;
    }
    breaks(
        "hostPath volumes",
        format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)),
    )
}

fn host_ports(pod: &Pod<'_>) -> Option<Broken> {
    let mut ports = BTreeSet::new();
    let names = pod.named(|container| {
        let bad: Vec<String> = items(container, "/ports")
            .filter_map(|port| port.get("hostPort").and_then(Value::as_i64))
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect();
        let is_bad = !bad.is_empty();
        ports.extend(bad);
        is_bad
    });
    if names.is_empty() {
        return None;
    }
    let (uses, noun) = (
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", ports.len()),
    );
    let ports: Vec<String> = ports.into_iter().collect();
    breaks(
        "hostPort",
        format!("{} {uses} {noun} {}", containers(&names), ports.join(", ")),
    )
}

fn probe_hosts(pod: &Pod<'_>) -> Option<Broken> {
    const HANDLERS: &[&str] = &[
        "/livenessProbe",
        "/readinessProbe",
        "/startupProbe",
        "/lifecycle/postStart",
        "/lifecycle/preStop",
    ];
    let mut hosts = BTreeSet::new();
    let names = pod.named(|container| {
        let found: Vec<&str> = HANDLERS
            .iter()
            .filter_map(|handler| container.pointer(handler))
            .flat_map(|handler| [text(handler, "/httpGet/host"), text(handler, "/tcpSocket/host")])
            .filter(|host| !host.is_empty())
            .collect();
        hosts.extend(found.iter().copied());
        !found.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    breaks(
        "probe or lifecycle host",
        format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
            quoted(&hosts)
        ),
    )
}

fn privileged(pod: &Pod<'_>) -> Option<Broken> {
    let names = pod.named(|container| is_true(field(container, "/securityContext/privileged")));
    if names.is_empty() {
        return None;
    }
    breaks(
        "privileged",
        format!(
            "{} must not set securityContext.privileged=true",
            containers(&names)
        ),
    )
}

fn proc_mount_baseline(pod: &Pod<'_>) -> Option<Broken> {
    if pod.is_at_least(35) && pod.has_own_users() {
        return None;
    }
    proc_mount(pod)
}

fn proc_mount(pod: &Pod<'_>) -> Option<Broken> {
    let mut kinds = BTreeSet::new();
    let names = pod.named(|container| {
        let Some(kind) = field(container, "/securityContext/procMount").and_then(Value::as_str) else {
            return false;
        };
        let is_bad = kind != "Default";
        if is_bad {
            kinds.insert(kind);
        }
        is_bad
    });
    if names.is_empty() {
        return None;
    }
    breaks(
        "procMount",
        format!(
            "{} must not set securityContext.procMount to {}",
            containers(&names),
            quoted(&kinds)
        ),
    )
}

fn se_linux(pod: &Pod<'_>) -> Option<Broken> {
    let (mut types, mut sets_user, mut sets_role) = (BTreeSet::new(), false, false);
    let has_engine = pod.is_at_least(31);
    let mut is_bad = |options: Option<&Value>| {
        let Some(options) = options else { return false };
        let kind = text(options, "/type");
        let good = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (has_engine && kind == "container_engine_t");
        if !good {
            types.insert(kind.to_owned());
        }
        let user = !text(options, "/user").is_empty();
        let role = !text(options, "/role").is_empty();
        sets_user |= user;
        sets_role |= role;
        !good || user || role
    };
    let by_pod = is_bad(pod.spec("/securityContext/seLinuxOptions"));
    let names = pod.named(|container| is_bad(field(container, "/securityContext/seLinuxOptions")));
    let who = setters(by_pod, &names)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!(
            "{} {}",
            plural("type", "types", types.len()),
            quoted(&types)
        ));
    }
    if sets_user {
        what.push("user may not be set".to_owned());
    }
    if sets_role {
        what.push("role may not be set".to_owned());
    }
    breaks(
        "seLinuxOptions",
        format!(
            "{who} set forbidden securityContext.seLinuxOptions: {}",
            what.join("; ")
        ),
    )
}

const SECCOMP: &str = "seccompProfile";
const SECCOMP_FIELD: &str = "/securityContext/seccompProfile";

fn is_good_seccomp(profile: &Value) -> bool {
    matches!(text(profile, "/type"), "RuntimeDefault" | "Localhost")
}

/// Who sets a profile that is not allowed.
fn forbidden_seccomp(pod: &Pod<'_>) -> Option<Broken> {
    let mut kinds = BTreeSet::new();
    let mut is_bad = |profile: Option<&Value>| {
        let bad = profile.filter(|profile| !is_good_seccomp(profile));
        kinds.extend(bad.map(|profile| text(profile, "/type").to_owned()));
        bad.is_some()
    };
    let by_pod = is_bad(pod.spec(SECCOMP_FIELD));
    let names = pod.named(|container| is_bad(field(container, SECCOMP_FIELD)));
    let who = setters(by_pod, &names)?;
    breaks(
        SECCOMP,
        format!(
            "{who} must not set securityContext.seccompProfile.type to {}",
            quoted(&kinds)
        ),
    )
}

fn seccomp_baseline(pod: &Pod<'_>) -> Option<Broken> {
    if pod.is_at_least(19) {
        return forbidden_seccomp(pod);
    }
    const POD_KEY: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER_KEY: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let names: Vec<&str> = pod
        .containers()
        .map(|container| text(container, "/name"))
        .collect();
    let bad: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| {
            let concerns = *key == POD_KEY
                || key
                    .strip_prefix(CONTAINER_KEY)
                    .is_some_and(|name| names.contains(&name));
            let good =
                matches!(*value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            concerns && !good
        })
        .map(|(key, value)| format!("{key}={}", go_quoted(value.as_bytes())))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let noun = plural("annotation", "annotations", bad.len());
    let bad: Vec<String> = bad.into_iter().collect();
    breaks(SECCOMP, format!("forbidden {noun} {}", bad.join(", ")))
}

fn seccomp_restricted(pod: &Pod<'_>) -> Option<Broken> {
    if pod.is_windows() {
        return None;
    }
    if let Some(broken) = forbidden_seccomp(pod) {
        return Some(broken);
    }
    if pod.spec(SECCOMP_FIELD).is_some() {
        return None;
    }
    let names = pod.named(|container| field(container, SECCOMP_FIELD).is_none());
    if names.is_empty() {
        return None;
    }
    breaks(
        SECCOMP,
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&names)
        ),
    )
}

fn sysctls(pod: &Pod<'_>) -> Option<Broken> {
    let is_safe = |name: &str| match name {
        "kernel.shm_rmid_forced"
        | "net.ipv4.ip_local_port_range"
        | "net.ipv4.tcp_syncookies"
        | "net.ipv4.ping_group_range"
        | "net.ipv4.ip_unprivileged_port_start" => true,
        "net.ipv4.ip_local_reserved_ports" => pod.is_at_least(27),
        "net.ipv4.tcp_keepalive_time"
        | "net.ipv4.tcp_fin_timeout"
        | "net.ipv4.tcp_keepalive_intvl"
        | "net.ipv4.tcp_keepalive_probes" => pod.is_at_least(29),
        "net.ipv4.tcp_rmem" | "net.ipv4.tcp_wmem" => pod.is_at_least(32),
        _ => false,
    };
    let bad: Vec<&str> = items(pod.object, "/spec/securityContext/sysctls")
        .map(|sysctl| text(sysctl, "/name"))
        .filter(|name| !is_safe(name))
        .collect();
    if bad.is_empty() {
        return None;
    }
    breaks("forbidden sysctls", bad.join(", "))
}

fn windows_host_process(pod: &Pod<'_>) -> Option<Broken> {
    const FIELD: &str = "/securityContext/windowsOptions/hostProcess";
    let names = pod.named(|container| is_true(field(container, FIELD)));
    let who = setters(is_true(pod.spec(FIELD)), &names)?;
    breaks(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Broken> {
    if pod.is_windows() {
        return None;
    }
    let names = pod.named(|container| {
        field(container, "/securityContext/allowPrivilegeEscalation") != Some(&Value::Bool(false))
    });
    if names.is_empty() {
        return None;
    }
    breaks(
        "allowPrivilegeEscalation != false",
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            containers(&names)
        ),
    )
}

fn restricted_volumes(pod: &Pod<'_>) -> Option<Broken> {
    const ALLOWED: &[&str] = &[
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    const KNOWN: &[&str] = &[
        "hostPath",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "photonPersistentDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
    ];
    let mut types = BTreeSet::new();
    let mut names = Vec::new();
    for volume in items(pod.object, "/spec/volumes") {
        let has = |kind: &&&str| volume.get(**kind).is_some_and(|value| !value.is_null());
        if ALLOWED.iter().any(|kind| has(&kind)) {
            continue;
        }
        names.push(text(volume, "/name"));
        types.insert(KNOWN.iter().find(has).copied().unwrap_or("unknown"));
    }
    if names.is_empty() {
        return None;
    }
    breaks(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural("restricted volume type", "restricted volume types", types.len()),
            quoted(&types)
        ),
    )
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<Broken> {
    const RULE: &str = "runAsNonRoot != true";
    const FIELD: &str = "/securityContext/runAsNonRoot";
    if pod.is_at_least(35) && pod.has_own_users() {
        return None;
    }
    let no = Some(&Value::Bool(false));
    let names = pod.named(|container| field(container, FIELD) == no);
    if let Some(who) = setters(pod.spec(FIELD) == no, &names) {
        return breaks(
            RULE,
            format!("{who} must not set securityContext.runAsNonRoot=false"),
        );
    }
    if is_true(pod.spec(FIELD)) {
        return None;
    }
    let names = pod.named(|container| field(container, FIELD).is_none());
    if names.is_empty() {
        return None;
    }
    breaks(
        RULE,
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            containers(&names)
        ),
    )
}

fn run_as_user(pod: &Pod<'_>) -> Option<Broken> {
    const FIELD: &str = "/securityContext/runAsUser";
    if pod.is_at_least(35) && pod.has_own_users() {
        return None;
    }
    let is_root = |value: Option<&Value>| value.and_then(Value::as_i64) == Some(0);
    let names = pod.named(|container| is_root(field(container, FIELD)));
    let who = setters(is_root(pod.spec(FIELD)), &names)?;
    breaks("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
