//! Go's `2006-01-02T15:04:05.000000Z07:00`.

use crate::MicroTime;

/// The instant of an RFC 3339 text with exactly six digits of fraction, after a point or a comma.
///
/// Source: k8s.io/apimachinery pkg/apis/meta/v1/micro_time.go; Go time, Parse.
pub(super) fn parse(text: &[u8]) -> Option<MicroTime> {
    let (date, zone) = text.split_at_checked(26)?;
    let number = |from: usize, length: usize| -> Option<i64> {
        let digits = date.get(from..from + length)?;
        digits.iter().try_fold(0, |number, digit| {
            digit
                .is_ascii_digit()
                .then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let is = |at: usize, expected: &[u8]| date.get(at).is_some_and(|byte| expected.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"T") && is(13, b":") && is(16, b":") && is(19, b".,")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let micros = number(20, 6)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let offset = offset(zone)?;
    let seconds = days_from_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(MicroTime::from_unix(seconds, u32::try_from(micros * 1000).ok()?))
}

/// Seconds east of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let hours = digit(h1)? * 10 + digit(h2)?;
            let minutes = digit(m1)? * 10 + digit(m2)?;
            if hours > 24 || minutes > 60 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, counted in eras of 400 years that begin on 1 March.
const fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(i64, u32)>) {
        let ours = parse(text.as_bytes()).map(|time| (time.unix_seconds, time.nanos));
        assert_eq!(ours, expected, "{text}");
    }

    #[test]
    fn times_are_read_as_go_reads_them() {
        check("1970-01-01T00:00:00.000001Z", Some((0, 1000)));
        check(
            "2026-03-01T12:00:00,123456+02:00",
            Some((1_772_359_200, 123_456_000)),
        );
        check(
            "0001-01-01T00:00:00.000000Z",
            Some((MicroTime::ZERO.unix_seconds, 0)),
        );
        check("2024-02-29T23:59:59.999999Z", Some((1_709_251_199, 999_999_000)));
        for wrong in [
            "2023-02-29T00:00:00.000000Z",
            "2026-03-01T12:00:00.123Z",
            "2026-03-01T12:00:60.000000Z",
            "2026-03-01t12:00:00.000000Z",
            "2026-03-01T12:00:00.000000z",
            "2026-03-01T12:00:00.0000000Z",
            "2026-13-01T12:00:00.000000Z",
            "",
        ] {
            check(wrong, None);
        }
    }
}
