//! What all questions have in common: where events come from, which of them are meant, and since when.

mod diagnostics;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use clap::Args;
use kaudit_event::MicroTime;
use kaudit_query::{Column, Diagnostic, Expr, Filter, Leaf};

use super::say;
use super::server::Server;
use super::zone::{Zone, Zoned};
use crate::asking::times::{self, instant, is_duration, word};
use crate::asking::{self, Inputs, Place, Scanned};
use crate::exit::{Exit, Failure};

/// Where the events are.
#[derive(Debug, Args)]
pub(super) struct From {
    /// Files to ask in place of a server, all of them: audit logs, EventLists, container logs, plain, .gz or .zst;
    /// directories; patterns; - for standard input
    #[arg(long, num_args = 1.., value_name = "FILE")]
    from: Vec<PathBuf>,
    #[command(flatten)]
    server: Server,
}

impl From {
    /// The files, or the server where none are named.
    pub(super) fn place(&self) -> Result<Place, Failure> {
        if self.is_server() {
            Ok(Place::Server(Box::new(self.server.remote()?)))
        } else {
            let Inputs { inputs, left_out } = asking::inputs(&self.from)?;
            for archive in left_out {
                say(format_args!(
                    "note: {} is left out: what it was made of is beside it",
                    archive.display()
                ));
            }
            Ok(Place::Files(inputs))
        }
    }

    pub(super) const fn is_server(&self) -> bool {
        self.from.is_empty()
    }

    /// The same as arguments, for hints.
    pub(super) fn arguments(&self) -> String {
        if self.is_server() {
            return self.server.arguments();
        }
        let quoted = self.from.iter().map(|path| shell_word(&path.to_string_lossy()));
        format!("--from {}", quoted.collect::<Vec<_>>().join(" "))
    }
}

/// Which events are meant.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// What the events satisfy, as `verb: delete and objectRef.resource: secrets`; docs/filter.md has it all
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// Only requests of this user, as in `user.username: USER`; wildcards may be used, here and in what follows
    #[arg(short, long, value_name = "USER", help_heading = "Shorthands")]
    user: Option<String>,
    /// Only this resource, as `secrets`
    #[arg(short, long, value_name = "RESOURCE", help_heading = "Shorthands")]
    resource: Option<String>,
    /// Only this namespace
    #[arg(short, long, value_name = "NAMESPACE", help_heading = "Shorthands")]
    namespace: Option<String>,
    /// Only objects of this name
    #[arg(long, value_name = "NAME", help_heading = "Shorthands")]
    name: Option<String>,
    /// With --name: also requests that named nothing and took it along, as list, watch and deletecollection of its
    /// namespace or of all
    #[arg(long, requires = "name", help_heading = "Shorthands")]
    include_lists: bool,
    /// Only these verbs
    #[arg(long, value_name = "VERB", value_delimiter = ',', help_heading = "Shorthands")]
    verb: Vec<String>,
    /// Only these response codes, as 403 or >=400
    #[arg(long, value_name = "CODE", value_delimiter = ',', help_heading = "Shorthands")]
    code: Vec<String>,
    /// Only people: no service accounts, nodes or parts of the control plane
    #[arg(long, help_heading = "Shorthands")]
    humans: bool,
    /// Look for free text in bodies as well
    #[arg(long)]
    bodies: bool,
    /// Of a server: also the requests to its own API
    #[arg(long)]
    hidden: bool,
    #[command(flatten)]
    times: Times,
}

/// From when to when, by stageTimestamp.
#[derive(Debug, Args)]
pub(super) struct Times {
    /// Not before: so long ago, as 6h, or a time, as 2026-11-23T14:00 or now-1d
    #[arg(long, value_name = "TIME", help_heading = "Times", conflicts_with = "at")]
    since: Option<String>,
    /// Before: so long ago, or a time
    #[arg(long, value_name = "TIME", help_heading = "Times", conflicts_with = "at")]
    until: Option<String>,
    /// Within five minutes of a time
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    at: Option<String>,
    /// So long before --until, or before now
    #[arg(long, value_name = "DURATION", help_heading = "Times", conflicts_with_all = ["since", "at"])]
    last: Option<String>,
    #[command(flatten)]
    zone: Zoned,
}

impl Selection {
    /// The filter of all that was given. Of a server only the last day is asked for where no time is given.
    pub(super) fn filter_of(&self, from: &From) -> Result<Filter, Failure> {
        let filter = self.filter()?;
        if !from.is_server() || has_time(&filter) {
            return Ok(filter);
        }
        say(format_args!("note: of the last 24 hours; give --since for more"));
        Ok(filter.and(of_last_day()?))
    }

    /// What is compared with: of the times that were given, unless `filter` says when; of a server otherwise of the
    /// last day.
    pub(super) fn within(&self, filter: Filter, from: &From) -> Result<Filter, Failure> {
        if has_time(&filter) {
            return Ok(filter);
        }
        let narrowed = self.times.narrow(filter, now())?;
        if has_time(&narrowed) || !from.is_server() {
            return Ok(narrowed);
        }
        Ok(narrowed.and(of_last_day()?))
    }

    /// Whether requests to the server's own API are meant, too.
    pub(super) const fn is_hidden_meant(&self) -> bool {
        self.hidden
    }

    /// Whether free text is looked for in bodies, too.
    pub(super) const fn is_bodies_meant(&self) -> bool {
        self.bodies
    }

    /// Whether a time was given.
    pub(super) const fn has_times(&self) -> bool {
        let Times {
            since,
            until,
            at,
            last,
            zone: _,
        } = &self.times;
        since.is_some() || until.is_some() || at.is_some() || last.is_some()
    }

    /// The earliest time that was given.
    pub(super) fn earliest(&self) -> Result<Option<SystemTime>, Failure> {
        self.times.earliest(now())
    }

    /// What is meant of events that are there, where later ones follow: all that was given, and what came since `now`.
    pub(super) fn filter_to_follow(&self, now: MicroTime) -> Result<Filter, Failure> {
        let filter = self.filter_without_times()?;
        let meant = self.times.narrow(filter.clone(), now)?;
        let Times { until, at, last, .. } = &self.times;
        if until.is_none() && at.is_none() && last.is_none() {
            return Ok(meant);
        }
        let since = kaudit_query::instant(kaudit_query::micros(now));
        let later = filter.and(parse(&format!("stageTimestamp > {since}"), &Zone::UTC)?);
        Ok(Filter::new(Expr::any(vec![
            meant.expr().clone(),
            later.expr().clone(),
        ])))
    }

    /// In which times are shown, and in which those without an offset are.
    pub(super) fn zone(&self) -> Result<Zone, Failure> {
        self.times.zone()
    }

    /// The filter of all that was given.
    pub(super) fn filter(&self) -> Result<Filter, Failure> {
        self.times.narrow(self.filter_without_times()?, now())
    }

    /// The filter of all that was given but times.
    pub(super) fn filter_without_times(&self) -> Result<Filter, Failure> {
        let zone = self.zone()?;
        let now = now();
        let mut filter = parse(self.filter.as_deref().unwrap_or_default(), &zone)?;
        let texts = [
            ("--user", "user.username", &self.user),
            ("--resource", "objectRef.resource", &self.resource),
            ("--namespace", "objectRef.namespace", &self.namespace),
            ("--name", "objectRef.name", &self.name),
        ];
        for (flag, field, value) in texts {
            let Some(value) = value else { continue };
            let mut text = format!("{field}: {}", word(value));
            if self.include_lists && matches!(flag, "--name" | "--namespace") {
                text += &format!(" or ({LISTS} and not {field}: *)");
            }
            filter = filter.and(of_flag(flag, value, &text, now, &zone)?);
        }
        if !self.verb.is_empty() {
            let words: Vec<String> = self.verb.iter().map(|verb| word(verb)).collect();
            let text = format!("verb: ({})", words.join(" or "));
            filter = filter.and(of_flag("--verb", &self.verb.join(","), &text, now, &zone)?);
        }
        if !self.code.is_empty() {
            let codes: Vec<String> = self
                .code
                .iter()
                .map(|code| format!("responseStatus.code:{code}"))
                .collect();
            let text = codes.join(" or ");
            filter = filter.and(of_flag("--code", &self.code.join(","), &text, now, &zone)?);
        }
        if self.humans {
            filter = filter.and(parse("actorKind: human", &zone)?);
        }
        if self.bodies {
            filter = filter.searching_bodies();
        }
        Ok(filter)
    }
}

impl Times {
    /// In which times are shown, and in which those without an offset are.
    pub(super) fn zone(&self) -> Result<Zone, Failure> {
        self.zone.zone()
    }

    /// The earliest of these times, where they have one.
    fn earliest(&self, now: MicroTime) -> Result<Option<SystemTime>, Failure> {
        let zone = &self.zone()?;
        let micros = match (&self.since, &self.at, &self.last, &self.until) {
            (Some(since), ..) => micros_of("--since", since, now, zone)?,
            (None, Some(at), ..) => micros_of("--at", at, now, zone)?.saturating_sub(AROUND_MICROS),
            (None, None, Some(last), None) => micros_of("--last", last, now, zone)?,
            _ => return Ok(None),
        };
        Ok(Some(system_time(micros)))
    }

    pub(super) fn narrow(&self, mut filter: Filter, now: MicroTime) -> Result<Filter, Failure> {
        let zone = &self.zone()?;
        if let Some(since) = &self.since {
            let text = format!("stageTimestamp >= {}", instant(since));
            filter = filter.and(of_flag("--since", since, &text, now, zone)?);
        }
        if let Some(until) = &self.until {
            let text = format!("stageTimestamp < {}", instant(until));
            filter = filter.and(of_flag("--until", until, &text, now, zone)?);
        }
        if let Some(at) = &self.at {
            let at_micros = micros_of("--at", at, now, zone)?;
            let (least, most) = (at_micros - AROUND_MICROS, at_micros + AROUND_MICROS);
            filter = filter.and(between(least, most)?);
        }
        if let Some(last) = &self.last {
            if !is_duration(last) {
                return Err(Failure::usage(anyhow!(
                    "--last: `{last}` is no duration; write it as 30m, 6h or 7d"
                )));
            }
            let end = match &self.until {
                Some(until) => micros_of("--until", until, now, zone)?,
                None => kaudit_query::micros(now),
            };
            let end_time = time_of(end);
            let text = format!("stageTimestamp >= now-{last} and stageTimestamp <= now");
            filter = filter.and(of_flag("--last", last, &text, end_time, zone)?);
        }
        Ok(filter)
    }
}

/// Whether a filter says when.
fn has_time(filter: &Filter) -> bool {
    let mut found = false;
    filter.expr().visit(&mut |leaf| {
        if let Leaf::Test(test) = leaf {
            found |= matches!(
                test.column,
                Column::StageTimestamp | Column::RequestReceivedTimestamp
            );
        }
    });
    found
}

/// Requests that take all objects of a namespace, or of all namespaces.
const LISTS: &str = "verb: (list or watch or deletecollection)";

/// What `--at` means.
const AROUND_MICROS: i64 = 300_000_000;

fn of_last_day() -> Result<Filter, Failure> {
    parse("stageTimestamp >= now-24h", &Zone::UTC)
}

fn between(least: i64, most: i64) -> Result<Filter, Failure> {
    let (least, most) = (kaudit_query::instant(least), kaudit_query::instant(most));
    parse(&format!("stageTimestamp: [{least} TO {most}]"), &Zone::UTC)
}

/// The instant that a flag means.
fn micros_of(flag: &str, text: &str, now: MicroTime, zone: &Zone) -> Result<i64, Failure> {
    use kaudit_query::{Literal, Op};

    let meant = format!("stageTimestamp >= {}", instant(text));
    let filter = of_flag(flag, text, &meant, now, zone)?;
    let mut found = None;
    filter.expr().visit(&mut |leaf| {
        if let Leaf::Test(test) = leaf
            && let Op::Compare(_, Literal::Time(micros)) = &test.op
        {
            found = Some(*micros);
        }
    });
    found.ok_or_else(|| Failure::usage(anyhow!("{flag}: `{text}` is no time")))
}

/// A time from 1970 on.
pub(super) fn system_time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

fn time_of(micros: i64) -> MicroTime {
    MicroTime {
        unix_seconds: micros.div_euclid(1_000_000),
        nanos: u32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default(),
        ..MicroTime::default()
    }
}

/// Not before a time that a flag gives.
pub(super) fn since(flag: &str, time: &str, zone: &Zone) -> Result<Filter, Failure> {
    let meant = format!("stageTimestamp >= {}", instant(time));
    of_flag(flag, time, &meant, now(), zone)
}

/// What `now` means in a filter.
pub(super) fn now() -> MicroTime {
    time_of(kaudit_collect::now_micros())
}

/// The filter that a person typed.
pub(super) fn parse(text: &str, zone: &Zone) -> Result<Filter, Failure> {
    Filter::parse_in(text, now(), zone.rules()).map_err(|wrong| refused(text, &wrong))
}

fn refused(text: &str, wrong: &[Diagnostic]) -> Failure {
    Failure::usage(anyhow!("{}", diagnostics::rendered(text, wrong)))
}

/// The filter that a flag stands for; what is wrong with its value is said of the flag.
fn of_flag(flag: &str, value: &str, text: &str, now: MicroTime, zone: &Zone) -> Result<Filter, Failure> {
    Filter::parse_in(text, now, zone.rules()).map_err(|wrong| {
        let first = wrong.first();
        let message = first.map_or_else(String::new, |first| first.message.clone());
        let help = first.and_then(|first| first.help.as_deref());
        let help = help.map_or_else(String::new, |help| format!("\n  help: {help}"));
        Failure::usage(anyhow!("{flag} {value}: {message}{help}"))
    })
}

/// The field that a person named.
pub(super) fn column(name: &str) -> Result<Column, Failure> {
    times::column(name).map_err(|wrong| Failure::usage(anyhow!(wrong)))
}

/// What is said when lines were no events, or not all events were looked at.
pub(super) fn tell_strays(scanned: &Scanned) {
    if let Some(reason) = &scanned.partial {
        tell_partial(reason);
    }
    if scanned.strays > 0 {
        say(format_args!(
            "note: {} lines or pieces are no audit events and were left out",
            scanned.strays
        ));
    }
}

/// What is said when a server did not look at everything.
pub(super) fn tell_partial(reason: &str) {
    say(format_args!(
        "note: not all events were looked at ({}); what is shown is right, and not all",
        partial_reason(reason)
    ));
}

/// Why a server did not look at everything.
fn partial_reason(reason: &str) -> &str {
    match reason {
        "time" => "the time budget was over; narrow it with --since",
        "memory" => "the memory budget was over; narrow it with --since",
        "behind" => "the store has not read all of the journal yet",
        other => other,
    }
}

/// The exit code of what was looked at.
pub(super) const fn whole(scanned: &Scanned, exit: Exit) -> Exit {
    match (&scanned.partial, exit) {
        (Some(_), Exit::Done) => Exit::Partial,
        (_, exit) => exit,
    }
}

/// As a shell takes it.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_./:@%+,=".contains(char);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The exit code with `--exit-status`.
pub(super) fn exit(has_rows: bool, wants_status: bool) -> Exit {
    if wants_status && !has_rows {
        Exit::No
    } else {
        Exit::Done
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clap::Parser;
    use kaudit_event::DecodedEvent;
    use kaudit_query::{Envelope, Row};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        selection: Selection,
    }

    fn selection(arguments: &[&str]) -> Selection {
        let words = ["kaudit"].iter().chain(arguments);
        Command::try_parse_from(words).unwrap().selection
    }

    fn matches(filter: &Filter, verb: &str, time: &str) -> bool {
        let line = format!(
            "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"a\",\
             \"stage\":\"ResponseComplete\",\"requestURI\":\"/\",\"verb\":\"{verb}\",\"user\":{{}},\
             \"requestReceivedTimestamp\":\"{time}\",\"stageTimestamp\":\"{time}\"}}"
        );
        let event = DecodedEvent::parse(Bytes::from(line)).unwrap();
        filter.matches(&Row {
            event: event.view(),
            envelope: Envelope::default(),
        })
    }

    #[test]
    fn what_is_followed_is_what_was_in_the_times_and_all_that_comes() {
        const NOW: MicroTime = MicroTime {
            unix_seconds: 1_767_323_045,
            nanos: 0,
            offset_seconds: 0,
        };
        let (long_ago, lately, later) = (
            "2026-01-01T03:04:05.000000Z",
            "2026-01-02T03:03:55.000000Z",
            "2026-01-02T03:04:06.000000Z",
        );
        for (times, expected) in [
            (&["--since", "1m"][..], [false, true, true]),
            (&["--last", "1m"], [false, true, true]),
            (&["--until", "2026-01-02"], [true, false, true]),
            (&["--at", "2026-01-01T03:05"], [true, false, true]),
        ] {
            let arguments = [&["verb: get"], times].concat();
            let filter = selection(&arguments).filter_to_follow(NOW).unwrap();
            let found = [long_ago, lately, later].map(|time| matches(&filter, "get", time));
            assert_eq!(found, expected, "{times:?}");
            assert!(!matches(&filter, "list", later), "{times:?}");
        }
    }
}
