//! Sinks that come and go while the program runs.

mod object;

pub use object::{API_VERSION, AuditSink, InvalidSink, MAX_FILE_BYTES, Surroundings};
