//! kube-apiserver's audit flags: those that a setup gives, and all there are.
//!
//! Source: k8s.io/apiserver pkg/server/options/audit.go of v0.36.3.

use super::Wish;

/// What values a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// An absolute path of a file that the API server reads.
    Path,
    Int,
    Bool,
    Duration,
    Float,
    Mode,
    Version,
    Format,
}

/// Every audit flag of kube-apiserver 1.36.
pub(crate) const ALL: &[(&str, Kind)] = &[
    ("audit-policy-file", Kind::Path),
    ("audit-log-path", Kind::Text),
    ("audit-log-format", Kind::Format),
    ("audit-log-version", Kind::Version),
    ("audit-log-maxage", Kind::Int),
    ("audit-log-maxbackup", Kind::Int),
    ("audit-log-maxsize", Kind::Int),
    ("audit-log-compress", Kind::Bool),
    ("audit-log-mode", Kind::Mode),
    ("audit-log-batch-buffer-size", Kind::Int),
    ("audit-log-batch-max-size", Kind::Int),
    ("audit-log-batch-max-wait", Kind::Duration),
    ("audit-log-batch-throttle-enable", Kind::Bool),
    ("audit-log-batch-throttle-qps", Kind::Float),
    ("audit-log-batch-throttle-burst", Kind::Int),
    ("audit-log-truncate-enabled", Kind::Bool),
    ("audit-log-truncate-max-batch-size", Kind::Int),
    ("audit-log-truncate-max-event-size", Kind::Int),
    ("audit-webhook-config-file", Kind::Path),
    ("audit-webhook-version", Kind::Version),
    ("audit-webhook-initial-backoff", Kind::Duration),
    ("audit-webhook-batch-initial-backoff", Kind::Duration),
    ("audit-webhook-mode", Kind::Mode),
    ("audit-webhook-batch-buffer-size", Kind::Int),
    ("audit-webhook-batch-max-size", Kind::Int),
    ("audit-webhook-batch-max-wait", Kind::Duration),
    ("audit-webhook-batch-throttle-enable", Kind::Bool),
    ("audit-webhook-batch-throttle-qps", Kind::Float),
    ("audit-webhook-batch-throttle-burst", Kind::Int),
    ("audit-webhook-truncate-enabled", Kind::Bool),
    ("audit-webhook-truncate-max-batch-size", Kind::Int),
    ("audit-webhook-truncate-max-event-size", Kind::Int),
];

/// Where a setup's files are for the API server.
pub(super) struct Paths<'a> {
    pub(super) policy: &'a str,
    pub(super) kubeconfig: &'a str,
    pub(super) log: &'a str,
}

/// The flags of a setup, in the order of [`ALL`].
pub(super) fn of(wish: &Wish, paths: &Paths<'_>) -> Vec<(&'static str, String)> {
    let mut flags = vec![("audit-policy-file", paths.policy.to_owned())];
    if wish.mode.has_log() {
        flags.push(("audit-log-path", paths.log.to_owned()));
        // Rotation is the API server's own: 11 files of 100 MB at most, which is how long a collector may be
        // away before unread events are deleted.
        if paths.log != "-" {
            flags.extend([
                ("audit-log-maxage", "30".to_owned()),
                ("audit-log-maxbackup", "10".to_owned()),
                ("audit-log-maxsize", "100".to_owned()),
            ]);
        }
    }
    flags.extend(of_webhook(wish, paths.kubeconfig));
    flags
}

/// The flags of the webhook alone.
pub(super) fn of_webhook(wish: &Wish, kubeconfig: &str) -> Vec<(&'static str, String)> {
    if !wish.mode.has_webhook() {
        return Vec::new();
    }
    let mut flags = vec![
        ("audit-webhook-config-file", kubeconfig.to_owned()),
        ("audit-webhook-mode", "batch".to_owned()),
    ];
    if wish.records_responses() {
        flags.extend([
            ("audit-webhook-truncate-enabled", "true".to_owned()),
            ("audit-webhook-truncate-max-event-size", "1048576".to_owned()),
        ]);
    }
    flags
}
