//! The store of a running kaudit, for those who ask it.

use std::sync::Arc;

use kaudit_store::{Snapshot, Store};

/// The store, and how far it has read the journal.
#[derive(Clone, Debug)]
pub(crate) struct Storing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
}

/// Whether a view has everything that it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// All that was durable when it was asked for.
    Current,
    /// So many records of the journal are not in it.
    Behind { records: u64 },
}

impl Storing {
    /// A store that nobody adds to.
    pub(crate) fn idle(store: Store) -> Self {
        Self(Arc::new(Inner { store }))
    }

    /// A view with everything that was durable in the journal when this was called, or with as much of it as could
    /// be read in time.
    pub(crate) async fn snapshot(&self) -> (Snapshot, Freshness) {
        (self.0.store.snapshot(), Freshness::Current)
    }
}
