//! Days and hours in UTC.

/// Days since 1970-01-01 to a day of the proleptic Gregorian calendar, counted in eras of 400 years that
/// begin on 1 March.
pub(crate) const fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day since 1970-01-01.
pub(crate) const fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
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
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

pub(crate) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(crate) const MICROS_PER_HOUR: i64 = 3600 * MICROS_PER_SECOND;
pub(crate) const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// `"2006-01-02T15:04:05.000000Z"` with its quotes, for the years 0 to 9999.
pub(crate) fn time_text(micros: i64) -> [u8; 29] {
    let (year, month, day) = date_of(micros.div_euclid(MICROS_PER_DAY));
    let of_day = micros.rem_euclid(MICROS_PER_DAY);
    // Less than a day's seconds and than a million.
    let small = |number: i64| u32::try_from(number).unwrap_or_default();
    let (second, micro) = (
        small(of_day / MICROS_PER_SECOND),
        small(of_day % MICROS_PER_SECOND),
    );
    let year = small(year % 10_000);
    let mut text = *b"\"0000-00-00T00:00:00.000000Z\"";
    for (at, pair) in [
        (1, year / 100),
        (3, year % 100),
        (6, small(month)),
        (9, small(day)),
        (12, second / 3600),
        (15, second / 60 % 60),
        (18, second % 60),
        (21, micro / 10_000),
        (23, micro / 100 % 100),
        (25, micro % 100),
    ] {
        if let Some([tens, ones]) = text.get_mut(at..at + 2) {
            *tens += u8::try_from(pair / 10 % 10).unwrap_or_default();
            *ones += u8::try_from(pair % 10).unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_the_inverse_of_its_date() {
        for days in (-720_000..2_900_000).step_by(13) {
            let (year, month, day) = date_of(days);
            assert_eq!(days_of(year, month, day), days);
        }
        assert_eq!(date_of(days_of(2024, 2, 29)), (2024, 2, 29));
    }

    #[test]
    fn a_time_is_written_to_the_microsecond() {
        for (micros, text) in [
            (1_767_323_045_000_006, "\"2026-01-02T03:04:05.000006Z\""),
            (-1, "\"1969-12-31T23:59:59.999999Z\""),
            (253_402_300_799_123_456, "\"9999-12-31T23:59:59.123456Z\""),
            (-62_167_219_200_000_000, "\"0000-01-01T00:00:00.000000Z\""),
        ] {
            assert_eq!(std::str::from_utf8(&time_text(micros)).unwrap(), text);
        }
    }
}
