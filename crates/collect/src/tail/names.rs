//! What rotated files are called, by lumberjack, logrotate and the kubelet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a file is compressed, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// The name of a rotated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backup {
    /// The active file it was.
    pub(super) active: String,
    /// Its own name without the suffix of a compression.
    pub(super) stem: String,
    pub(super) stamp: Stamp,
    pub(super) compression: Compression,
}

/// Where a name puts a file in the order of rotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// When it was rotated.
    Time(SystemTime),
    /// How many rotations ago.
    Number(u32),
}

/// The rotated file that has this name; `None` for a name that no rotation gives.
pub(super) fn backup(name: &str) -> Option<Backup> {
    let (stem, compression) = if let Some(stem) = name.strip_suffix(".gz") {
        (stem, Compression::Gzip)
    } else if let Some(stem) = name.strip_suffix(".zst") {
        (stem, Compression::Zstd)
    } else {
        (name, Compression::Plain)
    };
    let (active, stamp) = lumberjack(stem).or_else(|| suffixed(stem))?;
    Some(Backup {
        active,
        stem: stem.to_owned(),
        stamp,
        compression,
    })
}

const LUMBERJACK_STAMP: usize = "2006-01-02T15-04-05.000".len();

/// `audit-2006-01-02T15-04-05.000.log`, or without an extension.
fn lumberjack(stem: &str) -> Option<(String, Stamp)> {
    let with_extension = stem.rfind('.').and_then(|dot| {
        let (rest, extension) = stem.split_at_checked(dot)?;
        // Without an extension the last dot is the one of the milliseconds.
        lumberjack_parts(rest, extension)
    });
    with_extension.or_else(|| lumberjack_parts(stem, ""))
}

fn lumberjack_parts(rest: &str, extension: &str) -> Option<(String, Stamp)> {
    let (prefix, stamp) = rest.split_at_checked(rest.len().checked_sub(LUMBERJACK_STAMP)?)?;
    let prefix = prefix.strip_suffix('-')?;
    let (seconds, millis) = stamp.split_once('.')?;
    let fields: Vec<&str> = seconds.split(['-', 'T']).collect();
    let [year, month, day, hour, minute, second] = fields.as_slice() else {
        return None;
    };
    let is_shaped = [year.len(), month.len(), hour.len(), millis.len()] == [4, 2, 2, 3];
    let time = time([year, month, day, hour, minute, second])?;
    let millis = digits(millis)?;
    is_shaped.then(|| {
        let time = time + Duration::from_millis(u64::from(millis));
        (format!("{prefix}{extension}"), Stamp::Time(time))
    })
}

/// `audit.log.3`, `audit.log-20060102`, `audit.log-1136214245`, `0.log.20060102-150405`.
fn suffixed(stem: &str) -> Option<(String, Stamp)> {
    let cut = stem.rfind(|char: char| !char.is_ascii_digit())?;
    let (before, last) = stem.split_at_checked(cut)?;
    let last_digits = last.get(1..)?;
    let active_of = |before: &str, separators: &[char]| -> Option<String> {
        (!before.is_empty() && separators.iter().any(|mark| last.starts_with(*mark)))
            .then(|| before.to_owned())
    };
    // A date and a time of day.
    if let Some((name, date)) = before.rsplit_once(['.', '-'])
        && last.starts_with('-')
        && date.len() == 8
        && !name.is_empty()
        && let Some(time) = date_time(date, last_digits)
    {
        return Some((name.to_owned(), Stamp::Time(time)));
    }
    match last_digits.len() {
        1..=6 => Some((active_of(before, &['.'])?, Stamp::Number(digits(last_digits)?))),
        8 => Some((
            active_of(before, &['.', '-'])?,
            Stamp::Time(date_time(last_digits, "")?),
        )),
        10 if last_digits.starts_with("20") => {
            let (date, hour) = last_digits.split_at_checked(8)?;
            Some((
                active_of(before, &['.', '-'])?,
                Stamp::Time(date_time(date, hour)?),
            ))
        }
        10 => {
            let seconds = Duration::from_secs(u64::from(digits(last_digits)?));
            Some((active_of(before, &['.', '-'])?, Stamp::Time(UNIX_EPOCH + seconds)))
        }
        _ => None,
    }
}

fn date_time(date: &str, time_of_day: &str) -> Option<SystemTime> {
    let part = |text: &str, at: usize| -> Option<String> {
        match text.get(at..at + 2) {
            Some(part) => Some(part.to_owned()),
            None => (text.len() <= at).then(|| "00".to_owned()),
        }
    };
    let (year, month_day) = date.split_at_checked(4)?;
    time([
        year,
        &part(month_day, 0)?,
        &part(month_day, 2)?,
        &part(time_of_day, 0)?,
        &part(time_of_day, 2)?,
        &part(time_of_day, 4)?,
    ])
}

fn time(fields: [&str; 6]) -> Option<SystemTime> {
    let mut numbers = [0_u32; 6];
    for (number, field) in numbers.iter_mut().zip(fields) {
        *number = digits(field)?;
    }
    let [year, month, day, hour, minute, second] = numbers;
    let is_valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_valid {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + u64::from(hour * 3600 + minute * 60 + second);
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days from 1970 to a date of the Gregorian calendar.
fn days(year: u32, month: u32, day: u32) -> u64 {
    const BEFORE_MONTH: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days_before = |year: u32| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month_index = usize::try_from(month - 1).unwrap_or_default();
    let in_year =
        BEFORE_MONTH.get(month_index).copied().unwrap_or_default() + u32::from(is_leap && month > 2) + day
            - 1;
    u64::from((year - 1970) * 365 + leap_days_before(year) - leap_days_before(1970) + in_year)
}

fn digits(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> String {
        backup(name).map_or_else(
            || "-".to_owned(),
            |backup| match backup.stamp {
                Stamp::Number(number) => format!("{} {number}", backup.active),
                Stamp::Time(time) => {
                    let since = time.duration_since(UNIX_EPOCH).unwrap();
                    format!("{} @{}", backup.active, since.as_millis())
                }
            },
        )
    }

    #[test]
    fn names_of_rotated_files_are_known() {
        let table = [
            ("audit-2026-07-23T14-47-51.123.log", "audit.log @1784818071123"),
            ("audit-2026-07-23T14-47-51.123.log.gz", "audit.log @1784818071123"),
            ("audit-2026-07-23T14-47-51.123", "audit @1784818071123"),
            ("my-audit-1970-01-01T00-00-00.000.log", "my-audit.log @0"),
            ("audit-2000-03-01T00-00-00.000.log", "audit.log @951868800000"),
            ("audit.log.1", "audit.log 1"),
            ("audit.log.12.gz", "audit.log 12"),
            ("audit.log.3.zst", "audit.log 3"),
            ("audit.log-20260723", "audit.log @1784764800000"),
            ("audit.log-20260723.gz", "audit.log @1784764800000"),
            ("audit.log-2026072314", "audit.log @1784815200000"),
            ("audit.log-1784818071", "audit.log @1784818071000"),
            ("0.log.20260723-144751", "0.log @1784818071000"),
            ("0.log.20260723-144751.gz", "0.log @1784818071000"),
            ("audit.log-20260723-14", "audit.log @1784815200000"),
            ("audit.log", "-"),
            ("audit.log.gz", "-"),
            ("audit-2026-07-23.log", "-"),
            ("audit-2026-13-23T14-47-51.123.log", "-"),
            ("audit.log.20260723-144751.tmp", "-"),
            ("12", "-"),
            ("", "-"),
        ];
        for (name, expected) in table {
            assert_eq!(shown(name), expected, "{name}");
        }
    }
}
