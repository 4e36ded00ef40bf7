//! Sources of log files, in words.

use std::time::SystemTime;

use jiff::Timestamp;
use kaudit_collect::{SourceState, SourceStatus, Tailing};

use super::SourceRow;

/// Puts into `row` how reading goes, and what is wrong.
pub(super) fn describe(tail: &Tailing, row: &mut SourceRow) {
    let status = tail.status();
    row.problem = tail
        .held_back()
        .map(|reason| format!("reading waits: {reason}"))
        .or_else(|| status.problem.clone())
        .or_else(|| status.sources.iter().find_map(problem));
    if status.sources.is_empty() && row.problem.is_none() {
        row.problem = Some(format!("there is no file at {}", row.path));
    }
    for source in &status.sources {
        row.tail.extend(lines(source));
    }
}

/// Whether something is known that was not read yet, or may be there and cannot be read.
pub(super) fn is_behind(tail: &Tailing) -> bool {
    let cannot_be_read = |source: &SourceStatus| {
        matches!(
            source.state,
            SourceState::PermissionDenied { .. } | SourceState::Error { .. }
        )
    };
    let sources = tail.status().sources;
    tail.held_back().is_some()
        || sources
            .iter()
            .any(|source| source.behind_bytes > 0 || source.unread_backups > 0 || cannot_be_read(source))
}

/// What is wrong with a log file and its rotated ones.
pub(crate) fn problem(source: &SourceStatus) -> Option<String> {
    match &source.state {
        SourceState::Reading => match source.rotations_until_loss {
            Some(0) => Some(format!(
                "{} is not read yet and is removed at the next rotation",
                source.oldest_unread.as_deref().unwrap_or("the oldest file")
            )),
            _ => None,
        },
        SourceState::WaitingForFile => Some(format!("there is no file at {} yet", source.path.display())),
        SourceState::PathMissing => Some(format!("there is no file at {} any more", source.path.display())),
        SourceState::PermissionDenied { path } => Some(format!("{} may not be read", path.display())),
        SourceState::Stale { since } => Some(format!("nothing new since {}", time(*since))),
        SourceState::Error { path, reason } => Some(format!("{}: {reason}", path.display())),
        other => Some(format!("{other:?}")),
    }
}

fn lines(source: &SourceStatus) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut line = |key: &str, value: String| lines.push((key.to_owned(), value));
    if let Some(file) = &source.file {
        line("file", format!("{file} at byte {}", source.offset));
    }
    if source.behind_bytes > 0 {
        line("behind", format!("{} bytes", source.behind_bytes));
    }
    if source.unread_backups > 0 {
        let horizon = source
            .rotations_until_loss
            .map(|rotations| format!(", {rotations} rotations before it is removed"))
            .unwrap_or_default();
        // Of files that are looked for no name may be known.
        let oldest = source
            .oldest_unread
            .as_ref()
            .map(|oldest| format!(", the oldest is {oldest}{horizon}"))
            .unwrap_or_default();
        line("backups", format!("{} not read{oldest}", source.unread_backups));
    }
    let anomalies = &source.anomalies;
    line("rotations", anomalies.rotations.to_string());
    for (key, count) in [
        ("emptied", anomalies.copytruncates),
        ("holes", anomalies.holes),
        ("torn lines", anomalies.torn_lines),
        ("interleaved", anomalies.interleavings),
    ] {
        if count > 0 {
            line(key, count.to_string());
        }
    }
    if let Some(read) = source.last_read {
        line("last read", time(read));
    }
    lines
}

fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(
        |_| "?".to_owned(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}
