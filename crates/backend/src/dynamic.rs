//! Sinks that come and go while the program runs.

mod delegate;
mod object;
mod registry;

pub use object::{API_VERSION, AuditSink, InvalidSink, MAX_FILE_BYTES, Surroundings};
pub use registry::{Dynamic, DynamicStatus, Phase, Start};
