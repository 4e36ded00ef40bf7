//! `store:` of the configuration file.

use std::fmt;
use std::str::FromStr;

use kaudit_event::MicroTime;
use kaudit_query::Filter;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::go;
use super::size::Size;

/// The files in which role store keeps events.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Store {
    /// Events older than this go, by whole files. Without it they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention: Option<Age>,
    /// When all files together have more bytes, the oldest go, whatever `retention` and `keep` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_size: Option<Size>,
    /// Events that are kept longer than `retention`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keep: Vec<Keep>,
    /// Events that do not go while they are named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) holds: Vec<LegalHold>,
    /// An event waits so long in the journal, at most, before it is written to a file. Default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seal_after: Option<go::Duration>,
    /// Bytes of events that wait, at most; they take about twice as much memory. Default 96Mi, and at most a quarter of
    /// `journal.maxSize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tail_memory: Option<Size>,
}

/// Events that are kept longer than others.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Keep {
    /// What they are called.
    pub(crate) name: RuleName,
    /// Which events, as `kaudit query` takes it, for example `verb: delete`.
    pub(crate) filter: Rule,
    /// How long; longer than `retention`.
    #[serde(rename = "for")]
    pub(crate) age: Age,
}

/// Events that are kept until this is taken away.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LegalHold {
    /// What it is called.
    pub(crate) name: RuleName,
    /// Which events.
    pub(crate) filter: Rule,
}

/// A name that the manifest can list: 1 to 63 letters, digits, `-`, `_` or `.`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct RuleName(pub(crate) String);

impl<'de> Deserialize<'de> for RuleName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=63).contains(&name.len()) && name.bytes().all(is_plain) {
            Ok(Self(name))
        } else {
            Err(serde::de::Error::custom(format!(
                "`{name}` is not a name: write 1 to 63 letters, digits, `-`, `_` or `.`"
            )))
        }
    }
}

/// A filter that holds at any time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) text: String,
    pub(crate) filter: Filter,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = |seconds| Filter::parse(text, MicroTime::from_unix(seconds, 0));
        let filter = at(0).map_err(|wrong| {
            let wrong: Vec<String> = wrong
                .iter()
                .map(|diagnostic| {
                    let help = diagnostic.help.as_deref();
                    let help = help.map_or_else(String::new, |help| format!("; {help}"));
                    format!("{} [{}]{help}", diagnostic.message, diagnostic.code)
                })
                .collect();
            format!("filter `{text}`: {}", wrong.join("; "))
        })?;
        if at(1).as_ref() != Ok(&filter) {
            return Err(format!(
                "filter `{text}`: it stands for as long as it is in this file, so `now` has no meaning in it"
            ));
        }
        Ok(Self {
            text: text.to_owned(),
            filter,
        })
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl JsonSchema for Rule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Filter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "A filter as `kaudit query` takes it, without `now`", "type": "string"})
    }
}

/// How old something may become: `365d`, `26w`, or a duration as `36h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age(pub(crate) std::time::Duration);

const SECONDS_PER_DAY: u64 = 86_400;

/// Nothing is kept longer than this on purpose.
const MOST_DAYS: u64 = 100_000;

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is not an age: write for example `365d`, `26w` or `36h`");
        let days = [("d", 1), ("w", 7)]
            .into_iter()
            .find_map(|(unit, days)| Some((text.strip_suffix(unit)?, days)));
        let age = match days {
            Some((digits, days)) => {
                let count: u64 = digits.parse().map_err(|_| invalid())?;
                let count = count.checked_mul(days).filter(|days| *days <= MOST_DAYS);
                std::time::Duration::from_secs(count.ok_or_else(invalid)?.saturating_mul(SECONDS_PER_DAY))
            }
            None => text.parse::<go::Duration>().map_err(|_| invalid())?.0,
        };
        let is_sane = !age.is_zero() && age.as_secs() <= MOST_DAYS.saturating_mul(SECONDS_PER_DAY);
        is_sane.then_some(Self(age)).ok_or_else(invalid)
    }
}

impl Age {
    pub(crate) fn micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_days = self.0.as_secs().is_multiple_of(SECONDS_PER_DAY) && self.0.subsec_nanos() == 0;
        if is_days {
            write!(f, "{}d", self.0.as_secs() / SECONDS_PER_DAY)
        } else {
            go::Duration(self.0).fmt(f)
        }
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Age {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Age".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Days (365d), weeks (26w), or a duration such as 36h",
            "type": "string"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const HEAD: &str = "apiVersion: kaudit.dev/v1alpha1\nkind: Config\n";

    #[test]
    fn ages_are_days_weeks_or_durations() {
        for (text, again, hours) in [
            ("365d", "365d", 8760),
            ("2w", "14d", 336),
            ("36h", "36h0m0s", 36),
            ("48h", "2d", 48),
        ] {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.to_string().as_str(), age.0.as_secs() / 3600), (again, hours));
        }
        for bad in ["", "d", "1.5d", "-1d", "0d", "365", "1y", "100001d"] {
            assert!(bad.parse::<Age>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_kept_is_read_with_its_filters_and_written_again() {
        let text = format!(
            "{HEAD}store:\n  retention: 365d\n  maxSize: 500Gi\n  keep:\n  - {{name: deletes, filter: 'verb: delete', for: 1095d}}\n  \
             holds:\n  - {{name: case-17, filter: 'user.username: mallory'}}\n  sealAfter: 2m\n"
        );
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.store.keep.first().unwrap().age.to_string(), "1095d");
        let written = serde_saphyr::to_string(&config).unwrap();
        assert_eq!(Config::parse(&written).unwrap(), config);
    }

    #[test]
    fn a_filter_that_is_none_is_named_with_its_line() {
        for (line, expected) in [
            ("filter: 'vreb: delete', for: 3d", "KA-Q003"),
            ("filter: 'time >= now-1h', for: 3d", "`now` has no meaning"),
            ("filter: 'verb: delete', for: 3y", "is not an age"),
        ] {
            let text = format!("{HEAD}store:\n  keep:\n  - {{name: a, {line}}}\n");
            let message = Config::parse(&text).unwrap_err();
            assert!(
                message.contains("line 5") && message.contains(expected),
                "`{message}` does not say `{expected}` and the line"
            );
        }
        let message =
            Config::parse(&format!("{HEAD}store:\n  holds: [{{name: 'a,b', filter: ''}}]\n")).unwrap_err();
        assert!(message.contains("is not a name"), "{message}");
    }
}
