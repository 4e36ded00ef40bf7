//! `kaudit`, the binary: command line, configuration, wiring, reload, metrics, shutdown.

mod access_log;
mod admin;
mod api;
mod asking;
mod auditing;
mod cli;
mod collecting;
mod collection;
mod completeness;
mod config;
mod connecting;
mod data;
mod dev;
mod exit;
mod identifying;
mod keeping;
mod logging;
mod metrics;
mod reload;
mod serving;
mod setup;
mod sinks;
mod sockets;
mod stop;
mod storing;

use std::process::ExitCode;

/// What a thousand requests took at once is given back when they have ended: of 5,000 idle watches over HTTP/2 each holds
/// half of what it does with glibc's allocator, which keeps it.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main(std::env::args_os()).into()
}
