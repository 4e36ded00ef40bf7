//! What is in the journal of a process that has ended.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use kaudit_event::record::Record;
use kaudit_journal::{Item, Journal, Options};

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
    /// Reads what generated events are there; any other or a changed one is a failure.
    pub(crate) fn read(data: &Path) -> Self {
        let mut stored = Self::default();
        read(data, |record| {
            let name = Name::of_line(&record.event)
                .unwrap_or_else(|| panic!("not written by us: {}", String::from_utf8_lossy(&record.event)));
            *stored.counts.entry(name).or_default() += 1;
            stored.records += 1;
        });
        stored
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
