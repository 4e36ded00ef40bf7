//! How the store is filled and what it keeps, as a configuration asks for it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kaudit_store::{Class, LegalHold, Options, Retention, Store};

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

/// The store's directory below a data directory.
pub(crate) fn folder(data: &Path) -> std::path::PathBuf {
    data.join("store")
}

/// Opens the store in the data directory to write to it.
pub(crate) fn open(data: &DataDir, config: &Config) -> Result<Store, Failure> {
    let folder = folder(data.path());
    let mut options = Options::default();
    // A journal that is full while its records wait to be sealed takes no more.
    let journal = config.journal.max_size.map_or(JOURNAL_BYTES, |size| size.0);
    let wanted = config
        .store
        .tail_memory
        .map_or(options.tail_bytes as u64, |size| size.0);
    let bytes = wanted.min(journal / 4).max(LEAST_TAIL_BYTES);
    options.tail_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Store::open(&folder, options)
        .with_context(|| format!("cannot open the store `{}`", folder.display()))
        .map_err(Failure::unreachable)
}
