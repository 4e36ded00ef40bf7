//! Instants as Go's `metav1.MicroTime` has them.

/// An instant with nanoseconds and the zone offset it was read in.
///
/// JSON prints it in UTC with six truncated fraction digits; the legacy line prints it in its own
/// zone with nanoseconds. [`MicroTime::ZERO`] (year 1, UTC) is Go's zero time: JSON `null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroTime {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub unix_seconds: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanos: u32,
    /// Offset of the zone from UTC in seconds, east positive.
    pub offset_seconds: i32,
}

impl MicroTime {
    /// Go's zero time, 0001-01-01T00:00:00Z.
    pub const ZERO: Self = Self {
        unix_seconds: -62_135_596_800,
        nanos: 0,
        offset_seconds: 0,
    };

    /// An instant in UTC.
    #[must_use]
    pub const fn from_unix(unix_seconds: i64, nanos: u32) -> Self {
        Self {
            unix_seconds,
            nanos,
            offset_seconds: 0,
        }
    }

    /// Whether this is year 1 exactly, in whatever zone.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.unix_seconds == Self::ZERO.unix_seconds && self.nanos == 0
    }
}

impl Default for MicroTime {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<std::time::SystemTime> for MicroTime {
    fn from(time: std::time::SystemTime) -> Self {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Self::from_unix(
                i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                after.subsec_nanos(),
            ),
            Err(before) => {
                let before = before.duration();
                let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self::from_unix(-seconds, 0),
                    nanos => Self::from_unix(-seconds - 1, 1_000_000_000 - nanos),
                }
            }
        }
    }
}
