//! Values as Go's flag package reads them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in Go's notation: `300ms`, `1.5h`, `2h45m`. Not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Duration(pub(crate) std::time::Duration);

const UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is not a duration: write for example `500ms`, `30s` or `1h30m`");
        if text == "0" {
            return Ok(Self::default());
        }
        let mut rest = text;
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(invalid)?;
            let (number, tail) = rest.split_at(digits);
            let unit_end = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
            seconds += number.parse::<f64>().map_err(|_| invalid())? * factor;
            rest = tail;
        }
        if text.is_empty() {
            return Err(invalid());
        }
        std::time::Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| invalid())
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            self.0.subsec_millis(),
        ) {
            (0, 0, s, 0) => write!(f, "{s}s"),
            (0, 0, 0, ms) => write!(f, "{ms}ms"),
            (0, m, s, 0) => write!(f, "{m}m{s}s"),
            (h, m, s, 0) => write!(f, "{h}h{m}m{s}s"),
            (h, m, s, ms) => write!(f, "{h}h{m}m{s}.{ms:03}s"),
        }
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "a Go duration such as 30s", "pattern": r"^([0-9.]+(ns|us|µs|ms|s|m|h))+$|^0$"})
    }
}

/// A bool as `strconv.ParseBool` reads it.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("`{text}` is not a bool: write `true` or `false`")),
    }
}

/// A whole number as `strconv.ParseInt` with base 0 reads it: `0x1f`, `0b11`, `0o17`, `017`, `1_000`.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let invalid = || format!("`{text}` is not a whole number");
    let (is_negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, text.get(1..)),
        [b'+', ..] => (false, text.get(1..)),
        _ => (false, Some(text)),
    };
    let lower = digits.unwrap_or_default().to_ascii_lowercase();
    let (base, digits) = [("0x", 16), ("0b", 2), ("0o", 8)]
        .iter()
        .find_map(|(prefix, base)| Some((*base, lower.strip_prefix(prefix)?)))
        .or_else(|| Some((8, lower.strip_prefix('0').filter(|rest| !rest.is_empty())?)))
        .unwrap_or((10, &lower));
    // Underscores stand between digits, or behind the base.
    let separated = digits.strip_prefix('_').filter(|_| base != 10).unwrap_or(digits);
    if separated
        .split('_')
        .any(|part| part.is_empty() || part.starts_with(['+', '-']))
    {
        return Err(invalid());
    }
    i128::from_str_radix(&digits.replace('_', ""), base)
        .ok()
        .and_then(|value| i64::try_from(if is_negative { -value } else { value }).ok())
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, millis: Option<u128>) {
        assert_eq!(
            text.parse::<Duration>().ok().map(|d| d.0.as_millis()),
            millis,
            "{text}"
        );
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        check("0", Some(0));
        check("0s", Some(0));
        check("300ms", Some(300));
        check("1.5h", Some(5_400_000));
        check("2h45m", Some(9_900_000));
        check("30", None);
        check("", None);
        check("s", None);
        check("1d", None);
        check("-1s", None);
        check("1..5s", None);
    }

    #[test]
    fn whole_numbers_are_read_as_go_reads_them() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(parse_int(text).ok(), expected, "{text}");
        };
        check("0", Some(0));
        check("-1", Some(-1));
        check("+7", Some(7));
        check("100", Some(100));
        check("0x1F", Some(31));
        check("0b101", Some(5));
        check("0o17", Some(15));
        check("017", Some(15));
        check("1_000", Some(1000));
        check("0x_1f", Some(31));
        check("9223372036854775807", Some(i64::MAX));
        check("-9223372036854775808", Some(i64::MIN));
        check("9223372036854775808", None);
        for text in [
            "", "-", "a", "1__0", "_1", "1_", "08", "1.5", "--1", "0x", "1k", " 1",
        ] {
            check(text, None);
        }
    }
}
