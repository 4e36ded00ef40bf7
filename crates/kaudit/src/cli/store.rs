//! `kaudit store`: the files of a store, without a server.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use jiff::civil::{Date, date};
use jiff::{SignedDuration, Timestamp};
use kaudit_query::Filter;
use kaudit_store::{
    Compaction, Expiring, Mergeable, Part, Scan, Snapshot, Stats, Store, StoreError, VolumeOf,
};
use serde_json::{Value, json};

use super::table::table_of;
use super::{Output, print, say};
use crate::config::Config;
use crate::config::flags::StoreFlags;
use crate::exit::{Exit, Failure};
use crate::storing;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// How much there is, day by day, and what became of all records; also while a kaudit runs
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
        place: Place,
        /// Only say which files would be merged
        #[arg(long)]
        dry_run: bool,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Remove the events whose time is over, as a running kaudit does every hour; says which files would go, and
    /// removes them with --yes
    Retain(Box<Retain>),
}

/// Where a store is.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The data directory of a kaudit, or the store's directory itself
    #[arg(long, value_name = "DIR", env = "KAUDIT_DATA_DIR")]
    data_dir: PathBuf,
}

/// Flags of `store retain`.
#[derive(Debug, Args)]
pub(super) struct Retain {
    #[command(flatten)]
    place: Place,
    /// The configuration file, which says what is kept longer and what is on hold
    #[arg(short, long, value_name = "FILE", env = "KAUDIT_CONFIG")]
    config: PathBuf,
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
        Command::Stats { place, by, output } => stats(&place.data_dir, by.as_deref(), output),
        Command::Compact {
            place,
            dry_run,
            output,
        } => compact(&place.data_dir, dry_run, output),
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
    let free = free_bytes(&store);
    if output == Output::Json {
        let value = document(&snapshot, free, volumes.as_deref());
        return print(format!("{value:#}\n").as_bytes());
    }
    let (stats, manifest) = (snapshot.stats(), snapshot.manifest());
    let mut text = summary(&stats);
    if let Some(days) = free.and_then(|free| days_to_full(&stats, free)) {
        text += &format!("disk full     in {days} days at that pace, if nothing is removed\n");
    }
    let counts = &manifest.counts;
    text += &format!(
        "sealed to     record {}, manifest version {}\n",
        manifest.sealed_to, manifest.version
    );
    let reasons = [
        ("rejected", &counts.rejected),
        ("lost", &counts.lost),
        ("expired", &counts.expired),
    ];
    for (what, reasons) in reasons {
        for (reason, count) in reasons {
            text += &format!("{what:12}  {count} ({reason})\n");
        }
    }
    if !stats.days.is_empty() {
        let rows: Vec<[String; 4]> = stats
            .days
            .iter()
            .map(|day| {
                [
                    day_text(day.day),
                    day.volume.events.to_string(),
                    size(day.volume.event_bytes),
                    size(day.stored_bytes),
                ]
            })
            .collect();
        text.push('\n');
        text += &table_of(&["DAY", "EVENTS", "AS LOG LINES", "ON DISK"], &rows).concat();
    }
    if let (Some(by), Some(volumes)) = (by, &volumes) {
        text.push('\n');
        text += &volume_table(by, volumes, stats.sealed.event_bytes);
    }
    print(text.as_bytes())
}

/// The largest values are shown.
const VALUES: usize = 30;

fn volume_table(by: &str, volumes: &[VolumeOf], all: u64) -> String {
    let rows: Vec<[String; 4]> = volumes
        .iter()
        .take(VALUES)
        .map(|of| {
            let value =
                of.value.as_deref().map_or(
                    "(others)",
                    |value| {
                        if value.is_empty() { "(none)" } else { value }
                    },
                );
            [
                of.volume.events.to_string(),
                size(of.volume.event_bytes),
                format!("{:.1} %", super::top::percent(of.volume.event_bytes, all)),
                super::show::plain(value.as_bytes()),
            ]
        })
        .collect();
    let mut text = table_of(&["EVENTS", "AS LOG LINES", "SHARE", by], &rows).concat();
    if volumes.len() > VALUES {
        text += &format!("... {} further values\n", volumes.len() - VALUES);
    }
    text
}

/// Room on the disk of a store; `None` where it does not say, and in a bucket, which has no end.
pub(crate) fn free_bytes(store: &Store) -> Option<u64> {
    if store.bucket().is_some() {
        return None;
    }
    let there = rustix::fs::statvfs(store.root()).ok()?;
    Some(there.f_bavail.saturating_mul(there.f_frsize))
}

/// In how many days the disk is full, at the pace of the last whole days.
fn days_to_full(stats: &Stats, free: u64) -> Option<u64> {
    free.checked_div(stats.forecast(1)?)
}

/// A store for programs.
pub(crate) fn document(snapshot: &Snapshot, free: Option<u64>, volumes: Option<&[VolumeOf]>) -> Value {
    let (stats, manifest) = (snapshot.stats(), snapshot.manifest());
    let days: Vec<Value> = stats
        .days
        .iter()
        .map(|day| {
            json!({"day": day_text(day.day), "events": day.volume.events, "eventBytes": day.volume.event_bytes,
                "storedBytes": day.stored_bytes})
        })
        .collect();
    let mut document = json!({
        "files": stats.files, "events": stats.sealed.events, "eventBytes": stats.sealed.event_bytes,
        "storedBytes": stats.stored_bytes, "rawEvents": stats.raw_rows, "unsealedEvents": stats.tail_events,
        "manifestVersion": manifest.version, "sealedTo": manifest.sealed_to, "counts": manifest.counts, "days": days,
        "forecastBytes": {"90d": stats.forecast(90), "365d": stats.forecast(365)},
        "freeBytes": free, "daysToFull": free.and_then(|free| days_to_full(&stats, free)),
    });
    if let (Some(volumes), Some(members)) = (volumes, document.as_object_mut()) {
        let volumes = volumes.iter().map(
            |of| json!({"value": of.value, "events": of.volume.events, "eventBytes": of.volume.event_bytes}),
        );
        members.insert("volumes".to_owned(), volumes.collect::<Vec<_>>().into());
    }
    document
}

fn summary(stats: &Stats) -> String {
    let mut text = format!(
        "files         {}\nevents        {}\nas log lines  {}\non disk       {}",
        stats.files,
        stats.sealed.events,
        size(stats.sealed.event_bytes),
        size(stats.stored_bytes)
    );
    if let Some(tenths) = stats
        .sealed
        .event_bytes
        .saturating_mul(10)
        .checked_div(stats.stored_bytes)
    {
        text += &format!(", {}.{} times less", tenths / 10, tenths % 10);
    }
    text += &format!("\nkept raw      {} events\n", stats.raw_rows);
    if let (Some(quarter), Some(year)) = (stats.forecast(90), stats.forecast(365)) {
        text += &format!(
            "forecast      {} in 90 days, {} in a year, at the pace of the last days\n",
            size(quarter),
            size(year)
        );
    }
    text
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
    let mut config = Config::read(&flags.config)?;
    flags.store.apply(&mut config);
    let retention = storing::retention(&config)?;
    if retention.max_age.is_none() && retention.max_bytes.is_none() {
        return Err(Failure::usage(anyhow!(
            "everything is kept: neither `store.retention` nor `store.maxSize` is in `{}`",
            flags.config.display()
        )));
    }
    let now = kaudit_collect::now_micros();
    if !flags.yes {
        let snapshot = open_to_read(&flags.place.data_dir)?.snapshot();
        let expiring = snapshot.expiring(&retention, now).map_err(Failure::unreachable)?;
        print(going(&expiring, flags.output).as_bytes())?;
        if !flags.dry_run && !expiring.is_empty() {
            say(format_args!("nothing was removed: give --yes to remove it"));
        }
        return Ok(Exit::Done);
    }
    let store = open_to_write(&flags.place.data_dir)?;
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

/// What would go.
fn going(expiring: &[Expiring], output: Output) -> String {
    if output == Output::Json {
        let items: Vec<Value> = expiring
            .iter()
            .map(|file| {
                json!({"path": file.part.path, "reason": file.reason, "newest": instant(file.part.max_ts),
                    "events": file.part.rows, "keptEvents": file.kept_rows, "bytes": file.part.bytes})
            })
            .collect();
        return format!("{:#}\n", json!({"items": items}));
    }
    if expiring.is_empty() {
        return "nothing is to be removed\n".to_owned();
    }
    let cells: Vec<[String; 6]> = expiring
        .iter()
        .map(|file| {
            [
                file.part.path.clone(),
                file.reason.to_owned(),
                instant(file.part.max_ts),
                file.part.rows.saturating_sub(file.kept_rows).to_string(),
                file.kept_rows.to_string(),
                size(file.part.bytes),
            ]
        })
        .collect();
    table_of(
        &["FILE", "BECAUSE OF", "NEWEST EVENT", "GO", "STAY", "ON DISK"],
        &cells,
    )
    .concat()
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
