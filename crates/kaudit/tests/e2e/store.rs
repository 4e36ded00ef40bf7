//! The store of a running process, and its files without one.

use std::path::Path;
use std::process::{Command, Output};

use kaudit_query::Filter;
use kaudit_store::{Options, Order, Scan, Store};
use serde_json::Value;

use crate::collector::Collector;

const REAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/real/");

fn kaudit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(arguments)
        .output()
        .unwrap()
}

/// What a command printed; it has to end with `code`.
#[track_caller]
fn said(arguments: &[&str], code: i32) -> String {
    let output = kaudit(arguments);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let output = kaudit(&[arguments, &["-o", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The events of all files, sorted.
fn sealed(data: &Path) -> Vec<Vec<u8>> {
    let store = Store::open_to_read(&data.join("store"), Options::default()).unwrap();
    let scan = Scan::new(Filter::everything());
    let page = store
        .snapshot()
        .page(&scan, Order::OldestFirst, 1 << 20, None)
        .unwrap();
    assert!(page.next.is_none());
    let mut events: Vec<Vec<u8>> = page.events.iter().map(|event| event.event.to_vec()).collect();
    events.sort_unstable();
    events
}

#[test]
fn what_was_imported_is_sealed_shown_checked_and_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let dir = data.to_str().unwrap();
    let log = format!("{REAL}mixed.audit.jsonl.zst");
    said(
        &[
            "import",
            "--cluster",
            "c",
            "--instance",
            "cp-1",
            "--data-dir",
            dir,
            &log,
        ],
        0,
    );
    let packed = std::fs::read(&log).unwrap();
    let lines = zstd::decode_all(packed.as_slice()).unwrap();
    let mut lines: Vec<&[u8]> = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    lines.sort_unstable();
    let count = i64::try_from(lines.len()).unwrap();

    let kept = "store: {sealAfter: 20ms, retention: 1h, maxSize: 1Gi, \
                holds: [{name: case-1, filter: 'verb: create'}]}\n";
    let process = Collector::start_as("store", folder.path(), kept);
    process.until("everything is sealed", |process| {
        process.metric("kaudit_store_sealed_events_total")[""] == count
    });
    assert_eq!(process.metric("kaudit_store_lag_records")[""], 0);
    assert_eq!(process.metric("kaudit_store_working")["{work=\"sealing\"}"], 1);
    let health = process.get("/readyz?verbose");
    assert!(health.contains("[+]store "), "{health}");
    assert_eq!(json(&["store", "stats", "--data-dir", dir])["events"], count);
    let locked = said(&["store", "compact", "--data-dir", dir], 3);
    assert!(locked.contains("does this by itself"), "{locked}");
    assert_eq!(json(&["verify", dir])["intact"], true);
    process.stop();
    assert!(sealed(&data) == lines, "other events than were imported");

    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    let exported = json(&["export", "verb: create", "--store", dir, "-O", out]);
    let asked = json(&["verify", out]);
    assert_eq!(asked["manifestHash"], exported["manifestHash"]);
    let packed = std::fs::read(format!("{out}/events.ndjson.zst")).unwrap();
    let events = zstd::decode_all(packed.as_slice()).unwrap();
    let events: Vec<&[u8]> = events.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(exported["events"], i64::try_from(events.len()).unwrap());
    assert!(!events.is_empty() && events.len() < lines.len());
    for event in events {
        assert!(lines.binary_search(&&event[..event.len() - 1]).is_ok());
    }
    let again = said(&["export", "--store", dir, "-O", out], 3);
    assert!(again.contains("cannot make the folder"), "{again}");
    std::fs::write(format!("{out}/envelopes.ndjson.zst"), "other").unwrap();
    let found = said(&["verify", out], 6);
    assert!(found.contains("changed  envelopes.ndjson.zst"), "{found}");

    let merged = json(&["store", "compact", "--data-dir", dir]);
    assert_eq!(merged["addedFiles"], 1, "a day is one file: {merged}");
    assert!(sealed(&data) == lines, "other events than before");
    assert_eq!(
        said(&["store", "compact", "--data-dir", dir], 0),
        "nothing is to be merged\n"
    );

    let config = folder.path().join("kaudit.yaml");
    let retain = [
        "store",
        "retain",
        "--data-dir",
        dir,
        "--config",
        config.to_str().unwrap(),
    ];
    let plan = json(&retain);
    let held = plan["items"][0]["keptEvents"].as_i64().unwrap();
    assert!(held > 0 && held < count, "{plan}");
    assert_eq!(
        json(&["store", "stats", "--data-dir", dir])["events"],
        count,
        "a plan removes nothing"
    );
    let done = json(&[&retain[..], &["--yes"]].concat());
    assert_eq!(done["removedEvents"], count - held);
    assert_eq!(json(&["store", "stats", "--data-dir", dir])["events"], held);
    assert!(said(&retain, 0).starts_with("nothing is to be removed\n"));

    let text = said(&["verify", dir], 0);
    assert!(text.contains("1 files,"), "{text}");
    let store = Store::open_to_read(&data.join("store"), Options::default()).unwrap();
    let part = data.join("store").join(&store.manifest().parts[0].path);
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let found = said(&["verify", dir], 6);
    assert!(found.contains("changed  cluster=c/"), "{found}");
    let nowhere = said(&["verify", folder.path().to_str().unwrap()], 3);
    assert!(nowhere.contains("there is no store in"), "{nowhere}");
}

#[test]
fn what_is_sealed_is_recognised_when_it_comes_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let packed = std::fs::read(format!("{REAL}mixed.audit.jsonl.zst")).unwrap();
    let text = zstd::decode_all(packed.as_slice()).unwrap();
    let count = i64::try_from(text.split(|byte| *byte == b'\n').count() - 1).unwrap();
    // Segments of a mebibyte, which the log is larger than.
    let sections = |file: &str| {
        let path = folder.path().join(file);
        std::fs::write(&path, &text).unwrap();
        let path = path.display();
        format!(
            "journal: {{maxSize: 8Mi}}\nstore: {{sealAfter: 20ms}}\ncollect:\n  files: [{{instance: cp-1, path: {path}}}]\n"
        )
    };
    let process = Collector::start_as("collect,store", folder.path(), &sections("one.log"));
    process.until("everything is sealed", |process| {
        process.metric("kaudit_store_sealed_events_total")[""] == count
    });
    process.stop();
    let again = Collector::start_as("collect,store", folder.path(), &sections("two.log"));
    again.until("all of it was read again", |process| {
        let found = process.metric("kaudit_source_duplicates_total");
        found.values().sum::<i64>() == count
    });
    again.stop();
    assert_eq!(
        sealed(&folder.path().join("data")).len(),
        usize::try_from(count).unwrap()
    );
}

#[test]
fn what_cannot_be_meant_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("kaudit.yaml");
    let path = config.to_str().unwrap();
    let head = "apiVersion: kaudit.dev/v1alpha1\nkind: Config\n";
    for (store, expected) in [
        (
            "{retention: 30d, keep: [{name: a, filter: 'verb: x', for: 20d}]}",
            "is not longer than",
        ),
        (
            "{keep: [{name: a, filter: 'verb: x', for: 20d}]}",
            "everything is kept anyway",
        ),
        (
            "{holds: [{name: a, filter: 'verb: x'}, {name: a, filter: 'verb: y'}]}",
            "are called `a`",
        ),
        ("{holds: [{name: a, filter: 'vreb: x'}]}", "line 3"),
    ] {
        std::fs::write(&config, format!("{head}store: {store}\n")).unwrap();
        let text = said(&["config", "validate", path], 2);
        assert!(text.contains(expected), "{text}");
    }
    let text = said(&["run", "--role", "store", "--metrics-listen", "127.0.0.1:0"], 2);
    assert!(text.contains("--data-dir"), "{text}");
    // What the gateway records goes into the store, under the name of a cluster.
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let text = said(&["run", "--role", "gateway,store", "--data-dir", data], 2);
    assert!(
        text.contains("events in the journal need the cluster's name"),
        "{text}"
    );
}
