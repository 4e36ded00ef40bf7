//! Audit events in Parquet files, from the journal and back.
//!
//! [`Store::catch_up`] reads what became durable in the journal into memory, [`Store::seal`] writes it to
//! files, [`Store::snapshot`] is one consistent view of both, and [`Snapshot::page`], [`Snapshot::fold`],
//! [`Snapshot::top`] and [`Snapshot::count`] ask it. [`Store::compact`] and [`Store::retain`] are daily work,
//! [`Snapshot::verify`] and [`Snapshot::stats`] look after it all. Everything is synchronous and takes the
//! time as an argument; work is divided among scoped threads. No Arrow or Parquet type is in the API.
//!
//! `docs/store.md` describes the layout. What was decided about it:
//!
//! - **An empty user is `''`, not NULL.** The API has one text for both, and `NOT LIKE 'system:%'` should find
//!   failed authentications.
//! - **An event without stageTimestamp is filed under the time it was taken in** and keeps its bytes. The
//!   bounds of a [`Scan`] go by that time; a filter on `stageTimestamp` does not hold of it.
//! - **A compacted day lies in `hour=all`**, so that other engines find the same three partition columns
//!   everywhere and nobody reads a wrong hour from a path.
//! - **Whether columns give an event back is tried, not argued**: each batch is read back and compared when it
//!   is built, and rows that differ keep their bytes in `raw`. Of these rows the filter is asked on the event
//!   itself, because columns may hold less than it sees.
//! - **What is in the journal but is no event** is kept like one, in `raw`; what is no record at all is counted
//!   in [`Counts::rejected`], what the journal lost in [`Counts::lost`].
//!
//! # What always holds
//!
//! - **S-1** Events in sealed files and in the tail are the journal's records but for those that are counted as
//!   rejected, lost or dropped; what retention removed is counted too.
//! - **S-2** A file does not change after a manifest has named it. In a bucket no name is used twice.
//! - **S-3** Only who committed the newest version of a bucket's manifest commits the next, after every commit whose
//!   answer did not come was looked up.
//! - **Q-1** A scan finds exactly the events of which [`Filter::matches`](kaudit_query::Filter::matches) is
//!   true.

#[cfg(test)]
mod bucket_tests;
mod cache;
mod calendar;
mod columns;
mod compact;
mod error;
mod faults;
mod line;
mod manifest;
mod objects;
mod part;
mod place;
mod rebuild;
mod repeats;
mod retain;
#[cfg(feature = "s3")]
mod s3;
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

pub use cache::CacheFigures;
pub use compact::{Compacted, Compaction, Mergeable};
pub use error::StoreError;
pub use manifest::{Counts, Hash, Manifest, Origin, Part};
pub use objects::{Bucket, BucketOptions};
pub use place::bucket_of;
pub use retain::{Class, Expiring, LegalHold, Retained, Retention};
pub use scan::{Cancel, Completeness, Hit, Order, Page, Position, Scan, ScanStats, StoredEvent};
pub use seal::Sealed;
pub use snapshot::Snapshot;
pub use stats::{DayVolume, Stats, Volume, VolumeOf};
pub use store::{CURSOR, Options, Store};
pub use tail::CaughtUp;
pub use verify::{Finding, Verified};
