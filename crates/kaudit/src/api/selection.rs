//! Which events a request means: the parameters that all questions have.

use std::collections::HashSet;
use std::time::Duration;

use kaudit_event::MicroTime;
use kaudit_query::{Column, Filter};
use kaudit_store::{Position, Scan};
use percent_encoding::percent_decode_str;

use super::problem::Problem;
use crate::asking::times;

/// A filter that is longer is not read.
const MAX_FILTER_BYTES: usize = 64 << 10;

/// Parameters of a request.
const MAX_PARAMETERS: usize = 100;

/// A question that says nothing may take so long.
pub(super) const BUDGET: Duration = Duration::from_secs(10);

/// Nor may any take longer.
const MAX_BUDGET: Duration = Duration::from_mins(1);

/// Fields of one question.
const MAX_FIELDS: usize = 20;

/// Whose events are kaudit's own.
pub(crate) const OWN: &str = "kaudit";

/// The query of a request's target, taken apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

/// What every question may say.
pub(crate) const COMMON: [&str; 7] = ["q", "since", "until", "cluster", "bodies", "hidden", "budget"];

impl Parameters {
    /// Takes a query apart; every name has to be one of `known` or, with `is_question`, of [`COMMON`].
    pub(crate) fn parse(query: Option<&str>, known: &[&str], is_question: bool) -> Result<Self, Problem> {
        let mut all = Vec::new();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let common: &[&str] = if is_question { &COMMON } else { &[] };
            if !known.iter().chain(common).any(|known| *known == name) {
                let names: Vec<&str> = common.iter().chain(known).copied().collect();
                return Err(Problem::bad(format!(
                    "there is no parameter `{name}` here; there are {}",
                    names.join(", ")
                )));
            }
            if all.len() >= MAX_PARAMETERS {
                return Err(Problem::bad(format!(
                    "there are more than {MAX_PARAMETERS} parameters"
                )));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let own = self.0.iter().filter(move |(own, _)| *own == name);
        own.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that is given once.
    pub(crate) fn one<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Problem> {
        let mut all = self.all(name);
        let first = all.next();
        match all.next() {
            Some(_) => Err(Problem::bad(format!("{name} is given twice"))),
            None => Ok(first),
        }
    }

    pub(crate) fn is_set(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name)? {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(other) => Err(Problem::bad(format!(
                "{name}: `{other}` is neither true nor false"
            ))),
        }
    }

    /// A number up to `most`.
    pub(crate) fn number(&self, name: &str, most: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.one(name)? else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| *number <= most);
        number
            .map(Some)
            .ok_or_else(|| Problem::bad(format!("{name}: `{text}` is no number from 0 to {most}")))
    }

    pub(crate) fn size(&self, name: &str, default: usize, most: usize) -> Result<usize, Problem> {
        let number = self.number(name, u64::try_from(most).unwrap_or(u64::MAX))?;
        Ok(number.map_or(default, |number| usize::try_from(number).unwrap_or(most)))
    }

    /// The fields that are named, at most twenty.
    pub(crate) fn fields(&self, name: &str) -> Result<Vec<Column>, Problem> {
        let mut seen = HashSet::new();
        let mut columns = Vec::new();
        for field in self.all(name) {
            let column = times::column(field).map_err(|text| Problem::bad(format!("{name}: {text}")))?;
            if seen.insert(column.name().into_owned()) {
                columns.push(column);
            }
        }
        if columns.len() > MAX_FIELDS {
            return Err(Problem::bad(format!(
                "more than {MAX_FIELDS} fields are asked for"
            )));
        }
        Ok(columns)
    }

    /// The filter in a parameter; everything without one.
    pub(crate) fn filter(&self, name: &str, now: MicroTime) -> Result<Filter, Problem> {
        let text = self.one(name)?.unwrap_or_default();
        if text.len() > MAX_FILTER_BYTES {
            return Err(Problem::bad(format!(
                "{name} has more than {MAX_FILTER_BYTES} bytes"
            )));
        }
        Filter::parse(text, now).map_err(|wrong| Problem::filter(name, wrong))
    }

    /// The scan that a question means.
    pub(crate) fn scan(&self, now: MicroTime) -> Result<Scan, Problem> {
        let mut filter = self.filter("q", now)?;
        if self.is_set("bodies")? {
            filter = filter.searching_bodies();
        }
        self.scan_of(filter, now)
    }

    /// The same with another filter.
    pub(crate) fn scan_of(&self, mut filter: Filter, now: MicroTime) -> Result<Scan, Problem> {
        for (name, op) in [("since", ">="), ("until", "<")] {
            if let Some(text) = self.one(name)? {
                let text = format!("stageTimestamp {op} {}", times::instant(text));
                let bound = Filter::parse(&text, now).map_err(|wrong| Problem::filter(name, wrong))?;
                filter = filter.and(bound);
            }
        }
        if !self.is_set("hidden")? {
            filter = filter.and(visible());
        }
        let mut scan = Scan::new(filter);
        let clusters: Vec<String> = self.all("cluster").map(str::to_owned).collect();
        if !clusters.is_empty() {
            scan = scan.of_clusters(clusters);
        }
        scan.time_budget = Some(self.budget()?.unwrap_or(BUDGET));
        Ok(scan)
    }

    pub(crate) fn budget(&self) -> Result<Option<Duration>, Problem> {
        let most = u64::try_from(MAX_BUDGET.as_millis()).unwrap_or(u64::MAX);
        Ok(self.number("budget", most)?.map(Duration::from_millis))
    }
}

/// Not what kaudit's own reads left.
pub(super) fn visible() -> Filter {
    // The text is always a filter.
    Filter::parse(&format!("not source = \"{OWN}\""), MicroTime::default())
        .unwrap_or_else(|_| Filter::everything())
}

fn decoded(text: &str) -> Result<String, Problem> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Problem::bad(format!("`{text}` is not UTF-8")))
}

/// A place between two events, in an address.
pub(crate) fn cursor_of(text: &str) -> Result<Position, Problem> {
    let parsed = text.rsplit_once('-').and_then(|(ts, seq)| {
        Some(Position {
            ts: ts.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    });
    parsed.ok_or_else(|| {
        Problem::bad(format!(
            "cursor: `{text}` is none; take `next` of an answer as it is"
        ))
    })
}

pub(crate) fn cursor(position: Position) -> String {
    format!("{}-{}", position.ts, position.seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Scan, Problem> {
        let now = MicroTime::from_unix(1_795_600_000, 0);
        Parameters::parse(Some(query), &["limit"], true)?.scan(now)
    }

    #[test]
    fn a_query_says_which_events() {
        let scan =
            parse("q=verb%3A+get&since=1h&until=2026-11-25T12:00:00Z&cluster=a&cluster=b%2Fc&hidden=true")
                .unwrap();
        assert_eq!(
            scan.filter.to_string(),
            "verb: get and stageTimestamp >= 2026-11-25T08:46:40.000000Z and \
             stageTimestamp < 2026-11-25T12:00:00.000000Z"
        );
        assert_eq!(scan.clusters, Some(vec!["a".to_owned(), "b/c".to_owned()]));
        assert_eq!(scan.time_budget, Some(BUDGET));
    }

    #[test]
    fn own_reads_are_left_out_unless_asked_for() {
        assert_eq!(parse("").unwrap().filter.to_string(), "not source: kaudit");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, detail) in [
            (
                "limits=5",
                "there is no parameter `limits` here; there are q, since, until, cluster, bodies, hidden, budget, limit",
            ),
            ("q=a&q=b", "q is given twice"),
            ("hidden=maybe", "hidden: `maybe` is neither true nor false"),
            ("budget=60001", "budget: `60001` is no number from 0 to 60000"),
            ("q=%ff", "`%ff` is not UTF-8"),
        ] {
            assert_eq!(parse(query).unwrap_err().detail(), detail);
        }
        assert!(
            parse("q=usrname:%20a")
                .unwrap_err()
                .detail()
                .starts_with("q: unknown field")
        );
    }

    #[test]
    fn a_cursor_is_read_back() {
        for ts in [-5, 0, 1_795_600_000_000_001] {
            let position = Position { ts, seq: 7 };
            assert_eq!(cursor_of(&cursor(position)).unwrap(), position);
        }
        assert!(cursor_of("x").is_err());
    }
}
