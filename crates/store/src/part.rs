//! Parquet files: how one is written, all at once or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::file::writer::SerializedFileWriter;

use crate::StoreError;
use crate::error::At;
use crate::manifest::{Hash, Part};
use crate::rebuild::Rows;
use crate::schema::{self, Col, Form, GROUP_ROWS};

/// A file that is being written under a temporary name.
pub(crate) struct PartWriter {
    temporary: Temporary,
    writer: SerializedFileWriter<Hashed>,
    columns: ArrowRowGroupWriterFactory,
    groups: usize,
    threads: usize,
    part: Part,
}

/// A file that is written and synced, under its temporary name.
#[derive(Debug)]
pub(crate) struct WrittenPart {
    temporary: Temporary,
    pub(crate) part: Part,
    /// Held until the file is named by a manifest or given up.
    pub(crate) claim: Arc<()>,
}

/// A file that goes when nobody wants it any more and it got no other name.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next opening.
        drop(std::fs::remove_file(&self.0));
    }
}

/// Hashes what it writes.
struct Hashed {
    file: BufWriter<File>,
    hash: blake3::Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl PartWriter {
    /// Begins the file that will be `path` below the store's directory `root`.
    pub(crate) fn begin(
        root: &Path,
        path: String,
        cluster: String,
        form: Form,
        threads: usize,
    ) -> Result<Self, StoreError> {
        let place = root.join(&path);
        let temporary = place.with_extension("parquet.tmp");
        if let Some(folder) = place.parent() {
            make_folders(root, folder)?;
        }
        let temporary = Temporary(temporary);
        let file = File::create(&temporary.0).at(&temporary.0)?;
        let sink = Hashed {
            file: BufWriter::with_capacity(1 << 20, file),
            hash: blake3::Hasher::new(),
        };
        let properties = schema::properties(form, GROUP_ROWS)?;
        let writer = ArrowWriter::try_new(sink, schema::schema(), Some(properties)).at(&temporary.0)?;
        let (writer, columns) = writer.into_serialized_writer().at(&temporary.0)?;
        Ok(Self {
            temporary,
            writer,
            columns,
            groups: 0,
            threads: threads.max(1),
            part: Part::new(path, cluster),
        })
    }

    /// Writes a row group.
    pub(crate) fn group(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        self.part.cover(&Rows::of(batch)?);
        let writers = self.columns.create_column_writers(self.groups)?;
        let chunks = encode(batch, writers, self.threads)?;
        let mut group = self.writer.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group).at(&self.temporary.0)?;
        }
        group.close().at(&self.temporary.0)?;
        self.groups += 1;
        Ok(())
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.writer.bytes_written()).unwrap_or(u64::MAX)
    }

    /// Ends the file and makes it durable under its temporary name.
    pub(crate) fn finish(mut self) -> Result<WrittenPart, StoreError> {
        self.writer.finish().at(&self.temporary.0)?;
        let bytes = self.bytes();
        let sink = self.writer.inner_mut();
        sink.file.flush().at(&self.temporary.0)?;
        sink.file.get_ref().sync_all().at(&self.temporary.0)?;
        let mut part = self.part;
        part.bytes = bytes;
        part.hash = Hash::new(&sink.hash.finalize());
        Ok(WrittenPart {
            temporary: self.temporary,
            part,
            claim: Arc::default(),
        })
    }
}

impl WrittenPart {
    /// Opens the file under its temporary name.
    pub(crate) fn open(&self) -> Result<File, StoreError> {
        File::open(&self.temporary.0).at(&self.temporary.0)
    }

    /// Gives the file its name in a directory, durably.
    pub(crate) fn publish(&self, root: &Path) -> Result<(), StoreError> {
        let place = root.join(&self.part.path);
        std::fs::rename(&self.temporary.0, &place).at(&place)?;
        match place.parent() {
            Some(folder) => sync_folder(folder),
            None => Ok(()),
        }
    }
}

/// One top-level column with the writers of its leaves.
struct Task {
    at: usize,
    array: ArrayRef,
    writers: Vec<ArrowColumnWriter>,
}

/// Encodes the columns of a row group on several threads.
fn encode(
    batch: &RecordBatch,
    writers: Vec<ArrowColumnWriter>,
    threads: usize,
) -> Result<Vec<ArrowColumnChunk>, StoreError> {
    let schema = schema::schema();
    let mut writers = writers.into_iter();
    let mut tasks = Vec::new();
    for (at, (field, array)) in schema.fields().iter().zip(batch.columns()).enumerate() {
        let leaves = if at == Col::Annotations.at() { 2 } else { 1 };
        debug_assert!(!matches!(field.data_type(), arrow_schema::DataType::Struct(_)));
        tasks.push(Task {
            at,
            array: Arc::clone(array),
            writers: writers.by_ref().take(leaves).collect(),
        });
    }
    // The largest first, so that the threads end together.
    tasks.sort_by_key(|task| std::cmp::Reverse(task.array.get_buffer_memory_size()));
    let tasks: Vec<Mutex<Option<Task>>> = tasks.into_iter().map(|task| Mutex::new(Some(task))).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<ArrowColumnChunk>)>, StoreError> {
        let mut done = Vec::new();
        while let Some(slot) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let task = slot.lock().ok().and_then(|mut slot| slot.take());
            let (Some(task), schema) = (task, schema::schema()) else {
                continue;
            };
            let leaves = compute_leaves(schema.field(task.at), &task.array)?;
            let mut chunks = Vec::new();
            for (leaf, mut writer) in leaves.iter().zip(task.writers) {
                writer.write(leaf)?;
                chunks.push(writer.close()?);
            }
            done.push((task.at, chunks));
        }
        Ok(done)
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work()?;
        for other in others {
            let theirs = other
                .join()
                .map_err(|_| StoreError::Columns("an encoder panicked".to_owned()))?;
            done.extend(theirs?);
        }
        Ok::<_, StoreError>(done)
    })?;
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().flat_map(|(_, chunks)| chunks).collect())
}

/// Makes the folders from `root` down to `folder`, each durable in the one above it.
pub(crate) fn make_folders(root: &Path, folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent().filter(|_| folder != root) {
        make_folders(root, above)?;
    }
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at(folder),
        _ => folder.parent().map_or(Ok(()), sync_folder),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).at(folder)
}
