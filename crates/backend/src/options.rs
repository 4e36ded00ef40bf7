//! kube-apiserver's `--audit-log-*` and `--audit-webhook-*` options: defaults, validation, and the sink
//! they make.
//!
//! Source: k8s.io/apiserver pkg/server/options/audit.go.

mod log;
#[cfg(feature = "webhook")]
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use kaudit_sink::{Counters, Sink, Union};

use crate::{
    BatchConfig, Buffered, IgnoreErrors, LogError, Throttle, Truncate, TruncateConfig, Turns, WhenFull,
};

pub use log::LogOptions;
#[cfg(feature = "webhook")]
pub use webhook::WebhookOptions;

const DEFAULT_TRUNCATE_BATCH: i64 = 10 * 1024 * 1024;
const DEFAULT_TRUNCATE_EVENT: i64 = 100 * 1024;

/// Why options do not make a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Values that upstream refuses, in its words, each with what to write instead where that helps.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// The file cannot be written.
    #[error(transparent)]
    Open(#[from] LogError),
    /// The webhook's kubeconfig cannot be used.
    #[cfg(feature = "webhook")]
    #[error("initializing audit webhook")]
    Webhook(#[source] crate::webhook::WebhookError),
}

/// The options of all backends.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "filled by field from flags and files")]
pub struct BackendOptions {
    /// Off without a path.
    pub log: LogOptions,
    /// Off without a configuration file.
    #[cfg(feature = "webhook")]
    pub webhook: WebhookOptions,
}

/// The backends that options ask for, as one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Backends {
    /// What takes the events; its name is upstream's.
    pub sink: Arc<dyn Sink>,
    /// The webhook in it, for its numbers.
    #[cfg(feature = "webhook")]
    pub webhook: Option<Arc<crate::Webhook>>,
}

impl BackendOptions {
    /// Upstream's complaints about the backends that are on, in its order: the log's first.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut errors = Vec::new();
        if !self.log.path.is_empty() {
            errors.extend(self.log.validate());
        }
        #[cfg(feature = "webhook")]
        if !self.webhook.config_file.is_empty() {
            errors.extend(self.webhook.validate());
        }
        errors
    }

    /// The backends that are on as one sink, the log first; `None` if all are off. Connections and
    /// deliveries of the webhook are tasks of `runtime`, which has to outlive the sink's shutdown.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] for values that upstream refuses, a file that cannot be written, and a kubeconfig
    /// that cannot be used.
    pub fn build(
        &self,
        counters: &Arc<Counters>,
        #[cfg(feature = "webhook")] runtime: &tokio::runtime::Handle,
    ) -> Result<Option<Backends>, OptionsError> {
        let errors = self.validate();
        if !errors.is_empty() {
            return Err(OptionsError::Invalid(errors));
        }
        let mut sinks = Vec::new();
        if !self.log.path.is_empty() {
            sinks.push(self.log.build(counters)?);
        }
        #[cfg(feature = "webhook")]
        let mut webhook = None;
        #[cfg(feature = "webhook")]
        if !self.webhook.config_file.is_empty() {
            let (sink, plugin) = self.webhook.build(counters, runtime)?;
            sinks.push(sink);
            webhook = Some(plugin);
        }
        if sinks.is_empty() {
            return Ok(None);
        }
        Ok(Some(Backends {
            sink: Union::of(sinks),
            #[cfg(feature = "webhook")]
            webhook,
        }))
    }
}

/// What both plugins have.
struct Common<'o> {
    plugin: &'static str,
    mode: &'o str,
    version: &'o str,
    batch: Batch<'o>,
    truncate: Truncation,
}

struct Batch<'o> {
    buffer_size: i64,
    max_size: i64,
    max_wait: Duration,
    throttle_enable: bool,
    throttle_qps: f32,
    throttle_burst: i64,
    max_in_flight: i64,
    when_full: &'o str,
}

struct Truncation {
    enabled: bool,
    max_batch_size: i64,
    max_event_size: i64,
}

impl Common<'_> {
    /// The complaints that both plugins can have.
    fn validate(&self) -> Vec<String> {
        let plugin = self.plugin;
        let mut errors = Vec::new();
        match self.mode {
            "batch" => errors.extend(self.batch.validate(plugin)),
            "blocking" | "blocking-strict" => {}
            mode => errors.push(format!(
                "invalid audit {plugin} mode {mode}, allowed modes are \"batch,blocking,blocking-strict\""
            )),
        }
        errors.extend(self.truncate.validate(plugin));
        if self.version != "audit.k8s.io/v1" {
            errors.push(if self.version.matches('/').count() > 1 {
                format!("unexpected GroupVersion string: {}", self.version)
            } else {
                "invalid group version, allowed versions are [\"audit.k8s.io/v1\"]".to_owned()
            });
        }
        errors
    }

    /// The plugin in its mode, and truncation around that.
    fn decorate(&self, plugin: Arc<dyn Sink>, counters: &Arc<Counters>) -> Arc<dyn Sink> {
        let sink: Arc<dyn Sink> = match self.mode {
            "batch" => Arc::new(Buffered::new(plugin, self.batch.config(), Arc::clone(counters))),
            "blocking-strict" => plugin,
            // A log is done when it is written: nobody waits for anything that a turn would delay.
            _ if self.plugin == "log" => Arc::new(Turns::new(Arc::new(IgnoreErrors::new(plugin)))),
            _ => Arc::new(IgnoreErrors::new(plugin)),
        };
        self.truncated(sink, counters)
    }

    /// Truncation, if there is any, around a sink that knows its mode by itself.
    fn truncated(&self, sink: Arc<dyn Sink>, counters: &Arc<Counters>) -> Arc<dyn Sink> {
        if !self.truncate.enabled {
            return sink;
        }
        let config = TruncateConfig {
            max_event_size: usize::try_from(self.truncate.max_event_size).unwrap_or_default(),
            max_batch_size: usize::try_from(self.truncate.max_batch_size).unwrap_or_default(),
        };
        Arc::new(Truncate::new(sink, config, Arc::clone(counters)))
    }
}

impl Batch<'_> {
    fn config(&self) -> BatchConfig {
        let count = |value: i64| usize::try_from(value).unwrap_or(1);
        BatchConfig {
            buffer_size: count(self.buffer_size),
            max_batch_size: count(self.max_size),
            max_batch_wait: self.max_wait,
            throttle: self.throttle_enable.then_some(Throttle {
                qps: self.throttle_qps,
                burst: u32::try_from(self.throttle_burst).unwrap_or(1),
            }),
            max_in_flight: count(self.max_in_flight),
            when_full: match self.when_full {
                "drop-oldest" => WhenFull::DropOldest,
                _ => WhenFull::DropNewest,
            },
        }
    }

    /// The first hit wins; what upstream does not have comes last.
    fn validate(&self, plugin: &str) -> Option<String> {
        let positive = |what: &str, value: String| {
            Some(format!(
                "invalid audit batch {plugin} {what} {value}, must be a positive number"
            ))
        };
        if self.buffer_size <= 0 {
            return positive("buffer size", self.buffer_size.to_string());
        }
        if self.max_size <= 0 {
            return positive("max batch size", self.max_size.to_string());
        }
        if self.throttle_enable {
            if self.throttle_qps.is_nan() || self.throttle_qps <= 0.0 {
                return positive("throttle QPS", self.throttle_qps.to_string());
            }
            if self.throttle_burst <= 0 {
                return positive("throttle burst", self.throttle_burst.to_string());
            }
        }
        if self.max_in_flight <= 0 {
            return positive("max in flight", self.max_in_flight.to_string());
        }
        if !matches!(self.when_full, "drop-newest" | "drop-oldest") {
            return Some(format!(
                "invalid audit batch {plugin} when full {}, allowed are \"drop-newest,drop-oldest\"",
                self.when_full
            ));
        }
        None
    }
}

impl Truncation {
    /// Also when truncation is off, as upstream does.
    fn validate(&self, plugin: &str) -> Option<String> {
        let Self {
            max_batch_size: batch,
            max_event_size: event,
            ..
        } = *self;
        if event <= 0 {
            return Some(format!(
                "invalid audit truncate {plugin} max event size {event}, must be a positive number"
            ));
        }
        (batch < event).then(|| {
            format!(
                "invalid audit truncate {plugin} max batch size {batch}, must be greater than max event size ({event})"
            )
        })
    }
}
