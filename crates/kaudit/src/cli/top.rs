//! `kaudit top`: the values of a field, the most frequent first.

use clap::Args;
use kaudit_query::Column;
use kaudit_query::accumulate::{Limits, Top};
use serde_json::json;

use super::ask::{self, From, Selection};
use super::show::{Columns, key_text};
use super::table::table_of;
use super::{print, say};
use crate::asking::{self, Fold, Found, Place, Question, Scanned, Values};
use crate::exit::{Exit, Failure};

/// Flags of `top`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  # which clients are refused most
  kaudit top user.username 'responseStatus.code: 403' --from audit.log
  # what fills the log
  kaudit top objectRef.resource --from audit.log -o csv")]
pub(super) struct Flags {
    /// The field, as in filters: user.username, verb, objectRef.resource, client, responseStatus.code ...
    #[arg(value_name = "FIELD")]
    field: String,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    from: From,
    /// At most so many values; 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: usize,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Exit with 1 when there is no event
    #[arg(short, long)]
    exit_status: bool,
}

/// How counts are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table
    #[default]
    Table,
    /// One document
    Json,
    /// Columns with commas
    Csv,
}

struct Counting {
    column: Column,
    top: Top,
}

impl Fold for Counting {
    fn found(&mut self, found: Found<'_>) {
        found.with_row(|row| self.top.add(&row.value(&self.column)));
    }
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let column = ask::column(&flags.field)?;
    let question = Question::new(flags.selection.filter_of(&flags.from)?);
    let most = if flags.limit == 0 { usize::MAX } else { flags.limit };
    let (counts, scanned) = match flags.from.place()? {
        Place::Server(remote) => asking::values(&remote, &question, &column, flags.limit)?,
        files @ Place::Files(_) => in_files(files, &question, &column, most)?,
    };
    match flags.output {
        Format::Table => {
            let share = |count: u64| format!("{:.1} %", percent(count, scanned.events));
            let rows: Vec<[String; 3]> = counts
                .entries
                .iter()
                .map(|(key, count)| [count.to_string(), share(*count), key_text(key, &column)])
                .collect();
            let heads = ["EVENTS", "SHARE", flags.field.as_str()];
            print(table_of(&heads, &rows).concat().as_bytes())?;
        }
        Format::Json => {
            let values: Vec<_> = counts
                .entries
                .iter()
                .map(|(key, count)| json!({"value": key_json(key), "events": count}))
                .collect();
            let document = json!({
                "field": column.name(),
                "events": scanned.events,
                "values": values,
                "distinct": counts.distinct,
                "beyond": counts.beyond,
                "other": counts.other,
                "exact": counts.is_exact,
            });
            print(format!("{document:#}\n").as_bytes())?;
        }
        Format::Csv => {
            let mut out = Columns::csv(["events", flags.field.as_str()].into_iter());
            for (key, count) in &counts.entries {
                let count = count.to_string();
                let value = key_text(key, &column);
                out.push_str(&Columns::csv([count.as_str(), value.as_str()].into_iter()));
            }
            print(out.as_bytes())?;
        }
    }
    ask::tell_strays(&scanned);
    if flags.output == Format::Table {
        let beyond = counts.beyond + counts.other;
        if beyond > 0 {
            say(format_args!(
                "{} of {} values; {beyond} counts are of others; --limit 0 for all",
                counts.entries.len(),
                counts.distinct
            ));
        }
    }
    if !counts.is_exact {
        say(format_args!(
            "note: there are more values than are told apart; the counts are the least that is true, {} are of others",
            counts.other
        ));
        return Ok(Exit::Partial);
    }
    let exit = ask::exit(scanned.events > 0, flags.exit_status);
    Ok(ask::whole(&scanned, exit))
}

fn in_files(
    files: Place,
    question: &Question,
    column: &Column,
    most: usize,
) -> Result<(Values, Scanned), Failure> {
    let (folds, scanned) = asking::scan(files, question, || Counting {
        column: column.clone(),
        top: Top::new(Limits::default()),
    })?;
    let mut all = Top::new(Limits::default());
    for fold in &folds {
        all.merge(&fold.top);
    }
    let counts = all.finish(most);
    let values = Values {
        is_exact: all.is_exact(),
        entries: counts
            .entries
            .into_iter()
            .map(|entry| (entry.key, entry.count))
            .collect(),
        distinct: u64::try_from(counts.distinct).unwrap_or(u64::MAX),
        beyond: counts.beyond,
        other: counts.other,
    };
    Ok((values, scanned))
}

/// A value for programs.
pub(super) fn key_json(key: &kaudit_query::accumulate::Key) -> serde_json::Value {
    use kaudit_query::accumulate::Key;

    match key {
        Key::Absent => serde_json::Value::Null,
        Key::Bool(value) => (*value).into(),
        Key::Number(number) => (*number).into(),
        Key::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
    }
}

pub(super) fn percent(part: u64, all: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share of which one digit is shown")]
    let (part, all) = (part as f64, all.max(1) as f64);
    part * 100.0 / all
}
