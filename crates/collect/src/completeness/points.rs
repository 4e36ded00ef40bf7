//! Scrapes against arrivals: the differences that the argument of the module above is about.

use super::UnixMicros;
use super::clock::Told;

/// Scrapes that are kept.
const MAX_POINTS: usize = 48;

/// A scrape, and what has arrived of the time before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Counts the processes of the API server.
    pub(super) epoch: u64,
    /// When it was taken, by the collector's clock.
    pub(super) at: UnixMicros,
    /// The API server's counter.
    pub(super) total: u64,
    /// When it was read, whatever the clocks do within the bounds.
    pub(super) wide: Window,
    /// When it was read, as well as the clocks are known; within `wide`.
    pub(super) near: Window,
    /// Scrapes since then have seen the clocks' offset at either end of what was thought of it.
    pub(super) is_least_seen: bool,
    pub(super) is_most_seen: bool,
    /// What was counted has arrived since, or is missing.
    pub(super) is_settled: bool,
}

/// What has arrived around the moment of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// What is stamped before this bucket is counted by the scrape.
    pub(super) lo: i64,
    /// What is counted by the scrape is stamped before this bucket.
    pub(super) hi: i64,
    /// Arrived, and stamped before `lo`.
    pub(super) below_lo: u64,
    /// Arrived, and stamped before `hi`.
    pub(super) below_hi: u64,
}

impl Window {
    fn add(&mut self, bucket: i64, count: u64) {
        if bucket < self.hi {
            self.below_hi += count;
        }
        if bucket < self.lo {
            self.below_lo += count;
        }
    }
}

impl Point {
    /// `g`: at least so many are counted and have not arrived, up to the constant.
    fn at_least(&self, of: Of) -> i128 {
        i128::from(self.total) - i128::from(self.window(of).below_hi)
    }

    /// `h`: at most so many.
    fn at_most(&self, of: Of) -> i128 {
        i128::from(self.total) - i128::from(self.window(of).below_lo)
    }

    const fn window(&self, of: Of) -> &Window {
        match of {
            Of::Wide => &self.wide,
            Of::Near => &self.near,
        }
    }

    /// Whether `near` can be relied on.
    const fn is_near_sure(&self) -> bool {
        self.is_least_seen && self.is_most_seen
    }
}

/// Which windows a figure is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Wide,
    Near,
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

/// A pair of scrapes between which events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Widest {
    events: u64,
    from: usize,
    /// The other scrape that says so.
    witness: Option<usize>,
    to: usize,
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
        for point in self
            .all
            .iter_mut()
            .rev()
            .take_while(|point| bucket < point.wide.hi)
        {
            point.wide.add(bucket, count);
            point.near.add(bucket, count);
        }
    }

    /// The end of the last window.
    pub(super) fn last_hi(&self) -> Option<i64> {
        self.all.last().map(|point| point.wide.hi)
    }

    /// What was counted by scrapes of before `due` has arrived or is missing; that stays so.
    pub(super) fn settle(&mut self, due: UnixMicros) {
        for point in &mut self.all {
            point.is_settled |= point.at <= due;
        }
    }

    /// What a scrape tells of the clocks, for those that were taken before it and for the last one itself.
    pub(super) fn told(&mut self, told: Told) {
        for point in &mut self.all {
            match told {
                Told::Same { least, most } => {
                    point.is_least_seen |= least;
                    point.is_most_seen |= most;
                }
                // Nobody knows since when the offset was another one.
                Told::Set if !point.is_near_sure() => {
                    point.near = point.wide;
                    point.is_least_seen = true;
                    point.is_most_seen = true;
                }
                Told::Set => {}
            }
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
            for of in [Of::Wide, Of::Near] {
                let lowest = of_epoch().rev().min_by_key(|(_, point)| point.at_most(of));
                let highest = of_epoch().rev().max_by_key(|(_, point)| point.at_least(of));
                let second = of_epoch()
                    .rev()
                    .filter(|(index, _)| Some(*index) != lowest.map(|(index, _)| index))
                    .min_by_key(|(_, point)| point.at_most(of));
                let extremes = lowest.into_iter().chain(highest).chain(second);
                kept.extend(extremes.map(|(index, _)| index));
                if let Some(widest) = self.widest(epoch, of, Scope::All) {
                    kept.extend([widest.from, widest.to]);
                    kept.extend(widest.witness);
                }
            }
        }
        kept
    }

    /// The pair of a process's scrapes between which most is missing, if anything is. Of near windows, an event that
    /// was counted unusually late can make the figure of one scrape too small; so it takes two before the gap.
    fn widest(&self, epoch: u64, of: Of, scope: Scope) -> Option<Widest> {
        // The smallest figures so far, the smallest first.
        let mut lowest: Option<(i128, usize)> = None;
        let mut second: Option<(i128, usize)> = None;
        let mut widest: Option<Widest> = None;
        for (index, point) in self
            .all
            .iter()
            .enumerate()
            .filter(|(_, point)| point.epoch == epoch)
        {
            if of == Of::Near && scope == Scope::Settled && !point.is_near_sure() {
                continue;
            }
            let before = match of {
                Of::Wide => lowest,
                Of::Near => second,
            };
            if let Some((low, from)) = before
                && (point.is_settled || scope == Scope::All)
            {
                let events = positive(point.at_least(of) - low);
                if events > widest.as_ref().map_or(0, |widest| widest.events) {
                    let witness = lowest.filter(|_| of == Of::Near).map(|(_, index)| index);
                    widest = Some(Widest {
                        events,
                        from,
                        witness,
                        to: index,
                    });
                }
            }
            let high = point.at_most(of);
            if lowest.is_none_or(|(low, _)| high <= low) {
                second = lowest;
                lowest = Some((high, index));
            } else if second.is_none_or(|(low, _)| high <= low) {
                second = Some((high, index));
            }
        }
        widest
    }

    /// The largest gap that is certain, of whichever windows.
    fn gap(&self, epoch: u64) -> Option<Gap> {
        let of = |of: Of| {
            let widest = self.widest(epoch, of, Scope::Settled)?;
            Some(Gap {
                events: widest.events,
                after: self.all.get(widest.from)?.window(of).lo,
                before: self.all.get(widest.to)?.window(of).hi,
            })
        };
        let (wide, near) = (of(Of::Wide), of(Of::Near));
        // Where both say the same, the one that leans on less.
        near.into_iter().chain(wide).max_by_key(|gap| gap.events)
    }

    /// The gap of each process, and the bucket up to which a stretch is proven complete.
    pub(super) fn gaps(&self) -> (Vec<Gap>, Option<i64>) {
        let mut epochs: Vec<u64> = self.all.iter().map(|point| point.epoch).collect();
        epochs.dedup();
        let mut gaps = Vec::new();
        let mut complete = None;
        for epoch in epochs {
            gaps.extend(self.gap(epoch));
            let mut highest: Option<i128> = None;
            for point in self.all.iter().filter(|point| point.epoch == epoch) {
                if highest.is_some_and(|high| point.at_most(Of::Wide) <= high) {
                    complete = complete.max(Some(point.wide.lo));
                }
                highest = highest.max(Some(point.at_least(Of::Wide)));
            }
            // As with gaps, two have to say it.
            let mut highest: Option<i128> = None;
            let mut said: Option<i64> = None;
            let near = |point: &&Point| point.epoch == epoch && point.is_near_sure();
            for point in self.all.iter().filter(near) {
                if highest.is_some_and(|high| point.at_most(Of::Near) <= high) {
                    if said.is_some() {
                        complete = complete.max(said);
                    }
                    said = Some(point.near.lo);
                }
                highest = highest.max(Some(point.at_least(Of::Near)));
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
        if last.at <= first.at {
            return None;
        }
        // What is missing by a scrape is missing by those after it, too; of near windows, two have to say it.
        let from_last = of_epoch().filter(|point| point.at >= last.at && point.is_near_sure());
        let mut near: Vec<i128> = from_last.map(|point| point.at_most(Of::Near)).collect();
        near.sort_unstable();
        let wide = last.at_most(Of::Wide);
        let most = near.get(1).map_or(wide, |second| wide.min(*second));
        let of = if first.is_near_sure() { Of::Near } else { Of::Wide };
        Some(Gap {
            events: positive(most - first.at_least(of)),
            after: first.window(of).hi,
            before: last.wide.lo,
        })
    }

    /// How many more have arrived than the process `epoch` counted.
    pub(super) fn excess(&self, epoch: u64) -> u64 {
        let mut excess = 0;
        let mut highest: Option<i128> = None;
        for point in self.all.iter().filter(|point| point.epoch == epoch) {
            if let Some(high) = highest {
                excess = excess.max(positive(high - point.at_most(Of::Wide)));
            }
            highest = highest.max(Some(point.at_least(Of::Wide)));
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
            if !points
                .clone()
                .all(|point| point.is_settled && point.is_near_sure())
            {
                continue;
            }
            let missing = self.gap(ended).map_or(0, |gap| gap.events);
            if missing == 0 || points.all(&is_final) {
                lost += missing;
                self.all.retain(|point| point.epoch != ended);
            }
        }
        lost
    }
}
