//! Whether every event that an API server made has arrived: its own counters against what came.
//!
//! kube-apiserver counts each stage event once in `apiserver_audit_event_total`, just before it hands it to its
//! backends (k8s.io/apiserver pkg/audit/context.go and metrics.go). So the counter, read now and then, and the
//! events that arrive have to agree. They never agree at an instant: events are batched and retried, the
//! counter is read at a moment that is known only within a window, clocks differ, processes restart. What
//! follows is exact about all of this: it alarms only where nothing but a missing event explains the figures.
//!
//! # The argument
//!
//! An event has a stageTimestamp `s` and is counted a moment later, at `c`, with `s <= c <= s + count_delay`.
//! Scrape `i` reads the counter as `T(i)` at an unknown moment `x(i)` of the API server's clock, within
//! `[lo(i), hi(i)]`. Let `E(i)` be the number of events that are counted by `x(i)` and have not arrived by
//! now. Two things hold, whatever is on its way:
//!
//! 1. Every arrived event that is counted by `x(i)` has `s <= hi(i)`, and every arrived event with
//!    `s <= lo(i) - count_delay` is counted by `x(i)`. So with `F(t)` the number of arrived events with
//!    `s <= t`, up to a constant `K` for what came before anybody looked,
//!    `T(i) - F(hi(i)) <= E(i) + K <= T(i) - F(lo(i) - count_delay)`. Call the ends `g(i)` and `h(i)`.
//! 2. Within one process, for scrapes `j < k`, `E(k) - E(j)` is the number of events counted between the
//!    two and not arrived, which is not negative.
//!
//! Hence, with `j < k`:
//!
//! - At least `g(k) - h(j)` events of those counted between the scrapes have not arrived. Once scrape `k` is
//!   older than `settle`, whatever was counted by then has arrived or is missing: **a gap**. The largest such
//!   difference over all pairs is the number that is certainly missing.
//! - If `g(j) > h(k)`, more has arrived than was counted, which contradicts 2: **an excess**. Another API server
//!   sends under the same name.
//! - At most `h(k) - g(j)` are missing between the two; where that is 0, the stretch is proven complete.
//!
//! Events stamped within a window are ambiguous: they widen `g..h` of that scrape, and never alarm. A scrape
//! whose window has no event is exact, `g = h`. So a gap of one is found by the first exact scrape after it, if
//! an exact one came before it; without exact ones, by the pair of scrapes whose ambiguous events are few
//! enough: a burst does not hide what a quieter scrape before and after it shows. [`Status::at_most`] tells how much
//! can be hidden.
//!
//! # Two windows
//!
//! Under a constant load no window of seconds is without an event, so windows have to be small. [`ReadAt::by_server`]
//! leads to two. The wide one follows from the answer alone: its `Date`, how long it took, and an allowance for
//! how far the API server's clock is set at once; with `count_delay` it is about two seconds. The near one follows
//! from the offset of the two clocks, which many answers together tell as well as one of them takes time, if they are
//! asked for at [`Reconciler::best_moment`] (`clock.rs`); with `usual_count_delay` it is some hundredths of a second.
//! The near window is believed with care:
//!
//! - only after later scrapes have seen the offset at either end of its range; when a clock was set, those that were
//!   not seen so count as wide;
//! - an event that takes longer than `usual_count_delay` to be counted makes `h` of one scrape too small, so a gap
//!   takes two scrapes before it that say the same.
//!
//! With an event every 0.7 s a gap of one is found as soon as the scrape after it is settled, or the one after that;
//! with ten events a second, by four of five. Above twenty a second gaps of one need a quiet moment.
//!
//! Forgetting a scrape loses only what that scrape could have shown, never causes an alarm. So at most
//! 48 are kept: those that are not settled yet, and those that hold an extreme.
//!
//! # What is assumed
//!
//! - The feeder counts a distinct event once, whichever way and how often it came, and feeds the event before
//!   it acknowledges it.
//! - An event arrives within `settle` of being counted, unless the feeder says that it is behind
//!   ([`Reconciler::hold`]): a tail with unread bytes, a collector that has just started or that refuses
//!   events. The default, 130 s, covers the webhook's batching (30 s) and all its retries against a
//!   collector that refuses connections (98 s at most). Against one that swallows them each attempt takes up
//!   to 30 s more; the gap that this opens is closed when the events arrive.
//! - The clocks obey [`Bounds`], and drift apart by at most 200 millionths otherwise. A clock that is set by more than `clock_error` at once can hide a gap or show
//!   one that is not there, for the events around that moment.
//! - What a process counted after its last scrape and lost is not found: nobody read its counter again. A
//!   restart begins a new count.

mod arrivals;
mod clock;
mod points;
mod scrape;
#[cfg(test)]
mod simulation;
mod state;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use arrivals::Arrivals;
use clock::Clock;
use points::{Gap, Point, Points, Window};
pub use scrape::{MAX_SCRAPE_BYTES, ReadAt, Scrape, ScrapeError};
pub use state::{MAX_STATE_BYTES, StateError};
pub use watch::{Beginning, Watch, WatchError};

/// An instant, in microseconds since 1970-01-01T00:00:00Z; negative before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is the number")]
pub struct UnixMicros(pub i64);

impl UnixMicros {
    fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// How far apart things may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// From an event's being counted to its arrival; 130 s.
    pub settle: Duration,
    /// Between the collector's clock and the API server's, for scrapes that were timed by the former; for those
    /// timed by the latter, an eighth of it is how far the API server's clock may be set at once. 2 s.
    pub clock_error: Duration,
    /// From an event's stageTimestamp to its being counted; 500 ms.
    pub count_delay: Duration,
    /// The same, but for events of which no two are counted late about the time of a scrape; 20 ms. Between the two
    /// moments an API server does next to nothing.
    pub usual_count_delay: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(130),
            clock_error: Duration::from_secs(2),
            count_delay: Duration::from_millis(500),
            usual_count_delay: Duration::from_millis(20),
        }
    }
}

/// News about an API server's events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Events are missing, or more or fewer of them than before.
    Gap(OpenGap),
    /// Every event of an open gap has arrived after all.
    Closed {
        /// What the gap was last.
        gap: OpenGap,
    },
    /// More events arrive than the API server counts: another one sends under the same name.
    Excess {
        /// At least so many.
        events: u64,
    },
    /// The API server is another process than at the last scrape.
    Restarted,
    /// The API server says that a backend failed, `apiserver_audit_error_total`.
    BackendErrors {
        /// The backend: `log`, `webhook`, `buffered`, `truncate`.
        plugin: String,
        /// Events, since the last scrape.
        events: u64,
    },
    /// The API server refused requests because an event could not be stored,
    /// `apiserver_audit_requests_rejected_total`.
    Rejected {
        /// Requests, since the last scrape.
        requests: u64,
    },
}

/// Events that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenGap {
    /// Certainly missing.
    pub at_least: u64,
    /// The first of them was made after this moment, by the API server's clock.
    pub after: UnixMicros,
    /// The first of them was made before this moment.
    pub before: UnixMicros,
    /// When it was found, by the collector's clock.
    pub since: UnixMicros,
}

/// The most that can be missing of a stretch of time, whatever is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AtMost {
    /// No more than so many; under a load that fills the scrapes' windows rarely 0, although nothing is missing.
    pub events: u64,
    /// Made after this moment, by the API server's clock.
    pub after: UnixMicros,
    /// Made before this moment.
    pub before: UnixMicros,
}

/// How things are, for status output and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The open gap.
    pub gap: Option<OpenGap>,
    /// The most that can be missing since the oldest scrape that is kept of the present process.
    pub at_most: Option<AtMost>,
    /// Events that arrived beyond what was counted; 0 in a sound setup.
    pub excess: u64,
    /// Events of gaps whose process has ended long ago: they will not come any more.
    pub lost: u64,
    /// Up to this moment, by the API server's clock, nothing is missing since the exact scrape before it.
    pub complete_through: Option<UnixMicros>,
    /// Scrapes that could not be used because they came out of order or too late.
    pub unusable_scrapes: u64,
    /// Restarts of the API server that were seen.
    pub restarts: u64,
}

/// How long an ended process's gap may still be closed.
const FINAL: Duration = Duration::from_secs(3600);
/// Names of backends that are told apart; more than kube-apiserver has.
const MAX_PLUGINS: usize = 16;

/// Reconciles one instance of an API server.
#[derive(Clone, Debug)]
pub struct Reconciler {
    bounds: Bounds,
    arrivals: Arrivals,
    points: Points,
    /// Begins anew with the process: so does the collector's clock.
    clock: Clock,
    last: Option<Last>,
    /// Nothing settles before `settle` has passed since.
    held: UnixMicros,
    gap: Option<OpenGap>,
    excess: u64,
    /// Excess that was found before the count began anew.
    past_excess: u64,
    lost: u64,
    complete_through: Option<UnixMicros>,
    unusable_scrapes: u64,
    restarts: u64,
}

/// What the last scrape said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Last {
    epoch: u64,
    events: u64,
    rejected: u64,
    started: Option<UnixMicros>,
    latest: UnixMicros,
    errors: BTreeMap<String, u64>,
}

/// The start time of one process moves by this much when the machine's clock is corrected: it is computed
/// from the boot time.
const START_JITTER: Duration = Duration::from_secs(2);

impl Reconciler {
    /// Knows nothing yet; feed arrivals from now on.
    #[must_use]
    pub fn new(bounds: Bounds, now: UnixMicros) -> Self {
        Self {
            bounds,
            arrivals: Arrivals::default(),
            points: Points::default(),
            clock: Clock::default(),
            last: None,
            held: now,
            gap: None,
            excess: 0,
            past_excess: 0,
            lost: 0,
            complete_through: None,
            unusable_scrapes: 0,
            restarts: 0,
        }
    }

    /// Continues from [`Reconciler::save`]. Whatever was appended to the journal after the state was saved has
    /// to be fed again before the next scrape.
    ///
    /// # Errors
    ///
    /// [`StateError`] for bytes of another version or that are damaged; begin with [`Reconciler::new`] then.
    pub fn restore(bytes: &[u8], bounds: Bounds, now: UnixMicros) -> Result<Self, StateError> {
        let mut restored = state::read(bytes, bounds)?;
        restored.hold(now);
        Ok(restored)
    }

    /// The state in at most [`MAX_STATE_BYTES`].
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        state::write(self)
    }

    /// `count` distinct events with this stageTimestamp have arrived, by whichever way.
    pub fn arrived(&mut self, stage_timestamp: UnixMicros, count: u64) {
        let bucket = arrivals::bucket(stage_timestamp);
        self.arrivals.add(bucket, count);
        self.points.add(bucket, count);
    }

    /// Distinct events with these stage times have arrived, microseconds since 1970.
    pub(crate) fn all_arrived(&mut self, stages: &[i64]) {
        let bucket = |stage: &i64| arrivals::bucket(UnixMicros(*stage));
        // Events of one batch are mostly neighbours.
        for run in stages.chunk_by(|one, next| bucket(one) == bucket(next)) {
            if let Some(first) = run.first() {
                self.arrived(UnixMicros(*first), run.len() as u64);
            }
        }
    }

    /// The feeder is behind, or was until now: events that the API server could send or write are not yet fed.
    /// Whoever feeds again after a while calls this before [`Reconciler::advance`].
    pub fn hold(&mut self, now: UnixMicros) {
        self.held = self.held.max(now);
    }

    /// How long to wait, from this moment of the clock that [`ReadAt::by_server`] is given, until a scrape tells most
    /// about the API server's clock; less than a second.
    #[must_use]
    pub fn best_moment(&self, now: UnixMicros) -> Duration {
        self.clock.next(now)
    }

    /// Takes a scrape, and tells what is new by it and by the time that has passed.
    pub fn scraped(&mut self, scrape: &Scrape, now: UnixMicros) -> Vec<Finding> {
        let mut findings = Vec::new();
        let at = scrape.at;
        if self.last.as_ref().is_some_and(|last| at.latest <= last.latest) {
            self.unusable_scrapes += 1;
            return self.advance(now);
        }
        let epoch = self.turn(scrape, &mut findings);
        self.deltas(scrape, &mut findings);
        self.last = Some(Last {
            epoch,
            events: scrape.events,
            rejected: scrape.rejected,
            started: scrape.started,
            latest: at.latest,
            errors: bounded(&scrape.errors),
        });
        // Aligned outwards to the buckets in which arrivals are counted.
        let slack = at.slack(&self.bounds);
        let lo = arrivals::bucket(at.earliest.before(slack).before(self.bounds.count_delay));
        let hi = arrivals::bucket(at.latest.after(slack)).saturating_add(1);
        // A window may always be wider; that ends never fall keeps the count of an arrival cheap.
        let hi = hi.max(self.points.last_hi().unwrap_or(hi));
        let (told, near_lo, near_hi) = match at.dated {
            Some(dated) => {
                let (told, earliest, latest) = self.clock.answered(dated.asked, dated.answered, dated.date);
                let earliest = earliest.max(at.earliest).before(self.bounds.usual_count_delay);
                let latest = latest.min(at.latest.after(slack));
                (
                    told,
                    arrivals::bucket(earliest).clamp(lo, hi),
                    arrivals::bucket(latest).saturating_add(1).clamp(lo, hi),
                )
            }
            None => (
                clock::Told::Same {
                    least: true,
                    most: true,
                },
                lo,
                hi,
            ),
        };
        let window = |lo, hi| {
            Some(Window {
                lo,
                hi,
                below_lo: self.arrivals.before(lo)?,
                below_hi: self.arrivals.before(hi)?,
            })
        };
        match (window(lo, hi), window(near_lo, near_hi.max(near_lo))) {
            (Some(wide), Some(near)) => {
                self.points.push(Point {
                    epoch,
                    at: now,
                    total: scrape.events,
                    wide,
                    near,
                    is_least_seen: false,
                    is_most_seen: false,
                    is_settled: false,
                });
                self.arrivals.forget_before(lo);
            }
            _ => self.unusable_scrapes += 1,
        }
        self.points.told(told);
        findings.extend(self.advance(now));
        findings
    }

    /// Tells what is new by the time that has passed and by what has arrived.
    pub fn advance(&mut self, now: UnixMicros) -> Vec<Finding> {
        let mut findings = Vec::new();
        let due = now.before(self.bounds.settle);
        if due >= self.held {
            self.points.settle(due);
        }
        self.end_of_old_processes(now);
        let (gaps, complete) = self.points.gaps();
        let complete = complete.map(arrivals::start);
        self.complete_through = self.complete_through.max(complete);
        let found = Gap::sum(&gaps);
        match (self.gap, found) {
            (None, None) => {}
            (Some(gap), None) => {
                findings.push(Finding::Closed { gap });
                self.gap = None;
            }
            (open, Some(found)) => {
                let gap = OpenGap {
                    at_least: found.events,
                    after: arrivals::start(found.after),
                    before: arrivals::start(found.before),
                    since: open.map_or(now, |open| open.since),
                };
                if open.map(|open| open.at_least) != Some(gap.at_least) {
                    findings.push(Finding::Gap(gap));
                }
                self.gap = Some(gap);
            }
        }
        let epoch = self.last.as_ref().map_or(0, |last| last.epoch);
        let excess = self.past_excess.saturating_add(self.points.excess(epoch));
        if excess > self.excess {
            findings.push(Finding::Excess { events: excess });
        }
        self.excess = self.excess.max(excess);
        findings
    }

    /// How things are, as of the last [`Reconciler::advance`].
    #[must_use]
    pub fn status(&self) -> Status {
        let epoch = self.last.as_ref().map_or(0, |last| last.epoch);
        Status {
            gap: self.gap,
            at_most: self.points.at_most(epoch).map(|most| AtMost {
                events: most.events,
                after: arrivals::start(most.after),
                before: arrivals::start(most.before),
            }),
            excess: self.excess,
            lost: self.lost,
            complete_through: self.complete_through,
            unusable_scrapes: self.unusable_scrapes,
            restarts: self.restarts,
        }
    }

    /// The process that a scrape is of.
    fn turn(&mut self, scrape: &Scrape, findings: &mut Vec<Finding>) -> u64 {
        let Some(last) = &self.last else { return 0 };
        let has_other_start = match (last.started, scrape.started) {
            (Some(before), Some(now)) => before.0.abs_diff(now.0) > micros(START_JITTER).unsigned_abs(),
            _ => false,
        };
        if scrape.events >= last.events && !has_other_start {
            return last.epoch;
        }
        findings.push(Finding::Restarted);
        self.restarts += 1;
        self.past_excess = self.excess;
        last.epoch + 1
    }

    /// What the other counters grew by. Without a scrape before there is nothing to compare with; of a new
    /// process all is new.
    fn deltas(&self, scrape: &Scrape, findings: &mut Vec<Finding>) {
        let Some(last) = &self.last else { return };
        let grown = |before: u64, now: u64| if now < before { now } else { now - before };
        for (plugin, value) in &bounded(&scrape.errors) {
            let events = grown(last.errors.get(plugin).copied().unwrap_or_default(), *value);
            if events > 0 {
                findings.push(Finding::BackendErrors {
                    plugin: plugin.clone(),
                    events,
                });
            }
        }
        let requests = grown(last.rejected, scrape.rejected);
        if requests > 0 {
            findings.push(Finding::Rejected { requests });
        }
    }

    /// Processes that have ended are forgotten once nothing of theirs can arrive any more.
    fn end_of_old_processes(&mut self, now: UnixMicros) {
        let Some(epoch) = self.last.as_ref().map(|last| last.epoch) else {
            return;
        };
        self.lost += self
            .points
            .end_epochs_before(epoch, |point| now >= point.at.after(FINAL));
    }
}

fn bounded(errors: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    errors
        .iter()
        .take(MAX_PLUGINS)
        .map(|(plugin, value)| (plugin.clone(), *value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> UnixMicros {
        UnixMicros(seconds * SECOND)
    }

    fn scrape(seconds: i64, events: u64) -> Scrape {
        Scrape {
            at: ReadAt::by_collector(at(seconds), at(seconds)),
            events,
            rejected: 0,
            errors: BTreeMap::new(),
            started: Some(at(0)),
        }
    }

    fn reconciler() -> Reconciler {
        Reconciler::new(Bounds::default(), at(900))
    }

    #[test]
    fn events_before_the_first_scrape_are_nobodys() {
        let mut reconciler = reconciler();
        assert_eq!(reconciler.scraped(&scrape(1000, 5_000), at(1000)), []);
        for second in 1010..1060 {
            reconciler.arrived(at(second), 1);
        }
        assert_eq!(reconciler.scraped(&scrape(1100, 5_050), at(1100)), []);
        assert_eq!(reconciler.advance(at(1300)), []);
        assert_eq!(reconciler.status().gap, None);
        assert!(reconciler.status().complete_through > Some(at(1090)));
        assert_eq!(reconciler.status().at_most.unwrap().events, 0);
    }

    #[test]
    fn what_is_stamped_at_the_edges_of_a_window_is_on_neither_side() {
        // Counted by the second scrape, and stamped as late as a clock that is 2 s ahead can say.
        let mut late = reconciler();
        late.scraped(&scrape(1000, 0), at(1000));
        late.scraped(&scrape(1030, 1), at(1030));
        late.arrived(at(1032), 1);
        assert_eq!(late.advance(at(2000)), []);
        // Counted after the first scrape, and stamped as early as a clock that is 2 s behind can say, half a
        // second before it was counted.
        let mut early = reconciler();
        early.scraped(&scrape(1000, 0), at(1000));
        early.arrived(UnixMicros(997_500_001), 1);
        early.scraped(&scrape(1030, 1), at(1030));
        assert_eq!(early.advance(at(2000)), []);
    }

    #[test]
    fn one_event_that_does_not_come_is_found_when_it_is_due_and_closed_when_it_comes() {
        let mut reconciler = reconciler();
        reconciler.scraped(&scrape(1000, 100), at(1000));
        reconciler.arrived(at(1020), 9);
        reconciler.scraped(&scrape(1030, 110), at(1030));
        assert_eq!(reconciler.advance(at(1159)), []);
        let findings = reconciler.advance(at(1160));
        let [Finding::Gap(gap)] = findings.as_slice() else {
            panic!("{findings:?}");
        };
        assert_eq!((gap.at_least, gap.since), (1, at(1160)));
        assert!(gap.after <= at(1000) && gap.before >= at(1030), "{gap:?}");
        // Said once.
        assert_eq!(reconciler.advance(at(1161)), []);
        reconciler.arrived(at(1021), 1);
        assert!(matches!(
            reconciler.advance(at(1162)).as_slice(),
            [Finding::Closed { .. }]
        ));
        assert_eq!(reconciler.status().gap, None);
    }

    #[test]
    fn a_collector_that_is_behind_does_not_alarm() {
        let mut reconciler = reconciler();
        reconciler.scraped(&scrape(1000, 0), at(1000));
        reconciler.scraped(&scrape(1030, 10), at(1030));
        let saved = reconciler.save();
        let mut restored = Reconciler::restore(&saved, Bounds::default(), at(2000)).unwrap();
        assert_eq!(restored.advance(at(2000)), []);
        restored.hold(at(2100));
        assert_eq!(restored.advance(at(2200)), []);
        restored.arrived(at(1010), 10);
        assert_eq!(restored.advance(at(2300)), []);
    }

    #[test]
    fn a_gap_stays_open_while_the_collector_is_behind() {
        let mut reconciler = reconciler();
        reconciler.scraped(&scrape(1000, 0), at(1000));
        reconciler.scraped(&scrape(1030, 1), at(1030));
        reconciler.advance(at(1200));
        let mut restored = Reconciler::restore(&reconciler.save(), Bounds::default(), at(1300)).unwrap();
        assert_eq!(restored.advance(at(1300)), []);
        assert_eq!(restored.status().gap, reconciler.status().gap);
    }

    #[test]
    fn a_restart_begins_anew_and_keeps_the_old_gap() {
        let mut reconciler = reconciler();
        reconciler.scraped(&scrape(1000, 100), at(1000));
        reconciler.scraped(&scrape(1020, 103), at(1020));
        let mut next = scrape(1040, 7);
        next.started = Some(at(1030));
        assert_eq!(reconciler.scraped(&next, at(1040)), [Finding::Restarted]);
        assert!(matches!(reconciler.advance(at(1160)).as_slice(), [Finding::Gap(gap)] if gap.at_least == 3));
        next.at = ReadAt::by_collector(at(5000), at(5000));
        reconciler.scraped(&next, at(5000));
        assert_eq!((reconciler.status().lost, reconciler.status().gap), (3, None));
    }

    #[test]
    fn a_start_time_that_jitters_is_no_restart() {
        let mut reconciler = reconciler();
        reconciler.scraped(&scrape(1000, 100), at(1000));
        let mut next = scrape(1020, 100);
        next.started = Some(UnixMicros(SECOND));
        assert_eq!(reconciler.scraped(&next, at(1020)), []);
    }

    #[test]
    fn two_api_servers_under_one_name_are_an_excess() {
        let mut reconciler = reconciler();
        reconciler.scraped(&scrape(1000, 100), at(1000));
        reconciler.arrived(at(1010), 20);
        let findings = reconciler.scraped(&scrape(1020, 110), at(1020));
        assert_eq!(findings, [Finding::Excess { events: 10 }]);
        assert_eq!(reconciler.status().excess, 10);
    }

    #[test]
    fn what_the_api_server_says_of_itself_is_told_once() {
        let mut reconciler = reconciler();
        let with = |seconds, webhook, rejected| {
            let mut scrape = scrape(seconds, 0);
            scrape.errors.insert("webhook".to_owned(), webhook);
            scrape.rejected = rejected;
            scrape
        };
        // From before anybody looked.
        assert_eq!(reconciler.scraped(&with(1000, 5, 1), at(1000)), []);
        let findings = reconciler.scraped(&with(1015, 7, 4), at(1015));
        let errors = Finding::BackendErrors {
            plugin: "webhook".to_owned(),
            events: 2,
        };
        assert_eq!(findings, [errors, Finding::Rejected { requests: 3 }]);
        assert_eq!(reconciler.scraped(&with(1030, 7, 4), at(1030)), []);
    }

    #[test]
    fn a_scrape_out_of_order_is_counted_and_left_out() {
        let mut reconciler = reconciler();
        reconciler.scraped(&scrape(1000, 100), at(1000));
        assert_eq!(reconciler.scraped(&scrape(990, 50), at(1001)), []);
        assert_eq!(reconciler.status().unusable_scrapes, 1);
    }

    #[test]
    fn a_state_is_read_back_as_it_was_and_is_small_at_its_worst() {
        let mut reconciler = reconciler();
        for second in 0..5_000 {
            // Each in a bucket of its own, with as many events as never come in a tenth of a second.
            reconciler.arrived(UnixMicros(second * 300_000), u64::from(u32::MAX));
            if second % 20 == 0 {
                let mut scrape = scrape(second * 3 / 10, 0);
                scrape.at = ReadAt::by_collector(UnixMicros(second * 300_000), UnixMicros(second * 300_000));
                scrape.events = u64::MAX >> 12;
                for plugin in 0..40 {
                    scrape.errors.insert(format!("{plugin:064}"), u64::MAX);
                }
                reconciler.scraped(&scrape, UnixMicros(second * 300_000));
            }
        }
        let saved = reconciler.save();
        assert!(saved.len() <= MAX_STATE_BYTES, "{}", saved.len());
        let restored = Reconciler::restore(&saved, Bounds::default(), at(0)).unwrap();
        assert_eq!(restored.save(), saved);
        for end in 0..saved.len() {
            assert!(Reconciler::restore(&saved[..end], Bounds::default(), at(0)).is_err());
        }
    }
}
