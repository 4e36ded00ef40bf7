//! kaudit's own log, on standard error.

use std::io::{self, IsTerminal};
use std::panic;

use clap::{Args, ValueEnum};
use tracing::debug;
use tracing_subscriber::EnvFilter;

/// Flags of the log.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct Flags {
    /// Format of the log on standard error
    #[arg(long, global = true, value_enum, default_value_t, env = "KAUDIT_LOG_FORMAT")]
    log_format: Format,
    /// What to log: a level, or `crate=level` pairs separated by commas; a release build has nothing below `debug`
    #[arg(long, global = true, default_value = "info", env = "KAUDIT_LOG")]
    log_filter: String,
}

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Starts the log of this process; a filter that does not parse falls back to `info`.
pub(crate) fn start(flags: &Flags) {
    let filter = EnvFilter::try_new(&flags.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false);
    let started = match flags.log_format {
        Format::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    // A second start in one process (tests) keeps the first log.
    if started.is_ok() {
        quieten_contained_panics();
    }
}

/// The parser of YAML panics where text breaks off in ways it did not think of; that is caught, and whoever sends such
/// text shall not fill the log with it.
fn quieten_contained_panics() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let is_contained = panic
            .location()
            .is_some_and(|location| location.file().contains("/libyaml-safer-"));
        if is_contained {
            debug!(%panic, "a body is no YAML");
        } else {
            tell(panic);
        }
    }));
}
