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

    /// `YYYY-MM-DDTHH:MM:SS` in UTC, for the years 0 to 9999.
    #[must_use]
    pub fn utc_digits(&self) -> Option<[u8; 19]> {
        Civil::from_unix(self.unix_seconds).digits()
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

/// A date and time of day without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    year: i64,
    month: u8,
    day: u8,
    second_of_day: u32,
}

impl Civil {
    /// Seconds since 1970-01-01T00:00:00 to year, month and day of the proleptic Gregorian calendar,
    /// counted in eras of 400 years that begin on 1 March.
    pub(crate) fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let second_of_day = u32::try_from(seconds.rem_euclid(86_400)).unwrap_or_default();
        let days = days.saturating_add(719_468);
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: u8::try_from(month).unwrap_or_default(),
            day: u8::try_from(day).unwrap_or_default(),
            second_of_day,
        }
    }

    /// `YYYY-MM-DDTHH:MM:SS`, for the years 0 to 9999.
    pub(crate) fn digits(self) -> Option<[u8; 19]> {
        let year = u32::try_from(self.year).ok().filter(|year| *year <= 9999)?;
        let mut text = *b"0000-00-00T00:00:00";
        for (at, pair) in [
            (0, year / 100),
            (2, year % 100),
            (5, u32::from(self.month)),
            (8, u32::from(self.day)),
            (11, self.second_of_day / 3600),
            (14, self.second_of_day / 60 % 60),
            (17, self.second_of_day % 60),
        ] {
            text.get_mut(at..at + 2)?
                .copy_from_slice(&crate::encode::two_digits(pair));
        }
        Some(text)
    }

    /// Appends `YYYY-MM-DDTHH:MM:SS`; years outside 0 to 9999 as Go prints them.
    pub(crate) fn push(self, out: &mut Vec<u8>) {
        let two = |out: &mut Vec<u8>, value: u32| {
            out.extend([value / 10, value % 10].map(|digit| b'0' + u8::try_from(digit).unwrap_or_default()));
        };
        if self.year < 0 {
            out.push(b'-');
        }
        crate::encode::push_padded(out, self.year.unsigned_abs(), 4);
        out.push(b'-');
        two(out, u32::from(self.month));
        out.push(b'-');
        two(out, u32::from(self.day));
        out.push(b'T');
        two(out, self.second_of_day / 3600);
        out.push(b':');
        two(out, self.second_of_day / 60 % 60);
        out.push(b':');
        two(out, self.second_of_day % 60);
    }
}
