//! In which zone people see times and write them.

use anyhow::anyhow;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::exit::Failure;

/// Which zone is meant. What is printed for programs is in UTC, as it was recorded.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Zoned {
    /// Show times in UTC, and take those without an offset as UTC; this is the default
    #[arg(long, overrides_with = "local", help_heading = "Times")]
    utc: bool,
    /// Show times in the zone of TZ, or else of this machine, and take those without an offset as of it; formats for
    /// programs stay in UTC
    #[arg(long, overrides_with = "utc", help_heading = "Times")]
    local: bool,
}

impl Zoned {
    pub(super) fn zone(self) -> Result<Zone, Failure> {
        if self.local { Zone::local() } else { Ok(Zone::UTC) }
    }
}

/// A zone, with what the clock did in it over the years.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone(TimeZone);

impl Zone {
    pub(crate) const UTC: Self = Self(TimeZone::UTC);

    /// The zone that the environment's TZ names in the system's database, or else the machine's.
    fn local() -> Result<Self, Failure> {
        TimeZone::try_system().map(Self).map_err(|error| {
            let named = std::env::var_os("TZ").map_or_else(
                || "the machine's zone cannot be found".to_owned(),
                |name| {
                    let name = name.to_string_lossy();
                    format!("TZ=`{name}` is no zone that the system's database (/usr/share/zoneinfo) knows")
                },
            );
            Failure::usage(anyhow!(error).context(format!(
                "--local: {named}\n  help: set TZ to a name such as Europe/Berlin, install the package tzdata, or use --utc"
            )))
        })
    }

    /// For reading times.
    pub(crate) const fn rules(&self) -> &TimeZone {
        &self.0
    }

    fn is_utc(&self) -> bool {
        self.0 == TimeZone::UTC
    }

    /// `YYYY-MM-DD HH:MM:SS`, with the offset behind it where it is not UTC: an hour may come twice.
    pub(crate) fn to_second(&self, micros: i64) -> String {
        let format = if self.is_utc() {
            "%Y-%m-%d %H:%M:%S"
        } else {
            "%Y-%m-%d %H:%M:%S%:z"
        };
        self.zoned(micros).strftime(format).to_string()
    }

    /// RFC 3339 to the microsecond.
    pub(crate) fn instant(&self, micros: i64) -> String {
        if self.is_utc() {
            return kaudit_query::instant(micros);
        }
        self.zoned(micros)
            .strftime("%Y-%m-%dT%H:%M:%S.%6f%:z")
            .to_string()
    }

    /// RFC 3339 to the second.
    pub(crate) fn instant_to_second(&self, micros: i64) -> String {
        let format = if self.is_utc() {
            "%Y-%m-%dT%H:%M:%SZ"
        } else {
            "%Y-%m-%dT%H:%M:%S%:z"
        };
        self.zoned(micros).strftime(format).to_string()
    }

    /// What is left of an end when it is on the day on which `first` is.
    pub(crate) fn end_after(&self, first: i64, last: i64) -> String {
        let day = |micros| self.zoned(micros).date();
        let end = self.to_second(last);
        match end.split_once(' ') {
            Some((_, time)) if day(first) == day(last) => time.to_owned(),
            _ => end,
        }
    }

    /// Over a column of times.
    pub(crate) fn head(&self) -> String {
        match (self.is_utc(), self.0.iana_name()) {
            (true, _) => "TIME (UTC)".to_owned(),
            (false, Some(name)) => format!("TIME ({name})"),
            (false, None) => "TIME".to_owned(),
        }
    }

    /// Characters of what [`to_second`](Self::to_second) returns.
    pub(crate) fn width(&self) -> usize {
        if self.is_utc() { 19 } else { 25 }
    }

    fn zoned(&self, micros: i64) -> jiff::Zoned {
        let nearest = if micros < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        };
        let time = Timestamp::from_microsecond(micros).unwrap_or(nearest);
        time.to_zoned(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Zone {
        Zone(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())
    }

    fn micros(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn times_say_their_offset_where_it_is_not_utc() {
        for (time, utc, local) in [
            (
                "2026-01-15T11:00:00.5Z",
                "2026-01-15 11:00:00",
                "2026-01-15 12:00:00+01:00",
            ),
            (
                "2026-07-15T22:00:00Z",
                "2026-07-15 22:00:00",
                "2026-07-16 00:00:00+02:00",
            ),
            // The hour that comes twice.
            (
                "2026-10-25T00:30:00Z",
                "2026-10-25 00:30:00",
                "2026-10-25 02:30:00+02:00",
            ),
            (
                "2026-10-25T01:30:00Z",
                "2026-10-25 01:30:00",
                "2026-10-25 02:30:00+01:00",
            ),
        ] {
            assert_eq!(Zone::UTC.to_second(micros(time)), utc);
            assert_eq!(berlin().to_second(micros(time)), local);
            assert_eq!(berlin().to_second(micros(time)).len(), berlin().width());
        }
        let time = micros("2026-07-15T22:00:00.000007Z");
        assert_eq!(Zone::UTC.instant(time), "2026-07-15T22:00:00.000007Z");
        assert_eq!(berlin().instant(time), "2026-07-16T00:00:00.000007+02:00");
        assert_eq!(Zone::UTC.instant_to_second(time), "2026-07-15T22:00:00Z");
        assert_eq!(berlin().instant_to_second(time), "2026-07-16T00:00:00+02:00");
        assert_eq!(Zone::UTC.to_second(i64::MIN).get(..5), Some("-9999"));
    }

    #[test]
    fn the_end_of_a_day_is_that_of_the_zone() {
        let (first, last) = (micros("2026-07-15T21:30:00Z"), micros("2026-07-15T22:30:00Z"));
        assert_eq!(Zone::UTC.end_after(first, last), "22:30:00");
        assert_eq!(berlin().end_after(first, last), "2026-07-16 00:30:00+02:00");
    }
}
