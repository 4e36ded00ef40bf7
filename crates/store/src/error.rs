//! What can go wrong.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

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
    #[error(
        "manifest version {version} is there already{}: another writer owns this store, and nothing was changed",
        by(writer.as_deref())
    )]
    Conflict {
        /// The version.
        version: u64,
        /// Who committed it, where that is known.
        writer: Option<String>,
    },
    /// The store in a bucket is another writer's.
    #[error(
        "the store `{store}` is written by kaudit {owner}, and this is kaudit {writer}: of two writers one would lose its \
         events. Give each a prefix of its own; if the other one is gone for good, take the store over from `{owner}`"
    )]
    NotOwner {
        /// The store.
        store: String,
        /// Who committed its newest version.
        owner: String,
        /// Who wanted to write.
        writer: String,
    },
    /// Whether a version was committed is not known yet, because the bucket's answer did not come.
    #[error(
        "whether manifest version {version} was committed is not known: the bucket's answer did not come"
    )]
    InDoubt {
        /// The version.
        version: u64,
        /// What came instead of an answer.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The bucket did not do what it was asked for.
    #[error("cannot {doing} {object}: {}", words(source.as_ref()))]
    Bucket {
        /// What it was asked for.
        doing: &'static str,
        /// With which object.
        object: String,
        /// Whether it does not let us, as opposed to not answering.
        denied: bool,
        /// Why not.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A bucket cannot be used as it is asked for.
    #[error("{0}")]
    Settings(String),
    /// The directory and the configuration are of different stores.
    #[error("`{}`: {reason}", path.display())]
    OtherPlace {
        /// The directory.
        path: PathBuf,
        /// What is there, and what to do.
        reason: String,
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

fn by(writer: Option<&str>) -> String {
    writer.map_or_else(String::new, |writer| format!(", committed by kaudit {writer}"))
}

/// An error with its causes, each once: many libraries repeat the cause's text in their own.
fn words(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words += &format!(": {text}");
        }
        cause = error.source();
    }
    words
}

impl StoreError {
    /// The same once more, for another one who waited for it.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Bucket {
                doing,
                object,
                denied,
                source,
            } => Self::Bucket {
                doing,
                object: object.clone(),
                denied: *denied,
                source: Arc::clone(source),
            },
            Self::Io { path, source } => Self::Io {
                path: path.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            },
            Self::Damaged { path, reason } => Self::Damaged {
                path: path.clone(),
                reason: reason.clone(),
            },
            other => Self::Columns(other.to_string()),
        }
    }
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
