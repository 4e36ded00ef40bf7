//! `kaudit store`: the files of a store, by the kaudit that has it or without one.

mod shown;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::civil::{Date, date};
use jiff::{SignedDuration, Timestamp};
use kaudit_query::Filter;
use kaudit_store::{Compaction, Mergeable, Part, Scan, Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) use self::shown::{Going, Shown};
use super::server::Server;
use super::table::table_of;
use super::{Output, print, say};
use crate::asking::{Looked, Parameters};
use crate::config::Config;
use crate::config::flags::StoreFlags;
use crate::exit::{Exit, Failure};
use crate::storing;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// How much there is, day by day, and what became of all records
    Stats {
        #[command(flatten)]
        place: Place,
        /// Also what takes the room, by the values of this field: policyRule, user.username, objectRef.resource ...
        #[arg(long, value_name = "FIELD")]
        by: Option<String>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Merge the files of days that are over, as a running kaudit does once a day
    Compact {
        #[command(flatten)]
        folder: Folder,
        /// Only say which files would be merged
        #[arg(long)]
        dry_run: bool,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Remove the events whose time is over, as a running kaudit does every hour; says which files would go, and
    /// removes them with --yes where no kaudit runs
    Retain(Box<Retain>),
}

/// Where a store is, if nobody else has it.
#[derive(Debug, Args)]
pub(super) struct Folder {
    /// The data directory of a kaudit, or the store's directory itself
    #[arg(long, value_name = "DIR", env = "KAUDIT_DATA_DIR")]
    data_dir: PathBuf,
}

/// Which store is meant: that of a running kaudit, or files.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Read the files in place of asking a server: the data directory of a kaudit, which may run, or the store's directory
    /// itself [env: KAUDIT_DATA_DIR, unless a server is named]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["server", "context"])]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

impl Place {
    /// The directory, where no server is meant.
    fn folder(&self) -> Option<PathBuf> {
        meant_folder(self.data_dir.as_deref(), &self.server)
    }
}

/// The directory that was named with the command or, unless a server was, in the environment.
pub(super) fn meant_folder(named: Option<&Path>, server: &Server) -> Option<PathBuf> {
    let of_environment = || {
        let set = std::env::var_os("KAUDIT_DATA_DIR").filter(|dir| !dir.is_empty());
        set.filter(|_| !server.is_named()).map(PathBuf::from)
    };
    named.map(Path::to_owned).or_else(of_environment)
}

/// Flags of `store retain`.
#[derive(Debug, Args)]
pub(super) struct Retain {
    #[command(flatten)]
    place: Place,
    /// With a directory: the configuration file, which says what is kept, and for how long. A server goes by its own
    #[arg(short, long, value_name = "FILE", env = "KAUDIT_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: StoreFlags,
    /// Only say what would go, which is what happens without --yes
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Remove it
    #[arg(long)]
    yes: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Stats { place, by, output } => match place.folder() {
            Some(folder) => stats(&folder, by.as_deref(), output),
            None => stats_of_server(&place.server, by.as_deref(), output),
        },
        Command::Compact {
            folder,
            dry_run,
            output,
        } => compact(&folder.data_dir, dry_run, output),
        Command::Retain(flags) => retain(*flags),
    }
}

/// The store's directory: `path`, or the one in the data directory `path`.
pub(super) fn folder_of(path: &Path) -> Result<PathBuf, Failure> {
    let below = storing::folder(path);
    [path.to_owned(), below]
        .into_iter()
        .find(|folder| storing::is_store(folder))
        .ok_or_else(|| {
            Failure::unreachable(anyhow!(
                "there is no store in `{}`: name the data directory of a kaudit that has role store, or its folder `store`",
                path.display()
            ))
        })
}

/// Opens the store to read what is sealed.
pub(super) fn open_to_read(path: &Path) -> Result<Store, Failure> {
    let folder = folder_of(path)?;
    storing::open_to_read(&folder).map_err(|error| cannot_open(&folder, error))
}

fn open_to_write(path: &Path) -> Result<Store, Failure> {
    let folder = folder_of(path)?;
    storing::open_to_write(&folder).map_err(|error| cannot_open(&folder, error))
}

fn cannot_open(folder: &Path, error: StoreError) -> Failure {
    let hint = match error {
        StoreError::Locked { .. } => ": the kaudit that has it does this by itself",
        _ => "",
    };
    let context = format!("cannot open the store `{}`{hint}", folder.display());
    Failure::unreachable(anyhow::Error::new(error).context(context))
}

fn stats(path: &Path, by: Option<&str>, output: Output) -> Result<Exit, Failure> {
    let store = open_to_read(path)?;
    let snapshot = store.snapshot();
    let column = by.map(super::ask::column).transpose()?;
    let volumes = column.map(|column| {
        let scan = Scan::new(Filter::everything());
        snapshot.volume_by(&scan, &column).map(|(volumes, _)| volumes)
    });
    let volumes = volumes.transpose().map_err(Failure::unreachable)?;
    show_stats(
        &Shown::of(&snapshot, free_bytes(&store), volumes.as_deref()),
        by,
        output,
    )
}

fn show_stats(shown: &Shown, by: Option<&str>, output: Output) -> Result<Exit, Failure> {
    match output {
        Output::Json => print_document(shown),
        Output::Text => print(shown.text(by).as_bytes()),
    }
}

fn stats_of_server(server: &Server, by: Option<&str>, output: Output) -> Result<Exit, Failure> {
    let mut parameters = Parameters::default();
    if let Some(by) = by {
        super::ask::column(by)?;
        parameters = parameters.with("by", by).with("budget", SERVER_BUDGET_MILLIS);
    }
    let document = server.remote()?.document("/api/v1/store", &parameters)?;
    let looked: Looked = read_document(document.clone())?;
    let exit = show_stats(&read_document(document)?, by, output)?;
    Ok(tell_missing(looked, exit))
}

/// What a server may take to look at everything, at most what it allows.
const SERVER_BUDGET_MILLIS: &str = "60000";

/// The exit code of a server's answer; says on the way if something is missing in it.
fn tell_missing(looked: Looked, exit: Exit) -> Exit {
    let Some(why) = looked.missing() else {
        return exit;
    };
    super::ask::tell_partial(&why);
    match exit {
        Exit::Done => Exit::Partial,
        other => other,
    }
}

fn read_document<T: DeserializeOwned>(document: Value) -> Result<T, Failure> {
    let read = serde_json::from_value(document).context("the server's answer is of another kind");
    read.map_err(Failure::unreachable)
}

fn print_document(document: &impl Serialize) -> Result<Exit, Failure> {
    let value = serde_json::to_value(document).map_err(Failure::unreachable)?;
    print(format!("{value:#}\n").as_bytes())
}

/// Room on the disk of a store; `None` where it does not say, and in a bucket, which has no end.
pub(crate) fn free_bytes(store: &Store) -> Option<u64> {
    if store.bucket().is_some() {
        return None;
    }
    let there = rustix::fs::statvfs(store.root()).ok()?;
    Some(there.f_bavail.saturating_mul(there.f_frsize))
}

fn compact(path: &Path, dry_run: bool, output: Output) -> Result<Exit, Failure> {
    let now = kaudit_collect::now_micros();
    let compaction = Compaction::before(now);
    if dry_run {
        let mergeable = open_to_read(path)?.mergeable(&compaction);
        return print(merging(&mergeable, output).as_bytes());
    }
    let store = open_to_write(path)?;
    let mergeable = store.mergeable(&compaction);
    let done = store.compact(&compaction, now).map_err(Failure::unreachable)?;
    let bytes = |parts: &[Part]| parts.iter().map(|part| part.bytes).sum::<u64>();
    let (from, into) = (bytes(&done.removed), bytes(&done.added));
    if output == Output::Json {
        let value = json!({
            "days": mergeable.len(), "removedFiles": done.removed.len(), "removedBytes": from,
            "addedFiles": done.added.len(), "addedBytes": into,
        });
        return print(format!("{value:#}\n").as_bytes());
    }
    let text = if done.removed.is_empty() {
        "nothing is to be merged\n".to_owned()
    } else {
        format!(
            "{} files, {}, became {} files, {}\n",
            done.removed.len(),
            size(from),
            done.added.len(),
            size(into)
        )
    };
    print(text.as_bytes())
}

/// What would be merged.
fn merging(mergeable: &[Mergeable], output: Output) -> String {
    let bytes = |day: &Mergeable| day.parts.iter().map(|part| part.bytes).sum::<u64>();
    let rows = |day: &Mergeable| day.parts.iter().map(|part| part.rows).sum::<u64>();
    if output == Output::Json {
        let items: Vec<Value> = mergeable
            .iter()
            .map(|day| {
                json!({"cluster": day.cluster, "day": day_text(day.day), "files": day.parts.len(), "events": rows(day),
                    "bytes": bytes(day)})
            })
            .collect();
        return format!("{:#}\n", json!({"items": items}));
    }
    if mergeable.is_empty() {
        return "nothing is to be merged\n".to_owned();
    }
    let cells: Vec<[String; 5]> = mergeable
        .iter()
        .map(|day| {
            [
                day.cluster.clone(),
                day_text(day.day),
                day.parts.len().to_string(),
                rows(day).to_string(),
                size(bytes(day)),
            ]
        })
        .collect();
    table_of(&["CLUSTER", "DAY", "FILES", "EVENTS", "ON DISK"], &cells).concat()
}

fn retain(flags: Retain) -> Result<Exit, Failure> {
    let Some(folder) = flags.place.folder() else {
        return retention_of_server(&flags);
    };
    let Some(file) = &flags.config else {
        return Err(Failure::usage(anyhow!(
            "what is kept, and for how long, says the configuration file of the kaudit: give --config"
        )));
    };
    let mut config = Config::read(file)?;
    flags.store.apply(&mut config);
    let retention = storing::retention(&config)?;
    if retention.max_age.is_none() && retention.max_bytes.is_none() {
        return Err(Failure::usage(anyhow!(
            "everything is kept: neither `store.retention` nor `store.maxSize` is in `{}`",
            file.display()
        )));
    }
    let now = kaudit_collect::now_micros();
    if !flags.yes {
        let snapshot = open_to_read(&folder)?.snapshot();
        let expiring = snapshot.expiring(&retention, now).map_err(Failure::unreachable)?;
        show_going(&Going::of(&expiring), flags.output)?;
        if !flags.dry_run && !expiring.is_empty() {
            say(format_args!("nothing was removed: give --yes to remove it"));
        }
        return Ok(Exit::Done);
    }
    let store = open_to_write(&folder)?;
    let done = store.retain(&retention, now).map_err(Failure::unreachable)?;
    let text = if flags.output == Output::Json {
        let value = json!({
            "removedFiles": done.removed.len(), "addedFiles": done.added.len(), "removedEvents": done.expired_rows,
        });
        format!("{value:#}\n")
    } else {
        format!(
            "{} events went with {} files; {} files hold what is kept of them\n",
            done.expired_rows,
            done.removed.len(),
            done.added.len()
        )
    };
    print(text.as_bytes())
}

fn show_going(going: &Going, output: Output) -> Result<Exit, Failure> {
    match output {
        Output::Json => print_document(going),
        Output::Text => print(going.text().as_bytes()),
    }
}

/// What a running kaudit would let go.
fn retention_of_server(flags: &Retain) -> Result<Exit, Failure> {
    if flags.yes {
        return Err(Failure::usage(anyhow!(
            "a running kaudit removes what is over by itself, every hour; to do it without one give --data-dir"
        )));
    }
    let parameters = Parameters::default().with("budget", SERVER_BUDGET_MILLIS);
    let document = flags
        .place
        .server
        .remote()?
        .document("/api/v1/store/retention", &parameters)?;
    let looked: Looked = read_document(document.clone())?;
    let going: Going = read_document(document)?;
    let exit = show_going(&going, flags.output)?;
    if going.is_limited == Some(false) {
        say(format_args!(
            "note: this kaudit keeps everything: neither `store.retention` nor `store.maxSize` is in its configuration"
        ));
    }
    Ok(tell_missing(looked, exit))
}

/// A time to the second.
pub(super) fn instant(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |time| format!("{time:.0}"))
}

fn day_text(day: i64) -> String {
    const EPOCH: Date = date(1970, 1, 1);
    let days = SignedDuration::from_hours(day.saturating_mul(24));
    EPOCH
        .checked_add(days)
        .map_or_else(|_| day.to_string(), |date| date.to_string())
}

/// Bytes for people, in powers of 1000.
pub(super) fn size(bytes: u64) -> String {
    let units = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_days_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_500, "1.5 kB"),
            (82_000_000, "82.0 MB"),
            (u64::MAX, "18446744.0 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(day_text(20_779), "2026-11-22");
    }
}
