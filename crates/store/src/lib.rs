//! Audit events in Parquet.

mod calendar;
mod columns;
mod compact;
mod error;
mod faults;
mod line;
mod manifest;
mod part;
mod rebuild;
mod retain;
mod scan;
mod schema;
mod seal;
mod snapshot;
mod stats;
mod store;
mod tail;
#[cfg(test)]
mod torture;
mod verify;

pub use compact::{Compacted, Compaction};
pub use error::StoreError;
pub use manifest::{Counts, Hash, Manifest, Origin, Part};
pub use retain::{Class, LegalHold, Retained, Retention};
pub use scan::{Cancel, Completeness, Hit, Order, Page, Position, Scan, ScanStats, StoredEvent};
pub use seal::Sealed;
pub use snapshot::Snapshot;
pub use stats::{DayVolume, Stats, Volume, VolumeOf};
pub use store::{CURSOR, Options, Store};
pub use tail::CaughtUp;
pub use verify::{Finding, Verified};
