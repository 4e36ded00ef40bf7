//! `audit:` of the configuration file; names and meanings are those of kube-apiserver's `--audit-*` flags.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go;
use super::size::Size;

/// What is recorded, and where to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Audit {
    /// The audit policy (`audit.k8s.io/v1`, kind Policy); without one nothing is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy_file: Option<PathBuf>,
    /// The log backend.
    #[serde(default)]
    pub(crate) log: Log,
    /// The webhook backend.
    #[serde(default)]
    pub(crate) webhook: Webhook,
    /// The journal of this process as a backend.
    #[serde(default)]
    pub(crate) journal: AuditJournal,
    /// Folder of AuditSink objects (`auditregistration.k8s.io/v1alpha1`), one or more in each `*.yaml`, `*.yml` or
    /// `*.json`; watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sink_dir: Option<PathBuf>,
}

/// A queue on disk before the webhook, in the data directory. It is on where one of its bounds is given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Spool {
    /// Bytes on disk; beyond them the oldest events go, counted and named. Default 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_size: Option<Size>,
    /// Events that waited longer are not delivered any more. Default 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_age: Option<go::Duration>,
}

impl Spool {
    /// Whether it is asked for.
    pub(crate) const fn is_on(&self) -> bool {
        self.max_size.is_some() || self.max_age.is_some()
    }
}

/// The journal of this process as a backend: what the gateway records is kept as what is collected is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AuditJournal {
    /// `batch` (a request does not wait), `blocking` (it waits until its event is durable) or `blocking-strict` (and
    /// is refused if it does not become durable). Without it nothing is recorded in the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// The name under which the events are kept, beside `cluster`. Default `gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
}

/// The log backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Log {
    /// The file, or `-` for standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// `json` or `legacy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<String>,
    /// `audit.k8s.io/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// `blocking`, `blocking-strict` or `batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// Size in MB at which the file is rotated; 0 never rotates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_size: Option<i64>,
    /// Rotated files to keep; 0 keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_backup: Option<i64>,
    /// Days to keep rotated files; 0 keeps them for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_age: Option<i64>,
    /// Whether rotated files are compressed with gzip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compress: Option<bool>,
    /// The queue of mode `batch`.
    #[serde(default)]
    pub(crate) batch: Batch,
    /// What happens to events that are too large.
    #[serde(default)]
    pub(crate) truncate: Truncate,
}

/// The webhook backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Webhook {
    /// A kubeconfig whose current context is the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config_file: Option<PathBuf>,
    /// `audit.k8s.io/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// How long the first failed delivery waits, as a Go duration such as `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) initial_backoff: Option<go::Duration>,
    /// `batch`, `blocking` or `blocking-strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// The queue of mode `batch`.
    #[serde(default)]
    pub(crate) batch: Batch,
    /// What happens to events that are too large.
    #[serde(default)]
    pub(crate) truncate: Truncate,
    /// A queue on disk in place of the queue in memory: undelivered events survive restarts and outages.
    #[serde(default)]
    pub(crate) spool: Spool,
}

/// The queue of mode `batch`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Batch {
    /// Events the queue holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) buffer_size: Option<i64>,
    /// Events in one batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_size: Option<i64>,
    /// How long a batch that is not full waits, as a Go duration such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_wait: Option<go::Duration>,
    /// Whether batches are throttled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) throttle_enable: Option<bool>,
    /// Batches a second when throttled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) throttle_qps: Option<f32>,
    /// Batches at once when throttled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) throttle_burst: Option<i64>,
    /// Which event goes when the queue is full: `drop-newest`, as in kube-apiserver, or `drop-oldest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) when_full: Option<String>,
}

/// What happens to events that are too large.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Truncate {
    /// Whether their bodies are taken out, and they are dropped where that is not enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) enabled: Option<bool>,
    /// Bytes of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_batch_size: Option<i64>,
    /// Bytes of an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_event_size: Option<i64>,
}
