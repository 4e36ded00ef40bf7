//! Files of a bucket that are kept locally: under the same names as in the bucket, each whole, as many as there is
//! room for.
//!
//! A file has its name only when all of it is there, compared with its hash and synced; so whatever lies under a
//! name is used without a look into it. What was not used for the longest time goes first. A file that is being read
//! may go as well: who has it open reads on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::StoreError;
use crate::error::At;
use crate::manifest::{Hash, Part};
use crate::objects::{Bucket, Refusal, RefusalKind};
use crate::part::make_folders;

/// Files that come at once.
const MOST_FETCHES: usize = 8;

/// Who waits for a file looks so often whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// The local files of a bucket.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    bucket: Bucket,
    state: Mutex<State>,
    /// A file has come, or will not.
    changed: Condvar,
    figures: Figures,
}

#[derive(Debug, Default)]
struct State {
    /// When each file was last used, by a clock that counts uses.
    used: HashMap<String, u64>,
    clock: u64,
    fetches: HashMap<String, Arc<Fetch>>,
}

/// A file that is on its way.
#[derive(Debug, Default)]
struct Fetch {
    bytes: u64,
    outcome: Mutex<Option<Result<File, StoreError>>>,
}

#[derive(Debug, Default)]
struct Figures {
    hits: AtomicU64,
    fetched: AtomicU64,
    fetched_bytes: AtomicU64,
    failed: AtomicU64,
}

/// What became of the local files of a bucket since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheFigures {
    /// Bytes that are there.
    pub bytes: u64,
    /// Files that were there when they were asked for.
    pub hits: u64,
    /// Files that came from the bucket.
    pub fetched: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Files that did not come.
    pub failed: u64,
}

impl Cache {
    pub(crate) fn new(root: &Path, bucket: Bucket) -> Self {
        Self {
            root: root.to_owned(),
            bucket,
            state: Mutex::default(),
            changed: Condvar::new(),
            figures: Figures::default(),
        }
    }

    pub(crate) fn figures(&self) -> CacheFigures {
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        CacheFigures {
            bytes: self.files().iter().map(|file| file.bytes).sum(),
            hits: load(&self.figures.hits),
            fetched: load(&self.figures.fetched),
            fetched_bytes: load(&self.figures.fetched_bytes),
            failed: load(&self.figures.failed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a file, which comes from the bucket if it is not here. `None` if `is_over` says that nobody wants it any
    /// more; it comes all the same, for the next one who asks.
    pub(crate) fn open(
        self: &Arc<Self>,
        part: &Part,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<File>, StoreError> {
        if let Some(file) = self.open_local(part)? {
            self.figures.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(file));
        }
        let mut state = self.lock();
        let fetch = loop {
            if is_over() {
                return Ok(None);
            }
            if let Some(fetch) = state.fetches.get(&part.path) {
                break Arc::clone(fetch);
            }
            if state.fetches.len() < MOST_FETCHES {
                let fetch = Arc::new(Fetch {
                    bytes: part.bytes,
                    ..Fetch::default()
                });
                state.fetches.insert(part.path.clone(), Arc::clone(&fetch));
                self.begin(part, &fetch)
                    .inspect_err(|_| drop(state.fetches.remove(&part.path)))?;
                break fetch;
            }
            state = self.wait(state);
        };
        loop {
            if let Some(outcome) = fetch.take() {
                return outcome.map(Some);
            }
            if is_over() {
                return Ok(None);
            }
            state = self.wait(state);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, LOOK);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn open_local(&self, part: &Part) -> Result<Option<File>, StoreError> {
        let path = self.root.join(&part.path);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.at(&path)?,
        };
        if file.metadata().at(&path)?.len() != part.bytes {
            // Nothing of ours is written under its name; it comes anew.
            std::fs::remove_file(&path).at(&path)?;
            return Ok(None);
        }
        self.use_now(&part.path);
        Ok(Some(file))
    }

    /// Notes that a file is used, or has just come.
    pub(crate) fn use_now(&self, path: &str) {
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        state.used.insert(path.to_owned(), now);
    }

    /// A thread of its own, which ends with the file: whoever began it may go.
    fn begin(self: &Arc<Self>, part: &Part, fetch: &Arc<Fetch>) -> Result<(), StoreError> {
        let (cache, part, fetch) = (Arc::clone(self), part.clone(), Arc::clone(fetch));
        let thread = std::thread::Builder::new().name("store-fetch".to_owned());
        let spawned = thread.spawn(move || {
            let outcome = cache.fetch(&part);
            let figures = &cache.figures;
            match outcome {
                Ok(_) => {
                    figures.fetched.fetch_add(1, Ordering::Relaxed);
                    figures.fetched_bytes.fetch_add(part.bytes, Ordering::Relaxed);
                }
                Err(_) => drop(figures.failed.fetch_add(1, Ordering::Relaxed)),
            }
            let mut state = cache.lock();
            fetch.put(outcome);
            state.fetches.remove(&part.path);
            drop(state);
            cache.changed.notify_all();
            // Several may have come at once.
            cache.make_room(0);
        });
        spawned.map(drop).at(Path::new("store-fetch"))
    }

    fn fetch(&self, part: &Part) -> Result<File, StoreError> {
        self.make_room(0);
        match self.fetch_now(part) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                // Others fill the disk as well: what is only a copy has to go.
                self.make_room(u64::MAX);
                self.fetch_now(part)
            }
            fetched => fetched,
        }
    }

    fn fetch_now(&self, part: &Part) -> Result<File, StoreError> {
        let place = self.root.join(&part.path);
        if let Some(folder) = place.parent() {
            make_folders(&self.root, folder)?;
        }
        // Another process may fetch the same file.
        let temporary = place.with_extension(format!("parquet.{}.tmp", std::process::id()));
        let fetched = self.fetch_to(part, &temporary);
        if fetched.is_ok() && std::fs::rename(&temporary, &place).is_ok() {
            self.use_now(&part.path);
        } else {
            drop(std::fs::remove_file(&temporary));
        }
        fetched
    }

    fn fetch_to(&self, part: &Part, temporary: &Path) -> Result<File, StoreError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(temporary);
        let mut file = file.at(temporary)?;
        let mut broken = None;
        let found = self.hash(part, &mut |piece| {
            file.write_all(piece).inspect_err(|error| {
                broken = Some(io::Error::from(error.kind()));
            })
        });
        if let Some(error) = broken {
            return Err(error).at(temporary);
        }
        let found = found?;
        if found != part.hash {
            return Err(StoreError::Damaged {
                path: format!("{}/{}", self.bucket.options.url(), part.path).into(),
                reason: format!("its hash is {}, and was {}", found.as_str(), part.hash.as_str()),
            });
        }
        file.sync_all().at(temporary)?;
        Ok(file)
    }

    /// Reads a file in the bucket and gives its hash.
    pub(crate) fn hash(
        &self,
        part: &Part,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Hash, StoreError> {
        let mut hasher = blake3::Hasher::new();
        let read = self.bucket.objects.read(&part.path, part.bytes, &mut |piece| {
            hasher.update(piece);
            each(piece)
        });
        read.map_err(|refusal: Refusal| match refusal.kind {
            RefusalKind::Missing => StoreError::Io {
                path: format!("{}/{}", self.bucket.options.url(), part.path).into(),
                source: io::ErrorKind::NotFound.into(),
            },
            _ => refusal.at("read", &self.bucket.options.url(), &part.path),
        })?;
        Ok(Hash::new(&hasher.finalize()))
    }

    /// Removes what was not used for the longest time, until there is room for so many bytes more and for what is on its
    /// way.
    pub(crate) fn make_room(&self, bytes: u64) {
        let mut files = self.files();
        let state = self.lock();
        let mut kept: u64 = files.iter().map(|file| file.bytes).sum();
        let under_way: u64 = state.fetches.values().map(|fetch| fetch.bytes).sum();
        let wanted = bytes.saturating_add(under_way);
        let limit = self.bucket.options.cache_bytes.saturating_sub(wanted);
        files.sort_by_key(|file| (state.used.get(&file.path).copied(), file.modified));
        drop(state);
        for file in files {
            if kept <= limit {
                break;
            }
            // What does not go is there at the next look as well.
            if std::fs::remove_file(self.root.join(&file.path)).is_ok() {
                kept = kept.saturating_sub(file.bytes);
                self.lock().used.remove(&file.path);
            }
        }
    }

    /// The files that are here.
    fn files(&self) -> Vec<Kept> {
        let mut files = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else {
                    continue;
                };
                let below = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
                match below {
                    _ if metadata.is_dir() => folders.push(path),
                    Some(below) if below.ends_with(".parquet") => files.push(Kept {
                        path: below.to_owned(),
                        bytes: metadata.len(),
                        modified: metadata.modified().ok(),
                    }),
                    _ => {}
                }
            }
        }
        files
    }
}

/// A file that is here.
struct Kept {
    path: String,
    bytes: u64,
    modified: Option<std::time::SystemTime>,
}

impl Fetch {
    fn lock(&self) -> MutexGuard<'_, Option<Result<File, StoreError>>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, outcome: Result<File, StoreError>) {
        *self.lock() = Some(outcome);
    }

    /// The outcome, for one of those who wait.
    fn take(&self) -> Option<Result<File, StoreError>> {
        Some(match self.lock().as_ref()? {
            Ok(file) => file.try_clone().at(Path::new("store-fetch")),
            Err(error) => Err(error.again()),
        })
    }
}
