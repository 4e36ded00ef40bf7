//! What is in the journal and in the store of a process that has ended.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use kaudit_event::record::Record;
use kaudit_journal::{Item, Journal, Options};
use kaudit_query::Filter;
use kaudit_store::{Order, Scan, Store};

use crate::events::Name;

/// Every record and how often it is there.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) records: u64,
    counts: HashMap<Name, u32>,
}

/// Reads the lines of a data directory's journal in order; a gap in it is a failure.
pub(crate) fn read(data: &Path, mut each: impl FnMut(&Record)) {
    let mut options = Options::default();
    // Reading takes no space.
    options.reserve_bytes = 0;
    let (journal, recovery) = Journal::open(&data.join("journal"), options).unwrap();
    assert!(recovery.gaps.is_empty(), "{:?}", recovery.gaps);
    let mut reader = journal.reader(journal.oldest());
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record { payload, .. } => each(&Record::read(&payload).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    journal.close();
}

/// The lines by cluster, in the order of the journal.
pub(crate) fn lines(data: &Path) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut lines: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    read(data, |record| {
        lines
            .entry(record.cluster.clone())
            .or_default()
            .push(record.event.to_vec());
    });
    lines
}

impl Stored {
    /// Reads what generated events are in the files of a data directory's store.
    pub(crate) fn sealed(data: &Path) -> Self {
        let store = Store::open_to_read(&data.join("store"), kaudit_store::Options::default()).unwrap();
        let (snapshot, scan) = (store.snapshot(), Scan::new(Filter::everything()));
        let mut stored = Self::default();
        let mut after = None;
        loop {
            let page = snapshot.page(&scan, Order::OldestFirst, 4000, after).unwrap();
            for event in page.events {
                stored.take(&event.event);
            }
            after = page.next;
            if after.is_none() {
                return stored;
            }
        }
    }

    /// Reads what generated events are there; any other or a changed one is a failure.
    pub(crate) fn read(data: &Path) -> Self {
        let mut stored = Self::default();
        read(data, |record| stored.take(&record.event));
        stored
    }

    fn take(&mut self, event: &[u8]) {
        let name = Name::of_line(event)
            .unwrap_or_else(|| panic!("not written by us: {}", String::from_utf8_lossy(event)));
        *self.counts.entry(name).or_default() += 1;
        self.records += 1;
    }

    /// All of `expected` is there, and nothing is there twice.
    pub(crate) fn holds(&self, what: &str, expected: impl IntoIterator<Item = Name>) {
        let missing: Vec<Name> = expected
            .into_iter()
            .filter(|name| !self.counts.contains_key(name))
            .collect();
        assert!(
            missing.is_empty(),
            "{what}: {} events are lost: {:?}",
            missing.len(),
            &missing[..missing.len().min(20)]
        );
        self.is_single(what);
    }

    /// Nothing is there twice.
    fn is_single(&self, what: &str) {
        let doubled: Vec<_> = self.counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(
            doubled.is_empty(),
            "{what}: {} events are there more than once: {:?}",
            doubled.len(),
            &doubled[..doubled.len().min(20)]
        );
    }
}
