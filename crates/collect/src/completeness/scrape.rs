//! The few counters that matter, out of what an API server answers at `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Bounds, UnixMicros};

/// A larger answer is refused. That of a large cluster has some tens of megabytes.
pub const MAX_SCRAPE_BYTES: usize = 64 << 20;
/// The largest number that a float tells apart from its neighbour.
const MAX_COUNT: f64 = 9_007_199_254_740_992.0;
/// Names of backends are short; a longer one is cut.
const MAX_PLUGIN_BYTES: usize = 64;
/// Backends that are told apart.
const MAX_PLUGINS: usize = 64;

/// When a counter was read, as well as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAt {
    pub(super) earliest: UnixMicros,
    pub(super) latest: UnixMicros,
    pub(super) dated: Option<Dated>,
}

/// The moments of a request, and what the answer said of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dated {
    pub(super) asked: UnixMicros,
    pub(super) answered: UnixMicros,
    pub(super) date: UnixMicros,
}

impl ReadAt {
    /// The collector asked and was answered at these moments of its own clock, which may differ from the API
    /// server's by [`Bounds::clock_error`].
    #[must_use]
    pub fn by_collector(asked: UnixMicros, answered: UnixMicros) -> Self {
        Self {
            earliest: asked.min(answered),
            latest: asked.max(answered),
            dated: None,
        }
    }

    /// The answer's `Date` header, a whole second of the API server's clock, and when the collector asked and was
    /// answered, by a clock of its own that is never set. The header is written after the counters are read. No
    /// assumption is made about how far the two clocks are apart.
    #[must_use]
    pub fn by_server(date: UnixMicros, asked: UnixMicros, answered: UnixMicros) -> Self {
        let (asked, answered) = (asked.min(answered), asked.max(answered));
        let took = Duration::from_micros(answered.0.abs_diff(asked.0));
        Self {
            earliest: date.before(took),
            latest: date.after(Duration::from_secs(1)),
            dated: Some(Dated {
                asked,
                answered,
                date,
            }),
        }
    }

    /// How far the window may be off.
    pub(super) fn slack(self, bounds: &Bounds) -> Duration {
        // The server's own clock is off only by how far it is corrected at once, which is a small part of how
        // far two clocks may be apart.
        if self.dated.is_some() {
            bounds.clock_error / 8
        } else {
            bounds.clock_error
        }
    }
}

/// What an API server said of its audit events.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scrape {
    /// When.
    pub at: ReadAt,
    /// `apiserver_audit_event_total`: stage events made since the process started.
    pub events: u64,
    /// `apiserver_audit_requests_rejected_total`.
    pub rejected: u64,
    /// `apiserver_audit_error_total` by `plugin`.
    pub errors: BTreeMap<String, u64>,
    /// `process_start_time_seconds`.
    pub started: Option<UnixMicros>,
}

/// Why a text is no scrape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScrapeError {
    /// It is larger than [`MAX_SCRAPE_BYTES`].
    #[error("the metrics have {0} bytes, more than {MAX_SCRAPE_BYTES}")]
    TooLarge(usize),
    /// It has no `apiserver_audit_event_total`: this is no API server, or not all of its answer.
    #[error("the metrics have no apiserver_audit_event_total")]
    NoEventTotal,
    /// A value of a counter is no count.
    #[error("`{0}` has the value `{1}`, which is no count")]
    BadValue(&'static str, String),
}

const EVENTS: &str = "apiserver_audit_event_total";
const ERRORS: &str = "apiserver_audit_error_total";
const REJECTED: &str = "apiserver_audit_requests_rejected_total";
const STARTED: &str = "process_start_time_seconds";

impl Scrape {
    /// Reads the Prometheus text format, line by line; whatever it does not need it does not look at. Series
    /// of one counter are summed, errors by plugin.
    ///
    /// # Errors
    ///
    /// [`ScrapeError`] if the text is too large, has no event counter, or one whose value is no count.
    pub fn parse(text: &[u8], at: ReadAt) -> Result<Self, ScrapeError> {
        if text.len() > MAX_SCRAPE_BYTES {
            return Err(ScrapeError::TooLarge(text.len()));
        }
        let mut events = None;
        let mut scrape = Self {
            at,
            events: 0,
            rejected: 0,
            errors: BTreeMap::new(),
            started: None,
        };
        for line in text.split(|byte| *byte == b'\n') {
            // Nearly every line ends here.
            if !matches!(line.first(), Some(b'a' | b'p' | b' ' | b'\t')) {
                continue;
            }
            let line = line.trim_ascii();
            if let Some(rest) = series(line, EVENTS) {
                let sum: u64 = events.unwrap_or_default();
                events = Some(sum.saturating_add(count(EVENTS, rest.value)?));
            } else if let Some(rest) = series(line, ERRORS) {
                let plugin = plugin(rest.labels);
                let count = count(ERRORS, rest.value)?;
                if scrape.errors.len() < MAX_PLUGINS || scrape.errors.contains_key(&plugin) {
                    let sum = scrape.errors.entry(plugin).or_default();
                    *sum = sum.saturating_add(count);
                }
            } else if let Some(rest) = series(line, REJECTED) {
                scrape.rejected = scrape.rejected.saturating_add(count(REJECTED, rest.value)?);
            } else if let Some(rest) = series(line, STARTED) {
                scrape.started = Some(instant(rest.value)?);
            }
        }
        scrape.events = events.ok_or(ScrapeError::NoEventTotal)?;
        Ok(scrape)
    }
}

/// What follows the name of a series.
struct Series<'a> {
    labels: &'a [u8],
    value: &'a [u8],
}

/// The labels and the value of a line, if it is of the series `name`.
fn series<'a>(line: &'a [u8], name: &str) -> Option<Series<'a>> {
    let rest = line.strip_prefix(name.as_bytes())?;
    let (labels, rest) = match rest.first()? {
        b'{' => {
            let end = end_of_labels(rest)?;
            let (labels, rest) = rest.split_at_checked(end)?;
            (labels.get(1..)?, rest.get(1..)?)
        }
        b' ' | b'\t' => (&[][..], rest),
        _ => return None,
    };
    // A timestamp or an exemplar may follow.
    let value = rest
        .trim_ascii_start()
        .split(|byte| byte.is_ascii_whitespace())
        .next()?;
    Some(Series { labels, value })
}

/// Where the brace is that ends the labels; braces in values do not.
fn end_of_labels(text: &[u8]) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (index, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'}' if !is_quoted => return Some(index),
            _ => {}
        }
    }
    None
}

/// The value of the label `plugin`; empty without one.
fn plugin(labels: &[u8]) -> String {
    const NAME: &[u8] = b"plugin=\"";
    let mut rest = labels.trim_ascii_start();
    while !rest.is_empty() {
        let is_it = rest.starts_with(NAME);
        let Some(quote) = rest.iter().position(|byte| *byte == b'"') else {
            break;
        };
        let value = rest.get(quote + 1..).unwrap_or_default();
        let mut text = Vec::new();
        let mut is_escaped = false;
        let mut end = value.len();
        for (index, byte) in value.iter().enumerate() {
            match byte {
                _ if is_escaped => {
                    is_escaped = false;
                    text.push(if *byte == b'n' { b'\n' } else { *byte });
                }
                b'\\' => is_escaped = true,
                b'"' => {
                    end = index;
                    break;
                }
                _ => text.push(*byte),
            }
        }
        if is_it {
            text.truncate(MAX_PLUGIN_BYTES);
            return String::from_utf8_lossy(&text).into_owned();
        }
        rest = value
            .get(end + 1..)
            .unwrap_or_default()
            .trim_ascii_start()
            .strip_prefix(b",")
            .unwrap_or_default()
            .trim_ascii_start();
    }
    String::new()
}

fn number(name: &'static str, text: &[u8]) -> Result<f64, ScrapeError> {
    let bad = || {
        ScrapeError::BadValue(
            name,
            String::from_utf8_lossy(text.get(..40).unwrap_or(text)).into_owned(),
        )
    };
    let value: f64 = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(bad)?;
    if (0.0..=MAX_COUNT).contains(&value) {
        Ok(value)
    } else {
        Err(bad())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 2^53, as is checked"
)]
fn count(name: &'static str, text: &[u8]) -> Result<u64, ScrapeError> {
    Ok(number(name, text)? as u64)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "at most 2^53 seconds, and the cast saturates"
)]
fn instant(text: &[u8]) -> Result<UnixMicros, ScrapeError> {
    Ok(UnixMicros((number(STARTED, text)? * 1e6) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Scrape, ScrapeError> {
        Scrape::parse(
            text.as_bytes(),
            ReadAt::by_collector(UnixMicros(0), UnixMicros(0)),
        )
    }

    #[test]
    fn the_counters_of_an_api_server_are_read() {
        let scrape = parse(
            "# HELP apiserver_audit_event_total [ALPHA] Counter of audit events generated and sent to the audit backend.\n\
             # TYPE apiserver_audit_event_total counter\n\
             apiserver_audit_event_total 1.048576e+06\n\
             apiserver_audit_error_total{plugin=\"webhook\"} 3\n\
             apiserver_audit_error_total{plugin=\"log\"} 1 1700000000000\n\
             apiserver_audit_level_total{level=\"Metadata\"} 17\n\
             apiserver_audit_requests_rejected_total 2\n\
             process_start_time_seconds 1.79560012345e+09\n\
             workqueue_depth{name=\"x\"} 0\n",
        )
        .unwrap();
        assert_eq!((scrape.events, scrape.rejected), (1_048_576, 2));
        assert_eq!(
            scrape.errors,
            BTreeMap::from([("log".to_owned(), 1), ("webhook".to_owned(), 3)])
        );
        assert_eq!(scrape.started, Some(UnixMicros(1_795_600_123_450_000)));
    }

    #[test]
    fn series_are_summed_and_labels_are_taken_as_they_are() {
        let scrape = parse(
            "apiserver_audit_event_total{instance=\"a}\\\"b\",zone=\"1\"} 5 # {trace=\"x\"} 1\n  \
             apiserver_audit_event_total{} 6\r\n\
             apiserver_audit_error_total{ zone=\"plugin=\\\"no\" , plugin=\"a\\\\b\" } 7\n\
             apiserver_audit_error_total 8\n",
        )
        .unwrap();
        assert_eq!(scrape.events, 11);
        assert_eq!(
            scrape.errors,
            BTreeMap::from([(String::new(), 8), ("a\\b".to_owned(), 7)])
        );
    }

    #[test]
    fn what_is_no_count_is_refused() {
        assert_eq!(parse(""), Err(ScrapeError::NoEventTotal));
        assert_eq!(
            parse("apiserver_audit_event_total_created 1\n"),
            Err(ScrapeError::NoEventTotal)
        );
        for value in ["NaN", "+Inf", "-1", "x", "1e300"] {
            let text = format!("apiserver_audit_event_total {value}\n");
            let refused = matches!(parse(&text), Err(ScrapeError::BadValue(..)));
            assert!(refused, "{value}");
        }
        assert_eq!(
            parse("apiserver_audit_event_total{a=\"} 1\n"),
            Err(ScrapeError::NoEventTotal)
        );
    }

    #[test]
    fn a_text_that_is_too_large_is_refused_unread() {
        let text = vec![b'a'; MAX_SCRAPE_BYTES + 1];
        let at = ReadAt::by_collector(UnixMicros(0), UnixMicros(0));
        assert_eq!(Scrape::parse(&text, at), Err(ScrapeError::TooLarge(text.len())));
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut seed = 7_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        };
        const PIECES: [&[u8]; 9] = [
            EVENTS.as_bytes(),
            ERRORS.as_bytes(),
            STARTED.as_bytes(),
            b"{",
            b"}",
            b"plugin=\"",
            b"\\",
            b"\n",
            b" 1",
        ];
        for _ in 0..20_000 {
            let mut text = Vec::new();
            for _ in 0..next() % 12 {
                text.extend(PIECES[usize::try_from(next() % 9).unwrap()]);
            }
            drop(Scrape::parse(
                &text,
                ReadAt::by_collector(UnixMicros(0), UnixMicros(0)),
            ));
        }
    }
}
