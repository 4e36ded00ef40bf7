//! Files that were to be read, or were read, and are not there any more.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::TailConfig;
use super::book::{Awaited, MAX_AWAITED, Progress};
use super::scan::Candidate;
use super::source::{Source, Unread};
use crate::{Gap, GapReason};

/// How long a file that was read must be gone before it is forgotten.
const FORGET_AFTER: Duration = Duration::from_mins(10);

/// Since when files are not found. A directory that is read while files are renamed and compressed in it may
/// not show them all, so nothing is said of them at once.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Entries that have more to read, by their id.
    missing: HashMap<u64, SystemTime>,
    /// Entries that were read to their end; they are forgotten after a while.
    over: HashMap<u64, SystemTime>,
    /// What the book awaits, by the hash of its head: since when, and its name where that is known.
    awaited: HashMap<u64, (SystemTime, Option<String>)>,
    /// Entries whose file was emptied after they were read in part.
    pub(super) emptied: HashSet<u64>,
    /// Unread files of the last scan.
    expected: Vec<Candidate>,
}

impl Source {
    /// How many files have something that was not read, are not found now, and are not given up yet.
    pub(super) fn sought(&self) -> usize {
        self.book.awaited.len() + self.gone.missing.len()
    }

    /// Names what was to be read and is not there any more.
    pub(super) fn note_missing(
        &mut self,
        candidates: &[Candidate],
        found: &HashSet<u64>,
        config: &TailConfig,
        now: SystemTime,
    ) {
        self.note_unread(candidates, config, now);
        self.note_rests(found, config, now);
        self.forget(found, now);
    }

    /// Files that were seen and never read. Until it is certain that they are gone the book awaits them: the
    /// files behind them are read meanwhile, and after a restart would seem to be all that there was.
    fn note_unread(&mut self, candidates: &[Candidate], config: &TailConfig, now: SystemTime) {
        let unread =
            |unread: &&Unread| !unread.candidate.probe.head.is_empty() && unread.candidate.handle.is_none();
        let expected = self.unread.iter().filter(unread).map(|unread| &unread.candidate);
        let expected = std::mem::replace(&mut self.gone.expected, expected.cloned().collect());
        let known = std::mem::take(&mut self.book.awaited);
        let names: HashMap<u64, String> = expected
            .iter()
            .map(|expected| (Awaited::of(expected).head, expected.name.clone()))
            .collect();
        let expected: Vec<Awaited> = expected
            .iter()
            .filter(|expected| !self.is_seen(candidates, expected))
            .map(Awaited::of)
            .collect();
        let mut before = std::mem::take(&mut self.gone.awaited);
        let mut awaited: Vec<Awaited> = Vec::new();
        for file in known.into_iter().chain(expected) {
            let is_listed = awaited.iter().any(|other| other.head == file.head);
            if is_listed || self.turned_up(candidates, &file) {
                continue;
            }
            let (since, name) = before
                .remove(&file.head)
                .unwrap_or_else(|| (now, names.get(&file.head).cloned()));
            let may_come = now < since + config.linger || since == now;
            if may_come && awaited.len() < MAX_AWAITED {
                self.gone.awaited.insert(file.head, (since, name));
                awaited.push(file);
                continue;
            }
            self.gaps.push(Gap {
                file: name.unwrap_or_else(|| self.path.to_string_lossy().into_owned()),
                offset: 0,
                reason: GapReason::Removed,
            });
        }
        self.book.awaited = awaited;
    }

    /// Whether a file is there, is being read, or was. It may have grown since its head was read, and been
    /// compressed into another file.
    fn is_seen(&self, candidates: &[Candidate], expected: &Candidate) -> bool {
        let head = &expected.probe.head;
        let mut entries = self.book.entries.iter();
        candidates
            .iter()
            .any(|other| other.key.is(&expected.key) || other.probe.head.starts_with(head))
            || self.current.as_ref().is_some_and(|reading| {
                reading.key.is(&expected.key) || reading.probe_head().starts_with(head)
            })
            // With an entry it is looked for by that.
            || entries.any(|entry| {
                let is_same = entry.key.is_some_and(|key| key.is(&expected.key));
                entry.head_len > 0 && (is_same || entry.is_head_of(head))
            })
    }

    /// The same for what is known only by the hash of its head.
    fn turned_up(&self, candidates: &[Candidate], file: &Awaited) -> bool {
        candidates
            .iter()
            .any(|other| other.key.is(&file.key) || file.is_head_of(&other.probe.head))
            || self
                .current
                .as_ref()
                .is_some_and(|reading| reading.key.is(&file.key) || file.is_head_of(reading.probe_head()))
            || self.book.entries.iter().any(|entry| {
                let is_same = entry.key.is_some_and(|key| key.is(&file.key));
                is_same || (entry.head_len, entry.head) == (file.head_len, file.head)
            })
    }

    /// Files of which a part was read.
    fn note_rests(&mut self, found: &HashSet<u64>, config: &TailConfig, now: SystemTime) {
        let current = self.current.as_ref().map(|reading| reading.tracker.id());
        let held: Vec<u64> = self
            .carried
            .iter()
            .flat_map(|carried| &carried.entries)
            .map(|entry| entry.id)
            .collect();
        let mut still_missing = HashMap::new();
        for entry in &mut self.book.entries {
            let is_accounted = entry.progress != Progress::Reading
                || found.contains(&entry.id)
                || current == Some(entry.id)
                || held.contains(&entry.id);
            if is_accounted {
                continue;
            }
            let since = self.gone.missing.get(&entry.id).copied().unwrap_or(now);
            if now < since + config.linger || since == now {
                still_missing.insert(entry.id, since);
                continue;
            }
            entry.progress = Progress::Finished;
            let reason = if self.gone.emptied.remove(&entry.id) {
                GapReason::Emptied
            } else {
                GapReason::RestNotFound
            };
            self.gaps.push(Gap {
                file: self.path.to_string_lossy().into_owned(),
                offset: entry.offset,
                reason,
            });
        }
        self.gone.missing = still_missing;
    }

    /// Files are removed oldest first: as long as one that was read is there, none after it can have come
    /// and gone.
    pub(super) fn check_chain(&mut self, is_anchored: bool, has_files: bool) {
        if !self.checks_chain || !has_files {
            return;
        }
        self.checks_chain = false;
        if !self.book.entries.is_empty() && !is_anchored && self.gone.missing.is_empty() {
            self.gaps.push(Gap {
                file: self.path.to_string_lossy().into_owned(),
                offset: 0,
                reason: GapReason::ChainBroken,
            });
        }
    }

    /// Lets go of what was read to its end and is not there any more.
    fn forget(&mut self, found: &HashSet<u64>, now: SystemTime) {
        let mut over = HashMap::new();
        let known = std::mem::take(&mut self.gone.over);
        self.book.entries.retain(|entry| {
            if entry.progress == Progress::Reading || found.contains(&entry.id) {
                return true;
            }
            let since = known.get(&entry.id).copied().unwrap_or(now);
            over.insert(entry.id, since);
            now.duration_since(since).unwrap_or_default() < FORGET_AFTER
        });
        self.gone.over = over;
    }
}
