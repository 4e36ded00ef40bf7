//! What the journal asks of a file system.

mod disk;
#[cfg(any(test, feature = "test-util"))]
pub mod simulated;

use std::any::Any;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub use disk::Disk;

/// A file that is open for reading and writing. Positions are bytes from its start.
pub trait FileHandle: Send + Sync + fmt::Debug {
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes `parts` one after the other, and returns how many bytes were taken, which may be fewer.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn write_at(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Makes the content durable, and as much of the metadata as is needed to read it. After an error
    /// nothing is known of what was written since the last success, and the handle is not to be synced
    /// again.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes content and metadata durable, as [`sync_data`](Self::sync_data) does.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn sync_all(&self) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros that take no space.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Takes space for the first `bytes` bytes and extends the file to them with zeros. A file system that
    /// cannot take space beforehand only extends the file.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Bytes of the file.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds nothing.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|bytes| bytes == 0)
    }
}

/// Where a journal lives: directories, files, and the two things that would make a simulation differ from
/// run to run.
///
/// A name that was created, renamed or removed is durable after [`sync_dir`](Self::sync_dir) of its
/// directory.
pub trait Filesystem: Send + Sync + fmt::Debug + 'static {
    /// Makes a directory and those above it, for the owner only, durably; one that is there is fine.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order; those that are not UTF-8 are left out.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Creates a file for the owner only, or empties the one that is there.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;

    /// Opens a file that is there.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;

    /// Gives a file another name in place of whatever has it.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that files may still take on the file system that holds `path`.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn available(&self, path: &Path) -> io::Result<u64>;

    /// Locks a file for this process until the answer is dropped; creates it if need be.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when another has the lock, and the file system's.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// A number that nobody can guess.
    ///
    /// # Errors
    ///
    /// The system's.
    fn salt(&self) -> io::Result<u64>;

    /// The time of day.
    fn now(&self) -> SystemTime;
}
