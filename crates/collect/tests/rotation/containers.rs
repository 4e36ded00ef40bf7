//! kube-apiserver with `--audit-log-path=-`: its events come through a container runtime.

use std::fs;
use std::io::Write;

use kaudit_collect::TailConfig;

use crate::reader::Reader;
use crate::writer::{compress, event};

/// What containerd writes for a line: parts of at most `part` bytes.
fn entries(line: &[u8], part: usize) -> Vec<Vec<u8>> {
    let line = line.strip_suffix(b"\n").unwrap();
    let count = line.len().div_ceil(part);
    line.chunks(part)
        .enumerate()
        .map(|(index, text)| {
            let tag: &[u8] = if index + 1 == count { b"F" } else { b"P" };
            [b"2026-07-23T14:47:51.123456789Z stdout ", tag, b" ", text, b"\n"].concat()
        })
        .collect()
}

const KLOG: &[u8] = b"2026-07-23T14:47:51.2Z stderr F I0723 14:47:51.200000 1 trace.go:236] Trace[1]: {\n";

#[test]
fn r15_parts_of_a_container_line_are_put_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let mut file = fs::File::create(&path).unwrap();
    let mut reader = Reader::with(TailConfig {
        max_chunk_bytes: 20_000,
        ..TailConfig::new(path.to_str().unwrap())
    });
    let mut expected = Vec::new();
    for number in 0..30 {
        let line = event(number, usize::try_from(number * number * 150).unwrap());
        for entry in entries(&line, 16 << 10) {
            file.write_all(&entry).unwrap();
            if number % 3 == 0 {
                file.write_all(KLOG).unwrap();
            }
            reader.drain();
            if number % 7 == 0 {
                reader.restart();
            }
        }
        expected.push(line.strip_suffix(b"\n").unwrap().to_vec());
    }
    reader.drain();
    assert_eq!(reader.lines, expected);
    assert_eq!((reader.torn.len(), reader.gaps.len()), (0, 0));
    // What is no event does not pass as one.
    file.write_all(b"2026-07-23T14:47:51Z stdout F plain text\nno entry at all\n")
        .unwrap();
    reader.drain();
    assert_eq!(reader.torn, [b"plain text".to_vec(), b"no entry at all".to_vec()]);
}

#[test]
fn r15_the_kubelet_rotates_between_two_parts() {
    for restarts_at in 0..8_u32 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut file = fs::File::create(&path).unwrap();
        let mut reader = Reader::new(&path);
        let mut expected = Vec::new();
        let mut parts = Vec::new();
        for number in 0..6 {
            let line = event(number, 50_000);
            parts.extend(entries(&line, 16 << 10));
            expected.push(line.strip_suffix(b"\n").unwrap().to_vec());
        }
        for (index, part) in parts.iter().enumerate() {
            file.write_all(part).unwrap();
            if index % 5 == 4 {
                let backup = directory.path().join(format!("0.log.20260723-1447{index:02}"));
                fs::rename(&path, &backup).unwrap();
                file = fs::File::create(&path).unwrap();
                if restarts_at & 1 != 0 {
                    reader.settle();
                }
                if restarts_at & 2 != 0 {
                    reader.restart();
                }
                if restarts_at & 4 != 0 {
                    compress(&backup);
                }
            }
        }
        reader.settle();
        reader.restart();
        reader.settle();
        assert_eq!(
            reader.lines.len(),
            expected.len(),
            "{restarts_at} {:?}",
            reader.numbers()
        );
        assert!(reader.lines == expected, "{restarts_at}");
        assert_eq!((reader.torn.len(), reader.gaps.len()), (0, 0), "{restarts_at}");
    }
}

#[test]
fn r15_a_container_line_that_is_too_long_is_described() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let mut file = fs::File::create(&path).unwrap();
    let mut reader = Reader::with(TailConfig {
        max_line_bytes: 100_000,
        max_chunk_bytes: 10_000,
        ..TailConfig::new(path.to_str().unwrap())
    });
    for (number, pad) in [(0, 10), (1, 500_000), (2, 99_000)] {
        for entry in entries(&event(number, pad), 16 << 10) {
            file.write_all(&entry).unwrap();
        }
    }
    reader.drain();
    assert_eq!(reader.numbers(), [0, 2]);
    assert_eq!((reader.anomalies.oversized_lines, reader.torn.len()), (1, 0));
}
