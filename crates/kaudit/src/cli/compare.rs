//! `kaudit compare`: what the events of one filter have more of than those of another.

use clap::Args;
use kaudit_query::accumulate::{Compare, Limits};
use kaudit_query::{Column, Filter};

use super::ask::{self, From, Selection};
use super::show::key_text;
use super::table::table_of;
use super::{Output, print, say};
use crate::asking::{self, Comparison, Fold, Found, Place, Question, Scanned};
use crate::exit::{Exit, Failure};

/// Flags of `compare`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  # what is special about refused requests
  kaudit compare 'responseStatus.code: 403' --from audit.log
  # this hour against the rest of the day
  kaudit compare 'responseStatus.code >= 500 and time >= now-1h' --with 'time >= now-1d' --from audit.log")]
pub(super) struct Flags {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    from: From,
    /// What they are compared with [default: all events]
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    with: String,
    /// At most so many differences
    #[arg(long, value_name = "COUNT", default_value_t = 15)]
    limit: usize,
    /// Fields to compare, with commas [default: those of who, what, where and how]
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    fields: Vec<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

struct Comparing<'a> {
    selection: &'a Filter,
    baseline: &'a Filter,
    compare: Compare,
}

impl Fold for Comparing<'_> {
    fn found(&mut self, found: Found<'_>) {
        found.with_row(|row| {
            if self.selection.matches(row) {
                self.compare.add_selection(row);
            }
            if self.baseline.matches(row) {
                self.compare.add_baseline(row);
            }
        });
    }
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let zone = flags.selection.zone()?;
    let selection = flags.selection.filter_of(&flags.from)?;
    // Of the same time, unless it says another.
    let baseline = flags
        .selection
        .within(ask::parse(&flags.with, &zone)?, &flags.from)?;
    let names: Vec<&str> = if flags.fields.is_empty() {
        asking::COMPARED_FIELDS.to_vec()
    } else {
        flags.fields.iter().map(String::as_str).collect()
    };
    let columns = names
        .iter()
        .map(|name| ask::column(name))
        .collect::<Result<Vec<Column>, _>>()?;
    let (found, scanned) = match flags.from.place()? {
        Place::Server(remote) => {
            let question = Question::new(selection).with_hidden(flags.selection.is_hidden_meant());
            asking::compare(&remote, &question, &baseline.to_string(), &columns, flags.limit)?
        }
        files @ Place::Files(_) => in_files(files, &selection, &baseline, columns, flags.limit)?,
    };
    let lift = |lift: Option<f64>| lift.map_or_else(|| "only here".to_owned(), |lift| format!("{lift:.1}x"));
    match flags.output {
        Output::Text => {
            let rows: Vec<[String; 5]> = found
                .differences
                .iter()
                .map(|one| {
                    [
                        one.column.name().into_owned(),
                        key_text(&one.key, &one.column, &zone),
                        format!("{:.1} %", one.selection_share * 100.0),
                        format!("{:.1} %", one.baseline_share * 100.0),
                        lift(one.lift),
                    ]
                })
                .collect();
            let heads = ["FIELD", "VALUE", "SELECTION", "BASELINE", "LIFT"];
            print(table_of(&heads, &rows).concat().as_bytes())?;
            say(format_args!(
                "{} events compared with {}",
                found.selection, found.baseline
            ));
        }
        Output::Json => {
            let document = found.document();
            print(format!("{document:#}\n").as_bytes())?;
        }
    }
    ask::tell_strays(&scanned);
    let exit = if found.is_exact { Exit::Done } else { Exit::Partial };
    Ok(ask::whole(&scanned, exit))
}

fn in_files(
    files: Place,
    selection: &Filter,
    baseline: &Filter,
    columns: Vec<Column>,
    most: usize,
) -> Result<(Comparison, Scanned), Failure> {
    let either = Filter::new(kaudit_query::Expr::any(vec![
        selection.expr().clone(),
        baseline.expr().clone(),
    ]));
    let (folds, scanned) = asking::scan(files, &Question::new(either), || Comparing {
        selection,
        baseline,
        compare: Compare::new(columns.clone(), Limits::default()),
    })?;
    let mut all = Compare::new(columns, Limits::default());
    for fold in &folds {
        all.merge(&fold.compare);
    }
    let comparison = asking::compared(&all, if most == 0 { usize::MAX } else { most });
    Ok((comparison, scanned))
}
