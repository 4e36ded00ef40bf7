//! The time of day.

use std::time::SystemTime;

/// The time of day.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this crate asks for the time"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Microseconds since 1970 in UTC, now.
#[must_use]
pub fn now_micros() -> i64 {
    match now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

/// A number from 0 up to 1, new each time.
pub(crate) fn jitter() -> f64 {
    // Without randomness the waits are a little more alike.
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}
