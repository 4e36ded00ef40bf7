//! `kaudit sink`: the sinks of a running kaudit.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use http::Method;
use kaudit_backend::dynamic::{AuditSink, MAX_FILE_BYTES, Surroundings};
use serde::Deserialize;
use serde_json::Value;

use super::server::Server;
use super::table::table_of;
use super::{Output, print};
use crate::exit::{Exit, Failure};
use crate::sinks::Row;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List every sink with its state, its queue, and what became of its events
    List {
        #[command(flatten)]
        server: Server,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Register the AuditSink objects of a file, or change them
    Apply {
        /// The file; '-' is standard input
        #[arg(short, long = "filename", value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        server: Server,
    },
    /// Remove AuditSink objects that were registered by `apply`
    Delete {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        server: Server,
    },
}

pub(super) fn run(command: Command) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .map_err(Failure::unreachable)?;
    runtime.block_on(async {
        match command {
            Command::List { server, output } => list(&server, output).await,
            Command::Apply { file, server } => apply(&server, &file).await,
            Command::Delete { names, server } => delete(&server, &names).await,
        }
    })
}

#[derive(Deserialize)]
struct List {
    items: Vec<Row>,
}

async fn list(server: &Server, output: Output) -> Result<Exit, Failure> {
    let answer = server.ask(Method::GET, "/api/v1/sinks", String::new()).await?;
    if output == Output::Json {
        let value: Value = serde_json::from_slice(&answer).map_err(Failure::unreachable)?;
        return print(format!("{value:#}\n").as_bytes());
    }
    let list: List = serde_json::from_slice(&answer).map_err(Failure::unreachable)?;
    print(table(&list.items).as_bytes())
}

/// One line a sink; the last error, which may be long, below it.
fn table(rows: &[Row]) -> String {
    let heads = [
        "NAME",
        "STATE",
        "LEVEL",
        "QUEUED",
        "DELIVERED",
        "DROPPED",
        "TARGET",
    ];
    let cells: Vec<[String; 7]> = rows
        .iter()
        .map(|row| {
            [
                row.name.clone(),
                row.state.as_str().to_owned(),
                row.level.clone().unwrap_or_else(|| "-".to_owned()),
                row.queued.to_string(),
                row.delivered.to_string(),
                row.dropped.to_string(),
                row.target.clone(),
            ]
        })
        .collect();
    let mut lines = table_of(&heads, &cells).into_iter();
    let mut text = lines.next().unwrap_or_default();
    for (row, line) in rows.iter().zip(lines) {
        text += &line;
        for (by, count) in &row.dropped_by {
            text += &format!("  dropped by {by}: {count}\n");
        }
        if let Some(error) = &row.last_error {
            let age = row
                .last_error_seconds_ago
                .map(|seconds| format!(" ({seconds} s ago)"))
                .unwrap_or_default();
            text += &format!("  last error{age}: {error}\n");
        }
    }
    text
}

async fn apply(server: &Server, file: &Path) -> Result<Exit, Failure> {
    let text = read(file)?;
    let name = file.display();
    // The server decides what a service reference is worth.
    let mut objects = Vec::new();
    for (object, document) in AuditSink::parse_documents(&text, Surroundings::Cluster) {
        let object = object.map_err(|invalid| Failure::usage(anyhow!("{name}: {invalid}")))?;
        objects.push((object.name, document));
    }
    if objects.is_empty() {
        return Err(Failure::usage(anyhow!("{name}: there is no AuditSink in it")));
    }
    for (object, document) in objects {
        server
            .ask(Method::PUT, &format!("/api/v1/sinks/{object}"), document)
            .await?;
        print(format!("auditsink.auditregistration.k8s.io/{object} registered\n").as_bytes())?;
    }
    Ok(Exit::Done)
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .take(MAX_FILE_BYTES as u64 + 1)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(file)
            .and_then(|opened| opened.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read `{}`", file.display()))
        .map_err(Failure::usage)?;
    if text.len() > MAX_FILE_BYTES {
        return Err(Failure::usage(anyhow!(
            "{}: a file of objects may have {MAX_FILE_BYTES} bytes",
            file.display()
        )));
    }
    Ok(text)
}

async fn delete(server: &Server, names: &[String]) -> Result<Exit, Failure> {
    for name in names {
        if name.contains(['/', '?', '#', '%']) || name.chars().any(char::is_whitespace) {
            return Err(Failure::usage(anyhow!("`{name}` is no name of an AuditSink")));
        }
        server
            .ask(Method::DELETE, &format!("/api/v1/sinks/{name}"), String::new())
            .await?;
        print(format!("auditsink.auditregistration.k8s.io/{name} deleted\n").as_bytes())?;
    }
    Ok(Exit::Done)
}
