//! Logs and posts of a real kube-apiserver through the running binary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::oracle;
use crate::place::{self, Place, Setting, post};
use crate::scale::report;

const REAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/real/");

const LINE_HEAD: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// The items of a post, as a log would have them.
fn items(body: &[u8]) -> Vec<Vec<u8>> {
    let list: List<'_> = serde_json::from_slice(body).unwrap();
    let line = |item: &&RawValue| [LINE_HEAD, &item.get().as_bytes()[1..]].concat();
    list.items.iter().map(line).collect()
}

#[test]
fn real_logs_and_posts_are_stored_byte_for_byte() {
    let logs = tempfile::tempdir().unwrap();
    let mut expected: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for name in ["metadata-all", "rr-all", "mixed"] {
        let compressed = std::fs::read(format!("{REAL}{name}.audit.jsonl.zst")).unwrap();
        let text = zstd::decode_all(&compressed[..]).unwrap();
        let path = logs.path().join(format!("{name}.log"));
        std::fs::write(&path, &text).unwrap();
        files.push((name.to_owned(), path));
        let lines = text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
        expected.insert(name.to_owned(), lines.map(<[u8]>::to_vec).collect());
    }
    let mut posts = Vec::new();
    for name in [
        "1-http1-mixed.http",
        "2-http1-mixed-small.http",
        "3-http2-rr-nomf.body.json",
    ] {
        let mut body = std::fs::read(format!("{REAL}webhook/{name}")).unwrap();
        if name.ends_with(".http") {
            let end = body.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
            body.drain(..end + 4);
        }
        let cluster = format!("post-{}", &name[..1]);
        expected.insert(cluster.clone(), items(&body));
        posts.push((cluster, Bytes::from(body)));
    }
    let place = Place::new(&Setting {
        files,
        ..Setting::default()
    });
    let process = place.start();
    let sender = place.sender(process.collector);
    for (cluster, body) in posts {
        // The second is what a sender does whose answer was lost.
        for _ in 0..2 {
            let told = place::runtime().block_on(post(&sender, &cluster, body.clone()));
            assert_eq!(told.map(|told| told.status), Some(200));
        }
    }
    process.wait_until_read();
    assert!(process.metric("kaudit_source_quarantined_total", " ") < 0.5);
    process.stop();
    let stored = oracle::lines(&place.data);
    let clusters: Vec<_> = expected.keys().collect();
    assert_eq!(stored.keys().collect::<Vec<_>>(), clusters);
    let mut total = 0;
    for (cluster, expected) in &expected {
        let stored = &stored[cluster];
        for (number, (stored, expected)) in stored.iter().zip(expected).enumerate() {
            assert_eq!(
                String::from_utf8_lossy(stored),
                String::from_utf8_lossy(expected),
                "{cluster}, {number}"
            );
            assert!(
                stored == expected,
                "{cluster}, {number}: bytes that are no UTF-8 differ"
            );
        }
        assert_eq!(stored.len(), expected.len(), "{cluster}");
        total += stored.len();
    }
    report("real logs and posts", "events, equal byte for byte", total);
}
