//! What became of events, by plugin and reason.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kaudit_event::Event;
use tracing::error;

use crate::{Reason, Refusal};

/// Reports of one plugin closer together than this are counted, not logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Events that one report names.
const REPORTED_EVENTS: usize = 400;

/// Counts what plugins did not keep, and reports it; shared by the backends of one process.
///
/// `apiserver_audit_error_total{plugin}` is the sum over the reasons of a plugin.
#[derive(Debug, Default)]
pub struct Counters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lost: BTreeMap<(&'static str, Reason), u64>,
    bodies_left_out: u64,
    truncated: u64,
    last_report: Option<Instant>,
    suppressed: u64,
}

/// What [`Counters`] held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountersSnapshot {
    /// Events that were not kept, by plugin and reason.
    pub lost: Vec<(&'static str, Reason, u64)>,
    /// Events that were kept without a body that cannot be printed.
    pub bodies_left_out: u64,
    /// Events that were handed on without their bodies because they were too large.
    pub truncated: u64,
}

impl CountersSnapshot {
    /// Events that were not kept, for whatever reason.
    #[must_use]
    pub fn total_lost(&self) -> u64 {
        self.lost.iter().map(|(_, _, events)| events).sum()
    }
}

impl Counters {
    /// Counts `events` that `refusal` is about and reports them as upstream does, at most once a second
    /// and at most 400 of them by name.
    ///
    /// Source: k8s.io/apiserver pkg/audit/metrics.go, HandlePluginError.
    pub fn plugin_error<'e>(&self, refusal: &Refusal, events: impl IntoIterator<Item = &'e Event>) {
        let events: Vec<&Event> = events.into_iter().collect();
        let mut state = self.state();
        *state.lost.entry((refusal.plugin, refusal.reason)).or_default() += events.len() as u64;
        let now = Instant::now();
        if state
            .last_report
            .is_some_and(|last| now.duration_since(last) < REPORT_INTERVAL)
        {
            state.suppressed += 1;
            return;
        }
        state.last_report = Some(now);
        let suppressed = std::mem::take(&mut state.suppressed);
        drop(state);
        let mut text = format!(
            "Error in audit plugin '{}' affecting {} audit events: {}\nImpacted events:\n",
            refusal.plugin,
            events.len(),
            refusal.message
        )
        .into_bytes();
        for event in events.iter().take(REPORTED_EVENTS) {
            event.write_legacy_line(&mut text);
        }
        if events.len() > REPORTED_EVENTS {
            text.extend_from_slice(format!("... and {} more\n", events.len() - REPORTED_EVENTS).as_bytes());
        }
        error!(suppressed, "{}", String::from_utf8_lossy(&text));
    }

    /// Counts events that nobody can name any more, and logs it.
    pub fn lost_unnamed(&self, refusal: &Refusal, events: u64) {
        *self
            .state()
            .lost
            .entry((refusal.plugin, refusal.reason))
            .or_default() += events;
        error!(
            "Error in audit plugin '{}' affecting {events} audit events: {}",
            refusal.plugin, refusal.message
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one event that was kept without a body.
    pub fn body_left_out(&self) {
        self.state().bodies_left_out += 1;
    }

    /// Counts one event that was handed on without its bodies because it was too large.
    pub fn event_truncated(&self) {
        self.state().truncated += 1;
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> CountersSnapshot {
        let state = self.state();
        CountersSnapshot {
            lost: state
                .lost
                .iter()
                .map(|((plugin, reason), count)| (*plugin, *reason, *count))
                .collect(),
            bodies_left_out: state.bodies_left_out,
            truncated: state.truncated,
        }
    }
}
