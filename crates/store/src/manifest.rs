//! Which files the store consists of: the only truth about what is sealed.
//!
//! Each version is a file `manifest/<version>.json` of its own, which holds the whole list and the hash of
//! the version before it. A version is committed by giving its file a name that must not be there yet, so
//! of two writers one fails. Files that no version names are left from a writer that died and mean nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::error::At;
use crate::part::{make_folders, sync_folder};
use crate::place::Commit;
use crate::rebuild::Rows;

/// The format of a version's file.
const FORMAT: u32 = 1;
/// Versions that are kept before the newest one.
pub(crate) const KEPT_VERSIONS: u64 = 64;
/// A larger file is no manifest.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;

/// A BLAKE3 hash in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hash(String);

impl Hash {
    pub(crate) fn new(hash: &blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }

    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::new(&blake3::hash(bytes))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a file came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Origin {
    /// From the journal, in the order of time.
    #[default]
    Sealed,
    /// From other files of a day, each row group in the order of resource, user, verb and time.
    Compacted,
}

/// A file of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Part {
    /// Where it is, below the store's directory.
    pub path: String,
    /// The cluster of all its events.
    pub cluster: String,
    /// How it came to be.
    pub origin: Origin,
    /// Size of the file.
    pub bytes: u64,
    /// Events.
    pub rows: u64,
    /// Bytes of the events as log lines, without line ends.
    pub event_bytes: u64,
    /// Rows that keep the received bytes.
    pub raw_rows: u64,
    /// Earliest time, microseconds since 1970 in UTC.
    pub min_ts: i64,
    /// Latest time.
    pub max_ts: i64,
    /// Lowest number in the journal.
    pub min_seq: u64,
    /// Highest number in the journal.
    pub max_seq: u64,
    /// BLAKE3 of the file.
    pub hash: Hash,
    /// The key that the file is encrypted with; no file is yet.
    pub key_id: Option<String>,
    /// The rules by which its rows are kept although their time is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<String>,
}

impl Part {
    pub(crate) fn new(path: String, cluster: String) -> Self {
        Self {
            path,
            cluster,
            origin: Origin::Sealed,
            bytes: 0,
            rows: 0,
            event_bytes: 0,
            raw_rows: 0,
            min_ts: i64::MAX,
            max_ts: i64::MIN,
            min_seq: u64::MAX,
            max_seq: 0,
            hash: Hash::default(),
            key_id: None,
            kept_by: None,
        }
    }

    /// Takes the rows of a group into account.
    pub(crate) fn cover(&mut self, rows: &Rows<'_>) {
        for ts in rows.ts.values() {
            self.min_ts = self.min_ts.min(*ts);
            self.max_ts = self.max_ts.max(*ts);
        }
        for seq in rows.seq.values() {
            let seq = u64::try_from(*seq).unwrap_or_default();
            self.min_seq = self.min_seq.min(seq);
            self.max_seq = self.max_seq.max(seq);
        }
        self.rows += u64::try_from(rows.ts.len()).unwrap_or_default();
        self.raw_rows += u64::try_from(rows.raw_rows()).unwrap_or_default();
        self.event_bytes += rows.event_bytes();
    }
}

/// What became of the journal's records, since the store began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Counts {
    /// Records that became rows of sealed files.
    pub sealed: u64,
    /// Records that were not kept, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Records that the journal had lost before they were sealed, by reason.
    pub lost: BTreeMap<String, u64>,
    /// Events that were not sealed, by reason: `duplicate`.
    pub dropped: BTreeMap<String, u64>,
    /// Rows whose time to be kept was over, by the rule that says so.
    pub expired: BTreeMap<String, u64>,
}

/// A version of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Manifest {
    /// The format of this file.
    pub format: u32,
    /// 1 more than the version before.
    pub version: u64,
    /// Hash of the file of the version before; empty in the first.
    pub previous: Hash,
    /// When it was committed, microseconds since 1970 in UTC.
    pub at: i64,
    /// Who committed it, where the files are in a bucket: only this one may commit the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// The first record of the journal that is not sealed.
    pub sealed_to: u64,
    /// What became of those before it.
    pub counts: Counts,
    /// The files, by cluster and time.
    pub parts: Vec<Part>,
    /// The hash of this version's own file.
    #[serde(skip)]
    own: Hash,
}

impl Manifest {
    /// The version that follows this one, to be changed and committed.
    pub(crate) fn next(&self, now: i64) -> Self {
        Self {
            format: FORMAT,
            version: self.version + 1,
            previous: self.own.clone(),
            at: now,
            own: Hash::default(),
            ..self.clone()
        }
    }

    /// The hash of this version's file.
    #[must_use]
    pub const fn hash(&self) -> &Hash {
        &self.own
    }

    /// A store without files, before its first version.
    pub(crate) fn empty() -> Self {
        Self {
            sealed_to: 1,
            ..Self::default()
        }
    }

    /// Reads the newest version in a directory; the empty one where there is none.
    pub(crate) fn newest(root: &Path) -> Result<Self, StoreError> {
        match versions(root)?.last() {
            Some(version) => Self::read(root, *version),
            None => Ok(Self::empty()),
        }
    }

    /// Reads a version in a directory.
    pub(crate) fn read(root: &Path, version: u64) -> Result<Self, StoreError> {
        let path = file(root, version);
        check_size(&path, std::fs::metadata(&path).at(&path)?.len())?;
        let bytes = std::fs::read(&path).at(&path)?;
        Self::decode(&path, version, &bytes)
    }

    /// Takes a version from its file's bytes; `path` is for the error.
    pub(crate) fn decode(path: &Path, version: u64, bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |reason: String| StoreError::Damaged {
            path: path.to_owned(),
            reason,
        };
        let mut manifest: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(damaged(format!(
                "it has format {}, known is {FORMAT}",
                manifest.format
            )));
        }
        if manifest.version != version {
            return Err(damaged(format!("it says it is version {}", manifest.version)));
        }
        manifest.has_bytes(bytes);
        Ok(manifest)
    }

    /// The bytes of its file.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut bytes = serde_json::to_vec(self).map_err(|error| StoreError::Columns(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Notes the bytes of its file.
    pub(crate) fn has_bytes(&mut self, bytes: &[u8]) {
        self.own = Hash::of(bytes);
    }

    /// The files in their order.
    pub(crate) fn sorted(mut self) -> Self {
        self.parts
            .sort_by(|a, b| (&a.cluster, a.min_ts, &a.path).cmp(&(&b.cluster, b.min_ts, &b.path)));
        self
    }

    /// Makes this the newest version in a directory, durably, unless the version is there already.
    pub(crate) fn commit(self, root: &Path) -> Result<Commit, StoreError> {
        let mut manifest = self.sorted();
        let path = file(root, manifest.version);
        let temporary = path.with_extension("json.tmp");
        let bytes = manifest.encode()?;
        make_folders(root, &folder(root))?;
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        if let Err(error) = written {
            drop(std::fs::remove_file(&temporary));
            return Err(error).at(&temporary);
        }
        // A link fails where the name is taken, on every file system and without a window.
        match std::fs::hard_link(&temporary, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Ok(Commit::Taken(None));
            }
            linked => linked.at(&path)?,
        }
        if let Err(error) = sync_folder(&folder(root)) {
            // Not committed, so that it is tried again; after a crash now it is there or not, and right either way.
            drop(std::fs::remove_file(&path));
            return Err(error);
        }
        manifest.has_bytes(&bytes);
        // What stays is removed at the next opening.
        drop(std::fs::remove_file(&temporary));
        Ok(Commit::Done(Box::new(manifest)))
    }
}

/// Refuses to read what is too large to be a manifest.
pub(crate) fn check_size(path: &Path, bytes: u64) -> Result<(), StoreError> {
    if bytes <= MAX_MANIFEST_BYTES {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        reason: format!("it has {bytes} bytes"),
    })
}

/// Removes versions that are older than what is kept.
pub(crate) fn forget_old(root: &Path, newest: u64) -> Result<(), StoreError> {
    for version in versions(root)? {
        if version + KEPT_VERSIONS < newest {
            let path = file(root, version);
            std::fs::remove_file(&path).at(&path)?;
        }
    }
    Ok(())
}

/// The versions that are there, in order.
pub(crate) fn versions(root: &Path) -> Result<Vec<u64>, StoreError> {
    let folder = folder(root);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at(&folder)?,
    };
    let mut versions = Vec::new();
    for entry in entries {
        let name = entry.at(&folder)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
        versions.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    versions.sort_unstable();
    Ok(versions)
}

/// Where the versions are.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("manifest")
}

pub(crate) fn file(root: &Path, version: u64) -> PathBuf {
    folder(root).join(name(version))
}

/// The name of a version's file.
pub(crate) fn name(version: u64) -> String {
    format!("{version:020}.json")
}
