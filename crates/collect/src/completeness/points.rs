//! Scrapes against arrivals: the differences that the argument of the module above is about.

use super::UnixMicros;

/// Scrapes that are kept.
const MAX_POINTS: usize = 48;

/// A scrape, and what has arrived of the time before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Counts the processes of the API server.
    pub(super) epoch: u64,
    /// When it was taken, by the collector's clock.
    pub(super) at: UnixMicros,
    /// What is stamped before this bucket is counted by the scrape.
    pub(super) lo: i64,
    /// What is counted by the scrape is stamped before this bucket.
    pub(super) hi: i64,
    /// The API server's counter.
    pub(super) total: u64,
    /// Arrived, and stamped before `lo`.
    pub(super) below_lo: u64,
    /// Arrived, and stamped before `hi`.
    pub(super) below_hi: u64,
    /// What was counted has arrived since, or is missing.
    pub(super) is_settled: bool,
}

impl Point {
    /// `g`: at least so many are counted and have not arrived, up to the constant.
    fn at_least(&self) -> i128 {
        i128::from(self.total) - i128::from(self.below_hi)
    }

    /// `h`: at most so many.
    fn at_most(&self) -> i128 {
        i128::from(self.total) - i128::from(self.below_lo)
    }
}

/// Events that are missing between two scrapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) events: u64,
    /// Buckets: the events are stamped from the one to before the other.
    pub(super) after: i64,
    pub(super) before: i64,
}

impl Gap {
    /// Of several processes, one after the other.
    pub(super) fn sum(gaps: &[Self]) -> Option<Self> {
        let first = gaps.first()?;
        Some(Self {
            events: gaps.iter().map(|gap| gap.events).sum(),
            ..*first
        })
    }
}

/// The scrapes that are kept, in the order they were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Points {
    pub(super) all: Vec<Point>,
}

/// Positive, and as large as it fits.
fn positive(difference: i128) -> u64 {
    u64::try_from(difference.max(0)).unwrap_or(u64::MAX)
}

/// Which scrapes may show a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Settled,
}

impl Points {
    pub(super) fn add(&mut self, bucket: i64, count: u64) {
        // `hi` never falls from one scrape to the next, and `lo` is below it.
        for point in self.all.iter_mut().rev().take_while(|point| bucket < point.hi) {
            point.below_hi += count;
            if bucket < point.lo {
                point.below_lo += count;
            }
        }
    }

    /// The end of the last window.
    pub(super) fn last_hi(&self) -> Option<i64> {
        self.all.last().map(|point| point.hi)
    }

    /// What was counted by scrapes of before `due` has arrived or is missing; that stays so.
    pub(super) fn settle(&mut self, due: UnixMicros) {
        for point in &mut self.all {
            point.is_settled |= point.at <= due;
        }
    }

    /// Takes a scrape, and lets one go where there are too many.
    pub(super) fn push(&mut self, point: Point) {
        self.all.push(point);
        if self.all.len() <= MAX_POINTS {
            return;
        }
        let extremes = self.extremes();
        let candidates = |needs_settled: bool| {
            self.all.iter().enumerate().find_map(|(index, point)| {
                let may_go = !extremes.contains(&index) && (!needs_settled || point.is_settled);
                may_go.then_some(index)
            })
        };
        // Scrapes that come faster than they settle are thinned out.
        let index = candidates(true).or_else(|| candidates(false)).unwrap_or_default();
        self.all.remove(index);
    }

    /// Where the figures are that a later scrape may be compared with.
    fn extremes(&self) -> Vec<usize> {
        let mut kept = vec![self.all.len().saturating_sub(1)];
        let mut epochs: Vec<u64> = self.all.iter().map(|point| point.epoch).collect();
        epochs.dedup();
        for epoch in epochs {
            let of_epoch = || {
                self.all
                    .iter()
                    .enumerate()
                    .filter(move |(_, point)| point.epoch == epoch)
            };
            // The last of the smallest is nearest to what comes.
            let lowest = of_epoch().rev().min_by_key(|(_, point)| point.at_most());
            let highest = of_epoch().rev().max_by_key(|(_, point)| point.at_least());
            kept.extend(lowest.into_iter().chain(highest).map(|(index, _)| index));
            if let Some((_, from, to)) = self.widest(epoch, Scope::All) {
                kept.extend([from, to]);
            }
        }
        kept
    }

    /// The pair of a process's scrapes between which most is missing, if anything is.
    fn widest(&self, epoch: u64, scope: Scope) -> Option<(u64, usize, usize)> {
        let mut lowest: Option<(i128, usize)> = None;
        let mut widest: Option<(u64, usize, usize)> = None;
        for (index, point) in self
            .all
            .iter()
            .enumerate()
            .filter(|(_, point)| point.epoch == epoch)
        {
            if let Some((low, from)) = lowest
                && (point.is_settled || scope == Scope::All)
            {
                let events = positive(point.at_least() - low);
                if events > widest.map_or(0, |(events, _, _)| events) {
                    widest = Some((events, from, index));
                }
            }
            if lowest.is_none_or(|(low, _)| point.at_most() <= low) {
                lowest = Some((point.at_most(), index));
            }
        }
        widest
    }

    /// The gap of each process, and the bucket up to which a stretch is proven complete.
    pub(super) fn gaps(&self) -> (Vec<Gap>, Option<i64>) {
        let mut epochs: Vec<u64> = self.all.iter().map(|point| point.epoch).collect();
        epochs.dedup();
        let mut gaps = Vec::new();
        let mut complete = None;
        for epoch in epochs {
            if let Some((events, from, to)) = self.widest(epoch, Scope::Settled)
                && let (Some(from), Some(to)) = (self.all.get(from), self.all.get(to))
            {
                gaps.push(Gap {
                    events,
                    after: from.lo,
                    before: to.hi,
                });
            }
            let mut highest: Option<i128> = None;
            for point in self.all.iter().filter(|point| point.epoch == epoch) {
                if highest.is_some_and(|high| point.at_most() <= high) {
                    complete = complete.max(Some(point.lo));
                }
                highest = highest.max(Some(point.at_least()));
            }
        }
        (gaps, complete)
    }

    /// The most that can be missing between the oldest scrape of the process `epoch` and its last settled one;
    /// the buckets are those that are surely between the two.
    pub(super) fn at_most(&self, epoch: u64) -> Option<Gap> {
        let of_epoch = || self.all.iter().filter(|point| point.epoch == epoch);
        let first = of_epoch().next()?;
        let last = of_epoch().rfind(|point| point.is_settled)?;
        (first.at < last.at).then(|| Gap {
            events: positive(last.at_most() - first.at_least()),
            after: first.hi,
            before: last.lo,
        })
    }

    /// How many more have arrived than the process `epoch` counted.
    pub(super) fn excess(&self, epoch: u64) -> u64 {
        let mut excess = 0;
        let mut highest: Option<i128> = None;
        for point in self.all.iter().filter(|point| point.epoch == epoch) {
            if let Some(high) = highest {
                excess = excess.max(positive(high - point.at_most()));
            }
            highest = highest.max(Some(point.at_least()));
        }
        excess
    }

    /// Lets go of processes that have ended: at once where nothing is missing, otherwise when `is_final`.
    /// Answers how many events are lost for good.
    pub(super) fn end_epochs_before(&mut self, epoch: u64, is_final: impl Fn(&Point) -> bool) -> u64 {
        let mut lost = 0;
        let mut old: Vec<u64> = self.all.iter().map(|point| point.epoch).collect();
        old.dedup();
        for ended in old.into_iter().filter(|ended| *ended < epoch) {
            let mut points = self.all.iter().filter(|point| point.epoch == ended);
            if !points.clone().all(|point| point.is_settled) {
                continue;
            }
            let missing = self
                .widest(ended, Scope::Settled)
                .map_or(0, |(events, _, _)| events);
            if missing == 0 || points.all(&is_final) {
                lost += missing;
                self.all.retain(|point| point.epoch != ended);
            }
        }
        lost
    }
}
