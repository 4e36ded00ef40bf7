//! The configuration file, and how it meets flags and the environment.
//!
//! Order: flag, environment (`KAUDIT_*`), file, default. The file is YAML; an unknown or repeated key
//! is an error that names its line and the nearest known key.

pub(crate) mod access_log;
pub(crate) mod audit;
pub(crate) mod client;
pub(crate) mod collect;
pub(crate) mod flags;
pub(crate) mod front;
pub(crate) mod go;
pub(crate) mod identity;
pub(crate) mod settings;
pub(crate) mod size;
pub(crate) mod store;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::access_log::AccessLog;
pub(crate) use self::audit::{Audit, Log, Webhook};
use self::collect::{Collect, Forward, Journal};
use self::front::{Limits, ProxyProtocol, SniCertificate, TlsVersion};
use self::identity::{Authentication, Decisions};
use self::store::Store;
use crate::exit::Failure;

/// A configuration file larger than this is refused unread.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The server's configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Config {
    /// `kaudit.dev/v1alpha1`.
    pub(crate) api_version: String,
    /// `Config`.
    pub(crate) kind: String,
    /// Name stamped on what this instance produces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    /// Where this instance keeps its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,
    /// What is recorded, and where to.
    #[serde(default)]
    pub(crate) audit: Audit,
    /// The auditing reverse proxy.
    #[serde(default)]
    pub(crate) gateway: Gateway,
    /// Where events are collected from.
    #[serde(default)]
    pub(crate) collect: Collect,
    /// The journal.
    #[serde(default)]
    pub(crate) journal: Journal,
    /// The files in which role store keeps events.
    #[serde(default)]
    pub(crate) store: Store,
    /// Where the journal is sent.
    #[serde(default)]
    pub(crate) forward: Forward,
    /// Metrics and health.
    #[serde(default)]
    pub(crate) metrics: Metrics,
    /// The API.
    #[serde(default)]
    pub(crate) api: Api,
}

/// The auditing reverse proxy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Gateway {
    /// Address to listen on, for example `0.0.0.0:6443`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
    /// The serving certificate.
    #[serde(default)]
    pub(crate) tls: Tls,
    /// The cluster behind the gateway.
    #[serde(default)]
    pub(crate) upstream: Upstream,
    /// Networks of proxies whose `X-Forwarded-For` and `X-Real-Ip` are believed, for example `10.0.0.0/8`; those of
    /// others are neither recorded nor sent on. Without the list everybody's are, as by kube-apiserver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trusted_proxies: Option<Vec<String>>,
    /// The access log.
    #[serde(default)]
    pub(crate) access_log: AccessLog,
    /// Proxies that pass bytes on and say first whose they are.
    #[serde(default)]
    pub(crate) proxy_protocol: ProxyProtocol,
    /// What is taken before it is refused.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// How clients are told apart.
    #[serde(default)]
    pub(crate) authentication: Authentication,
    /// Whether the cluster is asked why it let requests in.
    #[serde(default)]
    pub(crate) decisions: Decisions,
}

/// A serving certificate; both files are watched and reloaded.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Tls {
    /// PEM, leaf first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    /// PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    /// Certificates for clients that ask for certain names, as kube-apiserver's `--tls-sni-cert-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sni: Option<Vec<SniCertificate>>,
    /// The oldest TLS that is spoken; `VersionTLS12` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min_version: Option<TlsVersion>,
}

/// The cluster behind the gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Upstream {
    /// A kubeconfig whose current context names the cluster. Its credential is the gateway's own: requests
    /// that bring a token never go with it, users of client certificates and front proxies are impersonated
    /// with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The cluster's API servers, for example `https://10.0.0.1:6443`, where there are several; without the list the
    /// kubeconfig's server. Authority, `tls-server-name`, credential, Host and path are the kubeconfig's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) servers: Option<Vec<String>>,
    /// What the cluster is asked to speak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Protocol>,
    /// How long the cluster may take to begin the answer to a watch or a short request, as a Go duration such as `90s`;
    /// then the gateway answers 504. Short requests end after 60 s, or the `timeout` that they ask for, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response_timeout: Option<go::Duration>,
    /// What happens to redirects to other hosts, none of which the gateway follows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) redirects: Option<Redirects>,
}

/// What happens to redirects to other hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Redirects {
    /// They reach the client.
    #[default]
    Relay,
    /// They become 502.
    Refuse,
}

impl From<Redirects> for kaudit_gateway::Redirects {
    fn from(redirects: Redirects) -> Self {
        match redirects {
            Redirects::Relay => Self::Relay,
            Redirects::Refuse => Self::Refuse,
        }
    }
}

/// What the cluster is asked to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTP/2 where TLS negotiates it, HTTP/1.1 otherwise.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl From<Protocol> for kaudit_dial::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Auto => Self::Auto,
            Protocol::Http1 => Self::Http1,
            Protocol::Http2 => Self::Http2,
        }
    }
}

/// Metrics and health.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Metrics {
    /// Address to listen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
}

/// The API, for holders of the token in the data directory.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Api {
    /// Address to listen on, a loopback one: it speaks plain HTTP. Without it there is no API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
}

impl Config {
    /// A configuration that says nothing.
    pub(crate) fn empty() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            ..Self::default()
        }
    }

    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let metadata = std::fs::metadata(path)
            .map_err(|error| Failure::usage(anyhow::Error::new(error).context(cannot_read(path))))?;
        if metadata.len() > MAX_FILE_BYTES {
            return Err(Failure::usage(anyhow::anyhow!(
                "{}: a configuration file may have {MAX_FILE_BYTES} bytes, this one has {}",
                path.display(),
                metadata.len()
            )));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(anyhow::Error::new(error).context(cannot_read(path))))?;
        Self::parse(&text).map_err(|message| Failure::usage(anyhow::anyhow!("{}: {message}", path.display())))
    }

    /// Parses the file's text; the error names line and column and says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_saphyr::from_str(text).map_err(|error| explain(&error))?;
        if config.api_version != API_VERSION || config.kind != KIND {
            return Err(format!(
                "`{}` of `{}` is not a kaudit configuration: write `apiVersion: {API_VERSION}` and `kind: {KIND}`",
                config.kind, config.api_version
            ));
        }
        Ok(config)
    }

    /// The JSON Schema of the file.
    pub(crate) fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}

const API_VERSION: &str = "kaudit.dev/v1alpha1";
const KIND: &str = "Config";

fn cannot_read(path: &Path) -> String {
    format!("cannot read the configuration file `{}`", path.display())
}

/// The decoder's message, with the nearest known key where a key is unknown.
fn explain(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let place = error
        .location()
        .map(|at| format!("line {}, column {}: ", at.line(), at.column()))
        .unwrap_or_default();
    if let serde_saphyr::Error::SerdeUnknownField { field, expected, .. } = error {
        return match nearest(field, expected) {
            Some(nearest) => format!("{place}unknown key `{field}`, did you mean `{nearest}`?"),
            None => format!(
                "{place}unknown key `{field}`, known here: {}",
                expected.join(", ")
            ),
        };
    }
    format!("{place}{error}")
}

/// The candidate with the fewest edits, if these are at most a third of its length.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (edits(&word.to_lowercase(), &candidate.to_lowercase()), *candidate))
        .filter(|(edits, candidate)| *edits <= candidate.len().div_ceil(3))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (row, from) in a.chars().enumerate() {
        let mut current = vec![row + 1];
        for ((diagonal, above), to) in previous.iter().zip(previous.iter().skip(1)).zip(&b) {
            let left = current.last().copied().unwrap_or(row);
            current.push((diagonal + usize::from(from != *to)).min(above + 1).min(left + 1));
        }
        previous = current;
    }
    previous.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_is_read() {
        let config = Config::parse(
            "apiVersion: kaudit.dev/v1alpha1\nkind: Config\ncluster: prod-eu-1\naudit:\n  policyFile: /etc/kaudit/policy.yaml\n  \
             log: {path: /var/log/kaudit/audit.log, maxSize: 100, maxBackup: 10, maxAge: 30, batch: {maxWait: 1m30s}}\n\
             gateway:\n  listen: 0.0.0.0:6443\n  tls: {certFile: a, keyFile: b, minVersion: VersionTLS13, sni: [{certFile: c, keyFile: d, names: [e]}]}\n  upstream: {kubeconfig: up}\n",
        )
        .unwrap();
        assert_eq!(config.audit.log.max_size, Some(100));
        assert_eq!(
            config.audit.log.batch.max_wait.unwrap().0,
            std::time::Duration::from_secs(90)
        );
        assert_eq!(config.gateway.listen.as_deref(), Some("0.0.0.0:6443"));
    }

    /// The documents and the manifest are what people copy.
    #[test]
    fn what_is_shown_to_be_copied_is_read() {
        let read = |path: &str| {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
            std::fs::read_to_string(format!("{root}{path}")).unwrap()
        };
        let page = read("docs/collect.md");
        let example = page
            .split("```yaml\n")
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap();
        let config = Config::parse(example).unwrap();
        assert_eq!(config.collect.webhook.sources.len(), 2);
        assert_eq!(config.journal.max_size.unwrap().0, 10 << 30);
        let store = read("docs/store.md");
        let example = store
            .split("```yaml\n")
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap();
        let config = Config::parse(example).unwrap();
        crate::storing::retention(&config).unwrap();
        assert_eq!(config.store.keep.len(), 2);
        let manifest = read("deploy/kubernetes/edge.yaml");
        let inner: Vec<&str> = manifest
            .lines()
            .skip_while(|line| *line != "  kaudit.yaml: |")
            .skip(1)
            .take_while(|line| line.starts_with("    "))
            .map(|line| line.strip_prefix("    ").unwrap())
            .collect();
        let config = Config::parse(&inner.join("\n")).unwrap();
        assert_eq!(config.collect.files.len(), 1);
        let daemon_set = manifest.split_once("apiVersion: apps/v1").unwrap().1;
        assert!(page.contains(daemon_set), "the page shows another DaemonSet");
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let message = Config::parse(text).unwrap_err();
        assert!(
            message.contains(expected),
            "`{message}` does not contain `{expected}`"
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
        let head = "apiVersion: kaudit.dev/v1alpha1\nkind: Config\n";
        refused(&format!("{head}audit:\n  policyfile: x\n"), "line 4");
        refused(
            &format!("{head}audit:\n  policyfile: x\n"),
            "did you mean `policyFile`",
        );
        refused(&format!("{head}zebra: 1\n"), "known here: ");
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        refused(
            "apiVersion: v1\nkind: Config\n",
            "write `apiVersion: kaudit.dev/v1alpha1`",
        );
    }

    #[test]
    fn a_repeated_key_is_refused() {
        refused(
            "apiVersion: kaudit.dev/v1alpha1\nkind: Config\ncluster: a\ncluster: b\n",
            "cluster",
        );
    }
}
