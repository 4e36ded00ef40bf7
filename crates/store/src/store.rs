//! A store: its manifest, its lock, and what is not sealed yet.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::SystemTime;

use kaudit_journal::{Cursor, Hold, Journal, Reader, Seq};

use crate::StoreError;
use crate::cache::{Cache, CacheFigures};
use crate::columns::Sizes;
use crate::error::At;
use crate::faults::Faults;
use crate::manifest::{self, Manifest};
use crate::objects::{Bucket, BucketOptions};
use crate::part::{WrittenPart, make_folders};
use crate::place::{Commit, Place};
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
    /// memory is taken. While they are sealed it is once more, and half as many bytes of what comes meanwhile are held
    /// besides.
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
    pub(crate) place: Arc<Place>,
    pub(crate) options: Options,
    access: Access,
    state: RwLock<State>,
    /// Held by whoever seals; taken before `reading` where both are needed.
    sealing: Mutex<()>,
    /// Held by whoever reads the journal. A reader that goes on where it was need not look for its place in a segment
    /// again.
    reading: Mutex<Option<Reader>>,
    /// Held by whoever replaces files.
    upkeep: Mutex<()>,
    /// Held while a version is committed.
    committing: Mutex<Versions>,
    footers: Arc<Footers>,
    /// Of the batches that were built last.
    pub(crate) sizes: Sizes,
    pub(crate) faults: Faults,
}

/// Which versions are still looked at, and which files only those need.
#[derive(Debug, Default)]
struct Versions {
    alive: Vec<(u64, Weak<Manifest>)>,
    /// Files and the version that dropped them.
    dropped: Vec<(u64, String)>,
    /// Whether the newest version known here is the newest that there is.
    standing: Standing,
    /// Whether what others have left was removed since the opening.
    is_tidy: bool,
}

/// What is known of the newest version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// It is the newest: nobody else writes.
    #[default]
    Sure,
    /// A bucket did not answer, or somebody else has committed; it has to be read again before anything is written.
    InDoubt,
}

/// What a snapshot sees, changed in one step.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) tail: Vec<Arc<Chunk>>,
    /// Chunks of records before this one are being sealed: they stay as they are until they are sealed or that failed.
    pub(crate) sealing_to: u64,
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

    /// Whether no more is to be read into the tail. While a part of it is sealed, it may have half as much again, however
    /// often that has failed before.
    pub(crate) fn is_full(&self, tail_bytes: usize) -> bool {
        let beside = if self.sealing_to == 0 { 0 } else { tail_bytes / 2 };
        self.tail_bytes() >= tail_bytes.saturating_add(beside)
    }
}

impl Store {
    /// Opens the store below `root` to write to it; makes it if it is not there. Files that a writer which
    /// died has left are removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] while another process writes; [`StoreError::Io`]; [`StoreError::Damaged`], also
    /// where there are files of events but no manifest that says which of them count;
    /// [`StoreError::OtherPlace`] for the directory beside a bucket.
    pub fn open(root: &Path, options: Options) -> Result<Self, StoreError> {
        Self::open_at(Place::directory(root)?, options)
    }

    /// Opens the store in a bucket to write to it; makes it if it is not there. The directory `root` belongs to it:
    /// the lock is there, the name of this writer, and files that were used last.
    ///
    /// A bucket that cannot be reached does not keep a store from being opened that this directory knows: what is
    /// known is shown, events are taken up, and nothing is written before the bucket was read
    /// ([`is_in_doubt`](Self::is_in_doubt)).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); [`StoreError::Bucket`]; [`StoreError::NotOwner`] where another directory's kaudit has
    /// committed the newest version; [`StoreError::OtherPlace`] for a directory of another store.
    pub fn open_in(bucket: Bucket, root: &Path, options: Options) -> Result<Self, StoreError> {
        Self::open_at(Place::bucket(root, bucket)?, options)
    }

    fn open_at(place: Place, options: Options) -> Result<Self, StoreError> {
        let folder = manifest::folder(&place.root);
        make_folders(&place.root, &folder)?;
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
        let (manifest, standing) = match place.newest() {
            Ok(manifest) => {
                let known = place.known()?.map_or(0, |known| known.version);
                place.may_follow(&manifest, known)?;
                (manifest, Standing::Sure)
            }
            Err(error @ StoreError::Bucket { .. }) => match place.known()? {
                Some(known) => (known, Standing::InDoubt),
                None => return Err(error),
            },
            Err(error) => return Err(error),
        };
        place.may_write(&manifest)?;
        let opened = place.note()?.unwrap_or(made);
        let store = Self::with(place, options, Access::Write(lock), manifest, standing);
        if standing == Standing::Sure {
            match store.begin(micros(opened)) {
                // The bucket went away meanwhile. What is left to do is done with the upkeep.
                Err(StoreError::Bucket { .. } | StoreError::InDoubt { .. })
                    if store.manifest().version > 0 =>
                {
                    store.versions().standing = Standing::InDoubt;
                }
                begun => begun?,
            }
        }
        Ok(store)
    }

    /// Opens the store below `root` to read what is sealed, beside a process that may write to it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]; [`StoreError::Damaged`]; [`StoreError::OtherPlace`] for the directory beside a bucket.
    pub fn open_to_read(root: &Path, options: Options) -> Result<Self, StoreError> {
        Self::open_at_to_read(Place::directory(root)?, options)
    }

    /// Opens the store in a bucket to read what is sealed, beside a process that may write to it. Files that are read
    /// are kept in the directory `root`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]; [`StoreError::Damaged`]; [`StoreError::Bucket`]; [`StoreError::OtherPlace`].
    pub fn open_to_read_in(bucket: Bucket, root: &Path, options: Options) -> Result<Self, StoreError> {
        Self::open_at_to_read(Place::bucket(root, bucket)?, options)
    }

    fn open_at_to_read(place: Place, options: Options) -> Result<Self, StoreError> {
        let manifest = place.newest()?;
        Ok(Self::with(place, options, Access::Read, manifest, Standing::Sure))
    }

    fn with(place: Place, options: Options, access: Access, manifest: Manifest, standing: Standing) -> Self {
        let manifest = Arc::new(manifest);
        let versions = Versions {
            alive: vec![(manifest.version, Arc::downgrade(&manifest))],
            standing,
            ..Versions::default()
        };
        Self {
            place: Arc::new(place),
            options,
            access,
            state: RwLock::new(State {
                manifest,
                tail: Vec::new(),
                sealing_to: 0,
            }),
            sealing: Mutex::new(()),
            reading: Mutex::new(None),
            upkeep: Mutex::new(()),
            committing: Mutex::new(versions),
            footers: Arc::default(),
            sizes: Sizes::default(),
            faults: Faults::default(),
        }
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
        self.snapshot_of(self.state())
    }

    pub(crate) fn snapshot_of(&self, state: State) -> Snapshot {
        let footers = Arc::clone(&self.footers);
        Snapshot::new(Arc::clone(&self.place), state, footers, self.options.threads)
    }

    /// The directory that it lies in, or that belongs to it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.place.root
    }

    /// The bucket that it lies in, where it is one.
    #[must_use]
    pub fn bucket(&self) -> Option<&BucketOptions> {
        self.place.options()
    }

    /// The local files of the bucket, where it is one.
    #[must_use]
    pub fn cache(&self) -> Option<CacheFigures> {
        self.place.cache().map(Cache::figures)
    }

    /// Whether the bucket has to be read again before anything is written to it.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.versions().standing == Standing::InDoubt
    }

    /// Whether events are being sealed now.
    #[must_use]
    pub fn is_sealing(&self) -> bool {
        self.state().sealing_to > 0
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.committing.lock().unwrap_or_else(PoisonError::into_inner)
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
            let manifest = Arc::new(self.place.newest()?);
            self.change(|state| state.manifest = manifest);
        }
        Ok(())
    }

    pub(crate) fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// For reading the journal, one at a time; fails where this process may not write.
    pub(crate) fn reading(&self) -> Result<MutexGuard<'_, Option<Reader>>, StoreError> {
        self.writing(&self.reading)
    }

    /// For sealing, one at a time; reading goes on meanwhile.
    pub(crate) fn sealing(&self) -> Result<MutexGuard<'_, ()>, StoreError> {
        self.writing(&self.sealing)
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
        let version = next.version;
        if versions.standing == Standing::InDoubt {
            return Err(in_doubt(version, "an earlier answer did not come"));
        }
        next.writer = self.place.writer().map(str::to_owned);
        edit(&mut next);
        let manifest = match self.place.commit(next) {
            Ok(Commit::Done(manifest)) => Arc::from(manifest),
            Ok(Commit::Taken(found)) => {
                if self.place.options().is_some() {
                    versions.standing = Standing::InDoubt;
                }
                let writer = found.and_then(|found| found.writer);
                if writer.is_some() && writer.as_deref() == self.place.writer() {
                    return Err(in_doubt(version, "an earlier attempt was committed after all"));
                }
                return Err(StoreError::Conflict { version, writer });
            }
            Err(error) => {
                if matches!(error, StoreError::InDoubt { .. }) {
                    versions.standing = Standing::InDoubt;
                }
                return Err(error);
            }
        };
        self.show(&mut versions, &before, &manifest, change);
        self.place.forget_old(manifest.version)?;
        Ok(manifest)
    }

    /// Shows a version that was committed, and notes which files nobody needs any more once `before` is not looked at.
    fn show(
        &self,
        versions: &mut Versions,
        before: &Manifest,
        manifest: &Arc<Manifest>,
        change: impl FnOnce(&mut State),
    ) {
        self.change(|state| {
            state.manifest = Arc::clone(manifest);
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
        versions.alive.push((manifest.version, Arc::downgrade(manifest)));
    }

    /// Learns what became of a commit whose answer did not come, and whether the bucket answers at all, before work is
    /// done for it. Nobody may seal meanwhile.
    pub(crate) fn settle(&self, _sealing: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        if !self.is_in_doubt() && !self.place.is_ailing() {
            return Ok(());
        }
        // The tail may be cleared.
        let _reading = self.reading()?;
        let mut versions = self.writing(&self.committing)?;
        if versions.standing == Standing::Sure && !self.place.is_ailing() {
            return Ok(());
        }
        let before = self.manifest();
        let newest = self.place.newest()?;
        self.place.may_follow(&newest, before.version)?;
        if newest.hash() != before.hash() {
            if newest.writer.as_deref() != self.place.writer() {
                return Err(StoreError::Conflict {
                    version: newest.version,
                    writer: newest.writer,
                });
            }
            // It was ours. What it has sealed is read again from there on: the tail may be cut otherwise.
            self.place.keep(&newest);
            let newest = Arc::new(newest);
            let has_sealed = newest.sealed_to != before.sealed_to;
            self.show(&mut versions, &before, &newest, |state| {
                if has_sealed {
                    state.tail.clear();
                }
            });
        }
        versions.standing = Standing::Sure;
        Ok(())
    }

    /// [`settle`](Self::settle) for work that does not look at the tail, and what an opening without the bucket had to
    /// leave undone.
    pub(crate) fn settle_for_upkeep(&self, now: i64) -> Result<(), StoreError> {
        if self.is_in_doubt() || self.place.is_ailing() {
            let sealing = self.sealing()?;
            self.settle(&sealing)?;
        }
        if !self.versions().is_tidy {
            self.begin(now)?;
        }
        Ok(())
    }

    /// Removes files that no version names any more that a snapshot looks at.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        let mut versions = self.writing(&self.committing)?;
        if versions.standing == Standing::InDoubt {
            return Ok(());
        }
        let manifest = self.manifest();
        versions.alive.retain(|(_, manifest)| manifest.strong_count() > 0);
        let oldest = versions.alive.iter().map(|(version, _)| *version).min();
        let oldest = oldest.unwrap_or(u64::MAX);
        let (gone, kept) = std::mem::take(&mut versions.dropped)
            .into_iter()
            .partition(|(dropped_in, _)| *dropped_in <= oldest);
        versions.dropped = kept;
        let gone: Vec<(u64, String)> = gone;
        let names = |path: &str| manifest.parts.iter().any(|part| part.path == path);
        let orphans = self.place.orphans(&names).into_iter().map(|path| (0, path));
        let gone: Vec<(u64, String)> = gone.into_iter().chain(orphans).collect();
        let paths: Vec<String> = gone.iter().map(|(_, path)| path.clone()).collect();
        if let Err(error) = self.place.remove(&paths) {
            versions.dropped.extend(gone);
            return Err(error);
        }
        Ok(())
    }

    /// Gives a file its name, durably.
    pub(crate) fn publish(&self, written: &WrittenPart) -> Result<(), StoreError> {
        self.place.publish(written)
    }

    /// Makes sure that there is a version, that it is ours, and that only files are there which it names.
    ///
    /// A first version without files keeps a store that lost its manifest from being taken for a new one, whose
    /// stray files may go. In a bucket a version of our own is committed before anything is removed: whatever another
    /// writer, or this one before it died, may still be about to commit comes to nothing then.
    fn begin(&self, now: i64) -> Result<(), StoreError> {
        let before = self.manifest();
        let mut strays = self.place.files()?;
        if before.version == 0 && strays.iter().any(|path| path.ends_with(".parquet")) {
            return Err(StoreError::Damaged {
                path: self.place.shown("manifest").into(),
                reason: "no version of the manifest is there, but files of events are: restore it from a backup, or \
                         move the files elsewhere"
                    .to_owned(),
            });
        }
        // What is uploaded now, and what was dropped meanwhile, is looked after by those who did it.
        let manifest = self.manifest();
        let parts = || before.parts.iter().chain(&manifest.parts);
        let known: HashSet<&str> = parts().map(|part| part.path.as_str()).collect();
        strays.retain(|path| !known.contains(path.as_str()) && !self.place.is_of_this_opening(path));
        let is_ours = manifest.writer.as_deref() == self.place.writer();
        let is_fenced = self.place.options().is_none() || is_ours && strays.is_empty();
        if manifest.version == 0 || !is_fenced {
            self.commit(now.max(manifest.at), |_| {}, |_| {})?;
        } else {
            self.place.keep(&manifest);
        }
        self.place.refuses_to_repeat(&self.manifest())?;
        self.place.remove(&strays)?;
        self.place
            .tidy(&|path| known.contains(path) || self.place.is_of_this_opening(path))?;
        self.versions().is_tidy = true;
        Ok(())
    }
}

fn micros(time: SystemTime) -> i64 {
    let age = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(age.as_micros()).unwrap_or_default()
}

fn in_doubt(version: u64, why: &str) -> StoreError {
    StoreError::InDoubt {
        version,
        source: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(why)),
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
