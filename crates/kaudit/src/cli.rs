//! The command line.

mod config;
mod dev;
mod policy;
mod run;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::exit::{Exit, Failure};
use crate::logging;

/// Kubernetes audit logging as one system.
#[derive(Debug, Parser)]
#[command(
    name = "kaudit",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done; 1 the answer is no (lint findings, file not formatted); 2 usage, configuration or \
                  policy does not parse; 3 something cannot be reached; 130 interrupted"
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
    /// Show the configuration's schema or its effective values
    #[command(subcommand)]
    Config(config::Command),
    /// Print a completion script for a shell
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
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
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
    match run(cli.command) {
        Ok(exit) => exit,
        Err(failure) => {
            say(format_args!("error: {failure}"));
            failure.exit
        }
    }
}

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Dev(flags) => dev::run(flags),
        Command::Run(flags) => run::run(*flags),
        Command::Policy(command) => policy::run(command),
        Command::Config(command) => config::run(command),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kaudit", &mut script);
            print(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(Failure::usage)?;
            print(&page)
        }
    }
}

/// Writes a command's result; a reader that closed the pipe early has what it wanted.
fn print(result: &[u8]) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(result).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::unreachable(error)),
        _ => Ok(Exit::Done),
    }
}

/// Talks to the person, on standard error.
pub(crate) fn say(text: std::fmt::Arguments<'_>) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Source: k8s.io/apiserver pkg/server/options/audit.go, AddFlags.
    #[test]
    fn the_log_flags_are_those_of_kube_apiserver() {
        const FLAGS: [&str; 15] = [
            "audit-policy-file",
            "audit-log-path",
            "audit-log-format",
            "audit-log-version",
            "audit-log-maxage",
            "audit-log-maxbackup",
            "audit-log-maxsize",
            "audit-log-compress",
            "audit-log-mode",
            "audit-log-batch-buffer-size",
            "audit-log-batch-max-size",
            "audit-log-batch-max-wait",
            "audit-log-batch-throttle-enable",
            "audit-log-batch-throttle-qps",
            "audit-log-batch-throttle-burst",
        ];
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        for flag in FLAGS {
            assert!(
                run.get_arguments()
                    .any(|argument| argument.get_long() == Some(flag)),
                "--{flag} is missing"
            );
        }
    }
}
