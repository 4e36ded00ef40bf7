//! `kaudit actor`: what somebody did, session by session, and what they had never done before.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use kaudit_query::{Column, Filter, Row, Value, derived};
use serde_json::json;

use super::ask::{self, From, Times};
use super::show::{self, cell, short_user};
use super::zone::Zone;
use super::{Output, print, say};
use crate::asking::{self, Fold, Found, Question, times};
use crate::exit::{Exit, Failure};

/// Flags of `actor`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "A session ends where nothing comes for --gap. FIRST TIME marks a verb on a resource that the actor \
                       does not use before it in what is read; of the first session everything would be, so nothing is \
                       marked there.

Examples:
  kaudit actor alice@example.com --from audit.log
  kaudit actor system:serviceaccount:ci:deployer --since 1d --from /var/log/kubernetes/audit/"
)]
pub(super) struct Flags {
    /// The user, as the events name it; also who is impersonated
    #[arg(value_name = "USER")]
    user: String,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    times: Times,
    /// Minutes without a request that end a session
    #[arg(long, value_name = "MINUTES", default_value_t = 30)]
    gap: u32,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Requests that are looked at; beyond, the newest ones are missing.
const MOST: usize = 500_000;

/// What is known of one request.
#[derive(Clone, Debug)]
struct Request {
    micros: i64,
    verb: String,
    /// With its subresource.
    resource: String,
    object: String,
    code: i64,
    address: String,
    client: String,
    /// Somebody else asked for it to be done as the actor.
    by: Option<String>,
}

/// Gathers what is asked about an actor.
pub(crate) struct Gathering {
    user: String,
    requests: Vec<Request>,
    groups: BTreeSet<String>,
    left_out: u64,
}

impl Gathering {
    pub(crate) fn new(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            requests: Vec::new(),
            groups: BTreeSet::new(),
            left_out: 0,
        }
    }

    /// What an event has to satisfy to be about the actor.
    pub(crate) fn filter(user: &str) -> String {
        let user = times::quoted(user);
        format!("(user.username = {user} or impersonatedUser.username = {user})")
    }

    /// How many requests were not looked at.
    pub(crate) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// For programs: sessions that `gap_micros` without a request end.
    pub(crate) fn document(mut self, gap_micros: i64) -> serde_json::Value {
        sort(&mut self.requests);
        document(&self.user, &self.groups, &sessions(&self.requests, gap_micros))
    }

    pub(crate) fn add(&mut self, row: &Row<'_>) {
        let of = |column: &Column| cell(&row.value(column));
        let Some(code) = outcome(row) else { return };
        if self.requests.len() >= MOST {
            self.left_out += 1;
            return;
        }
        let own = of(&Column::UserUsername);
        let is_impersonated = own != self.user;
        let groups = if is_impersonated {
            Column::ImpersonatedGroups
        } else {
            Column::UserGroups
        };
        if let Value::Texts(groups) = row.value(&groups) {
            self.groups.extend(groups.iter().map(|group| show::plain(group)));
        }
        let parts = [of(&Column::ObjectResource), of(&Column::ObjectSubresource)];
        let resource = match parts {
            [resource, subresource] if subresource.is_empty() => resource,
            [resource, subresource] => format!("{resource}/{subresource}"),
        };
        self.requests.push(Request {
            micros: match row.value(&Column::StageTimestamp) {
                Value::Time(micros) => micros,
                _ => 0,
            },
            verb: of(&Column::Verb),
            resource: if resource.is_empty() {
                "(no resource)".to_owned()
            } else {
                resource
            },
            object: show::object(row),
            code,
            address: of(&Column::SourceIp),
            client: of(&Column::Client),
            by: is_impersonated.then_some(own),
        });
    }
}

impl Fold for Gathering {
    fn found(&mut self, found: Found<'_>) {
        found.with_row(|row| self.add(row));
    }
}

/// The response code of a request's last event; `None` for an event that another follows.
fn outcome(row: &Row<'_>) -> Option<i64> {
    let code = match row.value(&Column::ResponseCode) {
        Value::Number(code) => code,
        _ => 0,
    };
    match cell(&row.value(&Column::Stage)).as_str() {
        "ResponseComplete" | "Panic" => Some(code),
        // Of a request without a known user there is no other.
        "ResponseStarted" if code == 401 => Some(code),
        _ => None,
    }
}

/// Requests with no long pause between them.
#[derive(Debug, Default)]
struct Session {
    first: i64,
    last: i64,
    requests: u64,
    writes: u64,
    refused: u64,
    addresses: BTreeSet<String>,
    clients: BTreeSet<String>,
    by: BTreeSet<String>,
    /// Verb and resource, with how often and one object.
    acts: BTreeMap<(String, String), (u64, String)>,
    /// Of these, what the actor had not done before.
    new: BTreeSet<(String, String)>,
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let zone = flags.times.zone()?;
    let text = Gathering::filter(&flags.user);
    let filter: Filter = flags.times.narrow(ask::parse(&text, &zone)?, ask::now())?;
    let (folds, scanned) = asking::scan(flags.from.place()?, &Question::new(filter), || {
        Gathering::new(&flags.user)
    })?;
    let mut requests = Vec::new();
    let mut groups = BTreeSet::new();
    let mut left_out = 0;
    for fold in folds {
        requests.extend(fold.requests);
        groups.extend(fold.groups);
        left_out += fold.left_out;
    }
    sort(&mut requests);
    let sessions = sessions(&requests, i64::from(flags.gap) * 60_000_000);
    match flags.output {
        Output::Text => print(text_of(flags, &groups, &requests, &sessions, &zone).as_bytes())?,
        Output::Json => print(format!("{:#}\n", document(&flags.user, &groups, &sessions)).as_bytes())?,
    };
    ask::tell_strays(&scanned);
    if requests.is_empty() {
        say(format_args!("no request here is of {}", flags.user));
    }
    if left_out > 0 {
        say(format_args!(
            "note: {left_out} more requests were not looked at; narrow it with --since and --until"
        ));
        return Ok(Exit::Partial);
    }
    Ok(ask::whole(&scanned, Exit::Done))
}

fn sort(requests: &mut [Request]) {
    requests.sort_by(|one, two| (one.micros, &one.verb).cmp(&(two.micros, &two.verb)));
}

/// The requests, which are in order of time, cut where there is a gap.
fn sessions(requests: &[Request], gap_micros: i64) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    for request in requests {
        let follows = sessions
            .last()
            .is_some_and(|last| request.micros.saturating_sub(last.last) <= gap_micros);
        if !follows {
            sessions.push(Session {
                first: request.micros,
                ..Session::default()
            });
        }
        let is_first = sessions.len() == 1;
        let Some(session) = sessions.last_mut() else {
            continue;
        };
        session.last = request.micros;
        session.requests += 1;
        session.writes += u64::from(derived::mutating(request.verb.as_bytes()));
        session.refused += u64::from(matches!(request.code, 401 | 403));
        session.addresses.insert(request.address.clone());
        session.clients.insert(request.client.clone());
        session.by.extend(request.by.clone());
        let act = (request.verb.clone(), request.resource.clone());
        let times = session
            .acts
            .entry(act.clone())
            .or_insert_with(|| (0, request.object.clone()));
        times.0 += 1;
        if known.insert(act.clone()) && !is_first {
            session.new.insert(act);
        }
    }
    sessions
}

fn listed(texts: &BTreeSet<String>) -> String {
    let texts: Vec<&str> = texts
        .iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty())
        .collect();
    match texts.as_slice() {
        [] => "-".to_owned(),
        [first, second, third, _, ..] => format!("{first}, {second}, {third} and {} more", texts.len() - 3),
        few => few.join(", "),
    }
}

/// Acts that are shown of a session.
const SHOWN: usize = 6;

fn text_of(
    flags: &Flags,
    groups: &BTreeSet<String>,
    requests: &[Request],
    sessions: &[Session],
    zone: &Zone,
) -> String {
    let user = &flags.user;
    let (Some(first), Some(last)) = (requests.first(), requests.last()) else {
        return String::new();
    };
    let kind = derived::actor_kind(user.as_bytes()).as_str();
    let mut out = format!(
        "{} ({kind}), groups: {}\n",
        short_user(&show::plain(user.as_bytes())),
        listed(groups)
    );
    out.push_str(&format!(
        "{} requests from {} to {}, in {} sessions\n",
        requests.len(),
        zone.to_second(first.micros),
        zone.to_second(last.micros),
        sessions.len()
    ));
    for session in sessions {
        let end = zone.end_after(session.first, session.last);
        out.push_str(&format!(
            "\n{} - {end}  {} with {}: {} requests, {} writes, {} refused\n",
            zone.to_second(session.first),
            listed(&session.addresses),
            listed(&session.clients),
            session.requests,
            session.writes,
            session.refused
        ));
        if !session.by.is_empty() {
            out.push_str(&format!("    asked for by {}\n", listed(&session.by)));
        }
        // What is new first, then what was done most.
        let mut acts: Vec<_> = session.acts.iter().collect();
        acts.sort_by_key(|(act, (times, _))| (!session.new.contains(*act), std::cmp::Reverse(*times)));
        for ((verb, resource), (times, object)) in acts.iter().take(SHOWN) {
            let act = ((*verb).clone(), (*resource).clone());
            let mark = if session.new.contains(&act) {
                "  FIRST TIME"
            } else {
                ""
            };
            let of = if *times == 1 {
                format!("  {object}")
            } else {
                String::new()
            };
            out.push_str(&format!("    {times:>6}  {verb} {resource}{of}{mark}\n"));
        }
        if acts.len() > SHOWN {
            out.push_str(&format!("    ... {} further kinds\n", acts.len() - SHOWN));
        }
    }
    out
}

fn document(user: &str, groups: &BTreeSet<String>, sessions: &[Session]) -> serde_json::Value {
    let sessions: Vec<_> = sessions
        .iter()
        .map(|session| {
            let acts: Vec<_> = session
                .acts
                .iter()
                .map(|((verb, resource), (times, object))| {
                    json!({
                        "verb": verb, "resource": resource, "requests": times, "object": object,
                        "firstTime": session.new.contains(&(verb.clone(), resource.clone())),
                    })
                })
                .collect();
            json!({
                "first": kaudit_query::instant(session.first),
                "last": kaudit_query::instant(session.last),
                "requests": session.requests,
                "writes": session.writes,
                "refused": session.refused,
                "addresses": session.addresses,
                "clients": session.clients,
                "impersonatedBy": session.by,
                "acts": acts,
            })
        })
        .collect();
    json!({
        "user": user,
        "kind": derived::actor_kind(user.as_bytes()).as_str(),
        "groups": groups,
        "sessions": sessions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(minute: i64, verb: &str, resource: &str) -> Request {
        Request {
            micros: minute * 60_000_000,
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            object: format!("ns/{resource}/x"),
            code: if resource == "secrets" { 403 } else { 200 },
            address: "10.0.0.1".to_owned(),
            client: "kubectl".to_owned(),
            by: None,
        }
    }

    #[test]
    fn a_pause_ends_a_session_and_what_was_not_done_before_is_new() {
        let requests = [
            request(0, "get", "pods"),
            request(30, "list", "pods"),
            request(61, "get", "pods"),
            request(62, "get", "secrets"),
            request(63, "delete", "pods"),
            request(500, "get", "secrets"),
        ];
        let sessions = sessions(&requests, 30 * 60_000_000);
        let counts: Vec<_> = sessions
            .iter()
            .map(|session| {
                (
                    session.requests,
                    session.writes,
                    session.refused,
                    session.new.len(),
                )
            })
            .collect();
        assert_eq!(counts, [(2, 0, 0, 0), (3, 1, 1, 2), (1, 0, 1, 0)]);
    }
}
