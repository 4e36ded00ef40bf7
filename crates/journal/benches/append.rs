//! What the journal costs beside what the disk costs.
//!
//! `cargo bench -p kaudit-journal --bench append`. One run measures the disk alone (write and fdatasync of
//! groups of the same sizes), appends by several threads, the time to an acknowledgement at 4,000 records a
//! second, and how long a large journal takes to open. `KAUDIT_BENCH_DIR` says on which disk (the directory
//! for temporary files otherwise), `KAUDIT_BENCH_BYTES` how large the journal is (1 GiB).

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark stops at the first surprise and prints"
)]

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kaudit_journal::{Batch, Item, Journal, Options, Reject, Seq, Ticket};
use rustix::fs::FallocateFlags;
use rustix::time::{ClockId, clock_gettime};

const RECORD: usize = 1536;
const LEVEL: Duration = Duration::from_secs(2);

fn main() {
    let base = std::env::var_os("KAUDIT_BENCH_DIR");
    let dir = base.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let bytes = std::env::var_os("KAUDIT_BENCH_BYTES")
        .map_or(1 << 30, |bytes| bytes.to_str().unwrap().parse::<u64>().unwrap());
    println!(
        "records of {RECORD} bytes with a tag, in {}",
        dir.path().display()
    );
    disk(dir.path());
    processor();
    throughput(dir.path());
    latency(dir.path());
    restart(dir.path(), bytes);
}

/// Seconds that this process spent on processors.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share) as usize;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// What the disk does by itself, in files of the size of a segment that are new, or written before.
fn disk(dir: &Path) {
    println!("\nthe disk alone: write + fdatasync, space taken beforehand");
    println!(
        "{:>10} {:>8} {:>10} {:>10} {:>10} {:>12} {:>14}",
        "bytes", "space", "p50 us", "p99 us", "MB/s", "records/s", "cpu us/record"
    );
    for records in [1, 20, 170, 680, 5440] {
        for is_new in [true, false] {
            disk_row(dir, records, is_new);
        }
    }
}

fn disk_row(dir: &Path, records: usize, is_new: bool) {
    let size = 64 << 20;
    let path = dir.join("limit");
    let open = || {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size).unwrap();
        file.sync_all().unwrap();
        file
    };
    let mut file = open();
    let bytes = records * (RECORD + 56);
    let buffer = vec![7; bytes];
    if !is_new {
        file.write_all_at(&vec![1; 64 << 20], 0).unwrap();
        file.sync_all().unwrap();
    }
    let (mut offset, mut took) = (0, Vec::new());
    let (begun, cpu_before) = (Instant::now(), cpu());
    while begun.elapsed() < LEVEL {
        let one = Instant::now();
        file.write_all_at(&buffer, offset).unwrap();
        file.sync_data().unwrap();
        took.push(one.elapsed());
        offset += bytes as u64;
        if offset + bytes as u64 > size {
            offset = 0;
            if is_new {
                file = open();
            }
        }
    }
    let (elapsed, used) = (begun.elapsed().as_secs_f64(), cpu() - cpu_before);
    let all = (took.len() * records) as f64;
    took.sort_unstable();
    println!(
        "{bytes:>10} {:>8} {:>10} {:>10} {:>10.0} {:>12.0} {:>14.2}",
        if is_new { "new" } else { "again" },
        at(&took, 0.5).as_micros(),
        at(&took, 0.99).as_micros(),
        all * (RECORD + 56) as f64 / 1e6 / elapsed,
        all / elapsed,
        used / all * 1e6,
    );
    drop(file);
    std::fs::remove_file(path).unwrap();
}

fn batch(records: usize, payload: &[u8]) -> Batch {
    let mut batch = Batch::with_capacity(records * (RECORD + 64));
    for _ in 0..records {
        batch.push(Some([1; 24]), payload);
    }
    batch
}

/// What building batches costs whoever appends.
fn processor() {
    let payload = vec![b'x'; RECORD];
    let (count, before) = (2000, cpu());
    for _ in 0..count {
        std::hint::black_box(batch(100, &payload));
    }
    let used = cpu() - before;
    println!(
        "\nbuilding batches of 100 (copy and checksum): {:.3} cpu us/record",
        used / f64::from(count) * 1e4
    );
}

fn open(dir: &Path, max_bytes: u64) -> Journal {
    let mut options = Options::default();
    options.max_bytes = max_bytes;
    Journal::open(dir, options).unwrap().0
}

fn throughput(dir: &Path) {
    println!("\nappending from threads, batches of 100, queue of 32 MiB");
    println!(
        "{:>8} {:>9} {:>12} {:>10} {:>16} {:>14} {:>12}",
        "threads", "space", "records/s", "MB/s", "records/cpu-s", "cpu us/record", "group mean"
    );
    for (threads, max_bytes) in [(1, 4 << 30), (2, 4 << 30), (8, 4 << 30), (2, 192 << 20)] {
        let dir = dir.join(format!("throughput-{threads}"));
        let journal = open(&dir, max_bytes);
        let payload = vec![b'x'; RECORD];
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let (begun, before) = (Instant::now(), cpu());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut waiting: VecDeque<Ticket> = VecDeque::new();
                    while !stop.load(Ordering::Relaxed) {
                        match journal.append(batch(100, &payload)) {
                            Ok(ticket) => waiting.push_back(ticket),
                            Err(rejected) => assert_eq!(rejected.reason, Reject::QueueFull),
                        }
                        if waiting.len() >= 128 / threads {
                            waiting.pop_front().unwrap().wait().unwrap();
                            done.fetch_add(100, Ordering::Relaxed);
                        }
                    }
                    for ticket in waiting {
                        ticket.wait().unwrap();
                        done.fetch_add(100, Ordering::Relaxed);
                    }
                });
            }
            std::thread::sleep(LEVEL);
            stop.store(true, Ordering::Relaxed);
        });
        let (elapsed, used) = (begun.elapsed().as_secs_f64(), cpu() - before);
        let all = done.load(Ordering::Relaxed) as f64;
        let stats = journal.stats();
        println!(
            "{threads:>8} {:>9} {:>12.0} {:>10.0} {:>16.0} {:>14.2} {:>12}",
            if max_bytes < 1 << 30 { "recycled" } else { "new" },
            all / elapsed,
            all * RECORD as f64 / 1e6 / elapsed,
            all / used,
            used / all * 1e6,
            stats.committed_records / stats.commits.max(1),
        );
        drop(journal);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

fn latency(dir: &Path) {
    println!("\ntime to the acknowledgement at 4,000 records/s");
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>12}",
        "batch", "p50 us", "p99 us", "max us", "commits/s", "cpu us/record"
    );
    for records in [1_usize, 100] {
        let dir = dir.join(format!("latency-{records}"));
        let journal = open(&dir, 1 << 30);
        let payload = vec![b'x'; RECORD];
        let pause = Duration::from_nanos(1_000_000_000 / 4000 * records as u64);
        let (sender, receiver) = mpsc::sync_channel::<(Instant, Ticket)>(65_536);
        let (begun, before) = (Instant::now(), cpu());
        let mut took: Vec<Duration> = std::thread::scope(|scope| {
            let waiter = scope.spawn(move || {
                let answers = receiver.into_iter();
                answers
                    .map(|(begun, ticket)| {
                        ticket.wait().unwrap();
                        begun.elapsed()
                    })
                    .collect()
            });
            let mut due = begun;
            while begun.elapsed() < 2 * LEVEL {
                let batch = batch(records, &payload);
                sender
                    .send((Instant::now(), journal.append(batch).unwrap()))
                    .unwrap();
                due += pause;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            drop(sender);
            waiter.join().unwrap()
        });
        let (elapsed, used) = (begun.elapsed().as_secs_f64(), cpu() - before);
        let stats = journal.stats();
        took.sort_unstable();
        println!(
            "{records:>8} {:>10} {:>10} {:>10} {:>10.0} {:>12.2}",
            at(&took, 0.5).as_micros(),
            at(&took, 0.99).as_micros(),
            at(&took, 1.0).as_micros(),
            stats.commits as f64 / elapsed,
            used / (took.len() * records) as f64 * 1e6,
        );
        drop(journal);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

fn restart(dir: &Path, bytes: u64) {
    let dir = dir.join("restart");
    let journal = open(&dir, bytes + (1 << 30));
    let payload = vec![b'x'; RECORD];
    let mut waiting = VecDeque::new();
    for _ in 0..bytes / (100 * (RECORD as u64 + 84)) {
        waiting.push_back(journal.append(batch(100, &payload)).unwrap());
        if waiting.len() > 64 {
            waiting.pop_front().unwrap().wait().unwrap();
        }
    }
    journal.close();
    let stats = journal.stats();
    drop(journal);
    let mut options = Options::default();
    options.max_bytes = bytes + (1 << 30);
    let begun = Instant::now();
    let (journal, recovery) = Journal::open(&dir, options).unwrap();
    let opened = begun.elapsed();
    println!(
        "\nopening {} segments, {} MB, {} records: {:.1} ms (the last segment: {} MB)",
        recovery.segments,
        recovery.bytes / 1_000_000,
        recovery.records,
        opened.as_secs_f64() * 1e3,
        (stats.bytes % (64 << 20)) / 1_000_000,
    );
    let begun = Instant::now();
    let listed: usize = journal
        .tags()
        .filter_map(|tags| tags.tags)
        .map(|tags| tags.len())
        .sum();
    println!("its {listed} tags: {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    let (begun, before) = (Instant::now(), cpu());
    let mut reader = journal.reader(Seq::FIRST);
    let mut read = 0_u64;
    while let Some(item) = reader.next().unwrap() {
        read += u64::from(matches!(item, Item::Record { .. }));
    }
    println!(
        "reading it: {:.0} records/s, {:.2} cpu us/record",
        read as f64 / begun.elapsed().as_secs_f64(),
        (cpu() - before) / read as f64 * 1e6,
    );
}
