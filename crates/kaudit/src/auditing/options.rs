//! From the configuration to the backends, with what to write in the place of mistakes that people make.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use kaudit_backend::{BackendOptions, LogOptions, OptionsError, WebhookOptions};
use kaudit_collect::{
    Deliver, Delivery, JournalSink, JournalSinkOptions, Origin, SinkMode, Spool, SpoolOptions, Way,
};
use kaudit_sink::{Counters, Emission, Sink};
use serde_json::Value;
use tokio::runtime::Handle;

use super::JournalPlan;
use crate::config::{self, Log, Webhook};
use crate::exit::Failure;
use crate::sinks::Backend;

/// A larger file is no kubeconfig of a webhook.
const MAX_KUBECONFIG_BYTES: u64 = 4 << 20;

/// A backend as an operator and as the chain see it.
type Opened = (Backend, Arc<dyn Sink>);

/// The backends of a configuration, in upstream's order. Deliveries are tasks of `runtime`.
pub(super) fn open(
    config: &config::Audit,
    data_dir: Option<&Path>,
    runtime: &Handle,
) -> Result<Vec<Opened>, Failure> {
    let options = BackendOptions {
        log: log(&config.log),
        webhook: webhook(&config.webhook),
    };
    // All mistakes at once, before any file is made.
    let errors = options.validate();
    if !errors.is_empty() {
        return Err(refused(OptionsError::Invalid(errors)));
    }
    let mut backends = Vec::new();
    if !options.log.path.is_empty() {
        let counters = Arc::new(Counters::default());
        let sink = options.log.build(&counters).map_err(refused)?;
        let target = options.log.path.clone();
        backends.push(opened("log", target, sink, counters));
    }
    if !options.webhook.config_file.is_empty() {
        let counters = Arc::new(Counters::default());
        look_for_settings(Path::new(&options.webhook.config_file))?;
        if config.webhook.spool.is_on() {
            backends.push(spooled(config, &options.webhook, data_dir, counters, runtime)?);
        } else {
            let (sink, webhook) = options.webhook.build(&counters, runtime).map_err(refused)?;
            backends.push(opened("webhook", webhook.server().to_string(), sink, counters));
        }
    } else if config.webhook.spool.is_on() {
        return Err(Failure::usage(anyhow!(
            "audit.webhook.spool is a queue before a webhook, and there is none: give --audit-webhook-config-file"
        )));
    }
    Ok(backends)
}

/// The webhook behind a queue on disk.
fn spooled(
    config: &config::Audit,
    options: &WebhookOptions,
    data_dir: Option<&Path>,
    counters: Arc<Counters>,
    runtime: &Handle,
) -> Result<Opened, Failure> {
    let data_dir = data_dir.ok_or_else(|| {
        Failure::usage(anyhow!(
            "the webhook's spool needs a place: give --data-dir, or `dataDir` in the configuration file"
        ))
    })?;
    let webhook = options.bare(&counters, runtime).map_err(refused)?;
    let target = webhook.server().to_string();
    let folder = data_dir.join("spool").join("webhook");
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder);
    made.map_err(|error| {
        Failure::unreachable(anyhow!(error).context(format!("cannot make `{}`", folder.display())))
    })?;
    let mut spool = SpoolOptions::default();
    spool.mode = match options.mode.as_str() {
        "blocking" => SinkMode::Blocking,
        "blocking-strict" => SinkMode::BlockingStrict,
        _ => SinkMode::Batch,
    };
    let bounds = &config.webhook.spool;
    spool.max_bytes = bounds.max_size.map_or(spool.max_bytes, |size| size.0);
    spool.max_age = bounds.max_age.map_or(spool.max_age, |age| age.0);
    spool.max_batch_events = usize::try_from(options.batch_max_size).unwrap_or(spool.max_batch_events);
    spool.max_batch_wait = options.batch_max_wait;
    spool.initial_backoff = options.initial_backoff;
    let deliver = Arc::new(Delivering(webhook));
    let queue = Spool::open(&folder, deliver, Arc::clone(&counters), runtime, spool)
        .map_err(|error| Failure::unreachable(anyhow!(error).context("cannot open the webhook's spool")))?;
    let sink = options.truncated(Arc::new(queue), &counters);
    Ok(opened("webhook", target, sink, counters))
}

/// A webhook as what a spool delivers through.
#[derive(Debug)]
struct Delivering(kaudit_backend::Webhook);

impl Deliver for Delivering {
    fn attempt(&self, batch: Vec<Emission<'static>>) -> Delivery {
        let attempt = self.0.attempt(batch);
        Box::pin(async move { attempt.await.map_err(|failed| failed.to_string()) })
    }

    fn name(&self) -> String {
        self.0.name()
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }
}

/// The journal of this process as a backend.
pub(super) fn journal(plan: JournalPlan) -> Result<Opened, Failure> {
    let counters = Arc::new(Counters::default());
    let origin = Origin {
        cluster: plan.cluster,
        instance: plan.instance,
        transport: Way::Gateway,
        path: String::new(),
    };
    let mut options = JournalSinkOptions::default();
    options.mode = plan.mode;
    let sink = JournalSink::new(plan.intake, &origin, Arc::clone(&counters), options)
        .map_err(Failure::unreachable)?;
    let target = format!("{}/{}", origin.cluster, origin.instance);
    Ok(opened("journal", target, Arc::new(sink), counters))
}

fn opened(name: &'static str, target: String, sink: Arc<dyn Sink>, counters: Arc<Counters>) -> Opened {
    let backend = Backend {
        name,
        target,
        composition: sink.name(),
        counters,
    };
    (backend, sink)
}

/// The options of the log backend; without a path it is off.
fn log(log: &Log) -> LogOptions {
    let default = LogOptions::default();
    let (batch, truncate) = (&log.batch, &log.truncate);
    LogOptions {
        path: log.path.clone().unwrap_or(default.path),
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
        batch_when_full: batch.when_full.clone().unwrap_or(default.batch_when_full),
        truncate_enabled: truncate.enabled.unwrap_or(default.truncate_enabled),
        truncate_max_batch_size: truncate.max_batch_size.unwrap_or(default.truncate_max_batch_size),
        truncate_max_event_size: truncate.max_event_size.unwrap_or(default.truncate_max_event_size),
    }
}

/// The options of the webhook backend; without a file it is off.
fn webhook(webhook: &Webhook) -> WebhookOptions {
    let default = WebhookOptions::default();
    let (batch, truncate) = (&webhook.batch, &webhook.truncate);
    WebhookOptions {
        config_file: webhook
            .config_file
            .as_ref()
            .map_or(default.config_file, |file| file.display().to_string()),
        version: webhook.version.clone().unwrap_or(default.version),
        initial_backoff: webhook
            .initial_backoff
            .map_or(default.initial_backoff, |backoff| backoff.0),
        mode: webhook.mode.clone().unwrap_or(default.mode),
        batch_buffer_size: batch.buffer_size.unwrap_or(default.batch_buffer_size),
        batch_max_size: batch.max_size.unwrap_or(default.batch_max_size),
        batch_max_wait: batch.max_wait.map_or(default.batch_max_wait, |wait| wait.0),
        batch_throttle_enable: batch.throttle_enable.unwrap_or(default.batch_throttle_enable),
        batch_throttle_qps: batch.throttle_qps.unwrap_or(default.batch_throttle_qps),
        batch_throttle_burst: batch.throttle_burst.unwrap_or(default.batch_throttle_burst),
        batch_max_in_flight: default.batch_max_in_flight,
        batch_when_full: batch.when_full.clone().unwrap_or(default.batch_when_full),
        truncate_enabled: truncate.enabled.unwrap_or(default.truncate_enabled),
        truncate_max_batch_size: truncate.max_batch_size.unwrap_or(default.truncate_max_batch_size),
        truncate_max_event_size: truncate.max_event_size.unwrap_or(default.truncate_max_event_size),
    }
}

/// Why a backend cannot be had, with the exit code for it, and what to write instead.
pub(super) fn refused(error: OptionsError) -> Failure {
    match error {
        OptionsError::Invalid(mut complaints) => {
            for complaint in &mut complaints {
                if let Some(fix) = fix_of(complaint) {
                    complaint.push_str("\n  fix: ");
                    complaint.push_str(fix);
                }
            }
            Failure::usage(OptionsError::Invalid(complaints))
        }
        OptionsError::Webhook(error) => {
            let error = anyhow!(error);
            let text = format!("{error:#}");
            let fix = if text.contains("no configuration has been provided") {
                "\n  fix: the file is a kubeconfig: it needs `clusters` with the receiver's `server`, a context that \
                 names the cluster, and `current-context`"
            } else if text.contains("context") {
                "\n  fix: set `current-context` to the name of a context that is in the file"
            } else {
                ""
            };
            Failure::usage(anyhow!("initializing audit webhook: {text}{fix}"))
        }
        error => Failure::unreachable(error),
    }
}

/// What to write in the place of a value that upstream refuses.
fn fix_of(complaint: &str) -> Option<&'static str> {
    Some(if complaint.contains("invalid audit log format") {
        "write json for one JSON object per line, legacy for one line of text"
    } else if complaint.contains("invalid group version") || complaint.contains("unexpected GroupVersion") {
        "write audit.k8s.io/v1; v1beta1 and v1alpha1 went away with Kubernetes 1.24"
    } else if complaint.contains("mode") && complaint.contains("allowed modes") {
        "write batch to queue events, blocking to write them at once, blocking-strict to refuse requests that cannot \
         be recorded"
    } else if complaint.contains("throttle QPS") || complaint.contains("throttle burst") {
        "a throttle that is enabled needs both --audit-*-batch-throttle-qps and --audit-*-batch-throttle-burst"
    } else if complaint.contains("must be greater than max event size") {
        "a batch holds at least one event: raise --audit-*-truncate-max-batch-size"
    } else {
        return None;
    })
}

/// Notices settings that people write into the webhook's kubeconfig, where nobody reads them.
fn look_for_settings(file: &Path) -> Result<(), Failure> {
    const SETTINGS: [&str; 9] = [
        "truncate",
        "batch",
        "mode",
        "throttle",
        "maxEventSize",
        "maxBatchSize",
        "initialBackoff",
        "version",
        "policy",
    ];
    let is_small = std::fs::metadata(file).is_ok_and(|metadata| metadata.len() <= MAX_KUBECONFIG_BYTES);
    // What cannot be read or parsed is told by who needs it.
    let content = is_small.then(|| std::fs::read_to_string(file).ok()).flatten();
    let document: Option<Value> = content.and_then(|text| serde_saphyr::from_str(&text).ok());
    let Some(Value::Object(document)) = document else {
        return Ok(());
    };
    let name = file.display();
    if document.get("kind").and_then(Value::as_str) == Some("Policy") {
        return Err(Failure::usage(anyhow!(
            "{name} is an audit policy: give it with --audit-policy-file; --audit-webhook-config-file takes a kubeconfig"
        )));
    }
    let found = document.keys().find(|key| {
        let key = key.replace(['-', '_'], "");
        SETTINGS
            .iter()
            .any(|setting| key.to_lowercase().starts_with(&setting.to_lowercase()))
    });
    found.map_or(Ok(()), |key| {
        Err(Failure::usage(anyhow!(
            "{name} is a kubeconfig, and `{key}` in it has no effect: write it as a flag (--audit-webhook-truncate-enabled, \
             --audit-webhook-batch-max-size, --audit-webhook-mode ...), or under `audit.webhook` in the configuration file"
        )))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says about a configuration.
    #[track_caller]
    fn says(audit: &config::Audit, expected: &[&str]) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let failure = open(audit, None, runtime.handle()).unwrap_err();
        for part in expected {
            let text = failure.to_string();
            assert!(text.contains(part), "`{text}` does not contain `{part}`");
        }
    }

    fn with_webhook(folder: &Path, text: &str) -> config::Audit {
        let file = folder.join("webhook.yaml");
        std::fs::write(&file, text).unwrap();
        config::Audit {
            webhook: Webhook {
                config_file: Some(file),
                ..Webhook::default()
            },
            ..config::Audit::default()
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_settings_table() {
        let of = |key: &str| {
            let setting = config::settings::SETTINGS
                .iter()
                .find(|setting| setting.key == key);
            setting.unwrap().default.to_owned()
        };
        let (log, webhook) = (log(&Log::default()), webhook(&Webhook::default()));
        assert_eq!(of("audit.log.mode"), log.mode);
        assert_eq!(of("audit.log.maxAge"), log.max_age.to_string());
        assert_eq!(of("audit.log.batch.maxSize"), log.batch_max_size.to_string());
        assert_eq!(of("audit.webhook.mode"), webhook.mode);
        assert_eq!(
            of("audit.webhook.batch.maxSize"),
            webhook.batch_max_size.to_string()
        );
        assert_eq!(of("audit.webhook.batch.whenFull"), webhook.batch_when_full);
        assert_eq!(
            of("audit.webhook.truncate.maxEventSize"),
            webhook.truncate_max_event_size.to_string()
        );
        assert_eq!(
            of("audit.webhook.initialBackoff"),
            config::go::Duration(webhook.initial_backoff).to_string()
        );
    }

    #[test]
    fn mistakes_that_people_make_are_answered_with_what_to_write() {
        let folder = tempfile::tempdir().unwrap();
        let log = |change: fn(&mut Log)| {
            let mut audit = config::Audit::default();
            audit.log.path = Some(folder.path().join("audit.log").display().to_string());
            change(&mut audit.log);
            audit
        };
        says(
            &log(|log| log.format = Some("text".to_owned())),
            &["invalid audit log format text", "legacy for one line of text"],
        );
        says(
            &log(|log| log.version = Some("audit.k8s.io/v1beta1".to_owned())),
            &["invalid group version", "write audit.k8s.io/v1"],
        );
        says(
            &with_webhook(
                folder.path(),
                "clusters: [{cluster: {server: 'https://x'}}]\ntruncate: {enabled: true}\n",
            ),
            &[
                "`truncate` in it has no effect",
                "--audit-webhook-truncate-enabled",
            ],
        );
        says(
            &with_webhook(
                folder.path(),
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n",
            ),
            &["is an audit policy", "--audit-policy-file"],
        );
        says(
            &with_webhook(folder.path(), "apiVersion: v1\nkind: Config\n"),
            &[
                "initializing audit webhook: ",
                "no configuration has been provided",
                "`clusters`",
            ],
        );
        says(
            &with_webhook(
                folder.path(),
                "clusters: [{name: a, cluster: {server: 'https://x'}}]\ncontexts: [{name: c, context: {cluster: a}}]\n\
                 current-context: d\n",
            ),
            &["initializing audit webhook: ", "current-context"],
        );
        let mut absent = config::Audit::default();
        absent.webhook.config_file = Some(folder.path().join("absent"));
        says(
            &absent,
            &["initializing audit webhook: stat ", "no such file or directory"],
        );
    }
}
