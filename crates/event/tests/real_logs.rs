//! Logs of a real kube-apiserver: every line decodes, and encodes to the same bytes again.

#![expect(clippy::unwrap_used, reason = "helpers stop at the first surprise")]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kaudit_event::{DecodedEvent, Eid, Event, EventLine, ndjson_items};

/// The logs in JSON of the folder, unpacked.
fn logs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            let bytes = std::fs::read(&path).unwrap();
            let log = if name.ends_with(".zst") {
                zstd::decode_all(bytes.as_slice()).unwrap()
            } else if name.ends_with(".gz") {
                let mut log = Vec::new();
                flate2::read::MultiGzDecoder::new(bytes.as_slice())
                    .read_to_end(&mut log)
                    .unwrap();
                log
            } else if name.ends_with(".jsonl") {
                bytes
            } else {
                return None;
            };
            // Logs of format legacy lie beside the others.
            log.starts_with(b"{").then_some((path, log))
        })
        .collect()
}

fn folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/real"
    ))];
    folders.extend(std::env::var_os("KAUDIT_REAL_LOGS").map(PathBuf::from));
    folders
}

#[test]
fn real_log_lines_survive_decoding_and_encoding() {
    let mut lines = 0;
    for (path, log) in folders().iter().flat_map(|folder| logs(folder)) {
        let mut wrong = Vec::new();
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            lines += 1;
            let mut again = Vec::new();
            let outcome = Event::from_json_line(line).map(|event| event.write_json_line(&mut again));
            if !matches!(outcome, Ok(Ok(()))) || again != line {
                wrong.push(format!(
                    "{outcome:?}\n  log  {}\n  ours {}",
                    String::from_utf8_lossy(line),
                    String::from_utf8_lossy(&again)
                ));
            }
        }
        let count = wrong.len();
        assert!(
            wrong.is_empty(),
            "{count} lines of {} differ\n{}",
            path.display(),
            wrong.into_iter().take(3).collect::<String>()
        );
    }
    println!("{lines} lines");
    assert!(lines > 1000);
}

#[test]
fn real_log_lines_are_viewed_as_they_are_decoded() {
    for (_, log) in folders().iter().flat_map(|folder| logs(folder)) {
        for line in ndjson_items(&log) {
            let line = Bytes::copy_from_slice(line.unwrap());
            let decoded = DecodedEvent::parse(line).unwrap();
            let (view, event) = (decoded.view(), decoded.to_event().unwrap());
            assert_eq!(&*view.audit_id(), event.audit_id.as_bytes());
            assert_eq!(view.level(), event.level.known());
            assert_eq!(view.stage(), event.stage.known());
            assert_eq!(&*view.user().text("username"), event.user.username.as_bytes());
            assert_eq!(view.stage_timestamp(), Some(event.stage_timestamp));
            assert_eq!(view.annotations().count(), event.annotations.len());
            assert_eq!(
                view.response_status().and_then(|status| status.integer("code")),
                event
                    .response_status
                    .as_ref()
                    .map(|status| i64::from(status.code))
            );
            assert_eq!(
                view.response_object(),
                event
                    .response_object
                    .as_ref()
                    .and_then(|body| body.raw.as_deref())
            );
            assert_eq!(view.unknown_fields().count(), 0);
        }
    }
}

#[test]
fn real_log_lines_are_scanned_without_decoding() {
    for (path, log) in folders().iter().flat_map(|folder| logs(folder)) {
        for line in ndjson_items(&log) {
            let line = line.unwrap();
            let scanned = EventLine::scan(line)
                .unwrap_or_else(|| panic!("{}: {}", path.display(), String::from_utf8_lossy(line)));
            let event = Event::from_json_line(line).unwrap();
            assert_eq!(
                scanned.eid(&[9; 32], "c"),
                Eid::of(&[9; 32], "c", &event).unwrap()
            );
            assert_eq!(scanned.received(), event.request_received_timestamp);
        }
    }
}
