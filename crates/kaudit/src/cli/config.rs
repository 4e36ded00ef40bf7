//! `kaudit config`.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Subcommand, ValueEnum};

use super::print;
use crate::config::Config;
use crate::config::flags::{AuditFlags, CollectFlags, GatewayFlags, StoreFlags};
use crate::config::settings::{self, Effective};
use crate::exit::{Exit, Failure};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print the effective values of flags, environment, file and defaults, and where each came from
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
    #[command(flatten)]
    collect: CollectFlags,
    #[command(flatten)]
    store: StoreFlags,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// How the settings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table: key, value, where it came from
    #[default]
    Text,
    /// The same as a JSON array
    Json,
    /// A configuration file that says what was given
    Yaml,
}

pub(super) fn run(command: Command, matches: &ArgMatches) -> Result<Exit, Failure> {
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
            view.collect.apply(&mut config);
            view.store.apply(&mut config);
            let effective = settings::effective(&config, matches, view.config.as_deref());
            let text = match view.output {
                Form::Text => table(&effective),
                Form::Json => serde_json::to_string_pretty(&effective).map_err(Failure::usage)? + "\n",
                Form::Yaml => serde_saphyr::to_string(&config).map_err(Failure::usage)?,
            };
            print(text.as_bytes())
        }
        Command::Validate { file } => {
            crate::storing::retention(&Config::read(&file)?)?;
            print(format!("{}: ok\n", file.display()).as_bytes())
        }
    }
}

/// Columns as wide as their widest cell.
fn table(settings: &[Effective]) -> String {
    let width = |of: fn(&Effective) -> &str| {
        let widths = settings.iter().map(|setting| of(setting).chars().count());
        widths.max().unwrap_or_default()
    };
    let (key, value) = (
        width(|setting| setting.key),
        width(|setting| &setting.value).max("VALUE".len()),
    );
    let mut text = format!("{:key$}  {:value$}  FROM\n", "KEY", "VALUE");
    for setting in settings {
        text += &format!(
            "{:key$}  {:value$}  {}\n",
            setting.key, setting.value, setting.origin
        );
    }
    text
}
