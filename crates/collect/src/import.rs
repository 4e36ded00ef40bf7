//! Reads one file to its end, whatever it holds: JSON lines, EventLists, container logs, compressed or
//! not. The format is told by the content, never by the name.

mod document;

use std::io;
use std::path::{Path, PathBuf};

use crate::{Chunk, InflateError, Limits, LogFormat};

/// How to read a file.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "settings, filled in over the defaults")]
pub struct ImportConfig {
    /// An event may be this long; of a longer one only the head is kept.
    pub max_line_bytes: usize,
    /// A chunk holds about this much, unless an event is longer.
    pub max_chunk_bytes: usize,
    /// What may come out of a compressed file.
    pub limits: Limits,
    /// How lines are written, where there are lines.
    pub format: LogFormat,
}

impl Default for ImportConfig {
    fn default() -> Self {
        Self {
            max_line_bytes: kaudit_event::MAX_EVENT_BYTES,
            max_chunk_bytes: 1 << 20,
            limits: Limits {
                max_bytes: u64::MAX,
                max_ratio: 100,
                free_bytes: 64 << 20,
            },
            format: LogFormat::Auto,
        }
    }
}

/// How far the reading is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of the file, as it lies on disk, that were read.
    pub read_bytes: u64,
    /// Bytes of the file; `None` for standard input.
    pub total_bytes: Option<u64>,
    /// Bytes of text that came out.
    pub text_bytes: u64,
}

/// Tells whether a text was imported before, compressed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ImportIdentity {
    /// BLAKE3 of the uncompressed text.
    pub hash: [u8; 32],
    /// Its length in bytes.
    pub length: u64,
}

/// Why a file cannot be imported, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It cannot be opened or read.
    #[error("{path}: cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a device, a pipe or a socket.
    #[error("{path}: not a regular file; standard input is given as \"-\"")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged, or grows too much.
    #[error("{path}: {text_bytes} bytes of text were read, then it cannot be unpacked")]
    Inflate {
        /// The file.
        path: PathBuf,
        /// Text that came out before.
        text_bytes: u64,
        /// Why.
        #[source]
        source: InflateError,
    },
}

/// One file that is read to its end.
#[derive(Debug)]
pub struct ImportFile {
    path: PathBuf,
}

impl ImportFile {
    /// Opens a regular file, following symbolic links, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// [`ImportError`] when it cannot be opened or is no regular file.
    pub fn open(path: &Path, _config: ImportConfig) -> Result<Self, ImportError> {
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Reads anything, for example standard input; `name` stands for its path.
    pub fn from_reader(_reader: impl io::Read + Send + 'static, name: &str, _config: ImportConfig) -> Self {
        Self { path: name.into() }
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`ImportError`]; the chunks before it are good, and reading ends here.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, ImportError> {
        Ok(None)
    }

    /// How far the reading is.
    pub fn progress(&self) -> Progress {
        Progress::default()
    }

    /// What the text was; known when all of it is read.
    pub fn identity(&self) -> Option<ImportIdentity> {
        None
    }

    /// Reads a whole file only to know what it is, to see whether it was imported before.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`next_chunk`](Self::next_chunk).
    pub fn identify(path: &Path, config: ImportConfig) -> Result<ImportIdentity, ImportError> {
        let file = Self::open(path, config)?;
        Ok(file.identity().unwrap_or(ImportIdentity {
            hash: [0; 32],
            length: 0,
        }))
    }
}
