//! Which files of a source there are, and which of them were read.
//!
//! A file is recognised by what it holds: the hash of its head and of the bytes just before the offset it
//! was read to, a gzip trailer by its checksum and length. The inode only decides between files that could
//! both be it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::book::{Book, Entry, HEAD_BYTES, MARK_BYTES, Progress, hash};
use super::identity::FileKey;
use super::names::{self, Compression, Stamp};
use crate::{Bounded, Limits};

/// A file of a source.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) compression: Compression,
    pub(super) is_active: bool,
    pub(super) key: FileKey,
    /// On disk.
    pub(super) size: u64,
    /// Tells whether the file changed since it was looked at.
    pub(super) version: Version,
    pub(super) modified: SystemTime,
    /// Its place in the order of rotations; never decreases from one to the next.
    pub(super) order_millis: u64,
    pub(super) probe: Probe,
    /// For a file that is held open and has no name any more.
    pub(super) handle: Option<Arc<File>>,
}

/// A state of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    pub(super) fn of(there: &Metadata) -> Self {
        Self {
            device: there.dev(),
            inode: there.ino(),
            size: there.len(),
            modified: (there.mtime(), there.mtime_nsec()),
            changed: (there.ctime(), there.ctime_nsec()),
        }
    }
}

/// What a look into a file gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Probe {
    /// Its first uncompressed bytes, at most [`HEAD_BYTES`].
    pub(super) head: Vec<u8>,
    /// What a gzip trailer says: CRC and length modulo 2^32.
    trailer: Option<(u32, u32)>,
    /// What a zstd frame says its length is.
    content_size: Option<u64>,
}

impl Probe {
    pub(super) fn of_head(head: Vec<u8>) -> Self {
        Self {
            head,
            ..Self::default()
        }
    }
}

impl Candidate {
    /// Uncompressed bytes, as far as that can be told without reading it.
    pub(super) fn length(&self) -> Option<u64> {
        match self.compression {
            Compression::Plain => Some(self.size),
            Compression::Gzip => self.probe.trailer.map(|(_, length)| u64::from(length)),
            Compression::Zstd => self.probe.content_size,
        }
    }

    /// Opens what was looked at; another file that has its name by now is not it.
    pub(super) fn open(&self) -> io::Result<Arc<File>> {
        if let Some(handle) = &self.handle {
            return Ok(Arc::clone(handle));
        }
        let file = File::open(&self.path)?;
        if !self.key.is(&FileKey::new(&file, &file.metadata()?)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(file))
    }

    /// A file that is held open may have grown, or been emptied and filled with another text.
    pub(super) fn look_again(&mut self) {
        let Some(file) = &self.handle else { return };
        if let (Ok(there), Ok(head)) = (file.metadata(), head(file)) {
            self.probe.head = head;
            self.size = there.len();
            self.version = Version::of(&there);
        }
    }

    /// The last time it can have been written.
    pub(super) fn last_written(&self) -> SystemTime {
        self.modified
            .max(UNIX_EPOCH + Duration::from_millis(self.order_millis))
    }

    /// Whether a plain file holds what another begins with; checked at some places.
    fn is_copy_of(&self, other: &Self) -> bool {
        if self.compression != Compression::Plain
            || other.compression != Compression::Plain
            || self.size > other.size
        {
            return false;
        }
        let length = self.size;
        let (Ok(one), Ok(two)) = (self.open(), other.open()) else {
            return false;
        };
        let places = [length, length / 2, length / 4];
        places
            .iter()
            .all(|place| match (before(&one, *place), before(&two, *place)) {
                (Ok(one), Ok(two)) => one == two,
                _ => false,
            })
    }
}

/// The bytes just before a place in a plain file.
pub(super) fn before(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let length = offset.min(MARK_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(MARK_BYTES)];
    file.read_exact_at(&mut bytes, offset - length)?;
    Ok(bytes)
}

/// What a directory holds of a source.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Oldest first, the active file last.
    pub(super) candidates: Vec<Candidate>,
    /// A file or directory that may not be read.
    pub(super) denied: Option<PathBuf>,
    /// A file or directory that cannot be read.
    pub(super) failed: Option<(PathBuf, String)>,
    /// Whether the directory was the same before and after. If not, a file may be missing here.
    pub(super) is_settled: bool,
}

/// Looks at a directory in which files come and go; a rotation is over sooner.
const MAX_LOOKS: u32 = 8;

/// Remembers what was found in files that did not change.
#[derive(Debug, Default)]
pub(super) struct Probes {
    files: HashMap<Version, (Probe, FileKey)>,
    /// By the entry's id and offset.
    comparisons: HashMap<(Version, u64, u64), Comparison>,
}

/// Looks for the active file and its rotated ones. `active` is where the path leads, links followed.
///
/// A rotation under way moves files from names that were not read yet to names that were passed already, and gives the
/// active file's to another: whatever is missed then would seem to be read. So the directory is read again behind each
/// look, and looked at once more unless it is as it was.
pub(super) fn list(active: &Path, probes: &mut Probes) -> Listing {
    list_while(active, probes, || ())
}

/// The same, with something that happens after the directory was read.
fn list_while(active: &Path, probes: &mut Probes, mut happens: impl FnMut()) -> Listing {
    let directory = active
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let active_name = active.file_name().unwrap_or_default().to_string_lossy();
    let mut listing = Listing::default();
    let mut names = listing.read(directory, &active_name);
    for _ in 0..MAX_LOOKS {
        happens();
        listing.look_at(active, &active_name, &names, probes);
        let before = std::mem::replace(&mut names, listing.read(directory, &active_name));
        if names == before {
            listing.is_settled = true;
            break;
        }
    }
    listing
}

/// The names of a source's files in a directory, each with its inode.
type Names = BTreeMap<String, u64>;

impl Listing {
    fn read(&mut self, directory: &Path, active_name: &str) -> Names {
        let mut names = Names::new();
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.refused(directory, &error);
                return names;
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let is_backup =
                        || names::backup(&name).is_some_and(|backup| backup.active == active_name);
                    if name == active_name || is_backup() {
                        names.insert(name, entry.ino());
                    }
                }
                Err(error) => self.refused(directory, &error),
            }
        }
        names
    }

    /// Looks into the files of these names; what was seen before is forgotten.
    fn look_at(&mut self, active: &Path, active_name: &str, names: &Names, probes: &mut Probes) {
        *self = Self::default();
        let backups: Vec<(&String, names::Backup)> = names
            .keys()
            .filter(|name| *name != active_name)
            .filter_map(|name| Some((name, names::backup(name)?)))
            .collect();
        let plain: HashSet<&str> = backups
            .iter()
            .filter(|(_, backup)| backup.compression == Compression::Plain)
            .map(|(_, backup)| backup.stem.as_str())
            .collect();
        let mut seen = Probes::default();
        for (name, backup) in &backups {
            // An archive beside its original is not finished, or about to replace it.
            if backup.compression != Compression::Plain && plain.contains(backup.stem.as_str()) {
                continue;
            }
            self.look(
                active.with_file_name(name),
                (*name).clone(),
                Some(backup),
                probes,
                &mut seen,
            );
        }
        order(&mut self.candidates);
        self.look(active.to_owned(), active_name.to_owned(), None, probes, &mut seen);
        seen.comparisons = std::mem::take(&mut probes.comparisons);
        seen.comparisons
            .retain(|(version, ..), _| seen.files.contains_key(version));
        *probes = seen;
    }

    fn refused(&mut self, path: &Path, error: &io::Error) {
        match error.kind() {
            // Gone since the directory was read, or not there yet.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            io::ErrorKind::PermissionDenied => self.denied = Some(path.to_owned()),
            _ => self.failed = Some((path.to_owned(), error.to_string())),
        }
    }

    fn look(
        &mut self,
        path: PathBuf,
        name: String,
        backup: Option<&names::Backup>,
        probes: &Probes,
        seen: &mut Probes,
    ) {
        let compression = backup.map_or(Compression::Plain, |backup| backup.compression);
        match look_into(&path, compression, probes) {
            Ok(Some((there, probe, key))) => {
                let version = Version::of(&there);
                seen.files.insert(version, (probe.clone(), key));
                let modified = there.modified().unwrap_or(UNIX_EPOCH);
                let order = match backup.map(|backup| backup.stamp) {
                    Some(Stamp::Time(time)) => time,
                    // Numbers are brought into the order of time afterwards.
                    Some(Stamp::Number(_)) | None => modified,
                };
                self.candidates.push(Candidate {
                    path,
                    name,
                    compression,
                    is_active: backup.is_none(),
                    key,
                    size: there.len(),
                    version,
                    modified,
                    order_millis: millis(order),
                    probe,
                    handle: None,
                });
            }
            Ok(None) => {}
            Err(error) => self.refused(&path, &error),
        }
    }
}

pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Oldest first. Numbers count rotations backwards, so a higher one is never younger than a lower one.
fn order(candidates: &mut [Candidate]) {
    let number = |candidate: &Candidate| match names::backup(&candidate.name).map(|backup| backup.stamp) {
        Some(Stamp::Number(number)) => number,
        _ => 0,
    };
    candidates.sort_by_key(|candidate| std::cmp::Reverse(number(candidate)));
    let mut latest = 0;
    for candidate in candidates.iter_mut().filter(|candidate| number(candidate) > 0) {
        latest = latest.max(candidate.order_millis);
        candidate.order_millis = latest;
    }
    // The sort is stable: equal times keep the order of their numbers.
    candidates.sort_by(|one, two| {
        (one.order_millis, std::cmp::Reverse(number(one)))
            .cmp(&(two.order_millis, std::cmp::Reverse(number(two))))
            .then_with(|| one.name.cmp(&two.name))
    });
}

type Look = (Metadata, Probe, FileKey);

/// `None` for what is no regular file.
fn look_into(path: &Path, compression: Compression, probes: &Probes) -> io::Result<Option<Look>> {
    let there = fs::metadata(path)?;
    if !there.is_file() {
        return Ok(None);
    }
    if let Some((probe, key)) = probes.files.get(&Version::of(&there)) {
        return Ok(Some((there, probe.clone(), *key)));
    }
    let file = File::open(path)?;
    let there = file.metadata()?;
    let key = FileKey::new(&file, &there);
    let probe = probe(&file, &there, compression)?;
    Ok(Some((there, probe, key)))
}

fn probe(file: &File, there: &Metadata, compression: Compression) -> io::Result<Probe> {
    let mut probe = Probe::default();
    match compression {
        Compression::Plain => probe.head = head(file)?,
        Compression::Gzip => {
            let mut reader = Bounded::gzip(file, Limits::none());
            read_head(&mut reader, &mut probe.head)?;
            if there.len() >= 18 {
                let mut trailer = [0; 8];
                file.read_exact_at(&mut trailer, there.len() - 8)?;
                let [a, b, c, d, e, f, g, h] = trailer;
                probe.trailer = Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])));
            }
        }
        Compression::Zstd => {
            let mut start = vec![0; 32];
            let length = file.read_at(&mut start, 0)?;
            start.truncate(length);
            probe.content_size = zstd::zstd_safe::get_frame_content_size(&start).ok().flatten();
            let mut reader = Bounded::zstd(Positioned { file, at: 0 }, Limits::none())?;
            read_head(&mut reader, &mut probe.head)?;
        }
    }
    Ok(probe)
}

/// The first bytes of a plain file.
pub(super) fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    Positioned { file, at: 0 }
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)?;
    Ok(head)
}

/// As much as there is; an archive that is cut or damaged has a shorter head.
fn read_head(reader: &mut impl Read, head: &mut Vec<u8>) -> io::Result<()> {
    match reader.take(HEAD_BYTES as u64).read_to_end(head) {
        Ok(_) => Ok(()),
        Err(error) if crate::InflateError::of(&error).is_some() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads a file without moving a cursor that others share.
#[derive(Debug)]
pub(super) struct Positioned<F> {
    pub(super) file: F,
    pub(super) at: u64,
}

impl<F: std::ops::Deref<Target = File>> Read for Positioned<F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(out, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// What is to be done with a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was never read.
    New,
    /// It is what an entry describes; more of it may be unread.
    Known(usize),
    /// There is nothing in it that was not read; its entry, when there is one.
    Read(Option<usize>),
    /// The same, since it is only a part of what the entry describes.
    Part(usize),
}

/// Finds each candidate's entry. An entry describes one file only, and the oldest that it can be.
/// `open` is the id of the entry that is being read: an archive with its head is believed to be it.
pub(super) fn judge(
    candidates: &[Candidate],
    book: &Book,
    open: Option<u64>,
    probes: &mut Probes,
) -> Vec<Verdict> {
    let mut verdicts: Vec<Option<Verdict>> = vec![None; candidates.len()];
    let mut owners: Vec<Option<usize>> = vec![None; book.entries.len()];
    for pass in [Pass::SameFile, Pass::SameText, Pass::Part] {
        for (index, candidate) in candidates.iter().enumerate() {
            if verdicts.get(index).is_some_and(Option::is_some) {
                continue;
            }
            let mut verdict = None;
            let mut heads = Heads::default();
            for (number, entry) in book.entries.iter().enumerate() {
                let is_same_file = entry.key.is_some_and(|key| key.is(&candidate.key));
                if (pass == Pass::SameFile && !is_same_file) || (pass == Pass::SameText && is_same_file) {
                    continue;
                }
                let found = compare(candidate, is_same_file, &mut heads, entry, open, probes);
                if (found == Comparison::Part) != (pass == Pass::Part) {
                    continue;
                }
                let owner = owners.get(number).copied().flatten();
                verdict = Some(match (found, owner) {
                    (Comparison::Other, _) => continue,
                    // The active file is nobody's copy.
                    (_, Some(_)) if candidate.is_active => continue,
                    (Comparison::Part, _) => Verdict::Part(number),
                    (Comparison::Whole, _) => Verdict::Read(Some(number)),
                    (Comparison::Beginning, None) => Verdict::Known(number),
                    (Comparison::Beginning, Some(owner)) => {
                        let is_copy = candidates
                            .get(owner)
                            .is_some_and(|owner| candidate.is_copy_of(owner));
                        if !is_copy {
                            continue;
                        }
                        Verdict::Read(None)
                    }
                });
                if found != Comparison::Part
                    && let Some(slot @ None) = owners.get_mut(number)
                {
                    *slot = Some(index);
                }
                break;
            }
            if let (Some(slot), Some(verdict)) = (verdicts.get_mut(index), verdict) {
                *slot = Some(verdict);
            }
        }
    }
    let active = candidates.iter().find(|candidate| candidate.is_active);
    verdicts
        .into_iter()
        .zip(candidates)
        .map(|(verdict, candidate)| match verdict {
            Some(verdict) => verdict,
            None if !candidate.is_active && candidate.order_millis <= book.watermark_millis => {
                Verdict::Read(None)
            }
            // It is being copied, and will be emptied then.
            None if active.is_some_and(|active| !candidate.is_active && candidate.is_copy_of(active)) => {
                Verdict::Read(None)
            }
            None => Verdict::New,
        })
        .collect()
}

/// What counts as the same, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    SameFile,
    SameText,
    Part,
}

/// How a file compares with what an entry describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// It is another one.
    Other,
    /// It begins with what was read, and goes on.
    Beginning,
    /// It is what was read.
    Whole,
    /// It is a beginning of what was read.
    Part,
}

/// Hashes of a head by its length, so that each is made once.
#[derive(Debug, Default)]
struct Heads(HashMap<usize, u64>);

impl Heads {
    fn matches(&mut self, head: &[u8], entry: &Entry) -> bool {
        let Some(head) = head.get(..entry.head_len) else {
            return false;
        };
        entry.head_len > 0 && *self.0.entry(head.len()).or_insert_with(|| hash(head)) == entry.head
    }
}

fn compare(
    candidate: &Candidate,
    is_same_file: bool,
    heads: &mut Heads,
    entry: &Entry,
    open: Option<u64>,
    probes: &mut Probes,
) -> Comparison {
    if !heads.matches(&candidate.probe.head, entry) {
        return Comparison::Other;
    }
    if entry.progress == Progress::Skipped {
        return Comparison::Whole;
    }
    let place = (candidate.version, entry.id, entry.offset);
    match (candidate.compression, candidate.probe.trailer) {
        (Compression::Plain, _) => {
            let compared = compare_plain(candidate, entry).unwrap_or(Comparison::Other);
            if is_same_file || !matches!(compared, Comparison::Beginning | Comparison::Whole) {
                return compared;
            }
            // Another inode must hold all the bytes that were read.
            *probes.comparisons.entry(place).or_insert_with(|| {
                if has_all(candidate, entry).unwrap_or(false) {
                    compared
                } else {
                    Comparison::Other
                }
            })
        }
        (_, Some((crc, length))) if crc == entry.crc && is_modulo(entry.offset, length) => Comparison::Whole,
        _ if open == Some(entry.id) => Comparison::Beginning,
        _ => *probes
            .comparisons
            .entry(place)
            .or_insert_with(|| compare_unpacked(candidate, entry).unwrap_or(Comparison::Other)),
    }
}

fn has_all(candidate: &Candidate, entry: &Entry) -> io::Result<bool> {
    let mut reader = Positioned {
        file: candidate.open()?,
        at: 0,
    };
    let mut skipped = Skipped::default();
    skipped.skip(&mut reader, entry.offset)?;
    Ok(skipped.crc.finalize() == entry.crc)
}

fn is_modulo(offset: u64, length: u32) -> bool {
    offset & u64::from(u32::MAX) == u64::from(length)
}

fn compare_plain(candidate: &Candidate, entry: &Entry) -> io::Result<Comparison> {
    let file = candidate.open()?;
    if candidate.size < entry.offset {
        // A copy that is being made, or was made before the last lines were read.
        let mark = entry
            .marks
            .iter()
            .rev()
            .find(|(offset, _)| *offset <= candidate.size);
        return Ok(match mark {
            Some((offset, mark)) if hash(&before(&file, *offset)?) == *mark => Comparison::Part,
            _ => Comparison::Other,
        });
    }
    Ok(if hash(&before(&file, entry.offset)?) != entry.marker {
        Comparison::Other
    } else if candidate.size == entry.offset {
        Comparison::Whole
    } else {
        Comparison::Beginning
    })
}

/// Unpacks up to the offset.
fn compare_unpacked(candidate: &Candidate, entry: &Entry) -> io::Result<Comparison> {
    let Some(mut reader) = unpack(candidate.open()?, candidate.compression)? else {
        return Ok(Comparison::Other);
    };
    let mut skipped = Skipped::default();
    let mut agreed = false;
    for (offset, mark) in &entry.marks {
        match skipped.skip(&mut reader, *offset) {
            Ok(()) if hash(&skipped.last) == *mark => agreed = true,
            Ok(()) => return Ok(Comparison::Other),
            Err(_) => {
                return Ok(if agreed {
                    Comparison::Part
                } else {
                    Comparison::Other
                });
            }
        }
    }
    Ok(match skipped.skip(&mut reader, entry.offset) {
        Ok(()) if skipped.crc.clone().finalize() != entry.crc => Comparison::Other,
        Ok(()) => match reader.read(&mut [0]) {
            Ok(0) => Comparison::Whole,
            Ok(_) | Err(_) => Comparison::Beginning,
        },
        Err(_) if agreed => Comparison::Part,
        Err(_) => Comparison::Other,
    })
}

/// Reads what is inside an archive.
pub(super) fn unpack(file: Arc<File>, compression: Compression) -> io::Result<Option<Unpacked>> {
    let reader = Positioned { file, at: 0 };
    Ok(match compression {
        Compression::Plain => None,
        Compression::Gzip => Some(Bounded::gzip(reader, Limits::none())),
        Compression::Zstd => Some(Bounded::zstd(reader, Limits::none())?),
    })
}

pub(super) type Unpacked = Bounded<Positioned<Arc<File>>>;

/// What was unpacked and passed over.
#[derive(Clone, Debug, Default)]
pub(super) struct Skipped {
    pub(super) crc: crc32fast::Hasher,
    pub(super) head: Vec<u8>,
    /// The last bytes.
    pub(super) last: Vec<u8>,
    length: u64,
}

impl Skipped {
    pub(super) fn skip(&mut self, reader: &mut impl Read, bytes: u64) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while self.length < bytes {
            let room = usize::try_from(bytes - self.length)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let count = reader.read(buffer.get_mut(..room).unwrap_or_default())?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let new = buffer.get(..count).unwrap_or_default();
            self.crc.update(new);
            let missing = HEAD_BYTES.saturating_sub(self.head.len()).min(count);
            self.head
                .extend_from_slice(new.get(..missing).unwrap_or_default());
            keep_last(&mut self.last, new);
            self.length += count as u64;
        }
        Ok(())
    }
}

/// Keeps the last [`MARK_BYTES`].
pub(super) fn keep_last(last: &mut Vec<u8>, new: &[u8]) {
    let from_new = new
        .get(new.len().saturating_sub(MARK_BYTES)..)
        .unwrap_or_default();
    let spare = (last.len() + from_new.len()).saturating_sub(MARK_BYTES);
    last.drain(..spare.min(last.len()));
    last.extend_from_slice(from_new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_compressed_while_the_directory_is_read_is_found_under_its_new_name() {
        let folder = tempfile::tempdir().unwrap();
        let active = folder.path().join("audit.log");
        let backup = folder.path().join("audit-2026-01-02T03-04-05.006.log");
        fs::write(&active, "two\n").unwrap();
        fs::write(&backup, "one\n").unwrap();
        let mut times = 0;
        let listing = list_while(&active, &mut Probes::default(), || {
            times += 1;
            if times == 1 {
                let archive = backup.with_extension("log.gz");
                let mut gzip = flate2::write::GzEncoder::new(
                    File::create(archive).unwrap(),
                    flate2::Compression::fast(),
                );
                io::Write::write_all(&mut gzip, b"one\n").unwrap();
                gzip.finish().unwrap();
                fs::remove_file(&backup).unwrap();
            }
        });
        let names: Vec<&str> = listing
            .candidates
            .iter()
            .map(|candidate| candidate.name.as_str())
            .collect();
        assert_eq!(names, ["audit-2026-01-02T03-04-05.006.log.gz", "audit.log"]);
        assert_eq!(times, 2);
    }

    #[test]
    fn a_file_that_is_rotated_between_the_directory_and_the_look_at_the_active_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let active = folder.path().join("audit.log");
        fs::write(&active, "one\n").unwrap();
        let mut times = 0;
        let listing = list_while(&active, &mut Probes::default(), || {
            times += 1;
            if times == 1 {
                let backup = folder.path().join("audit-2026-01-02T03-04-05.006.log");
                fs::rename(&active, backup).unwrap();
                fs::write(&active, "two\n").unwrap();
            }
        });
        let found: Vec<(&str, &[u8])> = listing
            .candidates
            .iter()
            .map(|candidate| (candidate.name.as_str(), candidate.probe.head.as_slice()))
            .collect();
        let expected: [(&str, &[u8]); 2] = [
            ("audit-2026-01-02T03-04-05.006.log", b"one\n"),
            ("audit.log", b"two\n"),
        ];
        assert_eq!(found, expected);
        assert!(listing.is_settled);
        assert_eq!(times, 2);
    }

    #[test]
    fn a_directory_that_does_not_come_to_rest_is_not_looked_at_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let active = folder.path().join("audit.log");
        let backup = |number: u32| folder.path().join(format!("audit.log.{number}"));
        fs::write(backup(1), "one\n").unwrap();
        let mut number = 1;
        let listing = list_while(&active, &mut Probes::default(), || {
            fs::rename(backup(number), backup(number + 1)).unwrap();
            number += 1;
        });
        assert_eq!(number, MAX_LOOKS + 1);
        assert!(!listing.is_settled);
    }
}
