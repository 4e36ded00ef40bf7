//! apiservers' own counters against what arrived, as a configuration asks for it.

mod describe;
mod scraping;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use kaudit_collect::completeness::{Beginning, Bounds, Finding, Scrape, Status, UnixMicros, Watch};
use kaudit_collect::{Intake, Name};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use self::scraping::{Scraping, SteadyClock, Unread};
use crate::collection::Collection;
use crate::config::Config;
use crate::config::collect::CollectCompleteness;
use crate::exit::Failure;

/// Between two looks at an apiserver's counters.
const INTERVAL: Duration = Duration::from_secs(30);

/// No shorter time between them.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// With less between two looks, none waits for the best moment of its second.
const MIN_AIMED_INTERVAL: Duration = Duration::from_secs(2);

/// What reads events is looked at so often, to see whether it is behind.
const LOOK: Duration = Duration::from_secs(1);

/// So many failures in a row are more than a restart of an apiserver.
const FAILURES: u64 = 3;

/// An apiserver that is watched. Its clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Watching(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    watch: Watch,
    scraping: Scraping,
    clock: SteadyClock,
    interval: Duration,
    settle: Duration,
    tally: Mutex<Tally>,
}

/// What is counted besides the reconciler's own figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Looks that were of use.
    pub(crate) read: u64,
    /// Looks that failed.
    pub(crate) failed: u64,
    /// Failures since the last good look.
    failures: u64,
    /// Why the last look failed.
    error: Option<String>,
    /// Events that the apiserver's backends could not deliver, by backend.
    pub(crate) backend_errors: BTreeMap<String, u64>,
    /// Requests that the apiserver refused because their event could not be kept.
    pub(crate) rejected: u64,
}

/// What reads or receives the events of an apiserver, as far as it may be behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Feeding {
    /// Something is known that was not read yet.
    pub(crate) is_behind: bool,
    /// Times that senders were told to come again later.
    pub(crate) held_back: u64,
}

/// Watches as the configuration asks for. Reads the journal where something was watched before.
pub(crate) fn watchings(config: &Config, intake: &Intake) -> Result<Vec<Watching>, Failure> {
    let mut seen = BTreeSet::new();
    let entries = config.collect.completeness.iter().enumerate();
    entries
        .map(|(number, entry)| {
            let usage = |error: anyhow::Error| {
                Failure::usage(error.context(format!("collect.completeness[{number}]")))
            };
            let cluster = entry.cluster.as_deref().or(config.cluster.as_deref());
            let cluster = cluster.ok_or_else(|| {
                usage(anyhow!(
                    "the cluster's name is missing: give it here, or `cluster` for all, or --cluster"
                ))
            })?;
            let cluster: Name = cluster.parse().map_err(|error| usage(anyhow!("{error}")))?;
            let instance: Name = entry
                .instance
                .parse()
                .map_err(|error| usage(anyhow!("{error}")))?;
            if !seen.insert((cluster.clone(), instance.clone())) {
                return Err(usage(anyhow!("{cluster}/{instance} stands here twice")));
            }
            let scraping = Scraping::of(entry).map_err(usage)?;
            Watching::start(entry, intake, cluster, instance, scraping)
        })
        .collect()
}

/// Looks at every watched apiserver until `stop`.
pub(crate) fn spawn(collection: &Collection, tasks: &TaskTracker, stop: &CancellationToken) {
    for watching in collection.watchings() {
        tasks.spawn(watching.clone().run(collection.clone(), stop.clone()));
    }
}

impl Watching {
    fn start(
        entry: &CollectCompleteness,
        intake: &Intake,
        cluster: Name,
        instance: Name,
        scraping: Scraping,
    ) -> Result<Self, Failure> {
        let mut bounds = Bounds::default();
        if let Some(settle) = entry.settle {
            bounds.settle = settle.0;
        }
        let (watch, beginning) =
            Watch::start(intake.clone(), cluster, instance, bounds, now()).map_err(Failure::unreachable)?;
        let (cluster, instance) = (watch.cluster(), watch.instance());
        match beginning {
            Beginning::Anew { reason } => {
                warn!(%cluster, %instance, reason, "completeness is counted anew: a gap that was open is forgotten");
            }
            other => info!(%cluster, %instance, beginning = ?other, "completeness is watched"),
        }
        Ok(Self(Arc::new(Inner {
            watch,
            scraping,
            clock: SteadyClock::start(),
            interval: entry.interval.map_or(INTERVAL, |time| time.0).max(MIN_INTERVAL),
            settle: bounds.settle,
            tally: Mutex::default(),
        })))
    }

    pub(crate) fn cluster(&self) -> &Name {
        self.0.watch.cluster()
    }

    pub(crate) fn instance(&self) -> &Name {
        self.0.watch.instance()
    }

    fn settle(&self) -> Duration {
        self.0.settle
    }

    pub(crate) fn status(&self) -> Status {
        self.0.watch.status()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tallying().clone()
    }

    fn tallying(&self) -> MutexGuard<'_, Tally> {
        self.0.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks now and then until `stop`.
    async fn run(self, collection: Collection, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK.min(self.0.interval));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut scrapes = tokio::time::interval(self.0.interval);
        scrapes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut behind = Behind::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => {
                    let feeding = collection.feeding(self.cluster(), self.instance());
                    if behind.is_too_long(feeding, Instant::now(), self.0.settle) {
                        self.0.watch.hold(now());
                    }
                    // What was counted a while ago is due at any moment, not only when the counters are read.
                    self.find(|watching| watching.0.watch.advance(now())).await;
                }
                _ = scrapes.tick() => {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = self.look() => {}
                    }
                }
            }
        }
        self.save().await;
    }

    /// Reads the counters once, and compares.
    async fn look(&self) {
        if self.0.interval >= MIN_AIMED_INTERVAL {
            tokio::time::sleep(self.0.watch.best_moment(self.0.clock.now())).await;
        }
        let read = self.0.scraping.read(self.0.interval, &self.0.clock).await;
        // Tens of megabytes may have come.
        self.find(move |watching| watching.compare(read)).await;
        self.save().await;
    }

    /// Tells what `look` finds, which may block.
    async fn find(&self, look: impl FnOnce(&Self) -> Vec<Finding> + Send + 'static) {
        let watching = self.clone();
        match tokio::task::spawn_blocking(move || look(&watching)).await {
            Ok(findings) => findings.into_iter().for_each(|finding| self.tell(finding)),
            Err(panic) => warn!(%panic, "comparing counters ended by a panic"),
        }
    }

    fn compare(&self, read: Result<scraping::Answer, Unread>) -> Vec<Finding> {
        let scrape = match read {
            Ok(answer) => Scrape::parse(&answer.text, answer.at).map_err(|error| error.to_string()),
            Err(Unread::AsBefore) => return self.0.watch.advance(now()),
            Err(Unread::Failed(why)) => Err(why),
        };
        match scrape {
            Ok(scrape) => {
                let mut tally = self.tallying();
                tally.read += 1;
                tally.failures = 0;
                tally.error = None;
                drop(tally);
                self.0.watch.scraped(&scrape, now())
            }
            Err(why) => {
                let mut tally = self.tallying();
                tally.failed += 1;
                tally.failures += 1;
                if tally.failures == FAILURES {
                    let (cluster, instance) = (self.cluster(), self.instance());
                    warn!(%cluster, %instance, error = why, "the apiserver's counters cannot be read");
                }
                tally.error = Some(why);
                drop(tally);
                self.0.watch.advance(now())
            }
        }
    }

    fn tell(&self, finding: Finding) {
        let (cluster, instance) = (self.cluster(), self.instance());
        match finding {
            Finding::Gap(gap) => warn!(
                %cluster, %instance,
                events = gap.at_least,
                after = describe::time(gap.after),
                before = describe::time(gap.before),
                "events are missing: the apiserver counted them and they did not come"
            ),
            Finding::Closed { gap } => {
                info!(%cluster, %instance, events = gap.at_least, "events that were missing have come");
            }
            Finding::Excess { events } => warn!(
                %cluster, %instance, events,
                "more events came than the apiserver counted: does another one send under its name?"
            ),
            Finding::Restarted => info!(%cluster, %instance, "the apiserver was restarted"),
            Finding::BackendErrors { plugin, events } => {
                warn!(%cluster, %instance, plugin, events, "the apiserver could not deliver events");
                *self.tallying().backend_errors.entry(plugin).or_default() += events;
            }
            Finding::Rejected { requests } => {
                warn!(%cluster, %instance, requests, "the apiserver refused requests whose events it could not keep");
                self.tallying().rejected += requests;
            }
            other => warn!(%cluster, %instance, finding = ?other, "completeness"),
        }
    }

    async fn save(&self) {
        let watching = self.clone();
        let saved = tokio::task::spawn_blocking(move || watching.0.watch.save()).await;
        if let Ok(Err(error)) = saved {
            // More is read again after a restart, that is all.
            debug!(%error, "the state of completeness is not saved");
        }
    }
}

/// How long what reads events has been behind.
#[derive(Debug, Default)]
struct Behind {
    since: Option<Instant>,
    held_back: Option<u64>,
}

impl Behind {
    /// Whether events that were made half a settle time ago may not be here yet. Whoever was up to date a moment
    /// ago is only busy.
    fn is_too_long(&mut self, feeding: Feeding, now: Instant, settle: Duration) -> bool {
        let before = self.held_back.replace(feeding.held_back);
        let was_held_back = before.is_some_and(|before| before != feeding.held_back);
        if !feeding.is_behind {
            self.since = None;
            return was_held_back;
        }
        let since = *self.since.get_or_insert(now);
        was_held_back || now.duration_since(since) >= settle / 2
    }
}

fn now() -> UnixMicros {
    UnixMicros(kaudit_collect::now_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_behind_for_long_or_a_sender_that_was_sent_away_holds_the_verdict() {
        let start = Instant::now();
        let settle = Duration::from_secs(100);
        let mut behind = Behind::default();
        // Second, whether it is behind, times held back, and the answer.
        let table = [
            (0, true, 5, false),
            (49, true, 5, false),
            (50, true, 5, true),
            (51, false, 5, false),
            (52, true, 5, false),
            (101, true, 5, false),
            (102, true, 5, true),
            (103, false, 6, true),
            (104, false, 6, false),
        ];
        for (second, is_behind, held_back, expected) in table {
            let feeding = Feeding { is_behind, held_back };
            let at = start + Duration::from_secs(second);
            assert_eq!(behind.is_too_long(feeding, at, settle), expected, "{second}");
        }
    }
}
