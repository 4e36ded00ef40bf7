//! `kaudit tail`: events as they come.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use clap::Args;
use kaudit_collect::Start;
use kaudit_history::{Mask, Reveal};

use super::ask::{self, Selection};
use super::query::write_one;
use super::server::Server;
use super::show::{self, Columns, Growing, TableStyle};
use super::terminal::{self, When};
use super::zone::Zone;
use super::{is_read, print, say};
use crate::asking::{self, Fold, Following, Found, Hit, Order, Question, Scanned, Wants, follow_input};
use crate::exit::{Exit, Failure};

/// A connection that broke is made again after so long, then twice as long, until the most.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Files with nothing new are looked at again after this time.
const IDLE: Duration = Duration::from_millis(100);

/// Flags of `tail`.
#[derive(Debug, Args)]
#[command(
    after_help = "Begins with what comes from now on, or with what there is since --since. Ends with --limit, when nobody \
                  reads any more, with standard input, or when it is interrupted",
    after_long_help = "Examples:
  # who is refused, as it happens
  kaudit tail 'responseStatus.code: 403'
  # what people change, from an hour ago on
  kaudit tail 'mutating: true' --humans --since 1h -o sentence
  # wait for the next deletion of a Secret
  kaudit tail --verb delete -r secrets --limit 1
  # the same on a node of the control plane, without a server
  kaudit tail --verb delete -r secrets --limit 1 --from /var/log/kubernetes/audit/audit.log"
)]
pub(super) struct Flags {
    #[command(flatten)]
    selection: Selection,
    /// Log files to follow in place of a server, over every rotation: audit logs and container logs; directories, which
    /// stand for their *.log; patterns; - for standard input
    #[arg(long, num_args = 1.., value_name = "FILE")]
    from: Vec<PathBuf>,
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

/// What `-o name` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    References,
    /// Records of files that grow and go have no numbers.
    AuditIds,
}

struct Printing {
    format: Format,
    names: Names,
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
            Format::Name if self.names == Names::AuditIds => out.extend_from_slice(&audit_id(&hit)),
            Format::Name => write_one(&mut out, &hit, show::Format::Name, &self.columns, &self.mask),
            Format::Raw => write_one(&mut out, &hit, show::Format::Raw, &self.columns, &self.mask),
        }
        self.put(&out);
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
    }

    fn end_of_block(&mut self, _: u64) -> bool {
        self.is_open &= is_read();
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

fn audit_id(hit: &Hit) -> Vec<u8> {
    let mut line = hit.event.view().audit_id().into_owned();
    line.push(b'\n');
    line
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
    let printing = Printing {
        format: flags.output,
        names: if flags.from.is_empty() {
            Names::References
        } else {
            Names::AuditIds
        },
        table: Growing::new(columns.clone(), style),
        columns,
        mask: Mask::without_key(if flags.reveal { Reveal::Yes } else { Reveal::No }),
        left: flags.limit,
        printed: Ok(()),
        is_open: true,
    };
    if !flags.from.is_empty() {
        return of_files(flags, printing);
    }
    of_server(flags, printing)
}

impl Flags {
    /// Prints the heads of columns.
    fn begin(&self, printing: &Printing) -> Result<(), Failure> {
        let head = match self.output {
            Format::Table | Format::Wide => printing.table.head(),
            Format::Csv if !self.no_headers => Columns::csv(printing.columns.heads()),
            _ => String::new(),
        };
        print(head.as_bytes()).map(drop)
    }
}

fn of_server(flags: &Flags, mut printing: Printing) -> Result<Exit, Failure> {
    let is_revealed = flags.reveal || flags.output == Format::Raw;
    let remote = flags.server.remote()?;
    flags.begin(&printing)?;
    let has_hidden = flags.selection.is_hidden_meant();
    let mut after = None;
    let filter = flags.selection.filter_without_times()?;
    if flags.selection.has_times() {
        let mut question = Question::new(flags.selection.filter_to_follow(ask::now())?)
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

fn of_files(flags: &Flags, mut printing: Printing) -> Result<Exit, Failure> {
    let question = Question::new(flags.selection.filter_without_times()?);
    if flags.from.iter().any(|path| path == Path::new("-")) {
        return of_input(flags, printing);
    }
    let start = match flags.selection.earliest()? {
        Some(earliest) => Start::Since(earliest),
        None if flags.selection.has_times() => Start::Beginning,
        None => Start::End,
    };
    let there = Question::new(flags.selection.filter_to_follow(ask::now())?);
    let mut following = Following::open(&flags.from, start, now())?;
    flags.begin(&printing)?;
    let mut tell = |text: std::fmt::Arguments<'_>| say(text);
    let mut wants = following.read(&there, &mut printing, now, &mut tell);
    while wants == Wants::More && is_read() {
        std::thread::sleep(IDLE);
        wants = following.read(&question, &mut printing, now, &mut tell);
    }
    printing.printed?;
    Ok(if following.has_gaps() {
        Exit::Partial
    } else {
        Exit::Done
    })
}

fn now() -> SystemTime {
    ask::system_time(kaudit_collect::now_micros())
}

fn of_input(flags: &Flags, mut printing: Printing) -> Result<Exit, Failure> {
    if flags.from.len() > 1 {
        for path in &flags.from {
            asking::refuse_a_filter(path)?;
        }
        return Err(Failure::usage(anyhow!(
            "--from: standard input, which is `-`, cannot be followed beside files"
        )));
    }
    let question = Question::new(flags.selection.filter()?);
    flags.begin(&printing)?;
    let strays = follow_input(std::io::stdin().lock(), &question, &mut printing)?;
    printing.printed?;
    ask::tell_strays(&Scanned {
        strays,
        ..Scanned::default()
    });
    Ok(Exit::Done)
}
