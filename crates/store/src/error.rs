//! What can go wrong.

use std::io;
use std::path::PathBuf;

use parquet::errors::ParquetError;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process writes to this store.
    #[error("{} is locked: another process writes to this store", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// A manifest version that another writer has committed meanwhile.
    #[error("manifest version {version} is there already: another process writes to this store")]
    Conflict {
        /// The version.
        version: u64,
    },
    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The store was opened to be read.
    #[error("the store was opened to be read only")]
    ReadOnly,
    /// The columns could not be encoded or decoded.
    #[error("columns: {0}")]
    Columns(String),
    /// The journal ends before what is sealed: it is another one. Its records would be taken for sealed.
    #[error(
        "the journal ends at record {durable}, but records up to {sealed_to} are sealed: open it with \
         first_seq {sealed_to}"
    )]
    OtherJournal {
        /// The first record that is not sealed.
        sealed_to: u64,
        /// The end of the journal.
        durable: u64,
    },
    /// The journal could not be read.
    #[error("the journal: {0}")]
    Journal(#[from] kaudit_journal::ReadError),
    /// The store's cursor could not be moved.
    #[error("the journal's cursor: {0}")]
    Cursor(#[from] kaudit_journal::CursorError),
}

impl From<arrow_schema::ArrowError> for StoreError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Columns(error.to_string())
    }
}

impl From<ParquetError> for StoreError {
    fn from(error: ParquetError) -> Self {
        Self::Columns(error.to_string())
    }
}

/// Names the file in an error of the disk.
pub(crate) trait At<T> {
    fn at(self, path: &std::path::Path) -> Result<T, StoreError>;
}

impl<T> At<T> for Result<T, ParquetError> {
    fn at(self, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|error| match error {
            ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(source) => StoreError::Io {
                    path: path.to_owned(),
                    source: *source,
                },
                Err(other) => StoreError::Columns(other.to_string()),
            },
            other => other.into(),
        })
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
        })
    }
}
