//! kube-apiserver's `--audit-log-*` options: defaults, validation, and the sink they make.
//!
//! Source: k8s.io/apiserver pkg/server/options/audit.go.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kaudit_sink::{Counters, Sink};

use crate::{BatchConfig, Buffered, Format, IgnoreErrors, Log, LogError, Rotation, Throttle};

/// What a failing backend means to the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "upstream has these three")]
pub enum Mode {
    /// Events are queued.
    Batch,
    /// Events are written at once; a failure is counted.
    #[default]
    Blocking,
    /// Events are written at once; when RequestReceived cannot be written, the request is refused.
    BlockingStrict,
}

/// The options as they are given: not yet checked.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    missing_docs,
    reason = "the fields are upstream's flags under their own names"
)]
#[expect(clippy::exhaustive_structs, reason = "filled by field from flags and files")]
pub struct LogOptions {
    /// `-` is standard output.
    pub path: String,
    pub format: String,
    pub version: String,
    pub mode: String,
    /// Days.
    pub max_age: i64,
    pub max_backup: i64,
    /// MB.
    pub max_size: i64,
    pub compress: bool,
    pub batch_buffer_size: i64,
    pub batch_max_size: i64,
    pub batch_max_wait: Duration,
    pub batch_throttle_enable: bool,
    pub batch_throttle_qps: f32,
    pub batch_throttle_burst: i64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            path: String::new(),
            format: "json".to_owned(),
            version: "audit.k8s.io/v1".to_owned(),
            mode: "blocking".to_owned(),
            max_age: 366,
            max_backup: 100,
            max_size: 100,
            compress: false,
            batch_buffer_size: 10_000,
            batch_max_size: 1,
            batch_max_wait: Duration::ZERO,
            batch_throttle_enable: false,
            batch_throttle_qps: 0.0,
            batch_throttle_burst: 0,
        }
    }
}

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
}

impl LogOptions {
    /// The backend with its mode.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] for values that upstream refuses and for a file that cannot be written.
    pub fn build(&self, counters: &Arc<Counters>) -> Result<Arc<dyn Sink>, OptionsError> {
        let errors = self.validate();
        if !errors.is_empty() {
            return Err(OptionsError::Invalid(errors));
        }
        let format = if self.format == "legacy" {
            Format::Legacy
        } else {
            Format::Json
        };
        let log = if self.path == "-" {
            Log::stream(Box::new(std::io::stdout()), format, Arc::clone(counters))
        } else {
            Log::file(
                Path::new(&self.path),
                self.rotation(),
                format,
                Arc::clone(counters),
            )?
        };
        let log: Arc<dyn Sink> = Arc::new(log);
        Ok(match self.mode.as_str() {
            "batch" => Arc::new(Buffered::new(log, self.batch(), Arc::clone(counters))),
            "blocking-strict" => log,
            _ => Arc::new(IgnoreErrors::new(log)),
        })
    }

    fn rotation(&self) -> Rotation {
        Rotation {
            max_size_megabytes: u64::try_from(self.max_size).unwrap_or_default(),
            max_backups: usize::try_from(self.max_backup).unwrap_or_default(),
            max_age_days: u64::try_from(self.max_age).unwrap_or_default(),
            compress: self.compress,
        }
    }

    fn batch(&self) -> BatchConfig {
        let count = |value: i64| usize::try_from(value).unwrap_or(1);
        BatchConfig {
            buffer_size: count(self.batch_buffer_size),
            max_batch_size: count(self.batch_max_size),
            max_batch_wait: self.batch_max_wait,
            throttle: self.batch_throttle_enable.then_some(Throttle {
                qps: self.batch_throttle_qps,
                burst: u32::try_from(self.batch_throttle_burst).unwrap_or(1),
            }),
        }
    }

    /// Upstream's complaints, in its order.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut errors = Vec::new();
        match self.mode.as_str() {
            "batch" => errors.extend(self.validate_batch()),
            "blocking" | "blocking-strict" => {}
            mode => errors.push(format!(
                "invalid audit log mode {mode}, allowed modes are \"batch,blocking,blocking-strict\""
            )),
        }
        if self.version != "audit.k8s.io/v1" {
            errors.push(if self.version.matches('/').count() > 1 {
                format!("unexpected GroupVersion string: {}", self.version)
            } else {
                "invalid group version, allowed versions are [\"audit.k8s.io/v1\"]".to_owned()
            });
        }
        if !matches!(self.format.as_str(), "json" | "legacy") {
            errors.push(format!(
                "invalid audit log format {}, allowed formats are \"legacy,json\"",
                self.format
            ));
        }
        for (name, value) in [
            ("maxage", self.max_age),
            ("maxbackup", self.max_backup),
            ("maxsize", self.max_size),
        ] {
            if value < 0 {
                errors.push(format!("--audit-log-{name} {value} can't be a negative number"));
            }
        }
        errors
    }

    /// The first hit wins.
    fn validate_batch(&self) -> Option<String> {
        let positive = |what: &str, value: String| {
            Some(format!(
                "invalid audit batch log {what} {value}, must be a positive number"
            ))
        };
        if self.batch_buffer_size <= 0 {
            return positive("buffer size", self.batch_buffer_size.to_string());
        }
        if self.batch_max_size <= 0 {
            return positive("max batch size", self.batch_max_size.to_string());
        }
        if self.batch_throttle_enable {
            if self.batch_throttle_qps <= 0.0 {
                return positive("throttle QPS", self.batch_throttle_qps.to_string());
            }
            if self.batch_throttle_burst <= 0 {
                return positive("throttle burst", self.batch_throttle_burst.to_string());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut LogOptions), expected: &str) {
        let mut options = LogOptions::default();
        change(&mut options);
        assert_eq!(options.validate(), [expected]);
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(LogOptions::default().validate().is_empty());
    }

    #[test]
    fn mistakes_are_refused_in_upstreams_words() {
        refused(
            |options| options.mode = "foo".to_owned(),
            "invalid audit log mode foo, allowed modes are \"batch,blocking,blocking-strict\"",
        );
        refused(
            |options| options.format = "xml".to_owned(),
            "invalid audit log format xml, allowed formats are \"legacy,json\"",
        );
        refused(
            |options| options.max_age = -1,
            "--audit-log-maxage -1 can't be a negative number",
        );
        refused(
            |options| options.version = "a/b/c".to_owned(),
            "unexpected GroupVersion string: a/b/c",
        );
        refused(
            |options| {
                options.mode = "batch".to_owned();
                options.batch_buffer_size = 0;
            },
            "invalid audit batch log buffer size 0, must be a positive number",
        );
        refused(
            |options| {
                options.mode = "batch".to_owned();
                options.batch_throttle_enable = true;
            },
            "invalid audit batch log throttle QPS 0, must be a positive number",
        );
    }

    #[test]
    fn modes_name_themselves_as_upstream_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let counters = Arc::new(Counters::default());
        for (mode, name) in [
            ("blocking", "ignoreErrors<log>"),
            ("blocking-strict", "log"),
            ("batch", "buffered<log>"),
        ] {
            let path = dir.path().join("audit.log").to_str().unwrap().to_owned();
            let options = LogOptions {
                path,
                mode: mode.to_owned(),
                ..LogOptions::default()
            };
            let sink = options.build(&counters).unwrap();
            assert_eq!(sink.name(), name);
            sink.shutdown();
        }
    }
}
