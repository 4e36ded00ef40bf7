//! Logs of a real kube-apiserver, and of kaudit's own log backend.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use kaudit_backend::{Format, Log, Rotation};
use kaudit_collect::{ImportConfig, ImportFile};
use kaudit_sink::{Emission, Sink};

use crate::reader::Reader;
use crate::writer::{Writer, compress};

/// Each log's name and bytes.
fn logs() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/real");
    let logs: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.zst"))
        .map(|path| {
            let text = zstd::decode_all(fs::File::open(&path).unwrap()).unwrap();
            (path, text)
        })
        .collect();
    assert!(logs.len() >= 3);
    logs
}

fn with_line_ends(lines: &[Vec<u8>]) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|line| [line.as_slice(), b"\n"].concat())
        .collect()
}

#[test]
fn real_logs_come_through_the_tail_byte_for_byte_over_rotations() {
    for (path, text) in logs() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(directory.path());
        let mut reader = Reader::new(&writer.path);
        let mut backups = Vec::new();
        for (index, part) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            writer.write(part);
            if index % 97 == 96 {
                backups.push(writer.rotate());
            }
            if index % 150 == 149 {
                reader.drain();
                backups.drain(..).for_each(|backup| drop(compress(&backup)));
            }
            if index % 400 == 399 {
                reader.restart();
            }
        }
        reader.settle();
        assert!(with_line_ends(&reader.lines) == text, "{}", path.display());
        assert_eq!((reader.torn.len(), reader.gaps.len()), (0, 0));
    }
}

#[test]
fn real_logs_come_through_the_import_byte_for_byte() {
    for (path, text) in logs() {
        let mut import = ImportFile::open(&path, ImportConfig::default()).unwrap();
        let mut lines = Vec::new();
        while let Some(chunk) = import.next_chunk().unwrap() {
            assert_eq!(chunk.torn, []);
            lines.extend(chunk.texts().map(<[u8]>::to_vec));
        }
        assert!(with_line_ends(&lines) == text, "{}", path.display());
        let identity = import.identity().unwrap();
        assert_eq!(identity.length, text.len() as u64);
        assert_eq!(identity.hash, *blake3::hash(&text).as_bytes());
        let progress = import.progress();
        assert_eq!(Some(progress.read_bytes), progress.total_bytes);
    }
}

#[test]
fn what_the_log_backend_writes_and_rotates_is_read_once() {
    let (_, text) = logs().remove(0);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let rotation = Rotation {
        max_size_megabytes: 1,
        compress: true,
        ..Rotation::default()
    };
    let log = Log::file(&path, rotation, Format::Json, Arc::default()).unwrap();
    let mut reader = Reader::new(&path);
    let mut written = 0;
    for round in 0..3 {
        for (index, line) in lines.iter().enumerate() {
            let Ok(event) = kaudit_event::Event::from_json_line(line) else {
                continue;
            };
            log.submit_batch(vec![Emission::new(&event)]).wait().unwrap();
            written += 1;
            if index % 500 == 0 {
                reader.drain();
            }
        }
        if round == 1 {
            reader.restart();
        }
    }
    drop(log);
    reader.settle();
    assert_eq!(reader.lines.len(), written);
    assert_eq!((reader.torn.len(), reader.gaps.len()), (0, 0));
    assert!(reader.anomalies.rotations > 0);
}
