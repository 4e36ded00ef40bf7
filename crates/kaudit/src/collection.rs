//! Everything that is collected, as an operator sees it.

mod files;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use kaudit_collect::{
    Forward, ForwardState, Importer, Intake, Name, QuarantineStats, Receiver, Source, Tailing, Way,
};
use kaudit_journal::{Journal, State};
use serde::{Deserialize, Serialize};

use crate::api::Signal;
use crate::collecting::STALE_AFTER;
use crate::completeness::{Feeding, Watching};

pub(crate) use files::problem as file_problem;

/// The collecting part of a process. Its clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Collection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    intake: Intake,
    receiver: Option<Receiver>,
    tails: Vec<Tailing>,
    forward: Option<Forward>,
    watchings: OnceLock<Vec<Watching>>,
}

/// One source: a row of `kaudit source status`, an item of the API's answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceRow {
    pub(crate) cluster: String,
    pub(crate) instance: String,
    pub(crate) transport: String,
    /// Of log files: the configured path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) path: String,
    /// What is wrong with it, for a person; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) events_per_second: f64,
    pub(crate) duplicates: u64,
    pub(crate) other_copies: u64,
    #[serde(rename = "auditIDReused")]
    pub(crate) audit_id_reused: u64,
    pub(crate) quarantined: u64,
    pub(crate) oversized: u64,
    pub(crate) gaps: u64,
    /// Times that it was told to come again later, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) held_back: BTreeMap<String, u64>,
    /// Newest stage time of its events, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_event_micros: Option<i64>,
    /// When something came last, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_received_micros: Option<i64>,
    /// How much later than its stage the last event came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lag_micros: Option<i64>,
    /// End of the client certificate that was shown last, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_not_after: Option<i64>,
    /// Of log files: how reading them goes, as names and texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tail: Vec<(String, String)>,
    /// What the comparison with the apiserver's own counters says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) completeness: Vec<String>,
}

/// How sending to the central kaudit goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ForwardRow {
    pub(crate) state: String,
    /// What is wrong, for a person; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// Records that were not taken yet, and what they take of the journal.
    pub(crate) backlog_records: u64,
    pub(crate) backlog_bytes: u64,
    /// Since the process started: records that were taken, those of them that were there already or were no event,
    /// and records that could not be read here any more.
    pub(crate) forwarded: u64,
    pub(crate) duplicates: u64,
    pub(crate) quarantined: u64,
    pub(crate) gaps: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_success_micros: Option<i64>,
}

/// The journal and what lies beside it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JournalRow {
    pub(crate) state: String,
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
    pub(crate) records: u64,
    pub(crate) oldest_seq: u64,
    pub(crate) next_seq: u64,
    pub(crate) queue_bytes: u64,
    pub(crate) failures: u64,
    pub(crate) corrupt_records: u64,
    pub(crate) expired_records: u64,
    pub(crate) quarantine_files: u64,
    pub(crate) quarantine_bytes: u64,
    pub(crate) dedup_events: u64,
}

/// One line of `/readyz?verbose`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) text: String,
    pub(crate) is_good: bool,
}

impl Collection {
    pub(crate) fn new(
        intake: Intake,
        receiver: Option<Receiver>,
        tails: Vec<Tailing>,
        forward: Option<Forward>,
    ) -> Self {
        Self(Arc::new(Inner {
            intake,
            receiver,
            tails,
            forward,
            watchings: OnceLock::new(),
        }))
    }

    /// Shows what these say as well, from now on; once.
    pub(crate) fn watch(&self, watchings: Vec<Watching>) {
        drop(self.0.watchings.set(watchings));
    }

    /// apiservers whose counters are compared with what arrived.
    pub(crate) fn watchings(&self) -> &[Watching] {
        self.0.watchings.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// How far behind those are who read or receive an apiserver's events.
    pub(crate) fn feeding(&self, cluster: &Name, instance: &Name) -> Feeding {
        let is_of = |source: &Source| {
            let origin = source.origin();
            origin.cluster == *cluster && origin.instance == *instance
        };
        let mut tails = self.0.tails.iter().filter(|tail| is_of(tail.source()));
        let sources = self.0.intake.sources();
        let of_instance = sources.iter().filter(|source| is_of(source));
        Feeding {
            is_behind: !self.is_ready() || tails.any(files::is_behind),
            held_back: of_instance
                .map(|source| source.counts().held_back.values().sum::<u64>())
                .sum(),
        }
    }

    /// Ends the tails, then the journal. Blocks.
    pub(crate) fn close(&self) {
        for tail in &self.0.tails {
            tail.stop();
        }
        self.journal().close();
    }

    pub(crate) fn journal(&self) -> &Journal {
        self.0.intake.journal()
    }

    pub(crate) fn intake(&self) -> &Intake {
        &self.0.intake
    }

    /// What keeps files that are imported.
    pub(crate) fn importer(&self) -> Importer {
        Importer::new(self.0.intake.clone())
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.journal().state(), State::Ready)
    }

    pub(crate) fn remembered(&self) -> u64 {
        u64::try_from(self.0.intake.remembered()).unwrap_or(u64::MAX)
    }

    pub(crate) fn quarantine(&self) -> QuarantineStats {
        self.0.intake.quarantine().stats()
    }

    pub(crate) fn answers(&self) -> Vec<(u16, &'static str, u64)> {
        self.0
            .receiver
            .as_ref()
            .map(Receiver::answers)
            .unwrap_or_default()
    }

    /// Every source, by cluster, instance and transport.
    pub(crate) fn rows(&self) -> Vec<SourceRow> {
        let now_micros = kaudit_collect::now_micros();
        let mut rows: Vec<SourceRow> = self
            .0
            .intake
            .sources()
            .iter()
            .map(|source| {
                let mut row = row(source, now_micros);
                let tail = self
                    .0
                    .tails
                    .iter()
                    .find(|tail| tail.source().origin() == source.origin());
                match tail {
                    Some(tail) => files::describe(tail, &mut row),
                    // Files are imported when somebody has one, and the API is asked when somebody has a question.
                    None if matches!(source.origin().transport, Way::File | Way::Own) => {}
                    None => row.problem = silence(&row, now_micros).or_else(|| expiry(&row, now_micros)),
                }
                row
            })
            .collect();
        for watching in self.watchings() {
            let is_of = |row: &SourceRow| {
                row.cluster == watching.cluster().as_str() && row.instance == watching.instance().as_str()
            };
            if !rows.iter().any(is_of) {
                // Nothing came from it yet, which is when it matters most what it says.
                rows.push(empty_row(watching));
            }
            for row in rows.iter_mut().filter(|row| is_of(row)) {
                row.completeness = watching.lines();
                row.problem = row.problem.take().or_else(|| watching.problem());
            }
        }
        rows
    }

    pub(crate) fn forward(&self) -> Option<Forward> {
        self.0.forward.clone()
    }

    /// How sending to the central kaudit goes.
    pub(crate) fn forward_row(&self) -> Option<ForwardRow> {
        let status = self.0.forward.as_ref()?.status();
        let problem = match status.state {
            ForwardState::Waiting | ForwardState::Refused => {
                let error = status.last_error.as_ref().map(|(_, error)| error.as_str());
                Some(error.unwrap_or("it waits").to_owned())
            }
            _ => None,
        };
        Some(ForwardRow {
            state: match status.state {
                ForwardState::Stopped => "stopped",
                ForwardState::CaughtUp => "caught up",
                ForwardState::Sending => "sending",
                ForwardState::Waiting => "waiting",
                ForwardState::Refused => "refused",
                _ => "unknown",
            }
            .to_owned(),
            problem,
            backlog_records: status.backlog_records,
            backlog_bytes: status.backlog_bytes,
            forwarded: status.forwarded,
            duplicates: status.duplicates,
            quarantined: status.quarantined,
            gaps: status.gaps,
            last_success_micros: status.last_success_micros,
        })
    }

    pub(crate) fn journal_row(&self) -> JournalRow {
        let stats = self.journal().stats();
        let quarantine = self.quarantine();
        JournalRow {
            state: state(&self.journal().state()),
            bytes: stats.bytes,
            segments: stats.segments,
            records: stats.records,
            oldest_seq: stats.oldest_seq.get(),
            next_seq: stats.next_seq.get(),
            queue_bytes: stats.queue_bytes,
            failures: stats.failures,
            corrupt_records: stats.corrupt_records,
            expired_records: stats.expired_records,
            quarantine_files: quarantine.files,
            quarantine_bytes: quarantine.bytes,
            dedup_events: self.remembered(),
        }
    }

    /// The newest of what is worth a look.
    pub(crate) fn signals(&self) -> Vec<Signal> {
        let (reused, _) = self.0.intake.audit_ids_reused();
        reused
            .into_iter()
            .map(|signal| Signal {
                kind: "auditIDReused".to_owned(),
                cluster: signal.origin.cluster.to_string(),
                instance: signal.origin.instance.to_string(),
                audit_id: signal.audit_id,
                at_micros: signal.at_micros,
            })
            .collect()
    }

    pub(crate) fn checks(&self) -> Vec<Check> {
        let journal = Check {
            text: format!("journal {}", state(&self.journal().state())),
            is_good: self.is_ready(),
        };
        let sources = self.rows().into_iter().map(|row| Check {
            is_good: row.problem.is_none(),
            text: format!(
                "source/{}/{} {} {}",
                row.cluster,
                row.instance,
                row.transport,
                row.problem.unwrap_or_else(|| format!("{} events", row.events))
            ),
        });
        let forward = self.forward_row().map(|row| Check {
            is_good: row.problem.is_none(),
            text: format!(
                "forward {}, {} records to go{}",
                row.state,
                row.backlog_records,
                row.problem
                    .map(|problem| format!(": {problem}"))
                    .unwrap_or_default()
            ),
        });
        let watchings = self.watchings().iter().map(|watching| Check {
            is_good: watching.problem().is_none(),
            text: format!(
                "completeness/{}/{} {}",
                watching.cluster(),
                watching.instance(),
                watching.lines().join("; ")
            ),
        });
        [journal]
            .into_iter()
            .chain(forward)
            .chain(sources)
            .chain(watchings)
            .collect()
    }
}

/// Of an apiserver that brought nothing since the process started.
fn empty_row(watching: &Watching) -> SourceRow {
    SourceRow {
        cluster: watching.cluster().to_string(),
        instance: watching.instance().to_string(),
        transport: "none".to_owned(),
        ..SourceRow::default()
    }
}

fn row(source: &Source, now_micros: i64) -> SourceRow {
    let counts = source.counts();
    let origin = source.origin();
    let lag = counts
        .last_received_micros
        .zip(counts.newest_stage_micros)
        .map(|(received, stage)| received.saturating_sub(stage).max(0));
    SourceRow {
        cluster: origin.cluster.to_string(),
        instance: origin.instance.to_string(),
        transport: origin.transport.as_str().to_owned(),
        path: origin.path.clone(),
        problem: None,
        events: counts.events,
        bytes: counts.bytes,
        events_per_second: counts.events_per_second(now_micros),
        duplicates: counts.duplicates,
        other_copies: counts.other_copies,
        audit_id_reused: counts.audit_id_reused,
        quarantined: counts.quarantined,
        oversized: counts.oversized,
        gaps: counts.gaps,
        held_back: counts
            .held_back
            .iter()
            .map(|(reason, count)| ((*reason).to_owned(), *count))
            .collect(),
        last_event_micros: counts.newest_stage_micros,
        last_received_micros: counts.last_received_micros,
        lag_micros: lag,
        certificate_not_after: counts.certificate_not_after,
        tail: Vec::new(),
        completeness: Vec::new(),
    }
}

/// An apiserver is never silent for long, whatever its policy: it has leases to renew.
fn silence(row: &SourceRow, now_micros: i64) -> Option<String> {
    let silent = now_micros.saturating_sub(row.last_received_micros?);
    let stale_after = i64::try_from(STALE_AFTER.as_micros()).unwrap_or(i64::MAX);
    (silent > stale_after).then(|| format!("nothing came for {} minutes", silent / 60_000_000))
}

fn expiry(row: &SourceRow, now_micros: i64) -> Option<String> {
    let seconds = row.certificate_not_after?.saturating_sub(now_micros / 1_000_000);
    (seconds < EXPIRES_SOON_SECONDS).then(|| {
        format!(
            "its client certificate ends in {} days",
            (seconds / 86_400).max(0)
        )
    })
}

/// A certificate that ends sooner is reported.
const EXPIRES_SOON_SECONDS: i64 = 14 * 86_400;

fn state(state: &State) -> String {
    match state {
        State::Ready => "ready".to_owned(),
        State::Full { .. } => {
            "full: a reader needs all of it; it takes events again when there is room".to_owned()
        }
        State::DiskFull { error, .. } => match error {
            Some(error) => format!("disk full ({error}): it takes events again when there is space"),
            None => "disk full: less is free than journal.minFree; it takes events again when there is space"
                .to_owned(),
        },
        State::Broken { error, .. } => format!("the disk fails ({error}): it is tried again"),
        State::Closed => "closed".to_owned(),
        other => format!("{other:?}"),
    }
}
