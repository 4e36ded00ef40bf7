//! Every setting: its flag, its key in the file, its default, and where its value came from.

use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::Serialize;
use serde_json::Value;

use super::Config;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The flag without its dashes; its variable is `KAUDIT_` and the same in capitals.
    pub(crate) flag: &'static str,
    /// The key in the file, with dots.
    pub(crate) key: &'static str,
    /// As `--help` shows it; empty where there is none.
    pub(crate) default: &'static str,
}

const fn setting(flag: &'static str, key: &'static str, default: &'static str) -> Setting {
    Setting { flag, key, default }
}

/// All of them, in the order in which they are shown.
pub(crate) const SETTINGS: &[Setting] = &[
    setting("audit-policy-file", "audit.policyFile", ""),
    setting("audit-log-path", "audit.log.path", ""),
    setting("audit-log-format", "audit.log.format", "json"),
    setting("audit-log-version", "audit.log.version", "audit.k8s.io/v1"),
    setting("audit-log-maxage", "audit.log.maxAge", "366"),
    setting("audit-log-maxbackup", "audit.log.maxBackup", "100"),
    setting("audit-log-maxsize", "audit.log.maxSize", "100"),
    setting("audit-log-compress", "audit.log.compress", "false"),
    setting("audit-log-mode", "audit.log.mode", "blocking"),
    setting(
        "audit-log-batch-buffer-size",
        "audit.log.batch.bufferSize",
        "10000",
    ),
    setting("audit-log-batch-max-size", "audit.log.batch.maxSize", "1"),
    setting("audit-log-batch-max-wait", "audit.log.batch.maxWait", "0s"),
    setting(
        "audit-log-batch-throttle-enable",
        "audit.log.batch.throttleEnable",
        "false",
    ),
    setting("audit-log-batch-throttle-qps", "audit.log.batch.throttleQps", "0"),
    setting(
        "audit-log-batch-throttle-burst",
        "audit.log.batch.throttleBurst",
        "0",
    ),
    setting(
        "audit-log-batch-when-full",
        "audit.log.batch.whenFull",
        "drop-newest",
    ),
    setting(
        "audit-log-truncate-enabled",
        "audit.log.truncate.enabled",
        "false",
    ),
    setting(
        "audit-log-truncate-max-batch-size",
        "audit.log.truncate.maxBatchSize",
        "10485760",
    ),
    setting(
        "audit-log-truncate-max-event-size",
        "audit.log.truncate.maxEventSize",
        "102400",
    ),
    setting("audit-webhook-config-file", "audit.webhook.configFile", ""),
    setting(
        "audit-webhook-version",
        "audit.webhook.version",
        "audit.k8s.io/v1",
    ),
    setting(
        "audit-webhook-initial-backoff",
        "audit.webhook.initialBackoff",
        "10s",
    ),
    setting("audit-webhook-mode", "audit.webhook.mode", "batch"),
    setting(
        "audit-webhook-batch-buffer-size",
        "audit.webhook.batch.bufferSize",
        "10000",
    ),
    setting(
        "audit-webhook-batch-max-size",
        "audit.webhook.batch.maxSize",
        "400",
    ),
    setting(
        "audit-webhook-batch-max-wait",
        "audit.webhook.batch.maxWait",
        "30s",
    ),
    setting(
        "audit-webhook-batch-throttle-enable",
        "audit.webhook.batch.throttleEnable",
        "true",
    ),
    setting(
        "audit-webhook-batch-throttle-qps",
        "audit.webhook.batch.throttleQps",
        "10",
    ),
    setting(
        "audit-webhook-batch-throttle-burst",
        "audit.webhook.batch.throttleBurst",
        "15",
    ),
    setting(
        "audit-webhook-batch-when-full",
        "audit.webhook.batch.whenFull",
        "drop-newest",
    ),
    setting(
        "audit-webhook-truncate-enabled",
        "audit.webhook.truncate.enabled",
        "false",
    ),
    setting(
        "audit-webhook-truncate-max-batch-size",
        "audit.webhook.truncate.maxBatchSize",
        "10485760",
    ),
    setting(
        "audit-webhook-truncate-max-event-size",
        "audit.webhook.truncate.maxEventSize",
        "102400",
    ),
    setting("audit-webhook-spool-max-size", "audit.webhook.spool.maxSize", ""),
    setting("audit-webhook-spool-max-age", "audit.webhook.spool.maxAge", ""),
    setting("audit-journal-mode", "audit.journal.mode", ""),
    setting("audit-journal-instance", "audit.journal.instance", "gateway"),
    setting("audit-sink-dir", "audit.sinkDir", ""),
    setting("listen", "gateway.listen", ""),
    setting("tls-cert-file", "gateway.tls.certFile", ""),
    setting("tls-private-key-file", "gateway.tls.keyFile", ""),
    setting("tls-sni-cert-key", "gateway.tls.sni", ""),
    setting("tls-min-version", "gateway.tls.minVersion", "VersionTLS12"),
    setting("upstream-kubeconfig", "gateway.upstream.kubeconfig", ""),
    setting("trusted-proxies", "gateway.trustedProxies", ""),
    setting("proxy-protocol-from", "gateway.proxyProtocol.from", ""),
    setting("max-connections", "gateway.limits.connections", "10000"),
    setting(
        "max-connections-per-address",
        "gateway.limits.connectionsPerAddress",
        "1000",
    ),
    setting("max-requests-inflight", "gateway.limits.requestsInFlight", ""),
    setting("body-idle-timeout", "gateway.limits.bodyIdleTimeout", "30s"),
    setting("tokens", "gateway.authentication.tokens", "passthrough"),
    setting("client-ca-file", "gateway.authentication.clientCAFile", ""),
    setting("client-crl-file", "gateway.authentication.clientCRLFile", ""),
    setting(
        "requestheader-client-ca-file",
        "gateway.authentication.requestHeader.clientCAFile",
        "",
    ),
    setting("upstream-servers", "gateway.upstream.servers", ""),
    setting("upstream-protocol", "gateway.upstream.protocol", "auto"),
    setting(
        "upstream-response-timeout",
        "gateway.upstream.responseTimeout",
        "90s",
    ),
    setting("upstream-redirects", "gateway.upstream.redirects", "relay"),
    setting("access-log-path", "gateway.accessLog.path", ""),
    setting("access-log-maxsize", "gateway.accessLog.maxSize", "100"),
    setting("access-log-maxbackup", "gateway.accessLog.maxBackup", "10"),
    setting("cluster", "cluster", ""),
    setting("collect-listen", "collect.webhook.listen", ""),
    setting("collect-tls-cert-file", "collect.webhook.tls.certFile", ""),
    setting("collect-tls-private-key-file", "collect.webhook.tls.keyFile", ""),
    setting("collect-client-ca-file", "collect.webhook.tls.clientCAFile", ""),
    setting("collect-memory", "collect.webhook.memory", "192Mi"),
    setting("collect-dedup-events", "collect.dedupEvents", "4000000"),
    setting("quarantine-max-size", "collect.quarantineMaxSize", "1Gi"),
    setting("journal-max-size", "journal.maxSize", "10Gi"),
    setting("journal-min-free", "journal.minFree", "64Mi"),
    setting("journal-linger", "journal.linger", "5ms"),
    setting("store-retention", "store.retention", ""),
    setting("store-max-size", "store.maxSize", ""),
    setting("store-seal-after", "store.sealAfter", "5m"),
    setting("store-tail-memory", "store.tailMemory", "96Mi"),
    setting("store-location", "store.location", ""),
    setting("store-cache-size", "store.cacheSize", "20Gi"),
    setting("forward-kubeconfig", "forward.kubeconfig", ""),
    setting("metrics-listen", "metrics.listen", "127.0.0.1:7441"),
    setting("api-listen", "api.listen", ""),
    setting("data-dir", "dataDir", ""),
];

/// The value of a setting and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Effective {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    #[serde(rename = "from")]
    pub(crate) origin: String,
}

/// The settings of `config`, which holds what `matches` laid over `file`.
pub(crate) fn effective(config: &Config, matches: &ArgMatches, file: Option<&Path>) -> Vec<Effective> {
    let tree = serde_json::to_value(config).unwrap_or_default();
    SETTINGS
        .iter()
        .map(|setting| {
            let given = setting
                .key
                .split('.')
                .try_fold(&tree, |tree, key| tree.get(key))
                .map(|value| match value {
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                });
            let origin = match (matches.value_source(&setting.flag.replace('-', "_")), file) {
                _ if given.is_none() => "default".to_owned(),
                (Some(ValueSource::CommandLine), _) => format!("flag --{}", setting.flag),
                (Some(ValueSource::EnvVariable), _) => format!("environment {}", setting.variable()),
                (_, Some(file)) => format!("file {}", file.display()),
                (_, None) => "default".to_owned(),
            };
            Effective {
                key: setting.key,
                value: given.unwrap_or_else(|| setting.default.to_owned()),
                origin,
            }
        })
        .collect()
}

impl Setting {
    /// The environment variable.
    fn variable(&self) -> String {
        format!("KAUDIT_{}", self.flag.replace('-', "_").to_uppercase())
    }
}
