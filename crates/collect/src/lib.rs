//! Collects audit events from apiservers' webhooks and log files without losing one it acknowledged.

mod arrival;
mod audit_ids;
mod dedup;
mod intake;
mod parcel;
mod quarantine;
mod source;
mod webhook;

pub use arrival::{Arrival, Keys, NotAnEvent};
pub use intake::{AuditIdReused, Beside, Intake, IntakeOptions, NotKept, Taken};
pub use parcel::{About, Parcel};
pub use quarantine::{Piece, Quarantine, QuarantineStats};
pub use source::{InvalidName, Name, Origin, Source, SourceCounts, Way};
