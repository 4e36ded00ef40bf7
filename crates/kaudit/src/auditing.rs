//! What is recorded, and where to: the policy and the sink that a configuration asks for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kaudit_backend::{LogOptions, OptionsError};
use kaudit_policy::{MAX_POLICY_BYTES, Policy, unreadable_file};
use kaudit_sink::{Counters, Discard, Sink};
use kaudit_tower::PolicyHandle;
use tracing::{info, warn};

use crate::config;
use crate::exit::Failure;

/// Policy and sink of one audit chain.
#[derive(Clone, Debug)]
pub(crate) struct Auditing {
    pub(crate) policy: PolicyHandle,
    pub(crate) policy_file: Option<PathBuf>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) counters: Arc<Counters>,
}

impl Auditing {
    /// Loads the policy and opens the log.
    ///
    /// Source: k8s.io/apiserver pkg/server/options/audit.go, ApplyTo: without a policy nothing is
    /// recorded, whatever backends there are, and without a backend nothing is, whatever the policy says.
    pub(crate) fn start(config: &config::Audit) -> Result<Self, Failure> {
        let options = log_options(&config.log);
        let policy = match (&config.policy_file, &options) {
            (Some(file), Some(_)) => PolicyHandle::new(load_policy(file)?),
            (Some(file), None) => {
                load_policy(file)?;
                warn!("a policy without a backend records nothing: give --audit-log-path");
                PolicyHandle::none()
            }
            (None, Some(_)) => {
                warn!("no audit policy file: nothing is recorded (--audit-policy-file)");
                PolicyHandle::none()
            }
            (None, None) => {
                warn!("neither policy nor backend: nothing is recorded");
                PolicyHandle::none()
            }
        };
        let counters = Arc::new(Counters::default());
        let sink = match options {
            Some(options) => open(&options, &counters)?,
            None => Arc::new(Discard),
        };
        info!(sink = sink.name(), "audit backend");
        Ok(Self {
            policy,
            policy_file: config.policy_file.clone(),
            sink,
            counters,
        })
    }

    /// Delivers what is queued.
    pub(crate) async fn shutdown(self) {
        let sink = self.sink;
        // A panic of the sink was reported by its own thread.
        drop(tokio::task::spawn_blocking(move || sink.shutdown()).await);
    }
}

/// A log sink of these options.
pub(crate) fn open(options: &LogOptions, counters: &Arc<Counters>) -> Result<Arc<dyn Sink>, Failure> {
    options.build(counters).map_err(|error| match error {
        OptionsError::Invalid(_) => Failure::usage(error),
        error => Failure::unreachable(error),
    })
}

/// The options of the log backend; `None` when it is off.
fn log_options(log: &config::Log) -> Option<LogOptions> {
    let path = log.path.clone().filter(|path| !path.is_empty())?;
    let default = LogOptions::default();
    let batch = &log.batch;
    Some(LogOptions {
        path,
        format: log.format.clone().unwrap_or(default.format),
        version: log.version.clone().unwrap_or(default.version),
        mode: log.mode.clone().unwrap_or(default.mode),
        max_age: log.max_age.unwrap_or(default.max_age),
        max_backup: log.max_backup.unwrap_or(default.max_backup),
        max_size: log.max_size.unwrap_or(default.max_size),
        compress: log.compress.unwrap_or(default.compress),
        batch_buffer_size: batch.buffer_size.unwrap_or(default.batch_buffer_size),
        batch_max_size: batch.max_size.unwrap_or(default.batch_max_size),
        batch_max_wait: batch.max_wait.map_or(default.batch_max_wait, |wait| wait.0),
        batch_throttle_enable: batch.throttle_enable.unwrap_or(default.batch_throttle_enable),
        batch_throttle_qps: batch.throttle_qps.unwrap_or(default.batch_throttle_qps),
        batch_throttle_burst: batch.throttle_burst.unwrap_or(default.batch_throttle_burst),
        ..default
    })
}

/// Reads a policy file; warnings go to the log.
pub(crate) fn load_policy(file: &Path) -> Result<Policy, Failure> {
    let name = file.display().to_string();
    let document = read_policy(file)?;
    let (policy, warnings) = Policy::load(&document);
    for warning in &warnings.0 {
        warn!(file = %name, "{warning}");
    }
    policy.map_err(|error| Failure::usage(anyhow::anyhow!(error.from_file(&name))))
}

/// The bytes of a policy file, if it is not larger than a policy may be.
pub(crate) fn read_policy(file: &Path) -> Result<Vec<u8>, Failure> {
    let name = file.display().to_string();
    let unreadable =
        |error: std::io::Error| Failure::usage(anyhow::anyhow!(unreadable_file(&name, &error.to_string())));
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > MAX_POLICY_BYTES as u64 {
        return Err(Failure::usage(anyhow::anyhow!(
            "{name}: a policy may have {MAX_POLICY_BYTES} bytes, this one has {size}"
        )));
    }
    std::fs::read(file).map_err(unreadable)
}
