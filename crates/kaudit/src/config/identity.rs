//! Who may ask the gateway, and what it asks the cluster about them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How clients are told apart.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Authentication {
    /// What happens with bearer tokens.
    #[serde(default)]
    pub(crate) tokens: Tokens,
    /// What happens with requests without credentials.
    #[serde(default)]
    pub(crate) anonymous: Anonymous,
    /// Authorities of users' client certificates, PEM; watched and reloaded. Such users are impersonated with
    /// the upstream kubeconfig's credential.
    #[serde(default, rename = "clientCAFile", skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Certificates that these authorities revoked, PEM; watched and reloaded.
    #[serde(default, rename = "clientCRLFile", skip_serializing_if = "Option::is_none")]
    pub(crate) client_crl_file: Option<PathBuf>,
    /// The proxy in front of the gateway that tells in headers who asks.
    #[serde(default)]
    pub(crate) request_header: RequestHeader,
}

/// What happens with bearer tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tokens {
    /// The client's token goes upstream; identity is asked with it.
    #[default]
    Passthrough,
    /// The client's token goes upstream; the cluster is asked about it with the upstream kubeconfig's
    /// credential.
    Review,
}

/// What happens with requests without credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Anonymous {
    /// They go upstream as they are.
    #[default]
    Forward,
    /// They are answered 401.
    Refuse,
}

/// A proxy that tells in headers who asks, as kube-apiserver's `--requestheader-*` flags describe it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RequestHeader {
    /// Authorities of its client certificates, PEM; watched and reloaded. Without them there is no such proxy.
    #[serde(default, rename = "clientCAFile", skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Common names of its certificates; none allows any.
    #[serde(default)]
    pub(crate) allowed_names: Vec<String>,
    /// Headers with the user's name; the first with a value counts. `X-Remote-User` if there are none.
    #[serde(default)]
    pub(crate) username_headers: Vec<String>,
    /// Headers with the user's uid. `X-Remote-Uid` if there are none.
    #[serde(default)]
    pub(crate) uid_headers: Vec<String>,
    /// Headers with the user's groups. `X-Remote-Group` if there are none.
    #[serde(default)]
    pub(crate) group_headers: Vec<String>,
    /// Beginnings of headers with other facts. `X-Remote-Extra-` if there are none.
    #[serde(default)]
    pub(crate) extra_header_prefixes: Vec<String>,
}

/// Whether the cluster is asked why it let requests in.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Decisions {
    /// Whether it is asked at all: `always` or `never`. Refusals tell their reason by themselves.
    #[serde(default)]
    pub(crate) review: Review,
    /// An audit policy: about requests whose level in it is `None` the cluster is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy_file: Option<PathBuf>,
    /// Reviews per second for one user; 50 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) per_user: Option<u32>,
}

/// Whether the cluster is asked why it let requests in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Review {
    /// About each kind of request once in ten seconds.
    #[default]
    Always,
    /// Never.
    Never,
}
