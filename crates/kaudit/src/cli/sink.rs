//! `kaudit sink`: the sinks of a running kaudit.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use kaudit_backend::dynamic::{AuditSink, MAX_FILE_BYTES, Surroundings};
use kaudit_dial::{Cluster, Trust, Upstream};
use serde::Deserialize;
use serde_json::Value;

use super::{Output, print};
use crate::api::Token;
use crate::exit::{Exit, Failure};
use crate::sinks::Row;

/// An answer that is longer is not read.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// An answer that takes longer is not awaited.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a kaudit that serves keeps its token, unless it was told otherwise.
const TOKEN_FILES: [&str; 2] = [".kaudit/dev/token", "/var/lib/kaudit/token"];

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

/// Which kaudit is asked.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// Address of its API
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:7440",
        env = "KAUDIT_SERVER"
    )]
    server: String,
    /// File with the API's token [default: .kaudit/dev/token, or else /var/lib/kaudit/token]
    #[arg(long, value_name = "FILE", env = "KAUDIT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
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
    let width = |column: usize| {
        let of_cells = cells.iter().filter_map(|row| row.get(column));
        let widths = of_cells.map(|cell| cell.chars().count());
        widths
            .chain(heads.get(column).map(|head| head.len()))
            .max()
            .unwrap_or_default()
    };
    let line = |row: &[&str]| {
        let padded = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:width$}", width = width(column)));
        let line: Vec<String> = padded.collect();
        format!("{}\n", line.join("  ").trim_end())
    };
    let mut text = line(&heads);
    for (row, cells) in rows.iter().zip(&cells) {
        text += &line(&cells.each_ref().map(String::as_str));
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

impl Server {
    fn token(&self) -> Result<Token, Failure> {
        let file = self.token_file.clone().or_else(|| {
            let mut known = TOKEN_FILES.iter().map(PathBuf::from);
            known.find(|file| file.exists())
        });
        let file = file.ok_or_else(|| {
            Failure::usage(anyhow!(
                "the API's token is missing: give --token-file, it is the file `token` in the data directory"
            ))
        })?;
        Token::read(&file).map_err(Failure::usage)
    }

    /// The body of a good answer.
    async fn ask(&self, method: Method, path: &str, body: String) -> Result<Vec<u8>, Failure> {
        let address = self
            .server
            .parse()
            .map_err(|why| Failure::usage(anyhow!("--server `{}`: {why}", self.server)))?;
        let token = self.token()?;
        let upstream = Upstream::new(&Cluster::new(address, Trust::Public), false).map_err(Failure::usage)?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(Full::from(body).map_err(|never| match never {}).boxed_unsync())
            .map_err(Failure::usage)?;
        if let Some(header) = token.header() {
            request.headers_mut().insert(header::AUTHORIZATION, header);
        }
        let answered = tokio::time::timeout(TIMEOUT, async {
            let response = upstream.send(request).await.map_err(Failure::unreachable)?;
            let code = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await;
            let body = body.map_err(|error| Failure::unreachable(anyhow!(error)))?;
            Ok((code, body.to_bytes().to_vec()))
        });
        let (code, body) = answered
            .await
            .map_err(|_| Failure::unreachable(anyhow!("{} did not answer in time", self.server)))??;
        if code.is_success() {
            return Ok(body);
        }
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = status.get("message").and_then(Value::as_str);
        let message = message.unwrap_or("no reason given").to_owned();
        Err(match code {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::not_allowed(anyhow!(
                "{} does not accept the token: give --token-file",
                self.server
            )),
            code if code.is_client_error() => Failure::usage(anyhow!(message)),
            _ => Failure::unreachable(anyhow!("{}: {message}", self.server)),
        })
    }
}
