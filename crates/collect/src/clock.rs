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
