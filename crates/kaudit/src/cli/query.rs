//! `kaudit query`: the events that satisfy a filter.

use std::io::{self, Write as _};

use clap::Args;
use kaudit_history::{Mask, Reveal};
use serde_json::Value;

use super::ask::{self, From, Selection};
use super::show::{self, Chosen, Columns, Format, Rows, TableStyle};
use super::terminal::{self, When};
use super::zone::Zone;
use super::{print, say};
use crate::asking::{self, Fold, Found, Hit, Newest, Order, Place, Question, Scanned, Sequence};
use crate::exit::{Exit, Failure};

/// Events of a table, unless told otherwise.
const TABLE_ROWS: usize = 100;

/// Events that are put into order are held in memory, of this size together.
const HELD_BYTES: usize = 256 << 20;

/// Flags of `query`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --from the store of a running kaudit is asked. Tables show the newest 100 events; --limit 0 shows all. The formats for programs print all, ndjson, csv, \
                  name and raw in the order of the files unless --order is given. Secret values are masked except with \
                  --reveal and in -o raw. Exit code 1 with --exit-status: no event",
    after_long_help = EXAMPLES
)]
pub(super) struct Flags {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    from: From,
    /// How to print: table, wide, json, yaml, ndjson, csv, markdown, sentence, name, raw, jsonpath=TEMPLATE (of each
    /// event, as '{.user.username} {.verb}') or custom-columns=HEAD:PATH,...
    #[arg(short, long, value_parser = show::chosen, default_value = "table", value_name = "FORMAT")]
    output: Chosen,
    /// At most so many events; 0 for all
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Which come first
    #[arg(long, value_enum)]
    order: Option<Order>,
    /// Print only how many there are
    #[arg(long, conflicts_with_all = ["output", "limit", "order", "columns"])]
    count: bool,
    /// Columns of tables and csv, with commas: time,verb,code,user,object,from,agent,stage,took,ref or fields of the
    /// filter language
    #[arg(long, value_name = "NAMES")]
    columns: Option<String>,
    /// Leave the heads of columns out
    #[arg(long)]
    no_headers: bool,
    /// Show the values of Secrets and tokens
    #[arg(long)]
    reveal: bool,
    /// Exit with 1 when there is no event
    #[arg(short, long)]
    exit_status: bool,
    /// Colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

const EXAMPLES: &str = "Examples:
  # who deleted Secrets, and when
  kaudit query 'verb: delete AND objectRef.resource: secrets' --from audit.log
  # what went wrong for people in the last hour of a rotated, compressed log
  kaudit query 'responseStatus.code >= 400' --humans --from /var/log/kubernetes/audit/ --since 1h
  # from a pipe, for jq
  zcat audit-*.log.gz | kaudit query --verb create -r pods --from - -o ndjson | jq .user.username";

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let filter = flags.selection.filter_of(&flags.from)?;
    let mut zone = flags.selection.zone()?;
    if flags.output.format.is_for_programs() {
        zone = Zone::UTC;
    }
    let columns = match (&flags.columns, flags.output.format) {
        (Some(names), _) => Columns::parse(names, zone).map_err(Failure::usage)?,
        (None, Format::Wide) => Columns::wide(zone),
        (None, _) => Columns::usual(zone),
    };
    let mut question = Question::new(filter)
        .revealed(flags.reveal || flags.output.format == Format::Raw)
        .with_hidden(flags.selection.is_hidden_meant());
    if flags.count {
        return count(flags, &question);
    }
    let most = match flags.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if flags.output.format.is_for_programs() => usize::MAX,
        None => TABLE_ROWS,
    };
    let streams = matches!(
        flags.output.format,
        Format::Ndjson | Format::Csv | Format::Name | Format::Raw | Format::Jsonpath
    );
    if streams && most == usize::MAX && flags.order.is_none() {
        return stream(flags, &question, &columns);
    }
    question.order = flags.order.unwrap_or_default();
    question.most = Some(most).filter(|most| *most < usize::MAX);
    in_order(flags, &question, columns, most)
}

impl Flags {
    fn mask(&self) -> Mask {
        Mask::without_key(if self.reveal { Reveal::Yes } else { Reveal::No })
    }
}

struct Counting;

impl Fold for Counting {
    fn found(&mut self, _: Found<'_>) {}
}

fn count(flags: &Flags, question: &Question) -> Result<Exit, Failure> {
    let scanned = counted(flags.from.place()?, question)?;
    ask::tell_strays(&scanned);
    print(format!("{}\n", scanned.events).as_bytes())?;
    let exit = ask::exit(scanned.events > 0, flags.exit_status);
    Ok(ask::whole(&scanned, exit))
}

fn counted(place: Place, question: &Question) -> Result<Scanned, Failure> {
    match place {
        Place::Server(remote) => asking::count(&remote, question),
        files @ Place::Files(_) => Ok(asking::scan(files, question, || Counting)?.1),
    }
}

/// One event after the other, as they stand in the files.
struct Streaming<'a> {
    sequence: &'a Sequence<io::Stdout>,
    piece: Vec<u8>,
    chosen: &'a Chosen,
    columns: &'a Columns,
    mask: Mask,
}

impl Fold for Streaming<'_> {
    fn found(&mut self, found: Found<'_>) {
        if self.chosen.format == Format::Raw {
            self.piece.extend_from_slice(found.line);
            self.piece.push(b'\n');
            return;
        }
        // A line that is no event after all was counted as one, and is not printed.
        let Some(hit) = found.keep() else { return };
        match &self.chosen.template {
            Some(template) => {
                let line = template.line_of(&document(&hit, &self.mask));
                self.piece.extend_from_slice(line.as_bytes());
            }
            None => write_one(
                &mut self.piece,
                &hit,
                self.chosen.format,
                self.columns,
                &self.mask,
            ),
        }
    }

    fn end_of_block(&mut self, number: u64) -> bool {
        self.sequence.put(number, std::mem::take(&mut self.piece))
    }
}

/// An event as a program sees it.
fn document(hit: &Hit, mask: &Mask) -> Value {
    let text = asking::masked(hit.event.text(), &hit.event.view(), mask);
    // Bytes that are not UTF-8 have no place in a text.
    serde_json::from_str(&String::from_utf8_lossy(&text)).unwrap_or_default()
}

pub(super) fn write_one(out: &mut Vec<u8>, hit: &Hit, format: Format, columns: &Columns, mask: &Mask) {
    match format {
        Format::Raw => out.extend_from_slice(hit.event.text()),
        Format::Name => out.extend_from_slice(show::reference(&hit.row()).as_bytes()),
        Format::Csv => {
            let cells = columns.cells(&hit.row());
            out.extend_from_slice(Columns::csv(cells.iter().map(String::as_str)).as_bytes());
            return;
        }
        _ => out.extend_from_slice(&asking::masked(hit.event.text(), &hit.event.view(), mask)),
    }
    out.push(b'\n');
}

fn stream(flags: &Flags, question: &Question, columns: &Columns) -> Result<Exit, Failure> {
    let mut stdout = io::stdout();
    if flags.output.format == Format::Csv && !flags.no_headers {
        // What cannot be written shows at the next write, too.
        drop(stdout.write_all(Columns::csv(columns.heads()).as_bytes()));
    }
    let sequence = Sequence::new(stdout);
    let scanned = asking::scan(flags.from.place()?, question, || Streaming {
        sequence: &sequence,
        piece: Vec::new(),
        chosen: &flags.output,
        columns,
        mask: flags.mask(),
    });
    let scanned = scanned.map(|(_, scanned)| scanned);
    let written = sequence.finish();
    let scanned = scanned?;
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(Failure::unreachable(error)),
        _ => {}
    }
    ask::tell_strays(&scanned);
    let exit = ask::exit(scanned.events > 0, flags.exit_status);
    Ok(ask::whole(&scanned, exit))
}

struct Keeping(Newest);

impl Fold for Keeping {
    fn found(&mut self, found: Found<'_>) {
        self.0.add_found(found);
    }
}

fn in_order(flags: &Flags, question: &Question, columns: Columns, most: usize) -> Result<Exit, Failure> {
    let order = flags.order.unwrap_or(Order::Newest);
    let (folds, mut scanned) = asking::scan(flags.from.place()?, question, || {
        Keeping(Newest::new(order, most, HELD_BYTES))
    })?;
    let mut all = Newest::new(order, most, HELD_BYTES);
    for fold in folds {
        all.merge(fold.0);
    }
    let (hits, is_short) = all.finish();
    let mut out = Vec::new();
    match flags.output.format {
        Format::Table | Format::Wide => {
            let rows = rows_of(columns, &hits);
            let style = TableStyle {
                width: terminal::width(),
                has_heads: !flags.no_headers,
                has_colour: flags.color.is_on(),
            };
            out.extend_from_slice(rows.table(style).as_bytes());
        }
        Format::Jsonpath | Format::CustomColumns => {
            let events: Vec<Value> = hits.iter().map(|hit| document(hit, &flags.mask())).collect();
            if let Some(template) = &flags.output.template {
                out.extend_from_slice(template.all(&events, !flags.no_headers).as_bytes());
            }
        }
        Format::Markdown => out.extend_from_slice(rows_of(columns, &hits).markdown().as_bytes()),
        Format::Sentence => {
            for hit in &hits {
                out.extend_from_slice(show::sentence(&hit.row(), columns.zone()).as_bytes());
            }
        }
        Format::Json => show::write_list(&mut out, &hits, &flags.mask()).map_err(Failure::unreachable)?,
        Format::Yaml => show::write_yaml(&mut out, &hits, &flags.mask()).map_err(Failure::unreachable)?,
        Format::Csv => {
            if !flags.no_headers {
                out.extend_from_slice(Columns::csv(columns.heads()).as_bytes());
            }
            for hit in &hits {
                write_one(&mut out, hit, flags.output.format, &columns, &flags.mask());
            }
        }
        Format::Ndjson | Format::Name | Format::Raw => {
            for hit in &hits {
                write_one(&mut out, hit, flags.output.format, &columns, &flags.mask());
            }
        }
    }
    print(&out)?;
    ask::tell_strays(&scanned);
    let shown = u64::try_from(hits.len()).unwrap_or(u64::MAX);
    if is_short {
        say(format_args!(
            "note: {shown} of {}: more than {} MiB are not put into order; without --order, ndjson and raw print all",
            scanned.events,
            HELD_BYTES >> 20
        ));
        return Ok(Exit::Partial);
    }
    if flags.from.is_server() && hits.len() == most && !flags.output.format.is_for_programs() {
        // The server sent no more than were asked for.
        scanned.events = counted(flags.from.place()?, question)?.events;
    }
    tell(flags, &hits, scanned.events);
    let exit = ask::exit(scanned.events > 0, flags.exit_status);
    Ok(ask::whole(&scanned, exit))
}

/// What there is beside the table, for people.
fn tell(flags: &Flags, hits: &[Hit], events: u64) {
    if flags.output.format.is_for_programs() {
        return;
    }
    let shown = u64::try_from(hits.len()).unwrap_or(u64::MAX);
    if shown < events {
        say(format_args!("{shown} of {events} events; --limit 0 for all"));
    } else {
        let plural = if events == 1 { "event" } else { "events" };
        say(format_args!("{events} {plural}"));
    }
    if let Some(first) = hits
        .first()
        .filter(|_| matches!(flags.output.format, Format::Table | Format::Wide))
    {
        let reference = show::reference(&first.row());
        say(format_args!(
            "{}",
            format!("next: kaudit event {reference} {}", flags.from.arguments()).trim_end()
        ));
    }
}

fn rows_of(columns: Columns, hits: &[Hit]) -> Rows {
    let mut rows = Rows::new(columns);
    for hit in hits {
        rows.add(&hit.row());
    }
    rows
}
