//! How far a file was read, and by what it is known again.

use std::fs::File;
use std::io::{self, Read as _};

use super::book::{Entry, HEAD_BYTES, MARK_BYTES, Progress, hash};
use super::identity::FileKey;
use super::scan::{self, Candidate, keep_last};

/// The first mark stands here or behind; each further one at least twice as far.
const FIRST_MARK: u64 = 256;

/// How far a file was read, and what vouches for that.
#[derive(Clone, Debug)]
pub(super) struct Tracker {
    pub(super) offset: u64,
    pub(super) order_millis: u64,
    seed: u64,
    id: u64,
    /// Whether the id was not compared with those of other files.
    is_new: bool,
    /// What it begins with, at most [`HEAD_BYTES`].
    pub(super) head: Vec<u8>,
    /// What stands before the offset, at most [`MARK_BYTES`].
    pub(super) last: Vec<u8>,
    crc: crc32fast::Hasher,
    marks: Vec<(u64, u64)>,
    next_mark: u64,
}

impl Tracker {
    pub(super) fn new(candidate: &Candidate) -> Self {
        Self {
            order_millis: candidate.order_millis,
            seed: seed(candidate.key),
            ..Self::default()
        }
    }

    pub(super) fn resumed(entry: &Entry) -> Self {
        Self {
            offset: entry.offset,
            order_millis: entry.order_millis,
            seed: 0,
            id: entry.id,
            is_new: false,
            head: Vec::new(),
            last: Vec::new(),
            crc: crc32fast::Hasher::new_with_initial_len(entry.crc, entry.offset),
            marks: entry.marks.clone(),
            next_mark: entry.offset.max(FIRST_MARK / 2).saturating_mul(2),
        }
    }

    /// Of another text in the same inode, from its beginning; it has another id.
    pub(super) fn of_another_text(&self, order_millis: u64) -> Self {
        Self {
            order_millis,
            seed: self.id.wrapping_add(1),
            ..Self::default()
        }
    }

    /// Two texts in one inode that begin with the same hole would have one id.
    pub(super) fn settle_id(&mut self, is_taken: impl Fn(u64) -> bool) {
        while self.is_new && is_taken(self.id) {
            self.id = self.id.wrapping_add(1);
        }
        self.is_new = false;
    }

    /// Whether what stands in the file is what the entry says was read.
    pub(super) fn agrees(&self, entry: &Entry) -> bool {
        self.head.len() == entry.head_len
            && hash(&self.head) == entry.head
            && hash(&self.last) == entry.marker
    }

    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn head_len_at_offset(&self) -> usize {
        usize::try_from(self.offset).unwrap_or(HEAD_BYTES).min(HEAD_BYTES)
    }

    pub(super) fn consume(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        self.crc.update(text);
        let missing = HEAD_BYTES.saturating_sub(self.head.len()).min(text.len());
        self.head
            .extend_from_slice(text.get(..missing).unwrap_or_default());
        if self.offset == 0 {
            self.id = hash(&self.head) ^ self.seed;
            self.is_new = true;
        }
        let before = self.offset;
        self.offset += text.len() as u64;
        keep_last(&mut self.last, text);
        while self.next_mark <= self.offset {
            let at = self.next_mark.max(before + MARK_BYTES as u64);
            let (at, bytes) = usize::try_from(at - before)
                .ok()
                .and_then(|end| text.get(end.checked_sub(MARK_BYTES)?..end))
                .map_or((self.offset, self.last.as_slice()), |bytes| (at, bytes));
            // In a hole all places look the same.
            if bytes.iter().any(|byte| *byte != 0) {
                self.marks.push((at, hash(bytes)));
            }
            self.next_mark = at.saturating_mul(2);
        }
    }

    pub(super) fn entry(&self, progress: Progress, key: Option<FileKey>) -> Entry {
        Entry {
            progress,
            id: self.id,
            head_len: self.head.len(),
            head: hash(&self.head),
            offset: self.offset,
            marker: hash(&self.last),
            crc: self.crc.clone().finalize(),
            order_millis: self.order_millis,
            key,
            marks: match progress {
                Progress::Reading => self.marks.clone(),
                // Nobody copies it any more; a few are enough to know an older copy by.
                Progress::Finished | Progress::Skipped => self
                    .marks
                    .iter()
                    .rev()
                    .step_by(3)
                    .take(3)
                    .rev()
                    .copied()
                    .collect(),
            },
        }
    }

    /// Passes over what stands in a plain file before it is followed from its end.
    pub(super) fn skip_to_line_end(file: &File, key: FileKey, order_millis: u64) -> io::Result<Entry> {
        let mut tracker = Self {
            order_millis,
            seed: seed(key),
            ..Self::default()
        };
        let mut reader = scan::Positioned { file, at: 0 };
        let mut buffer = vec![0; 1 << 20];
        let mut half: Vec<u8> = Vec::new();
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                return Ok(tracker.entry(Progress::Reading, Some(key)));
            }
            let new = buffer.get(..count).unwrap_or_default();
            match memchr::memrchr(b'\n', new).and_then(|end| new.split_at_checked(end + 1)) {
                Some((whole, rest)) => {
                    tracker.consume(&std::mem::take(&mut half));
                    tracker.consume(whole);
                    half.extend_from_slice(rest);
                }
                None => half.extend_from_slice(new),
            }
        }
    }
}

impl Default for Tracker {
    fn default() -> Self {
        Self {
            offset: 0,
            order_millis: 0,
            seed: 0,
            id: 0,
            is_new: false,
            head: Vec::new(),
            last: Vec::new(),
            crc: crc32fast::Hasher::new(),
            marks: Vec::new(),
            next_mark: FIRST_MARK,
        }
    }
}

fn seed(key: FileKey) -> u64 {
    let numbers = [key.device, key.inode, key.generation, key.born];
    hash(&numbers.map(u64::to_le_bytes).concat())
}
