//! Counts that a running kaudit makes itself.

use anyhow::anyhow;
use kaudit_query::Column;
use kaudit_query::accumulate::{Compare, Key};
use serde::Deserialize;
use serde_json::{Value, json};

use super::remote::{Parameters, Remote};
use super::scan::{Question, Scanned};
use crate::exit::Failure;

/// The values of a field, the most frequent first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Values {
    pub(crate) entries: Vec<(Key, u64)>,
    /// Different values.
    pub(crate) distinct: u64,
    /// Counts of values that are not shown.
    pub(crate) beyond: u64,
    /// Counts of values that were not told apart.
    pub(crate) other: u64,
    pub(crate) is_exact: bool,
}

/// What one selection has more or less of than another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comparison {
    /// Events of either.
    pub(crate) selection: u64,
    pub(crate) baseline: u64,
    pub(crate) is_exact: bool,
    pub(crate) differences: Vec<Difference>,
}

/// One value of a field in both.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) column: Column,
    pub(crate) key: Key,
    pub(crate) selection: u64,
    pub(crate) baseline: u64,
    pub(crate) selection_share: f64,
    pub(crate) baseline_share: f64,
    /// How many times as frequent; `None` for what the baseline does not have.
    pub(crate) lift: Option<f64>,
}

/// Fields whose values are few enough to say something.
pub(crate) const COMPARED_FIELDS: [&str; 15] = [
    "user.username",
    "actorKind",
    "verb",
    "objectRef.apiGroup",
    "objectRef.resource",
    "objectRef.subresource",
    "objectRef.namespace",
    "objectRef.name",
    "responseStatus.code",
    "responseStatus.reason",
    "decision",
    "deniedBy",
    "sourceIP",
    "client",
    "stage",
];

/// What was compared, what there is more of before what there is less of.
pub(crate) fn compared(all: &Compare, most: usize) -> Comparison {
    let (selection, baseline) = all.events();
    let (mut differences, less): (Vec<_>, Vec<_>) = all
        .finish(usize::MAX)
        .into_iter()
        .partition(|one| one.selection_share > one.baseline_share);
    differences.extend(less);
    differences.truncate(most);
    let differences = differences.into_iter().map(|one| Difference {
        column: one.column,
        key: one.key,
        selection: one.selection,
        baseline: one.baseline,
        selection_share: one.selection_share,
        baseline_share: one.baseline_share,
        lift: one.lift,
    });
    Comparison {
        selection,
        baseline,
        is_exact: all.is_exact(),
        differences: differences.collect(),
    }
}

impl Comparison {
    /// For programs.
    pub(crate) fn document(&self) -> Value {
        let rows = self.differences.iter().map(|one| {
            json!({
                "field": one.column.name(),
                "value": key_json(&one.key),
                "selection": one.selection,
                "baseline": one.baseline,
                "selectionShare": one.selection_share,
                "baselineShare": one.baseline_share,
                "lift": one.lift,
            })
        });
        json!({
            "selection": self.selection,
            "baseline": self.baseline,
            "exact": self.is_exact,
            "differences": rows.collect::<Vec<_>>(),
        })
    }
}

/// A value for programs.
pub(crate) fn key_json(key: &Key) -> Value {
    match key {
        Key::Absent => Value::Null,
        Key::Bool(value) => (*value).into(),
        Key::Number(number) => (*number).into(),
        Key::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
    }
}

/// What every answer says besides.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Looked {
    partial: bool,
    partial_reason: Option<String>,
}

impl Looked {
    /// Why something is missing in the answer, if it is.
    pub(crate) fn missing(self) -> Option<String> {
        self.partial.then(|| self.partial_reason.unwrap_or_default())
    }

    fn scanned(self, events: u64) -> Scanned {
        Scanned {
            events,
            partial: self.missing(),
            ..Scanned::default()
        }
    }
}

/// How many events satisfy a question.
pub(crate) fn count(remote: &Remote, question: &Question) -> Result<Scanned, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        count: u64,
        #[serde(flatten)]
        looked: Looked,
    }
    let answer: Answer = read(
        remote,
        remote.document("/api/v1/count", &Parameters::of(question))?,
    )?;
    Ok(answer.looked.scanned(answer.count))
}

/// The `most` most frequent values of a field, 0 for all.
pub(crate) fn values(
    remote: &Remote,
    question: &Question,
    column: &Column,
    most: usize,
) -> Result<(Values, Scanned), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        events: u64,
        facets: Vec<Facet>,
        #[serde(flatten)]
        looked: Looked,
    }
    #[derive(Deserialize)]
    struct Facet {
        values: Vec<One>,
        distinct: u64,
        beyond: u64,
        other: u64,
        exact: bool,
    }
    #[derive(Deserialize)]
    struct One {
        value: Value,
        events: u64,
    }
    let parameters = Parameters::of(question)
        .with("field", &column.name())
        .with("limit", &most.to_string());
    let answer: Answer = read(remote, remote.document("/api/v1/facets", &parameters)?)?;
    let facet = answer.facets.into_iter().next();
    let facet = facet.ok_or_else(|| odd(remote, anyhow!("it has no values")))?;
    let values = Values {
        entries: facet
            .values
            .into_iter()
            .map(|one| (key(one.value), one.events))
            .collect(),
        distinct: facet.distinct,
        beyond: facet.beyond,
        other: facet.other,
        is_exact: facet.exact,
    };
    Ok((values, answer.looked.scanned(answer.events)))
}

/// What the events of a question have more or less of than those of `baseline`.
pub(crate) fn compare(
    remote: &Remote,
    question: &Question,
    baseline: &str,
    columns: &[Column],
    most: usize,
) -> Result<(Comparison, Scanned), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        selection: u64,
        baseline: u64,
        exact: bool,
        differences: Vec<One>,
        #[serde(flatten)]
        looked: Looked,
    }
    #[derive(Deserialize)]
    struct One {
        field: String,
        value: Value,
        selection: u64,
        baseline: u64,
    }
    let mut parameters = Parameters::of(question)
        .with("with", baseline)
        .with("limit", &most.to_string());
    for column in columns {
        parameters = parameters.with("field", &column.name());
    }
    let answer: Answer = read(remote, remote.document("/api/v1/compare", &parameters)?)?;
    // The shares are made of the counts again: what is read of a fraction's digits is not always the same fraction.
    let differences = answer.differences.into_iter().map(|one| {
        let selection_share = share(one.selection, answer.selection);
        let baseline_share = share(one.baseline, answer.baseline);
        Ok(Difference {
            column: Column::from_name(&one.field)
                .ok_or_else(|| odd(remote, anyhow!("`{}` is no field", one.field)))?,
            key: key(one.value),
            selection: one.selection,
            baseline: one.baseline,
            selection_share,
            baseline_share,
            lift: (one.baseline > 0).then(|| selection_share / baseline_share),
        })
    });
    let comparison = Comparison {
        selection: answer.selection,
        baseline: answer.baseline,
        is_exact: answer.exact,
        differences: differences.collect::<Result<_, Failure>>()?,
    };
    Ok((comparison, answer.looked.scanned(answer.selection)))
}

fn share(count: u64, of: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "as the server divides them")]
    let (count, of) = (count as f64, of.max(1) as f64);
    count / of
}

fn read<T: serde::de::DeserializeOwned>(remote: &Remote, document: Value) -> Result<T, Failure> {
    serde_json::from_value(document).map_err(|error| odd(remote, anyhow!(error)))
}

fn odd(remote: &Remote, error: anyhow::Error) -> Failure {
    let context = format!(
        "{}: the answer is not understood: is it another version of kaudit?",
        remote.address()
    );
    Failure::unreachable(error.context(context))
}

fn key(value: Value) -> Key {
    match value {
        Value::Null => Key::Absent,
        Value::Bool(value) => Key::Bool(value),
        Value::Number(number) => number.as_i64().map_or(Key::Absent, Key::Number),
        Value::String(text) => Key::Text(text.into_bytes().into()),
        other => Key::Text(other.to_string().into_bytes().into()),
    }
}
