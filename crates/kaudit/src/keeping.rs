//! The journal and the way into it, as a configuration asks for them.

use anyhow::Context as _;
use kaudit_collect::{Intake, IntakeOptions, Keys, Quarantine};
use kaudit_journal::{Journal, Options, Seq};
use kaudit_store::Store;
use tracing::{info, warn};

use crate::config::Config;
use crate::data::DataDir;
use crate::exit::Failure;
use crate::storing;

const QUARANTINE_BYTES: u64 = 1 << 30;

/// Opens the journal in the data directory; what was left by a crash is put right.
///
/// `store` is the store of the directory, where this process has it open.
pub(crate) fn open(data: &DataDir, config: &Config, store: Option<&Store>) -> Result<Intake, Failure> {
    let folder = data.path().join("journal");
    let mut options = options(config);
    options.first_seq = first_seq(data, store);
    let (journal, recovery) = Journal::open(&folder, options)
        .with_context(|| format!("cannot open the journal `{}`", folder.display()))
        .map_err(Failure::unreachable)?;
    info!(
        segments = recovery.segments,
        bytes = recovery.bytes,
        oldest = %recovery.oldest,
        next = %recovery.next,
        cut_bytes = recovery.cut_bytes,
        elapsed = ?recovery.elapsed,
        "journal open"
    );
    if recovery.unreadable_blocks > 0 || recovery.unsettled_bytes > 0 {
        warn!(
            unreadable_blocks = recovery.unreadable_blocks,
            unsettled_bytes = recovery.unsettled_bytes,
            "the journal's disk could not be read or written at every place"
        );
    }
    for gap in &recovery.gaps {
        warn!(from = %gap.from, to = %gap.to, reason = ?gap.reason, "records of the journal are lost");
    }
    let folder = data.path().join("quarantine");
    let bytes = config
        .collect
        .quarantine_max_size
        .map_or(QUARANTINE_BYTES, |size| size.0);
    let quarantine = Quarantine::open(&folder, bytes)
        .with_context(|| format!("cannot open the quarantine `{}`", folder.display()))
        .map_err(Failure::unreachable)?;
    let mut options = IntakeOptions::default();
    if let Some(events) = config.collect.dedup_events {
        options.dedup_events = usize::try_from(events).unwrap_or(usize::MAX);
    }
    let keys = Keys::new(data.key().map_err(Failure::unreachable)?);
    Intake::new(journal, keys, quarantine, options).map_err(Failure::unreachable)
}

/// Beside a store whose journal was lost, a new journal goes on counting: numbers that are sealed are not given again.
fn first_seq(data: &DataDir, store: Option<&Store>) -> Seq {
    if let Some(store) = store {
        return Seq::new(store.manifest().sealed_to);
    }
    match storing::open_to_read(&storing::folder(data.path())) {
        Ok(store) => Seq::new(store.manifest().sealed_to),
        Err(error) => {
            warn!(%error, "how far the store is sealed cannot be read");
            Seq::FIRST
        }
    }
}

fn options(config: &Config) -> Options {
    let mut options = Options::default();
    let journal = &config.journal;
    if let Some(size) = journal.max_size {
        options.max_bytes = size.0;
        // A small journal has small segments: what is given up for want of room is one of them.
        options.segment_bytes = options.segment_bytes.min(size.0 / 8).max(64 << 10);
    }
    if let Some(size) = journal.min_free {
        options.min_free_bytes = size.0;
    }
    if let Some(linger) = journal.linger {
        options.linger = linger.0;
    }
    options
}
