//! `kaudit top`: the values of a field, the most frequent first.

use std::collections::HashSet;

use clap::Args;
use kaudit_query::accumulate::{Key, Limits, Top};
use kaudit_query::{Column, Expr, Filter};
use serde_json::json;

use super::ask::{self, From, Selection};
use super::show::{Columns, key_text};
use super::table::table_of;
use super::zone::Zone;
use super::{print, say};
use crate::asking::{self, Fold, Found, Place, Question, Scanned, Values};
use crate::exit::{Exit, Failure};

/// Flags of `top`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  # which clients are refused most
  kaudit top user.username 'responseStatus.code: 403' --from audit.log
  # what fills the log
  kaudit top objectRef.resource --from audit.log -o csv
  # who bound roles in the last week and never before
  kaudit top user.username 'verb: create and objectRef.resource: clusterrolebindings' --first-seen 7d")]
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
    /// Only values that were not there before: so long ago, as 7d, or a time. What is before it has to be read, too
    #[arg(long, value_name = "TIME")]
    first_seen: Option<String>,
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

struct Counting<'a> {
    column: Column,
    since: Option<&'a Filter>,
    top: Top,
    before: Top,
}

impl Fold for Counting<'_> {
    fn found(&mut self, found: Found<'_>) {
        found.with_row(|row| {
            let is_before = self.since.is_some_and(|since| !since.matches(row));
            let top = if is_before {
                &mut self.before
            } else {
                &mut self.top
            };
            top.add(&row.value(&self.column));
        });
    }
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let zone = flags.selection.zone()?;
    let column = ask::column(&flags.field)?;
    let (counts, scanned) = match &flags.first_seen {
        None => {
            let filter = flags.selection.filter_of(&flags.from)?;
            let question = Question::new(filter).with_hidden(flags.selection.is_hidden_meant());
            values(flags, &question, &column, flags.limit)?
        }
        Some(time) => first_seen(flags, time, &column)?,
    };
    match flags.output {
        Format::Table => {
            let share = |count: u64| format!("{:.1} %", percent(count, scanned.events));
            let rows: Vec<[String; 3]> = counts
                .entries
                .iter()
                .map(|(key, count)| [count.to_string(), share(*count), key_text(key, &column, &zone)])
                .collect();
            let heads = ["EVENTS", "SHARE", flags.field.as_str()];
            print(table_of(&heads, &rows).concat().as_bytes())?;
        }
        Format::Json => {
            let values: Vec<_> = counts
                .entries
                .iter()
                .map(|(key, count)| json!({"value": asking::key_json(key), "events": count}))
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
                let value = key_text(key, &column, &Zone::UTC);
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

/// The `most` most frequent values, 0 for all.
fn values(
    flags: &Flags,
    question: &Question,
    column: &Column,
    most: usize,
) -> Result<(Values, Scanned), Failure> {
    match flags.from.place()? {
        Place::Server(remote) => asking::values(&remote, question, column, most),
        files @ Place::Files(_) => {
            let most = if most == 0 { usize::MAX } else { most };
            let (counting, scanned) = in_files(files, question, column, None)?;
            Ok((counted(&counting.top, most), scanned))
        }
    }
}

/// The values since `time` that there were none of before.
fn first_seen(flags: &Flags, time: &str, column: &Column) -> Result<(Values, Scanned), Failure> {
    let filter = flags.selection.filter()?;
    let since = ask::since("--first-seen", time, &flags.selection.zone()?)?;
    let hidden = |question: Question| question.with_hidden(flags.selection.is_hidden_meant());
    let (mut new, old, scanned) = match flags.from.place()? {
        Place::Server(remote) => {
            let of = |filter: Filter| asking::values(&remote, &hidden(Question::new(filter)), column, 0);
            let (new, scanned) = of(filter.clone().and(since.clone()))?;
            let before = Filter::new(Expr::Not(Box::new(since.expr().clone())));
            let (old, before) = of(filter.and(before))?;
            let partial = scanned.partial.or(before.partial);
            (new, old, Scanned { partial, ..scanned })
        }
        files @ Place::Files(_) => {
            let (counting, mut scanned) = in_files(files, &Question::new(filter), column, Some(&since))?;
            scanned.events = counting.top.total();
            let old = counted(&counting.before, usize::MAX);
            (counted(&counting.top, usize::MAX), old, scanned)
        }
    };
    let known: HashSet<&Key> = old.entries.iter().map(|(key, _)| key).collect();
    new.entries.retain(|(key, _)| !known.contains(key));
    new.distinct = u64::try_from(new.entries.len()).unwrap_or(u64::MAX);
    // What a server did not tell of is not known to be new.
    new.is_exact &= old.is_exact && old.beyond == 0 && new.beyond == 0;
    if flags.limit > 0 {
        let hidden = new.entries.split_off(flags.limit.min(new.entries.len()));
        new.beyond = hidden.iter().map(|(_, count)| count).sum();
    }
    Ok((new, scanned))
}

/// Counts, those of before `since` by themselves.
fn in_files<'a>(
    files: Place,
    question: &Question,
    column: &Column,
    since: Option<&'a Filter>,
) -> Result<(Counting<'a>, Scanned), Failure> {
    let make = || Counting {
        column: column.clone(),
        since,
        top: Top::new(Limits::default()),
        before: Top::new(Limits::default()),
    };
    let (folds, scanned) = asking::scan(files, question, make)?;
    let mut all = make();
    for fold in &folds {
        all.top.merge(&fold.top);
        all.before.merge(&fold.before);
    }
    Ok((all, scanned))
}

fn counted(top: &Top, most: usize) -> Values {
    let counts = top.finish(most);
    Values {
        is_exact: top.is_exact(),
        entries: counts
            .entries
            .into_iter()
            .map(|entry| (entry.key, entry.count))
            .collect(),
        distinct: u64::try_from(counts.distinct).unwrap_or(u64::MAX),
        beyond: counts.beyond,
        other: counts.other,
    }
}

pub(super) fn percent(part: u64, all: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share of which one digit is shown")]
    let (part, all) = (part as f64, all.max(1) as f64);
    part * 100.0 / all
}
