//! One consistent view of the store.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::{ChunkReader, Length};

use crate::StoreError;
use crate::error::At;
use crate::manifest::{Manifest, Part};
use crate::place::Place;
use crate::store::State;
use crate::tail::Chunk;

/// Bytes of footers that are kept.
const FOOTER_BYTES: usize = 64 << 20;

/// The sealed files of one version of the manifest and the tail that belongs to it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) place: Arc<Place>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) tail: Vec<Arc<Chunk>>,
    pub(crate) footers: Arc<Footers>,
    pub(crate) threads: NonZeroUsize,
}

/// What was read of files that do not change, by path.
#[derive(Debug, Default)]
pub(crate) struct Footers(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    footers: HashMap<String, Footer>,
    bytes: usize,
}

/// What stands at the end of a file, for both ways to read texts. A clone is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Footer {
    /// Texts as they are.
    pub(crate) plain: ArrowReaderMetadata,
    /// Each distinct text once where there are few.
    pub(crate) coded: ArrowReaderMetadata,
}

impl Snapshot {
    pub(crate) fn new(place: Arc<Place>, state: State, footers: Arc<Footers>, threads: NonZeroUsize) -> Self {
        Self {
            place,
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

    /// Their bytes as log lines.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.tail.iter().map(|chunk| chunk.event_bytes).sum()
    }

    /// The first record of the journal that it does not see.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        let tail = self.tail.last().map_or(0, |chunk| chunk.next);
        self.manifest.sealed_to.max(tail)
    }
}

/// A file that several threads read at once, each at its own place.
#[derive(Clone, Debug)]
pub(crate) struct PartFile {
    file: Arc<File>,
    bytes: u64,
}

/// Reads a file from a place on.
#[derive(Debug)]
pub(crate) struct From {
    file: Arc<File>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += u64::try_from(read).unwrap_or_default();
        Ok(read)
    }
}

impl Length for PartFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for PartFile {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(From {
            file: Arc::clone(&self.file),
            at: start,
        }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

impl Footers {
    /// Opens a file; its footer is read only if it is not known. `None` if `is_over` says that nobody wants it any
    /// more before it is there.
    pub(crate) fn open(
        &self,
        place: &Place,
        part: &Part,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<(PartFile, Footer)>, StoreError> {
        let Some(file) = place.open(part, is_over)? else {
            return Ok(None);
        };
        let path = Path::new(&part.path);
        let file = PartFile {
            bytes: file.metadata().at(path)?.len(),
            file: Arc::new(file),
        };
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().footers.get(&part.path).cloned();
        if let Some(known) = known {
            return Ok(Some((file, known)));
        }
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_schema(crate::schema::schema())
            .with_page_index_policy(PageIndexPolicy::Optional);
        let load = || {
            let plain = ArrowReaderMetadata::load(&file, options)?;
            let options = ArrowReaderOptions::new()
                .with_skip_arrow_metadata(true)
                .with_schema(crate::schema::coded());
            let coded = ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options)?;
            Ok(Footer { plain, coded })
        };
        let loaded = load().map_err(|error: parquet::errors::ParquetError| StoreError::Damaged {
            path: place.shown(&part.path).into(),
            reason: error.to_string(),
        })?;
        let mut kept = lock();
        if kept.bytes > FOOTER_BYTES {
            *kept = Kept::default();
        }
        kept.bytes += loaded.plain.metadata().memory_size();
        kept.footers.insert(part.path.clone(), loaded.clone());
        drop(kept);
        Ok(Some((file, loaded)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_do_not_disturb_each_other_in_one_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0_u32..100_000).flat_map(u32::to_le_bytes).collect();
        std::fs::write(file.path(), &content).unwrap();
        let part = PartFile {
            file: Arc::new(File::open(file.path()).unwrap()),
            bytes: 400_000,
        };
        let read = |first: usize| {
            for at in (first..300_000).step_by(977) {
                let start = u64::try_from(at).unwrap();
                let mut from = vec![0; 20_000];
                part.get_read(start).unwrap().read_exact(&mut from).unwrap();
                assert_eq!(from, content[at..at + 20_000]);
                assert_eq!(part.get_bytes(start, 5000).unwrap(), content[at..at + 5000]);
            }
        };
        std::thread::scope(|scope| {
            for first in 0..4 {
                scope.spawn(move || read(first * 100));
            }
        });
    }
}
