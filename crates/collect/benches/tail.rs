//! How fast files are read and split: `cargo bench -p kaudit-collect`, or with the path of a log in JSON
//! lines as the only argument. Prints MB/s of text and lines per CPU second.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, and stops at the first surprise"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use kaudit_collect::{ImportConfig, ImportFile, Poll, Tail, TailConfig};

/// Bytes of the log that is made when none is given.
const LOG_BYTES: usize = 512 << 20;

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let text = input();
    let plain = directory.path().join("audit.log");
    fs::write(&plain, &text).unwrap();
    report("tail, plain", &text, || tail(&plain));
    let folder = directory.path().join("rotated");
    fs::create_dir(&folder).unwrap();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&text).unwrap();
    let archive = folder.join("audit-2026-07-23T14-47-51.123.log.gz");
    fs::write(&archive, encoder.finish().unwrap()).unwrap();
    report("tail, gzip", &text, || tail(&folder.join("audit.log")));
    let packed = directory.path().join("audit.zst");
    fs::write(&packed, zstd::encode_all(&text[..], 3).unwrap()).unwrap();
    report("import, plain", &text, || import(&plain));
    report("import, zstd", &text, || import(&packed));
    let items: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let list = [
        b"{\"kind\":\"EventList\",\"items\":[",
        items.join(&b',').as_slice(),
        b"]}",
    ]
    .concat();
    let path = directory.path().join("list.json");
    fs::write(&path, &list).unwrap();
    report("import, list", &list, || import(&path));
}

fn input() -> Vec<u8> {
    let given = std::env::args_os()
        .skip(1)
        .find(|argument| Path::new(argument).is_file());
    let path = given.map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/real/mixed.audit.jsonl.zst"),
        PathBuf::from,
    );
    let file = fs::read(&path).unwrap();
    if path.extension().is_none_or(|suffix| suffix != "zst") {
        return file;
    }
    let text = zstd::decode_all(&file[..]).unwrap();
    text.repeat(LOG_BYTES / text.len())
}

fn report(name: &str, text: &[u8], run: impl Fn() -> usize) {
    run();
    let before = cpu_time();
    let start = std::time::Instant::now();
    let lines = run();
    let wall = start.elapsed();
    let cpu = cpu_time() - before;
    println!(
        "{name:14} {:6.0} MB/s, {:5.2} million lines per CPU second ({lines} lines of {} bytes on average)",
        text.len() as f64 / 1e6 / wall.as_secs_f64(),
        lines as f64 / 1e6 / cpu.as_secs_f64(),
        text.len() / lines,
    );
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

fn tail(path: &Path) -> usize {
    let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut tail = Tail::open(TailConfig::new(path.to_str().unwrap()), None, now).unwrap();
    let mut lines = 0;
    loop {
        now += Duration::from_micros(100);
        match tail.poll(now) {
            Poll::Chunk(chunk) => {
                assert!(chunk.torn.is_empty());
                lines += chunk.lines.len();
            }
            Poll::Idle => return lines,
        }
    }
}

fn import(path: &Path) -> usize {
    let mut import = ImportFile::open(path, ImportConfig::default()).unwrap();
    let mut lines = 0;
    while let Some(chunk) = import.next_chunk().unwrap() {
        lines += chunk.lines.len();
    }
    lines
}
