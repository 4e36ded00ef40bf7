//! Follows log files over every style of rotation. Synchronous: a thread polls.
//!
//! One [`Tail`] serves one pattern. It knows what it has read of each file by what the file holds, not by
//! its name or inode alone, so a file that was renamed, compressed or copied in the meantime is gone on
//! with where it was left, and read once. What is read is handed over in [`Chunk`]s; each carries the
//! position behind it, which the caller keeps together with the lines and gives back after a restart or
//! a failure.

mod book;
mod gone;
mod identity;
mod names;
mod pattern;
mod reading;
mod scan;
mod source;
mod status;
mod tracker;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::{Chunk, Gap, GapReason};
use book::{Book, MAX_SOURCES, Position, Progress};
use pattern::Pattern;
use source::Source;

pub(crate) use reading::{Fill, Reading, push_torn};

pub use book::{MAX_POSITION_BYTES, PositionError};
pub use status::{SourceState, SourceStatus, TailStatus};

/// What to follow and how.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "settings, filled in over the defaults")]
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
    pattern: Pattern,
    sources: Vec<Source>,
    /// What was read of sources that are not found now, and since when.
    dormant: Vec<(u64, Book, SystemTime)>,
    turn: usize,
    next_search: SystemTime,
    problem: Option<String>,
    /// Gaps that chunks have named.
    gaps: u64,
    /// The last of them, to name them again after a rewind: number, source, gap.
    recent_gaps: VecDeque<(u64, u64, Gap)>,
}

/// So many gaps can be named again.
const RECENT_GAPS: usize = 64;

/// What was read of a source that does not come back is forgotten then.
const DORMANT_FOR: Duration = Duration::from_mins(10);

impl Tail {
    /// Looks for the files. `saved` is the position of the last chunk that was kept.
    ///
    /// # Errors
    ///
    /// [`TailError`] for a pattern or a position that cannot be understood. A file that is missing or cannot
    /// be read is no error: see [`status`](Self::status).
    pub fn open(config: TailConfig, saved: Option<&[u8]>, now: SystemTime) -> Result<Self, TailError> {
        let pattern = Pattern::parse(&config.pattern).map_err(|reason| TailError::Pattern {
            pattern: config.pattern.clone(),
            reason,
        })?;
        let position = saved
            .map(Position::decode)
            .transpose()
            .map_err(|source| TailError::Position {
                pattern: config.pattern.clone(),
                source,
            })?;
        let start = if position.is_none() {
            Some(config.start)
        } else {
            None
        };
        let position = position.unwrap_or_default();
        let mut tail = Self {
            config,
            pattern,
            sources: Vec::new(),
            dormant: position
                .books
                .into_iter()
                .map(|(path, book)| (path, book, now))
                .collect(),
            turn: 0,
            next_search: now,
            problem: None,
            gaps: position.gaps,
            recent_gaps: VecDeque::new(),
        };
        tail.search(start, now);
        Ok(tail)
    }

    /// The next lines, or nothing. Sources take turns. `now` only decides what is stale or due; what was
    /// found when a directory was last looked through stands until
    /// [`rescan_every`](TailConfig::rescan_every) has passed.
    pub fn poll(&mut self, now: SystemTime) -> Poll {
        if now >= self.next_search {
            self.search(None, now);
        }
        for _ in 0..self.sources.len() {
            self.turn = (self.turn + 1) % self.sources.len().max(1);
            let Some(source) = self.sources.get_mut(self.turn) else {
                break;
            };
            let Some(mut chunk) = source.poll(&self.config, now) else {
                continue;
            };
            let path = source.path_hash;
            self.number_gaps(path, &chunk.gaps);
            chunk.position = self.position();
            return Poll::Chunk(Box::new(chunk));
        }
        Poll::Idle
    }

    fn number_gaps(&mut self, path: u64, gaps: &[Gap]) {
        for gap in gaps {
            self.gaps += 1;
            self.recent_gaps.push_back((self.gaps, path, gap.clone()));
        }
        while self.recent_gaps.len() > RECENT_GAPS {
            self.recent_gaps.pop_front();
        }
    }

    /// The position behind the last chunk. It is worth keeping before the first one too: it holds where the
    /// reading began.
    pub fn position(&mut self) -> Vec<u8> {
        let room = book::room(self.sources.len() + self.dormant.len());
        for book in self
            .sources
            .iter_mut()
            .map(|source| &mut source.book)
            .chain(self.dormant.iter_mut().map(|(_, book, _)| book))
        {
            book.fit(room);
        }
        let books: Vec<(u64, &Book)> = self
            .sources
            .iter()
            .map(|source| (source.path_hash, &source.book))
            .chain(self.dormant.iter().map(|(path, book, _)| (*path, book)))
            .collect();
        Position::encode(self.gaps, books.into_iter())
    }

    /// Goes back to a position that a chunk, or [`position`](Self::position), gave: what was read since is
    /// read again. Files that were removed in the meantime are still read when that was less than a minute
    /// ago.
    ///
    /// # Errors
    ///
    /// [`PositionError`]; nothing has changed then.
    pub fn rewind(&mut self, saved: &[u8]) -> Result<(), PositionError> {
        let mut position = Position::decode(saved)?;
        for source in &mut self.sources {
            let at = position
                .books
                .iter()
                .position(|(path, _)| *path == source.path_hash);
            let book = at.map(|at| position.books.swap_remove(at).1).unwrap_or_default();
            source.rewind(book);
            let again = self
                .recent_gaps
                .iter()
                .filter(|(number, path, _)| *number > position.gaps && *path == source.path_hash);
            source.gaps.extend(again.map(|(_, _, gap)| gap.clone()));
        }
        self.recent_gaps.retain(|(number, ..)| *number <= position.gaps);
        self.gaps = position.gaps;
        let now = self.next_search;
        self.dormant = position
            .books
            .into_iter()
            .map(|(path, book)| (path, book, now))
            .collect();
        Ok(())
    }

    /// How it goes.
    pub fn status(&self) -> TailStatus {
        TailStatus {
            sources: self
                .sources
                .iter()
                .map(|source| source.status(&self.config))
                .collect(),
            problem: self.problem.clone(),
        }
    }

    /// Looks for active files. `start` is for those that are there now.
    fn search(&mut self, start: Option<Start>, now: SystemTime) {
        self.next_search = now + self.config.rescan_every;
        let (paths, problem) = self.pattern.search();
        self.problem = problem;
        self.sources
            .retain(|source| paths.contains(&source.path) || !source.is_gone());
        for path in paths {
            if self.sources.iter().any(|source| source.path == path) {
                continue;
            }
            if self.sources.len() >= MAX_SOURCES {
                self.problem = Some(format!(
                    "more than {MAX_SOURCES} files match; {} and others are not followed",
                    path.display()
                ));
                break;
            }
            let hash = source::path_hash(&path);
            let at = self.dormant.iter().position(|(path, ..)| *path == hash);
            let book = at.map(|at| self.dormant.swap_remove(at).1);
            let mut source = Source::new(path, book, start, now);
            source.prepare(&self.config, now);
            self.sources.push(source);
        }
        self.sources.sort_by(|one, other| one.path.cmp(&other.path));
        self.forget_dormant(now);
    }

    fn forget_dormant(&mut self, now: SystemTime) {
        let room = MAX_SOURCES - self.sources.len().min(MAX_SOURCES);
        let mut kept = Vec::new();
        for (path, book, since) in std::mem::take(&mut self.dormant) {
            let is_young = now.duration_since(since).unwrap_or_default() < DORMANT_FOR;
            if is_young && kept.len() < room {
                kept.push((path, book, since));
            } else if let Some(source) = self.sources.first_mut() {
                let unfinished = book
                    .entries
                    .iter()
                    .filter(|entry| entry.progress == Progress::Reading);
                source.gaps.extend(unfinished.map(|entry| Gap {
                    file: format!("a file that was followed before, path hash {path:016x}"),
                    offset: entry.offset,
                    reason: GapReason::RestNotFound,
                }));
            } else {
                // Nobody could name the gap; it waits for a source.
                kept.push((path, book, since));
            }
        }
        self.dormant = kept;
    }
}
