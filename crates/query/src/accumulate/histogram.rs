//! Events over time.

use std::collections::BTreeMap;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Widths of buckets; each is a multiple of the one before, so that buckets become wider without a second
/// look at the events.
const WIDTHS: [i64; 15] = [
    SECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    7 * DAY,
    364 * DAY,
];

/// More than 12,000 years: no event is further from 1970, and a text that says so is counted there.
const FARTHEST: i64 = 400_000_000_000_000_000;

/// 1970-01-01 was a Thursday; buckets of a week begin on Monday.
const MONDAY: i64 = -3 * DAY;

/// Counts events in buckets of one width. The width is the least at which the whole span has no more
/// buckets than asked for, whatever the order of the events: merged from any parts, the answer is that of
/// all events together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    most: usize,
    width: i64,
    buckets: BTreeMap<i64, u64>,
    undated: u64,
}

/// What [`Histogram::finish`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistogramCounts {
    /// The width of each bucket in microseconds.
    pub width_micros: i64,
    /// From the first to the last, the empty ones in between included.
    pub buckets: Vec<Bucket>,
    /// Events without a time.
    pub undated: u64,
}

/// Events of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bucket {
    /// Where it begins, microseconds since 1970 in UTC.
    pub start_micros: i64,
    /// How many events it has.
    pub count: u64,
}

impl Histogram {
    /// At most `most` buckets, at least two, of a second or more.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(2),
            width: SECOND,
            buckets: BTreeMap::new(),
            undated: 0,
        }
    }

    /// Buckets of `width_micros`, at least 1, as long as the span has no more than `most` of them; beyond, they become
    /// wider as by [`Histogram::new`], which [`HistogramCounts::width_micros`] shows.
    #[must_use]
    pub fn of_width(width_micros: i64, most: usize) -> Self {
        Self {
            width: width_micros.max(1),
            ..Self::new(most)
        }
    }

    /// The width for a span that is known beforehand, so that several histograms have the same.
    #[must_use]
    pub fn for_span(most: usize, first_micros: i64, last_micros: i64) -> Self {
        let mut histogram = Self::new(most);
        let (first, last) = (
            first_micros.clamp(-FARTHEST, FARTHEST),
            last_micros.clamp(-FARTHEST, FARTHEST),
        );
        while spanned(first, last, histogram.width) > histogram.bound() {
            histogram.width = wider(histogram.width);
        }
        histogram
    }

    fn bound(&self) -> i128 {
        i128::try_from(self.most).unwrap_or(i128::MAX)
    }

    /// Counts an event at this time; without one, it is counted apart.
    pub fn add(&mut self, micros: Option<i64>) {
        match micros {
            Some(micros) => self.add_times(micros.clamp(-FARTHEST, FARTHEST), 1),
            None => self.undated = self.undated.saturating_add(1),
        }
    }

    fn add_times(&mut self, micros: i64, times: u64) {
        let at = start(micros, self.width);
        match self.buckets.get_mut(&at) {
            // It is within what is spanned already.
            Some(count) => *count = count.saturating_add(times),
            None => {
                self.buckets.insert(at, times);
                self.widen();
            }
        }
    }

    fn widen(&mut self) {
        loop {
            let (Some((first, _)), Some((last, _))) =
                (self.buckets.first_key_value(), self.buckets.last_key_value())
            else {
                return;
            };
            if spanned(*first, *last, self.width) <= self.bound() {
                return;
            }
            self.set_width(wider(self.width));
        }
    }

    fn set_width(&mut self, width: i64) {
        self.width = width;
        for (at, count) in std::mem::take(&mut self.buckets) {
            let own = self.buckets.entry(start(at, width)).or_default();
            *own = own.saturating_add(count);
        }
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        if other.width > self.width {
            self.set_width(other.width);
        }
        for (at, count) in &other.buckets {
            self.add_times(*at, *count);
        }
        self.undated = self.undated.saturating_add(other.undated);
    }

    /// The buckets in order of time.
    #[must_use]
    pub fn finish(&self) -> HistogramCounts {
        let mut buckets = Vec::new();
        if let (Some((first, _)), Some((last, _))) =
            (self.buckets.first_key_value(), self.buckets.last_key_value())
        {
            let mut at = *first;
            loop {
                buckets.push(Bucket {
                    start_micros: at,
                    count: self.buckets.get(&at).copied().unwrap_or(0),
                });
                if at >= *last {
                    break;
                }
                at = at.saturating_add(self.width);
            }
        }
        HistogramCounts {
            width_micros: self.width,
            buckets,
            undated: self.undated,
        }
    }
}

/// Where the bucket of an instant begins.
fn start(micros: i64, width: i64) -> i64 {
    let origin = i128::from(MONDAY);
    let (micros, width) = (i128::from(micros), i128::from(width));
    let start = (micros - origin).div_euclid(width) * width + origin;
    i64::try_from(start).unwrap_or(i64::MIN)
}

fn spanned(first: i64, last: i64, width: i64) -> i128 {
    let start = |micros| i128::from(start(micros, width));
    (start(last) - start(first)) / i128::from(width) + 1
}

fn wider(width: i64) -> i64 {
    WIDTHS
        .into_iter()
        .find(|next| *next > width)
        .unwrap_or(width.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_that_was_asked_for_stays_unless_there_are_too_many() {
        let mut histogram = Histogram::of_width(7 * MINUTE, 10);
        for minute in 0..60 {
            histogram.add(Some(minute * MINUTE));
        }
        let counts = histogram.finish();
        assert_eq!((counts.width_micros, counts.buckets.len()), (7 * MINUTE, 9));
        assert_eq!(counts.buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 60);
        histogram.add(Some(HOUR * 2));
        let counts = histogram.finish();
        assert!(counts.width_micros > 7 * MINUTE && counts.buckets.len() <= 10);
        assert_eq!(counts.buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 61);
    }

    #[test]
    fn every_width_is_a_multiple_of_the_one_before() {
        assert!(WIDTHS.windows(2).all(|pair| pair[1] % pair[0] == 0));
    }

    #[test]
    fn buckets_are_as_wide_as_the_span_needs() {
        let mut histogram = Histogram::new(60);
        for minute in 0..50 {
            histogram.add(Some(minute * MINUTE + 1));
        }
        histogram.add(None);
        let counts = histogram.finish();
        assert_eq!(
            (counts.width_micros, counts.buckets.len(), counts.undated),
            (MINUTE, 50, 1)
        );
        histogram.add(Some(30 * DAY));
        let counts = histogram.finish();
        assert_eq!(
            (counts.width_micros, counts.buckets.len()),
            (DAY, 31),
            "61 half days are one too many"
        );
    }

    #[test]
    fn times_at_the_ends_of_numbers_are_counted() {
        let mut histogram = Histogram::new(10);
        histogram.add(Some(i64::MIN));
        histogram.add(Some(i64::MAX));
        assert_eq!(
            histogram
                .finish()
                .buckets
                .iter()
                .map(|bucket| bucket.count)
                .sum::<u64>(),
            2
        );
    }
}
