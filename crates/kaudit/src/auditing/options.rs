//! From the configuration to the backends, with what to write in the place of mistakes that people make.

use std::io;
use std::path::Path;
use std::sync::Arc;

use kaudit_backend::LogOptions;
use kaudit_sink::{Counters, Sink};

use super::refused;
use crate::config::{self, Log};
use crate::exit::Failure;
use crate::sinks::Backend;

/// A backend as an operator and as the chain see it.
type Opened = (Backend, Arc<dyn Sink>);

/// The backends of a configuration, in upstream's order.
pub(super) fn open(config: &config::Audit) -> Result<Vec<Opened>, Failure> {
    let mut backends = Vec::new();
    if let Some(options) = log(&config.log) {
        let counters = Arc::new(Counters::default());
        let sink = options.build(&counters).map_err(refused)?;
        let backend = Backend {
            name: "log",
            target: options.path.clone(),
            composition: sink.name(),
            counters,
        };
        backends.push((backend, sink));
    }
    Ok(backends)
}

/// The options of the log backend; `None` when it is off.
fn log(log: &Log) -> Option<LogOptions> {
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
    })
}

/// What to do about a file that is not there.
pub(super) fn why_not_there(file: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return String::new();
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.exists() => format!(
            "\n  fix: the folder `{}` is not there either: in a pod, mount it (volumes and volumeMounts)",
            folder.display()
        ),
        _ => "\n  fix: check the file's name; in a pod, only what is mounted is there".to_owned(),
    }
}
