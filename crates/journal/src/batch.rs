//! Records on their way in.

use std::fmt;

use crate::Seq;
use crate::Tag;
use crate::format::{self, FRAME_BYTES, FrameHeader, Kind};

/// Bytes of a mark's key, at most.
pub const MARK_KEY_BYTES: usize = 256;
/// Bytes of a mark's value, at most.
pub const MARK_VALUE_BYTES: usize = 16 << 10;
/// Marks in a journal, at most. Together they may also take no more than half of a segment.
pub const MARKS: usize = 4096;

/// Records and marks that are appended together, in order, in one group.
///
/// The records lie in one buffer as they will lie in the file, so that the journal's thread only fills in
/// numbers and checks. Their checksums are computed here, by whoever builds the batch.
#[derive(Default)]
pub struct Batch {
    frames: Vec<u8>,
    records: u64,
    largest: usize,
    tagged: u64,
    marks: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why a mark cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a mark of {key} + {value} bytes; a key has 1 to {MARK_KEY_BYTES} and a value at most {MARK_VALUE_BYTES}"
)]
#[non_exhaustive]
pub struct MarkError {
    /// Bytes of the key.
    pub key: usize,
    /// Bytes of the value.
    pub value: usize,
}

impl Batch {
    /// No records. Appended as it is, it is a barrier: done when all before it are durable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No records, and room for frames of `bytes` in all.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            frames: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// Adds a record.
    pub fn push(&mut self, tag: Option<Tag>, payload: &[u8]) {
        self.frames.reserve(FRAME_BYTES + payload.len() + 32);
        let start = self.begin(tag.as_ref());
        self.frames.extend_from_slice(payload);
        self.finish(start, tag.is_some());
    }

    /// Adds a record that `write` appends to the batch's own buffer. What stands there before must be left
    /// alone: a batch whose buffer was shortened is refused as too large.
    ///
    /// # Errors
    ///
    /// What `write` answers; the record is then not added.
    pub fn push_with<E>(
        &mut self,
        tag: Option<Tag>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.begin(tag.as_ref());
        let begun = self.frames.len();
        match write(&mut self.frames) {
            Ok(()) => {
                if self.frames.len() < begun {
                    // Other records are gone: such a batch is never accepted.
                    self.largest = usize::MAX;
                } else {
                    self.finish(start, tag.is_some());
                }
                Ok(())
            }
            Err(error) => {
                self.frames.truncate(start);
                Err(error)
            }
        }
    }

    /// Drops the records for which `keep` answers `false`; it is asked once for each, with its place from 0
    /// on. Marks stay. The others move together in the batch's own buffer, checksums and all.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let (mut from, mut to, mut index) = (0, 0, 0);
        let (mut records, mut tagged, mut largest) = (0, 0, 0);
        while from < self.frames.len() {
            let rest = self.frames.get(from..).unwrap_or_default();
            let header = FrameHeader::decode_unsealed(rest);
            let Some((header, size)) = header.and_then(|header| {
                let size = usize::try_from(header.size()).ok()?;
                (size <= rest.len()).then_some((header, size))
            }) else {
                // A record larger than can be said, or bytes that `push_with` was to leave alone.
                self.largest = usize::MAX;
                return;
            };
            if keep(index) {
                self.frames.copy_within(from..from + size, to);
                to += size;
                records += 1;
                tagged += u64::from(header.tagged);
                largest = largest.max(usize::try_from(header.length).unwrap_or(usize::MAX));
            }
            from += size;
            index += 1;
        }
        self.frames.truncate(to);
        (self.records, self.tagged) = (records, tagged);
        // One that is refused whatever it holds stays so.
        if self.largest < usize::MAX {
            self.largest = largest;
        }
    }

    /// Sets a mark, which becomes durable with this batch's records and never before them. An empty value
    /// removes it.
    ///
    /// # Errors
    ///
    /// [`MarkError`] when the key or the value is too large; nothing is set then.
    pub fn mark(&mut self, key: &[u8], value: &[u8]) -> Result<(), MarkError> {
        if key.is_empty() || key.len() > MARK_KEY_BYTES || value.len() > MARK_VALUE_BYTES {
            return Err(MarkError {
                key: key.len(),
                value: value.len(),
            });
        }
        self.marks.push((key.to_vec(), value.to_vec()));
        Ok(())
    }

    /// How many records.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Bytes that the batch takes in the queue and, but for a few, in a segment.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let marks: usize = self
            .marks
            .iter()
            .map(|(key, value)| format::mark_bytes(key, value))
            .sum();
        let frame = if self.marks.is_empty() { 0 } else { FRAME_BYTES + 8 };
        self.frames.len() + frame + marks
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0 && self.marks.is_empty()
    }

    /// Bytes of the largest payload, tag included.
    pub(crate) const fn largest(&self) -> usize {
        self.largest
    }

    /// Records that have a tag.
    pub(crate) const fn tagged(&self) -> u64 {
        self.tagged
    }

    pub(crate) fn marks(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.marks
    }

    /// The bytes to write, numbered from `first` on; `each` learns the numbers of tagged records.
    pub(crate) fn seal(&mut self, first: Seq, salt: u64, each: impl FnMut(Seq, &[u8])) -> &[u8] {
        if !self.marks.is_empty() {
            let mut payload = Vec::new();
            for (key, value) in &self.marks {
                format::push_mark(&mut payload, key, value);
            }
            format::push_frame(&mut self.frames, Kind::Marks, &payload);
        }
        format::seal(&mut self.frames, first, salt, each);
        &self.frames
    }

    /// The bytes after [`seal`](Self::seal).
    pub(crate) fn sealed(&self) -> &[u8] {
        &self.frames
    }

    fn begin(&mut self, tag: Option<&Tag>) -> usize {
        let start = self.frames.len();
        self.frames.extend_from_slice(&[0; FRAME_BYTES]);
        if let Some(tag) = tag {
            self.frames.extend_from_slice(tag);
        }
        start
    }

    fn finish(&mut self, start: usize, tagged: bool) {
        if let Some((header, payload)) = self
            .frames
            .get_mut(start..)
            .and_then(|frame| frame.split_at_mut_checked(FRAME_BYTES))
        {
            self.largest = self.largest.max(payload.len());
            // Longer than can be said is longer than is accepted.
            let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            let crc = crc32c::crc32c(payload);
            header.copy_from_slice(&FrameHeader::encode_unsealed(Kind::Record, tagged, length, crc));
        }
        format::pad(&mut self.frames);
        self.records += 1;
        self.tagged += u64::from(tagged);
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("records", &self.records)
            .field("bytes", &self.frames.len())
            .field("marks", &self.marks.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(index: usize) -> Option<Tag> {
        index
            .is_multiple_of(3)
            .then_some([u8::try_from(index).expect("small"); crate::TAG_BYTES])
    }

    fn batch(indices: impl Iterator<Item = usize>) -> Batch {
        let mut batch = Batch::new();
        batch.mark(b"at", b"7").expect("small");
        for index in indices {
            batch.push(tag(index), &vec![b'x'; 1 + index * 13 % 40]);
        }
        batch
    }

    #[test]
    fn retaining_some_records_is_as_if_only_they_had_been_added() {
        for pattern in 0..1_u32 << 9 {
            let is_kept = |index: usize| pattern >> index & 1 == 1;
            let mut asked = Vec::new();
            let mut whole = batch(0..9);
            whole.retain(|index| {
                asked.push(index);
                is_kept(index)
            });
            assert_eq!(asked, (0..9).collect::<Vec<_>>());
            let mut part = batch((0..9).filter(|index| is_kept(*index)));
            let counts = |batch: &Batch| (batch.records(), batch.tagged(), batch.largest(), batch.bytes());
            assert_eq!(counts(&whole), counts(&part));
            assert_eq!(whole.marks(), part.marks());
            let seal = |batch: &mut Batch| batch.seal(Seq::new(5), 3, |_, _| ()).to_vec();
            assert_eq!(seal(&mut whole), seal(&mut part));
        }
    }

    #[test]
    fn records_may_be_added_behind_those_that_were_retained() {
        let mut whole = batch(0..4);
        whole.retain(|index| index == 1);
        whole.push(tag(2), &[b'x'; 27]);
        let seal = |mut batch: Batch| batch.seal(Seq::FIRST, 3, |_, _| ()).to_vec();
        assert_eq!(seal(whole), seal(batch(1..3)));
    }

    #[test]
    fn a_batch_whose_buffer_was_tampered_with_stays_refused() {
        let mut shortened = batch(0..3);
        let written: Result<(), ()> = shortened.push_with(None, |buffer| {
            buffer.truncate(40);
            Ok(())
        });
        assert_eq!((written, shortened.largest()), (Ok(()), usize::MAX));
        shortened.retain(|_| false);
        assert_eq!(shortened.largest(), usize::MAX);
    }
}
