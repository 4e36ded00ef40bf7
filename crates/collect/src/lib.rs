//! Collects audit events from apiservers' webhooks and log files without losing one it acknowledged.

mod access;
mod arrival;
mod audit_ids;
mod budget;
mod chunk;
mod clock;
pub mod completeness;
mod dedup;
mod forward;
mod import;
mod inflate;
mod intake;
mod journal_sink;
pub mod lines;
pub mod lists;
mod parcel;
mod quarantine;
mod receiver;
mod rooms;
mod settler;
mod source;
mod spool;
mod tail;
mod tailing;
mod unpack;

pub use access::{Access, Credential, Grant, InvalidPattern, InvalidToken, Pattern, TokenHash};
pub use arrival::{Arrival, Keys, NotAnEvent};
pub use chunk::{
    Anomalies, Chunk, FileIdentity, Form, Gap, GapReason, Line, OVERSIZED_HEAD_BYTES, Oversized, Torn,
    TornReason,
};
pub use clock::now_micros;
pub use forward::{Forward, ForwardError, ForwardOptions, ForwardState, ForwardStatus};
pub use import::{
    FramingError, ImportConfig, ImportError, ImportFile, ImportIdentity, ImportPart, Importer, Keeping, Kept,
    MAX_IMPORT_BODY_BYTES, Progress,
};
pub use inflate::{Bounded, InflateError, Limits};
pub use intake::{AuditIdReused, Beside, Intake, IntakeOptions, NotKept, Taken};
pub use journal_sink::{JournalSink, JournalSinkError, JournalSinkOptions};
pub use parcel::{About, Parcel};
pub use quarantine::{Piece, Quarantine, QuarantineStats};
pub use receiver::{Receiver, ReceiverOptions};
pub use settler::SinkMode;
pub use source::{InvalidName, Name, Origin, Source, SourceCounts, Way};
pub use spool::{Deliver, Delivery, Spool, SpoolError, SpoolMetrics, SpoolOptions};
pub use tail::{
    LogFormat, MAX_POSITION_BYTES, Poll, PositionError, SourceState, SourceStatus, Start, Tail, TailConfig,
    TailError, TailStatus,
};
pub use tailing::{StartError, Tailing};
