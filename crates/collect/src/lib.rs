//! Collects audit events from apiservers' webhooks and log files without losing one it acknowledged.

mod chunk;
mod import;
mod inflate;
pub mod lines;
mod tail;

pub use chunk::{
    Anomalies, Chunk, FileIdentity, Form, Gap, GapReason, Line, OVERSIZED_HEAD_BYTES, Oversized, Torn,
    TornReason,
};
pub use import::{ImportConfig, ImportError, ImportFile, ImportIdentity, Progress};
pub use inflate::{Bounded, InflateError, Limits};
pub use tail::{
    LogFormat, MAX_POSITION_BYTES, Poll, PositionError, SourceState, SourceStatus, Start, Tail, TailConfig,
    TailError, TailStatus,
};
