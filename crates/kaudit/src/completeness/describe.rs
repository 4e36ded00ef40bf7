//! What the comparison says, in words.

use jiff::Timestamp;
use kaudit_collect::completeness::UnixMicros;

use super::{FAILURES, Watching};

impl Watching {
    /// What is wrong, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        if let Some(gap) = self.status().gap {
            return Some(format!(
                "missing: at least {}, the first made after {} and before {}",
                events(gap.at_least),
                time(gap.after),
                time(gap.before)
            ));
        }
        let tally = self.tally();
        let error = tally.error.filter(|_| tally.failures >= FAILURES)?;
        Some(format!("the apiserver's counters cannot be read: {error}"))
    }

    /// All that is known, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let (status, tally) = (self.status(), self.tally());
        let mut lines = Vec::new();
        lines.extend(self.problem());
        if status.gap.is_none() {
            lines.push(match status.at_most {
                None if tally.read < 2 => {
                    "nothing can be said yet: the counters were not read twice".to_owned()
                }
                None => format!(
                    "nothing can be said yet: events may take {} s to come after they were counted",
                    self.settle().as_secs()
                ),
                Some(most) if most.events == 0 => {
                    format!(
                        "nothing is missing from {} to {}",
                        time(most.after),
                        time(most.before)
                    )
                }
                Some(most) => format!(
                    "nothing is known to be missing; from {} to {} it is at most {}",
                    time(most.after),
                    time(most.before),
                    events(most.events)
                ),
            });
        }
        if status.excess > 0 {
            lines.push(format!(
                "{} more came than the apiserver counted: another one sends under its name",
                events(status.excess)
            ));
        }
        if status.lost > 0 {
            lines.push(format!(
                "{} of processes that have ended will not come any more",
                events(status.lost)
            ));
        }
        for (plugin, count) in &tally.backend_errors {
            lines.push(format!(
                "the apiserver could not deliver {} by {plugin}",
                events(*count)
            ));
        }
        if tally.rejected > 0 {
            lines.push(format!(
                "the apiserver refused {} requests whose events it could not keep",
                tally.rejected
            ));
        }
        lines
    }
}

fn events(count: u64) -> String {
    if count == 1 {
        "1 event".to_owned()
    } else {
        format!("{count} events")
    }
}

pub(super) fn time(at: UnixMicros) -> String {
    Timestamp::from_microsecond(at.0).map_or_else(
        |_| "?".to_owned(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}
