//! Times and durations as people write them.

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

/// The microseconds from `first` to `last`, both included, that a text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) first: i64,
    pub(super) last: i64,
    /// Whether it is a whole day, by which comparisons go.
    pub(super) is_day: bool,
}

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// `2026-11-20`, `2026-11-20T10:00`, with seconds, with a fraction, each with or without an offset (then it
/// is of `local_zone`); `now`, `now-1h30m`. A time of day that comes twice is the first of both; one that is left out
/// is as much later as the clock was put forward.
pub(super) fn instant(text: &str, now: i64, local_zone: &TimeZone) -> Option<Interval> {
    if let Some(offset) = text.strip_prefix("now") {
        let micros = match offset.strip_prefix('-') {
            Some(back) => now.checked_sub(duration(back)?)?,
            None if offset.is_empty() => now,
            None => now.checked_add(duration(offset.strip_prefix('+')?)?)?,
        };
        return Some(exactly(micros, 1));
    }
    if text.len() == 10 {
        let date: Date = text.parse().ok()?;
        let midnight = |date: Date| micros_of(date.at(0, 0, 0, 0), local_zone);
        let first = midnight(date)?;
        // A day on which the clock changes has not 24 hours.
        let last = match date.tomorrow() {
            Ok(next) => midnight(next)? - 1,
            Err(_) => first + DAY - 1,
        };
        return Some(Interval {
            first,
            last,
            is_day: true,
        });
    }
    let (local, offset) = zone(text)?;
    let unit = match local.len() {
        16 => 60 * SECOND,
        19 => SECOND,
        _ if local.as_bytes().get(19) == Some(&b'.') => 1,
        _ => return None,
    };
    let is_separated = local
        .as_bytes()
        .get(10)
        .is_some_and(|byte| matches!(byte, b'T' | b't' | b' '));
    let is_spelled = local
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b':' | b'T' | b't' | b' ' | b'.'));
    if !(is_separated && is_spelled) {
        return None;
    }
    let local: DateTime = local.parse().ok()?;
    let first = match offset {
        Some(seconds) => micros_of(local, &Offset::from_seconds(seconds).ok()?.to_time_zone())?,
        None => micros_of(local, local_zone)?,
    };
    Some(exactly(first, unit))
}

const fn exactly(first: i64, unit: i64) -> Interval {
    Interval {
        first,
        last: first + unit - 1,
        is_day: false,
    }
}

fn micros_of(local: DateTime, zone: &TimeZone) -> Option<i64> {
    Some(zone.to_timestamp(local).ok()?.as_microsecond())
}

/// The local time and the seconds east of UTC, if it says them.
fn zone(text: &str) -> Option<(&str, Option<i32>)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, Some(0)));
    }
    let at = text.len().checked_sub(6)?;
    let (local, zone) = text.split_at_checked(at)?;
    match zone.as_bytes() {
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if local.len() >= 16 => {
            let digit = |byte: &u8| byte.is_ascii_digit().then(|| i32::from(byte - b'0'));
            let (hours, minutes) = (digit(h1)? * 10 + digit(h2)?, digit(m1)? * 10 + digit(m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            Some((local, Some(if *sign == b'-' { -seconds } else { seconds })))
        }
        _ => Some((text, None)),
    }
}

/// How long each unit is, longest first.
pub(crate) const UNITS: &[(&str, i64)] = &[
    ("w", 7 * DAY),
    ("d", DAY),
    ("h", 3600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", 1000),
    ("us", 1),
];

/// Microseconds of a duration as filters have it: `1h30m`, `500ms`, `1.5s`, `-2s`. `None` when the text is none.
#[must_use]
pub fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit())?;
        let (whole, after) = rest.split_at_checked(digits)?;
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at_checked(after.find(|char: char| !char.is_ascii_digit())?)?,
            None => ("", after),
        };
        if whole.is_empty() || fraction.len() > 6 {
            return None;
        }
        let end = after
            .find(|char: char| char.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        let (_, length) = UNITS
            .iter()
            .find(|(name, _)| *name == unit || (unit == "µs" && *name == "us"))?;
        total = total.checked_add(whole.parse::<i64>().ok()?.checked_mul(*length)?)?;
        if !fraction.is_empty() {
            let scale = 10_i64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            total = total.checked_add(fraction.parse::<i64>().ok()?.checked_mul(*length)? / scale)?;
        }
        rest = after;
    }
    Some(sign * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_precision_they_are_written_with() {
        let day = 1_763_596_800_000_000;
        for (text, first, last) in [
            ("2025-11-20", day, day + DAY - 1),
            ("2025-11-20T00:00", day, day + 60 * SECOND - 1),
            ("2025-11-20T00:00:00Z", day, day + SECOND - 1),
            ("2025-11-20T02:00:00+02:00", day, day + SECOND - 1),
            ("2025-11-20 00:00:00.000001", day + 1, day + 1),
            ("now", 5, 5),
            ("now-1s", 5 - SECOND, 5 - SECOND),
            ("now+1m", 5 + 60 * SECOND, 5 + 60 * SECOND),
        ] {
            let interval = instant(text, 5, &TimeZone::UTC).unwrap();
            assert_eq!((interval.first, interval.last), (first, last), "{text}");
        }
        for text in [
            "",
            "2025-13-01",
            "2025-11-20T25:00",
            "now-",
            "nowish",
            "2025-11-2",
            "2025-11-20T00:00+2",
        ] {
            assert_eq!(instant(text, 5, &TimeZone::UTC), None, "{text}");
        }
    }

    /// The rules of central Europe, in the words of POSIX: no zone database is needed.
    #[test]
    fn times_without_an_offset_are_of_the_zone_that_is_given() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let utc = |text: &str| instant(text, 0, &TimeZone::UTC).unwrap().first;
        for (text, first, last) in [
            ("2026-01-15T12:00", "2026-01-15T11:00:00Z", "2026-01-15T11:01:00Z"),
            ("2026-07-15T12:00", "2026-07-15T10:00:00Z", "2026-07-15T10:01:00Z"),
            (
                "2026-07-15T12:00:00Z",
                "2026-07-15T12:00:00Z",
                "2026-07-15T12:00:01Z",
            ),
            (
                "2026-07-15T12:00-03:00",
                "2026-07-15T15:00:00Z",
                "2026-07-15T15:01:00Z",
            ),
            // Of 23, 25 and 24 hours.
            ("2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            ("2026-10-26", "2026-10-25T23:00:00Z", "2026-10-26T23:00:00Z"),
            // Left out, and there twice.
            ("2026-03-29T02:30", "2026-03-29T01:30:00Z", "2026-03-29T01:31:00Z"),
            ("2026-10-25T02:59", "2026-10-25T00:59:00Z", "2026-10-25T01:00:00Z"),
        ] {
            let interval = instant(text, 0, &berlin).unwrap();
            assert_eq!(
                (interval.first, interval.last + 1),
                (utc(first), utc(last)),
                "{text}"
            );
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, micros) in [
            ("500ms", Some(500_000)),
            ("1h30m", Some(5400 * SECOND)),
            ("1.5s", Some(1_500_000)),
            ("-2us", Some(-2)),
            ("1d", Some(DAY)),
            ("5", None),
            ("s", None),
            ("", None),
            ("99999999999999w", None),
        ] {
            assert_eq!(duration(text), micros, "{text}");
        }
    }
}
