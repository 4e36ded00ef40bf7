//! Follows log files over every style of rotation. Synchronous: a thread polls.
//!
//! One [`Tail`] serves one pattern. It knows what it has read of each file by what the file holds, not by
//! its name or inode alone, so a file that was renamed, compressed or copied in the meantime is gone on
//! with where it was left, and read once. What is read is handed over in [`Chunk`]s; each carries the
//! position behind it, which the caller keeps together with the lines and gives back after a restart or
//! a failure.

mod status;

use std::time::{Duration, SystemTime};

use crate::Chunk;

pub use status::{SourceState, SourceStatus, TailStatus};

/// A position has this many bytes at most.
pub const MAX_POSITION_BYTES: usize = 16 << 10;

/// Why bytes are no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    /// They are of a version that is not known.
    #[error("it has version {0}, known is 1")]
    Version(u8),
    /// They are cut or changed.
    #[error("it is damaged")]
    Damaged,
    /// There are too many.
    #[error("it has {0} bytes, more than {MAX_POSITION_BYTES}")]
    TooLarge(usize),
}

/// What to follow and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TailConfig {
    /// A file, a glob (`*`, `?`, `[...]`), or a directory, which stands for all its `*.log`. Names the
    /// active files; their rotated ones are found beside them.
    pub pattern: String,
    /// Where to begin with a file that was there before anything was read.
    pub start: Start,
    /// What the files hold.
    pub format: LogFormat,
    /// A line may be this long; a longer one is read through and only its head kept.
    pub max_line_bytes: usize,
    /// A poll reads this much at most, unless a line is longer.
    pub max_chunk_bytes: usize,
    /// A source that had nothing new for this long is stale.
    pub stale_after: Duration,
    /// How often directories are looked through when nothing says that something happened.
    pub rescan_every: Duration,
    /// How long half a line at the end of a file that was rotated is waited for.
    pub linger: Duration,
    /// How many rotated files the writer keeps, where it is known: what is not read by then is lost.
    pub max_backups: Option<u32>,
}

impl TailConfig {
    /// The pattern from the beginning, with limits that fit kube-apiserver.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self {
            pattern: pattern.into(),
            start: Start::Beginning,
            format: LogFormat::Auto,
            max_line_bytes: kaudit_event::MAX_EVENT_BYTES,
            max_chunk_bytes: 1 << 20,
            stale_after: Duration::from_mins(5),
            rescan_every: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            max_backups: None,
        }
    }
}

/// Where to begin with what was there first. What appears later is read from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the three answers there are")]
pub enum Start {
    /// With the oldest rotated file.
    #[default]
    Beginning,
    /// With what is written from now on.
    End,
    /// With the oldest file that was still written at this time.
    Since(SystemTime),
}

/// What a log file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a format is added with its reader")]
pub enum LogFormat {
    /// Decided by the first line of each file.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// What a container runtime writes: time, stream, `P` or `F`, text; only stdout is read.
    Cri,
}

/// What a poll found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "something or nothing")]
pub enum Poll {
    /// Something new; there may be more.
    Chunk(Box<Chunk>),
    /// Nothing new.
    Idle,
}

/// Why following cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// The pattern cannot be understood.
    #[error("{pattern:?} is no file, directory or glob: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// The saved position cannot be used.
    #[error(
        "the saved position of {pattern:?} cannot be read; start without it to read every file that is still \
         there again (duplicates are recognised by their content), or from the end to leave them out"
    )]
    Position {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        #[source]
        source: PositionError,
    },
}

/// Follows all the files of one pattern.
#[derive(Debug)]
pub struct Tail {
    config: TailConfig,
}

impl Tail {
    /// Looks for the files. `saved` is the position of the last chunk that was kept.
    ///
    /// # Errors
    ///
    /// [`TailError`] for a pattern or a position that cannot be understood. A file that is missing or cannot
    /// be read is no error: see [`status`](Self::status).
    pub fn open(config: TailConfig, _saved: Option<&[u8]>, _now: SystemTime) -> Result<Self, TailError> {
        Ok(Self { config })
    }

    /// The next lines, or nothing. Sources take turns. `now` only decides what is stale or due.
    pub fn poll(&mut self, _now: SystemTime) -> Poll {
        Poll::Idle
    }

    /// The position behind the last chunk.
    pub fn position(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Goes back to a position that a chunk, or [`position`](Self::position), gave: what was read since is read again.
    ///
    /// # Errors
    ///
    /// [`PositionError`]; nothing has changed then.
    pub fn rewind(&mut self, _saved: &[u8]) -> Result<(), PositionError> {
        Ok(())
    }

    /// How it goes.
    pub fn status(&self) -> TailStatus {
        let _ = &self.config;
        TailStatus::default()
    }
}
