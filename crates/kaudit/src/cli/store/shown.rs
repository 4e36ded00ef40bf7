//! A store as it is shown: to programs as a document, which a server's API has as well, and to people.

use std::collections::BTreeMap;

use kaudit_store::{Counts, Expiring, Snapshot, Stats, VolumeOf};
use serde::{Deserialize, Serialize};

use super::{day_text, instant, size};
use crate::cli::show::plain;
use crate::cli::table::table_of;
use crate::cli::top::percent;

/// A store in numbers.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Shown {
    files: usize,
    events: u64,
    event_bytes: u64,
    stored_bytes: u64,
    /// Events that keep the received bytes.
    raw_events: u64,
    /// Events that are in no file yet.
    unsealed_events: usize,
    manifest_version: u64,
    sealed_to: u64,
    counts: Counts,
    days: Vec<Day>,
    /// What it takes after so many days, where that can be told.
    forecast_bytes: BTreeMap<String, Option<u64>>,
    free_bytes: Option<u64>,
    days_to_full: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<Vec<OfValue>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Day {
    day: String,
    events: u64,
    event_bytes: u64,
    stored_bytes: u64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct OfValue {
    /// `None` for all that were too many to be told apart.
    value: Option<String>,
    events: u64,
    event_bytes: u64,
}

/// The largest values are shown.
const VALUES: usize = 30;

impl Shown {
    /// A store, with `free` bytes on its disk, and what takes the room in it.
    pub(crate) fn of(snapshot: &Snapshot, free: Option<u64>, volumes: Option<&[VolumeOf]>) -> Self {
        let (stats, manifest) = (snapshot.stats(), snapshot.manifest());
        let days = stats.days.iter().map(|day| Day {
            day: day_text(day.day),
            events: day.volume.events,
            event_bytes: day.volume.event_bytes,
            stored_bytes: day.stored_bytes,
        });
        let forecast = [90, 365].map(|days| (format!("{days}d"), stats.forecast(days)));
        let of_value = |of: &VolumeOf| OfValue {
            value: of.value.clone(),
            events: of.volume.events,
            event_bytes: of.volume.event_bytes,
        };
        Self {
            files: stats.files,
            events: stats.sealed.events,
            event_bytes: stats.sealed.event_bytes,
            stored_bytes: stats.stored_bytes,
            raw_events: stats.raw_rows,
            unsealed_events: stats.tail_events,
            manifest_version: manifest.version,
            sealed_to: manifest.sealed_to,
            counts: manifest.counts.clone(),
            days: days.collect(),
            forecast_bytes: forecast.into(),
            free_bytes: free,
            days_to_full: free.and_then(|free| days_to_full(&stats, free)),
            volumes: volumes.map(|volumes| volumes.iter().map(of_value).collect()),
        }
    }

    /// For people; `by` is the field of which the values are.
    pub(super) fn text(&self, by: Option<&str>) -> String {
        let mut text = self.summary();
        if let Some(days) = self.days_to_full {
            text += &format!("disk full     in {days} days at that pace, if nothing is removed\n");
        }
        text += &format!(
            "sealed to     record {}, manifest version {}\n",
            self.sealed_to, self.manifest_version
        );
        let counts = &self.counts;
        let reasons = [
            ("rejected", &counts.rejected),
            ("lost", &counts.lost),
            ("dropped", &counts.dropped),
            ("expired", &counts.expired),
        ];
        for (what, reasons) in reasons {
            for (reason, count) in reasons {
                text += &format!("{what:12}  {count} ({reason})\n");
            }
        }
        if !self.days.is_empty() {
            let rows: Vec<[String; 4]> = self
                .days
                .iter()
                .map(|day| {
                    [
                        day.day.clone(),
                        day.events.to_string(),
                        size(day.event_bytes),
                        size(day.stored_bytes),
                    ]
                })
                .collect();
            text.push('\n');
            text += &table_of(&["DAY", "EVENTS", "AS LOG LINES", "ON DISK"], &rows).concat();
        }
        if let (Some(by), Some(volumes)) = (by, &self.volumes) {
            text.push('\n');
            text += &self.volume_table(by, volumes);
        }
        text
    }

    fn summary(&self) -> String {
        let mut text = format!(
            "files         {}\nevents        {}\nas log lines  {}\non disk       {}",
            self.files,
            self.events,
            size(self.event_bytes),
            size(self.stored_bytes)
        );
        if let Some(tenths) = self.event_bytes.saturating_mul(10).checked_div(self.stored_bytes) {
            text += &format!(", {}.{} times less", tenths / 10, tenths % 10);
        }
        text.push('\n');
        if self.unsealed_events > 0 {
            text += &format!("in no file    {} events yet\n", self.unsealed_events);
        }
        text += &format!("kept raw      {} events\n", self.raw_events);
        let forecast = |days: &str| self.forecast_bytes.get(days).copied().flatten();
        if let (Some(quarter), Some(year)) = (forecast("90d"), forecast("365d")) {
            text += &format!(
                "forecast      {} in 90 days, {} in a year, at the pace of the last days\n",
                size(quarter),
                size(year)
            );
        }
        text
    }

    fn volume_table(&self, by: &str, volumes: &[OfValue]) -> String {
        let rows: Vec<[String; 4]> = volumes
            .iter()
            .take(VALUES)
            .map(|of| {
                let value = match of.value.as_deref() {
                    None => "(others)",
                    Some("") => "(none)",
                    Some(value) => value,
                };
                [
                    of.events.to_string(),
                    size(of.event_bytes),
                    format!("{:.1} %", percent(of.event_bytes, self.event_bytes)),
                    plain(value.as_bytes()),
                ]
            })
            .collect();
        let mut text = table_of(&["EVENTS", "AS LOG LINES", "SHARE", by], &rows).concat();
        if volumes.len() > VALUES {
            text += &format!("... {} further values\n", volumes.len() - VALUES);
        }
        text
    }
}

/// In how many days the disk is full, at the pace of the last whole days.
fn days_to_full(stats: &Stats, free: u64) -> Option<u64> {
    free.checked_div(stats.forecast(1)?)
}

/// What would go of a store.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Going {
    items: Vec<GoingFile>,
    /// Of a server: whether it lets anything go at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) is_limited: Option<bool>,
    /// Of a server: whether not all files were looked at, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partial: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partial_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct GoingFile {
    path: String,
    reason: String,
    newest: String,
    events: u64,
    kept_events: u64,
    bytes: u64,
}

impl Going {
    pub(crate) fn of(expiring: &[Expiring]) -> Self {
        let items = expiring.iter().map(|file| GoingFile {
            path: file.part.path.clone(),
            reason: file.reason.to_owned(),
            newest: instant(file.part.max_ts),
            events: file.part.rows,
            kept_events: file.kept_rows,
            bytes: file.part.bytes,
        });
        Self {
            items: items.collect(),
            ..Self::default()
        }
    }

    pub(super) fn text(&self) -> String {
        if self.items.is_empty() {
            return "nothing is to be removed\n".to_owned();
        }
        let cells: Vec<[String; 6]> = self
            .items
            .iter()
            .map(|file| {
                [
                    file.path.clone(),
                    file.reason.clone(),
                    file.newest.clone(),
                    file.events.saturating_sub(file.kept_events).to_string(),
                    file.kept_events.to_string(),
                    size(file.bytes),
                ]
            })
            .collect();
        table_of(
            &["FILE", "BECAUSE OF", "NEWEST EVENT", "GO", "STAY", "ON DISK"],
            &cells,
        )
        .concat()
    }
}
