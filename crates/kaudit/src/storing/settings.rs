//! How the store is filled and what it keeps, as a configuration asks for it.

use std::time::Duration;

use anyhow::anyhow;
use kaudit_store::{Class, LegalHold, Options, Retention, Store};
use tracing::warn;

use super::place;
use crate::config::Config;
use crate::data::DataDir;
use crate::exit::Failure;

const SEAL_AFTER: Duration = Duration::from_secs(5 * 60);

/// As [`kaudit_journal::Options`] has it.
const JOURNAL_BYTES: u64 = 10 << 30;

/// With less memory than this, files are too small to be of use.
const LEAST_TAIL_BYTES: u64 = 64 << 10;

/// How the store is filled and what it keeps.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What is not sealed is no older.
    pub(crate) seal_after: Duration,
    pub(crate) retention: Retention,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seal_after: SEAL_AFTER,
            retention: Retention::default(),
        }
    }
}

impl Settings {
    pub(crate) fn of(config: &Config) -> Result<Self, Failure> {
        let default = Self::default();
        Ok(Self {
            seal_after: config
                .store
                .seal_after
                .map_or(default.seal_after, |after| after.0),
            retention: retention(config)?,
        })
    }
}

/// What the configuration wants to be kept.
pub(crate) fn retention(config: &Config) -> Result<Retention, Failure> {
    let store = &config.store;
    place::check(store)?;
    let mut names: Vec<&str> = Vec::new();
    let rules = store.keep.iter().map(|keep| &keep.name);
    for name in rules.chain(store.holds.iter().map(|hold| &hold.name)) {
        if names.contains(&name.0.as_str()) {
            return Err(Failure::usage(anyhow!(
                "store: two of `keep` and `holds` are called `{}`",
                name.0
            )));
        }
        names.push(&name.0);
    }
    for keep in &store.keep {
        let name = &keep.name.0;
        match store.retention {
            None => {
                return Err(Failure::usage(anyhow!(
                    "store.keep `{name}`: without `store.retention` everything is kept anyway: give it, or --store-retention"
                )));
            }
            Some(age) if keep.age <= age => {
                return Err(Failure::usage(anyhow!(
                    "store.keep `{name}`: `for: {}` is not longer than `store.retention`, {age}",
                    keep.age
                )));
            }
            Some(_) => {}
        }
    }
    let mut retention = Retention::default();
    retention.max_age = store.retention.map(crate::config::store::Age::micros);
    retention.max_bytes = store.max_size.map(|size| size.0);
    retention.classes = store
        .keep
        .iter()
        .map(|keep| Class {
            name: keep.name.0.clone(),
            filter: keep.filter.filter.clone(),
            max_age: keep.age.micros(),
        })
        .collect();
    retention.holds = store
        .holds
        .iter()
        .map(|hold| LegalHold {
            name: hold.name.0.clone(),
            filter: hold.filter.filter.clone(),
        })
        .collect();
    Ok(retention)
}

/// Opens the store of a data directory to write to it.
pub(crate) fn open(data: &DataDir, config: &Config) -> Result<Store, Failure> {
    let mut options = Options::default();
    // A journal that is full while its records wait to be sealed takes no more.
    let journal = config.journal.max_size.map_or(JOURNAL_BYTES, |size| size.0);
    let wanted = config
        .store
        .tail_memory
        .map_or(options.tail_bytes as u64, |size| size.0);
    let bytes = wanted.min(journal / 4).max(LEAST_TAIL_BYTES);
    options.tail_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let store = place::open(&place::folder(data.path()), &config.store, options)?;
    if store.is_in_doubt() {
        warn!(
            "the store's bucket cannot be read: what was known of it is shown, events are taken up, and sealing waits for it"
        );
    }
    Ok(store)
}
