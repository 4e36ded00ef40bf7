//! What became of events, by plugin and reason.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kaudit_event::Event;
use tracing::error;

use crate::{Reason, Refusal};

/// Reports of one plugin closer together than this are counted, not logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Counts what plugins did not keep, and reports it; shared by the backends of one process.
///
/// `apiserver_audit_error_total{plugin}` is the sum over the reasons of a plugin.
#[derive(Debug, Default)]
pub struct Counters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lost: BTreeMap<(&'static str, Reason), u64>,
    bodies_left_out: u64,
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
}

impl Counters {
    /// Counts `events` that `refusal` is about and reports them as upstream does, at most once a second.
    ///
    /// Source: k8s.io/apiserver pkg/audit/metrics.go, HandlePluginError.
    pub fn plugin_error(&self, refusal: &Refusal, events: &[Event]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        events.iter().for_each(|event| event.write_legacy_line(&mut text));
        error!(suppressed, "{}", String::from_utf8_lossy(&text));
    }

    /// Counts one event that was kept without a body.
    pub fn body_left_out(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bodies_left_out += 1;
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> CountersSnapshot {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        CountersSnapshot {
            lost: state
                .lost
                .iter()
                .map(|((plugin, reason), count)| (*plugin, *reason, *count))
                .collect(),
            bodies_left_out: state.bodies_left_out,
        }
    }
}
