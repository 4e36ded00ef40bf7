//! `kaudit event`: one request, all that was recorded of it.

use anyhow::anyhow;
use clap::Args;
use kaudit_history::{Mask, Reveal};
use kaudit_query::{COLUMNS, Column, Origin};

use super::ask::{self, From};
use super::show;
use super::zone::{Zone, Zoned};
use super::{print, say};
use crate::asking::{self, Fold, Found, Hit, Newest, Order, Question, times};
use crate::exit::{Exit, Failure};

/// Flags of `event`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// A reference as `kaudit query` prints it, or an auditID; of an auditID all events are shown, since clients choose
    /// it
    #[arg(value_name = "REFERENCE")]
    reference: String,
    #[command(flatten)]
    from: From,
    /// Show all events of the request that the reference is of
    #[arg(long)]
    stages: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: EventFormat,
    /// Show the values of Secrets and tokens
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    zone: Zoned,
}

/// How an event is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum EventFormat {
    /// Fields and bodies, for people
    #[default]
    Text,
    /// An EventList
    Json,
    /// The bytes as they were received, nothing masked
    Raw,
}

struct Keeping {
    newest: Newest,
    /// The number of the one that is meant.
    number: Option<u64>,
}

impl Fold for Keeping {
    fn found(&mut self, found: Found<'_>) {
        if self.number.is_none_or(|number| number == found.number) {
            self.newest.add_found(found);
        }
    }
}

/// Events that one auditID may have here.
const MOST: usize = 1000;
const MOST_BYTES: usize = 256 << 20;

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let zone = flags.zone.zone()?;
    let (filter, number) = times::meaning(&flags.reference);
    let mut hits = find(flags, &filter, number)?;
    if let (true, Some(_), Some(hit)) = (flags.stages, number, hits.first()) {
        let audit_id = hit.event.view().audit_id().into_owned();
        let audit_id = String::from_utf8_lossy(&audit_id);
        hits = find(flags, &format!("auditID = {}", times::quoted(&audit_id)), None)?;
    }
    if hits.is_empty() {
        return Err(Failure {
            exit: Exit::No,
            error: anyhow!("no event here is `{}`", flags.reference),
        });
    }
    let mask = Mask::without_key(if flags.reveal { Reveal::Yes } else { Reveal::No });
    let mut out = Vec::new();
    match flags.output {
        EventFormat::Json => show::write_list(&mut out, &hits, &mask).map_err(Failure::unreachable)?,
        EventFormat::Raw => {
            for hit in &hits {
                out.extend_from_slice(hit.event.text());
                out.push(b'\n');
            }
        }
        EventFormat::Text => {
            for (index, hit) in hits.iter().enumerate() {
                if index > 0 {
                    out.push(b'\n');
                }
                out.extend_from_slice(text(hit, &mask, &zone).as_bytes());
            }
        }
    }
    print(&out)?;
    if number.is_none() && hits.len() > 1 {
        say(format_args!("{} events have this auditID", hits.len()));
    }
    Ok(Exit::Done)
}

fn find(flags: &Flags, filter: &str, number: Option<u64>) -> Result<Vec<Hit>, Failure> {
    let is_revealed = flags.reveal || flags.output == EventFormat::Raw;
    let question = Question::new(ask::parse(filter, &Zone::UTC)?).revealed(is_revealed);
    let make = || Keeping {
        newest: Newest::new(Order::Oldest, MOST, MOST_BYTES),
        number,
    };
    let (folds, _) = asking::scan(flags.from.place()?, &question, make)?;
    let mut all = make().newest;
    for fold in folds {
        all.merge(fold.newest);
    }
    Ok(all.finish().0)
}

/// Every field that has a value, then annotations and bodies.
fn text(hit: &Hit, mask: &Mask, zone: &Zone) -> String {
    let row = hit.row();
    let mut out = format!("{}\n", show::sentence(&row, zone).trim_end());
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("  {name:28} {value}\n"));
        }
    };
    field("reference", &show::reference(&row));
    let envelope = &row.envelope;
    field(
        "cluster",
        &show::plain(envelope.cluster.unwrap_or_default().as_bytes()),
    );
    // Of a file nothing else is known.
    let source = if envelope.cluster.is_none() {
        "file"
    } else {
        "source"
    };
    field(
        source,
        &show::plain(envelope.source.unwrap_or_default().as_bytes()),
    );
    field(
        "instance",
        &show::plain(envelope.instance.unwrap_or_default().as_bytes()),
    );
    let rule = envelope.policy_rule.map(|rule| rule.to_string());
    field("policyRule", rule.as_deref().unwrap_or_default());
    for info in COLUMNS {
        let Some(column) = Column::from_name(info.name) else {
            continue;
        };
        if info.origin == Origin::Envelope
            || matches!(column, Column::RequestObject(_) | Column::ResponseObject(_))
        {
            continue;
        }
        field(info.name, &show::cell_in(&row.value(&column), zone));
    }
    for (key, value) in hit.event.view().annotations() {
        field(&show::plain(&key), &show::plain(&value));
    }
    let shown = asking::masked(hit.event.text(), &hit.event.view(), mask);
    if let Ok(event) = serde_json::from_slice::<serde_json::Value>(&shown) {
        for name in ["requestObject", "responseObject"] {
            if let Some(body) = event.get(name) {
                let body = format!("{body:#}").replace('\n', "\n    ");
                out.push_str(&format!("  {name}\n    {}\n", body_text(&body)));
            }
        }
    }
    out
}

/// JSON escapes what moves a cursor below U+0020; what is left of such characters is escaped here.
fn body_text(body: &str) -> String {
    let lines: Vec<String> = body.lines().map(|line| show::plain(line.as_bytes())).collect();
    lines.join("\n")
}
