//! Collects audit events from apiservers' webhooks and log files without losing one it acknowledged.

mod access;
mod arrival;
mod audit_ids;
mod budget;
mod clock;
mod dedup;
mod forward;
mod intake;
mod journal_sink;
mod parcel;
mod quarantine;
mod receiver;
mod rooms;
mod settler;
mod source;
mod spool;

pub use access::{Access, Credential, Grant, InvalidPattern, InvalidToken, Pattern, TokenHash};
pub use arrival::{Arrival, Keys, NotAnEvent};
pub use forward::{Forward, ForwardError, ForwardOptions, ForwardState, ForwardStatus};
pub use intake::{AuditIdReused, Beside, Intake, IntakeOptions, NotKept, Taken};
pub use journal_sink::{JournalSink, JournalSinkError, JournalSinkOptions};
pub use parcel::{About, Parcel};
pub use quarantine::{Piece, Quarantine, QuarantineStats};
pub use receiver::{Receiver, ReceiverOptions};
pub use settler::SinkMode;
pub use source::{InvalidName, Name, Origin, Source, SourceCounts, Way};
pub use spool::{Deliver, Delivery, Spool, SpoolError, SpoolMetrics, SpoolOptions};
