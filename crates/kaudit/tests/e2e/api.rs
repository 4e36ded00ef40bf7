//! The API of a running kaudit as a program meets it, and the questions of the command line with and without it.

mod answers;
mod command_line;
mod description;
mod export;
mod follow;
mod http;
mod objects;

use std::path::PathBuf;

use serde_json::Value;

use self::http::{Client, encoded};
use crate::collector::Collector;

const REAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/real/");

/// A kaudit that has read a real log, and what is in the log.
struct Running {
    process: Collector,
    client: Client,
    log: PathBuf,
    lines: Vec<Vec<u8>>,
    events: Vec<Value>,
    folder: tempfile::TempDir,
}

impl Running {
    /// Reads the log of this name; `store` is that section of the configuration. Waits until all of it can be asked for.
    fn with(name: &str, store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let packed = std::fs::read(format!("{REAL}{name}.audit.jsonl.zst")).unwrap();
        let text = zstd::decode_all(packed.as_slice()).unwrap();
        let log = folder.path().join("audit.log");
        std::fs::write(&log, &text).unwrap();
        let lines: Vec<Vec<u8>> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        let events = lines.iter().map(|line| json_of(line)).collect();
        let sections = format!(
            "collect:\n  files: [{{instance: cp-1, path: {}}}]\nstore: {store}\n",
            log.display()
        );
        let process = Collector::start_as("collect,store", folder.path(), &sections);
        let token = std::fs::read_to_string(&process.token).unwrap();
        let client = Client::new(&process.api, token.trim());
        let running = Self {
            process,
            client,
            log,
            lines,
            events,
            folder,
        };
        running.until_there_are(running.lines.len());
        running
    }

    fn until_there_are(&self, events: usize) {
        self.process.until("all events can be asked for", |_| {
            self.json("/api/v1/count")["count"] == events
        });
    }

    /// A good answer.
    #[track_caller]
    fn json(&self, target: &str) -> Value {
        let answer = self.client.get(target, &[]);
        assert_eq!(answer.code, 200, "{target}: {}", answer.text());
        answer.json()
    }

    /// All items of a stream, and its end.
    #[track_caller]
    fn streamed(&self, target: &str) -> (Vec<Value>, Value) {
        let answer = self.client.get(target, &[("accept", "application/x-ndjson")]);
        assert_eq!(answer.code, 200, "{target}: {}", answer.text());
        assert_eq!(answer.kind, "application/x-ndjson");
        let text = answer.text();
        let mut items: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let end = items.pop().unwrap()["end"].take();
        assert_eq!(end["events"], items.len(), "{end}");
        (items, end)
    }
}

/// What is no UTF-8 in an event is replaced.
fn json_of(text: &[u8]) -> Value {
    serde_json::from_str(&String::from_utf8_lossy(text)).unwrap()
}

/// A target whose parameters are written as they are meant.
fn target(path: &str, parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    format!("/api/v1/{path}?{}", pairs.join("&"))
}

type IsMeant = fn(&Value) -> bool;

/// Filters, and what each means.
const FILTERS: [(&str, IsMeant); 8] = [
    ("", |_| true),
    ("responseStatus.code >= 400", |event| {
        event["responseStatus"]["code"].as_i64() >= Some(400)
    }),
    (
        r#"user.username: "alice@example.com" AND verb: "delete""#,
        |event| event["user"]["username"] == "alice@example.com" && event["verb"] == "delete",
    ),
    ("objectRef.resource: secrets", |event| {
        event["objectRef"]["resource"] == "secrets"
    }),
    ("not stage: RequestReceived", |event| {
        event["stage"] != "RequestReceived"
    }),
    ("not objectRef.namespace: *", |event| {
        event["objectRef"]["namespace"].as_str().is_none_or(str::is_empty)
    }),
    ("user.username: system:*", |event| {
        let user = event["user"]["username"].as_str().unwrap_or_default();
        user.starts_with("system:")
    }),
    (
        "verb: (create or update) and responseStatus.code < 300",
        |event| {
            (event["verb"] == "create" || event["verb"] == "update")
                && event["responseStatus"]["code"]
                    .as_i64()
                    .is_some_and(|code| code < 300)
        },
    ),
];
