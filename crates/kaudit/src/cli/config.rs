//! `kaudit config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Output, print};
use crate::config::Config;
use crate::config::flags::{AuditFlags, GatewayFlags};
use crate::exit::{Exit, Failure};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print the effective values of file, environment and flags
    View(Box<View>),
    /// Check a configuration file without starting anything
    Validate {
        /// The file
        file: PathBuf,
    },
}

/// Flags of `config view`.
#[derive(Debug, Args)]
pub(super) struct View {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", env = "KAUDIT_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    audit: AuditFlags,
    #[command(flatten)]
    gateway: GatewayFlags,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Schema => {
            let mut schema = serde_json::to_vec_pretty(&Config::schema()).map_err(Failure::usage)?;
            schema.push(b'\n');
            print(&schema)
        }
        Command::View(view) => {
            let mut config = view
                .config
                .as_deref()
                .map_or_else(|| Ok(Config::empty()), Config::read)?;
            view.audit.apply(&mut config);
            view.gateway.apply(&mut config);
            let text = match view.output {
                Output::Text => serde_saphyr::to_string(&config).map_err(Failure::usage)?,
                Output::Json => serde_json::to_string_pretty(&config).map_err(Failure::usage)? + "\n",
            };
            print(text.as_bytes())
        }
        Command::Validate { file } => {
            Config::read(&file)?;
            print(format!("{}: ok\n", file.display()).as_bytes())
        }
    }
}
