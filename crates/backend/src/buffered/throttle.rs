//! How often batches are delivered.

use std::time::{Duration, Instant};

/// A token bucket: it starts full.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "filled by field")]
pub struct Throttle {
    /// Batches a second.
    pub qps: f32,
    /// Batches at once.
    pub burst: u32,
}

/// A token bucket by reservation: every taker is told how long to wait.
#[derive(Debug)]
pub(super) struct Bucket {
    throttle: Throttle,
    tokens: f64,
    last: Instant,
}

impl Bucket {
    pub(super) fn full(throttle: Throttle, now: Instant) -> Self {
        Self {
            throttle,
            tokens: f64::from(throttle.burst),
            last: now,
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let qps = f64::from(self.throttle.qps);
        let refill = now.saturating_duration_since(self.last).as_secs_f64() * qps;
        self.tokens = (self.tokens + refill).min(f64::from(self.throttle.burst)) - 1.0;
        self.last = now;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.tokens / qps).unwrap_or(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_starts_full_and_refills() {
        let start = Instant::now();
        let mut bucket = Bucket::full(Throttle { qps: 2.0, burst: 2 }, start);
        assert_eq!(bucket.take(start), Duration::ZERO);
        assert_eq!(bucket.take(start), Duration::ZERO);
        assert_eq!(bucket.take(start), Duration::from_millis(500));
        assert_eq!(bucket.take(start + Duration::from_secs(2)), Duration::ZERO);
    }
}
