//! `kaudit config`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{ArgMatches, Args, Subcommand, ValueEnum};

use serde_json::{Value, json};

use super::table::table_of;
use super::{Output, print, say};
use crate::config::Config;
use crate::config::client::{self, ClientConfig, ClientFile};
use crate::config::flags::{AuditFlags, CollectFlags, GatewayFlags, StoreFlags};
use crate::config::settings::{self, Effective};
use crate::exit::{Exit, Failure};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the JSON Schema of the configuration file
    Schema {
        /// Of the client's, in which contexts are
        #[arg(long)]
        client: bool,
    },
    /// Print the effective values of flags, environment, file and defaults, and where each came from
    View(Box<View>),
    /// Check a configuration file, of a server or of a client, without starting anything
    Validate {
        /// The file
        file: PathBuf,
    },
    /// List the contexts of the client's configuration
    GetContexts {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print the name of the context that is used where none is named
    CurrentContext,
    /// Use a context where none is named
    UseContext {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
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
        Command::Schema { client } => {
            let schema = if client {
                ClientConfig::schema()
            } else {
                Config::schema()
            };
            let mut schema = serde_json::to_vec_pretty(&schema).map_err(Failure::usage)?;
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
            if client::is_of_a_client(&file) {
                client_file(&file)?;
            } else {
                crate::storing::retention(&Config::read(&file)?)?;
            }
            print(format!("{}: ok\n", file.display()).as_bytes())
        }
        Command::GetContexts { output } => get_contexts(output),
        Command::CurrentContext => match usual_file()?.current() {
            Some(context) => print(format!("{}\n", context.value.name).as_bytes()),
            None => Err(Failure {
                exit: Exit::No,
                error: anyhow!("no context is current\n  help: kaudit config use-context NAME"),
            }),
        },
        Command::UseContext { name } => {
            usual_file()?.use_context(&name)?;
            say(format_args!("{name} is asked where no --context is given"));
            Ok(Exit::Done)
        }
    }
}

/// The client's configuration of who runs this.
fn usual_file() -> Result<ClientFile, Failure> {
    let path = client::usual_path(|name| std::env::var_os(name));
    let path =
        path.ok_or_else(|| Failure::usage(anyhow!("there is no home directory: set KAUDIT_CLIENT_CONFIG")))?;
    client_file(&path)
}

fn client_file(path: &Path) -> Result<ClientFile, Failure> {
    ClientFile::read(path)?.ok_or_else(|| {
        Failure::usage(anyhow!(
            "there is no `{}`\n  help: docs/contexts.md says what stands in it",
            path.display()
        ))
    })
}

fn get_contexts(output: Output) -> Result<Exit, Failure> {
    let file = usual_file()?;
    let current = file.current().map(|context| context.value.name.as_str());
    let contexts = file.config.contexts.iter().map(|context| &context.value);
    match output {
        Output::Json => {
            let all: Vec<_> = contexts
                .map(|context| {
                    json!({
                        "name": context.name, "server": context.server,
                        "tokenFile": context.token_file, "caFile": context.ca_file,
                        "current": current == Some(context.name.as_str()),
                    })
                })
                .collect();
            print(format!("{:#}\n", Value::from(all)).as_bytes())
        }
        Output::Text => {
            let file_of = |path: &Option<PathBuf>| {
                path.as_ref()
                    .map_or_else(|| "-".to_owned(), |path| path.display().to_string())
            };
            let rows: Vec<[String; 5]> = contexts
                .map(|context| {
                    let mark = if current == Some(context.name.as_str()) {
                        "*"
                    } else {
                        ""
                    };
                    [
                        mark.to_owned(),
                        context.name.clone(),
                        context.server.clone(),
                        file_of(&context.token_file),
                        file_of(&context.ca_file),
                    ]
                })
                .collect();
            let heads = ["", "NAME", "SERVER", "TOKEN FILE", "CA FILE"];
            print(table_of(&heads, &rows).concat().as_bytes())
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
