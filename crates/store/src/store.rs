//! A store: its manifest, its lock, and what is not sealed yet.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::SystemTime;

use kaudit_journal::{Cursor, Hold, Journal, Reader, Seq};

use crate::StoreError;
use crate::error::At;
use crate::faults::Faults;
use crate::manifest::{self, Manifest};
use crate::part::make_folders;
use crate::snapshot::{Footers, Snapshot};
use crate::tail::Chunk;

/// The name of the store's cursor in the journal.
pub const CURSOR: &str = "store";

/// Bounds of a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Threads that build, write and scan.
    pub threads: NonZeroUsize,
    /// Bytes of events that are held unsealed; [`Store::catch_up`] reads no further. About twice as much
    /// memory is taken, and once more while they are sealed.
    pub tail_bytes: usize,
    /// Bytes that a compacted file should have.
    pub part_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            tail_bytes: 96 << 20,
            part_bytes: 128 << 20,
        }
    }
}

/// Who may change the files.
#[derive(Debug)]
enum Access {
    /// This store, as long as the file is locked.
    Write(#[expect(dead_code, reason = "holds the lock")] File),
    /// Somebody else.
    Read,
}

/// Audit events in Parquet files and, before they get there, in memory.
#[derive(Debug)]
pub struct Store {
    pub(crate) root: PathBuf,
    pub(crate) options: Options,
    access: Access,
    state: RwLock<State>,
    /// Held by whoever reads the journal or seals. A reader that goes on where it was need not look for its
    /// place in a segment again.
    tail_work: Mutex<Option<Reader>>,
    /// Held by whoever replaces files.
    upkeep: Mutex<()>,
    /// Held while a version is committed.
    committing: Mutex<Versions>,
    footers: Arc<Footers>,
    pub(crate) faults: Faults,
}

/// Which versions are still looked at, and which files only those need.
#[derive(Debug, Default)]
struct Versions {
    alive: Vec<(u64, Weak<Manifest>)>,
    /// Files and the version that dropped them.
    dropped: Vec<(u64, String)>,
}

/// What a snapshot sees, changed in one step.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) tail: Vec<Arc<Chunk>>,
}

impl State {
    /// The first record of the journal that is neither sealed nor in the tail.
    pub(crate) fn read_to(&self) -> u64 {
        let tail = self.tail.last().map_or(0, |chunk| chunk.next);
        self.manifest.sealed_to.max(tail)
    }

    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail.iter().map(|chunk| chunk.event_bytes).sum()
    }
}

impl Store {
    /// Opens the store below `root` to write to it; makes it if it is not there. Files that a writer which
    /// died has left are removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] while another process writes; [`StoreError::Io`]; [`StoreError::Damaged`], also
    /// where there are files of events but no manifest that says which of them count.
    pub fn open(root: &Path, options: Options) -> Result<Self, StoreError> {
        let folder = manifest::folder(root);
        make_folders(root, &folder)?;
        let path = folder.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .at(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(StoreError::Locked { path }),
            Err(std::fs::TryLockError::Error(error)) => return Err(error).at(&path),
        }
        let made = lock.metadata().and_then(|file| file.modified()).at(&path)?;
        let store = Self::with(root, options, Access::Write(lock))?;
        if store.manifest().version == 0 {
            store.begin(made)?;
        }
        store.remove_strays()?;
        Ok(store)
    }

    /// Opens the store below `root` to read what is sealed, beside a process that may write to it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]; [`StoreError::Damaged`].
    pub fn open_to_read(root: &Path, options: Options) -> Result<Self, StoreError> {
        Self::with(root, options, Access::Read)
    }

    fn with(root: &Path, options: Options, access: Access) -> Result<Self, StoreError> {
        let manifest = Arc::new(Manifest::newest(root)?);
        let versions = Versions {
            alive: vec![(manifest.version, Arc::downgrade(&manifest))],
            dropped: Vec::new(),
        };
        Ok(Self {
            root: root.to_owned(),
            options,
            access,
            state: RwLock::new(State {
                manifest,
                tail: Vec::new(),
            }),
            tail_work: Mutex::new(None),
            upkeep: Mutex::new(()),
            committing: Mutex::new(versions),
            footers: Arc::default(),
            faults: Faults::default(),
        })
    }

    /// The store's place in the journal: it keeps the segments that are not sealed. A crash between the
    /// manifest and the cursor is made good here.
    ///
    /// # Errors
    ///
    /// [`StoreError::Cursor`]; [`StoreError::OtherJournal`] for a journal that was made anew without the
    /// numbers of the one before.
    pub fn cursor(&self, journal: &Journal) -> Result<Cursor, StoreError> {
        let sealed_to = Seq::new(self.manifest().sealed_to);
        if sealed_to > journal.durable() {
            return Err(StoreError::OtherJournal {
                sealed_to: sealed_to.get(),
                durable: journal.durable().get(),
            });
        }
        let cursor = journal.cursor(CURSOR, Hold::Yes)?;
        if cursor.position() < sealed_to {
            cursor.advance(sealed_to)?;
        }
        Ok(cursor)
    }

    /// What can be asked now: the sealed files and the tail, at one point. It stays as it is whatever this
    /// process does to the store, so files that were replaced are kept as long as a snapshot may read them.
    /// In a store that was [opened to be read](Self::open_to_read) they vanish when the writer removes them;
    /// [`refresh`](Self::refresh) and ask again.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(
            self.root.clone(),
            self.state(),
            Arc::clone(&self.footers),
            self.options.threads,
        )
    }

    /// The directory that it lies in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The manifest as it is now.
    #[must_use]
    pub fn manifest(&self) -> Arc<Manifest> {
        self.state().manifest
    }

    /// Takes up what another process has committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]; [`StoreError::Damaged`].
    pub fn refresh(&self) -> Result<(), StoreError> {
        if matches!(self.access, Access::Read) {
            let manifest = Arc::new(Manifest::newest(&self.root)?);
            self.change(|state| state.manifest = manifest);
        }
        Ok(())
    }

    pub(crate) fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// For reading the journal and sealing, one at a time; fails where this process may not write.
    pub(crate) fn tail_work(&self) -> Result<MutexGuard<'_, Option<Reader>>, StoreError> {
        self.writing(&self.tail_work)
    }

    /// For replacing files, one at a time; sealing goes on meanwhile.
    pub(crate) fn upkeep(&self) -> Result<MutexGuard<'_, ()>, StoreError> {
        self.writing(&self.upkeep)
    }

    fn writing<'a, T>(&self, mutex: &'a Mutex<T>) -> Result<MutexGuard<'a, T>, StoreError> {
        match self.access {
            Access::Write(_) => Ok(mutex.lock().unwrap_or_else(PoisonError::into_inner)),
            Access::Read => Err(StoreError::ReadOnly),
        }
    }

    /// Commits a version that differs by `edit` from the newest one, and shows it to snapshots together
    /// with `change`.
    pub(crate) fn commit(
        &self,
        now: i64,
        edit: impl FnOnce(&mut Manifest),
        change: impl FnOnce(&mut State),
    ) -> Result<Arc<Manifest>, StoreError> {
        let mut versions = self.writing(&self.committing)?;
        let before = self.manifest();
        let mut next = before.next(now);
        edit(&mut next);
        let manifest = Arc::new(next.commit(&self.root)?);
        self.change(|state| {
            state.manifest = Arc::clone(&manifest);
            change(state);
        });
        let kept: HashSet<&str> = manifest.parts.iter().map(|part| part.path.as_str()).collect();
        let gone = before
            .parts
            .iter()
            .filter(|part| !kept.contains(part.path.as_str()));
        versions
            .dropped
            .extend(gone.map(|part| (manifest.version, part.path.clone())));
        versions.alive.push((manifest.version, Arc::downgrade(&manifest)));
        manifest::forget_old(&self.root, manifest.version)?;
        Ok(manifest)
    }

    /// Removes files that no version names any more that a snapshot looks at.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        let mut versions = self.writing(&self.committing)?;
        versions.alive.retain(|(_, manifest)| manifest.strong_count() > 0);
        let oldest = versions.alive.iter().map(|(version, _)| *version).min();
        let oldest = oldest.unwrap_or(u64::MAX);
        let (gone, kept) = std::mem::take(&mut versions.dropped)
            .into_iter()
            .partition(|(dropped_in, _)| *dropped_in <= oldest);
        versions.dropped = kept;
        drop(versions);
        let gone: Vec<(u64, String)> = gone;
        self.remove_files(gone.iter().map(|(_, path)| path.as_str()))
    }

    /// Removes the files of `paths`; a snapshot that has one open keeps reading it.
    pub(crate) fn remove_files<'a>(&self, paths: impl Iterator<Item = &'a str>) -> Result<(), StoreError> {
        for path in paths {
            let place = self.root.join(path);
            match std::fs::remove_file(&place) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).at(&place),
                _ => {}
            }
            // A folder goes with its last file.
            for folder in place.ancestors().skip(1).take(3) {
                if folder == self.root || std::fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Commits a first version without files, so that a store that lost its manifest is not taken for a new
    /// one, whose stray files may go.
    fn begin(&self, made: SystemTime) -> Result<(), StoreError> {
        let files = self.files()?;
        if files.iter().any(|path| path.ends_with(".parquet")) {
            return Err(StoreError::Damaged {
                path: manifest::folder(&self.root),
                reason: "no version of the manifest is there, but files of events are: restore it from a backup, or \
                         move the files elsewhere"
                    .to_owned(),
            });
        }
        let age = made.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(age.as_micros()).unwrap_or_default();
        self.commit(now, |_| {}, |_| {}).map(drop)
    }

    /// Removes Parquet files that no manifest names.
    fn remove_strays(&self) -> Result<(), StoreError> {
        let manifest = self.manifest();
        let known: HashSet<&str> = manifest.parts.iter().map(|part| part.path.as_str()).collect();
        let files = self.files()?;
        let strays = files.iter().map(String::as_str);
        self.remove_files(strays.filter(|path| !known.contains(path)))
    }

    /// All files of events, whole or not, below the root.
    fn files(&self) -> Result<Vec<String>, StoreError> {
        let mut files = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).at(&folder)? {
                let entry = entry.at(&folder)?;
                let path = entry.path();
                if entry.file_type().at(&path)?.is_dir() {
                    folders.push(path);
                    continue;
                }
                let below = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let is_ours = name.ends_with(".parquet") || name.ends_with(".tmp");
                if let Some(below) = below.filter(|_| is_ours) {
                    files.push(below.to_owned());
                }
            }
        }
        Ok(files)
    }
}

/// The folder of an hour of a cluster, below the store's directory.
pub(crate) fn folder_of(cluster: &str, day: i64, hour: Option<i64>) -> String {
    let (year, month, date) = crate::calendar::date_of(day);
    let hour = hour.map_or_else(|| "all".to_owned(), |hour| format!("{hour:02}"));
    format!(
        "cluster={}/dt={year:04}-{month:02}-{date:02}/hour={hour}",
        encoded(cluster)
    )
}

/// A cluster's name as a folder, as Hive escapes it.
fn encoded(cluster: &str) -> String {
    const LONGEST: usize = 200;
    if cluster.is_empty() {
        return "__HIVE_DEFAULT_PARTITION__".to_owned();
    }
    let mut name = String::with_capacity(cluster.len());
    for byte in cluster.bytes() {
        let is_plain =
            byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && !name.is_empty());
        if is_plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.len() > LONGEST {
        let hash = blake3::hash(cluster.as_bytes()).to_hex();
        let head: String = name.chars().take(LONGEST - 40).collect();
        let hash: String = hash.chars().take(32).collect();
        return format!("{head}-{hash}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_cannot_leave_its_folder() {
        for (cluster, name) in [
            ("prod-eu_1.x", "prod-eu_1.x"),
            ("..", "%2E."),
            ("a/b=c", "a%2Fb%3Dc"),
            ("ü", "%C3%BC"),
            ("", "__HIVE_DEFAULT_PARTITION__"),
        ] {
            assert_eq!(encoded(cluster), name);
        }
        let (one, other) = ("x".repeat(300), format!("{}y", "x".repeat(299)));
        assert!(encoded(&one).len() <= 200);
        assert_ne!(encoded(&one), encoded(&other));
    }
}
