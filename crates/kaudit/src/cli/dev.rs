//! `kaudit dev`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::dev::{self, Options, Traffic};
use crate::exit::{Exit, Failure};

/// Flags of `dev`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// First of five ports: API, metrics, sandbox, gateway, collector; 0 takes free ones
    #[arg(long, value_name = "PORT", default_value_t = 7440, env = "KAUDIT_PORT_BASE")]
    port_base: u16,
    /// Where logs, policy and kubeconfig are put
    #[arg(
        long,
        value_name = "DIR",
        default_value = ".kaudit/dev",
        env = "KAUDIT_DATA_DIR"
    )]
    data_dir: PathBuf,
    /// Let nobody work in the demo cluster
    #[arg(long)]
    no_traffic: bool,
    /// Put the gateway in front of this kubeconfig's current context, in place of the sandbox
    #[arg(long, value_name = "FILE", env = "KAUDIT_UPSTREAM_KUBECONFIG")]
    upstream_kubeconfig: Option<PathBuf>,
}

pub(super) fn run(flags: Flags) -> Result<Exit, Failure> {
    let options = Options {
        data_dir: flags.data_dir,
        port_base: flags.port_base,
        traffic: if flags.no_traffic {
            Traffic::Off
        } else {
            Traffic::On
        },
        upstream_kubeconfig: flags.upstream_kubeconfig,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .map_err(Failure::unreachable)?;
    runtime.block_on(dev::run(options))?;
    Ok(Exit::Done)
}
