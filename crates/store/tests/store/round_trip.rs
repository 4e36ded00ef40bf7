//! Every event comes back byte by byte, from the tail and from files.

use std::process::Command;

use crate::bed::{Bed, odd_lines, real_lines};

fn comes_back(lines: &[Vec<u8>]) -> u64 {
    let bed = Bed::new();
    bed.take("c", lines.iter().map(Vec::as_slice));
    bed.catch_up();
    let from_tail = bed.all();
    bed.seal();
    let from_files = bed.all();
    assert_eq!(from_tail.len(), lines.len());
    assert!(from_tail == from_files, "the tail and the files give the same");
    for (stored, line) in from_files.iter().zip(lines) {
        assert_eq!(
            String::from_utf8_lossy(&stored.event),
            String::from_utf8_lossy(line)
        );
        assert_eq!(stored.event, *line);
        assert_eq!(
            (
                &*stored.cluster,
                &*stored.source,
                &*stored.instance,
                stored.policy_rule
            ),
            ("c", "audit.log", "cp-1", Some(7))
        );
    }
    bed.store.snapshot().stats().raw_rows
}

#[test]
fn events_of_real_logs_come_back_byte_by_byte() {
    let lines = real_lines();
    let raw = comes_back(&lines);
    let bound = lines.len() as u64 / 50;
    assert!(raw < bound, "{raw} of {} rows keep their bytes", lines.len());
}

#[test]
fn odd_events_come_back_byte_by_byte() {
    comes_back(&odd_lines());
}

/// As many as the generator makes of 13.6 MB.
#[test]
fn ten_thousand_generated_events_come_back_byte_by_byte_and_none_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let generator = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/gen_events.py");
    let made = Command::new("python3")
        .arg(generator)
        .arg(&path)
        .arg("13.6e6")
        .output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let log = std::fs::read(&path).unwrap();
    let lines: Vec<Vec<u8>> = log
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    assert!(lines.len() >= 10_000, "{}", lines.len());
    assert_eq!(comes_back(&lines), 0);
}
