//! The bytes: segment headers, frames, checksums, lists of marks and of tags.
//!
//! All integers are little-endian. A segment begins with a header of 64 bytes at offset 0 and a copy of it
//! at 4096, in another block of the disk; frames begin at 4160, each at a multiple of 8.

use std::collections::BTreeMap;

use crate::{Seq, TAG_BYTES, Tag};

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Where the header's copy is.
pub(crate) const COPY_AT: u64 = 4096;
/// Where a segment's frames begin.
pub(crate) const DATA_AT: u64 = COPY_AT + 64;
/// Bytes of a frame's header.
pub(crate) const FRAME_BYTES: usize = 32;
/// Bytes of an entry in a list of tags.
pub(crate) const TAG_ENTRY_BYTES: usize = 4 + TAG_BYTES;

const MAGIC: u64 = u64::from_le_bytes(*b"kauditj\n");
const VERSION: u32 = 1;
const FLAG_RECYCLED: u32 = 1;
const FLAG_TAGGED: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record, perhaps behind its tag.
    Record,
    /// Changes of marks.
    Marks,
    /// All before this frame was durable when it was written.
    Commit,
    /// The tags of a segment that is closed.
    Tags,
    /// The end of a segment that is closed.
    End,
    /// All marks as they were when the segment began.
    Snapshot,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Marks => 2,
            Self::Commit => 3,
            Self::Tags => 4,
            Self::End => 5,
            Self::Snapshot => 6,
        }
    }

    const fn parse(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Record,
            2 => Self::Marks,
            3 => Self::Commit,
            4 => Self::Tags,
            5 => Self::End,
            6 => Self::Snapshot,
            _ => return None,
        })
    }
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Number of the segment's first record.
    pub(crate) first: Seq,
    /// Nanoseconds since 1970 when it was made.
    pub(crate) created_nanos: u64,
    /// What seeds the checks of its frames.
    pub(crate) salt: u64,
    /// Whether its space holds frames of an earlier segment.
    pub(crate) recycled: bool,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let flags = if self.recycled { FLAG_RECYCLED } else { 0 };
        let words = [
            MAGIC,
            u64::from(VERSION) | u64::from(flags) << 32,
            self.first.get(),
            self.created_nanos,
            self.salt,
            0,
            0,
        ];
        let mut out = [0; HEADER_BYTES];
        let check = check(MAGIC, &words);
        for (to, word) in out.chunks_exact_mut(8).zip(words.into_iter().chain([check])) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// The header, if these are the bytes of one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let words: [u64; 8] = words(bytes.get(..HEADER_BYTES)?)?;
        let [magic, version, first, created_nanos, salt, zero, zero_too, found] = words;
        let [.., _] = words;
        let body = [magic, version, first, created_nanos, salt, zero, zero_too];
        let flags = version >> 32;
        let is_whole = magic == MAGIC
            && check(MAGIC, &body) == found
            && version & u64::from(u32::MAX) == u64::from(VERSION)
            && flags & !u64::from(FLAG_RECYCLED) == 0;
        is_whole.then_some(Self {
            first: Seq::new(first),
            created_nanos,
            salt,
            recycled: flags & u64::from(FLAG_RECYCLED) != 0,
        })
    }
}

/// The header of a frame.
///
/// | bytes | |
/// | --- | --- |
/// | 0..4 | length of what follows the header, tag included, padding not |
/// | 4 | kind |
/// | 5 | flags: 1 = a tag precedes the payload |
/// | 6..8 | 0 |
/// | 8..16 | number of the record; of other frames the number that the next record has |
/// | 16..20 | CRC-32C of what follows |
/// | 20..24 | 0 |
/// | 24..32 | check of the 24 bytes before it, seeded with the segment's salt |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    pub(crate) tagged: bool,
    pub(crate) length: u32,
    pub(crate) seq: Seq,
    pub(crate) crc: u32,
}

impl FrameHeader {
    /// The header as it is before [`seal`] gives it its number and its check.
    pub(crate) fn encode_unsealed(kind: Kind, tagged: bool, length: u32, crc: u32) -> [u8; FRAME_BYTES] {
        let mut out = [0; FRAME_BYTES];
        let flags = if tagged { FLAG_TAGGED } else { 0 };
        let first = u64::from(length) | u64::from(kind.code()) << 32 | u64::from(flags) << 40;
        let words = [first, 0, u64::from(crc), 0];
        for (to, word) in out.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        let [first, seq, crc, found] = words(bytes.get(..FRAME_BYTES)?)?;
        // Most of what is looked at while searching for the next frame is empty space.
        if first == 0 || check(salt, &[first, seq, crc]) != found {
            return None;
        }
        Self::of_words(first, seq, crc)
    }

    /// The header at the start of `bytes`, as [`encode_unsealed`](Self::encode_unsealed) wrote it.
    pub(crate) fn decode_unsealed(bytes: &[u8]) -> Option<Self> {
        let [first, _, crc, _] = words(bytes.get(..FRAME_BYTES)?)?;
        Self::of_words(first, 0, crc)
    }

    /// The header of a frame that was not sealed yet, or whose check was seen to be right.
    fn of_words(first: u64, seq: u64, crc: u64) -> Option<Self> {
        let [l0, l1, l2, l3, kind, flags, 0, 0] = first.to_le_bytes() else {
            return None;
        };
        (flags & !FLAG_TAGGED == 0).then_some(())?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let tagged = flags & FLAG_TAGGED != 0;
        (!tagged || usize::try_from(length).is_ok_and(|length| length >= TAG_BYTES)).then_some(())?;
        Some(Self {
            kind: Kind::parse(kind)?,
            tagged,
            length,
            seq: Seq::new(seq),
            crc: u32::try_from(crc).ok()?,
        })
    }

    /// Bytes from this frame to the next.
    pub(crate) fn size(&self) -> u64 {
        FRAME_BYTES as u64 + u64::from(self.length).next_multiple_of(8)
    }
}

/// A whole frame.
pub(crate) fn frame(kind: Kind, seq: Seq, salt: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_BYTES + payload.len().next_multiple_of(8));
    push_frame(&mut out, kind, payload);
    seal(&mut out, seq, salt, |_, _| ());
    out
}

/// Appends a frame that is not sealed yet.
pub(crate) fn push_frame(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let header = FrameHeader::encode_unsealed(kind, false, length, crc32c::crc32c(payload));
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    pad(out);
}

/// Fills up to the next frame's place.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

/// Gives the frames in `frames` their numbers, from `next` on, and their checks; returns the number after
/// the last record and tells `each` the number and the tag of records that have one.
pub(crate) fn seal(frames: &mut [u8], mut next: Seq, salt: u64, mut each: impl FnMut(Seq, &[u8])) -> Seq {
    let mut rest = frames;
    while let Some((header, behind)) = rest.split_at_mut_checked(FRAME_BYTES) {
        let Some([first, _, crc, _]) = words(header) else {
            break;
        };
        let Some(read) = FrameHeader::of_words(first, 0, crc) else {
            break;
        };
        let check = check(salt, &[first, next.get(), crc]);
        let (_, numbers) = header.split_at_mut(8);
        let (number, end) = numbers.split_at_mut(8);
        number.copy_from_slice(&next.get().to_le_bytes());
        let (_, found) = end.split_at_mut(8);
        found.copy_from_slice(&check.to_le_bytes());
        let length = usize::try_from(read.size())
            .unwrap_or(usize::MAX)
            .saturating_sub(FRAME_BYTES);
        let Some((payload, after)) = behind.split_at_mut_checked(length) else {
            break;
        };
        if read.tagged
            && let Some(tag) = payload.get(..TAG_BYTES)
        {
            each(next, tag);
        }
        if read.kind == Kind::Record {
            next = next.plus(1);
        }
        rest = after;
    }
    next
}

/// Makes a segment of `bytes`: a header for record 1, and right checks as far as frames follow each other.
/// Every other frame's payload gets its right checksum too.
#[cfg(any(test, feature = "test-util"))]
pub(crate) fn reseal(mut bytes: Vec<u8>, salt: u64) -> Vec<u8> {
    let header = SegmentHeader {
        first: Seq::FIRST,
        created_nanos: 0,
        salt,
        recycled: false,
    }
    .encode();
    bytes.resize(bytes.len().max(wide(DATA_AT)), 0);
    for at in [0, wide(COPY_AT)] {
        if let Some(place) = bytes.get_mut(at..at + HEADER_BYTES) {
            place.copy_from_slice(&header);
        }
    }
    let mut rest = bytes.get_mut(wide(DATA_AT)..).unwrap_or_default();
    let mut is_summed = true;
    while let Some((header, behind)) = rest.split_at_mut_checked(FRAME_BYTES) {
        let Some([first, seq, crc, _]) = words(header) else {
            break;
        };
        let Some(read) = FrameHeader::of_words(first, seq, crc & u64::from(u32::MAX)) else {
            break;
        };
        let length = wide(u64::from(read.length).next_multiple_of(8)).min(behind.len());
        let (payload, after) = behind.split_at_mut(length);
        let summed = payload.get(..wide(u64::from(read.length))).map(crc32c::crc32c);
        let crc = if is_summed {
            summed.map_or(0, u64::from)
        } else {
            crc & u64::from(u32::MAX)
        };
        is_summed = !is_summed;
        let check = check(salt, &[first, seq, crc]);
        for (place, word) in header.chunks_exact_mut(8).zip([first, seq, crc, check]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        rest = after;
    }
    bytes
}

#[cfg(any(test, feature = "test-util"))]
fn wide(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A keyed check of 64 bits.
///
/// Each step is a bijection of the state and of the word, so that a change within one word, whatever it
/// is, always changes the result; all others go unnoticed once in 2^64. It is no defence against somebody
/// who can read the file.
fn check(salt: u64, words: &[u64]) -> u64 {
    words.iter().fold(salt ^ 0x6a09_e667_f3bc_c909, |state, word| {
        let mixed = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 32
    })
}

fn words<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut out = [0; N];
    let mut chunks = bytes.chunks_exact(8);
    for word in &mut out {
        *word = u64::from_le_bytes(chunks.next()?.try_into().ok()?);
    }
    Some(out)
}

/// Appends one mark to the payload of a marks frame.
pub(crate) fn push_mark(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&length(key));
    out.extend_from_slice(&length(value));
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// Bytes that a mark takes in a marks frame.
pub(crate) const fn mark_bytes(key: &[u8], value: &[u8]) -> usize {
    8 + key.len() + value.len()
}

/// Applies the payload of a marks frame; an empty value removes its key.
pub(crate) fn apply_marks(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, payload: &[u8]) {
    let mut rest = payload;
    let mut take = |length: usize| {
        let (taken, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(taken)
    };
    let length =
        |bytes: &[u8]| -> Option<usize> { usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok() };
    while let Some((key, value)) = take(4).and_then(length).zip(take(4).and_then(length)) {
        let Some((key, value)) = take(key).and_then(|key| Some((key, take(value)?))) else {
            return;
        };
        apply_mark(map, key, value);
    }
}

/// Sets a mark, or removes it if the value is empty.
pub(crate) fn apply_mark(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8], value: &[u8]) {
    if value.is_empty() {
        map.remove(key);
    } else {
        map.insert(key.to_vec(), value.to_vec());
    }
}

/// Appends an entry to the payload of a tags frame.
pub(crate) fn push_tag(out: &mut Vec<u8>, offset: u32, tag: &[u8]) {
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(tag);
}

/// The entries of a tags frame: how far from the segment's first record, and the tag.
pub(crate) fn tags(payload: &[u8]) -> Vec<(u32, Tag)> {
    let entry = |entry: &[u8]| {
        let (offset, tag) = entry.split_at_checked(4)?;
        Some((
            u32::from_le_bytes(offset.try_into().ok()?),
            Tag::try_from(tag).ok()?,
        ))
    };
    payload.chunks_exact(TAG_ENTRY_BYTES).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_header_survives_and_any_flipped_bit_is_noticed() {
        let header = SegmentHeader {
            first: Seq::new(u64::MAX - 7),
            created_nanos: 1,
            salt: 0xdead_beef,
            recycled: true,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_header_is_read_with_its_own_salt_only_and_any_flipped_bit_is_noticed() {
        for (seq, salt) in [(1, 0), (1 << 32, 7), (u64::MAX - 1, u64::MAX)] {
            let bytes = frame(Kind::Record, Seq::new(seq), salt, b"payload");
            let header = FrameHeader::decode(&bytes, salt).expect("whole");
            assert_eq!((header.seq.get(), header.length, header.size()), (seq, 7, 40));
            assert_eq!(FrameHeader::decode(&bytes, salt ^ 1), None);
            for bit in 0..FRAME_BYTES * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(FrameHeader::decode(&flipped, salt), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn marks_are_set_replaced_and_removed() {
        let mut payload = Vec::new();
        push_mark(&mut payload, b"a", b"1");
        push_mark(&mut payload, b"b", b"2");
        push_mark(&mut payload, b"a", b"3");
        push_mark(&mut payload, b"b", b"");
        let mut map = BTreeMap::new();
        apply_marks(&mut map, &payload);
        assert_eq!(map, BTreeMap::from([(b"a".to_vec(), b"3".to_vec())]));
        for length in 0..payload.len() {
            apply_marks(&mut map, &payload[..length]);
        }
    }
}
