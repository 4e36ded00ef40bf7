//! Where a store's files are: in a directory, or in a bucket with a directory beside it.
//!
//! The layout is the same in both. In a directory a name is given by a rename and taken by a link that fails where it
//! is there; in a bucket a file is uploaded whole, and the manifest is created only if its name is free. Beside a
//! bucket the directory holds the lock, the newest version of the manifest that is known, so that a start needs no
//! bucket, and files that were used last.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use crate::StoreError;
use crate::cache::Cache;
use crate::error::At;
use crate::manifest::{self, Hash, Manifest, Part};
use crate::objects::{Bucket, BucketOptions, Created, Refusal, RefusalKind};
use crate::part::{WrittenPart, sync_folder};

/// Says that a directory is beside a bucket, and which.
const LOCATION: &str = "location.json";

/// Where a store's files are.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) root: PathBuf,
    bucket: Option<InBucket>,
}

#[derive(Debug)]
struct InBucket {
    bucket: Bucket,
    cache: Arc<Cache>,
    /// Makes the names of files of this opening unlike all others: an upload or a removal that was given up may still
    /// be done by the bucket long after, and must not meet a file that counts.
    opening: u64,
    files: AtomicU64,
    /// What was uploaded, or nearly, and may not be named by a manifest; who holds a claim is still at work with it.
    uploads: Mutex<Vec<(String, Weak<()>)>>,
    /// Whether the last request got no proper answer.
    is_ailing: AtomicBool,
}

/// A version that is there, and what it holds or why that cannot be said.
pub(crate) type Version = (u64, Result<Manifest, StoreError>);

/// How a commit ended without an error.
#[derive(Debug)]
pub(crate) enum Commit {
    Done(Box<Manifest>),
    /// The name is taken, and not by what was to be committed; by this, where that is known.
    Taken(Option<Box<Manifest>>),
}

/// The bucket that the directory `root` of a store is beside, if it is.
///
/// # Errors
///
/// [`StoreError::Io`]; [`StoreError::Damaged`].
pub fn bucket_of(root: &Path) -> Result<Option<BucketOptions>, StoreError> {
    let path = root.join(LOCATION);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.at(&path)?,
    };
    let options = serde_json::from_slice(&text).map_err(|error| StoreError::Damaged {
        path,
        reason: error.to_string(),
    })?;
    Ok(Some(options))
}

impl Place {
    /// A directory.
    pub(crate) fn directory(root: &Path) -> Result<Self, StoreError> {
        if let Some(bucket) = bucket_of(root)? {
            return Err(StoreError::OtherPlace {
                path: root.to_owned(),
                reason: format!(
                    "the store of this directory is in {}: name it in `store.location`, or give another data directory",
                    bucket.url()
                ),
            });
        }
        Ok(Self {
            root: root.to_owned(),
            bucket: None,
        })
    }

    /// A bucket, and the directory beside it.
    pub(crate) fn bucket(root: &Path, mut bucket: Bucket) -> Result<Self, StoreError> {
        let other = |reason: String| StoreError::OtherPlace {
            path: root.to_owned(),
            reason,
        };
        let url = bucket.options.url();
        match bucket_of(root)? {
            Some(there) if !there.is_same_place(&bucket.options) => {
                return Err(other(format!(
                    "the store of this directory is in {}, and {url} is asked for: give another data directory",
                    there.url(),
                )));
            }
            Some(there) => bucket.options.writer = there.writer,
            None => {
                let local = Manifest::newest(root)?;
                if !local.parts.is_empty() || local.sealed_to > 1 {
                    return Err(other(format!(
                        "there is a store already, whose files are here: to have it in {url}, stop kaudit, copy \
                         `manifest` and all `cluster=...` there, and move this directory away"
                    )));
                }
                bucket.options.writer = format!("{:016x}", random()?);
            }
        }
        Ok(Self {
            root: root.to_owned(),
            bucket: Some(InBucket {
                cache: Arc::new(Cache::new(root, bucket.clone())),
                bucket,
                opening: random()?,
                files: AtomicU64::new(0),
                uploads: Mutex::default(),
                is_ailing: AtomicBool::new(false),
            }),
        })
    }

    /// Notes in the directory where the store is, and who writes to it; when, by the clock of the disk.
    pub(crate) fn note(&self) -> Result<Option<SystemTime>, StoreError> {
        let Some(InBucket { bucket, .. }) = &self.bucket else {
            return Ok(None);
        };
        let path = self.root.join(LOCATION);
        if bucket_of(&self.root)?.is_none() {
            // Versions of an empty store that was here before are none of the bucket's.
            for version in manifest::versions(&self.root)? {
                let path = manifest::file(&self.root, version);
                std::fs::remove_file(&path).at(&path)?;
            }
        }
        let text =
            serde_json::to_vec(&bucket.options).map_err(|error| StoreError::Columns(error.to_string()))?;
        replace(&path, &text)?;
        let written = std::fs::metadata(&path).and_then(|file| file.modified());
        written.at(&path).map(Some)
    }

    /// Whether this writer may follow the newest version of the manifest.
    pub(crate) fn may_write(&self, newest: &Manifest) -> Result<(), StoreError> {
        let (Some(there), Some(owner)) = (&self.bucket, &newest.writer) else {
            return Ok(());
        };
        let options = &there.bucket.options;
        if *owner == options.writer || options.take_over_from.as_ref() == Some(owner) {
            return Ok(());
        }
        Err(StoreError::NotOwner {
            store: options.url(),
            owner: owner.clone(),
            writer: options.writer.clone(),
        })
    }

    /// Whether a newest version can be one, after `known` was there: what is in a bucket does not become less.
    pub(crate) fn may_follow(&self, newest: &Manifest, known: u64) -> Result<(), StoreError> {
        if newest.version >= known {
            return Ok(());
        }
        Err(StoreError::Damaged {
            path: self.shown("manifest").into(),
            reason: format!(
                "version {known} was there, and now {} is the newest: this is another bucket, or an older state of it",
                newest.version
            ),
        })
    }

    /// The name of this writer in a bucket.
    pub(crate) fn writer(&self) -> Option<&str> {
        self.options().map(|options| options.writer.as_str())
    }

    /// How a path of the store is told to people.
    pub(crate) fn shown(&self, path: &str) -> String {
        match self.options() {
            None => self.root.join(path).display().to_string(),
            Some(options) => format!("{}/{path}", options.url()),
        }
    }

    /// Whether the bucket did not answer the last time.
    pub(crate) fn is_ailing(&self) -> bool {
        let there = self.bucket.as_ref();
        there.is_some_and(|there| there.is_ailing.load(Ordering::Relaxed))
    }

    /// What was uploaded and given up: `counts` says of which files the manifest knows.
    pub(crate) fn orphans(&self, counts: &dyn Fn(&str) -> bool) -> Vec<String> {
        let Some(there) = &self.bucket else {
            return Vec::new();
        };
        let mut uploads = there.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let given_up = uploads.extract_if(.., |(_, claim)| claim.strong_count() == 0);
        given_up
            .map(|(path, _)| path)
            .filter(|path| !counts(path))
            .collect()
    }

    /// The bucket, where it is one.
    pub(crate) fn options(&self) -> Option<&BucketOptions> {
        self.bucket.as_ref().map(|there| &there.bucket.options)
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.bucket.as_ref().map(|there| &*there.cache)
    }

    /// The name of a new file in a folder; `stem` is new by itself in a directory.
    pub(crate) fn name(&self, folder: &str, stem: &str) -> String {
        match &self.bucket {
            None => format!("{folder}/part-{stem}.parquet"),
            Some(there) => {
                let number = there.files.fetch_add(1, Ordering::Relaxed);
                format!("{folder}/part-{stem}-{:016x}-{number}.parquet", there.opening)
            }
        }
    }

    /// Whether a file of a bucket got its name since this was opened.
    pub(crate) fn is_of_this_opening(&self, path: &str) -> bool {
        let there = self.bucket.as_ref();
        there.is_some_and(|there| path.contains(&format!("-{:016x}-", there.opening)))
    }

    /// The newest version of the manifest; the empty one where there is none.
    pub(crate) fn newest(&self) -> Result<Manifest, StoreError> {
        let Some(there) = &self.bucket else {
            return Manifest::newest(&self.root);
        };
        match there.versions(None)?.last() {
            Some((version, bytes)) => there.read(*version, *bytes),
            None => Ok(Manifest::empty()),
        }
    }

    /// The newest version that the directory knows, where the store is in a bucket.
    pub(crate) fn known(&self) -> Result<Option<Manifest>, StoreError> {
        let known = Manifest::newest(&self.root)?;
        Ok((self.bucket.is_some() && known.version > 0).then_some(known))
    }

    /// Keeps a version of a bucket's manifest in the directory, for a start without the bucket. What cannot be kept is
    /// missed only there.
    pub(crate) fn keep(&self, manifest: &Manifest) {
        if self.bucket.is_none() {
            return;
        }
        let kept = manifest
            .encode()
            .and_then(|bytes| replace(&manifest::file(&self.root, manifest.version), &bytes));
        if kept.is_ok()
            && let Ok(versions) = manifest::versions(&self.root)
        {
            for version in versions
                .into_iter()
                .filter(|version| *version != manifest.version)
            {
                drop(std::fs::remove_file(manifest::file(&self.root, version)));
            }
        }
    }

    /// The versions that are there, in order, each read.
    pub(crate) fn versions(&self) -> Result<Vec<Version>, StoreError> {
        let Some(there) = &self.bucket else {
            let versions = manifest::versions(&self.root)?.into_iter();
            return Ok(versions
                .map(|version| (version, Manifest::read(&self.root, version)))
                .collect());
        };
        let mut versions = Vec::new();
        for (version, bytes) in there.versions(None)? {
            versions.push(match there.read(version, bytes) {
                Err(error @ StoreError::Bucket { .. }) => return Err(error),
                read => (version, read),
            });
        }
        Ok(versions)
    }

    /// Reads one version; `None` where it is not there.
    pub(crate) fn version(&self, version: u64) -> Result<Option<Manifest>, StoreError> {
        let Some(there) = &self.bucket else {
            return Manifest::read(&self.root, version).map(Some);
        };
        let found = there.versions(version.checked_sub(1))?;
        match found.iter().find(|(number, _)| *number == version) {
            Some((_, bytes)) => there.read(version, *bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Makes this the newest version, durably, unless the version is there already.
    pub(crate) fn commit(&self, manifest: Manifest) -> Result<Commit, StoreError> {
        let Some(there) = &self.bucket else {
            return manifest.commit(&self.root);
        };
        let mut manifest = manifest.sorted();
        let bytes = manifest.encode()?;
        let key = key_of(manifest.version);
        match there.bucket.objects.create(&key, &bytes) {
            Ok(Created::Now) => {}
            Ok(Created::Taken) => {
                // An attempt whose answer was lost on the way may have been ours.
                match self.version(manifest.version) {
                    Ok(Some(found)) if *found.hash() == Hash::of(&bytes) => {}
                    Ok(Some(found)) => return Ok(Commit::Taken(Some(Box::new(found)))),
                    Ok(None) => {
                        return Err(in_doubt(
                            manifest.version,
                            "its name is taken, but it is not there",
                        ));
                    }
                    Err(error) => return Err(in_doubt(manifest.version, error)),
                }
            }
            Err(refusal) if refusal.kind == RefusalKind::Denied => {
                return there.told(Err(refusal), "write", &key);
            }
            Err(refusal) => {
                there.is_ailing.store(true, Ordering::Relaxed);
                return Err(StoreError::InDoubt {
                    version: manifest.version,
                    source: refusal.source,
                });
            }
        }
        manifest.has_bytes(&bytes);
        self.keep(&manifest);
        Ok(Commit::Done(Box::new(manifest)))
    }

    /// Whether a version that is there cannot be created again, as must be so in a bucket. What is tried is to write what
    /// is there already, so that a server that knows no conditions does no harm.
    pub(crate) fn refuses_to_repeat(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let Some(there) = &self.bucket else {
            return Ok(());
        };
        let bytes = manifest.encode()?;
        if Hash::of(&bytes) != *manifest.hash() {
            return Ok(());
        }
        let key = key_of(manifest.version);
        match there.told(there.bucket.objects.create(&key, &bytes), "write", &key)? {
            Created::Taken => Ok(()),
            Created::Now => Err(StoreError::Settings(format!(
                "the server of {} does not honour `If-None-Match: *`, by which two writers are kept apart: it cannot hold \
                 a store",
                there.bucket.options.url()
            ))),
        }
    }

    /// Removes versions that are older than what is kept.
    pub(crate) fn forget_old(&self, newest: u64) -> Result<(), StoreError> {
        let Some(there) = &self.bucket else {
            return manifest::forget_old(&self.root, newest);
        };
        let old = |version: u64| version.saturating_add(manifest::KEPT_VERSIONS) < newest;
        let versions = there.versions(None)?.into_iter();
        let keys: Vec<String> = versions
            .filter(|(version, _)| old(*version))
            .map(|(version, _)| key_of(version))
            .collect();
        there.remove(&keys)
    }

    /// Gives a written file its name, durably.
    pub(crate) fn publish(&self, written: &WrittenPart) -> Result<(), StoreError> {
        let Some(there) = &self.bucket else {
            return written.publish(&self.root);
        };
        let part = &written.part;
        let file = written.open()?;
        there
            .uploads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((part.path.clone(), Arc::downgrade(&written.claim)));
        let uploaded = there.bucket.objects.upload(&part.path, &file, part.bytes);
        there.told(uploaded, "write", &part.path)?;
        there.cache.make_room(part.bytes);
        // It is in the bucket; what is here is a copy.
        if written.publish(&self.root).is_ok() {
            there.cache.use_now(&part.path);
        }
        Ok(())
    }

    /// Opens a file to read it. `None` if `is_over` says that nobody wants it any more before it is there.
    pub(crate) fn open(&self, part: &Part, is_over: &dyn Fn() -> bool) -> Result<Option<File>, StoreError> {
        match &self.bucket {
            None => {
                let path = self.root.join(&part.path);
                File::open(&path).at(&path).map(Some)
            }
            Some(there) => there.cache.open(part, is_over),
        }
    }

    /// The hash of a file as it is where it counts; `None` where it is not there.
    pub(crate) fn hash(&self, part: &Part) -> Result<Option<Hash>, StoreError> {
        let found = match &self.bucket {
            None => {
                let path = self.root.join(&part.path);
                let mut hasher = blake3::Hasher::new();
                File::open(&path)
                    .and_then(|file| hasher.update_reader(file).map(drop))
                    .at(&path)
                    .map(|()| Hash::new(&hasher.finalize()))
            }
            Some(there) => there.cache.hash(part, &mut |_| Ok(())),
        };
        match found {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Removes files; who has one open keeps reading it.
    pub(crate) fn remove(&self, paths: &[String]) -> Result<(), StoreError> {
        if let Some(there) = &self.bucket {
            there.remove(paths)?;
        }
        for path in paths {
            self.remove_local(path)?;
        }
        Ok(())
    }

    /// All files of events that count or do not, where they are kept.
    pub(crate) fn files(&self) -> Result<Vec<String>, StoreError> {
        let Some(there) = &self.bucket else {
            return self.local_files();
        };
        // The folder of each cluster begins so; the manifest is beside them.
        let listed = there.told(there.bucket.objects.list("", None), "list", "")?;
        Ok(listed
            .into_iter()
            .map(|listed| listed.key)
            .filter(|key| key.starts_with("cluster=") && key.ends_with(".parquet"))
            .collect())
    }

    /// Removes what a process that died has left in the directory beside a bucket, and what does not count any more.
    pub(crate) fn tidy(&self, counts: &dyn Fn(&str) -> bool) -> Result<(), StoreError> {
        let files = self.local_files()?;
        for path in files.iter().filter(|path| !counts(path)) {
            self.remove_local(path)?;
        }
        if let Some(cache) = self.cache() {
            cache.make_room(0);
        }
        Ok(())
    }

    fn remove_local(&self, path: &str) -> Result<(), StoreError> {
        let place = self.root.join(path);
        match std::fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at(&place),
            _ => {}
        }
        // A folder goes with its last file.
        for folder in place.ancestors().skip(1).take(3) {
            if folder == self.root || std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// All files of events, whole or not, below the directory.
    fn local_files(&self) -> Result<Vec<String>, StoreError> {
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

impl InBucket {
    /// The versions that are there and their sizes, in order; after `after` where it is given.
    fn versions(&self, after: Option<u64>) -> Result<Vec<(u64, u64)>, StoreError> {
        let after = after.map(key_of);
        let listed = self.bucket.objects.list("manifest", after.as_deref());
        let listed = self.told(listed, "list", "manifest")?;
        let number = |key: &str| key.strip_prefix("manifest/")?.strip_suffix(".json")?.parse().ok();
        let mut versions: Vec<(u64, u64)> = listed
            .iter()
            .filter_map(|listed| Some((number(&listed.key)?, listed.bytes)))
            .collect();
        versions.sort_unstable();
        Ok(versions)
    }

    fn read(&self, version: u64, bytes: u64) -> Result<Manifest, StoreError> {
        let key = key_of(version);
        let path = PathBuf::from(format!("{}/{key}", self.bucket.options.url()));
        manifest::check_size(&path, bytes)?;
        let mut content = Vec::new();
        let read = self.bucket.objects.read(&key, bytes, &mut |piece| {
            content.extend_from_slice(piece);
            Ok(())
        });
        self.told(read, "read", &key)?;
        Manifest::decode(&path, version, &content)
    }

    fn remove(&self, keys: &[String]) -> Result<(), StoreError> {
        let Some(first) = keys.first() else {
            return Ok(());
        };
        self.told(self.bucket.objects.remove(keys), "remove", first)
    }

    /// An answer of the bucket, with what was asked for in its error; and that it came or not.
    fn told<T>(&self, answer: Result<T, Refusal>, doing: &'static str, key: &str) -> Result<T, StoreError> {
        let is_ailing = answer
            .as_ref()
            .is_err_and(|refusal| refusal.kind == RefusalKind::Failed);
        self.is_ailing.store(is_ailing, Ordering::Relaxed);
        answer.map_err(|refusal| refusal.at(doing, &self.bucket.options.url(), key))
    }
}

fn key_of(version: u64) -> String {
    format!("manifest/{}", manifest::name(version))
}

fn in_doubt(version: u64, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::InDoubt {
        version,
        source: Arc::from(source.into()),
    }
}

fn random() -> Result<u64, StoreError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| StoreError::Columns(format!("the system gives no random bytes: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes a file in the place of another, durably.
fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let temporary = path.with_extension("json.tmp");
    File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path))
        .at(path)?;
    path.parent().map_or(Ok(()), sync_folder)
}
