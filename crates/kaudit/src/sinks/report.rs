//! Sinks as rows, for the API and for people.

use std::collections::BTreeMap;
use std::path::Path;

use kaudit_backend::dynamic::{DynamicStatus, Phase};
use kaudit_sink::{Counters, CountersSnapshot};
use serde::{Deserialize, Serialize};

use super::Backend;
use super::objects::Problem;

/// Whether a sink works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It takes events.
    Active,
    /// It takes events, and the last of them were lost.
    Failing,
    /// It was replaced or removed and delivers what it holds.
    Draining,
    /// It is defined and cannot be used.
    Invalid,
}

impl State {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Invalid => "invalid",
        }
    }
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) name: String,
    /// `log`, `webhook` or `AuditSink`.
    pub(crate) kind: String,
    pub(crate) state: State,
    /// Path or address.
    pub(crate) target: String,
    /// In upstream's notation.
    pub(crate) composition: String,
    /// What it sees: a level, or `policy` where the policy decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) level: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stages: Vec<String>,
    /// The file of an AuditSink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// Events that wait.
    pub(crate) queued: u64,
    /// Events that were written or delivered.
    pub(crate) delivered: u64,
    /// Events that were not kept.
    pub(crate) dropped: u64,
    /// The same by `plugin/reason`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) dropped_by: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_error_seconds_ago: Option<u64>,
}

impl Row {
    fn counted(name: &str, kind: &str, counters: &Counters) -> Self {
        let CountersSnapshot {
            lost,
            kept,
            queued,
            last_error,
            ..
        } = counters.snapshot();
        let is_failing = last_error.as_ref().is_some_and(|error| error.is_latest);
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            state: if is_failing { State::Failing } else { State::Active },
            target: String::new(),
            composition: String::new(),
            level: None,
            stages: Vec::new(),
            file: None,
            queued,
            delivered: kept,
            dropped: lost.iter().map(|(_, _, count)| count).sum(),
            dropped_by: lost
                .iter()
                .map(|(plugin, reason, count)| (format!("{plugin}/{reason}"), *count))
                .collect(),
            last_error_seconds_ago: last_error.as_ref().map(|error| error.age.as_secs()),
            last_error: last_error.map(|error| error.message),
        }
    }

    pub(super) fn of_backend(backend: &Backend) -> Self {
        Self {
            target: backend.target.clone(),
            composition: backend.composition.clone(),
            level: Some("policy".to_owned()),
            ..Self::counted(backend.name, backend.name, &backend.counters)
        }
    }

    pub(super) fn of_dynamic(status: &DynamicStatus, file: Option<&Path>) -> Self {
        let object = &status.object;
        let mut row = Self {
            target: object.url.clone(),
            composition: status.composition.clone(),
            level: Some(object.level.to_string()),
            stages: object.stages.iter().map(|stage| stage.to_string()).collect(),
            file: file.map(|file| file.display().to_string()),
            ..Self::counted(&object.name, "AuditSink", &status.counters)
        };
        if status.phase == Phase::Draining {
            row.state = State::Draining;
        }
        row
    }

    pub(super) fn of_problem(problem: &Problem) -> Self {
        Self {
            state: State::Invalid,
            file: Some(problem.file.display().to_string()),
            last_error: Some(problem.to_string()),
            ..Self::counted(
                problem.name.as_deref().unwrap_or_default(),
                "AuditSink",
                &Counters::default(),
            )
        }
    }
}
