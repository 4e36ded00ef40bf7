//! What was read of each file, told by what the file holds, and how that is saved.
//!
//! Layout of a position, version 2, numbers as LEB128 unless they say otherwise:
//!
//! ```text
//! u8  version (2)
//! gaps that were handed over
//! sources, each:
//!   u64 little-endian, hash of the path
//!   watermark in ms
//!   entries, each:
//!     u8 progress (0 reading, 1 finished, 2 skipped) and 4 when a file key follows
//!     u64 id
//!     length of the head, u64 its hash
//!     offset, u64 hash of the bytes before it, u32 CRC of all bytes before it
//!     order in ms
//!     [device, inode, generation, birth]
//!     marks, each: offset, u64 hash of the bytes before it
//!   awaited files, each: length of the head, u64 its hash, device, inode, generation, birth
//! u32 little-endian, CRC of all that
//! ```

use super::identity::FileKey;
use super::scan::Candidate;

/// A position has this many bytes at most.
pub const MAX_POSITION_BYTES: usize = 16 << 10;

/// So many sources are followed by one tail, so that each has room in a position.
pub(super) const MAX_SOURCES: usize = 64;

/// The head of a file: long enough for the first event's Audit-ID and times.
pub(super) const HEAD_BYTES: usize = 1024;

/// Bytes before an offset that vouch for it: enough to hold the last event's time, which stands before its
/// annotations.
pub(super) const MARK_BYTES: usize = 1024;

const VERSION: u8 = 2;

/// Why bytes are no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    /// They are of a version that is not known.
    #[error("it has version {0}, known is {VERSION}")]
    Version(u8),
    /// They are cut or changed.
    #[error("it is damaged")]
    Damaged,
    /// There are too many.
    #[error("it has {0} bytes, more than {MAX_POSITION_BYTES}")]
    TooLarge(usize),
}

/// One file as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) progress: Progress,
    /// Names the file in records.
    pub(super) id: u64,
    /// Bytes of the head that are hashed: up to [`HEAD_BYTES`] of those before `offset`.
    pub(super) head_len: usize,
    pub(super) head: u64,
    /// Uncompressed bytes that were read.
    pub(super) offset: u64,
    /// Of the last [`MARK_BYTES`] of them.
    pub(super) marker: u64,
    /// CRC-32 of all of them, which a gzip trailer has too.
    pub(super) crc: u32,
    /// When it was rotated, in ms, or is believed to have been.
    pub(super) order_millis: u64,
    /// Where it was last.
    pub(super) key: Option<FileKey>,
    /// More places with hashes of the bytes before them, to know a shorter copy by.
    pub(super) marks: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is expected of it.
    #[default]
    Reading,
    /// It was rotated and read to its end.
    Finished,
    /// It was there before the beginning; known by its head alone.
    Skipped,
}

/// A file that was seen, never read, and not seen any more: it may turn up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    /// Bytes of the head that are hashed.
    pub(super) head_len: usize,
    pub(super) head: u64,
    /// Where it was.
    pub(super) key: FileKey,
}

impl Awaited {
    pub(super) fn of(file: &Candidate) -> Self {
        Self {
            head_len: file.probe.head.len(),
            head: hash(&file.probe.head),
            key: file.key,
        }
    }

    /// Whether a file that begins so begins as it did.
    pub(super) fn is_head_of(&self, head: &[u8]) -> bool {
        head.get(..self.head_len).map(hash) == Some(self.head)
    }
}

impl Entry {
    /// Whether a file that begins so begins as it does.
    pub(super) fn is_head_of(&self, head: &[u8]) -> bool {
        head.get(..self.head_len).map(hash) == Some(self.head)
    }
}

/// So many files are awaited at most, so that they have room in every position.
pub(super) const MAX_AWAITED: usize = 2;

/// All that is known of a source's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Book {
    pub(super) entries: Vec<Entry>,
    /// At most [`MAX_AWAITED`].
    pub(super) awaited: Vec<Awaited>,
    /// A file that was rotated at this time or before and has no entry was read; entries that have no room
    /// end up here.
    pub(super) watermark_millis: u64,
}

impl Book {
    /// Makes room: the oldest entries become part of the watermark.
    pub(super) fn fit(&mut self, bytes: usize) {
        loop {
            let mut encoded = Vec::new();
            self.write(&mut encoded);
            if encoded.len() <= bytes {
                return;
            }
            let oldest = self
                .entries
                .iter()
                .enumerate()
                .filter(|(_, entry)| entry.progress != Progress::Reading)
                .min_by_key(|(_, entry)| entry.order_millis)
                .map(|(index, _)| index);
            if let Some(index) = oldest {
                let entry = self.entries.remove(index);
                self.watermark_millis = self.watermark_millis.max(entry.order_millis);
            } else if let Some(entry) = self.entries.iter_mut().find(|entry| !entry.marks.is_empty()) {
                entry.marks.clear();
            } else if !self.entries.is_empty() {
                self.entries.remove(0);
            } else {
                return;
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        push_number(out, self.watermark_millis);
        push_number(out, self.entries.len() as u64);
        for entry in &self.entries {
            let progress = match entry.progress {
                Progress::Reading => 0,
                Progress::Finished => 1,
                Progress::Skipped => 2,
            };
            out.push(progress | if entry.key.is_some() { HAS_KEY } else { 0 });
            push_word(out, entry.id);
            push_number(out, entry.head_len as u64);
            push_word(out, entry.head);
            push_number(out, entry.offset);
            push_word(out, entry.marker);
            out.extend_from_slice(&entry.crc.to_le_bytes());
            push_number(out, entry.order_millis);
            if let Some(key) = entry.key {
                push_key(out, key);
            }
            push_number(out, entry.marks.len() as u64);
            for (offset, hash) in &entry.marks {
                push_number(out, *offset);
                push_word(out, *hash);
            }
        }
        push_number(out, self.awaited.len() as u64);
        for file in &self.awaited {
            push_number(out, file.head_len as u64);
            push_word(out, file.head);
            push_key(out, file.key);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let watermark_millis = reader.number()?;
        let count = reader.number()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let bits = reader.byte()?;
            let progress = match bits & !HAS_KEY {
                0 => Progress::Reading,
                1 => Progress::Finished,
                2 => Progress::Skipped,
                _ => return None,
            };
            let id = reader.word()?;
            let head_len = usize::try_from(reader.number()?)
                .ok()
                .filter(|length| *length <= HEAD_BYTES)?;
            let mut entry = Entry {
                progress,
                id,
                head_len,
                head: reader.word()?,
                offset: reader.number()?,
                marker: reader.word()?,
                crc: u32::from_le_bytes(reader.array()?),
                order_millis: reader.number()?,
                key: None,
                marks: Vec::new(),
            };
            if bits & HAS_KEY != 0 {
                entry.key = Some(reader.key()?);
            }
            for _ in 0..reader.number()? {
                entry.marks.push((reader.number()?, reader.word()?));
            }
            if progress != Progress::Skipped && entry.offset < head_len as u64 {
                return None;
            }
            entries.push(entry);
        }
        let mut awaited = Vec::new();
        for _ in 0..reader.number()? {
            awaited.push(Awaited {
                head_len: usize::try_from(reader.number()?).ok()?,
                head: reader.word()?,
                key: reader.key()?,
            });
        }
        Some(Self {
            entries,
            awaited,
            watermark_millis,
        })
    }
}

const HAS_KEY: u8 = 4;

/// The books of all sources, by the hash of their path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Gaps that were handed over before it.
    pub(super) gaps: u64,
    pub(super) books: Vec<(u64, Book)>,
}

/// What a source may use of a position.
pub(super) const fn room(sources: usize) -> usize {
    let sources = if sources == 0 { 1 } else { sources };
    (MAX_POSITION_BYTES - 32) / sources - 8
}

impl Position {
    /// The books must [fit](Book::fit).
    pub(super) fn encode<'a>(gaps: u64, books: impl ExactSizeIterator<Item = (u64, &'a Book)>) -> Vec<u8> {
        let mut out = vec![VERSION];
        push_number(&mut out, gaps);
        push_number(&mut out, books.len() as u64);
        for (path, book) in books {
            push_word(&mut out, path);
            book.write(&mut out);
        }
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, PositionError> {
        if bytes.len() > MAX_POSITION_BYTES {
            return Err(PositionError::TooLarge(bytes.len()));
        }
        match bytes.first() {
            Some(&VERSION) => {}
            Some(other) => return Err(PositionError::Version(*other)),
            None => return Err(PositionError::Damaged),
        }
        let body = bytes
            .len()
            .checked_sub(4)
            .and_then(|length| bytes.split_at_checked(length));
        let Some((body, sum)) = body else {
            return Err(PositionError::Damaged);
        };
        if sum != crc32fast::hash(body).to_le_bytes() {
            return Err(PositionError::Damaged);
        }
        let mut reader = Reader {
            rest: body.get(1..).unwrap_or_default(),
        };
        Self::read(&mut reader)
            .filter(|_| reader.rest.is_empty())
            .ok_or(PositionError::Damaged)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let gaps = reader.number()?;
        let count = reader.number()?;
        let mut books = Vec::new();
        for _ in 0..count {
            books.push((reader.word()?, Book::read(reader)?));
        }
        Some(Self { gaps, books })
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn push_key(out: &mut Vec<u8>, key: FileKey) {
    for number in [key.device, key.inode, key.generation, key.born] {
        push_number(out, number);
    }
}

fn push_word(out: &mut Vec<u8>, word: u64) {
    out.extend_from_slice(&word.to_le_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn key(&mut self) -> Option<FileKey> {
        Some(FileKey {
            device: self.number()?,
            inode: self.number()?,
            generation: self.number()?,
            born: self.number()?,
        })
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

/// 64 bits of BLAKE3.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(bytes).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry {
            progress: Progress::Finished,
            id: number,
            head_len: 700,
            head: u64::MAX - number,
            offset: 1 << 40,
            marker: number << 3,
            crc: 7,
            order_millis: 1000 + number,
            key: Some(FileKey {
                device: 3,
                inode: number,
                generation: u64::from(u32::MAX),
                born: u64::MAX,
            }),
            marks: vec![(300, 4), (1200, u64::MAX)],
        }
    }

    fn awaited(number: u64) -> Awaited {
        Awaited {
            head_len: HEAD_BYTES,
            head: u64::MAX - number,
            key: FileKey {
                device: 3,
                inode: u64::from(u32::MAX),
                generation: u64::from(u32::MAX),
                born: u64::MAX,
            },
        }
    }

    #[test]
    fn a_position_is_read_back_and_every_changed_byte_is_noticed() {
        let book = Book {
            entries: (0..3).map(entry).collect(),
            awaited: vec![awaited(1), awaited(2)],
            watermark_millis: 12,
        };
        let bytes = Position::encode(5, [(1, &book), (u64::MAX, &Book::default())].into_iter());
        let back = Position::decode(&bytes).unwrap();
        assert_eq!(back.gaps, 5);
        assert_eq!(back.books, [(1, book), (u64::MAX, Book::default())]);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            assert!(Position::decode(&changed).is_err(), "{at}");
            assert!(Position::decode(&bytes[..at]).is_err(), "{at}");
        }
        assert_eq!(Position::decode(&[3, 0]), Err(PositionError::Version(3)));
        assert_eq!(
            Position::decode(&vec![1; 20_000]),
            Err(PositionError::TooLarge(20_000))
        );
    }

    #[test]
    fn a_book_makes_room_from_its_oldest_entries() {
        let mut book = Book {
            entries: (0..1000).rev().map(entry).collect(),
            awaited: (0..MAX_AWAITED as u64).map(awaited).collect(),
            watermark_millis: 0,
        };
        book.entries.push(Entry {
            progress: Progress::Reading,
            order_millis: 0,
            ..entry(5000)
        });
        book.fit(room(1));
        let bytes = Position::encode(0, [(1, &book)].into_iter());
        assert!(bytes.len() <= MAX_POSITION_BYTES);
        assert!(book.entries.len() > 100);
        assert!(book.entries.iter().any(|entry| entry.id == 5000));
        let oldest = book
            .entries
            .iter()
            .map(|entry| entry.order_millis)
            .filter(|time| *time > 0)
            .min();
        assert_eq!(oldest, Some(book.watermark_millis + 1));
        book.fit(room(MAX_SOURCES));
        let books: Vec<_> = (0..64).map(|path| (path, &book)).collect();
        assert!(Position::encode(u64::MAX, books.into_iter()).len() <= MAX_POSITION_BYTES);
    }
}
