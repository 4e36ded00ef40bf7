//! Objects and actors: `/api/v1/objects/{type}/{name}/versions`, `blame` and `readers`; `/api/v1/actors/{user}`.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use axum::{Json, Router};
use kaudit_event::{DecodedEvent, EventView};
use kaudit_history::{History, Limits, Relation, Target};
use kaudit_query::{Column, Envelope, Filter, Row, Value as Cell};
use kaudit_store::{Order, Scan, ScanStats, Snapshot, StoreError, StoredEvent};
use serde_json::{Value, json};

use super::events::reveal;
use super::problem::Problem;
use super::scans::{Looked, Scans};
use super::selection::Parameters;
use crate::asking::times::quoted;
use crate::cli::actor::Gathering;
use crate::cli::{blame, history, object};

/// Events about one object that are looked at, the newest; and their bytes.
const MOST: usize = 200_000;
const MOST_BYTES: usize = 256 << 20;

/// Events that are read at once.
const PIECE: usize = 2000;
const PIECE_BYTES: usize = 16 << 20;

/// Minutes without a request that end a session.
const GAP: u64 = 30;

pub(super) fn router(scans: Scans) -> Router {
    Router::new()
        .route("/api/v1/objects/{type}/{name}/versions", get(versions))
        .route("/api/v1/objects/{type}/{name}/blame", get(blamed))
        .route("/api/v1/objects/{type}/{name}/readers", get(readers))
        .route("/api/v1/actors/{user}", get(actor))
        .with_state(scans)
}

/// Shows every event that satisfies a scan, in order, until `each` has enough. Answers whether it had.
fn walk(
    snapshot: &Snapshot,
    scan: &Scan,
    order: Order,
    stats: &mut Vec<ScanStats>,
    mut each: impl FnMut(StoredEvent) -> bool,
) -> Result<bool, StoreError> {
    let mut scan = scan.clone();
    scan.memory_budget = PIECE_BYTES;
    let (begun, budget) = (Instant::now(), scan.time_budget);
    let mut after = None;
    loop {
        scan.time_budget = budget.map(|budget| budget.saturating_sub(begun.elapsed()));
        let page = snapshot.page(&scan, order, PIECE, after)?;
        stats.push(page.stats);
        for event in page.events {
            if !each(event) {
                return Ok(true);
            }
        }
        let is_whole = page.stats.completeness == kaudit_store::Completeness::Whole;
        match page.next {
            Some(next) if is_whole => after = Some(next),
            _ => return Ok(false),
        }
    }
}

fn row<'a>(view: EventView<'a>, event: &'a StoredEvent) -> Row<'a> {
    Row {
        event: view,
        envelope: Envelope {
            cluster: Some(&event.cluster),
            source: Some(&event.source),
            instance: Some(&event.instance),
            seq: Some(event.position.seq),
            received_micros: Some(event.received_micros),
            policy_rule: event.policy_rule,
            event_bytes: u64::try_from(event.event.len()).ok(),
        },
    }
}

fn target(kind: &str, name: &str, parameters: &Parameters) -> Result<Target, Problem> {
    let namespace = parameters.one("namespace")?.unwrap_or_default();
    Target::parse(&format!("{kind}/{name}"), namespace).map_err(|error| Problem::bad(error.to_string()))
}

/// The scan of what concerns an object.
fn about(target: &Target, parameters: &Parameters) -> Result<Scan, Problem> {
    let now = super::now();
    let filter = Filter::parse(&object::about(target), now)
        .map_err(|_| Problem::bad(format!("`{}` is no name of a resource", target.resource)))?;
    parameters.scan_of(filter, now)
}

const OBJECT: [&str; 6] = ["namespace", "since", "until", "cluster", "budget", "reveal"];

/// An object over time, of the newest events about it.
async fn over_time(
    scans: &Scans,
    kind: &str,
    name: &str,
    parameters: &Parameters,
) -> Result<(History, Looked), Problem> {
    let target = target(kind, name, parameters)?;
    let scan = about(&target, parameters)?;
    let begun = Instant::now();
    let cancel = scan.cancel.clone();
    let ask = move |snapshot: &Snapshot| {
        let (mut kept, mut bytes, mut stats) = (Vec::new(), 0, Vec::new());
        let is_cut = walk(snapshot, &scan, Order::NewestFirst, &mut stats, |stored| {
            if let Ok(event) = DecodedEvent::parse(stored.event)
                && target.relation(&event.view()) != Relation::None
            {
                bytes += event.text().len();
                kept.push((stored.position.seq, event));
            }
            kept.len() < MOST && bytes < MOST_BYTES
        })?;
        let mut history = History::new(target, Limits::default());
        for (seq, event) in kept.iter().rev() {
            history.push(*seq, &event.view());
        }
        Ok((history, stats, is_cut))
    };
    let ((history, stats, is_cut), freshness) = scans.ask(cancel, ask).await?;
    let mut looked = Looked::new(&stats, freshness, begun);
    if is_cut || history.forgotten() > 0 {
        looked.partial = true;
        looked.partial_reason = Some("memory");
    }
    Ok((history, looked))
}

async fn versions(
    State(scans): State<Scans>,
    Path((kind, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let known = [&OBJECT[..], &["all"]].concat();
    let parameters = Parameters::parse(query.as_deref(), &known, false)?;
    let (found, looked) = over_time(&scans, &kind, &name, &parameters).await?;
    let mask = object::mask(reveal(&parameters)?);
    let document = history::document_of(&found, parameters.is_set("all")?, &mask);
    Ok(looked.of(document))
}

async fn blamed(
    State(scans): State<Scans>,
    Path((kind, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let known = [&OBJECT[..], &["field"]].concat();
    let parameters = Parameters::parse(query.as_deref(), &known, false)?;
    let field = parameters
        .one("field")?
        .map(kaudit_history::Path::parse)
        .transpose();
    let field = field.map_err(|error| Problem::bad(format!("field: {error}")))?;
    let (found, looked) = over_time(&scans, &kind, &name, &parameters).await?;
    let mask = object::mask(reveal(&parameters)?);
    let document = blame::document_of(&found, field.as_ref(), &mask);
    document
        .map(|document| looked.of(document))
        .ok_or_else(|| Problem::not_found(format!("no event says what {kind}/{name} looked like")))
}

/// Who read an object, or a list that it was in.
#[derive(Debug, Default)]
struct Reader {
    events: u64,
    first: i64,
    last: i64,
}

/// Who read what, by whom, verb, and whether it was a list.
type Readers = BTreeMap<(String, String, bool), Reader>;

async fn readers(
    State(scans): State<Scans>,
    Path((kind, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &OBJECT, false)?;
    let target = target(&kind, &name, &parameters)?;
    let now = super::now();
    let mut text = format!(
        "objectRef.resource = {} and stage: (ResponseComplete or ResponseStarted) and code < 400 and \
         verb: (get or list or watch) and (objectRef.name = {} or not objectRef.name: *)",
        quoted(&target.resource),
        quoted(&target.name),
    );
    if !target.namespace.is_empty() {
        text += &format!(
            " and (objectRef.namespace = {} or not objectRef.namespace: *)",
            quoted(&target.namespace)
        );
    }
    let filter = Filter::parse(&text, now).map_err(|wrong| Problem::filter("the object", wrong))?;
    let scan = parameters.scan_of(filter, now)?;
    let begun = Instant::now();
    let columns = [
        Column::UserUsername,
        Column::Verb,
        Column::ObjectName,
        Column::Stage,
    ];
    let cancel = scan.cancel.clone();
    let ask = move |snapshot: &Snapshot| {
        let (folds, stats) = snapshot.fold(&scan, &columns, Readers::new, |readers, hit| {
            let text = |at: usize| match hit.value(at) {
                Cell::Text(text) => String::from_utf8_lossy(&text).into_owned(),
                _ => String::new(),
            };
            // A watch is told when it begins; of others the end counts.
            if (text(1) == "watch") != (text(3) == "ResponseStarted") {
                return;
            }
            let is_list = hit.value(2) == Cell::Absent || text(2).is_empty();
            add(readers, (text(0), text(1), is_list), 1, hit.ts(), hit.ts());
        })?;
        let mut all = Readers::new();
        for (key, one) in folds.into_iter().flatten() {
            add(&mut all, key, one.events, one.first, one.last);
        }
        Ok((all, stats))
    };
    let ((readers, stats), freshness) = scans.ask(cancel, ask).await?;
    let mut items: Vec<(&(String, String, bool), &Reader)> = readers.iter().collect();
    items.sort_by_key(|(_, reader)| std::cmp::Reverse(reader.last));
    let items = items.iter().map(|((user, verb, is_list), reader)| {
        json!({
            "user": user,
            "verb": verb,
            "viaList": is_list,
            "events": reader.events,
            "first": kaudit_query::instant(reader.first),
            "last": kaudit_query::instant(reader.last),
        })
    });
    let document = json!({ "readers": items.collect::<Vec<_>>() });
    let looked = Looked::new(&[stats], freshness, begun);
    Ok(looked.of(document))
}

fn add(readers: &mut Readers, key: (String, String, bool), events: u64, first: i64, last: i64) {
    let reader = readers.entry(key).or_insert(Reader {
        events: 0,
        first,
        last,
    });
    reader.events += events;
    reader.first = reader.first.min(first);
    reader.last = reader.last.max(last);
}

async fn actor(
    State(scans): State<Scans>,
    Path(user): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &["gap"], true)?;
    let gap_minutes = parameters.number("gap", 100_000)?.unwrap_or(GAP);
    let now = super::now();
    let about =
        Filter::parse(&Gathering::filter(&user), now).map_err(|wrong| Problem::filter("the user", wrong))?;
    let scan = parameters.scan_of(parameters.filter("q", now)?.and(about), now)?;
    let begun = Instant::now();
    let cancel = scan.cancel.clone();
    let ask = move |snapshot: &Snapshot| {
        let mut gathering = Gathering::new(&user);
        let mut stats = Vec::new();
        walk(snapshot, &scan, Order::NewestFirst, &mut stats, |stored| {
            if let Ok(event) = DecodedEvent::parse(stored.event.clone()) {
                gathering.add(&row(event.view(), &stored));
            }
            gathering.left_out() == 0
        })?;
        Ok((gathering, stats))
    };
    let ((gathering, stats), freshness) = scans.ask(cancel, ask).await?;
    let mut looked = Looked::new(&stats, freshness, begun);
    if gathering.left_out() > 0 {
        looked.partial = true;
        looked.partial_reason = Some("memory");
    }
    let gap_micros = i64::try_from(gap_minutes)
        .unwrap_or(i64::MAX)
        .saturating_mul(60_000_000);
    Ok(looked.of(gathering.document(gap_micros)))
}
