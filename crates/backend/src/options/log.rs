//! The options of the log backend.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kaudit_sink::{Counters, Sink};

use super::{Batch, Common, DEFAULT_TRUNCATE_BATCH, DEFAULT_TRUNCATE_EVENT, OptionsError, Truncation};
use crate::{Format, Log, Rotation};

/// The `--audit-log-*` options as they are given: not yet checked.
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
    /// `drop-newest`, as upstream, or `drop-oldest`.
    pub batch_when_full: String,
    pub truncate_enabled: bool,
    /// Bytes.
    pub truncate_max_batch_size: i64,
    /// Bytes.
    pub truncate_max_event_size: i64,
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
            batch_when_full: "drop-newest".to_owned(),
            truncate_enabled: false,
            truncate_max_batch_size: DEFAULT_TRUNCATE_BATCH,
            truncate_max_event_size: DEFAULT_TRUNCATE_EVENT,
        }
    }
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
        Ok(self.common().decorate(Arc::new(log), counters))
    }

    fn rotation(&self) -> Rotation {
        Rotation {
            max_size_megabytes: u64::try_from(self.max_size).unwrap_or_default(),
            max_backups: usize::try_from(self.max_backup).unwrap_or_default(),
            max_age_days: u64::try_from(self.max_age).unwrap_or_default(),
            compress: self.compress,
        }
    }

    fn common(&self) -> Common<'_> {
        Common {
            plugin: "log",
            mode: &self.mode,
            version: &self.version,
            batch: Batch {
                buffer_size: self.batch_buffer_size,
                max_size: self.batch_max_size,
                max_wait: self.batch_max_wait,
                throttle_enable: self.batch_throttle_enable,
                throttle_qps: self.batch_throttle_qps,
                throttle_burst: self.batch_throttle_burst,
                max_in_flight: 1,
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
        let mut errors = self.common().validate();
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
    fn truncation_is_checked_although_it_is_off_and_all_mistakes_are_named_in_order() {
        refused(
            |options| options.truncate_max_event_size = 0,
            "invalid audit truncate log max event size 0, must be a positive number",
        );
        let options = LogOptions {
            mode: "foo".to_owned(),
            version: "v1".to_owned(),
            format: "xml".to_owned(),
            batch_buffer_size: 0,
            truncate_max_batch_size: 5,
            truncate_max_event_size: 6,
            max_age: -2,
            max_size: -1,
            ..LogOptions::default()
        };
        assert_eq!(
            options.validate(),
            [
                "invalid audit log mode foo, allowed modes are \"batch,blocking,blocking-strict\"",
                "invalid audit truncate log max batch size 5, must be greater than max event size (6)",
                "invalid group version, allowed versions are [\"audit.k8s.io/v1\"]",
                "invalid audit log format xml, allowed formats are \"legacy,json\"",
                "--audit-log-maxage -2 can't be a negative number",
                "--audit-log-maxsize -1 can't be a negative number",
            ]
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
            let truncating = LogOptions {
                truncate_enabled: true,
                ..options
            };
            let sink = truncating.build(&counters).unwrap();
            assert_eq!(sink.name(), format!("truncate<{name}>"));
            sink.shutdown();
        }
    }
}
