//! What can go wrong, for its reader.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::{Batch, OptionsError, Seq};

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option is out of its bounds.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Another process has the journal open.
    #[error("the journal is in use: {} is locked{}", .path.display(), .pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Locked {
        /// The file that is locked.
        path: PathBuf,
        /// The process that holds the lock, if it said so.
        pid: Option<u32>,
    },
    /// The file system refused.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

/// Why a batch was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Reject {
    /// As much waits to become durable as may wait.
    #[error("the journal's queue is full")]
    QueueFull,
    /// The segments take all the space they may, and a holding cursor needs them.
    #[error("the journal is full")]
    JournalFull,
    /// The disk is full.
    #[error("the journal's disk is full")]
    DiskFull,
    /// The disk fails.
    #[error("the journal's disk fails")]
    Broken,
    /// A record or the batch is larger than will ever be accepted.
    #[error("a record is too large for the journal")]
    TooLarge,
    /// There would be too many marks, or they would take too much space.
    #[error("too many marks for the journal")]
    TooManyMarks,
    /// All numbers are used.
    #[error("the journal has no more numbers")]
    SequenceEnd,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

/// A batch that was not accepted, and why.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct Rejected {
    /// Why.
    pub reason: Reject,
    /// The batch as it was.
    pub batch: Batch,
}

/// Why an accepted batch did not become durable. Its records may nevertheless turn up after a crash that
/// followed at once.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The disk is full.
    #[error("the journal's disk is full")]
    DiskFull {
        /// What the file system said.
        source: Option<Arc<io::Error>>,
    },
    /// The segments take all the space they may.
    #[error("the journal is full")]
    JournalFull,
    /// The disk failed.
    #[error("the journal could not {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The answer.
        source: Arc<io::Error>,
    },
    /// The journal's thread is gone.
    #[error("the journal is closed")]
    Closed,
}

/// How a journal is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum State {
    /// It takes batches.
    Ready,
    /// The segments take all the space they may. It goes on by itself when a cursor lets go of some.
    Full {
        /// Since when.
        since: SystemTime,
    },
    /// The disk is full. It goes on by itself when there is space.
    DiskFull {
        /// Since when.
        since: SystemTime,
        /// What the file system said; `None` when it is `min_free_bytes` that must stay free.
        error: Option<Arc<io::Error>>,
    },
    /// The disk fails. It is tried again at intervals; what is durable can be read meanwhile.
    Broken {
        /// Since when.
        since: SystemTime,
        /// What the file system said.
        error: Arc<io::Error>,
    },
    /// It was closed.
    Closed,
}

/// Why a record could not be read. The reader stays where it is: the next call tries again, and
/// [`Reader::skip_unreadable`](crate::Reader::skip_unreadable) passes over what cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the journal at record {seq} in {}", .path.display())]
#[non_exhaustive]
pub struct ReadError {
    /// The record that was next.
    pub seq: Seq,
    /// The segment.
    pub path: PathBuf,
    /// What the file system said.
    pub source: io::Error,
}

/// Why a cursor could not be made, moved or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// A name has 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, and begins with a letter or a digit.
    #[error(
        "{name:?} is no name for a cursor: 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or a digit"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// No cursor moves beyond what is durable.
    #[error("cursor {name} cannot move to {to}, only records before {durable} are durable")]
    Ahead {
        /// The cursor.
        name: String,
        /// Where it should have gone.
        to: Seq,
        /// The end of what is durable.
        durable: Seq,
    },
    /// No cursor moves back.
    #[error("cursor {name} is at {at} and cannot move back to {to}")]
    Behind {
        /// The cursor.
        name: String,
        /// Where it should have gone.
        to: Seq,
        /// Where it is.
        at: Seq,
    },
    /// It was removed.
    #[error("there is no cursor {name}")]
    Unknown {
        /// The cursor.
        name: String,
    },
    /// The file system refused. The cursor is where it was, but may turn out to have moved when the journal
    /// is opened again.
    #[error("cannot write cursor {name}")]
    Io {
        /// The cursor.
        name: String,
        /// The answer.
        source: io::Error,
    },
}

/// Whether the error says that there is no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
