//! Flags of `kaudit run`: kube-apiserver's own by name, type and default, and the gateway's.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;

use super::front::{SniCertificate, TlsVersion};
use super::identity::Tokens;
use super::size::Size;
use super::store::{Age, Location};
use super::{Config, Protocol, Redirects, go};

/// kube-apiserver's audit flags, and `--audit-*-batch-when-full`, `--audit-webhook-spool-*`, `--audit-journal-*` and `--audit-sink-dir` of our own. A flag
/// that is not given leaves the file's value or the default.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Auditing (names, types and defaults of kube-apiserver)")]
pub(crate) struct AuditFlags {
    /// Path to the file that defines the audit policy configuration; without it nothing is recorded
    #[arg(long, value_name = "FILE", env = "KAUDIT_AUDIT_POLICY_FILE")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// File for the events, '-' for standard output; without it the log backend is off
    #[arg(long, value_name = "PATH", env = "KAUDIT_AUDIT_LOG_PATH")]
    pub(crate) audit_log_path: Option<String>,
    /// Format of the events: legacy or json [default: json]
    #[arg(long, value_name = "FORMAT", env = "KAUDIT_AUDIT_LOG_FORMAT")]
    pub(crate) audit_log_format: Option<String>,
    /// API group and version of the events [default: audit.k8s.io/v1]
    #[arg(long, value_name = "VERSION", env = "KAUDIT_AUDIT_LOG_VERSION")]
    pub(crate) audit_log_version: Option<String>,
    /// Days to keep rotated files, by the time in their name; 0 keeps them [default: 366]
    #[arg(long, value_name = "DAYS", env = "KAUDIT_AUDIT_LOG_MAXAGE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_log_maxage: Option<i64>,
    /// Rotated files to keep; 0 keeps all [default: 100]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_AUDIT_LOG_MAXBACKUP", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_log_maxbackup: Option<i64>,
    /// Size in megabytes at which the file is rotated; 0 never rotates [default: 100]
    #[arg(long, value_name = "MB", env = "KAUDIT_AUDIT_LOG_MAXSIZE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_log_maxsize: Option<i64>,
    /// Compress rotated files with gzip [default: false]
    #[arg(long, value_name = "BOOL", env = "KAUDIT_AUDIT_LOG_COMPRESS", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::parse_bool)]
    pub(crate) audit_log_compress: Option<bool>,
    /// Strategy: batch, blocking or blocking-strict [default: blocking]
    #[arg(long, value_name = "MODE", env = "KAUDIT_AUDIT_LOG_MODE")]
    pub(crate) audit_log_mode: Option<String>,
    /// Events the queue of mode batch holds [default: 10000]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_AUDIT_LOG_BATCH_BUFFER_SIZE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_log_batch_buffer_size: Option<i64>,
    /// Events in one batch, mode batch only [default: 1]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_AUDIT_LOG_BATCH_MAX_SIZE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_log_batch_max_size: Option<i64>,
    /// How long a batch that is not full waits, mode batch only [default: 0s]
    #[arg(long, value_name = "DURATION", env = "KAUDIT_AUDIT_LOG_BATCH_MAX_WAIT")]
    pub(crate) audit_log_batch_max_wait: Option<go::Duration>,
    /// Whether batches are throttled, mode batch only [default: false]
    #[arg(long, value_name = "BOOL", env = "KAUDIT_AUDIT_LOG_BATCH_THROTTLE_ENABLE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::parse_bool)]
    pub(crate) audit_log_batch_throttle_enable: Option<bool>,
    /// Batches a second when throttled [default: 0]
    #[arg(
        long,
        value_name = "QPS",
        env = "KAUDIT_AUDIT_LOG_BATCH_THROTTLE_QPS",
        allow_hyphen_values = true
    )]
    pub(crate) audit_log_batch_throttle_qps: Option<f32>,
    /// Batches at once when the throttle was idle [default: 0]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_AUDIT_LOG_BATCH_THROTTLE_BURST", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_log_batch_throttle_burst: Option<i64>,
    /// Which event goes when the queue is full: drop-newest, as in kube-apiserver, or drop-oldest [default: drop-newest]
    #[arg(long, value_name = "WHICH", env = "KAUDIT_AUDIT_LOG_BATCH_WHEN_FULL")]
    pub(crate) audit_log_batch_when_full: Option<String>,
    /// Take the bodies out of events that are too large, and drop what is too large without them [default: false]
    #[arg(long, value_name = "BOOL", env = "KAUDIT_AUDIT_LOG_TRUNCATE_ENABLED", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::parse_bool)]
    pub(crate) audit_log_truncate_enabled: Option<bool>,
    /// Bytes of a batch [default: 10485760]
    #[arg(long, value_name = "BYTES", env = "KAUDIT_AUDIT_LOG_TRUNCATE_MAX_BATCH_SIZE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_log_truncate_max_batch_size: Option<i64>,
    /// Bytes of an event [default: 102400]
    #[arg(long, value_name = "BYTES", env = "KAUDIT_AUDIT_LOG_TRUNCATE_MAX_EVENT_SIZE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_log_truncate_max_event_size: Option<i64>,
    /// Kubeconfig of the receiver; without it the webhook backend is off
    #[arg(long, value_name = "FILE", env = "KAUDIT_AUDIT_WEBHOOK_CONFIG_FILE")]
    pub(crate) audit_webhook_config_file: Option<PathBuf>,
    /// API group and version of the events [default: audit.k8s.io/v1]
    #[arg(long, value_name = "VERSION", env = "KAUDIT_AUDIT_WEBHOOK_VERSION")]
    pub(crate) audit_webhook_version: Option<String>,
    /// How long the first failed delivery waits before the next [default: 10s]
    #[arg(
        long,
        alias = "audit-webhook-batch-initial-backoff",
        value_name = "DURATION",
        env = "KAUDIT_AUDIT_WEBHOOK_INITIAL_BACKOFF"
    )]
    pub(crate) audit_webhook_initial_backoff: Option<go::Duration>,
    /// Strategy: batch, blocking or blocking-strict [default: batch]
    #[arg(long, value_name = "MODE", env = "KAUDIT_AUDIT_WEBHOOK_MODE")]
    pub(crate) audit_webhook_mode: Option<String>,
    /// Events the queue of mode batch holds [default: 10000]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_webhook_batch_buffer_size: Option<i64>,
    /// Events in one batch, mode batch only [default: 400]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_AUDIT_WEBHOOK_BATCH_MAX_SIZE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_webhook_batch_max_size: Option<i64>,
    /// How long a batch that is not full waits, mode batch only [default: 30s]
    #[arg(long, value_name = "DURATION", env = "KAUDIT_AUDIT_WEBHOOK_BATCH_MAX_WAIT")]
    pub(crate) audit_webhook_batch_max_wait: Option<go::Duration>,
    /// Whether batches are throttled, mode batch only [default: true]
    #[arg(long, value_name = "BOOL", env = "KAUDIT_AUDIT_WEBHOOK_BATCH_THROTTLE_ENABLE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::parse_bool)]
    pub(crate) audit_webhook_batch_throttle_enable: Option<bool>,
    /// Batches a second when throttled [default: 10]
    #[arg(
        long,
        value_name = "QPS",
        env = "KAUDIT_AUDIT_WEBHOOK_BATCH_THROTTLE_QPS",
        allow_hyphen_values = true
    )]
    pub(crate) audit_webhook_batch_throttle_qps: Option<f32>,
    /// Batches at once when the throttle was idle [default: 15]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_AUDIT_WEBHOOK_BATCH_THROTTLE_BURST", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_webhook_batch_throttle_burst: Option<i64>,
    /// Which event goes when the queue is full: drop-newest, as in kube-apiserver, or drop-oldest [default: drop-newest]
    #[arg(long, value_name = "WHICH", env = "KAUDIT_AUDIT_WEBHOOK_BATCH_WHEN_FULL")]
    pub(crate) audit_webhook_batch_when_full: Option<String>,
    /// Take the bodies out of events that are too large, and drop what is too large without them [default: false]
    #[arg(long, value_name = "BOOL", env = "KAUDIT_AUDIT_WEBHOOK_TRUNCATE_ENABLED", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::parse_bool)]
    pub(crate) audit_webhook_truncate_enabled: Option<bool>,
    /// Bytes of a batch [default: 10485760]
    #[arg(long, value_name = "BYTES", env = "KAUDIT_AUDIT_WEBHOOK_TRUNCATE_MAX_BATCH_SIZE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_webhook_truncate_max_batch_size: Option<i64>,
    /// Bytes of an event [default: 102400]
    #[arg(long, value_name = "BYTES", env = "KAUDIT_AUDIT_WEBHOOK_TRUNCATE_MAX_EVENT_SIZE", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub(crate) audit_webhook_truncate_max_event_size: Option<i64>,
    /// Queue on disk before the webhook, of at most this size; with it or the age the spool is on (1Gi and 168h)
    #[arg(long, value_name = "SIZE", env = "KAUDIT_AUDIT_WEBHOOK_SPOOL_MAX_SIZE")]
    pub(crate) audit_webhook_spool_max_size: Option<Size>,
    /// Events that waited in the spool for longer are not delivered any more
    #[arg(long, value_name = "DURATION", env = "KAUDIT_AUDIT_WEBHOOK_SPOOL_MAX_AGE")]
    pub(crate) audit_webhook_spool_max_age: Option<go::Duration>,
    /// Keep events in the journal too: batch, blocking or blocking-strict; without it they are not
    #[arg(long, value_name = "MODE", env = "KAUDIT_AUDIT_JOURNAL_MODE")]
    pub(crate) audit_journal_mode: Option<String>,
    /// Name under which events are kept in the journal, beside the cluster's [default: gateway]
    #[arg(long, value_name = "NAME", env = "KAUDIT_AUDIT_JOURNAL_INSTANCE")]
    pub(crate) audit_journal_instance: Option<String>,
    /// Folder of AuditSink objects, watched; each is a webhook with a policy of its own
    #[arg(long, value_name = "DIR", env = "KAUDIT_AUDIT_SINK_DIR")]
    pub(crate) audit_sink_dir: Option<PathBuf>,
}

/// Flags of the gateway role.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gateway")]
pub(crate) struct GatewayFlags {
    /// Address to serve clients on, for example 0.0.0.0:6443
    #[arg(long, value_name = "ADDRESS", env = "KAUDIT_LISTEN")]
    pub(crate) listen: Option<String>,
    /// Serving certificate, PEM, leaf first; watched and reloaded
    #[arg(long, value_name = "FILE", env = "KAUDIT_TLS_CERT_FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate, PEM
    #[arg(long, value_name = "FILE", env = "KAUDIT_TLS_PRIVATE_KEY_FILE")]
    pub(crate) tls_private_key_file: Option<PathBuf>,
    /// Certificate and key for clients that ask for these names, or for those in the certificate; may be repeated
    #[arg(
        long,
        value_name = "CERT,KEY[:NAME,...]",
        value_delimiter = ';',
        env = "KAUDIT_TLS_SNI_CERT_KEY"
    )]
    pub(crate) tls_sni_cert_key: Option<Vec<SniCertificate>>,
    /// The oldest TLS that is spoken [default: VersionTLS12]
    #[arg(long, value_enum, value_name = "VERSION", env = "KAUDIT_TLS_MIN_VERSION")]
    pub(crate) tls_min_version: Option<TlsVersion>,
    /// Kubeconfig whose current context is the cluster behind the gateway
    #[arg(long, value_name = "FILE", env = "KAUDIT_UPSTREAM_KUBECONFIG")]
    pub(crate) upstream_kubeconfig: Option<PathBuf>,
    /// Networks of proxies whose X-Forwarded-For and X-Real-Ip are believed [default: everybody's are]
    #[arg(
        long,
        value_name = "NETWORK,...",
        value_delimiter = ',',
        env = "KAUDIT_TRUSTED_PROXIES"
    )]
    pub(crate) trusted_proxies: Option<Vec<String>>,
    /// Networks of proxies whose connections begin with a header of the PROXY protocol; it names the client
    #[arg(
        long,
        value_name = "NETWORK,...",
        value_delimiter = ',',
        env = "KAUDIT_PROXY_PROTOCOL_FROM"
    )]
    pub(crate) proxy_protocol_from: Option<Vec<String>>,
    /// Connections at once; further ones wait [default: 10000]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_MAX_CONNECTIONS")]
    pub(crate) max_connections: Option<NonZeroU32>,
    /// Connections at once of one client; further ones are closed [default: 1000]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_MAX_CONNECTIONS_PER_ADDRESS")]
    pub(crate) max_connections_per_address: Option<NonZeroU32>,
    /// Requests answered at once, but for watches, sessions and logs; without it the cluster's own bounds are all
    /// there is
    #[arg(long, value_name = "COUNT", env = "KAUDIT_MAX_REQUESTS_INFLIGHT")]
    pub(crate) max_requests_inflight: Option<NonZeroU32>,
    /// How long nothing may come of a request's body while the cluster would take it [default: 30s]
    #[arg(long, value_name = "DURATION", env = "KAUDIT_BODY_IDLE_TIMEOUT")]
    pub(crate) body_idle_timeout: Option<go::Duration>,
    /// What happens with bearer tokens, which always go upstream: identity is asked with the token itself, or
    /// about it with the upstream kubeconfig's credential [default: passthrough]
    #[arg(long, value_enum, value_name = "HOW", env = "KAUDIT_TOKENS")]
    pub(crate) tokens: Option<Tokens>,
    /// Authorities of users' client certificates, PEM; such users are impersonated
    #[arg(long, value_name = "FILE", env = "KAUDIT_CLIENT_CA_FILE")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Certificates that these authorities revoked, PEM
    #[arg(long, value_name = "FILE", env = "KAUDIT_CLIENT_CRL_FILE")]
    pub(crate) client_crl_file: Option<PathBuf>,
    /// Authorities of the certificates of a front proxy that says in headers who asks, PEM
    #[arg(long, value_name = "FILE", env = "KAUDIT_REQUESTHEADER_CLIENT_CA_FILE")]
    pub(crate) requestheader_client_ca_file: Option<PathBuf>,
    /// The cluster's API servers, where there are several, for example https://10.0.0.1:6443
    /// [default: the kubeconfig's server]
    #[arg(
        long,
        value_name = "SERVER,...",
        value_delimiter = ',',
        env = "KAUDIT_UPSTREAM_SERVERS"
    )]
    pub(crate) upstream_servers: Option<Vec<String>>,
    /// What the cluster is asked to speak [default: auto]
    #[arg(long, value_name = "PROTOCOL", env = "KAUDIT_UPSTREAM_PROTOCOL")]
    pub(crate) upstream_protocol: Option<Protocol>,
    /// File for the access log, '-' for standard output; without it there is none
    #[arg(long, value_name = "PATH", env = "KAUDIT_ACCESS_LOG_PATH")]
    pub(crate) access_log_path: Option<String>,
    /// Size in megabytes at which the access log is rotated; 0 never rotates [default: 100]
    #[arg(long, value_name = "MB", env = "KAUDIT_ACCESS_LOG_MAXSIZE")]
    pub(crate) access_log_maxsize: Option<u64>,
    /// Rotated access logs to keep; 0 keeps all [default: 10]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_ACCESS_LOG_MAXBACKUP")]
    pub(crate) access_log_maxbackup: Option<usize>,
    /// How long the cluster may take to begin the answer to a watch or a short request [default: 90s]
    #[arg(long, value_name = "DURATION", env = "KAUDIT_UPSTREAM_RESPONSE_TIMEOUT")]
    pub(crate) upstream_response_timeout: Option<go::Duration>,
    /// What happens to redirects of the cluster to other hosts [default: relay]
    #[arg(long, value_enum, value_name = "HOW", env = "KAUDIT_UPSTREAM_REDIRECTS")]
    pub(crate) upstream_redirects: Option<Redirects>,
    /// Address for /metrics, /livez and /readyz [default: 127.0.0.1:7441]
    #[arg(long, value_name = "ADDRESS", env = "KAUDIT_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<String>,
    /// Loopback address for the API, for example 127.0.0.1:7440; without it there is none
    #[arg(long, value_name = "ADDRESS", env = "KAUDIT_API_LISTEN")]
    pub(crate) api_listen: Option<String>,
    /// Where the journal, the quarantine, keys, the API's token and the sinks that it registers are kept
    #[arg(long, value_name = "DIR", env = "KAUDIT_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Flags of the roles collect and forward, and of the journal.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Collecting (files, and who may post, are in the configuration file)")]
pub(crate) struct CollectFlags {
    /// Name of the cluster that events are about, where nothing else says it
    #[arg(long, value_name = "NAME", env = "KAUDIT_CLUSTER")]
    pub(crate) cluster: Option<String>,
    /// Address to receive audit webhooks and other kaudits on, for example 0.0.0.0:7444
    #[arg(long, value_name = "ADDRESS", env = "KAUDIT_COLLECT_LISTEN")]
    pub(crate) collect_listen: Option<String>,
    /// Serving certificate of the receiver, PEM, leaf first; watched and reloaded
    #[arg(long, value_name = "FILE", env = "KAUDIT_COLLECT_TLS_CERT_FILE")]
    pub(crate) collect_tls_cert_file: Option<PathBuf>,
    /// Key of the receiver's certificate, PEM
    #[arg(long, value_name = "FILE", env = "KAUDIT_COLLECT_TLS_PRIVATE_KEY_FILE")]
    pub(crate) collect_tls_private_key_file: Option<PathBuf>,
    /// Authority of the senders' certificates, PEM
    #[arg(long, value_name = "FILE", env = "KAUDIT_COLLECT_CLIENT_CA_FILE")]
    pub(crate) collect_client_ca_file: Option<PathBuf>,
    /// Text that all requests of the receiver together may hold [default: 192Mi]
    #[arg(long, value_name = "SIZE", env = "KAUDIT_COLLECT_MEMORY")]
    pub(crate) collect_memory: Option<Size>,
    /// The newest events of which duplicates are recognised [default: 4000000]
    #[arg(long, value_name = "COUNT", env = "KAUDIT_COLLECT_DEDUP_EVENTS")]
    pub(crate) collect_dedup_events: Option<u64>,
    /// Room for what was no event; the oldest makes room for the newest [default: 1Gi]
    #[arg(long, value_name = "SIZE", env = "KAUDIT_QUARANTINE_MAX_SIZE")]
    pub(crate) quarantine_max_size: Option<Size>,
    /// Room for the journal [default: 10Gi]
    #[arg(long, value_name = "SIZE", env = "KAUDIT_JOURNAL_MAX_SIZE")]
    pub(crate) journal_max_size: Option<Size>,
    /// So much of the journal's disk stays free [default: 64Mi]
    #[arg(long, value_name = "SIZE", env = "KAUDIT_JOURNAL_MIN_FREE")]
    pub(crate) journal_min_free: Option<Size>,
    /// Events that come within this time share one write to the disk [default: 5ms]
    #[arg(long, value_name = "DURATION", env = "KAUDIT_JOURNAL_LINGER")]
    pub(crate) journal_linger: Option<go::Duration>,
    /// Kubeconfig whose current context is the central kaudit that role forward sends to
    #[arg(long, value_name = "FILE", env = "KAUDIT_FORWARD_KUBECONFIG")]
    pub(crate) forward_kubeconfig: Option<PathBuf>,
}

/// Flags of the role store.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Store (what is kept longer, and holds, are in the configuration file)")]
pub(crate) struct StoreFlags {
    /// Events older than this go, for example 365d; without it they stay
    #[arg(long, value_name = "AGE", env = "KAUDIT_STORE_RETENTION")]
    pub(crate) store_retention: Option<Age>,
    /// When all files together have more bytes, the oldest go, whatever the age says
    #[arg(long, value_name = "SIZE", env = "KAUDIT_STORE_MAX_SIZE")]
    pub(crate) store_max_size: Option<Size>,
    /// An event waits so long in the journal, at most, before it is written to a file [default: 5m]
    #[arg(long, value_name = "DURATION", env = "KAUDIT_STORE_SEAL_AFTER")]
    pub(crate) store_seal_after: Option<go::Duration>,
    /// Bytes of events that wait, at most; they take about twice as much memory [default: 96Mi]
    #[arg(long, value_name = "SIZE", env = "KAUDIT_STORE_TAIL_MEMORY")]
    pub(crate) store_tail_memory: Option<Size>,
    /// Where the files are, s3://BUCKET or s3://BUCKET/PREFIX; without it in the data directory
    #[arg(long, value_name = "URL", env = "KAUDIT_STORE_LOCATION")]
    pub(crate) store_location: Option<Location>,
    /// Bytes of a bucket's files that are kept in the data directory, at most [default: 20Gi]
    #[arg(long, value_name = "SIZE", env = "KAUDIT_STORE_CACHE_SIZE")]
    pub(crate) store_cache_size: Option<Size>,
}

impl StoreFlags {
    /// Lays what was given over `config`.
    pub(crate) fn apply(self, config: &mut Config) {
        over(&mut config.store.retention, self.store_retention);
        over(&mut config.store.max_size, self.store_max_size);
        over(&mut config.store.seal_after, self.store_seal_after);
        over(&mut config.store.tail_memory, self.store_tail_memory);
        over(&mut config.store.location, self.store_location);
        over(&mut config.store.cache_size, self.store_cache_size);
    }
}

impl CollectFlags {
    /// Lays what was given over `config`.
    pub(crate) fn apply(self, config: &mut Config) {
        let webhook = &mut config.collect.webhook;
        over(&mut config.cluster, self.cluster);
        over(&mut webhook.listen, self.collect_listen);
        over(&mut webhook.tls.cert_file, self.collect_tls_cert_file);
        over(&mut webhook.tls.key_file, self.collect_tls_private_key_file);
        over(&mut webhook.tls.client_ca_file, self.collect_client_ca_file);
        over(&mut webhook.memory, self.collect_memory);
        over(&mut config.collect.dedup_events, self.collect_dedup_events);
        over(&mut config.collect.quarantine_max_size, self.quarantine_max_size);
        over(&mut config.journal.max_size, self.journal_max_size);
        over(&mut config.journal.min_free, self.journal_min_free);
        over(&mut config.journal.linger, self.journal_linger);
        over(&mut config.forward.kubeconfig, self.forward_kubeconfig);
    }
}

impl AuditFlags {
    /// Lays what was given over `config`.
    pub(crate) fn apply(self, config: &mut Config) {
        let audit = &mut config.audit;
        over(&mut audit.policy_file, self.audit_policy_file);
        over(&mut audit.log.path, self.audit_log_path);
        over(&mut audit.log.format, self.audit_log_format);
        over(&mut audit.log.version, self.audit_log_version);
        over(&mut audit.log.max_age, self.audit_log_maxage);
        over(&mut audit.log.max_backup, self.audit_log_maxbackup);
        over(&mut audit.log.max_size, self.audit_log_maxsize);
        over(&mut audit.log.compress, self.audit_log_compress);
        over(&mut audit.log.mode, self.audit_log_mode);
        over(&mut audit.log.batch.buffer_size, self.audit_log_batch_buffer_size);
        over(&mut audit.log.batch.max_size, self.audit_log_batch_max_size);
        over(&mut audit.log.batch.max_wait, self.audit_log_batch_max_wait);
        over(
            &mut audit.log.batch.throttle_enable,
            self.audit_log_batch_throttle_enable,
        );
        over(
            &mut audit.log.batch.throttle_qps,
            self.audit_log_batch_throttle_qps,
        );
        over(
            &mut audit.log.batch.throttle_burst,
            self.audit_log_batch_throttle_burst,
        );
        over(&mut audit.log.batch.when_full, self.audit_log_batch_when_full);
        over(&mut audit.log.truncate.enabled, self.audit_log_truncate_enabled);
        over(
            &mut audit.log.truncate.max_batch_size,
            self.audit_log_truncate_max_batch_size,
        );
        over(
            &mut audit.log.truncate.max_event_size,
            self.audit_log_truncate_max_event_size,
        );
        over(&mut audit.webhook.config_file, self.audit_webhook_config_file);
        over(&mut audit.webhook.version, self.audit_webhook_version);
        over(
            &mut audit.webhook.initial_backoff,
            self.audit_webhook_initial_backoff,
        );
        over(&mut audit.webhook.mode, self.audit_webhook_mode);
        over(
            &mut audit.webhook.batch.buffer_size,
            self.audit_webhook_batch_buffer_size,
        );
        over(
            &mut audit.webhook.batch.max_size,
            self.audit_webhook_batch_max_size,
        );
        over(
            &mut audit.webhook.batch.max_wait,
            self.audit_webhook_batch_max_wait,
        );
        over(
            &mut audit.webhook.batch.throttle_enable,
            self.audit_webhook_batch_throttle_enable,
        );
        over(
            &mut audit.webhook.batch.throttle_qps,
            self.audit_webhook_batch_throttle_qps,
        );
        over(
            &mut audit.webhook.batch.throttle_burst,
            self.audit_webhook_batch_throttle_burst,
        );
        over(
            &mut audit.webhook.batch.when_full,
            self.audit_webhook_batch_when_full,
        );
        over(
            &mut audit.webhook.truncate.enabled,
            self.audit_webhook_truncate_enabled,
        );
        over(
            &mut audit.webhook.truncate.max_batch_size,
            self.audit_webhook_truncate_max_batch_size,
        );
        over(
            &mut audit.webhook.truncate.max_event_size,
            self.audit_webhook_truncate_max_event_size,
        );
        over(
            &mut audit.webhook.spool.max_size,
            self.audit_webhook_spool_max_size,
        );
        over(&mut audit.webhook.spool.max_age, self.audit_webhook_spool_max_age);
        over(&mut audit.journal.mode, self.audit_journal_mode);
        over(&mut audit.journal.instance, self.audit_journal_instance);
        over(&mut audit.sink_dir, self.audit_sink_dir);
    }
}

impl GatewayFlags {
    /// Lays what was given over `config`.
    pub(crate) fn apply(self, config: &mut Config) {
        over(&mut config.gateway.listen, self.listen);
        over(&mut config.gateway.tls.cert_file, self.tls_cert_file);
        over(&mut config.gateway.tls.key_file, self.tls_private_key_file);
        over(&mut config.gateway.tls.sni, self.tls_sni_cert_key);
        over(&mut config.gateway.tls.min_version, self.tls_min_version);
        over(&mut config.gateway.upstream.kubeconfig, self.upstream_kubeconfig);
        over(&mut config.gateway.trusted_proxies, self.trusted_proxies);
        over(&mut config.gateway.proxy_protocol.from, self.proxy_protocol_from);
        let limits = &mut config.gateway.limits;
        over(&mut limits.connections, self.max_connections);
        over(
            &mut limits.connections_per_address,
            self.max_connections_per_address,
        );
        over(&mut limits.requests_in_flight, self.max_requests_inflight);
        over(&mut limits.body_idle_timeout, self.body_idle_timeout);
        let authentication = &mut config.gateway.authentication;
        if let Some(tokens) = self.tokens {
            authentication.tokens = tokens;
        }
        over(&mut authentication.client_ca_file, self.client_ca_file);
        over(&mut authentication.client_crl_file, self.client_crl_file);
        over(
            &mut authentication.request_header.client_ca_file,
            self.requestheader_client_ca_file,
        );
        over(&mut config.gateway.upstream.servers, self.upstream_servers);
        over(&mut config.gateway.upstream.protocol, self.upstream_protocol);
        let access_log = &mut config.gateway.access_log;
        over(&mut access_log.path, self.access_log_path);
        over(&mut access_log.max_size, self.access_log_maxsize);
        over(&mut access_log.max_backup, self.access_log_maxbackup);
        over(
            &mut config.gateway.upstream.response_timeout,
            self.upstream_response_timeout,
        );
        over(&mut config.gateway.upstream.redirects, self.upstream_redirects);
        over(&mut config.metrics.listen, self.metrics_listen);
        over(&mut config.api.listen, self.api_listen);
        over(&mut config.data_dir, self.data_dir);
    }
}

fn over<T>(value: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *value = given;
    }
}
