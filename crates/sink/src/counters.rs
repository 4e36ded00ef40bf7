//! What became of events, by plugin and reason.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kaudit_event::Event;
use tracing::error;

use crate::{Reason, Refusal};

/// Reports of one plugin closer together than this are counted, not logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Events that one report names.
const REPORTED_EVENTS: usize = 400;

/// Counts what one backend, with all that decorates it, kept and did not keep, and reports the latter.
///
/// `apiserver_audit_error_total{plugin}` is the sum over the reasons of a plugin, in all backends.
#[derive(Debug, Default)]
pub struct Counters {
    state: Mutex<State>,
    kept: AtomicU64,
    queued: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lost: BTreeMap<(&'static str, Reason), u64>,
    bodies_left_out: u64,
    truncated: u64,
    failed_attempts: BTreeMap<&'static str, u64>,
    last_report: Option<Instant>,
    suppressed: u64,
    last_error: Option<(Instant, String)>,
    /// Events that had been kept when the last error came.
    kept_at_last_error: u64,
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
    /// Attempts to deliver that failed, by class; an event is lost only when all of them did.
    pub failed_attempts: Vec<(&'static str, u64)>,
    /// Events that were written or delivered.
    pub kept: u64,
    /// Events that wait in a queue now.
    pub queued: u64,
    /// The last loss.
    pub last_error: Option<LastError>,
}

/// The last loss of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// How long ago it was.
    pub age: Duration,
    /// What was said.
    pub message: String,
    /// Whether nothing was kept since then.
    pub is_latest: bool,
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
        let now = Instant::now();
        let mut state = self.lose(refusal, events.len() as u64, now);
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
        drop(self.lose(refusal, events, Instant::now()));
        error!(
            "Error in audit plugin '{}' affecting {events} audit events: {}",
            refusal.plugin, refusal.message
        );
    }

    fn lose(&self, refusal: &Refusal, events: u64, now: Instant) -> MutexGuard<'_, State> {
        let mut state = self.state();
        *state.lost.entry((refusal.plugin, refusal.reason)).or_default() += events;
        state.last_error = Some((now, refusal.message.clone()));
        state.kept_at_last_error = self.kept.load(Ordering::Relaxed);
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an attempt to deliver that failed, after which there may be another.
    pub fn attempt_failed(&self, class: &'static str) {
        *self.state().failed_attempts.entry(class).or_default() += 1;
    }

    /// Counts events that were written or delivered.
    pub fn kept(&self, events: usize) {
        self.kept.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Says how many events wait in the queue.
    pub fn queued(&self, events: usize) {
        self.queued.store(events as u64, Ordering::Relaxed);
    }

    /// Adds what `other` counted, for a backend that is gone.
    pub fn absorb(&self, other: &Self) {
        let other = other.snapshot();
        self.kept.fetch_add(other.kept, Ordering::Relaxed);
        let mut state = self.state();
        state.bodies_left_out += other.bodies_left_out;
        state.truncated += other.truncated;
        for (class, count) in other.failed_attempts {
            *state.failed_attempts.entry(class).or_default() += count;
        }
        for (plugin, reason, count) in other.lost {
            *state.lost.entry((plugin, reason)).or_default() += count;
        }
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
        let kept = self.kept.load(Ordering::Relaxed);
        CountersSnapshot {
            lost: state
                .lost
                .iter()
                .map(|((plugin, reason), count)| (*plugin, *reason, *count))
                .collect(),
            bodies_left_out: state.bodies_left_out,
            truncated: state.truncated,
            failed_attempts: state
                .failed_attempts
                .iter()
                .map(|(class, count)| (*class, *count))
                .collect(),
            kept,
            queued: self.queued.load(Ordering::Relaxed),
            last_error: state.last_error.as_ref().map(|(at, message)| LastError {
                age: at.elapsed(),
                message: message.clone(),
                is_latest: kept == state.kept_at_last_error,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    fn lose(counters: &Counters, events: usize) {
        let refusal = Refusal {
            plugin: "webhook",
            reason: Reason::Write,
            message: "no route".to_owned(),
        };
        counters.plugin_error(&refusal, &vec![Event::default(); events]);
    }

    #[test]
    fn an_error_is_the_latest_until_something_is_kept() {
        let counters = Counters::default();
        assert_eq!(counters.snapshot().last_error, None);
        counters.kept(2);
        lose(&counters, 1);
        let error = counters.snapshot().last_error.unwrap();
        assert_eq!((error.message.as_str(), error.is_latest), ("no route", true));
        counters.kept(1);
        assert!(!counters.snapshot().last_error.unwrap().is_latest);
        assert_eq!(counters.snapshot().kept, 3);
    }

    #[test]
    fn what_a_gone_backend_counted_stays_counted() {
        let (gone, past) = (Counters::default(), Counters::default());
        lose(&gone, 2);
        lose(&past, 1);
        gone.kept(5);
        past.absorb(&gone);
        let sum = past.snapshot();
        assert_eq!((sum.lost, sum.kept), (vec![("webhook", Reason::Write, 3)], 5));
    }
}
