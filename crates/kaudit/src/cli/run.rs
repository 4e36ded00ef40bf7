//! `kaudit run`.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use kaudit_dial::Cluster;
use kaudit_listen::{ClientCertificates, ServerTls};
use tracing::{info, warn};

use crate::api::Token;
use crate::auditing::Auditing;
use crate::config::Config;
use crate::config::flags::{AuditFlags, GatewayFlags};
use crate::exit::{Exit, Failure};
use crate::serving::{ApiPlan, Plan, Serving};
use crate::stop::Stop;

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
}

/// What a process can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// An auditing reverse proxy in front of a cluster
    Gateway,
}

pub(super) fn run(flags: Flags) -> Result<Exit, Failure> {
    let mut config = flags
        .config
        .as_deref()
        .map_or_else(|| Ok(Config::empty()), Config::read)?;
    flags.audit.apply(&mut config);
    flags.gateway.apply(&mut config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .map_err(Failure::unreachable)?;
    runtime.block_on(gateway(config))
}

async fn gateway(config: Config) -> Result<Exit, Failure> {
    let stop = Stop::default();
    let signals = stop.listen()?;
    let serving = Serving::start(plan(&config)?).await?;
    let api = serving.api.map(tracing::field::display);
    info!(gateway = %serving.addr, metrics = %serving.metrics, api, "serving");
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
fn plan(config: &Config) -> Result<Plan, Failure> {
    let gateway = &config.gateway;
    let missing = |what: &str, flag: &str, key: &str| {
        Failure::usage(anyhow!(
            "{what} is missing: give {flag}, or `{key}` in the configuration file"
        ))
    };
    let listen = gateway
        .listen
        .as_deref()
        .ok_or_else(|| missing("the address to listen on", "--listen", "gateway.listen"))?;
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
    let tls =
        ServerTls::from_files(certificate, key, &ClientCertificates::NotAsked).map_err(Failure::usage)?;
    let cluster = Cluster::from_kubeconfig(kubeconfig).map_err(Failure::usage)?;
    for warning in &cluster.warnings {
        warn!(file = %kubeconfig.display(), "{warning}");
    }
    Ok(Plan {
        cluster,
        listen: address(listen)?,
        tls,
        metrics: address(config.metrics.listen.as_deref().unwrap_or(METRICS))?,
        api: api(config)?,
        grace: GRACE,
        auditing: Auditing::start(&config.audit, config.data_dir.as_deref())?,
    })
}

/// The API, where it is asked for.
fn api(config: &Config) -> Result<Option<ApiPlan>, Failure> {
    let Some(listen) = config.api.listen.as_deref() else {
        return Ok(None);
    };
    let listen = address(listen)?;
    if !listen.ip().is_loopback() {
        return Err(Failure::usage(anyhow!(
            "the API speaks plain HTTP and `{listen}` is no loopback address: write for example `127.0.0.1:7440`"
        )));
    }
    let data_dir = config.data_dir.as_deref().ok_or_else(|| {
        Failure::usage(anyhow!(
            "the API needs a place for its token: give --data-dir, or `dataDir` in the configuration file"
        ))
    })?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("cannot make the data directory `{}`", data_dir.display()))
        .map_err(Failure::unreachable)?;
    let token = Token::read_or_make(&data_dir.join("token")).map_err(Failure::usage)?;
    Ok(Some(ApiPlan { listen, token }))
}

fn address(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(anyhow!(
            "`{text}` is not an address: write for example `0.0.0.0:6443`"
        ))
    })
}
