//! Events that come again, against a model of what should be there.

use std::collections::{BTreeMap, BTreeSet};

use kaudit_event::record::{RecordHead, Transport};
use kaudit_journal::{Batch, Cursor, Journal};
use kaudit_query::Filter;
use proptest::prelude::*;

use super::WINDOW_MICROS;
use crate::torture::{NOW, small_journal};
use crate::{Compaction, Options, Order, Scan, Sealed, Store};

/// The day of [`NOW`].
const DAY: &str = "2026-11-18T";

/// What comes. Times and auditIDs are few, so that they meet by chance as a client might want them to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Coming {
    audit_id: u8,
    hour: u8,
    micro: u8,
    uri: u8,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    AsTheEncoderWrites,
    WithABlank,
    NoEvent,
}

impl Coming {
    fn text(self) -> String {
        let Self {
            audit_id,
            hour,
            micro,
            uri,
            ..
        } = self;
        let blank = match self.form {
            Form::NoEvent => return format!("no event {uri}"),
            Form::AsTheEncoderWrites => "",
            Form::WithABlank => " ",
        };
        let hour = 8 + hour;
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1",{blank}"level":"Metadata","auditID":"{audit_id}","stage":"ResponseComplete","requestURI":"/{uri}","verb":"get","user":{{"username":"u"}},"requestReceivedTimestamp":"{DAY}{hour:02}:00:00.000000Z","stageTimestamp":"{DAY}{hour:02}:00:00.00000{micro}Z"}}"#
        )
    }

    /// The same for all ways to write one event.
    fn event(mut self) -> Self {
        if self.form == Form::WithABlank {
            self.form = Form::AsTheEncoderWrites;
        }
        self
    }
}

fn coming() -> impl Strategy<Value = Coming> {
    let form = prop_oneof![
        6 => Just(Form::AsTheEncoderWrites),
        2 => Just(Form::WithABlank),
        1 => Just(Form::NoEvent),
    ];
    (0..3_u8, 0..2_u8, 0..2_u8, 0..2_u8, form).prop_map(|(audit_id, hour, micro, uri, form)| Coming {
        audit_id,
        hour,
        micro,
        uri,
        form,
    })
}

#[derive(Clone, Debug)]
enum Step {
    Come(Vec<Coming>),
    CatchUp,
    /// Ends after so many steps of the work as a crash would, or not at all with 0.
    Seal(usize),
    Compact(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(coming(), 1..6).prop_map(Step::Come),
        1 => Just(Step::CatchUp),
        3 => (0..8_usize).prop_map(Step::Seal),
        1 => (0..6_usize).prop_map(Step::Compact),
    ]
}

struct Bed {
    dir: tempfile::TempDir,
    journal: Journal,
    store: Option<(Store, Cursor)>,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&dir.path().join("journal"), small_journal()).unwrap();
        let mut bed = Self {
            dir,
            journal,
            store: None,
        };
        bed.reopen();
        bed
    }

    fn reopen(&mut self) {
        self.store = None;
        let store = Store::open(&self.dir.path().join("store"), Options::default()).unwrap();
        let cursor = store.cursor(&self.journal).unwrap();
        self.store = Some((store, cursor));
    }

    fn store(&self) -> &Store {
        &self.store.as_ref().unwrap().0
    }

    fn come(&self, events: &[Coming]) {
        let mut batch = Batch::new();
        for event in events {
            let head = RecordHead {
                cluster: "c",
                source: "s",
                instance: "i",
                seq: 0,
                received_micros: NOW,
                transport: Transport::File,
                tail: None,
                matched_rule: None,
            };
            let mut record = Vec::new();
            head.write(&mut record).unwrap();
            record.extend_from_slice(event.text().as_bytes());
            batch.push(None, &record);
        }
        self.journal.append(batch).unwrap().wait().unwrap();
    }

    fn seal(&mut self, fault: usize, now: i64) -> Option<Sealed> {
        let (store, cursor) = self.store.as_ref().unwrap();
        store.faults.set(fault);
        store.catch_up(&self.journal).unwrap();
        let sealed = store.seal(cursor, now);
        store.faults.set(0);
        if sealed.is_err() {
            self.reopen();
        }
        sealed.ok()
    }

    fn compact(&mut self, fault: usize) {
        let store = self.store();
        store.faults.set(fault);
        let done = store.compact(&Compaction::before(i64::MAX), NOW);
        store.faults.set(0);
        if done.is_err() {
            self.reopen();
        }
    }

    /// How often each text is there.
    fn texts(&self) -> BTreeMap<String, usize> {
        let scan = Scan::new(Filter::everything());
        let snapshot = self.store().snapshot();
        let page = snapshot.page(&scan, Order::OldestFirst, 10_000, None).unwrap();
        let mut texts = BTreeMap::new();
        for event in page.events {
            let text = String::from_utf8(event.event.to_vec()).unwrap();
            *texts.entry(text).or_default() += 1;
        }
        texts
    }

    /// How often each event is there.
    fn events(&self, come: &[Coming]) -> BTreeMap<Coming, usize> {
        let texts = self.texts();
        let mut events = BTreeMap::new();
        for one in come.iter().collect::<BTreeSet<_>>() {
            *events.entry(one.event()).or_default() += texts.get(&one.text()).copied().unwrap_or_default();
        }
        events
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn each_event_is_sealed_once_however_often_it_comes_and_whenever_a_process_ends(
        steps in proptest::collection::vec(step(), 1..14)
    ) {
        let mut bed = Bed::new();
        let mut come: Vec<Coming> = Vec::new();
        for step in steps {
            match step {
                Step::Come(events) => {
                    bed.come(&events);
                    come.extend(events);
                }
                Step::CatchUp => drop(bed.store().catch_up(&bed.journal).unwrap()),
                Step::Seal(fault) => drop(bed.seal(fault, NOW)),
                Step::Compact(fault) => bed.compact(fault),
            }
            bed.store().catch_up(&bed.journal).unwrap();
            for (event, times) in bed.events(&come) {
                prop_assert!(times > 0, "{event:?} is lost");
            }
        }
        bed.seal(0, NOW).unwrap();
        for (event, times) in bed.events(&come) {
            // What is no event has no time by which it could be found.
            if event.form != Form::NoEvent {
                prop_assert_eq!(times, 1, "{:?}", event);
            }
        }
        let manifest = bed.store().manifest();
        let rows: u64 = manifest.parts.iter().map(|part| part.rows).sum();
        prop_assert_eq!(rows, manifest.counts.sealed);
        let dropped = manifest.counts.dropped.get("duplicate").copied().unwrap_or_default();
        prop_assert_eq!(rows + dropped, come.len() as u64);
        let distinct = come.iter().filter(|one| one.form != Form::NoEvent).map(|one| one.event());
        let distinct = distinct.collect::<BTreeSet<_>>().len();
        let none = come.iter().filter(|one| one.form == Form::NoEvent).count();
        prop_assert_eq!(rows, (distinct + none) as u64);
        prop_assert!(bed.store().snapshot().verify().unwrap().findings.is_empty());
    }
}

const ONE: Coming = Coming {
    audit_id: 1,
    hour: 0,
    micro: 1,
    uri: 1,
    form: Form::AsTheEncoderWrites,
};

#[test]
fn an_event_with_the_time_and_the_audit_id_of_another_is_kept() {
    let mut bed = Bed::new();
    bed.come(&[ONE]);
    bed.seal(0, NOW).unwrap();
    bed.come(&[Coming { uri: 2, ..ONE }, ONE, Coming { micro: 2, ..ONE }]);
    let sealed = bed.seal(0, NOW).unwrap();
    assert_eq!((sealed.duplicates, sealed.unread), (1, 0));
    assert_eq!(bed.texts().values().sum::<usize>(), 3);
}

#[test]
fn what_is_older_than_a_day_is_not_looked_for() {
    let mut bed = Bed::new();
    bed.come(&[ONE]);
    let ts = bed
        .store()
        .catch_up(&bed.journal)
        .map(|_| bed.store().state().tail[0].min_ts)
        .unwrap();
    bed.seal(0, ts).unwrap();
    for (now, duplicates) in [(ts + WINDOW_MICROS, 1), (ts + WINDOW_MICROS + 1, 0)] {
        bed.come(&[ONE]);
        assert_eq!(bed.seal(0, now).unwrap().duplicates, duplicates);
    }
}

#[test]
fn where_a_file_cannot_be_read_an_event_is_kept_twice() {
    let mut bed = Bed::new();
    bed.come(&[ONE]);
    let part = bed.seal(0, NOW).unwrap().parts.remove(0);
    std::fs::write(bed.dir.path().join("store").join(&part.path), "damaged").unwrap();
    bed.come(&[ONE]);
    let sealed = bed.seal(0, NOW).unwrap();
    assert_eq!((sealed.duplicates, sealed.unread, sealed.parts.len()), (0, 1, 1));
}
