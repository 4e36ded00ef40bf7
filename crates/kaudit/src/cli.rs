//! The command line.

pub(crate) mod actor;
mod ask;
pub(crate) mod blame;
mod compare;
mod completing;
mod config;
mod dev;
mod event;
mod export;
pub(crate) mod history;
mod import;
mod kubeconfig;
pub(crate) mod object;
mod policy;
mod query;
mod run;
mod server;
mod setup;
mod show;
mod sink;
mod source;
pub(crate) mod store;
mod table;
mod tail;
mod terminal;
mod top;
mod verify;
mod zone;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{ArgMatches, CommandFactory, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::exit::{Exit, Failure};
use crate::logging;

/// Kubernetes audit logging as one system.
#[derive(Debug, Parser)]
#[command(
    name = "kaudit",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done; 1 the answer is no (lint findings, file not formatted); 2 usage, configuration or \
                  filter or \
                  policy does not parse; 3 something cannot be reached; 4 not allowed; 5 the result is partial; 6 files \
                  are not what they were; 130 interrupted"
)]
struct Cli {
    #[command(flatten)]
    logging: logging::Flags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a gateway in front of an embedded API server, with demo traffic, on loopback
    Dev(dev::Flags),
    /// Run as a service in the given roles
    Run(Box<run::Flags>),
    /// Lint, explain, format and begin audit policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Print what turns a cluster's audit logging on, or check what is there
    Setup(Box<setup::Flags>),
    /// Print a kubeconfig with the gateway in the cluster's place
    Kubeconfig(kubeconfig::Flags),
    /// Show and check the configurations of a server and of this client, and choose who is asked
    #[command(subcommand)]
    Config(config::Command),
    /// List, register and remove the sinks of a running kaudit
    #[command(subcommand)]
    Sink(sink::Command),
    /// List where a running kaudit collects events from, and how each source is doing
    #[command(subcommand)]
    Source(source::Command),
    /// Look after the files of a store, without a server
    #[command(subcommand)]
    Store(store::Command),
    /// Check that a store's files, or those of an export, are what they were; exit code 6 when they are not
    Verify(verify::Flags),
    /// Write events of a store to a folder, with the hashes by which they are checked
    Export(Box<export::Flags>),
    /// Bring the events of log files, event lists and archives into a journal
    Import(import::Flags),
    /// Show the events that satisfy a filter
    Query(Box<query::Flags>),
    /// Show events as they come
    Tail(Box<tail::Flags>),
    /// Show the most frequent values of a field
    Top(Box<top::Flags>),
    /// Show what the events of one filter have more of than those of another
    Compare(Box<compare::Flags>),
    /// Show one event, or all of an auditID
    Event(event::Flags),
    /// Show the versions of an object, and what changed
    History(Box<history::Flags>),
    /// Show who wrote each line of an object
    Blame(Box<blame::Flags>),
    /// Show what somebody did, session by session
    Actor(Box<actor::Flags>),
    /// Print a completion script for a shell
    #[command(
        after_help = "bash: source <(kaudit completion bash). Behind kubectl, for `kubectl kaudit`, a link of this program does it:
  ln -s \"$(command -v kaudit)\" /usr/local/bin/kubectl_complete-kaudit"
    )]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// How a command prints its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// Runs the command line of this process.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.collect();
    if let Some(exit) = completing::answer(Cli::command, &arguments) {
        return exit;
    }
    let parsed = Cli::command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // A closed pipe leaves nobody to tell.
            drop(error.print());
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
        }
    };
    logging::start(&cli.logging);
    match run(cli.command, &matches) {
        Ok(exit) => exit,
        Err(failure) => {
            say(format_args!("error: {failure}"));
            failure.exit
        }
    }
}

fn run(command: Command, matches: &ArgMatches) -> Result<Exit, Failure> {
    match command {
        Command::Dev(flags) => dev::run(flags),
        Command::Run(flags) => run::run(*flags),
        Command::Policy(command) => policy::run(command),
        Command::Setup(flags) => setup::run(&flags),
        Command::Kubeconfig(flags) => kubeconfig::run(&flags),
        Command::Config(command) => config::run(command, leaf(matches)),
        Command::Sink(command) => sink::run(command),
        Command::Source(command) => source::run(command),
        Command::Store(command) => store::run(command),
        Command::Verify(flags) => verify::run(&flags),
        Command::Export(flags) => export::run(&flags),
        Command::Import(flags) => import::run(&flags),
        Command::Query(flags) => query::run(&flags),
        Command::Tail(flags) => tail::run(&flags),
        Command::Top(flags) => top::run(&flags),
        Command::Compare(flags) => compare::run(&flags),
        Command::Event(flags) => event::run(&flags),
        Command::History(flags) => history::run(&flags),
        Command::Blame(flags) => blame::run(&flags),
        Command::Actor(flags) => actor::run(&flags),
        Command::Completion { shell } => print(&completing::script(shell)?),
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(Failure::usage)?;
            print(&page)
        }
    }
}

/// What was given to the innermost command.
fn leaf(matches: &ArgMatches) -> &ArgMatches {
    let mut leaf = matches;
    while let Some((_, inner)) = leaf.subcommand() {
        leaf = inner;
    }
    leaf
}

/// Writes a command's result; a reader that closed the pipe early has what it wanted.
fn print(result: &[u8]) -> Result<Exit, Failure> {
    write_out(result).map(|_| Exit::Done)
}

/// Writes a piece of a result; `false` when nobody reads any more.
fn write_out(piece: &[u8]) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(piece).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::unreachable(error)),
        Ok(()) => Ok(true),
    }
}

/// Whether somebody may read what would be written: not so of a pipe whose other end was closed.
fn is_read() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let stdout = io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let told = poll(&mut asked, Some(&Timespec::default()));
    let [stdout] = asked;
    // What cannot be told shows itself with the next piece.
    told.is_err() || !stdout.revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Talks to the person, on standard error.
pub(crate) fn say(text: std::fmt::Arguments<'_>) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::SETTINGS;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Source: k8s.io/apiserver pkg/server/options/audit.go, AddFlags of v0.36.3: name, type and default.
    const UPSTREAM: [(&str, &str, &str); 39] = [
        ("audit-policy-file", "string", ""),
        ("audit-log-path", "string", ""),
        ("audit-log-format", "string", "json"),
        ("audit-log-version", "string", "audit.k8s.io/v1"),
        ("audit-log-maxage", "int", "366"),
        ("audit-log-maxbackup", "int", "100"),
        ("audit-log-maxsize", "int", "100"),
        ("audit-log-compress", "bool", "false"),
        ("audit-log-mode", "string", "blocking"),
        ("audit-log-batch-buffer-size", "int", "10000"),
        ("audit-log-batch-max-size", "int", "1"),
        ("audit-log-batch-max-wait", "duration", "0s"),
        ("audit-log-batch-throttle-enable", "bool", "false"),
        ("audit-log-batch-throttle-qps", "float32", "0"),
        ("audit-log-batch-throttle-burst", "int", "0"),
        ("audit-log-truncate-enabled", "bool", "false"),
        ("audit-log-truncate-max-batch-size", "int", "10485760"),
        ("audit-log-truncate-max-event-size", "int", "102400"),
        ("audit-webhook-config-file", "string", ""),
        ("audit-webhook-version", "string", "audit.k8s.io/v1"),
        ("audit-webhook-initial-backoff", "duration", "10s"),
        ("audit-webhook-batch-initial-backoff", "duration", "10s"),
        ("audit-webhook-mode", "string", "batch"),
        ("audit-webhook-batch-buffer-size", "int", "10000"),
        ("audit-webhook-batch-max-size", "int", "400"),
        ("audit-webhook-batch-max-wait", "duration", "30s"),
        ("audit-webhook-batch-throttle-enable", "bool", "true"),
        ("audit-webhook-batch-throttle-qps", "float32", "10"),
        ("audit-webhook-batch-throttle-burst", "int", "15"),
        ("audit-webhook-truncate-enabled", "bool", "false"),
        ("audit-webhook-truncate-max-batch-size", "int", "10485760"),
        ("audit-webhook-truncate-max-event-size", "int", "102400"),
        // These are ours.
        ("audit-log-batch-when-full", "string", "drop-newest"),
        ("audit-webhook-batch-when-full", "string", "drop-newest"),
        ("audit-webhook-spool-max-size", "size", ""),
        ("audit-webhook-spool-max-age", "duration", ""),
        ("audit-journal-mode", "string", ""),
        ("audit-journal-instance", "string", "gateway"),
        ("audit-sink-dir", "string", ""),
    ];

    #[test]
    fn the_audit_flags_are_those_of_kube_apiserver_by_name_type_and_default() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let mut expected = Vec::new();
        for (name, kind, default) in UPSTREAM {
            let argument = run
                .get_arguments()
                .find(|argument| {
                    argument.get_long() == Some(name)
                        || argument
                            .get_all_aliases()
                            .is_some_and(|aliases| aliases.contains(&name))
                })
                .unwrap_or_else(|| panic!("--{name} is missing"));
            let own = argument.get_long().unwrap();
            let setting = SETTINGS.iter().find(|setting| setting.flag == own).unwrap();
            assert_eq!(setting.default, default, "--{name}");
            let help = argument.get_help().unwrap().to_string();
            assert!(
                default.is_empty() || help.ends_with(&format!("[default: {default}]")),
                "--{name}: {help}"
            );
            // A bool may stand without a value, a number may be negative or hexadecimal.
            let parses = |value: &str| {
                let flag = format!("--{name}={value}");
                Cli::try_parse_from(["kaudit", "run", "--role", "gateway", &flag]).is_ok()
            };
            let (good, bad) = match kind {
                "int" => ("0x10", "1.5"),
                "bool" => ("T", "yes"),
                "duration" => ("1m0.5s", "5"),
                "float32" => ("1.5", "x"),
                "size" => ("1Gi", "1.5"),
                _ => ("any text", ""),
            };
            assert!(parses(good), "--{name}={good}");
            assert!(bad.is_empty() || !parses(bad), "--{name}={bad}");
            if kind == "bool" {
                let flag = format!("--{name}");
                assert!(Cli::try_parse_from(["kaudit", "run", "--role", "gateway", &flag]).is_ok());
            }
            expected.push(own);
        }
        let ours: Vec<&str> = run
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .filter(|name| name.starts_with("audit-"))
            .collect();
        for name in &ours {
            assert!(expected.contains(name), "--{name} is no flag of kube-apiserver");
        }
    }

    #[test]
    fn every_setting_has_its_flag_and_its_key() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let schema = serde_json::to_value(crate::config::Config::schema()).unwrap();
        for setting in SETTINGS {
            assert!(
                run.get_arguments()
                    .any(|argument| argument.get_long() == Some(setting.flag)),
                "--{}",
                setting.flag
            );
            let mut at = &schema;
            for key in setting.key.split('.') {
                at = &at["properties"][key];
                if let Some(name) = at["$ref"].as_str() {
                    at = &schema["$defs"][name.trim_start_matches("#/$defs/")];
                }
                assert!(!at.is_null(), "`{}` is not in the schema", setting.key);
            }
        }
    }
}
