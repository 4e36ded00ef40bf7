//! `kaudit dev`: everything in one process on loopback, with a throw-away certificate authority.

mod authority;
mod kubeconfig;
mod people;
mod traffic;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kaudit_collect::{Intake, SinkMode};
use kaudit_dial::{Cluster, Server, Trust};
use kaudit_listen::{ClientCertificates, ListenConfig, Listener, ServerTls};
use kaudit_sandbox::Sandbox;
use kaudit_sink::Sink;
use kaudit_tower::PolicyHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use self::authority::{Authority, Pem};
use self::people::Person;
use crate::api::Token;
use crate::auditing::{Auditing, JournalPlan, sink_of};
use crate::collecting::Receiving;
use crate::config::{self, Config};
use crate::connecting::{self, Answers};
use crate::data::DataDir;
use crate::exit::Failure;
use crate::identifying::Identifying;
use crate::keeping;
use crate::serving::{ApiPlan, CollectPlan, Front, GatewayPlan, Plan, Serving, StorePlan};
use crate::sockets::Place;
use crate::stop::Stop;
use crate::storing;

/// Requests may finish for so long after Ctrl-C.
const GRACE: Duration = Duration::from_secs(3);

const POLICY: &str = include_str!("dev/policy.yaml");

/// What `kaudit dev` is asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) data_dir: PathBuf,
    /// First of five ports; 0 takes free ones.
    pub(crate) port_base: u16,
    pub(crate) traffic: Traffic,
    pub(crate) upstream_kubeconfig: Option<PathBuf>,
}

/// Whether the demo's people are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    On,
    Off,
}

/// Offsets of the ports.
const API: u16 = 0;
const METRICS: u16 = 1;
const SANDBOX: u16 = 2;
const GATEWAY: u16 = 3;
const COLLECTOR: u16 = 4;

/// What events of the demo are about.
const CLUSTER: &str = "dev";

/// The embedded API server, as its events and its certificate name it.
const SANDBOX_NAME: &str = "sandbox";

impl Options {
    fn address(&self, offset: u16) -> Result<SocketAddr, Failure> {
        let port = match self.port_base {
            0 => 0,
            base => base.checked_add(offset).ok_or_else(|| {
                Failure::usage(anyhow!(
                    "--port-base {base} leaves no room for five ports below 65536"
                ))
            })?,
        };
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

/// Runs until a signal.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let stop = Stop::default();
    let signals = stop.listen()?;
    tokio::pin!(signals);
    let dev = tokio::select! {
        () = &mut signals => return Ok(()),
        dev = Dev::start(&options) => dev?,
    };
    dev.announce(&options)?;
    tokio::select! {
        () = &mut signals => {}
        () = stop.stop.cancelled() => {}
    }
    tokio::select! {
        () = &mut signals => {}
        () = dev.stop(stop.now.clone()) => {}
    }
    info!("stopped; every event is kept");
    Ok(())
}

/// Everything that runs.
struct Dev {
    data: PathBuf,
    gateway: SocketAddr,
    collector: SocketAddr,
    sandbox: Option<RunningSandbox>,
    serving: Serving,
    traffic: Option<(CancellationToken, TaskTracker)>,
}

struct RunningSandbox {
    addr: SocketAddr,
    stop: CancellationToken,
    task: TaskTracker,
    sink: Arc<dyn Sink>,
}

impl Dev {
    async fn start(options: &Options) -> Result<Self, Failure> {
        let path = folder(&options.data_dir)?;
        let data = DataDir::take(&path).map_err(Failure::unreachable)?;
        let policy_file = path.join("policy.yaml");
        if !policy_file.exists() {
            write(&policy_file, POLICY)?;
        }
        let authority = Authority::new("kaudit dev").map_err(Failure::unreachable)?;
        let authority_pem = authority.certificate();
        write(&path.join("ca.crt"), &authority_pem)?;
        let people = people::everybody()?;

        let settings = Config::empty();
        let store = StorePlan {
            store: storing::open(&data, &settings)?,
            settings: storing::Settings::of(&settings)?,
        };
        let intake = keeping::open(&data, &settings, Some(&store.store))?;
        let receiving = collector(options, &path, &authority, intake.clone()).await?;
        let collector = receiving.listener.local_addr();
        let journal = JournalPlan {
            intake: intake.clone(),
            cluster: CLUSTER.parse().map_err(Failure::usage)?,
            instance: "gateway".parse().map_err(Failure::usage)?,
            mode: SinkMode::Batch,
        };
        let auditing = Auditing::start(&audit(&policy_file, &path), Some(&path), Some(journal))?;
        let (cluster, sandbox) = match &options.upstream_kubeconfig {
            Some(file) => (Cluster::from_kubeconfig(file).map_err(Failure::usage)?, None),
            None => {
                let address = options.address(SANDBOX)?;
                let client = authority.client(SANDBOX_NAME).map_err(Failure::unreachable)?;
                let url = format!("https://{collector}/v1/audit/{CLUSTER}/{SANDBOX_NAME}");
                let webhook = kubeconfig::of_webhook(&url, &authority_pem, &client);
                write(&path.join("webhook.kubeconfig"), &webhook)?;
                let tls = tls(&authority, "sandbox")?;
                let sandbox =
                    RunningSandbox::start(address, tls, &authority_pem, &people, &auditing.policy, &path)
                        .await?;
                let server: Server = format!("https://{}", sandbox.addr)
                    .parse()
                    .map_err(|error: String| Failure::usage(anyhow!(error)))?;
                let trust = Trust::Authorities(kaudit_dial::Pem::Inline(authority_pem.clone().into_bytes()));
                (Cluster::new(server, trust), Some(sandbox))
            }
        };

        let serving = Serving::start(Plan {
            gateway: Some(GatewayPlan {
                access_log: None,
                cluster,
                identifying: Identifying::default(),
                connecting: connecting::default_options(),
                answers: Answers::default(),
                auditing,
                listen: Place::Address(options.address(GATEWAY)?),
                tls: tls(&authority, "gateway")?,
                front: Front::default(),
            }),
            collect: Some(CollectPlan {
                receiving: Some(receiving),
                ..CollectPlan::of(intake)
            }),
            store: Some(store),
            data: Some(data),
            metrics: Place::Address(options.address(METRICS)?),
            api: Some(ApiPlan {
                listen: Place::Address(options.address(API)?),
                token: Token::read_or_make(&path.join("token")).map_err(Failure::usage)?,
                cluster: CLUSTER.parse().map_err(Failure::usage)?,
            }),
            grace: GRACE,
        })
        .await?;
        let gateway = serving
            .gateway
            .ok_or_else(|| Failure::unreachable(anyhow!("the gateway does not serve")))?;
        let kubeconfig = match &options.upstream_kubeconfig {
            Some(file) => kubeconfig::of_cluster(file, gateway, &authority_pem)?,
            None => kubeconfig::of_people(gateway, &authority_pem, &people),
        };
        write(&path.join("kubeconfig"), &kubeconfig)?;

        let traffic = match (options.traffic, &sandbox) {
            (Traffic::On, Some(_)) => Some(start_traffic(gateway, &authority_pem, people)?),
            _ => None,
        };
        Ok(Self {
            data: path,
            gateway,
            collector,
            sandbox,
            serving,
            traffic,
        })
    }

    /// The ready line, and what to type next.
    fn announce(&self, options: &Options) -> Result<(), Failure> {
        let data = self.data.display();
        let sandbox = self
            .sandbox
            .as_ref()
            .map_or_else(|| "-".to_owned(), |sandbox| format!("https://{}", sandbox.addr));
        let (gateway, collector, metrics) = (self.gateway, self.collector, self.serving.metrics);
        let api = self
            .serving
            .api
            .map_or_else(|| "-".to_owned(), |api| format!("http://{api}"));
        let people = if options.upstream_kubeconfig.is_some() {
            ""
        } else {
            "\nOther people: --context kaudit-developer, kaudit-viewer, kaudit-intern."
        };
        let program =
            std::env::current_exe().map_or_else(|_| "kaudit".to_owned(), |path| path.display().to_string());
        let text = format!(
            "kaudit ready: api={api} metrics=http://{metrics} sandbox={sandbox} gateway=https://{gateway} collector=https://{collector} \
             kubeconfig={data}/kubeconfig data={data}\n\n\
             Three things to try:\n  \
             export KUBECONFIG={data}/kubeconfig\n  \
             kubectl get pods -A\n  \
             {program} tail --humans --server {api} --token-file {data}/token\n{people}\n\
             The policy is {data}/policy.yaml: edit it while this runs. Ctrl-C ends everything.\n",
        );
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::unreachable(error)),
            _ => Ok(()),
        }
    }

    /// Ends clients first and servers last, so that every request has its final event.
    async fn stop(mut self, now: CancellationToken) {
        if let Some((stop, task)) = self.traffic {
            stop.cancel();
            task.close();
            task.wait().await;
        }
        self.serving.stop_gateway(&now).await;
        if let Some(sandbox) = self.sandbox {
            sandbox.stop.cancel();
            sandbox.task.close();
            sandbox.task.wait().await;
            // A panic of the sink was reported by its own thread.
            let flushed = tokio::task::spawn_blocking(move || sandbox.sink.shutdown());
            tokio::select! {
                flushed = flushed => drop(flushed),
                () = now.cancelled() => {}
            }
        }
        self.serving.stop(now).await;
    }
}

impl RunningSandbox {
    async fn start(
        address: SocketAddr,
        tls: ServerTls,
        authority: &str,
        people: &[Person],
        policy: &PolicyHandle,
        data: &Path,
    ) -> Result<Self, Failure> {
        let sink = sink_of(&sandbox_audit(data))?;
        let mut builder = Sandbox::builder()
            .certificate_authority(authority)
            .audit(policy.clone(), Arc::clone(&sink));
        for person in people {
            builder = builder.token(&person.token, person.user.clone());
        }
        let sandbox = builder.build();
        let listener = Listener::bind(ListenConfig::https(address, tls))
            .await
            .map_err(Failure::unreachable)?;
        let addr = listener.local_addr();
        let stop = CancellationToken::new();
        let task = TaskTracker::new();
        let stopped = stop.clone();
        task.spawn(async move { sandbox.serve(listener, stopped, GRACE).await });
        Ok(Self {
            addr,
            stop,
            task,
            sink,
        })
    }
}

fn start_traffic(
    gateway: SocketAddr,
    authority: &str,
    people: Vec<Person>,
) -> Result<(CancellationToken, TaskTracker), Failure> {
    let stop = CancellationToken::new();
    let task = TaskTracker::new();
    let demo = traffic::Demo::new(gateway, authority, people)?;
    task.spawn(demo.run(stop.clone()));
    Ok((stop, task))
}

fn tls(authority: &Authority, name: &str) -> Result<ServerTls, Failure> {
    let Pem { certificate, key } = authority.server(name).map_err(Failure::unreachable)?;
    ServerTls::from_pem(
        certificate.as_bytes(),
        key.as_bytes(),
        &ClientCertificates::NotAsked,
    )
    .map_err(Failure::unreachable)
}

/// The gateway's auditing.
fn audit(policy_file: &Path, data: &Path) -> config::Audit {
    config::Audit {
        policy_file: Some(policy_file.to_owned()),
        log: config::Log {
            path: Some(data.join("gateway-audit.log").display().to_string()),
            max_backup: Some(3),
            ..config::Log::default()
        },
        ..config::Audit::default()
    }
}

/// The sandbox's own auditing: a log, and the audit webhook to the collector, faster than kube-apiserver's
/// defaults so that one sees what one did.
fn sandbox_audit(data: &Path) -> config::Audit {
    let mut audit = config::Audit::default();
    audit.log.path = Some(data.join("sandbox-audit.log").display().to_string());
    audit.log.max_backup = Some(3);
    audit.webhook.config_file = Some(data.join("webhook.kubeconfig"));
    audit.webhook.initial_backoff = Some(config::go::Duration(Duration::from_millis(500)));
    audit.webhook.batch.max_wait = Some(config::go::Duration(Duration::from_millis(200)));
    audit
}

/// The receiver of audit webhooks, for the sandbox and for whoever holds `webhook.kubeconfig`.
async fn collector(
    options: &Options,
    data: &Path,
    authority: &Authority,
    intake: Intake,
) -> Result<Receiving, Failure> {
    let Pem { certificate, key } = authority.server("collector").map_err(Failure::unreachable)?;
    write(&data.join("collector.crt"), &certificate)?;
    write(&data.join("collector.key"), &key)?;
    let webhook = config::collect::CollectWebhook {
        tls: config::collect::CollectTls {
            cert_file: Some(data.join("collector.crt")),
            key_file: Some(data.join("collector.key")),
            client_ca_file: Some(data.join("ca.crt")),
        },
        sources: vec![config::collect::CollectSource {
            cluster: CLUSTER.to_owned(),
            certificate_name: Some(SANDBOX_NAME.to_owned()),
            ..config::collect::CollectSource::default()
        }],
        ..config::collect::CollectWebhook::default()
    };
    Receiving::bind(&webhook, Place::Address(options.address(COLLECTOR)?), intake).await
}

/// The data directory, made if it is not there, as an absolute path.
fn folder(path: &Path) -> Result<PathBuf, Failure> {
    let made = std::path::absolute(path).and_then(|path| {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(path)
    });
    made.with_context(|| format!("cannot make the data directory {}", path.display()))
        .map_err(Failure::unreachable)
}

/// Writes a file that only its owner can read.
fn write(path: &Path, content: &str) -> Result<(), Failure> {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()));
    written
        .with_context(|| format!("cannot write {}", path.display()))
        .map_err(Failure::unreachable)
}

#[cfg(test)]
mod tests;
