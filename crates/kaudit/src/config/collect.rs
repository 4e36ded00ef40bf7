//! `collect:`, `journal:` and `forward:` of the configuration file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go;
use super::size::Size;

/// Where events are collected from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Collect {
    /// The receiver of audit webhooks and of other kaudits.
    #[serde(default)]
    pub(crate) webhook: CollectWebhook,
    /// Log files of apiservers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<CollectFile>,
    /// apiservers whose counters are compared with what arrived.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) completeness: Vec<CollectCompleteness>,
    /// The newest events of which duplicates are recognised; each takes up to 39 bytes of memory. Default 4000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dedup_events: Option<u64>,
    /// Bytes of what was no event. Beyond it the oldest makes room. Default 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quarantine_max_size: Option<Size>,
}

/// The receiver of audit webhooks and of other kaudits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CollectWebhook {
    /// Address to listen on, for example `0.0.0.0:7444`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
    /// Serving certificate and the authority of clients' certificates.
    #[serde(default)]
    pub(crate) tls: CollectTls,
    /// Who may bring events of which apiservers. Nobody else may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<CollectSource>,
    /// Bytes of text that all requests together may hold. Default 192Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Size>,
}

/// Serving certificate and the authority of clients' certificates; certificate and key are watched and reloaded.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CollectTls {
    /// PEM, leaf first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    /// PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    /// PEM; needed where `sources` has a certificateName.
    #[serde(default, rename = "clientCAFile", skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca_file: Option<PathBuf>,
}

/// Who may bring events of which apiservers: either certificateName or tokenFile is given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CollectSource {
    /// A cluster's name, or its beginning and `*`.
    pub(crate) cluster: String,
    /// An apiserver's name, or its beginning and `*`. Default `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// Common name, DNS name or URI of the sender's client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_name: Option<String>,
    /// File with the sender's bearer token; watched and reloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Log files of one apiserver.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CollectFile {
    /// The cluster's name. Default: `cluster` of this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    /// The apiserver's name.
    pub(crate) instance: String,
    /// A file, a pattern with `*`, `?` or `[...]`, or a folder. Rotated and compressed files beside it belong to it.
    pub(crate) path: String,
    /// Where to begin when the source is new: `beginning` (default), `end`, or a time such as
    /// `2026-01-02T15:04:05Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<String>,
    /// `auto` (default), `json`, or `cri` for a container's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<String>,
    /// Nothing new for so long is reported. Default 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stale_after: Option<go::Duration>,
}

/// An apiserver whose counters are compared with what arrived.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CollectCompleteness {
    /// The cluster's name. Default: `cluster` of this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    /// The apiserver's name, as its events come under it.
    pub(crate) instance: String,
    /// Kubeconfig whose current context is this one apiserver, not a load balancer before several; its user may
    /// get `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// A file in the format of `/metrics`, in place of the kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics_file: Option<PathBuf>,
    /// Time between two looks. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interval: Option<go::Duration>,
    /// An event that has not come so long after it was counted is missing. Default 130s, which the retries of an
    /// audit webhook need; less is enough where all events come from a log file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settle: Option<go::Duration>,
}

/// The journal in which every event is kept before it is acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Journal {
    /// Bytes of all segments. Default 10Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_size: Option<Size>,
    /// So much of the disk stays free. Default 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min_free: Option<Size>,
    /// Events that come within this time share one write to the disk. Default 5ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) linger: Option<go::Duration>,
}

/// Where role forward sends the journal.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Forward {
    /// A kubeconfig whose current context names the central kaudit: server `https://HOST:7444`, its certificate
    /// authority, and a client certificate or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kubeconfig: Option<PathBuf>,
}
