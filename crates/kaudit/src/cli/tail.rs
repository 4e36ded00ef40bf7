//! `kaudit tail`: events as they come.

use std::time::Duration;

use clap::Args;
use kaudit_history::{Mask, Reveal};

use super::ask::{self, Selection};
use super::query::write_one;
use super::server::Server;
use super::show::{self, Columns, Growing, TableStyle};
use super::terminal::{self, When};
use super::zone::Zone;
use super::{print, say};
use crate::asking::{Fold, Found, Order, Question};
use crate::exit::{Exit, Failure};

/// A connection that broke is made again after so long, then twice as long, until the most.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Flags of `tail`.
#[derive(Debug, Args)]
#[command(
    after_help = "Begins with what comes from now on, or with what there is since --since. Ends with --limit, when nobody \
                  reads any more, or when it is interrupted",
    after_long_help = "Examples:
  # who is refused, as it happens
  kaudit tail 'responseStatus.code: 403'
  # what people change, from an hour ago on
  kaudit tail 'mutating: true' --humans --since 1h -o sentence
  # wait for the next deletion of a Secret
  kaudit tail --verb delete -r secrets --limit 1"
)]
pub(super) struct Flags {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    server: Server,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Columns of tables and csv, as of `kaudit query`
    #[arg(long, value_name = "NAMES")]
    columns: Option<String>,
    /// Leave the heads of columns out
    #[arg(long)]
    no_headers: bool,
    /// Show the values of Secrets and tokens
    #[arg(long)]
    reveal: bool,
    /// Colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

/// How events are printed one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// One event on a line
    Ndjson,
    /// Columns with commas
    Csv,
    /// One sentence each
    Sentence,
    /// References, for `kaudit event`
    Name,
    /// The bytes as they were received, nothing masked
    Raw,
}

struct Printing {
    format: Format,
    columns: Columns,
    table: Growing,
    mask: Mask,
    left: Option<u64>,
    printed: Result<(), Failure>,
    is_open: bool,
}

impl Fold for Printing {
    fn found(&mut self, found: Found<'_>) {
        if self.left == Some(0) {
            return;
        }
        let Some(hit) = found.keep() else { return };
        let mut out = Vec::new();
        match self.format {
            Format::Table | Format::Wide => out.extend_from_slice(self.table.line(&hit.row()).as_bytes()),
            Format::Sentence => {
                out.extend_from_slice(show::sentence(&hit.row(), self.columns.zone()).as_bytes())
            }
            Format::Ndjson => write_one(&mut out, &hit, show::Format::Ndjson, &self.columns, &self.mask),
            Format::Csv => write_one(&mut out, &hit, show::Format::Csv, &self.columns, &self.mask),
            Format::Name => write_one(&mut out, &hit, show::Format::Name, &self.columns, &self.mask),
            Format::Raw => write_one(&mut out, &hit, show::Format::Raw, &self.columns, &self.mask),
        }
        self.put(&out);
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
    }

    fn end_of_block(&mut self, _: u64) -> bool {
        self.wants_more()
    }
}

impl Printing {
    fn put(&mut self, out: &[u8]) {
        match super::write_out(out) {
            Ok(is_open) => self.is_open = is_open,
            Err(failure) => self.printed = Err(failure),
        }
    }

    const fn wants_more(&self) -> bool {
        self.is_open && self.printed.is_ok() && !matches!(self.left, Some(0))
    }
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let zone = match flags.output {
        Format::Ndjson | Format::Csv | Format::Name | Format::Raw => Zone::UTC,
        Format::Table | Format::Wide | Format::Sentence => flags.selection.zone()?,
    };
    let columns = match (&flags.columns, flags.output) {
        (Some(names), _) => Columns::parse(names, zone).map_err(Failure::usage)?,
        (None, Format::Wide) => Columns::wide(zone),
        (None, _) => Columns::usual(zone),
    };
    let style = TableStyle {
        width: terminal::width(),
        has_heads: !flags.no_headers,
        has_colour: flags.color.is_on(),
    };
    let mut printing = Printing {
        format: flags.output,
        table: Growing::new(columns.clone(), style),
        columns,
        mask: Mask::without_key(if flags.reveal { Reveal::Yes } else { Reveal::No }),
        left: flags.limit,
        printed: Ok(()),
        is_open: true,
    };
    let is_revealed = flags.reveal || flags.output == Format::Raw;
    let remote = flags.server.remote()?;
    let head = match flags.output {
        Format::Table | Format::Wide => printing.table.head(),
        Format::Csv if !flags.no_headers => Columns::csv(printing.columns.heads()),
        _ => String::new(),
    };
    print(head.as_bytes())?;

    let has_hidden = flags.selection.is_hidden_meant();
    let mut after = None;
    let filter = flags.selection.filter_without_times()?;
    if flags.selection.has_times() {
        let mut question = Question::new(flags.selection.filter()?)
            .revealed(is_revealed)
            .with_hidden(has_hidden);
        question.order = Order::Oldest;
        let scanned;
        (printing, scanned) = remote.scan(&question, printing)?;
        ask::tell_strays(&scanned);
        after = scanned.last;
    }
    let question = Question::new(filter)
        .revealed(is_revealed)
        .with_hidden(has_hidden);
    let mut pause = PAUSE;
    while printing.wants_more() {
        match remote.tail(&question, &mut after, &mut printing) {
            Ok(()) => pause = PAUSE,
            // What never worked will not work by itself.
            Err(failure) if after.is_none() => return Err(failure),
            Err(failure) if failure.exit != Exit::Unreachable => return Err(failure),
            Err(failure) => say(format_args!("note: {failure}; trying again")),
        }
        if printing.wants_more() {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    printing.printed?;
    Ok(Exit::Done)
}
