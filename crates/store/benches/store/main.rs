//! What sealing costs and how fast questions are answered, on a log of yours:
//!
//! ```text
//! KAUDIT_STORE_LOG=audit.log cargo bench -p kaudit-store
//! ```
//!
//! `KAUDIT_STORE_DIR` says where the journal and the store are made (they take a little more than the log).
//!
//! `--wait LOG` tells how long events that come while a log is sealed are not seen, and how soon a merge stops; it takes
//! some four times as much memory as the log is large.
//!
//! With arguments it does one part, for `bench/store`: `--seal LOG STORE`, `--compact STORE`,
//! `--ask STORE AUDIT_ID USER MICROS [QUESTION]...`, which prints the number of each question, how many rows
//! it has, and the milliseconds of the first answer, of later ones, and of the processor, and `--once`, the
//! same without times.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads its settings, prints, and stops at the first surprise"
)]

mod questions;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kaudit_event::record::{RecordHead, Transport};
use kaudit_journal::{Batch, Hold, Journal};
use kaudit_store::{CaughtUp, Compaction, Options, Snapshot, Store};

use crate::questions::{Samples, questions};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => measure(),
        ["--wait", log] => wait(Path::new(log)),
        ["--seal", log, into] => keep(Path::new(log), Path::new(into)),
        ["--compact", store] => compact(&Store::open(Path::new(store), Options::default()).unwrap(), None),
        [how @ ("--ask" | "--once"), store, audit_id, user, ts, names @ ..] => {
            let store = Store::open_to_read(Path::new(store), Options::default()).unwrap();
            let samples = Samples {
                audit_id: (*audit_id).to_owned(),
                user: (*user).to_owned(),
                ts: ts.parse().unwrap(),
            };
            answer(&store.snapshot(), &samples, names, *how == "--once");
        }
        _ => panic!(
            "--wait LOG, --seal LOG STORE, --compact STORE, or --ask|--once STORE AUDIT_ID USER MICROS [QUESTION]..."
        ),
    }
}

/// Seals the log of the environment, compacts it, and asks everything.
fn measure() {
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
        let store = open(&root, threads);
        seal(&store, &journal, bytes);
        if threads == 2 {
            ask("sealed", &store.snapshot());
            compact(&store, Some(bytes));
            ask("compacted", &store.snapshot());
        }
    }
}

fn open(root: &Path, threads: usize) -> Store {
    let mut options = Options::default();
    options.threads = threads.try_into().unwrap();
    Store::open(root, options).unwrap()
}

/// Seals a log into a store that stays.
fn keep(log: &Path, into: &Path) {
    let dir = tempfile::tempdir_in(into.parent().unwrap()).unwrap();
    let (journal, _) = Journal::open(dir.path(), kaudit_journal::Options::default()).unwrap();
    let bytes = fill(&journal, log);
    seal(&open(into, 2), &journal, bytes);
}

/// Seals a whole log at once while single events come, merges it, and merges it again as far as it comes in half the
/// time.
fn wait(log: &Path) {
    let parent = std::env::var("KAUDIT_STORE_DIR").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let (journal, _) =
        Journal::open(&dir.path().join("journal"), kaudit_journal::Options::default()).unwrap();
    let bytes = fill(&journal, log);
    let mut options = Options::default();
    options.tail_bytes = usize::MAX / 4;
    let root = dir.path().join("store");
    let store = Store::open(&root, options).unwrap();
    let cursor = store.cursor(&journal).unwrap();
    assert_eq!(store.catch_up(&journal).unwrap(), CaughtUp::End);
    let line = BufReader::new(std::fs::File::open(log).unwrap())
        .lines()
        .next()
        .unwrap()
        .unwrap();
    let is_done = AtomicBool::new(false);
    let mut waits = Vec::new();
    let took = std::thread::scope(|scope| {
        let seal = scope.spawn(|| {
            let begun = Instant::now();
            store.seal(&cursor, 0).unwrap();
            is_done.store(true, Ordering::Release);
            begun.elapsed()
        });
        while !is_done.load(Ordering::Acquire) {
            let mut batch = Batch::new();
            batch.push(None, &record(line.as_bytes(), 1_795_000_000_000_000));
            journal.append(batch).unwrap().wait().unwrap();
            let (begun, durable) = (Instant::now(), journal.durable().get());
            while store.snapshot().read_to() < durable {
                store.catch_up(&journal).unwrap();
            }
            waits.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        seal.join().unwrap()
    });
    waits.sort_by(f64::total_cmp);
    println!(
        "seal: {:.1} MB in {:.2} s; {} events came meanwhile and were seen after {:.1} ms (median), {:.1} ms at most",
        megabytes(bytes),
        took.as_secs_f64(),
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() - 1],
    );
    let copy = dir.path().join("copy");
    assert!(
        std::process::Command::new("cp")
            .arg("-r")
            .arg(&root)
            .arg(&copy)
            .status()
            .unwrap()
            .success()
    );
    let begun = Instant::now();
    Store::open(&copy, Options::default())
        .unwrap()
        .compact(&Compaction::before(i64::MAX), 0)
        .unwrap();
    let whole = begun.elapsed();
    let stop = begun + whole + whole / 2;
    let is_over = || Instant::now() >= stop;
    let done = store
        .compact_until(&Compaction::before(i64::MAX), 0, &is_over)
        .unwrap();
    if !done.is_ended_early {
        println!(
            "merge: {:.2} s; too small a log: its last row group had begun by then",
            whole.as_secs_f64()
        );
        return;
    }
    println!(
        "merge: {:.2} s; told to stop after half of it, it stops {:.0} ms later",
        whole.as_secs_f64(),
        stop.elapsed().as_secs_f64() * 1e3,
    );
}

fn record(event: &[u8], received_micros: i64) -> Vec<u8> {
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
    record.extend_from_slice(event);
    record
}

/// Merges everything; `bytes` is what the events take as log lines.
fn compact(store: &Store, bytes: Option<u64>) {
    let bytes = bytes.unwrap_or_else(|| store.manifest().parts.iter().map(|part| part.event_bytes).sum());
    let (begun, begun_cpu) = (Instant::now(), cpu());
    let done = store.compact(&Compaction::before(i64::MAX), 0).unwrap();
    let (took, took_cpu) = (begun.elapsed().as_secs_f64(), cpu() - begun_cpu);
    let stored: u64 = store.manifest().parts.iter().map(|part| part.bytes).sum();
    println!(
        "compact: {:.1} MB/s per core, {:.1} MB/s, {} files, {:.1} MB, {:.2}x smaller",
        megabytes(bytes) / took_cpu,
        megabytes(bytes) / took,
        done.added.len(),
        megabytes(stored),
        megabytes(bytes) / megabytes(stored),
    );
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
            let event = line.strip_suffix(b"\n").unwrap_or(&line);
            batch.push(None, &record(event, received_micros));
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

fn ask(what: &str, snapshot: &Snapshot) {
    let samples = Samples::of(snapshot);
    for (name, question) in questions(snapshot, &samples) {
        let Times {
            first,
            least,
            median,
            work,
            rows,
        } = Times::of(&*question);
        println!(
            "{what}: {name}: first {first:.1} ms, then {median:.1} ms (least {least:.1} ms, processor {work:.1} ms); {rows} rows"
        );
    }
}

/// Answers the questions that are named, or all; once, or often enough to say how long it takes.
fn answer(snapshot: &Snapshot, samples: &Samples, names: &[&str], once: bool) {
    for (name, question) in questions(snapshot, samples) {
        let number = name.split_whitespace().next().unwrap();
        if !names.is_empty() && !names.contains(&number) {
            continue;
        }
        if once {
            println!("{number} {}", question());
        } else {
            let Times {
                first,
                median,
                work,
                rows,
                ..
            } = Times::of(&*question);
            println!("{number} {rows} {first:.1} {median:.1} {work:.1}");
        }
    }
}

/// Milliseconds that a question took: the first time, and of nine more the least, the middle one, and the
/// middle one of the processor's.
struct Times {
    first: f64,
    least: f64,
    median: f64,
    work: f64,
    rows: usize,
}

impl Times {
    fn of(question: &dyn Fn() -> usize) -> Self {
        let begun = Instant::now();
        let rows = question();
        let first = begun.elapsed().as_secs_f64() * 1e3;
        let (mut times, mut works) = (Vec::new(), Vec::new());
        for _ in 0..9 {
            let (begun, begun_cpu) = (Instant::now(), cpu());
            question();
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            works.push((cpu() - begun_cpu) * 1e3);
        }
        times.sort_by(f64::total_cmp);
        works.sort_by(f64::total_cmp);
        Self {
            first,
            least: times[0],
            median: times[4],
            work: works[4],
            rows,
        }
    }
}
