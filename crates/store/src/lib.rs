//! Audit events in Parquet.

mod calendar;
mod columns;
mod error;
mod faults;
mod line;
mod manifest;
mod part;
mod rebuild;
mod schema;
mod seal;
mod snapshot;
mod store;
mod tail;

pub use error::StoreError;
pub use manifest::{Counts, Hash, Manifest, Origin, Part};
pub use seal::Sealed;
pub use snapshot::Snapshot;
pub use store::{CURSOR, Options, Store};
pub use tail::CaughtUp;
