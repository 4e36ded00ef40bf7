//! From frame to frame, also over damage.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::read_full;
use crate::Seq;
use crate::filesystem::FileHandle;
use crate::format::{DATA_AT, FRAME_BYTES, FrameHeader, Kind};

/// Bytes read at once.
const CHUNK: u64 = 256 << 10;
/// What is passed over when it cannot be read.
pub(crate) const BLOCK: u64 = 4096;
const ZEROS: [u8; 1024] = [0; 1024];
const FRAME: u64 = FRAME_BYTES as u64;

/// Walks through a segment's frames.
///
/// Where no frame is found at its place, the next one is searched at every multiple of 8: one whose check is
/// right with this segment's salt, and whose number fits to how much was passed over.
#[derive(Debug)]
pub(crate) struct Scan {
    file: Arc<dyn FileHandle>,
    salt: u64,
    /// Where the next frame should be.
    offset: u64,
    /// What may be read.
    end: u64,
    window: Bytes,
    window_at: u64,
    /// The number that the next record should have.
    expected: Seq,
    /// The number at which the segment ends.
    bound: Seq,
    /// Bytes passed over since the last frame.
    passed: u64,
    is_searching: bool,
    /// Up to here a read of a whole chunk failed, so blocks are read one by one.
    careful_until: u64,
}

/// What was found next.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole frame.
    Frame {
        header: FrameHeader,
        /// Where it begins.
        offset: u64,
        payload: Bytes,
    },
    /// A frame whose payload is not what was written.
    Damaged,
    /// No further frame.
    End,
}

impl Scan {
    /// A walk over the frames before `end`, the first of which has the number `first`; all have numbers
    /// before `bound`.
    pub(crate) fn new(file: Arc<dyn FileHandle>, salt: u64, first: Seq, bound: Seq, end: u64) -> Self {
        Self {
            file,
            salt,
            offset: DATA_AT,
            end,
            window: Bytes::new(),
            window_at: 0,
            expected: first,
            bound,
            passed: 0,
            is_searching: false,
            careful_until: 0,
        }
    }

    /// Begins at a frame further on, before which all is known.
    pub(crate) const fn seek(&mut self, offset: u64, expected: Seq) {
        self.offset = offset;
        self.expected = expected;
    }

    /// More became readable.
    pub(crate) const fn extend(&mut self, end: u64, bound: Seq) {
        self.end = end;
        self.bound = bound;
    }

    /// Where the walk is: the end of the last frame that was found, unless something was passed over.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes passed over since the last frame.
    pub(crate) const fn passed(&self) -> u64 {
        self.passed
    }

    /// The next frame. Records before `from` are passed without looking at their payload.
    ///
    /// # Errors
    ///
    /// A read that failed; the next call tries it again.
    pub(crate) fn step(&mut self, from: Seq) -> io::Result<Step> {
        loop {
            let Some(header) = self.header()? else {
                return Ok(Step::End);
            };
            let at = self.offset;
            let is_record = header.kind == Kind::Record;
            let is_wanted = !is_record || header.seq >= from;
            let left = self.end - at;
            if header.size() > left {
                // It begins here, so nothing else does; what is missing of it was cut away.
                self.accept(&header, left);
                return Ok(Step::Damaged);
            }
            if !is_wanted {
                self.accept(&header, header.size());
                continue;
            }
            let payload = self.bytes(at + FRAME, u64::from(header.length))?;
            self.accept(&header, header.size());
            if crc32c::crc32c(&payload) != header.crc {
                return Ok(Step::Damaged);
            }
            return Ok(Step::Frame {
                header,
                offset: at,
                payload,
            });
        }
    }

    /// Gives up the block that cannot be read.
    pub(crate) fn skip_block(&mut self) {
        let next = (self.offset / BLOCK + 1) * BLOCK;
        self.pass(next.min(self.end) - self.offset);
        self.is_searching = true;
    }

    fn accept(&mut self, header: &FrameHeader, size: u64) {
        self.offset += size;
        self.passed = 0;
        self.is_searching = false;
        let is_record = header.kind == Kind::Record;
        self.expected = header.seq.plus(u64::from(is_record));
    }

    fn pass(&mut self, bytes: u64) {
        self.offset += bytes;
        self.passed += bytes;
    }

    /// The header at the next place that has one.
    fn header(&mut self) -> io::Result<Option<FrameHeader>> {
        if !self.is_searching {
            if self.left() < FRAME {
                return Ok(None);
            }
            let bytes = self.bytes(self.offset, FRAME)?;
            let found = FrameHeader::decode(&bytes, self.salt);
            if let Some(header) = found.filter(|header| self.fits(header, 0, self.offset)) {
                return Ok(Some(header));
            }
            self.pass(8);
            self.is_searching = true;
        }
        self.search()
    }

    fn search(&mut self) -> io::Result<Option<FrameHeader>> {
        while self.left() >= FRAME {
            let bytes = self.window(self.offset, FRAME)?;
            // Most of what is searched is space that was never written.
            let blank = bytes
                .chunks_exact(ZEROS.len())
                .take_while(|chunk| **chunk == ZEROS)
                .count();
            if blank > 0 {
                self.pass((blank * ZEROS.len()) as u64);
                continue;
            }
            let mut passed = 0;
            for place in bytes.windows(FRAME_BYTES).step_by(8) {
                let found = FrameHeader::decode(place, self.salt).filter(|header| {
                    self.fits(header, self.passed + passed, self.offset + passed)
                        && header.size() <= self.left() - passed
                });
                if found.is_some() {
                    self.pass(passed);
                    return Ok(found);
                }
                passed += 8;
                if passed >= ZEROS.len() as u64 {
                    break;
                }
            }
            if passed == 0 {
                break;
            }
            self.pass(passed);
        }
        Ok(None)
    }

    const fn left(&self) -> u64 {
        self.end.saturating_sub(self.offset)
    }

    /// Whether a frame's number can follow, `passed` bytes after the last frame.
    fn fits(&self, header: &FrameHeader, passed: u64, at: u64) -> bool {
        let is_record = header.kind == Kind::Record;
        let is_in_bounds = header.seq >= self.expected
            && header.seq <= self.bound
            && (!is_record || header.seq < self.bound);
        is_in_bounds
            && header.seq.since(self.expected) <= passed / FRAME
            && (header.kind != Kind::Snapshot || at == DATA_AT)
    }

    /// `length` bytes at `offset`, or fewer where the file ends.
    fn bytes(&mut self, offset: u64, length: u64) -> io::Result<Bytes> {
        let window = self.window(offset, length)?;
        let length = wide(length).min(window.len());
        Ok(window.slice(..length))
    }

    /// At least `length` bytes at `offset`, or fewer where the file ends.
    fn window(&mut self, offset: u64, length: u64) -> io::Result<Bytes> {
        let skip = offset
            .checked_sub(self.window_at)
            .and_then(|skip| usize::try_from(skip).ok());
        let wanted = wide(length);
        if let Some(skip) = skip
            && skip <= self.window.len()
            && self.window.len() - skip >= wanted
        {
            return Ok(self.window.slice(skip..));
        }
        let left = self.end.saturating_sub(offset);
        // To the end of the block in which the wanted bytes end: a bad block costs nothing before it.
        let block = (offset.saturating_add(length)).next_multiple_of(BLOCK) - offset;
        let chunk = if offset < self.careful_until {
            block
        } else {
            block.max(CHUNK)
        };
        let mut buffer = vec![0; wide(chunk.min(left))];
        let read = match read_full(self.file.as_ref(), &mut buffer, offset) {
            Err(_) if chunk > block => {
                self.careful_until = offset + chunk;
                buffer.truncate(wide(block));
                read_full(self.file.as_ref(), &mut buffer, offset)?
            }
            read => read?,
        };
        if read < buffer.len() {
            buffer.truncate(read);
            self.end = offset + read as u64;
        }
        self.window = Bytes::from(buffer);
        self.window_at = offset;
        Ok(self.window.clone())
    }
}

fn wide(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
