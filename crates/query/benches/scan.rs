//! How fast a log is filtered on one core.
//!
//! `cargo bench -p kaudit-query --bench scan`. `KAUDIT_BENCH_LOG` names a log of one event a line, as
//! `python3 bench/gen_events.py OUT BYTES` makes one; without it, a small one is made up of a few events,
//! which says little. The log is held in memory, its first `KAUDIT_BENCH_BYTES` (1 GiB). For each filter:
//! GB per second of processor time, of the line filter alone, of needles before it, of decoding and `Filter::matches`, and of the way
//! a scanner goes: the line filter, then needles and decoding for what it leaves undecided.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark stops at the first surprise and prints"
)]

use std::hint::black_box;

use bytes::Bytes;
use kaudit_event::{DecodedEvent, MicroTime};
use kaudit_query::{Filter, LineMatch, Row};
use rustix::time::{ClockId, clock_gettime};

const FILTERS: &[&str] = &[
    "responseStatus.code >= 400",
    "verb: delete",
    "verb: delete and objectRef.resource: secrets",
    "user.username: \"anna.meyer@example.com\" and verb: delete",
    "not user.username: system:* and time >= 2026-11-22T12:00:00Z",
    "annotations.\"authorization.k8s.io/decision\": forbid",
    "sourceIPs: 198.51.100.0/24",
    "verb: create and requestObject.spec.containers.image: *:7.*",
    "requestObject.spec.template.spec.containers.image: *:latest",
    "responseObject.status.phase: Failed",
    "requestObject.spec.replicas: 3 or responseObject.spec.replicas: 3",
    "\"db-credentials\"",
];

fn main() {
    let bytes = std::env::var_os("KAUDIT_BENCH_BYTES")
        .map_or(1 << 30, |bytes| bytes.to_str().unwrap().parse().unwrap());
    let log = match std::env::var_os("KAUDIT_BENCH_LOG") {
        Some(path) => {
            use std::io::Read as _;
            let mut log = Vec::new();
            std::fs::File::open(path)
                .unwrap()
                .take(bytes)
                .read_to_end(&mut log)
                .unwrap();
            log
        }
        None => made_up(),
    };
    let log = Bytes::from(log);
    let gigabytes = log.len() as f64 / 1e9;
    println!(
        "{gigabytes:.3} GB, {} lines",
        memchr::memchr_iter(b'\n', &log).count()
    );
    let start = processor();
    let lines = each_line(&log, |line| black_box(line.len()) > 0);
    println!(
        "lines alone {:.2} GB/s ({lines})",
        gigabytes / (processor() - start)
    );
    println!(
        "{:<66} {:>8} {:>8} {:>9} {:>8} {:>8} {:>9}",
        "filter", "line", "needles", "decoding", "scanner", "found", "undecided"
    );
    for text in FILTERS {
        row(&log, gigabytes, text);
    }
}

/// Seconds that this process, which has one thread, spent on a processor.
fn processor() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn row(log: &Bytes, gigabytes: f64, text: &str) {
    let filter = Filter::parse(text, MicroTime::from_unix(0, 0)).unwrap();
    let timed = |body: &mut dyn FnMut() -> usize| {
        let start = processor();
        let found = body();
        (format!("{:.2}", gigabytes / (processor() - start)), found)
    };
    let decoded = |line: &[u8]| {
        let event = DecodedEvent::parse(log.slice_ref(line)).unwrap();
        filter.matches(&Row::of(event.view()))
    };
    let for_lines = filter.for_lines();
    let needles = filter.needles();
    let mut undecided = 0;
    let (line, _) = match &for_lines {
        Some(lines) => timed(&mut || {
            each_line(log, |line| match lines.matches(line) {
                LineMatch::Yes => true,
                LineMatch::No => false,
                LineMatch::Undecided => {
                    undecided += 1;
                    false
                }
            })
        }),
        None => ("-".to_owned(), 0),
    };
    let (needle, _) = match &needles {
        Some(needles) => timed(&mut || each_line(log, |line| needles.may_match(line))),
        None => ("-".to_owned(), 0),
    };
    let (decoding, expected) = timed(&mut || each_line(log, decoded));
    let (scanner, found) = timed(&mut || {
        each_line(log, |line| {
            let answer = for_lines
                .as_ref()
                .map_or(LineMatch::Undecided, |lines| lines.matches(line));
            match answer {
                LineMatch::Yes => true,
                LineMatch::No => false,
                LineMatch::Undecided => {
                    needles.as_ref().is_none_or(|needles| needles.may_match(line)) && decoded(line)
                }
            }
        })
    });
    assert_eq!(found, expected, "{text}");
    println!("{text:<66} {line:>8} {needle:>8} {decoding:>9} {scanner:>8} {found:>8} {undecided:>9}");
}

/// How many lines `wants` takes.
fn each_line(log: &[u8], mut wants: impl FnMut(&[u8]) -> bool) -> usize {
    let mut found = 0;
    let mut from = 0;
    for end in memchr::memchr_iter(b'\n', log) {
        found += usize::from(wants(log.get(from..end).unwrap_or_default()));
        from = end + 1;
    }
    found
}

fn made_up() -> Vec<u8> {
    let event = |verb: &str, code: u16, user: &str| {
        format!(
            "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"53883beb-836d-4e08-a99f-0e9b9b1df579\",\"stage\":\"ResponseComplete\",\"requestURI\":\"/api/v1/namespaces/payments/secrets/db-credentials\",\"verb\":\"{verb}\",\"user\":{{\"username\":\"{user}\",\"groups\":[\"system:authenticated\"]}},\"sourceIPs\":[\"10.0.0.15\"],\"userAgent\":\"kubectl/v1.34.1 (linux/amd64) kubernetes/93248f9\",\"objectRef\":{{\"resource\":\"secrets\",\"namespace\":\"payments\",\"name\":\"db-credentials\",\"apiVersion\":\"v1\"}},\"responseStatus\":{{\"metadata\":{{}},\"code\":{code}}},\"requestReceivedTimestamp\":\"2026-11-22T00:00:00.758230Z\",\"stageTimestamp\":\"2026-11-22T00:00:00.769659Z\",\"annotations\":{{\"authorization.k8s.io/decision\":\"allow\",\"authorization.k8s.io/reason\":\"\"}}}}\n"
        )
    };
    let some = [
        event("get", 200, "system:node:n1"),
        event("delete", 403, "anna.meyer@example.com"),
        event("list", 200, "system:apiserver"),
    ];
    some.concat().repeat(20_000).into_bytes()
}
