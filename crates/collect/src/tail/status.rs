//! How following goes, for health and metrics.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::Anomalies;

/// All sources of a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TailStatus {
    /// One for each active file, by path.
    pub sources: Vec<SourceStatus>,
    /// What hinders the search for files: a directory that cannot be read, more files than are followed.
    pub problem: Option<String>,
}

/// One active file and its rotated ones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStatus {
    /// The active file.
    pub path: PathBuf,
    /// What it is doing.
    pub state: SourceState,
    /// The file that is being read, by its name.
    pub file: Option<String>,
    /// How far it was read, in uncompressed bytes.
    pub offset: u64,
    /// Bytes that are known and not read yet, over all its files; a compressed file counts with what its
    /// trailer says.
    pub behind_bytes: u64,
    /// Rotated files that are not read to their end. Those that are not found, or not whole, at the moment and not
    /// given up are among them, and one for a directory that changed too fast to be known.
    pub unread_backups: usize,
    /// The oldest of them.
    pub oldest_unread: Option<String>,
    /// How many rotations are left until the oldest unread file is removed, where it is known how many the
    /// writer keeps. At 0 the next rotation loses it.
    pub rotations_until_loss: Option<u32>,
    /// Since the start.
    pub anomalies: Anomalies,
    /// Gaps since the start.
    pub gaps: u64,
    /// When something new was read last.
    pub last_read: Option<SystemTime>,
}

/// What a source is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceState {
    /// All is well.
    Reading,
    /// There was never a file.
    WaitingForFile,
    /// The path leads nowhere; what was opened before is still read.
    PathMissing,
    /// A file may not be read; it is tried again.
    PermissionDenied {
        /// The file.
        path: PathBuf,
    },
    /// There is a file, and nothing new came for too long.
    Stale {
        /// Since when.
        since: SystemTime,
    },
    /// Reading fails; it is tried again.
    Error {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
