//! The store of a running kaudit, for those who ask it, and the threads that fill and look after it.
//!
//! One thread reads what becomes durable in the journal into memory, also while another one that it has begun seals
//! what was read to files; a third merges and expires files and never delays the first. Whatever fails is tried again:
//! what is not sealed is in the journal, which the store's cursor holds.

mod ending;
mod filling;
mod health;
mod place;
mod settings;
mod upkeep;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kaudit_journal::Journal;
use kaudit_store::{CacheFigures, Retention, Snapshot, Stats, Store, StoreError};
use tokio::sync::watch;
use tracing::warn;

use self::ending::Ending;
pub(crate) use self::ending::Haste;
use self::health::Health;
pub(crate) use self::health::{Doing, Figures};
pub(crate) use self::place::{folder, is_store, open_to_read, open_to_write};
pub(crate) use self::settings::{Settings, open, retention};
use crate::collection::Check;

/// A view is waited for so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// The end waits for the threads so long. A merge ends at its next row group and leaves the files of that day as they
/// were.
const LAST: Duration = Duration::from_secs(20);

/// The store, and how far it has read the journal. Its clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Storing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    /// Where its records come from; `None` where nobody adds to it.
    journal: Option<Journal>,
    settings: Settings,
    /// The first record that was not seen yet.
    grown: watch::Sender<u64>,
    health: Health,
    ending: Ending,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Whether a view has everything that it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// All that was durable when it was asked for.
    Current,
    /// So many records of the journal are not in it.
    Behind { records: u64 },
}

/// The store as metrics show it.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) stats: Stats,
    pub(crate) sealed_to: u64,
    pub(crate) counts: kaudit_store::Counts,
    pub(crate) unsealed_bytes: u64,
    pub(crate) lag_records: u64,
    pub(crate) figures: Figures,
    /// What does not work now.
    pub(crate) failing: Vec<Doing>,
    /// The local files of a bucket.
    pub(crate) cache: Option<CacheFigures>,
}

impl Storing {
    /// A store that nobody adds to.
    #[cfg(test)]
    pub(crate) fn idle(store: Store) -> Self {
        Self::new(store, None, Settings::default())
    }

    fn new(store: Store, journal: Option<Journal>, settings: Settings) -> Self {
        let (grown, _) = watch::channel(store.snapshot().read_to());
        Self(Arc::new(Inner {
            store,
            journal,
            settings,
            grown,
            health: Health::default(),
            ending: Ending::default(),
            threads: Mutex::default(),
        }))
    }

    /// Begins to fill the store from the journal and to look after its files.
    ///
    /// # Errors
    ///
    /// [`StoreError::OtherJournal`]; what else may be wrong with the journal is tried again and shown.
    pub(crate) fn start(store: Store, journal: &Journal, settings: Settings) -> Result<Self, StoreError> {
        let cursor = match store.cursor(journal) {
            Ok(cursor) => Some(cursor),
            Err(error @ StoreError::OtherJournal { .. }) => return Err(error),
            Err(error) => {
                warn!(%error, "the store's place in the journal cannot be had yet");
                None
            }
        };
        let storing = Self::new(store, Some(journal.clone()), settings);
        let (inner, journal) = (Arc::clone(&storing.0), journal.clone());
        storing.thread("store", move || filling::run(&inner, &journal, cursor))?;
        let inner = Arc::clone(&storing.0);
        storing.thread("store-upkeep", move || upkeep::run(&inner))?;
        Ok(storing)
    }

    fn thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.0);
        let alive = self.0.ending.enter();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || {
            work();
            drop(inner);
            drop(alive);
        });
        let thread = thread.map_err(|source| StoreError::Io {
            path: name.into(),
            source,
        })?;
        self.threads().push(thread);
        Ok(())
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store itself.
    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// What it keeps, and for how long.
    pub(crate) fn retention(&self) -> &Retention {
        &self.0.settings.retention
    }

    /// Tells the first record of the journal that was not seen yet, whenever more was seen.
    pub(crate) fn grown(&self) -> watch::Receiver<u64> {
        self.0.grown.subscribe()
    }

    /// A view with everything that was durable in the journal when this was called, or with as much of it as could
    /// be read in time.
    pub(crate) async fn snapshot(&self) -> (Snapshot, Freshness) {
        let wanted = self.0.durable();
        if self.0.store.snapshot().read_to() < wanted {
            let mut grown = self.0.grown.subscribe();
            // Late or ended, the view says how far it is.
            drop(tokio::time::timeout(PATIENCE, grown.wait_for(|to| *to >= wanted)).await);
        }
        let snapshot = self.0.store.snapshot();
        let freshness = match wanted.saturating_sub(snapshot.read_to()) {
            0 => Freshness::Current,
            records => Freshness::Behind { records },
        };
        (snapshot, freshness)
    }

    /// The store in numbers.
    pub(crate) fn report(&self) -> Report {
        let snapshot = self.0.store.snapshot();
        let manifest = snapshot.manifest();
        Report {
            stats: snapshot.stats(),
            sealed_to: manifest.sealed_to,
            counts: manifest.counts.clone(),
            unsealed_bytes: u64::try_from(snapshot.tail_bytes()).unwrap_or(u64::MAX),
            lag_records: self.0.durable().saturating_sub(snapshot.read_to()),
            figures: self.0.health.figures(),
            failing: self
                .0
                .health
                .troubles()
                .into_iter()
                .map(|(doing, _)| doing)
                .collect(),
            cache: self.0.store.cache(),
        }
    }

    /// The lines of `/readyz?verbose`.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let snapshot = self.0.store.snapshot();
        let behind = self.0.durable().saturating_sub(snapshot.read_to());
        let whole = Check {
            text: format!(
                "store {} files, {} events unsealed, {behind} records behind",
                snapshot.manifest().parts.len(),
                snapshot.tail_rows()
            ),
            is_good: true,
        };
        let doubt = self.0.store.is_in_doubt().then(|| Check {
            text: "store/bucket it has not answered; what is sealed may be more than is shown".to_owned(),
            is_good: false,
        });
        let troubles = self.0.health.troubles().into_iter().map(|(doing, text)| Check {
            text: format!("store/{} {text}", doing.as_str()),
            is_good: false,
        });
        [whole].into_iter().chain(doubt).chain(troubles).collect()
    }

    /// Ends the threads after all that is durable was sealed, as far as that is done in time; the rest stays in the
    /// journal. To be called when the journal's writers have ended. Blocks.
    pub(crate) fn end(&self) {
        self.0.ending.begin(Haste::InOrder);
        if !self.0.ending.wait_for_all(LAST) {
            warn!(
                "the store's files are still being worked on; what is cut off now is done again at the next start"
            );
        }
        for thread in std::mem::take(&mut *self.threads()) {
            if thread.is_finished() {
                // It has reported its panics itself.
                drop(thread.join());
            }
        }
    }

    /// Lets [`end`](Self::end) wait for nothing any more.
    pub(crate) fn hurry(&self) {
        self.0.ending.begin(Haste::AtOnce);
    }
}

impl Inner {
    /// The end of what should be in a view.
    fn durable(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.durable().get())
    }
}
