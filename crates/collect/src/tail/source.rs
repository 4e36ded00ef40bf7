//! One active file and its rotated ones: which of them is read next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::book::{Book, Entry, Progress, hash};
use super::gone::Gone;
use super::identity::FileKey;
use super::names::Compression;
use super::reading::{Carried, Fill, Reading, push_torn};
use super::scan::{self, Candidate, Probes, Verdict, Version};
use super::status::{SourceState, SourceStatus};
use super::tracker::Tracker;
use super::{Start, TailConfig};
use crate::{Anomalies, Chunk, FileIdentity, Gap, GapReason, InflateError, TornReason};

#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) path_hash: u64,
    pub(super) book: Book,
    /// Gaps that no chunk has named yet.
    pub(super) gaps: Vec<Gap>,
    start: Option<Start>,
    /// Whether files may have come and gone unseen, after a rotation or a restart.
    pub(super) checks_chain: bool,
    pub(super) current: Option<Reading>,
    /// Whether the current file was read once more after another had taken its path.
    is_final: bool,
    /// Oldest first, the active file last.
    pub(super) unread: VecDeque<Unread>,
    pub(super) carried: Option<Carried>,
    probes: Probes,
    next_scan: Option<SystemTime>,
    last_scan: Option<SystemTime>,
    /// Whether the directory was at rest then.
    is_settled: bool,
    /// Files that were read to their end and are held open for a while, in case that it was in vain.
    retired: VecDeque<(SystemTime, Candidate)>,
    pub(super) gone: Gone,
    damaged: HashMap<Version, Damage>,
    backups: Vec<String>,
    health: Health,
    opened: SystemTime,
    seen: SystemTime,
    last_read: Option<SystemTime>,
    anomalies: Anomalies,
    gaps_seen: u64,
}

#[derive(Debug)]
pub(super) struct Unread {
    pub(super) candidate: Candidate,
    /// The entry's id, when a part was read.
    entry: Option<u64>,
}

#[derive(Debug)]
struct Damage {
    since: SystemTime,
    is_reported: bool,
}

#[derive(Debug, Default)]
struct Health {
    was_there: bool,
    is_missing: bool,
    denied: Option<PathBuf>,
    failed: Option<(PathBuf, String)>,
}

enum Step {
    Chunk,
    Again,
    Idle,
}

/// More steps than a poll needs; what is left waits for the next.
const MAX_STEPS: usize = 64;

/// How long, and how many, files stay open that were read.
const RETIRED_FOR: Duration = Duration::from_mins(1);
const MAX_RETIRED: usize = 4;

/// A directory that changed during every look at it is looked at again then.
const UNSETTLED: Duration = Duration::from_millis(100);

impl Source {
    /// `start` is for files that are there now and were never read; `None` reads all.
    pub(super) fn new(path: PathBuf, book: Option<Book>, start: Option<Start>, now: SystemTime) -> Self {
        Self {
            path_hash: path_hash(&path),
            path,
            checks_chain: book.is_some(),
            start: if book.is_some() { None } else { start },
            book: book.unwrap_or_default(),
            gaps: Vec::new(),
            current: None,
            is_final: false,
            unread: VecDeque::new(),
            carried: None,
            probes: Probes::default(),
            next_scan: None,
            last_scan: None,
            is_settled: true,
            retired: VecDeque::new(),
            gone: Gone::default(),
            damaged: HashMap::new(),
            backups: Vec::new(),
            health: Health::default(),
            opened: now,
            seen: now,
            last_read: None,
            anomalies: Anomalies::default(),
            gaps_seen: 0,
        }
    }

    /// Forgets what was read since, and takes this for what was read.
    pub(super) fn rewind(&mut self, book: Book) {
        if let Some(reading) = self.current.take() {
            self.retire(&reading, self.seen);
        }
        self.book = book;
        self.start = None;
        self.is_final = false;
        self.unread.clear();
        self.carried = None;
        self.next_scan = None;
        self.gone = Gone::default();
        self.gaps.clear();
    }

    /// Whether nothing of it is left but what the position says.
    pub(super) const fn is_gone(&self) -> bool {
        self.current.is_none() && self.health.is_missing && self.backups.is_empty()
    }

    /// Looks for files and applies the start, so that the position holds it.
    pub(super) fn prepare(&mut self, config: &TailConfig, now: SystemTime) {
        self.seen = now;
        self.scan(config, now);
    }

    pub(super) fn poll(&mut self, config: &TailConfig, now: SystemTime) -> Option<Chunk> {
        self.seen = now;
        let mut chunk = Chunk::default();
        let mut is_taken = false;
        for _ in 0..MAX_STEPS {
            match self.step(config, now, &mut chunk) {
                Step::Chunk => {
                    is_taken = true;
                    break;
                }
                Step::Again => {}
                Step::Idle => break,
            }
        }
        chunk.gaps = std::mem::take(&mut self.gaps);
        if !is_taken && chunk.gaps.is_empty() && chunk.anomalies == Anomalies::default() {
            return None;
        }
        if chunk.file.path.is_empty() {
            chunk.file.path = self.path.to_string_lossy().into_owned();
        }
        self.gaps_seen += chunk.gaps.len() as u64;
        self.anomalies.add(&chunk.anomalies);
        Some(chunk)
    }

    fn step(&mut self, config: &TailConfig, now: SystemTime, chunk: &mut Chunk) -> Step {
        if self.next_scan.is_none_or(|due| due <= now) {
            self.scan(config, now);
        }
        let Some(mut reading) = self.current.take() else {
            return self.open_next(config, now);
        };
        let filled = reading.fill(config, chunk);
        match filled {
            Ok(Fill::Taken) => {
                self.health.failed = None;
                self.taken(&mut reading, now, chunk);
                self.current = Some(reading);
                Step::Chunk
            }
            Ok(Fill::Changed) => self.changed(reading, config, now, chunk),
            Ok(Fill::End) => self.ended(reading, config, now, chunk),
            Err(error) => self.failed(reading, &error, now),
        }
    }

    fn taken(&mut self, reading: &mut Reading, now: SystemTime, chunk: &mut Chunk) {
        self.last_read = Some(now);
        self.is_final = false;
        for entry in reading.completed.drain(..) {
            put(&mut self.book, entry);
        }
        if reading.tracker.offset > 0 {
            self.record(reading, Progress::Reading);
        }
        chunk.file = FileIdentity {
            path: self.path.to_string_lossy().into_owned(),
            name: reading.name.clone(),
            id: reading.tracker.id(),
        };
    }

    fn record(&mut self, reading: &mut Reading, progress: Progress) {
        reading
            .tracker
            .settle_id(|id| self.book.entries.iter().any(|entry| entry.id == id));
        put(&mut self.book, reading.entry(progress));
    }

    /// Nothing more can be read of the file now.
    fn ended(
        &mut self,
        mut reading: Reading,
        config: &TailConfig,
        now: SystemTime,
        chunk: &mut Chunk,
    ) -> Step {
        if reading.is_active {
            match fs::metadata(&self.path) {
                Ok(there) if reading.key.is_at(&there) => {
                    self.health.is_missing = false;
                    if self.unread.is_empty() {
                        self.current = Some(reading);
                        return Step::Idle;
                    }
                    // Something older turned up; the active file waits, held open.
                    self.retire(&reading, now);
                    return Step::Again;
                }
                Ok(_) => {}
                Err(error) => {
                    self.note_path_error(&error);
                    self.current = Some(reading);
                    return Step::Idle;
                }
            }
            if !self.is_final {
                // Written between the read and the look at the path; the writer is gone from it now.
                self.is_final = true;
                self.current = Some(reading);
                return Step::Again;
            }
        }
        if reading.has_half_line() && !reading.is_compressed() {
            let since = *reading.half_line_since.get_or_insert(now);
            if now < since + config.linger {
                self.current = Some(reading);
                return Step::Idle;
            }
        }
        if reading.is_active {
            chunk.anomalies.rotations += 1;
            self.checks_chain = true;
        }
        let carried = reading.finish(config, chunk);
        let has_some = !chunk.is_empty();
        if has_some {
            self.taken(&mut reading, now, chunk);
        }
        if carried.is_none() && reading.tracker.offset > 0 {
            self.record(&mut reading, Progress::Finished);
        }
        self.carried = carried;
        self.is_final = false;
        self.retire(&reading, now);
        self.next_scan = None;
        if has_some { Step::Chunk } else { Step::Again }
    }

    /// The file does not hold any more what was read of it.
    fn changed(
        &mut self,
        mut reading: Reading,
        config: &TailConfig,
        now: SystemTime,
        chunk: &mut Chunk,
    ) -> Step {
        match reading.accept_overwritten() {
            Ok(true) => {
                chunk.anomalies.interleavings += 1;
                self.record(&mut reading, Progress::Reading);
                self.current = Some(reading);
                return Step::Again;
            }
            Ok(false) => {}
            Err(error) => return self.failed(reading, &error, now),
        }
        chunk.anomalies.copytruncates += 1;
        if reading.tracker.offset > 0 {
            self.record(&mut reading, Progress::Reading);
            let entry = Entry {
                key: None,
                ..reading.entry(Progress::Reading)
            };
            self.gone.emptied.insert(entry.id);
            put(&mut self.book, entry);
        }
        let half_line = reading.give_up_half_line();
        reading.restart(scan::millis(now), config.format);
        let is_there = |unread: &Unread| !unread.candidate.is_active;
        self.current = Some(reading);
        self.scan(config, now);
        if self.unread.iter().any(is_there) {
            // A copy has more than was read, half a line included.
            self.current = None;
        } else if let Some((text, offset)) = half_line {
            let reason = TornReason::Unterminated;
            push_torn(chunk, Bytes::from(text), offset, reason);
            return Step::Chunk;
        }
        Step::Again
    }

    fn failed(&mut self, mut reading: Reading, error: &io::Error, now: SystemTime) -> Step {
        if InflateError::of(error).is_some() {
            // Perhaps it is still being written: it is tried again when it has changed.
            self.damaged.entry(reading.version).or_insert(Damage {
                since: now,
                is_reported: false,
            });
            drop(reading.give_up_half_line());
            self.next_scan = None;
            return Step::Again;
        }
        self.health.failed = Some((reading.path.clone(), error.to_string()));
        self.current = Some(reading);
        Step::Idle
    }

    fn note_path_error(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self.health.is_missing = true,
            io::ErrorKind::PermissionDenied => self.health.denied = Some(self.path.clone()),
            _ => self.health.failed = Some((self.path.clone(), error.to_string())),
        }
    }

    fn open_next(&mut self, config: &TailConfig, now: SystemTime) -> Step {
        let Some(unread) = self.unread.pop_front() else {
            if self.last_scan == Some(now) {
                return Step::Idle;
            }
            self.scan(config, now);
            return Step::Again;
        };
        let entry = unread
            .entry
            .and_then(|id| self.book.entries.iter().find(|entry| entry.id == id));
        match Reading::open(&unread.candidate, entry, config.format) {
            Ok(mut reading) => {
                reading.carry(self.carried.take());
                self.is_final = false;
                self.health.was_there = true;
                self.current = Some(reading);
                Step::Again
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Renamed, compressed or removed since it was seen.
                self.checks_chain = true;
                self.next_scan = None;
                Step::Again
            }
            Err(error) if InflateError::of(&error).is_some() => {
                self.damaged.entry(unread.candidate.version).or_insert(Damage {
                    since: now,
                    is_reported: false,
                });
                self.next_scan = None;
                Step::Again
            }
            Err(error) => {
                let path = unread.candidate.path;
                if error.kind() == io::ErrorKind::PermissionDenied {
                    self.health.denied = Some(path);
                } else {
                    self.health.failed = Some((path, error.to_string()));
                }
                Step::Again
            }
        }
    }

    fn retire(&mut self, reading: &Reading, now: SystemTime) {
        let Some(file) = reading.file() else { return };
        let (Ok(there), Ok(head)) = (file.metadata(), scan::head(file)) else {
            return;
        };
        let modified = there.modified().unwrap_or(now);
        self.retired.push_back((
            now,
            Candidate {
                path: reading.path.clone(),
                name: reading.name.clone(),
                compression: Compression::Plain,
                is_active: false,
                key: reading.key,
                size: there.len(),
                version: Version::of(&there),
                modified,
                order_millis: scan::millis(modified),
                probe: scan::Probe::of_head(head),
                handle: Some(std::sync::Arc::clone(file)),
            },
        ));
        while self.retired.len() > MAX_RETIRED {
            self.retired.pop_front();
        }
    }

    /// Looks at the directory: what is unread, what is gone.
    fn scan(&mut self, config: &TailConfig, now: SystemTime) {
        let active = resolved(&self.path);
        let mut listing = scan::list(&active, &mut self.probes);
        self.health.denied = listing.denied.take();
        self.health.failed = listing.failed.take();
        self.is_settled = listing.is_settled;
        let is_complete = self.health.denied.is_none() && self.health.failed.is_none();
        self.health.is_missing = !listing.candidates.iter().any(|candidate| candidate.is_active);
        self.health.was_there |= !self.health.is_missing;
        self.backups = listing
            .candidates
            .iter()
            .filter(|candidate| !candidate.is_active)
            .map(|candidate| candidate.name.clone())
            .collect();
        self.add_retired(&mut listing.candidates, now);
        let candidates = listing.candidates;
        if is_complete && let Some(start) = self.start.take() {
            self.begin(start, &candidates);
        }
        let open = self.current.as_ref().map(|reading| reading.tracker.id());
        let verdicts = scan::judge(&candidates, &self.book, open, &mut self.probes);
        let mut unread = VecDeque::new();
        let mut found: HashSet<u64> = HashSet::new();
        let mut is_anchored = false;
        let held: Vec<(u64, Option<FileKey>)> = self
            .carried
            .iter()
            .flat_map(|carried| &carried.entries)
            .map(|entry| (entry.id, entry.key))
            .collect();
        let owned: HashSet<usize> = verdicts
            .iter()
            .filter_map(|verdict| match verdict {
                Verdict::Known(index) | Verdict::Read(Some(index)) => Some(*index),
                Verdict::New | Verdict::Read(None) | Verdict::Part(_) => None,
            })
            .collect();
        for (candidate, verdict) in candidates.iter().zip(verdicts) {
            let index = match verdict {
                Verdict::Known(index) | Verdict::Read(Some(index)) | Verdict::Part(index) => Some(index),
                Verdict::New | Verdict::Read(None) => None,
            };
            let entry = index.and_then(|index| self.book.entries.get_mut(index));
            let id = entry.as_ref().map(|entry| entry.id);
            found.extend(id);
            is_anchored |= id.is_some() && candidate.handle.is_none();
            let is_read = matches!(verdict, Verdict::Read(_) | Verdict::Part(_));
            let is_whole = !matches!(verdict, Verdict::Part(_));
            if let Some(entry) = entry
                && entry.progress != Progress::Skipped
                && (is_whole || index.is_some_and(|index| !owned.contains(&index)))
            {
                if candidate.handle.is_none() && is_whole {
                    entry.key = Some(candidate.key);
                    entry.order_millis = candidate.order_millis;
                }
                if is_read && !candidate.is_active && open != id {
                    entry.progress = Progress::Finished;
                }
            }
            let is_open = self.current.as_ref().is_some_and(|reading| {
                reading.key.is(&candidate.key) || (open == id && id.is_some_and(|id| id != 0))
            });
            let is_held = held
                .iter()
                .any(|(held, key)| id == Some(*held) || key.is_some_and(|key| key.is(&candidate.key)));
            let is_empty = candidate.probe.head.is_empty();
            if is_open || is_held || (!candidate.is_active && (is_read || is_empty)) {
                continue;
            }
            if candidate.is_active && self.current.as_ref().is_some_and(|reading| reading.is_active) {
                // It is not the one that is open: that one is read to its end first.
                continue;
            }
            if self.is_damaged(candidate, id, config, now) {
                continue;
            }
            unread.push_back(Unread {
                candidate: candidate.clone(),
                entry: id,
            });
        }
        self.unread = unread;
        if is_complete && self.is_settled {
            self.note_missing(&candidates, &found, config, now);
            self.check_chain(is_anchored, !candidates.is_empty());
        }
        self.damaged
            .retain(|version, _| candidates.iter().any(|candidate| candidate.version == *version));
        let is_waiting = self.sought() > 0 || !self.damaged.is_empty();
        let pause = if !self.is_settled {
            UNSETTLED
        } else if is_waiting {
            config.linger.min(config.rescan_every)
        } else {
            config.rescan_every
        };
        self.next_scan = Some(now + pause);
        self.last_scan = Some(now);
    }

    /// Files that are held open and have no name any more are files too, unless there is a copy.
    fn add_retired(&mut self, candidates: &mut Vec<Candidate>, now: SystemTime) {
        self.retired
            .retain(|(since, _)| now.duration_since(*since).unwrap_or_default() < RETIRED_FOR);
        let mut nameless: Vec<Candidate> = Vec::new();
        for (_, retired) in self.retired.iter_mut().rev() {
            retired.look_again();
            let is_there = |other: &Candidate| {
                other.key.is(&retired.key)
                    || (other.probe.head == retired.probe.head && other.length() == Some(retired.size))
            };
            if !candidates.iter().chain(&nameless).any(is_there) {
                nameless.push(retired.clone());
            }
        }
        for candidate in nameless {
            let at = candidates
                .iter()
                .position(|other| other.is_active || other.order_millis > candidate.order_millis)
                .unwrap_or(candidates.len());
            candidates.insert(at, candidate);
        }
    }

    /// The first look at a source decides what is left out.
    fn begin(&mut self, start: Start, candidates: &[Candidate]) {
        for candidate in candidates {
            let is_skipped = match start {
                Start::Beginning => false,
                Start::End => true,
                Start::Since(time) => !candidate.is_active && candidate.last_written() < time,
            };
            if !is_skipped {
                continue;
            }
            if candidate.is_active {
                let entry = candidate
                    .open()
                    .and_then(|file| Tracker::skip_to_line_end(&file, candidate.key, candidate.order_millis));
                match entry {
                    Ok(entry) if entry.offset > 0 => self.book.entries.push(entry),
                    Ok(_) => {}
                    Err(error) => self.health.failed = Some((candidate.path.clone(), error.to_string())),
                }
                continue;
            }
            self.book.entries.push(Entry {
                progress: Progress::Skipped,
                id: hash(&candidate.probe.head) ^ candidate.key.inode,
                head_len: candidate.probe.head.len(),
                head: hash(&candidate.probe.head),
                order_millis: candidate.order_millis,
                key: Some(candidate.key),
                ..Entry::default()
            });
        }
    }

    /// Whether an archive could not be read as it is, and did not change since.
    fn is_damaged(
        &mut self,
        candidate: &Candidate,
        id: Option<u64>,
        config: &TailConfig,
        now: SystemTime,
    ) -> bool {
        let Some(damage) = self.damaged.get_mut(&candidate.version) else {
            return false;
        };
        if !damage.is_reported && now >= damage.since + config.rescan_every {
            damage.is_reported = true;
            let entry = self.book.entries.iter().find(|entry| Some(entry.id) == id);
            self.gaps.push(Gap {
                file: candidate.name.clone(),
                offset: entry.map_or(0, |entry| entry.offset),
                reason: GapReason::Damaged,
            });
        }
        true
    }

    pub(super) fn status(&self, config: &TailConfig) -> SourceStatus {
        let since = self.last_read.unwrap_or(self.opened);
        let state = if let Some(path) = &self.health.denied {
            SourceState::PermissionDenied { path: path.clone() }
        } else if let Some((path, reason)) = &self.health.failed {
            SourceState::Error {
                path: path.clone(),
                reason: reason.clone(),
            }
        } else if self.health.is_missing && self.health.was_there {
            SourceState::PathMissing
        } else if self.health.is_missing {
            SourceState::WaitingForFile
        } else if self.seen.duration_since(since).unwrap_or_default() >= config.stale_after {
            SourceState::Stale { since }
        } else {
            SourceState::Reading
        };
        let current_backup = self.current.as_ref().filter(|reading| !reading.is_active);
        let waiting: Vec<&Candidate> = self
            .unread
            .iter()
            .map(|unread| &unread.candidate)
            .filter(|candidate| !candidate.is_active)
            .collect();
        let oldest_unread = current_backup
            .map(|reading| reading.name.clone())
            .or_else(|| waiting.first().map(|candidate| candidate.name.clone()));
        let rotations_until_loss = config.max_backups.and_then(|kept| {
            let oldest = oldest_unread.as_ref()?;
            let newer = self.backups.iter().rev().position(|name| name == oldest)?;
            Some(
                kept.saturating_sub(1)
                    .saturating_sub(u32::try_from(newer).unwrap_or(u32::MAX)),
            )
        });
        let unread_bytes = |unread: &Unread| {
            let read = unread
                .entry
                .and_then(|id| self.book.entries.iter().find(|entry| entry.id == id))
                .map_or(0, |entry| entry.offset);
            unread
                .candidate
                .length()
                .unwrap_or(unread.candidate.size)
                .saturating_sub(read)
        };
        let unfinished = self.damaged.values().filter(|damage| !damage.is_reported);
        let unclear = unfinished.count() + usize::from(!self.is_settled);
        let in_files: u64 = self.unread.iter().map(unread_bytes).sum();
        SourceStatus {
            path: self.path.clone(),
            state,
            file: self.current.as_ref().map(|reading| reading.name.clone()),
            offset: self.current.as_ref().map_or(0, |reading| reading.tracker.offset),
            behind_bytes: in_files + self.current.as_ref().map_or(0, Reading::behind),
            unread_backups: waiting.len() + usize::from(current_backup.is_some()) + self.sought() + unclear,
            oldest_unread,
            rotations_until_loss,
            anomalies: self.anomalies,
            gaps: self.gaps_seen,
            last_read: self.last_read,
        }
    }
}

pub(super) fn path_hash(path: &Path) -> u64 {
    hash(path.as_os_str().as_encoded_bytes())
}

/// Where the path leads, links followed: rotated files stand there.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| {
        let directory = path
            .parent()
            .and_then(|directory| fs::canonicalize(directory).ok());
        match (directory, path.file_name()) {
            (Some(directory), Some(name)) => directory.join(name),
            _ => path.to_owned(),
        }
    })
}

fn put(book: &mut Book, entry: Entry) {
    match book.entries.iter_mut().find(|known| known.id == entry.id) {
        Some(known) => *known = entry,
        None => book.entries.push(entry),
    }
}
