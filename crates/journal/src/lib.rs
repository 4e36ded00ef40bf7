//! A durable, checksummed, append-only journal of opaque records.

mod batch;
mod core;
mod cursor;
mod error;
pub mod filesystem;
mod format;
mod journal;
mod options;
mod queue;
mod reader;
mod recovery;
mod segment;
mod seq;
mod stats;
mod tags;
mod ticket;
#[cfg(test)]
mod torture;
mod verify;
mod view;

pub use batch::{Batch, MARK_KEY_BYTES, MARK_VALUE_BYTES, MARKS, MarkError};
pub use cursor::{Cursor, Hold};
pub use error::{AppendError, CursorError, OpenError, ReadError, Reject, Rejected, State};
pub use journal::{Journal, Room};
pub use options::{Options, OptionsError, WhenFull};
pub use reader::{Gap, GapReason, Item, Reader};
pub use recovery::Recovery;
pub use seq::Seq;
pub use stats::{COMMIT_BUCKETS_MICROS, Stats};
pub use tags::SegmentTags;
pub use ticket::Ticket;
pub use verify::Verified;
pub use view::WaitDurable;

/// Bytes of a [`Tag`].
pub const TAG_BYTES: usize = 24;

/// What a record is known by to its users; the journal only keeps it.
pub type Tag = [u8; TAG_BYTES];
