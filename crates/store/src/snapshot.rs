//! One consistent view of the store.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;

use crate::StoreError;
use crate::error::At;
use crate::manifest::{Manifest, Part};
use crate::store::State;
use crate::tail::Chunk;

/// Footers that are kept.
const FOOTERS: usize = 512;

/// The sealed files of one version of the manifest and the tail that belongs to it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) root: PathBuf,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) tail: Vec<Arc<Chunk>>,
    pub(crate) footers: Arc<Footers>,
    pub(crate) threads: NonZeroUsize,
}

/// What was read of files that do not change, by path.
#[derive(Debug, Default)]
pub(crate) struct Footers(Mutex<HashMap<String, ArrowReaderMetadata>>);

impl Snapshot {
    pub(crate) fn new(root: PathBuf, state: State, footers: Arc<Footers>, threads: NonZeroUsize) -> Self {
        Self {
            root,
            manifest: state.manifest,
            tail: state.tail,
            footers,
            threads,
        }
    }

    /// The manifest that it sees.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Events that are not sealed.
    #[must_use]
    pub fn tail_rows(&self) -> usize {
        self.tail.iter().map(|chunk| chunk.batch.num_rows()).sum()
    }

    /// The first record of the journal that it does not see.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        let tail = self.tail.last().map_or(0, |chunk| chunk.next);
        self.manifest.sealed_to.max(tail)
    }
}

impl Footers {
    /// Opens a file; its footer is read only if it is not known.
    pub(crate) fn open(
        &self,
        root: &std::path::Path,
        part: &Part,
    ) -> Result<(std::fs::File, ArrowReaderMetadata), StoreError> {
        let path = root.join(&part.path);
        let file = std::fs::File::open(&path).at(&path)?;
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&part.path).cloned();
        if let Some(known) = known {
            return Ok((file, known));
        }
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_schema(crate::schema::schema())
            .with_page_index_policy(PageIndexPolicy::Optional);
        let loaded = ArrowReaderMetadata::load(&file, options).map_err(|error| StoreError::Damaged {
            path,
            reason: error.to_string(),
        })?;
        let mut kept = lock();
        if kept.len() >= FOOTERS {
            kept.clear();
        }
        kept.insert(part.path.clone(), loaded.clone());
        Ok((file, loaded))
    }
}
