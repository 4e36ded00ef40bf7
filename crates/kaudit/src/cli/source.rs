//! `kaudit source`: where a running kaudit collects events from.

use anyhow::Context as _;
use clap::Subcommand;
use http::Method;
use serde_json::Value;

use super::server::Server;
use super::table::table_of;
use super::zone::{Zone, Zoned};
use super::{Output, print};
use crate::api::Sources;
use crate::collection::{ForwardRow, JournalRow, SourceRow};
use crate::exit::{Exit, Failure};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// One line for each source: its rate, its lag, its last event, and what is wrong
    List {
        #[command(flatten)]
        server: Server,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Everything that is known of each source, the journal and the quarantine; exit code 1 when something is wrong
    Status {
        /// Only sources of this cluster, or of this cluster and instance
        #[arg(value_name = "CLUSTER[/INSTANCE]")]
        only: Option<String>,
        #[command(flatten)]
        server: Server,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        #[command(flatten)]
        zone: Zoned,
    },
}

pub(super) fn run(command: Command) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .map_err(Failure::unreachable)?;
    runtime.block_on(async {
        match command {
            Command::List { server, output } => list(&server, output).await,
            Command::Status {
                only,
                server,
                output,
                zone,
            } => status(&server, only.as_deref(), output, &zone.zone()?).await,
        }
    })
}

async fn sources(server: &Server) -> Result<Sources, Failure> {
    let answer = server.ask(Method::GET, "/api/v1/sources", String::new()).await?;
    serde_json::from_slice(&answer).map_err(Failure::unreachable)
}

fn json<T: serde::Serialize>(value: &T) -> Result<Exit, Failure> {
    let value: Value = serde_json::to_value(value).map_err(Failure::unreachable)?;
    print(format!("{value:#}\n").as_bytes())
}

async fn list(server: &Server, output: Output) -> Result<Exit, Failure> {
    let sources = sources(server).await?;
    if output == Output::Json {
        return json(&sources);
    }
    let now_micros = kaudit_collect::now_micros();
    let cells: Vec<[String; 8]> = sources
        .items
        .iter()
        .map(|row| {
            [
                format!("{}/{}", row.cluster, row.instance),
                row.transport.clone(),
                rate(row.events_per_second),
                row.events.to_string(),
                row.lag_micros.map_or_else(dash, span),
                row.last_event_micros.map_or_else(dash, |at| ago(now_micros, at)),
                (row.gaps + row.quarantined).to_string(),
                row.problem.clone().unwrap_or_else(|| "ok".to_owned()),
            ]
        })
        .collect();
    let heads = [
        "SOURCE",
        "TRANSPORT",
        "RATE",
        "EVENTS",
        "LAG",
        "LAST EVENT",
        "MISSING",
        "STATE",
    ];
    let text: String = table_of(&heads, &cells).concat();
    print(text.as_bytes())
}

async fn status(server: &Server, only: Option<&str>, output: Output, zone: &Zone) -> Result<Exit, Failure> {
    let mut sources = sources(server).await?;
    if let Some(only) = only {
        let (cluster, instance) = only.split_once('/').map_or((only, None), |(c, i)| (c, Some(i)));
        sources
            .items
            .retain(|row| row.cluster == cluster && instance.is_none_or(|instance| row.instance == instance));
    }
    let is_good = sources.journal.state == "ready"
        && sources.items.iter().all(|row| row.problem.is_none())
        && sources.forward.as_ref().is_none_or(|row| row.problem.is_none());
    let exit = if is_good { Exit::Done } else { Exit::No };
    if output == Output::Json {
        json(&sources)?;
        return Ok(exit);
    }
    let now_micros = kaudit_collect::now_micros();
    let mut text = String::new();
    for row in &sources.items {
        text += &described(row, now_micros, zone);
    }
    text += &journal(&sources.journal);
    if let Some(row) = &sources.forward {
        text += &forward(row, now_micros);
    }
    for signal in &sources.signals {
        text += &format!(
            "signal: Audit-ID {} reused with different content, {}/{}, {}\n",
            printable(&signal.audit_id),
            signal.cluster,
            signal.instance,
            zone.instant_to_second(signal.at_micros)
        );
    }
    print(text.as_bytes())?;
    Ok(exit)
}

/// One source over several lines.
fn described(row: &SourceRow, now_micros: i64, zone: &Zone) -> String {
    let mut text = format!(
        "{}/{} by {}{}\n",
        row.cluster,
        row.instance,
        row.transport,
        if row.path.is_empty() {
            String::new()
        } else {
            format!(" from {}", row.path)
        }
    );
    let mut line = |key: &str, value: String| text += &format!("  {key:<14}{value}\n");
    line(
        "state",
        row.problem.as_deref().map_or_else(|| "ok".to_owned(), printable),
    );
    line(
        "events",
        format!(
            "{}, {} over the last minute",
            row.events,
            rate(row.events_per_second)
        ),
    );
    if let Some(at) = row.last_event_micros {
        let lag = row
            .lag_micros
            .map_or_else(String::new, |lag| format!(", it came {} later", span(lag)));
        line(
            "last event",
            format!("{} ({}){lag}", zone.instant_to_second(at), ago(now_micros, at)),
        );
    }
    let mut counts = vec![
        (row.duplicates, "here already"),
        (row.other_copies, "also here with other content"),
        (row.audit_id_reused, "with an Audit-ID of another request"),
        (row.quarantined, "in quarantine"),
        (row.oversized, "without bodies, too large"),
        (row.gaps, "missing"),
    ];
    counts.retain(|(count, _)| *count > 0);
    for (count, what) in counts {
        line("", format!("{count} {what}"));
    }
    for (reason, count) in &row.held_back {
        line("held back", format!("{count} times: {reason}"));
    }
    for (key, value) in &row.tail {
        line(key, value.clone());
    }
    for finding in &row.completeness {
        line("completeness", finding.clone());
    }
    if let Some(end) = row.certificate_not_after {
        let days = end.saturating_sub(now_micros / 1_000_000) / 86_400;
        line(
            "certificate",
            format!(
                "ends {} (in {days} days)",
                zone.instant_to_second(end.saturating_mul(1_000_000))
            ),
        );
    }
    text
}

fn journal(row: &JournalRow) -> String {
    format!(
        "journal\n  {:<14}{}\n  {:<14}{} records in {} segments, {} MiB\n  {:<14}{} failed, {} corrupt, {} given up \
         for want of room\n  {:<14}{} files, {} bytes\n",
        "state",
        row.state,
        "kept",
        row.records,
        row.segments,
        row.bytes >> 20,
        "groups",
        row.failures,
        row.corrupt_records,
        row.expired_records,
        "quarantine",
        row.quarantine_files,
        row.quarantine_bytes
    )
}

fn forward(row: &ForwardRow, now_micros: i64) -> String {
    let last = row
        .last_success_micros
        .map_or_else(dash, |at| ago(now_micros, at));
    let problem = row
        .problem
        .as_ref()
        .map_or_else(String::new, |problem| format!(": {}", printable(problem)));
    format!(
        "forward\n  {:<14}{}{problem}\n  {:<14}{} records, {} MiB\n  {:<14}{} records, the last {last}\n  {:<14}{} were \
         there already, {} no event there, {} not readable here\n",
        "state",
        row.state,
        "to go",
        row.backlog_records,
        row.backlog_bytes >> 20,
        "taken",
        row.forwarded,
        "",
        row.duplicates,
        row.quarantined,
        row.gaps
    )
}

fn dash() -> String {
    "-".to_owned()
}

fn rate(events_per_second: f64) -> String {
    format!("{events_per_second:.1}/s")
}

fn ago(now_micros: i64, at_micros: i64) -> String {
    format!("{} ago", span(now_micros.saturating_sub(at_micros).max(0)))
}

/// A span of time in its two largest units at most.
fn span(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    match seconds {
        ..1 => format!("{}ms", micros / 1000),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// What a client chose is not for a terminal to act upon.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(400)
        .collect()
}
