//! A journal and a store in a folder of their own.

use std::path::PathBuf;

use kaudit_event::record::{RecordHead, Transport};
use kaudit_journal::{Batch, Cursor, Journal};
use kaudit_query::Filter;
use kaudit_store::{CaughtUp, Options, Order, Page, Scan, Store, StoredEvent};

pub(crate) const NOW: i64 = 1_795_000_000_000_000;
pub(crate) const DAY: i64 = 86_400_000_000;

pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) journal: Journal,
    pub(crate) store: Store,
    pub(crate) cursor: Cursor,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&dir.path().join("journal"), small_journal()).unwrap();
        let store = Store::open(&dir.path().join("store"), options()).unwrap();
        let cursor = store.cursor(&journal).unwrap();
        Self {
            dir,
            journal,
            store,
            cursor,
        }
    }

    pub(crate) fn take<'a>(&self, cluster: &str, events: impl IntoIterator<Item = &'a [u8]>) {
        let mut batch = Batch::new();
        for event in events {
            batch.push(None, &record(cluster, event));
            if batch.bytes() > 1 << 20 {
                self.journal
                    .append(std::mem::take(&mut batch))
                    .unwrap()
                    .wait()
                    .unwrap();
            }
        }
        self.journal.append(batch).unwrap().wait().unwrap();
    }

    pub(crate) fn catch_up(&self) {
        assert_eq!(self.store.catch_up(&self.journal).unwrap(), CaughtUp::End);
    }

    pub(crate) fn seal(&self) {
        self.catch_up();
        self.store.seal(&self.cursor, NOW).unwrap();
    }

    /// Every event in the order of the journal.
    pub(crate) fn all(&self) -> Vec<StoredEvent> {
        let mut events = Vec::new();
        let mut after = None;
        loop {
            let page = self.page(Filter::everything(), Order::OldestFirst, 4000, after);
            events.extend(page.events);
            after = page.next;
            if after.is_none() {
                events.sort_by_key(|event| event.position.seq);
                return events;
            }
        }
    }

    pub(crate) fn page(
        &self,
        filter: Filter,
        order: Order,
        limit: usize,
        after: Option<kaudit_store::Position>,
    ) -> Page {
        let snapshot = self.store.snapshot();
        snapshot.page(&Scan::new(filter), order, limit, after).unwrap()
    }
}

pub(crate) fn small_journal() -> kaudit_journal::Options {
    let mut options = kaudit_journal::Options::default();
    options.segment_bytes = 4 << 20;
    options.reserve_bytes = 0;
    options
}

pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.threads = 2.try_into().unwrap();
    options
}

fn record(cluster: &str, event: &[u8]) -> Vec<u8> {
    let head = RecordHead {
        cluster,
        source: "audit.log",
        instance: "cp-1",
        seq: 0,
        received_micros: NOW,
        transport: Transport::File,
        tail: None,
        matched_rule: Some(7),
    };
    let mut record = Vec::new();
    head.write(&mut record).unwrap();
    record.extend_from_slice(event);
    record
}

/// The lines of all real logs in JSON: those of the project, and of the folder in `KAUDIT_REAL_LOGS`.
pub(crate) fn real_lines() -> Vec<Vec<u8>> {
    let mut folders = vec![PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/real"
    ))];
    folders.extend(std::env::var_os("KAUDIT_REAL_LOGS").map(PathBuf::from));
    let mut lines = Vec::new();
    for folder in folders {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        paths.sort();
        for path in paths {
            let bytes = std::fs::read(&path).unwrap();
            let log = match path.extension().and_then(|extension| extension.to_str()) {
                Some("zst") => zstd::decode_all(bytes.as_slice()).unwrap(),
                Some("jsonl") => bytes,
                _ => continue,
            };
            if log.starts_with(b"{") {
                let whole = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                lines.extend(whole.map(<[u8]>::to_vec));
            }
        }
    }
    assert!(lines.len() > 1000);
    lines
}

/// Events that an apiserver does not write so, or seldom.
pub(crate) fn odd_lines() -> Vec<Vec<u8>> {
    let head = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"odd""#;
    let times = r#""requestReceivedTimestamp":"2026-11-22T10:00:00.000001Z","stageTimestamp":"2026-11-22T10:00:00.000009Z""#;
    let stage = r#""stage":"ResponseComplete","requestURI":"/api","verb":"get""#;
    let texts = [
        format!(r#"{head},{stage},"user":{{}},{times}}}"#),
        format!(r#"{head},{stage},"user":{{}},"requestReceivedTimestamp":null,"stageTimestamp":null}}"#),
        format!(r#"{head},{stage},"user":{{}},"requestReceivedTimestamp":null,"stageTimestamp":"2026-11-22T10:00:00.000009Z"}}"#),
        format!(r#"{head},{stage},"user":{{"username":"a\ufffdb"}},{times}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"ü\u2028\u0026\"\\"}},"userAgent":"x\ty",{times}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},"impersonatedUser":{{"username":"i","uid":"\u0026","groups":["g"],"extra":{{"k":["v"],"n":null}}}},"authenticationMetadata":{{"impersonationConstraint":"c"}},{times}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},"responseStatus":{{"kind":"Status","apiVersion":"v1","metadata":{{"continue":"x"}},"status":"Failure","message":"m","reason":"Forbidden","details":{{"name":"n","causes":[{{"reason":"r"}}]}},"code":403}},{times}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},"responseStatus":{{"metadata":{{}}}},{times}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},"objectRef":{{}},{times}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},"futureField":{{"a":[1,2]}},{times}}}"#),
        format!(r#"{head}, {stage}, "user": {{"username": "spaced"}}, {times} }}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},"requestObject":null,"responseObject":[1],{times}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},"requestObject":{{"metadata":{{"n\u0061me":"\u0061"}},"spec":{{"replicas":[null,7]}}}},{times}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},"requestObject":{{"spec.replicas" : 7,"x":"\"name\":\"a\""}},{times}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},{times},"annotations":{{"a":"","b":"x\ufffd"}}}}"#),
        format!(r#"{head},{stage},"user":{{"username":"u"}},"responseStatus":{{"metadata":{{}},"code":99999999999}},{times}}}"#),
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Odd","auditID":"","stage":"Other","requestURI":"","verb":"","user":{},"requestReceivedTimestamp":"2026-02-30T10:00:00.000001Z","stageTimestamp":"2026-02-30T10:00:00.000001Z"}"#.to_owned(),
        r#"{"apiVersion":"audit.k8s.io/v1","kind":"Event"}"#.to_owned(),
    ];
    let mut lines: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    lines.push(format!(r#"{head},{stage},"user":{{"username":"PLACE"}},{times}}}"#).into_bytes());
    if let Some(last) = lines.last_mut() {
        let at = memchr::memmem::find(last, b"PLACE").unwrap();
        last[at] = 0xff;
    }
    lines.push(b"no event at all".to_vec());
    lines
}
