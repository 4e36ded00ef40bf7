//! What sealing costs and how fast questions are answered, on a log of yours:
//!
//! ```text
//! KAUDIT_STORE_LOG=audit.log cargo bench -p kaudit-store
//! ```
//!
//! `KAUDIT_STORE_DIR` says where the journal and the store are made (they take a little more than the log).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads its settings, prints, and stops at the first surprise"
)]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Instant;

use kaudit_event::record::{RecordHead, Transport};
use kaudit_journal::{Batch, Hold, Journal};
use kaudit_query::accumulate::Limits;
use kaudit_query::{Case, Column, Expr, Filter, Literal, Op, Value};
use kaudit_store::{CaughtUp, Compaction, Options, Order, Scan, Snapshot, Store};

fn main() {
    let Ok(log) = std::env::var("KAUDIT_STORE_LOG") else {
        println!("store: set KAUDIT_STORE_LOG to an audit log");
        return;
    };
    let parent = std::env::var("KAUDIT_STORE_DIR").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let (journal, _) =
        Journal::open(&dir.path().join("journal"), kaudit_journal::Options::default()).unwrap();
    let bytes = fill(&journal, Path::new(&log));
    for threads in [1, 2] {
        let root = dir.path().join(format!("store-{threads}"));
        let mut options = Options::default();
        options.threads = threads.try_into().unwrap();
        let store = Store::open(&root, options).unwrap();
        seal(&store, &journal, bytes);
        if threads == 2 {
            ask("sealed", &store.snapshot());
            let cold = Store::open_to_read(&root, Options::default()).unwrap();
            let begun = Instant::now();
            ask_once(&cold.snapshot());
            println!(
                "q4 with cold footers: {:.1} ms",
                begun.elapsed().as_secs_f64() * 1e3
            );
            let (begun, begun_cpu) = (Instant::now(), cpu());
            let done = store.compact(&Compaction::before(i64::MAX), 0).unwrap();
            let (took, took_cpu) = (begun.elapsed().as_secs_f64(), cpu() - begun_cpu);
            let stored: u64 = store.manifest().parts.iter().map(|part| part.bytes).sum();
            println!(
                "compact: {:.1} MB/s per core, {:.1} MB/s on {threads} threads, {} files, {:.1} MB, {:.2}x smaller",
                megabytes(bytes) / took_cpu,
                megabytes(bytes) / took,
                done.added.len(),
                megabytes(stored),
                megabytes(bytes) / megabytes(stored),
            );
            ask("compacted", &store.snapshot());
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Seconds of processor time that this process has taken.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn fill(journal: &Journal, log: &Path) -> u64 {
    let mut lines = BufReader::with_capacity(1 << 20, std::fs::File::open(log).unwrap());
    let mut line = Vec::new();
    let mut batch = Batch::new();
    let mut bytes = 0;
    let mut tickets = Vec::new();
    let mut received_micros = 1_795_000_000_000_000;
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).unwrap();
        bytes += u64::try_from(read).unwrap();
        if read > 0 {
            received_micros += 100_000;
            let head = RecordHead {
                cluster: "prod",
                source: "audit.log",
                instance: "cp-1",
                seq: 0,
                received_micros,
                transport: Transport::File,
                tail: None,
                matched_rule: None,
            };
            let mut record = Vec::new();
            head.write(&mut record).unwrap();
            record.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(&line));
            batch.push(None, &record);
        }
        if batch.bytes() > 2 << 20 || read == 0 {
            tickets.push(journal.append(std::mem::take(&mut batch)).unwrap());
            if tickets.len() > 4 || read == 0 {
                for ticket in tickets.drain(..) {
                    ticket.wait().unwrap();
                }
            }
        }
        if read == 0 {
            return bytes;
        }
    }
}

fn seal(store: &Store, journal: &Journal, bytes: u64) {
    // Keeps the segments, so that the journal can be sealed again.
    journal.cursor("bench", Hold::Yes).unwrap();
    let cursor = store.cursor(journal).unwrap();
    let (begun, begun_cpu) = (Instant::now(), cpu());
    let (mut reading, mut sealing) = (0.0, 0.0);
    loop {
        let at = Instant::now();
        let caught_up = store.catch_up(journal).unwrap();
        reading += at.elapsed().as_secs_f64();
        let at = Instant::now();
        store.seal(&cursor, 0).unwrap();
        sealing += at.elapsed().as_secs_f64();
        if caught_up == CaughtUp::End {
            break;
        }
    }
    let (took, took_cpu) = (begun.elapsed().as_secs_f64(), cpu() - begun_cpu);
    let manifest = store.manifest();
    let stored: u64 = manifest.parts.iter().map(|part| part.bytes).sum();
    let raw: u64 = manifest.parts.iter().map(|part| part.raw_rows).sum();
    println!(
        "seal: {:.1} MB/s per core, {:.1} MB/s (reading and columns {reading:.2} s, files {sealing:.2} s), {} events, {} files, {:.1} MB, {:.2}x smaller, {raw} raw rows",
        megabytes(bytes) / took_cpu,
        megabytes(bytes) / took,
        manifest.counts.sealed,
        manifest.parts.len(),
        megabytes(stored),
        megabytes(bytes) / megabytes(stored),
    );
}

fn test(column: Column, op: Op) -> Expr {
    Expr::test(column, Case::Sensitive, op)
}

fn is(column: Column, text: &str) -> Expr {
    test(column, Op::Equals(Literal::Text(text.to_owned())))
}

fn everything() -> Filter {
    Filter::everything()
}

fn top(snapshot: &Snapshot, filter: Filter, columns: &[Column]) -> usize {
    let fold = |counts: &mut HashMap<Vec<Vec<u8>>, i64>, hit: &kaudit_store::Hit<'_>| {
        let key = (0..columns.len())
            .map(|at| match hit.value(at) {
                Value::Text(text) => text.into_owned(),
                _ => Vec::new(),
            })
            .collect();
        *counts.entry(key).or_default() += 1;
    };
    let (states, _) = snapshot
        .fold(&Scan::new(filter), columns, HashMap::new, fold)
        .unwrap();
    states
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .collect::<HashSet<_>>()
        .len()
}

fn counts(snapshot: &Snapshot, filter: Filter, column: &Column) -> usize {
    let (top, _) = snapshot
        .top(&Scan::new(filter), column, Limits::default())
        .unwrap();
    top.finish(1000).entries.len()
}

fn ask_once(snapshot: &Snapshot) -> usize {
    counts(snapshot, everything(), &Column::Verb)
}

/// A user, an auditID and a source that are in the log.
fn samples(snapshot: &Snapshot) -> (String, String, i64) {
    let page = snapshot
        .page(
            &Scan::new(Filter::new(is(Column::Verb, "delete"))),
            Order::OldestFirst,
            500,
            None,
        )
        .unwrap();
    let event = &page.events[page.events.len() / 2];
    let decoded = kaudit_event::DecodedEvent::parse(event.event.clone()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let view = decoded.view();
    (
        text(&view.audit_id()),
        text(&view.user().text("username")),
        event.position.ts,
    )
}

type Question<'a> = (&'static str, Box<dyn Fn() -> usize + 'a>);

fn ask(what: &str, snapshot: &Snapshot) {
    let (audit_id, user, ts) = samples(snapshot);
    let page = |filter: Filter| {
        snapshot
            .page(&Scan::new(filter), Order::NewestFirst, 100, None)
            .unwrap()
            .events
            .len()
    };
    let questions: Vec<Question<'_>> = vec![
        (
            "q1 an auditID",
            Box::new(|| page(Filter::new(is(Column::AuditId, &audit_id)))),
        ),
        (
            "q2 deletes of a user in an hour",
            Box::new(|| {
                let hour = 3_600_000_000;
                let wanted = Expr::all([is(Column::UserUsername, &user), is(Column::Verb, "delete")]);
                let scan = Scan::new(Filter::new(wanted)).between(Some(ts - hour / 2), Some(ts + hour / 2));
                snapshot
                    .page(&scan, Order::NewestFirst, 100, None)
                    .unwrap()
                    .events
                    .len()
            }),
        ),
        (
            "q3 403 by user",
            Box::new(|| {
                counts(
                    snapshot,
                    Filter::new(test(Column::ResponseCode, Op::Equals(Literal::Number(403)))),
                    &Column::UserUsername,
                )
            }),
        ),
        (
            "q4 by verb",
            Box::new(|| counts(snapshot, everything(), &Column::Verb)),
        ),
        (
            "q5 users by bytes",
            Box::new(|| {
                let columns = [Column::UserUsername, Column::EventBytes];
                let fold = |sums: &mut HashMap<Vec<u8>, i64>, hit: &kaudit_store::Hit<'_>| {
                    if let (Value::Text(user), Value::Number(bytes)) = (hit.value(0), hit.value(1)) {
                        match sums.get_mut(&*user) {
                            Some(sum) => *sum += bytes,
                            None => drop(sums.insert(user.into_owned(), bytes)),
                        }
                    }
                };
                let (states, _) = snapshot
                    .fold(&Scan::new(everything()), &columns, HashMap::new, fold)
                    .unwrap();
                states.iter().map(HashMap::len).max().unwrap_or_default()
            }),
        ),
        (
            "q6 secrets read by people",
            Box::new(|| {
                let verbs = ["get", "list", "watch"].map(|verb| Literal::Text(verb.to_owned()));
                let wanted = Expr::all([
                    is(Column::ObjectResource, "secrets"),
                    test(Column::Verb, Op::EqualsAny(verbs.to_vec())),
                    test(Column::UserUsername, Op::StartsWith("system:".to_owned())).negated(),
                ]);
                top(
                    snapshot,
                    Filter::new(wanted),
                    &[Column::UserUsername, Column::ObjectNamespace, Column::ObjectName],
                )
            }),
        ),
        (
            "q7 privileged in request bodies",
            Box::new(|| {
                let column = Column::from_name("requestObject.spec.containers.securityContext.privileged");
                let found = is(column.unwrap(), "true");
                let (count, _) = snapshot.count(&Scan::new(Filter::new(found))).unwrap();
                usize::try_from(count).unwrap()
            }),
        ),
        ("q8 the newest 100", Box::new(|| page(everything()))),
        (
            "q9 by minute",
            Box::new(|| {
                let fold = |counts: &mut HashMap<i64, u64>, hit: &kaudit_store::Hit<'_>| {
                    *counts.entry(hit.ts() / 60_000_000).or_default() += 1;
                };
                let (states, _) = snapshot
                    .fold(&Scan::new(everything()), &[], HashMap::new, fold)
                    .unwrap();
                states.iter().map(HashMap::len).sum()
            }),
        ),
        (
            "q10 addresses of a service account",
            Box::new(|| {
                let user = "system:serviceaccount:monitoring:prometheus-k8s";
                let scan = Scan::new(Filter::new(is(Column::UserUsername, user)));
                let fold = |found: &mut HashSet<Vec<u8>>, hit: &kaudit_store::Hit<'_>| {
                    if let Value::Texts(texts) = hit.value(0) {
                        for text in texts {
                            if !found.contains(&*text) {
                                found.insert(text.into_owned());
                            }
                        }
                    }
                };
                let (states, _) = snapshot
                    .fold(&scan, &[Column::SourceIps], HashSet::new, fold)
                    .unwrap();
                states.into_iter().flatten().collect::<HashSet<_>>().len()
            }),
        ),
    ];
    for (name, question) in questions {
        let begun = Instant::now();
        let answer = question();
        let first = begun.elapsed().as_secs_f64() * 1e3;
        let mut times: Vec<(f64, f64)> = (0..9)
            .map(|_| {
                let (begun, begun_cpu) = (Instant::now(), cpu());
                question();
                (begun.elapsed().as_secs_f64() * 1e3, (cpu() - begun_cpu) * 1e3)
            })
            .collect();
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (least, median) = (times[0].0, times[4].0);
        times.sort_by(|a, b| a.1.total_cmp(&b.1));
        let work = times[4].1;
        println!(
            "{what}: {name}: first {first:.1} ms, then {median:.1} ms (least {least:.1} ms, processor {work:.1} ms); {answer} rows"
        );
    }
}
