//! Where events come from, and how each source is doing.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kaudit_event::record::Transport;

/// The name of a cluster or of an apiserver in it: 1 to 253 letters, digits, `.`, `_`, `-`, beginning with a
/// letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name: write 1 to 253 letters, digits, `.`, `_` or `-`, the first one a letter or digit")]
pub struct InvalidName(String);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_valid = text.len() <= 253
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if is_valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName(text.chars().take(300).collect()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes a source: two streams of events that differ in any of it are two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "the four things that make a source")]
pub struct Origin {
    /// The cluster that the events are about.
    pub cluster: Name,
    /// The apiserver, or the gateway, that they come from.
    pub instance: Name,
    /// The way they came.
    pub transport: Way,
    /// What tells it from others of the same way: a path or pattern of files; empty where nothing does.
    pub path: String,
}

/// The way events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each is reported by its name")]
pub enum Way {
    /// Made in this process.
    Gateway,
    /// Posted by an audit webhook.
    Webhook,
    /// Read from log files.
    File,
    /// Sent by another kaudit.
    Forward,
    /// Made in this process, about requests to its own API.
    Own,
}

impl Way {
    /// The name in tables, metrics and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Own => "kaudit",
            Self::Webhook => "webhook",
            Self::File => "file",
            Self::Forward => "forward",
        }
    }

    pub(crate) const fn transport(self) -> Transport {
        match self {
            Self::Gateway => Transport::Gateway,
            Self::Own => Transport::Own,
            Self::Webhook => Transport::Webhook,
            Self::File => Transport::File,
            Self::Forward => Transport::Forward,
        }
    }
}

impl Origin {
    /// What stands in records as their source: the way, and the path if there is one.
    #[must_use]
    pub fn source(&self) -> String {
        if self.path.is_empty() {
            self.transport.as_str().to_owned()
        } else {
            format!("{}:{}", self.transport.as_str(), self.path)
        }
    }
}

/// One source, shared by those who feed it and those who report on it.
#[derive(Clone, Debug)]
pub struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Origin,
    /// As it stands in records.
    source: String,
    number: u32,
    counts: Mutex<SourceCounts>,
}

/// What came from one source since the process started, and when something came last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceCounts {
    /// Events that were kept.
    pub events: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    /// Events that were here already, and were not kept again.
    pub duplicates: u64,
    /// Events of which another copy with other content is here, as when one transport cuts bodies. Kept.
    pub other_copies: u64,
    /// Events whose auditID stands on another request too. Kept.
    pub audit_id_reused: u64,
    /// Pieces that were no event and lie in quarantine.
    pub quarantined: u64,
    /// Events that were larger than an event may be and were kept without bodies.
    pub oversized: u64,
    /// Times that events are known to be missing.
    pub gaps: u64,
    /// Records that the kaudit which forwards this source could not read any more, as it said itself. They may
    /// have been of any source that it forwards; they are counted where the records around them were from.
    pub missing: u64,
    /// Times that the source was told to come again later, by reason.
    pub held_back: BTreeMap<&'static str, u64>,
    /// When an event was taken in last, microseconds since 1970 in UTC.
    pub last_received_micros: Option<i64>,
    /// When the client certificate that was shown last ends, seconds since 1970.
    pub certificate_not_after: Option<i64>,
    /// The newest stage time of its events.
    pub newest_stage_micros: Option<i64>,
    rate: Rate,
}

/// Events per second over the last minute, in sixty buckets of a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rate {
    /// Second and count.
    buckets: std::collections::VecDeque<(i64, u64)>,
}

const RATE_WINDOW_SECONDS: i64 = 60;

impl Rate {
    fn add(&mut self, second: i64, events: u64) {
        match self.buckets.back_mut() {
            Some((last, count)) if *last >= second => *count += events,
            _ => self.buckets.push_back((second, events)),
        }
        while self
            .buckets
            .front()
            .is_some_and(|(first, _)| second.saturating_sub(*first) > RATE_WINDOW_SECONDS)
        {
            self.buckets.pop_front();
        }
    }

    fn events_in_window(&self, second: i64) -> u64 {
        self.buckets
            .iter()
            .filter(|(at, _)| (0..RATE_WINDOW_SECONDS).contains(&second.saturating_sub(*at)))
            .map(|(_, count)| count)
            .sum()
    }
}

impl SourceCounts {
    /// Events per second over the minute before `now_micros`.
    #[must_use]
    pub fn events_per_second(&self, now_micros: i64) -> f64 {
        let events = self.rate.events_in_window(now_micros.div_euclid(1_000_000));
        // A minute's events are far below 2^52.
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = events as f64 / 60.0;
        rate
    }

    pub(crate) fn kept(&mut self, events: u64, bytes: u64, now_micros: i64, newest_stage: Option<i64>) {
        self.events += events;
        self.bytes += bytes;
        if events > 0 {
            self.rate.add(now_micros.div_euclid(1_000_000), events);
        }
        self.came(now_micros, newest_stage);
    }

    pub(crate) fn came(&mut self, now_micros: i64, newest_stage: Option<i64>) {
        self.last_received_micros = self.last_received_micros.max(Some(now_micros));
        self.newest_stage_micros = self.newest_stage_micros.max(newest_stage);
    }
}

impl Source {
    pub(crate) fn new(origin: Origin, number: u32) -> Self {
        Self(Arc::new(Inner {
            source: origin.source(),
            origin,
            number,
            counts: Mutex::default(),
        }))
    }

    /// What makes it.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// As it stands in records.
    pub(crate) fn name(&self) -> &str {
        &self.0.source
    }

    /// Tells it from others of this process.
    pub(crate) fn number(&self) -> u32 {
        self.0.number
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> SourceCounts {
        self.counting().clone()
    }

    pub(crate) fn counting(&self) -> MutexGuard<'_, SourceCounts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down the end of the certificate that was shown.
    pub(crate) fn shown(&self, certificate_not_after: Option<i64>) {
        if certificate_not_after.is_some() {
            self.counting().certificate_not_after = certificate_not_after;
        }
    }

    /// Counts that the source was told to come again later.
    pub(crate) fn held_back(&self, reason: &'static str) {
        *self.counting().held_back.entry(reason).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_path_and_a_label_can_hold() {
        for good in ["a", "prod-eu-1", "10.0.0.1", "node_1.example.com", "0"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "a b",
            "ä",
            "a\n",
            "%41",
            &"a".repeat(254),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_rate_is_of_the_last_minute() {
        let mut counts = SourceCounts::default();
        for second in 0..120 {
            counts.kept(30, 100, second * 1_000_000, Some(second));
        }
        assert!((counts.events_per_second(119_000_000) - 30.0).abs() < f64::EPSILON);
        assert!((counts.events_per_second(149_000_000) - 15.0).abs() < f64::EPSILON);
        assert!(counts.events_per_second(500_000_000).abs() < f64::EPSILON);
        assert!(counts.rate.buckets.len() <= 62);
        assert_eq!(counts.newest_stage_micros, Some(119));
    }
}
