//! `kaudit`, the binary: command line, configuration, wiring, reload, metrics, shutdown.

mod cli;
mod config;
mod exit;
mod logging;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os()).into()
}
