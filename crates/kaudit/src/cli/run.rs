//! `kaudit run`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use kaudit_collect::{Forward, ForwardOptions, Intake};
use kaudit_dial::Cluster;
use kaudit_journal::{Hold, Journal};
use kaudit_listen::{Limits, ProxyProtocol, ServerTls, SniCertificate, TlsOptions};
use tracing::{info, warn};

use crate::access_log::AccessLog;
use crate::api::Token;
use crate::auditing::{Auditing, JournalPlan};
use crate::collecting::{self, Receiving};
use crate::completeness;
use crate::config::flags::{AuditFlags, CollectFlags, GatewayFlags, StoreFlags};
use crate::config::{self, Config};
use crate::connecting::{self, Answers};
use crate::data::DataDir;
use crate::exit::{Exit, Failure};
use crate::identifying::{Identifying, networks};
use crate::keeping;
use crate::serving::{ApiPlan, CollectPlan, Front, GatewayPlan, Plan, Serving, StorePlan, address};
use crate::sockets::{Name, Place, Sockets};
use crate::stop::Stop;
use crate::storing;

/// Requests may finish for so long after a stop, as kube-apiserver's requests may.
const GRACE: Duration = Duration::from_secs(60);

const METRICS: &str = "127.0.0.1:7441";

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// What this process is
    #[arg(long, value_enum, value_delimiter = ',', required = true, env = "KAUDIT_ROLE")]
    role: Vec<Role>,
    /// The configuration file; flags and environment override it
    #[arg(short, long, value_name = "FILE", env = "KAUDIT_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    audit: AuditFlags,
    #[command(flatten)]
    gateway: GatewayFlags,
    #[command(flatten)]
    collect: CollectFlags,
    #[command(flatten)]
    store: StoreFlags,
}

/// What a process can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// An auditing reverse proxy in front of a cluster
    Gateway,
    /// Collects events from audit webhooks and log files into a journal
    Collect,
    /// Keeps the journal's events in Parquet files; what role gateway records goes there as well
    Store,
    /// Sends the journal to a central kaudit
    Forward,
}

pub(super) fn run(flags: Flags) -> Result<Exit, Failure> {
    let sockets = Sockets::take()?;
    let mut config = flags
        .config
        .as_deref()
        .map_or_else(|| Ok(Config::empty()), Config::read)?;
    flags.audit.apply(&mut config);
    flags.gateway.apply(&mut config);
    flags.collect.apply(&mut config);
    flags.store.apply(&mut config);
    if flags.role.contains(&Role::Store) && flags.role.contains(&Role::Gateway) {
        // Who wants a store wants in it what the gateway records.
        config
            .audit
            .journal
            .mode
            .get_or_insert_with(|| "batch".to_owned());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .map_err(Failure::unreachable)?;
    runtime.block_on(serve(config, &flags.role, sockets))
}

async fn serve(config: Config, roles: &[Role], sockets: Sockets) -> Result<Exit, Failure> {
    let stop = Stop::default();
    let signals = stop.listen()?;
    let serving = Serving::start(plan(&config, roles, sockets).await?).await?;
    let shown = |address: Option<SocketAddr>| address.map(tracing::field::display);
    info!(
        gateway = shown(serving.gateway),
        collector = shown(serving.collector),
        metrics = %serving.metrics,
        api = shown(serving.api),
        "serving"
    );
    tokio::pin!(signals);
    tokio::select! {
        () = &mut signals => {}
        () = stop.stop.cancelled() => {}
    }
    tokio::select! {
        () = &mut signals => {}
        () = serving.stop(stop.now.clone()) => {}
    }
    info!("stopped");
    Ok(Exit::Done)
}

/// The configuration as a plan, or what is missing in it.
async fn plan(config: &Config, roles: &[Role], sockets: Sockets) -> Result<Plan, Failure> {
    let places = Places::of(config, roles, sockets)?;
    let data = config
        .data_dir
        .as_deref()
        .map(DataDir::take)
        .transpose()
        .map_err(Failure::unreachable)?;
    let api = api(config, places.api, data.as_ref())?;
    let collects = roles.contains(&Role::Collect);
    let forwards = roles.contains(&Role::Forward);
    let stores = roles.contains(&Role::Store);
    let records = config.audit.journal.mode.is_some();
    if forwards && !collects && !records {
        return Err(Failure::usage(anyhow!(
            "role forward has nothing to send: add role collect, or give --audit-journal-mode to role gateway"
        )));
    }
    let store = match &data {
        Some(data) if stores => Some(StorePlan {
            settings: storing::Settings::of(config)?,
            store: storing::open(data, config)?,
        }),
        None if stores => return Err(missing("a place for the store", "--data-dir", "dataDir")),
        _ => None,
    };
    if stores && !collects && !records {
        warn!(
            "role store alone keeps what is in the journal already and what is imported: add role collect, or \
             --audit-journal-mode to role gateway, to have more"
        );
    }
    let intake = match &data {
        Some(data) if collects || forwards || records || stores => {
            let store = store.as_ref().map(|plan| &plan.store);
            Some(keeping::open(data, config, store)?)
        }
        None if collects || forwards => {
            return Err(missing("a place for the journal", "--data-dir", "dataDir"));
        }
        _ => None,
    };
    if let Some(intake) = &intake {
        warn_of_held(intake.journal(), roles);
    }
    let gateway = if roles.contains(&Role::Gateway) {
        Some(gateway(
            config,
            places.gateway,
            JournalPlan::of(config, intake.as_ref())?,
        )?)
    } else {
        None
    };
    let mut collect = match intake {
        Some(intake) if collects => Some(collect(config, places.collect, intake).await?),
        Some(intake) => Some(CollectPlan::of(intake)),
        None => None,
    };
    if let (true, Some(plan), Some(data)) = (forwards, &mut collect, &data) {
        plan.forward = Some(forward(config, plan.intake.journal().clone(), data)?);
    }
    Ok(Plan {
        gateway,
        collect,
        store,
        data,
        metrics: places.metrics,
        api,
        grace: GRACE,
    })
}

/// Where listeners are; none for what is not asked for.
struct Places {
    gateway: Option<Place>,
    collect: Option<Place>,
    api: Option<Place>,
    metrics: Place,
}

impl Places {
    /// What the configuration says, but for sockets that were handed over.
    fn of(config: &Config, roles: &[Role], mut sockets: Sockets) -> Result<Self, Failure> {
        let mut of_role = |role, name, listen: Option<&str>| {
            if roles.contains(&role) {
                sockets.place(name, listen)
            } else {
                Ok(None)
            }
        };
        let gateway = of_role(Role::Gateway, Name::Gateway, config.gateway.listen.as_deref())?;
        let listen = config.collect.webhook.listen.as_deref();
        let collect = of_role(Role::Collect, Name::Collect, listen)?;
        let api = sockets.place(Name::Api, config.api.listen.as_deref())?;
        let metrics = config.metrics.listen.as_deref().unwrap_or(METRICS);
        let metrics = match sockets.place(Name::Metrics, Some(metrics))? {
            Some(metrics) => metrics,
            None => Place::Address(address(metrics)?),
        };
        sockets.finish()?;
        Ok(Self {
            gateway,
            collect,
            api,
            metrics,
        })
    }
}

fn missing(what: &str, flag: &str, key: &str) -> Failure {
    Failure::usage(anyhow!(
        "{what} is missing: give {flag}, or `{key}` in the configuration file"
    ))
}

fn gateway(
    config: &Config,
    place: Option<Place>,
    journal: Option<JournalPlan>,
) -> Result<GatewayPlan, Failure> {
    let gateway = &config.gateway;
    let listen = place.ok_or_else(|| missing("the address to listen on", "--listen", "gateway.listen"))?;
    let certificate = gateway.tls.cert_file.as_deref().ok_or_else(|| {
        missing(
            "the serving certificate",
            "--tls-cert-file",
            "gateway.tls.certFile",
        )
    })?;
    let key = gateway.tls.key_file.as_deref().ok_or_else(|| {
        missing(
            "the key of the serving certificate",
            "--tls-private-key-file",
            "gateway.tls.keyFile",
        )
    })?;
    let kubeconfig = gateway.upstream.kubeconfig.as_deref().ok_or_else(|| {
        missing(
            "the cluster behind the gateway",
            "--upstream-kubeconfig",
            "gateway.upstream.kubeconfig",
        )
    })?;
    let cluster = Cluster::from_kubeconfig(kubeconfig).map_err(Failure::usage)?;
    for warning in &cluster.warnings {
        warn!(file = %kubeconfig.display(), "{warning}");
    }
    let connecting = connecting::options(&gateway.upstream, &cluster)?;
    let identifying = Identifying::new(gateway, &cluster, &connecting)?;
    let front = front(gateway)?;
    let mut options = TlsOptions::default();
    options.clients = identifying.listening();
    options.min_version = gateway.tls.min_version.map(Into::into).unwrap_or_default();
    let sni = gateway.tls.sni.iter().flatten().cloned();
    options.sni = sni
        .map(|files| SniCertificate::new(files.cert_file, files.key_file, files.names))
        .collect();
    let tls = ServerTls::with_options(certificate, key, options).map_err(Failure::usage)?;
    let access_log = &gateway.access_log;
    let access_log = access_log
        .path
        .as_deref()
        .map(|path| {
            AccessLog::open(path, access_log.rotation()).map_err(|error| {
                Failure::unreachable(anyhow!(error).context(format!("cannot write `{path}`")))
            })
        })
        .transpose()?;
    Ok(GatewayPlan {
        cluster,
        access_log,
        identifying,
        connecting,
        answers: Answers::of(&gateway.upstream)?,
        listen,
        tls,
        front,
        auditing: Auditing::start(&config.audit, config.data_dir.as_deref(), journal)?,
    })
}

/// What the listener takes.
fn front(gateway: &config::Gateway) -> Result<Front, Failure> {
    let from = gateway.proxy_protocol.from.as_deref().unwrap_or_default();
    let trusted = gateway.trusted_proxies.as_deref().unwrap_or_default();
    let count = |count: NonZeroU32| usize::try_from(count.get()).unwrap_or(usize::MAX);
    let mut limits = Limits::default();
    if let Some(connections) = gateway.limits.connections {
        limits.connections = count(connections);
    }
    if let Some(connections) = gateway.limits.connections_per_address {
        limits.connections_per_address = count(connections);
    }
    let body_idle_limit = gateway.limits.body_idle_timeout.map(|limit| limit.0);
    if body_idle_limit == Some(Duration::ZERO) {
        return Err(Failure::usage(anyhow!(
            "`gateway.limits.bodyIdleTimeout` is 0, in which no body comes: write for example `30s`"
        )));
    }
    Ok(Front {
        proxies: ProxyProtocol::from(networks(from, "gateway.proxyProtocol.from")?),
        unbounded: networks(trusted, "gateway.trustedProxies")?,
        limits,
        requests_in_flight: gateway.limits.requests_in_flight.map(count),
        body_idle_limit,
    })
}

async fn collect(config: &Config, place: Option<Place>, intake: Intake) -> Result<CollectPlan, Failure> {
    let collect = &config.collect;
    if place.is_none() && collect.files.is_empty() {
        return Err(Failure::usage(anyhow!(
            "role collect has nothing to collect from: give --collect-listen, or `collect.webhook.listen` or \
             `collect.files` in the configuration file"
        )));
    }
    let receiving = match place {
        Some(place) => Some(Receiving::bind(&collect.webhook, place, intake.clone()).await?),
        None => None,
    };
    let tails = collecting::tails(config, &intake)?;
    let completeness = completeness::watchings(config, &intake)?;
    Ok(CollectPlan {
        receiving,
        tails,
        completeness,
        ..CollectPlan::of(intake)
    })
}

/// A journal that was forwarded or stored once keeps everything for a role that is not there any more.
fn warn_of_held(journal: &Journal, roles: &[Role]) {
    let held = journal.cursors().into_iter().filter(|(cursor, _, hold)| {
        let owner = if cursor == kaudit_store::CURSOR {
            Role::Store
        } else {
            Role::Forward
        };
        *hold == Hold::Yes && !roles.contains(&owner)
    });
    for (cursor, position, _) in held {
        warn!(
            cursor,
            %position,
            "the journal keeps all from here on for a role that does not run, and takes nothing more when it is \
             full: add the role again, or stop and delete the file of this name in DATA/journal/cursors"
        );
    }
}

/// The sender to the central kaudit.
fn forward(config: &Config, journal: Journal, data: &DataDir) -> Result<Forward, Failure> {
    let kubeconfig = config
        .forward
        .kubeconfig
        .as_deref()
        .ok_or_else(|| missing("the central kaudit", "--forward-kubeconfig", "forward.kubeconfig"))?;
    let cluster = Cluster::from_kubeconfig(kubeconfig).map_err(Failure::usage)?;
    for warning in &cluster.warnings {
        warn!(file = %kubeconfig.display(), "{warning}");
    }
    let id = data.id().map_err(Failure::unreachable)?;
    let edge = id.parse().map_err(Failure::usage)?;
    Forward::new(journal, &cluster, ForwardOptions::new(edge)).map_err(Failure::usage)
}

/// The API, where it is asked for.
fn api(config: &Config, place: Option<Place>, data: Option<&DataDir>) -> Result<Option<ApiPlan>, Failure> {
    let Some(listen) = place else {
        return Ok(None);
    };
    let address = listen.address()?;
    if !address.ip().is_loopback() {
        return Err(Failure::usage(anyhow!(
            "the API speaks plain HTTP and `{address}` is no loopback address: write for example `127.0.0.1:7440`"
        )));
    }
    let data = data.ok_or_else(|| missing("a place for the API's token", "--data-dir", "dataDir"))?;
    let token = Token::read_or_make(&data.path().join("token")).map_err(Failure::usage)?;
    let cluster = config.cluster.as_deref().unwrap_or("kaudit");
    let cluster = cluster.parse().map_err(Failure::usage)?;
    Ok(Some(ApiPlan {
        listen,
        token,
        cluster,
    }))
}
