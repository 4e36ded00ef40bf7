//! The options of the webhook backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kaudit_dial::Cluster;
use kaudit_sink::{Counters, Sink};
use tokio::runtime::Handle;

use super::{Batch, Common, DEFAULT_TRUNCATE_BATCH, DEFAULT_TRUNCATE_EVENT, OptionsError, Truncation};
use crate::webhook::{Webhook, WebhookConfig, WebhookError};

/// The `--audit-webhook-*` options as they are given: not yet checked.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    missing_docs,
    reason = "the fields are upstream's flags under their own names"
)]
#[expect(clippy::exhaustive_structs, reason = "filled by field from flags and files")]
pub struct WebhookOptions {
    /// A kubeconfig.
    pub config_file: String,
    pub version: String,
    /// Also `--audit-webhook-batch-initial-backoff`.
    pub initial_backoff: Duration,
    pub mode: String,
    pub batch_buffer_size: i64,
    pub batch_max_size: i64,
    pub batch_max_wait: Duration,
    pub batch_throttle_enable: bool,
    pub batch_throttle_qps: f32,
    pub batch_throttle_burst: i64,
    /// Batches under way at once; upstream has no bound.
    pub batch_max_in_flight: i64,
    /// `drop-newest`, as upstream, or `drop-oldest`.
    pub batch_when_full: String,
    pub truncate_enabled: bool,
    /// Bytes.
    pub truncate_max_batch_size: i64,
    /// Bytes.
    pub truncate_max_event_size: i64,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            config_file: String::new(),
            version: "audit.k8s.io/v1".to_owned(),
            initial_backoff: Duration::from_secs(10),
            mode: "batch".to_owned(),
            batch_buffer_size: 10_000,
            batch_max_size: 400,
            batch_max_wait: Duration::from_secs(30),
            batch_throttle_enable: true,
            batch_throttle_qps: 10.0,
            batch_throttle_burst: 15,
            // With upstream's throttle and retries: an outage of a minute and a half at 1000 events a
            // second.
            batch_max_in_flight: 256,
            batch_when_full: "drop-newest".to_owned(),
            truncate_enabled: false,
            truncate_max_batch_size: DEFAULT_TRUNCATE_BATCH,
            truncate_max_event_size: DEFAULT_TRUNCATE_EVENT,
        }
    }
}

impl WebhookOptions {
    /// The backend in its mode, and the bare webhook in it for its numbers.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] for values that upstream refuses and for a kubeconfig that cannot be used.
    pub fn build(
        &self,
        counters: &Arc<Counters>,
        runtime: &Handle,
    ) -> Result<(Arc<dyn Sink>, Arc<Webhook>), OptionsError> {
        let errors = self.validate();
        if !errors.is_empty() {
            return Err(OptionsError::Invalid(errors));
        }
        let webhook = self.webhook(counters, runtime).map_err(OptionsError::Webhook)?;
        let webhook = Arc::new(webhook);
        let plugin: Arc<dyn Sink> = Arc::<Webhook>::clone(&webhook);
        Ok((self.common().decorate(plugin, counters), webhook))
    }

    /// The bare webhook, for a queue of one's own before it.
    ///
    /// # Errors
    ///
    /// As [`WebhookOptions::build`].
    pub fn bare(&self, counters: &Arc<Counters>, runtime: &Handle) -> Result<Webhook, OptionsError> {
        let errors = self.validate();
        if !errors.is_empty() {
            return Err(OptionsError::Invalid(errors));
        }
        self.webhook(counters, runtime).map_err(OptionsError::Webhook)
    }

    /// Truncation, if it is on, around a queue of one's own that knows its mode by itself.
    #[must_use]
    pub fn truncated(&self, queue: Arc<dyn Sink>, counters: &Arc<Counters>) -> Arc<dyn Sink> {
        self.common().truncated(queue, counters)
    }

    fn webhook(&self, counters: &Arc<Counters>, runtime: &Handle) -> Result<Webhook, WebhookError> {
        let file = Path::new(&self.config_file);
        if !file.exists() {
            return Err(WebhookError::Missing(PathBuf::from(file)));
        }
        let cluster = Cluster::from_kubeconfig(file)?;
        let config = WebhookConfig {
            initial_backoff: self.initial_backoff,
            ..WebhookConfig::default()
        };
        Webhook::new(&cluster, config, Arc::clone(counters), runtime.clone())
    }

    fn common(&self) -> Common<'_> {
        Common {
            plugin: "webhook",
            mode: &self.mode,
            version: &self.version,
            batch: Batch {
                buffer_size: self.batch_buffer_size,
                max_size: self.batch_max_size,
                max_wait: self.batch_max_wait,
                throttle_enable: self.batch_throttle_enable,
                throttle_qps: self.batch_throttle_qps,
                throttle_burst: self.batch_throttle_burst,
                max_in_flight: self.batch_max_in_flight,
                when_full: &self.batch_when_full,
            },
            truncate: Truncation {
                enabled: self.truncate_enabled,
                max_batch_size: self.truncate_max_batch_size,
                max_event_size: self.truncate_max_event_size,
            },
        }
    }

    /// Upstream's complaints, in its order.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        self.common().validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BackendOptions, LogOptions};

    fn options(dir: &Path) -> BackendOptions {
        let config = dir.join("webhook.kubeconfig");
        std::fs::write(&config, "clusters: [{cluster: {server: 'http://127.0.0.1:1'}}]\n").unwrap();
        BackendOptions {
            log: LogOptions {
                path: dir.join("audit.log").to_str().unwrap().to_owned(),
                ..LogOptions::default()
            },
            webhook: WebhookOptions {
                config_file: config.to_str().unwrap().to_owned(),
                ..WebhookOptions::default()
            },
        }
    }

    fn name(options: &BackendOptions) -> Option<String> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let backends = options.build(&Arc::default(), runtime.handle()).unwrap()?;
        backends.sink.shutdown();
        Some(backends.sink.name())
    }

    #[test]
    fn compositions_are_named_as_upstream_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let both = options(dir.path());
        assert_eq!(
            name(&both).as_deref(),
            Some("union[ignoreErrors<log>,buffered<webhook>]")
        );
        let mut truncating = both.clone();
        truncating.webhook.truncate_enabled = true;
        assert_eq!(
            name(&truncating).as_deref(),
            Some("union[ignoreErrors<log>,truncate<buffered<webhook>>]")
        );
        let mut other_modes = both.clone();
        other_modes.log.mode = "batch".to_owned();
        other_modes.webhook.mode = "blocking".to_owned();
        assert_eq!(
            name(&other_modes).as_deref(),
            Some("union[buffered<log>,ignoreErrors<webhook>]")
        );
        let mut strict = both.clone();
        strict.log.path = String::new();
        strict.webhook.mode = "blocking-strict".to_owned();
        assert_eq!(name(&strict).as_deref(), Some("webhook"));
        assert_eq!(name(&BackendOptions::default()), None);
    }

    #[test]
    fn mistakes_in_both_are_told_together_the_logs_first_and_those_of_an_off_backend_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut both = options(dir.path());
        both.log.mode = "x".to_owned();
        both.webhook.batch_throttle_qps = 0.0;
        both.webhook.version = "a/b/c".to_owned();
        assert_eq!(
            both.validate(),
            [
                "invalid audit log mode x, allowed modes are \"batch,blocking,blocking-strict\"",
                "invalid audit batch webhook throttle QPS 0, must be a positive number",
                "unexpected GroupVersion string: a/b/c",
            ]
        );
        both.log.path = String::new();
        assert_eq!(both.validate().len(), 2);
    }

    #[test]
    fn a_kubeconfig_that_is_not_there_is_told_in_upstreams_words() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = WebhookOptions {
            config_file: "/gone/webhook".to_owned(),
            ..WebhookOptions::default()
        };
        let error = options.build(&Arc::default(), runtime.handle()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(
            format!("{error}: {source}"),
            "initializing audit webhook: stat /gone/webhook: no such file or directory"
        );
    }
}
