//! `store:` of the configuration file.

use std::fmt;
use std::path::PathBuf;
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
    /// `s3://BUCKET[/PREFIX]`: the files are there, and the data directory holds those that were used last. Without it
    /// they are in the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<Location>,
    /// How that bucket is reached.
    #[serde(default, skip_serializing_if = "S3::is_default")]
    pub(crate) s3: S3,
    /// Bytes of a bucket's files that are kept in the data directory, at most. Default 20Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache_size: Option<Size>,
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

/// How a bucket is reached. Credentials are in the environment (`AWS_ACCESS_KEY_ID` and so on), in a file that is named
/// here, or given by the machine or the pod; never in this file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct S3 {
    /// `https://HOST[:PORT]` of a server that is not Amazon's. Default `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// The bucket's region. Default `AWS_REGION`, `AWS_DEFAULT_REGION`, then us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// Whether the bucket is named in the path and not in the host. Default: with an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path_style: Option<bool>,
    /// Whether an endpoint without TLS may be used.
    #[serde(default)]
    pub(crate) allow_http: bool,
    /// Authorities that may have signed the endpoint's certificate, PEM, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Credentials as the AWS command line keeps them; read again for each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) credentials_file: Option<PathBuf>,
    /// The section of that file. Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<String>,
    /// The writer whose store this kaudit goes on with, when that one is gone for good; its name is in the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) take_over_from: Option<String>,
}

impl S3 {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `s3://BUCKET[/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is no place for a store: write s3://BUCKET or s3://BUCKET/PREFIX");
        let rest = text.strip_prefix("s3://").ok_or_else(invalid)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let is_key = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=/".contains(&byte);
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let is_good = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(is_name)
            && prefix.len() <= 256
            && prefix.bytes().all(is_key)
            && (prefix.is_empty() || prefix.split('/').all(is_part));
        is_good
            .then(|| Self {
                bucket: bucket.to_owned(),
                prefix: prefix.to_owned(),
            })
            .ok_or_else(invalid)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "s3://{}{slash}{}", self.bucket, self.prefix)
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Location {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Location".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "s3://BUCKET or s3://BUCKET/PREFIX", "type": "string"})
    }
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
    fn a_place_is_a_bucket_and_a_prefix_that_cannot_leave_it() {
        for (text, again) in [
            ("s3://audit-prod", "s3://audit-prod"),
            ("s3://audit-prod/kaudit/eu_1/", "s3://audit-prod/kaudit/eu_1"),
        ] {
            let place: Location = text.parse().unwrap();
            assert_eq!(place.to_string(), again);
        }
        for bad in [
            "/var/lib",
            "s3://",
            "s3://Up",
            "s3://ab",
            "s3://abc//x",
            "s3://abc/../x",
            "s3://abc/x y",
        ] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
        let text = format!(
            "{HEAD}store:\n  location: s3://audit-prod/eu-1\n  s3: {{endpoint: 'https://minio:9000', pathStyle: true}}\n  \
             cacheSize: 5Gi\n"
        );
        let config = Config::parse(&text).unwrap();
        let written = serde_saphyr::to_string(&config).unwrap();
        assert_eq!(Config::parse(&written).unwrap(), config);
        let message = Config::parse(&format!("{HEAD}store:\n  s3: {{secretKey: x}}\n")).unwrap_err();
        assert!(message.contains("line 4"), "{message}");
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
