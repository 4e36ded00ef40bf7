//! How many events have arrived, by stageTimestamp.

use std::collections::BTreeMap;

use super::UnixMicros;

/// Microseconds that are counted together.
const BUCKET_MICROS: i64 = 10_000;
/// Buckets with events that are told apart: 18 s before the newest event, which is more than how long before its
/// arrival a scrape was taken.
const MAX_BUCKETS: usize = 1792;
/// Buckets before the last scrape's window that the next one's may still reach into, after a clock was set back.
const MARGIN_BUCKETS: i64 = 1_000;
/// Years 1 to 9999 and more; what claims to be outside is taken for the nearest.
const MAX_BUCKET: i64 = 1 << 42;

/// The bucket of an instant.
pub(super) fn bucket(at: UnixMicros) -> i64 {
    at.0.div_euclid(BUCKET_MICROS).clamp(-MAX_BUCKET, MAX_BUCKET)
}

/// When a bucket begins.
pub(super) const fn start(bucket: i64) -> UnixMicros {
    UnixMicros(bucket.saturating_mul(BUCKET_MICROS))
}

/// Counts by bucket for a while back, and one sum for all before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrivals {
    /// All buckets before this one are in `earlier`.
    pub(super) floor: Option<i64>,
    pub(super) earlier: u64,
    pub(super) buckets: BTreeMap<i64, u64>,
}

impl Arrivals {
    pub(super) fn add(&mut self, bucket: i64, count: u64) {
        if self.floor.is_some_and(|floor| bucket < floor) {
            self.earlier += count;
            return;
        }
        *self.buckets.entry(bucket).or_default() += count;
        while self.buckets.len() > MAX_BUCKETS {
            let Some((oldest, count)) = self.buckets.pop_first() else {
                break;
            };
            self.earlier += count;
            self.floor = Some(oldest + 1);
        }
    }

    /// How many have arrived whose bucket is before `bucket`; `None` where that is no longer told apart.
    pub(super) fn before(&self, bucket: i64) -> Option<u64> {
        if self.floor.is_some_and(|floor| bucket < floor) {
            return None;
        }
        Some(self.earlier + self.buckets.range(..bucket).map(|(_, count)| count).sum::<u64>())
    }

    /// No later scrape's window begins long before `bucket`.
    pub(super) fn forget_before(&mut self, bucket: i64) {
        let floor = bucket.saturating_sub(MARGIN_BUCKETS);
        if self.floor.is_some_and(|before| before >= floor) {
            return;
        }
        let kept = self.buckets.split_off(&floor);
        self.earlier += self.buckets.values().sum::<u64>();
        self.buckets = kept;
        self.floor = Some(floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_still_counted() {
        let mut arrivals = Arrivals::default();
        for at in 0..3000 {
            arrivals.add(at, 2);
        }
        assert_eq!(arrivals.buckets.len(), MAX_BUCKETS);
        assert_eq!(arrivals.before(3000), Some(6000));
        assert_eq!(arrivals.before(2500), Some(5000));
        assert_eq!(arrivals.before(100), None);
        arrivals.forget_before(2900);
        arrivals.add(5, 1);
        assert_eq!(arrivals.before(3000), Some(6001));
        assert_eq!(arrivals.before(1200), None);
    }

    #[test]
    fn an_instant_before_1970_has_its_bucket() {
        assert_eq!(bucket(UnixMicros(-1)), -1);
        assert_eq!(bucket(UnixMicros(0)), 0);
        assert!(bucket(UnixMicros(i64::MIN)) < bucket(UnixMicros(i64::MAX)));
    }
}
