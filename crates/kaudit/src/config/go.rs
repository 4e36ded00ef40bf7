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
}
