//! One open file: bytes in, chunks out.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::buffer::spare_capacity;

use super::book::{Entry, MARK_BYTES, Progress};
use super::identity::FileKey;
use super::scan::{self, Candidate, Skipped, Unpacked};
use super::tracker::Tracker;
use super::{LogFormat, TailConfig};
use crate::import::Text;
use crate::lines::{self, Piece, Stream};
use crate::{Anomalies, Chunk, FileIdentity, Line, OVERSIZED_HEAD_BYTES, Oversized, Torn, TornReason};

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) is_active: bool,
    pub(super) key: FileKey,
    pub(super) version: scan::Version,
    pub(super) tracker: Tracker,
    /// When its half line at the end was seen first.
    pub(super) half_line_since: Option<SystemTime>,
    input: Input,
    /// What was read behind the tracker's offset.
    buffer: Vec<u8>,
    /// So much of the buffer has no LF.
    searched: usize,
    format: LogFormat,
    skipping: Option<Skipping>,
    /// The beginning of a container's line that stands at the end of the file before.
    carried: Option<Carried>,
    /// Entries of the files before that are complete with the chunk that was taken last.
    pub(super) completed: Vec<Entry>,
    /// The rest of an entry whose beginning was too long belongs to it.
    skips_container_rest: bool,
}

#[derive(Debug)]
enum Input {
    Plain(Arc<File>),
    Unpacked(Box<Unpacked>),
    /// Of an import, which reads to the end and no further.
    Text(Box<Text>),
}

/// A line that is too long, as far as it was read through.
#[derive(Debug)]
struct Skipping {
    head: Vec<u8>,
    hasher: blake3::Hasher,
    length: u64,
    /// As it will be behind the line.
    tracker: Tracker,
}

/// The parts of a container's line at the end of a file, for which the next file has the rest.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) text: Vec<u8>,
    /// Where they begin.
    pub(crate) offset: u64,
    /// The entries of the files they stand in, as they are when the line is complete.
    pub(super) entries: Vec<Entry>,
}

/// What filling gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// The chunk has something, or the position went on.
    Taken,
    /// There is nothing more now.
    End,
    /// What was read is not in the file any more.
    Changed,
}

impl Reading {
    /// Opens a file, at its beginning or behind what an entry says was read.
    pub(super) fn open(candidate: &Candidate, entry: Option<&Entry>, format: LogFormat) -> io::Result<Self> {
        let file = candidate.open()?;
        let mut tracker = entry.map_or_else(|| Tracker::new(candidate), Tracker::resumed);
        let input = match scan::unpack(Arc::clone(&file), candidate.compression)? {
            None => {
                if let Some(entry) = entry {
                    tracker.head = scan::head(&file)?;
                    tracker.head.truncate(entry.head_len);
                    tracker.last = scan::before(&file, entry.offset).unwrap_or_default();
                }
                Input::Plain(file)
            }
            Some(mut unpacked) => {
                let mut skipped = Skipped::default();
                skipped.skip(&mut unpacked, tracker.offset)?;
                skipped.head.truncate(tracker.head_len_at_offset());
                tracker.head = skipped.head;
                tracker.last = skipped.last;
                Input::Unpacked(Box::new(unpacked))
            }
        };
        if entry.is_some_and(|entry| !tracker.agrees(entry)) {
            // It changed since it was compared.
            return Err(io::ErrorKind::NotFound.into());
        }
        tracker.order_millis = candidate.order_millis;
        Ok(Self {
            name: candidate.name.clone(),
            path: candidate.path.clone(),
            is_active: candidate.is_active,
            key: candidate.key,
            version: candidate.version,
            tracker,
            half_line_since: None,
            input,
            buffer: Vec::new(),
            searched: 0,
            format,
            skipping: None,
            carried: None,
            completed: Vec::new(),
            skips_container_rest: false,
        })
    }

    /// The text of a file that is imported.
    pub(crate) fn of_text(text: Box<Text>, file: &FileIdentity, format: LogFormat) -> Self {
        Self {
            name: file.name.clone(),
            path: PathBuf::from(&file.path),
            is_active: false,
            key: FileKey::default(),
            version: scan::Version::default(),
            tracker: Tracker::default(),
            half_line_since: None,
            input: Input::Text(text),
            buffer: Vec::new(),
            searched: 0,
            format,
            skipping: None,
            carried: None,
            completed: Vec::new(),
            skips_container_rest: false,
        }
    }

    pub(crate) fn text(&self) -> Option<&Text> {
        match &self.input {
            Input::Text(text) => Some(text),
            Input::Plain(_) | Input::Unpacked(_) => None,
        }
    }

    pub(super) fn carry(&mut self, carried: Option<Carried>) {
        self.carried = carried;
    }

    pub(super) fn file(&self) -> Option<&Arc<File>> {
        match &self.input {
            Input::Plain(file) => Some(file),
            Input::Unpacked(_) | Input::Text(_) => None,
        }
    }

    pub(super) fn is_compressed(&self) -> bool {
        !matches!(self.input, Input::Plain(_))
    }

    /// Whether bytes wait for the end of their line.
    pub(super) const fn has_half_line(&self) -> bool {
        !self.buffer.is_empty() || self.skipping.is_some()
    }

    pub(super) fn entry(&self, progress: Progress) -> Entry {
        self.tracker.entry(progress, Some(self.key))
    }

    /// Reads up to a chunk, more only to reach the end of a line.
    pub(crate) fn fill(&mut self, config: &TailConfig, chunk: &mut Chunk) -> io::Result<Fill> {
        let mut budget = config.max_line_bytes.saturating_add(config.max_chunk_bytes);
        // A hole was taken from its beginning, the rest was not looked at.
        if self.searched < self.buffer.len() && self.take_lines(config, chunk) {
            return Ok(Fill::Taken);
        }
        loop {
            let held = self.buffer.len();
            let count = self.read(config.max_chunk_bytes)?;
            let is_checked = count == 0 || self.is_active;
            if is_checked && let Some(file) = self.file() {
                let end = self.tracker.offset + self.read_ahead();
                let is_there = file.metadata()?.len() >= end
                    && scan::before(file, self.tracker.offset).is_ok_and(|last| last == self.tracker.last)
                    && self.has_half_line_in(file, held);
                if !is_there {
                    self.buffer.truncate(self.buffer.len() - count);
                    return Ok(Fill::Changed);
                }
            }
            if count == 0 {
                return Ok(Fill::End);
            }
            self.half_line_since = None;
            if self.take_lines(config, chunk) {
                return Ok(Fill::Taken);
            }
            budget = budget.saturating_sub(count);
            if budget == 0 {
                return Ok(Fill::Taken);
            }
        }
    }

    /// Whether the half line that was read before, so many bytes of the buffer, is still in the file: with
    /// nothing read in front of it, only it can tell that the file was emptied.
    fn has_half_line_in(&self, file: &File, held: usize) -> bool {
        let half_line = self.buffer.get(..held).unwrap_or_default();
        let end = half_line
            .get(held.saturating_sub(MARK_BYTES)..)
            .unwrap_or_default();
        end.is_empty()
            || scan::before(file, self.tracker.offset + held as u64).is_ok_and(|there| there.ends_with(end))
    }

    fn read_ahead(&self) -> u64 {
        self.buffer.len() as u64 + self.skipping.as_ref().map_or(0, |skipping| skipping.length)
    }

    fn read(&mut self, bytes: usize) -> io::Result<usize> {
        let at = self.tracker.offset + self.read_ahead();
        self.buffer.reserve(bytes);
        match &mut self.input {
            Input::Plain(file) => loop {
                match rustix::io::pread(&**file, spare_capacity(&mut self.buffer), at) {
                    Err(rustix::io::Errno::INTR) => {}
                    other => return Ok(other?),
                }
            },
            Input::Unpacked(reader) => read_part(reader, bytes, &mut self.buffer),
            Input::Text(reader) => read_part(reader, bytes, &mut self.buffer),
        }
    }

    /// Moves whole lines from the buffer to the chunk; whether there were any.
    fn take_lines(&mut self, config: &TailConfig, chunk: &mut Chunk) -> bool {
        let new = self.buffer.get(self.searched..).unwrap_or_default();
        if let Some(skipping) = &mut self.skipping {
            let end = memchr::memchr(b'\n', new);
            let part = new.get(..end.unwrap_or(new.len())).unwrap_or_default();
            skipping.take(part);
            let Some(end) = end else {
                self.buffer.clear();
                return false;
            };
            self.finish_oversized(chunk);
            self.buffer.drain(..=end);
            self.searched = 0;
            return true;
        }
        if self.take_holes(chunk) {
            return true;
        }
        let new = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr::memrchr(b'\n', new) else {
            self.searched = self.buffer.len();
            if self.buffer.len() > config.max_line_bytes && self.format != LogFormat::Cri {
                self.skip_line();
            }
            return false;
        };
        let whole = self.searched + end + 1;
        let rest = self.buffer.get(whole..).unwrap_or_default().to_vec();
        let mut text = std::mem::replace(&mut self.buffer, rest);
        text.truncate(whole);
        self.searched = self.buffer.len();
        if self.format == LogFormat::Auto {
            self.format = format_of(&text);
        }
        if self.format == LogFormat::Cri {
            self.take_entries(text, config, chunk)
        } else {
            self.take_json(text, config, chunk);
            true
        }
    }

    /// Takes NUL bytes from the beginning of the buffer, and half a line that a hole ends: the hole may be
    /// longer than any line. Whether there were any.
    fn take_holes(&mut self, chunk: &mut Chunk) -> bool {
        let first = match memchr::memchr2(b'\n', 0, &self.buffer) {
            Some(at) if self.buffer.get(at) == Some(&0) => at,
            _ => return false,
        };
        let (before, rest) = self.buffer.split_at_checked(first).unwrap_or((&[], &self.buffer));
        let nuls = rest.iter().take_while(|byte| **byte == 0).count();
        if !before.is_empty() {
            let text = Bytes::copy_from_slice(before);
            push_torn(chunk, text, self.tracker.offset, TornReason::Overwritten);
        }
        let continues = before.is_empty() && self.tracker.last.last() == Some(&0);
        chunk.anomalies.holes += u64::from(!continues);
        chunk.anomalies.hole_bytes += nuls as u64;
        let taken: Vec<u8> = self.buffer.drain(..first + nuls).collect();
        self.tracker.consume(&taken);
        self.searched = 0;
        true
    }

    fn take_json(&mut self, text: Vec<u8>, config: &TailConfig, chunk: &mut Chunk) {
        let base = self.tracker.offset;
        self.tracker.consume(&text);
        let text = Bytes::from(text);
        let split = lines::split(&text, base);
        chunk.anomalies.holes += split.holes;
        chunk.anomalies.hole_bytes += split.hole_bytes;
        for (range, reason) in split.torn {
            push_torn(
                chunk,
                text.slice(range.clone()),
                base + range.start as u64,
                reason,
            );
        }
        chunk.lines = split.lines;
        // A line just below the limit may have come with the last read.
        if text.len() > config.max_line_bytes {
            let (kept, long): (Vec<Line>, Vec<Line>) = chunk
                .lines
                .iter()
                .partition(|line| line.end - line.start <= config.max_line_bytes);
            chunk.lines = kept;
            for line in long {
                let whole = text.slice(line.start..line.end);
                push_oversized(chunk, &whole, base + line.start as u64);
            }
        }
        chunk.buffer = text;
    }

    /// Container entries: the text of stdout, put together from its parts.
    fn take_entries(&mut self, text: Vec<u8>, config: &TailConfig, chunk: &mut Chunk) -> bool {
        let base = self.tracker.offset;
        let mut out = Vec::with_capacity(text.len());
        let mut lines = Vec::new();
        let mut consumed = 0;
        let mut start = 0;
        // Of the line that is being put together: where it begins in `out` and in the text.
        let mut open: Option<(usize, usize)> = None;
        let mut is_joined = false;
        for end in memchr::memchr_iter(b'\n', &text) {
            let raw = text.get(start..end).unwrap_or_default();
            let here = start;
            start = end + 1;
            match lines::entry(raw) {
                None if raw.trim_ascii().is_empty() => {}
                None => {
                    for piece in lines::resync(raw) {
                        match piece {
                            Piece::Hole(range) => {
                                chunk.anomalies.holes += 1;
                                chunk.anomalies.hole_bytes += range.len() as u64;
                            }
                            Piece::Object(range) | Piece::Torn(range, _) => push_torn(
                                chunk,
                                Bytes::copy_from_slice(raw.get(range.clone()).unwrap_or_default()),
                                base + (here + range.start) as u64,
                                TornReason::NotObject,
                            ),
                        }
                    }
                }
                Some(entry) if entry.stream == Stream::Stderr => {}
                Some(entry) if self.skips_container_rest => self.skips_container_rest = !entry.is_last,
                Some(entry) => {
                    let begins = open.is_none();
                    let (line_start, from) = *open.get_or_insert((out.len(), here));
                    if let Some(carried) = self.carried.as_ref().filter(|_| begins) {
                        is_joined = !lines::begins_event(entry.text);
                        if is_joined {
                            out.extend_from_slice(&carried.text);
                        }
                    }
                    out.extend_from_slice(entry.text);
                    let is_too_long = out.len() - line_start > config.max_line_bytes;
                    if is_too_long || entry.is_last {
                        open = None;
                        if let Some(carried) = self.carried.take() {
                            if !is_joined {
                                let text = Bytes::from(carried.text);
                                push_torn(chunk, text, carried.offset, TornReason::Unterminated);
                            }
                            self.completed.extend(carried.entries);
                        }
                    }
                    if is_too_long {
                        push_oversized(
                            chunk,
                            out.get(line_start..).unwrap_or_default(),
                            base + from as u64,
                        );
                        out.truncate(line_start);
                        self.skips_container_rest = !entry.is_last;
                    } else if entry.is_last {
                        lines.push((line_start..out.len(), base + from as u64, base + start as u64));
                        out.push(b'\n');
                    }
                }
            }
            if open.is_none() {
                consumed = start;
            }
        }
        let (taken, kept) = text.split_at_checked(consumed).unwrap_or((&text, &[]));
        if !kept.is_empty() {
            let mut buffer = kept.to_vec();
            buffer.append(&mut self.buffer);
            self.searched += kept.len();
            self.buffer = buffer;
        }
        self.tracker.consume(taken);
        let out = Bytes::from(out);
        for (range, from, end_offset) in lines {
            push_text(chunk, &out, range, from, end_offset);
        }
        chunk.buffer = out;
        chunk.torn.sort_by_key(|torn| torn.offset);
        consumed > 0
    }

    fn skip_line(&mut self) {
        let mut skipping = Skipping {
            head: Vec::new(),
            hasher: blake3::Hasher::new(),
            length: 0,
            tracker: self.tracker.clone(),
        };
        skipping.take(&self.buffer);
        self.buffer = Vec::new();
        self.searched = 0;
        self.skipping = Some(skipping);
    }

    fn finish_oversized(&mut self, chunk: &mut Chunk) {
        let Some(mut skipping) = self.skipping.take() else {
            return;
        };
        chunk.anomalies.oversized_lines += 1;
        chunk.oversized.push(Oversized {
            offset: self.tracker.offset,
            length: skipping.length,
            head: Bytes::from(skipping.head),
            hash: *skipping.hasher.finalize().as_bytes(),
        });
        skipping.tracker.consume(b"\n");
        self.tracker = skipping.tracker;
    }

    /// The file is complete: what stands behind the last LF is all there will be. Parts of a container's
    /// line are given back, for the next file to complete.
    pub(crate) fn finish(&mut self, config: &TailConfig, chunk: &mut Chunk) -> Option<Carried> {
        if self.skipping.is_some() {
            self.finish_oversized(chunk);
            return None;
        }
        let text = std::mem::take(&mut self.buffer);
        self.searched = 0;
        if text.is_empty() {
            return None;
        }
        if self.format == LogFormat::Auto {
            self.format = format_of(&text);
        }
        let offset = self.tracker.offset;
        if self.format == LogFormat::Cri {
            let (mut parts, mut entries_before) = match self.carried.take() {
                Some(carried) => (carried.text, carried.entries),
                None => (Vec::new(), Vec::new()),
            };
            let whole = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
            let (entries, half) = text.split_at_checked(whole).unwrap_or((&text, &[]));
            for entry in entries.split(|byte| *byte == b'\n').filter_map(lines::entry) {
                if entry.stream == Stream::Stdout {
                    parts.extend_from_slice(entry.text);
                }
            }
            if !half.is_empty() {
                let at = offset + whole as u64;
                push_torn(chunk, Bytes::copy_from_slice(half), at, TornReason::Unterminated);
            }
            let mut after = self.tracker.clone();
            after.consume(&text);
            if parts.is_empty() {
                self.tracker = after;
                return None;
            }
            entries_before.push(after.entry(Progress::Finished, Some(self.key)));
            return Some(Carried {
                text: parts,
                offset,
                entries: entries_before,
            });
        }
        let first_torn = chunk.torn.len();
        self.take_json(text, config, chunk);
        for torn in chunk.torn.iter_mut().skip(first_torn) {
            if torn.reason == TornReason::Cut {
                torn.reason = TornReason::Unterminated;
            }
        }
        None
    }

    /// Where the file disagrees with what was read: whether only bytes in its middle changed. Then they are
    /// taken as they are now.
    pub(super) fn accept_overwritten(&mut self) -> io::Result<bool> {
        let Some(file) = self.file() else { return Ok(false) };
        let is_long = file.metadata()?.len() >= self.tracker.offset && self.tracker.offset > 0;
        if !is_long {
            return Ok(false);
        }
        let mut head = scan::head(file)?;
        head.truncate(self.tracker.head.len());
        let last = scan::before(file, self.tracker.offset)?;
        if head != self.tracker.head || last.contains(&0) {
            return Ok(false);
        }
        self.tracker.last = last;
        self.buffer.clear();
        self.searched = 0;
        self.skipping = None;
        Ok(true)
    }

    /// What was read of a line that is not there any more.
    pub(super) fn give_up_half_line(&mut self) -> Option<(Vec<u8>, u64)> {
        self.skipping = None;
        self.searched = 0;
        let text = std::mem::take(&mut self.buffer);
        (!text.is_empty()).then_some((text, self.tracker.offset))
    }

    /// The same file from its beginning, as another text.
    pub(super) fn restart(&mut self, candidate_millis: u64, format: LogFormat) {
        self.tracker = self.tracker.of_another_text(candidate_millis);
        self.buffer.clear();
        self.searched = 0;
        self.skipping = None;
        self.half_line_since = None;
        self.format = format;
        self.skips_container_rest = false;
    }

    /// What the file begins with, as far as it was read.
    pub(super) fn probe_head(&self) -> &[u8] {
        &self.tracker.head
    }

    /// Bytes of a plain file that were not handed over.
    pub(super) fn behind(&self) -> u64 {
        let length = self
            .file()
            .and_then(|file| file.metadata().ok())
            .map(|there| there.len());
        length.unwrap_or_default().saturating_sub(self.tracker.offset)
    }
}

/// What comes before an error is good; the error repeats.
fn read_part(reader: &mut impl Read, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let before = buffer.len();
    match reader.take(bytes as u64).read_to_end(buffer) {
        Ok(count) => Ok(count),
        Err(_) if buffer.len() > before => Ok(buffer.len() - before),
        Err(error) => Err(error),
    }
}

impl Skipping {
    fn take(&mut self, part: &[u8]) {
        let missing = OVERSIZED_HEAD_BYTES
            .saturating_sub(self.head.len())
            .min(part.len());
        self.head
            .extend_from_slice(part.get(..missing).unwrap_or_default());
        self.hasher.update(part);
        self.length += part.len() as u64;
        self.tracker.consume(part);
    }
}

fn format_of(text: &[u8]) -> LogFormat {
    let first = text
        .split(|byte| *byte == b'\n')
        .find(|line| !line.trim_ascii().is_empty());
    match first.map(lines::entry) {
        Some(Some(_)) => LogFormat::Cri,
        Some(None) => LogFormat::Json,
        None => LogFormat::Auto,
    }
}

/// One line's text, checked as a line of a file is.
fn push_text(chunk: &mut Chunk, out: &Bytes, range: std::ops::Range<usize>, from: u64, end_offset: u64) {
    let text = out.slice(range.clone());
    let split = lines::split(&text, 0);
    chunk.anomalies.holes += split.holes;
    chunk.anomalies.hole_bytes += split.hole_bytes;
    chunk.lines.extend(split.lines.iter().map(|line| Line {
        start: range.start + line.start,
        end: range.start + line.end,
        end_offset,
    }));
    for (torn, reason) in split.torn {
        push_torn(chunk, text.slice(torn), from, reason);
    }
}

pub(crate) fn push_torn(chunk: &mut Chunk, bytes: Bytes, offset: u64, reason: TornReason) {
    let Anomalies {
        torn_lines,
        interleavings,
        ..
    } = &mut chunk.anomalies;
    *torn_lines += 1;
    if reason == TornReason::Overwritten {
        *interleavings += 1;
    }
    chunk.torn.push(Torn {
        bytes,
        offset,
        reason,
    });
}

fn push_oversized(chunk: &mut Chunk, line: &[u8], offset: u64) {
    chunk.anomalies.oversized_lines += 1;
    chunk.oversized.push(Oversized {
        offset,
        length: line.len() as u64,
        head: Bytes::copy_from_slice(line.get(..OVERSIZED_HEAD_BYTES).unwrap_or(line)),
        hash: *blake3::hash(line).as_bytes(),
    });
}
