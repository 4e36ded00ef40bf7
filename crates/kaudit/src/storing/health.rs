//! What works and what does not, told once when it changes, and what was done.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kaudit_store::StoreError;
use tracing::{error, info};

/// What the store's threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doing {
    /// Reading the journal into memory.
    Reading,
    /// Writing files of what is in memory.
    Sealing,
    /// Merging the files of days that are over.
    Compacting,
    /// Removing what need not be kept any more.
    Retaining,
}

impl Doing {
    pub(crate) const ALL: [Self; 4] = [Self::Reading, Self::Sealing, Self::Compacting, Self::Retaining];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Sealing => "sealing",
            Self::Compacting => "compacting",
            Self::Retaining => "retaining",
        }
    }
}

/// What was done since the process started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) seals: u64,
    pub(crate) sealed_files: u64,
    pub(crate) seal_time: Duration,
    /// Days' files that were merged, and those that took their place.
    pub(crate) compacted_files: u64,
    pub(crate) compacted_into_files: u64,
    pub(crate) compact_time: Duration,
    /// Files that went because they need not be kept.
    pub(crate) retained_files: u64,
    /// Failures by what was done and why it failed.
    pub(crate) errors: BTreeMap<(Doing, &'static str), u64>,
}

#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    figures: Figures,
    troubles: BTreeMap<Doing, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    reason: &'static str,
    text: String,
}

impl Health {
    /// Does something, and says so when it fails otherwise than the last time, or works again. A panic is a failure:
    /// the thread goes on.
    pub(super) fn attempt<T>(
        &self,
        doing: Doing,
        act: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, Failed> {
        let (reason, text) = match catch_unwind(AssertUnwindSafe(act)) {
            Ok(Ok(done)) => {
                if self.lock().troubles.remove(&doing).is_some() {
                    info!(doing = doing.as_str(), "the store works again");
                }
                return Ok(done);
            }
            Ok(Err(error)) => (reason(&error), error.to_string()),
            Err(panic) => ("panic", message(panic.as_ref())),
        };
        let mut state = self.lock();
        *state.figures.errors.entry((doing, reason)).or_default() += 1;
        let before = state.troubles.insert(
            doing,
            Trouble {
                reason,
                text: text.clone(),
            },
        );
        drop(state);
        if before.is_none_or(|before| before.reason != reason) {
            error!(
                doing = doing.as_str(),
                error = text,
                "the store cannot go on: it is tried again, and nothing is lost meanwhile"
            );
        }
        Err(Failed)
    }

    /// Notes what was done.
    pub(super) fn note(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.lock().figures);
    }

    pub(super) fn figures(&self) -> Figures {
        self.lock().figures.clone()
    }

    /// What does not work now, and why.
    pub(super) fn troubles(&self) -> Vec<(Doing, String)> {
        let state = self.lock();
        let troubles = state.troubles.iter();
        troubles
            .map(|(doing, trouble)| (*doing, trouble.text.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It did not work, and that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed;

fn reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::Io { source, .. } => match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "disk_full",
            _ => "io",
        },
        StoreError::Locked { .. } | StoreError::Conflict { .. } | StoreError::NotOwner { .. } => {
            "other_writer"
        }
        StoreError::Bucket { denied: true, .. } => "bucket_denied",
        StoreError::Bucket { .. } | StoreError::InDoubt { .. } => "bucket",
        StoreError::Damaged { .. } => "damaged",
        StoreError::Columns(_) => "columns",
        StoreError::Journal(_) | StoreError::OtherJournal { .. } => "journal",
        StoreError::Cursor(_) => "cursor",
        _ => "other",
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a defect in the store: {}", text.unwrap_or("it panicked"))
}
