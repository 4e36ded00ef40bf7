//! `kaudit import`: files that somebody has, into a journal.

mod reading;
mod target;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use kaudit_collect::{ImportConfig, ImportFile, Kept, Name};
use serde::Serialize;

use self::reading::{Bar, Read, Reading};
use self::target::Target;
use super::server::Server;
use super::{Output, print, say};
use crate::exit::{Exit, Failure};
use crate::stop::Stop;

/// Flags of `import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Plain, gzip and zstd files of JSON lines, EventLists and container logs are told apart by their \
                        content. Events that are here already are not kept again, so an import that was cut short is \
                        finished by running it again. Exit code 1: something in the files was no event and lies in \
                        quarantine; 3: a file cannot be read to its end, or the server not be reached"
)]
pub(super) struct Flags {
    /// The files; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The cluster that the events are about
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The apiserver that made the events
    #[arg(long, value_name = "NAME")]
    instance: String,
    /// Import into this data directory, which no other process may hold, in place of asking a server
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// With --data-dir, the configuration file whose `journal` and `collect` settings hold
    #[arg(short, long, value_name = "FILE", requires = "data_dir")]
    config: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// Read files that were imported before as well
    #[arg(long)]
    again: bool,
    /// How to print what became of each file
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// How far a file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    /// All of it was read.
    Imported,
    /// It was imported whole before, so nothing was done.
    ImportedBefore,
    /// It could not be read to its end.
    Failed,
    /// A signal came.
    Interrupted,
}

/// What became of a file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    file: String,
    outcome: Outcome,
    events: u64,
    duplicates: u64,
    quarantined: u64,
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let name = |flag: &str, text: &str| -> Result<Name, Failure> {
        let name = text.parse::<Name>();
        name.map_err(|error| Failure::usage(anyhow!("{flag}: {error}")))
    };
    let cluster = name("--cluster", &flags.cluster)?;
    let instance = name("--instance", &flags.instance)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start")
        .map_err(Failure::unreachable)?;
    let exit = runtime.block_on(async {
        let stop = Stop::default();
        let signals = stop.listen()?;
        let target = match &flags.data_dir {
            Some(folder) => Target::here(folder, flags.config.as_deref(), cluster, instance)?,
            None => Target::through(&flags.server, &cluster, &instance),
        };
        let exit = tokio::select! {
            exit = all(flags, &target, &stop) => exit,
            () = signals => Ok(Exit::Interrupted),
        };
        target.close().await;
        exit
    });
    // A file that is still being read, such as standard input, is not awaited.
    runtime.shutdown_background();
    exit
}

/// Imports the files one after the other. A file that cannot be read does not keep the others out.
async fn all(flags: &Flags, target: &Target<'_>, stop: &Stop) -> Result<Exit, Failure> {
    let mut rows = Vec::new();
    let mut failure = None;
    for path in &flags.files {
        let (row, problem) = one(path, flags, target, stop).await;
        let outcome = row.outcome;
        if flags.output == Output::Text {
            print(line(&row).as_bytes())?;
        }
        rows.push(row);
        match problem {
            Some(Problem::File(error)) => say(format_args!("error: {}", Failure::unreachable(error))),
            Some(Problem::Target(error)) => {
                failure = Some(error);
                break;
            }
            None => {}
        }
        if outcome == Outcome::Interrupted {
            break;
        }
    }
    if flags.output == Output::Json {
        let rows = serde_json::json!({ "items": rows });
        print(format!("{rows:#}\n").as_bytes())?;
    }
    let any = |outcome: Outcome| rows.iter().any(|row| row.outcome == outcome);
    match failure {
        Some(failure) => Err(failure),
        None if any(Outcome::Interrupted) => Ok(Exit::Interrupted),
        None if any(Outcome::Failed) => Ok(Exit::Unreachable),
        None if rows.iter().any(|row| row.quarantined > 0) => Ok(Exit::No),
        None => Ok(Exit::Done),
    }
}

/// Why a file was not imported to its end.
enum Problem {
    /// It cannot be read.
    File(anyhow::Error),
    /// Nothing can be kept: no file would do better.
    Target(Failure),
}

async fn one(path: &Path, flags: &Flags, target: &Target<'_>, stop: &Stop) -> (Row, Option<Problem>) {
    let mut row = Row {
        file: path.display().to_string(),
        outcome: Outcome::Interrupted,
        events: 0,
        duplicates: 0,
        quarantined: 0,
    };
    let outcome = tokio::select! {
        outcome = into(path, flags, target, &mut row) => outcome,
        () = stop.stop.cancelled() => Ok(Outcome::Interrupted),
    };
    match outcome {
        Ok(outcome) => {
            row.outcome = outcome;
            (row, None)
        }
        Err(problem) => {
            row.outcome = Outcome::Failed;
            (row, Some(problem))
        }
    }
}

async fn into(path: &Path, flags: &Flags, target: &Target<'_>, row: &mut Row) -> Result<Outcome, Problem> {
    // Standard input can be read once only.
    if !flags.again
        && path != Path::new("-")
        && let Some(identity) = identify(path).await
        && target.knows(&identity).await.map_err(Problem::Target)?
    {
        return Ok(Outcome::ImportedBefore);
    }
    let mut bar = Bar::new(&row.file);
    let mut reading = Reading::start(path).map_err(|error| Problem::File(error.into()))?;
    loop {
        match reading.next().await {
            Some(Read::Chunk(chunk, progress)) => {
                let Kept {
                    events,
                    duplicates,
                    quarantined,
                } = target.keep(*chunk).await.map_err(Problem::Target)?;
                row.events += events;
                row.duplicates += duplicates;
                row.quarantined += quarantined;
                bar.show(&progress);
            }
            Some(Read::Whole(identity)) => {
                target.finish(identity).await.map_err(Problem::Target)?;
                return Ok(Outcome::Imported);
            }
            Some(Read::Failed(error)) => return Err(Problem::File(error.into())),
            None => return Err(Problem::File(anyhow!("{}: reading ended by a panic", row.file))),
        }
    }
}

/// What a file is. One that cannot be read is read all the same, up to where it can be.
async fn identify(path: &Path) -> Option<kaudit_collect::ImportIdentity> {
    let path = path.to_owned();
    let identify = move || ImportFile::identify(&path, ImportConfig::default());
    tokio::task::spawn_blocking(identify).await.ok()?.ok()
}

/// A file's row for people.
fn line(row: &Row) -> String {
    let counts = format!(
        "{} events kept, {} here already, {} in quarantine",
        row.events, row.duplicates, row.quarantined
    );
    let file = &row.file;
    match row.outcome {
        Outcome::Imported => format!("{file}: {counts}\n"),
        Outcome::ImportedBefore => {
            format!("{file}: imported before, nothing was done; --again reads it all the same\n")
        }
        Outcome::Failed => format!("{file}: {counts}; not read to its end\n"),
        Outcome::Interrupted => format!("{file}: {counts}; interrupted, run it again to finish\n"),
    }
}
