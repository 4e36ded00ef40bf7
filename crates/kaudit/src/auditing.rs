//! What is recorded, and where to: the policy and the sinks that a configuration asks for.

mod dynamic;
mod options;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kaudit_backend::Enforced;
use kaudit_backend::dynamic::Dynamic;
use kaudit_collect::{Intake, Name, SinkMode};
use kaudit_policy::{MAX_POLICY_BYTES, Policy, unreadable_file};
use kaudit_sink::{Demand, Discard, Sink, Union};
use kaudit_tower::PolicyHandle;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::config::{self, Config};
use crate::exit::Failure;
use crate::sinks::{Backend, Sinks};

/// The journal as a backend.
#[derive(Clone, Debug)]
pub(crate) struct JournalPlan {
    pub(crate) intake: Intake,
    /// The events' cluster and instance.
    pub(crate) cluster: Name,
    pub(crate) instance: Name,
    pub(crate) mode: SinkMode,
}

impl JournalPlan {
    /// What the configuration asks for; `None` where it does not.
    pub(crate) fn of(config: &Config, intake: Option<&Intake>) -> Result<Option<Self>, Failure> {
        let Some(mode) = config.audit.journal.mode.as_deref() else {
            return Ok(None);
        };
        let mode = match mode {
            "batch" => SinkMode::Batch,
            "blocking" => SinkMode::Blocking,
            "blocking-strict" => SinkMode::BlockingStrict,
            other => {
                return Err(Failure::usage(anyhow::anyhow!(
                    "audit.journal.mode `{other}` is none of `batch`, `blocking` and `blocking-strict`"
                )));
            }
        };
        let missing = |what: &str| Failure::usage(anyhow::anyhow!("events in the journal need {what}"));
        let intake = intake.ok_or_else(|| missing("a place: give --data-dir, or `dataDir`"))?;
        let cluster = config
            .cluster
            .as_deref()
            .ok_or_else(|| missing("the cluster's name: give --cluster, or `cluster`"))?;
        let instance = config.audit.journal.instance.as_deref().unwrap_or("gateway");
        Ok(Some(Self {
            intake: intake.clone(),
            cluster: cluster.parse().map_err(Failure::usage)?,
            instance: instance.parse().map_err(Failure::usage)?,
            mode,
        }))
    }
}

/// Policy and sinks of one audit chain.
#[derive(Clone, Debug)]
pub(crate) struct Auditing {
    pub(crate) policy: PolicyHandle,
    pub(crate) policy_file: Option<PathBuf>,
    /// Where the chain sends its events.
    pub(crate) sink: Arc<dyn Sink>,
    /// The same as an operator sees it.
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) demand: Demand,
}

impl Auditing {
    /// Loads the policy and opens the backends; called inside of the runtime that carries deliveries. With a data directory the API may register sinks, which are
    /// kept there.
    ///
    /// Source: k8s.io/apiserver pkg/server/options/audit.go, ApplyTo: without a policy nothing is
    /// recorded, whatever backends there are, and without a backend nothing is, whatever the policy says.
    /// Sinks that are registered have a policy of their own.
    pub(crate) fn start(
        config: &config::Audit,
        data_dir: Option<&Path>,
        journal: Option<JournalPlan>,
    ) -> Result<Self, Failure> {
        let runtime = Handle::current();
        let mut backends = options::open(config, data_dir, &runtime)?;
        if let Some(journal) = journal {
            backends.push(options::journal(journal)?);
        }
        let has_dynamic = config.sink_dir.is_some() || data_dir.is_some();
        let policy = match (&config.policy_file, backends.is_empty()) {
            (Some(file), false) => PolicyHandle::new(load_policy(file).map_err(of_start)?),
            (Some(file), true) => {
                load_policy(file).map_err(of_start)?;
                if !has_dynamic {
                    warn!(
                        "a policy without a backend records nothing: give --audit-log-path, --audit-webhook-config-file or \
                         --audit-journal-mode"
                    );
                }
                PolicyHandle::none()
            }
            (None, false) => {
                warn!("no audit policy file: nothing is recorded (--audit-policy-file)");
                PolicyHandle::none()
            }
            (None, true) => {
                if !has_dynamic {
                    warn!("neither policy nor backend: nothing is recorded");
                }
                PolicyHandle::none()
            }
        };
        let (backends, statics): (Vec<Backend>, Vec<Arc<dyn Sink>>) = backends.into_iter().unzip();
        let demand = Demand::default();
        let dynamic = Arc::new(Dynamic::of_webhooks(demand.clone(), runtime));
        let sinks = Arc::new(Sinks::new(
            backends,
            Arc::clone(&dynamic),
            config.sink_dir.clone(),
            data_dir.map(|data_dir| data_dir.join("sinks")),
            dynamic::surroundings(),
        ));
        sinks.look();
        let sink = compose(statics, has_dynamic.then_some(dynamic));
        info!(sink = sink.name(), "audit backend");
        Ok(Self {
            policy,
            policy_file: config.policy_file.clone(),
            sink,
            sinks,
            demand,
        })
    }

    /// Delivers what is queued.
    pub(crate) async fn shutdown(self) {
        let sink = self.sink;
        // A panic of the sink was reported by its own thread.
        drop(tokio::task::spawn_blocking(move || sink.shutdown()).await);
    }
}

/// The sinks as one, in upstream's order. Beside sinks that see more, the others are held to the policy.
fn compose(statics: Vec<Arc<dyn Sink>>, dynamic: Option<Arc<Dynamic>>) -> Arc<dyn Sink> {
    let Some(dynamic) = dynamic else {
        return if statics.is_empty() {
            Arc::new(Discard)
        } else {
            Union::of(statics)
        };
    };
    let enforced =
        (!statics.is_empty()).then(|| Arc::new(Enforced::new(Union::of(statics))) as Arc<dyn Sink>);
    Union::of(enforced.into_iter().chain([dynamic as Arc<dyn Sink>]).collect())
}

/// The backends of `config` as one sink, for a chain that has its policy from elsewhere.
pub(crate) fn sink_of(config: &config::Audit) -> Result<Arc<dyn Sink>, Failure> {
    let backends = options::open(config, None, &Handle::current())?;
    Ok(compose(
        backends.into_iter().map(|(_, sink)| sink).collect(),
        None,
    ))
}

/// In the words of kube-apiserver's start.
fn of_start(failure: Failure) -> Failure {
    Failure::usage(failure.error.context("loading audit policy file"))
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
    let unreadable = |error: std::io::Error| {
        let text = unreadable_file(&name, &error.to_string());
        Failure::usage(anyhow::anyhow!("{text}{}", options::why_not_there(file, &error)))
    };
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Failure::usage(anyhow::anyhow!(
            "{}\n  fix: `{name}` is a folder: name the file in it; a container runtime makes a folder where a \
             hostPath of a single file did not exist yet",
            unreadable_file(&name, "Is a directory")
        )));
    }
    let size = metadata.len();
    if size > MAX_POLICY_BYTES as u64 {
        return Err(Failure::usage(anyhow::anyhow!(
            "{name}: a policy may have {MAX_POLICY_BYTES} bytes, this one has {size}"
        )));
    }
    std::fs::read(file).map_err(unreadable)
}
