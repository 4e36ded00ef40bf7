//! Checks of an API server's flags and of what it sees of the node.

use std::time::Duration;

use super::kubeconfig::FileReference;
use super::server::{ApiServer, Flag, Mount, Sight, below};
use super::{Code, Position, Report};
use crate::config::{go, nearest};
use crate::setup::flags::{ALL, Kind};

/// Events a second that a throttle should let through: a quarter of what the defaults do.
const MIN_EVENTS_PER_SECOND: f64 = 1000.0;
/// A request for this many events takes longer than is good.
const MAX_BATCH_EVENTS: i64 = 5000;
/// The default, which a collector counts on when it looks for events that are missing.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Bytes of an event without bodies, generously.
const MIN_EVENT_BYTES: i64 = 10_240;
/// Megabytes of rotated files: about an hour of a busy cluster.
const MIN_HORIZON_MEGABYTES: i64 = 300;

pub(super) fn check(server: &ApiServer, records_responses: Option<bool>, report: &mut Report) {
    let audit: Vec<&Flag> = server
        .flags
        .iter()
        .filter(|flag| flag.name.starts_with("audit"))
        .collect();
    for flag in &audit {
        known(flag, report);
    }
    let audit: Vec<&Flag> = audit.into_iter().filter(|flag| is_known(&flag.name)).collect();
    repeated(&audit, report);
    let has_any = server.flags.iter().any(|flag| flag.name.starts_with("audit"));
    if !has_any && !server.has_own_policy && !server.has_own_log {
        report.add(
            Code::NoAudit,
            server.at,
            "kube-apiserver has no audit flag here".to_owned(),
            "`kaudit setup DISTRIBUTION` prints what to add",
        );
        return;
    }
    let policy = server.flag("audit-policy-file");
    let log = server
        .flag("audit-log-path")
        .filter(|flag| !flag.value.is_empty());
    let webhook = server
        .flag("audit-webhook-config-file")
        .filter(|flag| !flag.value.is_empty());
    let has_log = log.is_some() || server.has_own_log;
    backends(
        server,
        policy,
        log.or(webhook),
        has_log || webhook.is_some(),
        report,
    );
    idle(&audit, has_log, webhook.is_some(), report);
    if let Some(policy) = policy {
        file(server, policy, Code::PolicyNotMounted, "the policy", report);
    }
    if let Some(webhook) = webhook {
        file(
            server,
            webhook,
            Code::WebhookNotMounted,
            "the webhook's kubeconfig",
            report,
        );
        delivery(server, webhook, records_responses, report);
    }
    if let Some(log) = log {
        log_path(server, log, report);
    }
    if has_log {
        rotation(server, log, report);
    }
}

/// A file that a kubeconfig names, for the API server that reads the kubeconfig.
pub(super) fn check_reference(server: &ApiServer, reference: &FileReference, report: &mut Report) {
    if server.sight == Sight::Node || server.flag("audit-webhook-config-file").is_none() {
        return;
    }
    if reference.path.starts_with('/') && server.mount_of(&reference.path).is_none() {
        report.add(
            Code::CredentialNotMounted,
            reference.at,
            format!("`{}` is not mounted in the API server's pod", reference.path),
            "embed it with the -data field, or mount its folder",
        );
    }
}

fn is_known(name: &str) -> bool {
    ALL.iter().any(|(known, _)| *known == name)
}

fn known(flag: &Flag, report: &mut Report) {
    let name = flag.name.as_str();
    let Some((_, kind)) = ALL.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = ALL.iter().map(|(known, _)| *known).collect();
        let fix = match nearest(name, &names) {
            Some(nearest) => format!("write `{nearest}`"),
            None => "remove it".to_owned(),
        };
        report.add(
            Code::UnknownFlag,
            flag.at,
            format!("kube-apiserver has no flag --{name}"),
            fix,
        );
        return;
    };
    if let Err(reason) = value(name, *kind, &flag.value) {
        report.add(
            Code::BadValue,
            flag.at,
            format!("--{name}: {reason}"),
            wanted(*kind),
        );
    }
}

fn value(name: &str, kind: Kind, value: &str) -> Result<(), String> {
    let one_of = |allowed: &[&str]| {
        if allowed.contains(&value) {
            Ok(())
        } else {
            Err(format!("`{value}` is none of {}", allowed.join(", ")))
        }
    };
    match kind {
        Kind::Text | Kind::Path => Ok(()),
        Kind::Int => {
            let number = go::parse_int(value)?;
            // The settings of batching and truncation have to be positive, those of rotation may be 0.
            let least = i64::from(!name.starts_with("audit-log-max") && !name.contains("throttle"));
            if number < least {
                return Err(format!("{number} is too small, the least is {least}"));
            }
            Ok(())
        }
        Kind::Bool => go::parse_bool(value).map(|_| ()),
        Kind::Duration => value.parse::<go::Duration>().map(|_| ()),
        Kind::Float => match value.parse::<f32>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("`{value}` is no number")),
        },
        Kind::Mode => one_of(&["batch", "blocking", "blocking-strict"]),
        Kind::Version => one_of(&["audit.k8s.io/v1"]),
        Kind::Format => one_of(&["json", "legacy"]),
    }
}

const fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Path => "write a path",
        Kind::Int => "write a whole number",
        Kind::Bool => "write `true` or `false`",
        Kind::Duration => "write for example `30s`",
        Kind::Float => "write a number",
        Kind::Mode => "write `batch`",
        Kind::Version => "write `audit.k8s.io/v1`, or remove the flag",
        Kind::Format => "write `json`, or remove the flag",
    }
}

fn repeated(audit: &[&Flag], report: &mut Report) {
    for (index, flag) in audit.iter().enumerate() {
        if let Some(first) = audit.iter().take(index).find(|first| first.name == flag.name) {
            let line = report.shift.apply(first.at).line;
            report.add(
                Code::RepeatedFlag,
                flag.at,
                format!(
                    "--{} is given already in line {line}, with `{}`",
                    flag.name, first.value
                ),
                "keep one of them",
            );
        }
    }
}

fn backends(
    server: &ApiServer,
    policy: Option<&Flag>,
    backend: Option<&Flag>,
    has_backend: bool,
    report: &mut Report,
) {
    let has_policy = server.has_own_policy || policy.is_some_and(|policy| !policy.value.is_empty());
    if !has_policy && let Some(backend) = backend {
        report.add(
            Code::NoPolicy,
            backend.at,
            format!("--{} without --audit-policy-file", backend.name),
            "add --audit-policy-file; `kaudit policy init` prints a policy",
        );
    }
    if !has_backend && let Some(policy) = policy {
        report.add(
            Code::NoBackend,
            policy.at,
            "a policy, and neither --audit-log-path nor --audit-webhook-config-file".to_owned(),
            "add --audit-webhook-config-file, or --audit-log-path",
        );
    }
}

fn idle(audit: &[&Flag], has_log: bool, has_webhook: bool, report: &mut Report) {
    for (is_on, prefix, switch) in [
        (has_log, "audit-log-", "audit-log-path"),
        (has_webhook, "audit-webhook-", "audit-webhook-config-file"),
    ] {
        let first = audit
            .iter()
            .find(|flag| flag.name.starts_with(prefix) && flag.name != switch);
        if !is_on && let Some(flag) = first {
            report.add(
                Code::IdleFlag,
                flag.at,
                format!("--{} without --{switch}", flag.name),
                format!("add --{switch}, or remove the flags that begin with --{prefix}"),
            );
        }
    }
}

/// A file that the API server reads at its start.
fn file(server: &ApiServer, flag: &Flag, code: Code, what: &str, report: &mut Report) {
    let path = flag.value.as_str();
    if !path.starts_with('/') {
        report.add(
            Code::RelativePath,
            flag.at,
            format!("--{}: `{path}` is relative", flag.name),
            "write the absolute path that the file has for the API server",
        );
        return;
    }
    if server.sight != Sight::Mounts {
        return;
    }
    let Some(mount) = server.mount_of(path) else {
        let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        report.add(
            code,
            flag.at,
            format!("{what} `{path}` is not mounted in the API server's pod"),
            format!("put it below a folder that is mounted, or mount `{folder}`: a volume with its hostPath, and a volumeMount"),
        );
        return;
    };
    mount_type(mount, path, what, report);
    if let (Some(node_mounts), Some(on_node)) = (&server.node_mounts, mount.on_node(path))
        && !node_mounts.iter().any(|folder| below(&on_node, folder).is_some())
    {
        report.add(
            Code::NotOnNode,
            mount.at,
            format!("no extraMounts of the control-plane node bring `{on_node}` into it"),
            format!(
                "add `- hostPath: ./FOLDER` with `containerPath: {}` to its extraMounts",
                mount.path
            ),
        );
    }
}

/// hostPath's type, for the mount of a file or of its folder.
fn mount_type(mount: &Mount, path: &str, what: &str, report: &mut Report) {
    let Some(host_type) = mount.host_type.as_deref() else {
        return;
    };
    let shown = if host_type.is_empty() {
        "no type"
    } else {
        host_type
    };
    let (is_right, wanted) = if mount.path.trim_end_matches('/') == path {
        (host_type == "File", "File")
    } else {
        // A folder that is made when it is missing holds no policy, and still says so by the file's absence.
        (!matches!(host_type, "File" | "FileOrCreate"), "Directory")
    };
    if !is_right {
        report.add(
            Code::MountType,
            mount.at,
            format!("the volume of {what} has {shown}"),
            format!("give its hostPath `type: {wanted}` (`pathType: {wanted}` in kubeadm's configuration)"),
        );
    }
}

fn log_path(server: &ApiServer, log: &Flag, report: &mut Report) {
    let path = log.value.as_str();
    if path == "-" {
        report.add(
            Code::StandardOutput,
            log.at,
            "--audit-log-path=- writes to the container's log".to_owned(),
            "write a file below a folder that is mounted read-write, such as /var/log/kubernetes/audit/audit.log",
        );
        return;
    }
    if !path.starts_with('/') {
        report.add(
            Code::RelativePath,
            log.at,
            format!("--audit-log-path: `{path}` is relative"),
            "write an absolute path",
        );
        return;
    }
    if server.sight != Sight::Mounts {
        return;
    }
    let Some(mount) = server.mount_of(path) else {
        let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        report.add(
            Code::LogNotMounted,
            log.at,
            format!("the folder of `{path}` is not mounted in the API server's pod"),
            format!("mount `{folder}` read-write, with `type: DirectoryOrCreate`"),
        );
        return;
    };
    if mount.is_read_only {
        report.add(
            Code::LogReadOnly,
            if mount.at == Position::default() {
                log.at
            } else {
                mount.at
            },
            format!("`{}` is mounted read-only, and the log is below it", mount.path),
            "mount the log's folder by itself, without readOnly",
        );
    }
    if mount.path.trim_end_matches('/') == path {
        report.add(
            Code::LogFileMounted,
            mount.at,
            format!("the log `{path}` is mounted as a file"),
            "mount its folder instead, with `type: DirectoryOrCreate`",
        );
    }
}

fn number(server: &ApiServer, name: &str) -> Option<(i64, Position)> {
    let flag = server.flag(name)?;
    Some((go::parse_int(&flag.value).ok()?, flag.at))
}

fn truth(server: &ApiServer, name: &str) -> Option<bool> {
    go::parse_bool(&server.flag(name)?.value).ok()
}

fn rotation(server: &ApiServer, log: Option<&Flag>, report: &mut Report) {
    if let Some(flag) = server
        .flag("audit-log-format")
        .filter(|flag| flag.value == "legacy")
    {
        report.add(
            Code::LegacyFormat,
            flag.at,
            "--audit-log-format=legacy".to_owned(),
            "remove it: json is the default",
        );
    }
    if let Some(flag) = server
        .flag("audit-log-mode")
        .filter(|flag| flag.value == "blocking-strict")
    {
        report.add(
            Code::BlockingStrict,
            flag.at,
            "--audit-log-mode=blocking-strict".to_owned(),
            "remove it, unless no request may go unrecorded: blocking is the default",
        );
    }
    if log.is_some_and(|log| log.value == "-") {
        return;
    }
    let size = number(server, "audit-log-maxsize");
    let backups = number(server, "audit-log-maxbackup");
    let age = number(server, "audit-log-maxage");
    if let Some((0, at)) = size {
        report.add(
            Code::NoRotation,
            at,
            "--audit-log-maxsize=0".to_owned(),
            "write `100`, or let something else rotate the file and keep kaudit's tail on it",
        );
        return;
    }
    let (has_own, at) = (server.has_own_log, log.map_or(server.at, |log| log.at));
    match (backups, age) {
        (Some((0, at)), Some((0, _))) => report.add(
            Code::NothingDeleted,
            at,
            "--audit-log-maxbackup=0 and --audit-log-maxage=0".to_owned(),
            "write `10` and `30`",
        ),
        (Some((0, at)), None) | (None, Some((0, at))) if !has_own => report.add(
            Code::DefaultRotation,
            at,
            "one of --audit-log-maxbackup and --audit-log-maxage is 0, the other is left to its default"
                .to_owned(),
            "give both",
        ),
        (None, None) if !has_own => report.add(
            Code::DefaultRotation,
            at,
            "neither --audit-log-maxbackup nor --audit-log-maxage".to_owned(),
            "add --audit-log-maxsize=100, --audit-log-maxbackup=10 and --audit-log-maxage=30",
        ),
        _ => {}
    }
    if let Some((backups, at)) = backups.filter(|(count, _)| *count > 0) {
        let megabytes = backups.saturating_mul(size.map_or(100, |(size, _)| size));
        if megabytes < MIN_HORIZON_MEGABYTES {
            report.add(
                Code::ShortHorizon,
                at,
                format!("{megabytes} MB of rotated files are kept"),
                format!("keep at least {MIN_HORIZON_MEGABYTES} MB: --audit-log-maxbackup=10 with --audit-log-maxsize=100"),
            );
        }
    }
}

/// How the webhook delivers.
fn delivery(server: &ApiServer, webhook: &Flag, records_responses: Option<bool>, report: &mut Report) {
    let mode = server.flag("audit-webhook-mode");
    match mode.map(|mode| (mode.value.as_str(), mode.at)) {
        Some(("blocking", at)) => report.add(
            Code::BlockingWebhook,
            at,
            "--audit-webhook-mode=blocking".to_owned(),
            "write `batch`",
        ),
        Some(("blocking-strict", at)) => report.add(
            Code::BlockingStrict,
            at,
            "--audit-webhook-mode=blocking-strict".to_owned(),
            "write `batch`, unless the cluster shall stop when the collector does",
        ),
        _ => batching(server, report),
    }
    let truncates = truth(server, "audit-webhook-truncate-enabled").unwrap_or_default();
    if records_responses == Some(true) && !truncates {
        report.add(
            Code::NoTruncation,
            webhook.at,
            "the policy records responses, and the webhook does not truncate".to_owned(),
            "add --audit-webhook-truncate-enabled=true and --audit-webhook-truncate-max-event-size=1048576",
        );
    }
    for prefix in ["audit-webhook-truncate", "audit-log-truncate"] {
        let event = number(server, &format!("{prefix}-max-event-size"));
        let batch = number(server, &format!("{prefix}-max-batch-size"));
        let (event_bytes, batch_bytes) = (
            event.map_or(102_400, |(bytes, _)| bytes),
            batch.map_or(10_485_760, |(bytes, _)| bytes),
        );
        if let Some((bytes, at)) = event.filter(|(bytes, _)| (1..MIN_EVENT_BYTES).contains(bytes)) {
            report.add(
                Code::TinyTruncation,
                at,
                format!(
                    "--{prefix}-max-event-size={bytes} is less than an event can have without its bodies"
                ),
                "write `1048576`, or leave it at 102400",
            );
        }
        if batch_bytes < event_bytes
            && let Some((_, at)) = batch.or(event)
        {
            report.add(
                Code::BadValue,
                at,
                format!("--{prefix}-max-batch-size={batch_bytes} is less than --{prefix}-max-event-size={event_bytes}"),
                "make the batch the larger one",
            );
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is compared with a round number"
)]
fn batching(server: &ApiServer, report: &mut Report) {
    let size = number(server, "audit-webhook-batch-max-size");
    let buffer = number(server, "audit-webhook-batch-buffer-size");
    let qps = server
        .flag("audit-webhook-batch-throttle-qps")
        .and_then(|flag| Some((flag.value.parse::<f64>().ok()?, flag.at)));
    let events = size.map_or(400, |(size, _)| size);
    if truth(server, "audit-webhook-batch-throttle-enable").unwrap_or(true) {
        let rate = qps.map_or(10.0, |(qps, _)| qps) * events as f64;
        let place = qps.map(|(_, at)| at).or(size.map(|(_, at)| at));
        if (f64::MIN_POSITIVE..MIN_EVENTS_PER_SECOND).contains(&rate)
            && let Some(at) = place
        {
            report.add(
                Code::SlowThrottle,
                at,
                format!("the webhook sends at most {rate} events a second"),
                "leave --audit-webhook-batch-throttle-qps at 10 and --audit-webhook-batch-max-size at 400: 4000 events a second",
            );
        }
    }
    if let Some((size, at)) = size {
        let buffer = buffer.map_or(10_000, |(buffer, _)| buffer);
        if size > buffer {
            report.add(
                Code::BatchSize,
                at,
                format!("a batch of {size} events never fills from a buffer of {buffer}"),
                "leave it at 400",
            );
        } else if size > MAX_BATCH_EVENTS {
            report.add(
                Code::BatchSize,
                at,
                format!("a batch of {size} events can have hundreds of megabytes"),
                "leave it at 400",
            );
        }
    } else if let Some((buffer, at)) = buffer.filter(|(buffer, _)| (1..400).contains(buffer)) {
        report.add(
            Code::BatchSize,
            at,
            format!("a batch of 400 events never fills from a buffer of {buffer}"),
            "leave it at 10000",
        );
    }
    if let Some(flag) = server.flag("audit-webhook-batch-max-wait")
        && let Ok(wait) = flag.value.parse::<go::Duration>()
        && wait.0 > MAX_WAIT
    {
        report.add(
            Code::LongWait,
            flag.at,
            format!("a batch waits {} for more events", flag.value),
            "leave it at 30s or less",
        );
    }
}
