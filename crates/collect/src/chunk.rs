//! What a reader of files hands over: whole lines, and all that was no line, each with its place.

use std::fmt;

use bytes::Bytes;

/// Lines of one file, in its order, and what stood between them. Nothing of the file is left out without
/// being here: bytes are a line, torn, oversized, or counted as an anomaly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk {
    /// The file all of it was read from.
    pub file: FileIdentity,
    /// Whether the lines have been lines before.
    pub form: Form,
    /// Holds the lines; between them may stand what is none.
    pub buffer: Bytes,
    /// Whole lines, without LF and without blanks around them. Each begins and ends as a JSON object does;
    /// whether it is an event is for the decoder to say, and [`lines::resync`](crate::lines::resync) to
    /// mend.
    pub lines: Vec<Line>,
    /// Pieces that are no JSON object, for quarantine.
    pub torn: Vec<Torn>,
    /// Lines longer than the limit.
    pub oversized: Vec<Oversized>,
    /// Files, or parts of them, that were gone before they were read.
    pub gaps: Vec<Gap>,
    /// Counted in this chunk alone.
    pub anomalies: Anomalies,
    /// What [`Tail::open`](crate::Tail::open) and [`Tail::rewind`](crate::Tail::rewind) take to go on after
    /// this chunk; at most [`MAX_POSITION_BYTES`](crate::MAX_POSITION_BYTES). Empty from an import.
    pub position: Vec<u8>,
}

impl Chunk {
    /// The lines as they stand.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.lines
            .iter()
            .map(|line| self.buffer.get(line.start..line.end).unwrap_or_default())
    }

    /// The lines, sharing the chunk's memory.
    pub fn events(&self) -> impl Iterator<Item = (Bytes, &Line)> {
        self.lines.iter().map(|line| {
            let is_inside = line.start <= line.end && line.end <= self.buffer.len();
            let text = if is_inside {
                self.buffer.slice(line.start..line.end)
            } else {
                Bytes::new()
            };
            (text, line)
        })
    }

    /// Whether there is nothing that must be kept: a chunk may only carry the position on.
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.torn.is_empty() && self.oversized.is_empty() && self.gaps.is_empty()
    }
}

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a range and an offset")]
pub struct Line {
    /// First byte in the chunk's buffer.
    pub start: usize,
    /// Behind its last byte in the chunk's buffer.
    pub end: usize,
    /// Where reading goes on after it: bytes from the beginning of the file, uncompressed.
    pub end_offset: u64,
}

/// How the events of a chunk stood in their file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a line or an item, nothing between")]
pub enum Form {
    /// As lines: `kind` and `apiVersion` belong to each.
    #[default]
    Lines,
    /// As items of an EventList, where they have neither.
    Items,
}

/// Bytes that are no JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// As they stand.
    pub bytes: Bytes,
    /// Of the first of them in the uncompressed file.
    pub offset: u64,
    /// What is wrong with them.
    pub reason: TornReason,
}

/// Why bytes are no event line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TornReason {
    /// They do not begin as an object does.
    #[error("does not begin as a JSON object")]
    NotObject,
    /// The object does not end.
    #[error("the JSON object does not end")]
    Cut,
    /// The file ended before the line did.
    #[error("the file ends in the middle of the line")]
    Unterminated,
    /// A hole or the next event stands where the line should go on.
    #[error("another event or a hole stands in the middle of the line")]
    Overwritten,
}

/// A line that is longer than the limit. It was read through in bounded memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Oversized {
    /// Of its first byte in the uncompressed file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Its first bytes, at most [`OVERSIZED_HEAD_BYTES`].
    pub head: Bytes,
    /// BLAKE3 of the whole line.
    pub hash: [u8; 32],
}

/// What is kept of a line that is too long.
pub const OVERSIZED_HEAD_BYTES: usize = 64 << 10;

/// Something was, or may have been, lost before it could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The file, as it was last called.
    pub file: String,
    /// From where on it is missing: uncompressed bytes from the beginning.
    pub offset: u64,
    /// What happened.
    pub reason: GapReason,
}

/// Why something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum GapReason {
    /// A rotated file that was seen was removed before it was read.
    #[error("the file was removed before it was read")]
    Removed,
    /// The file that was being read is not there any more, in whatever form.
    #[error("the rest of the file that was being read cannot be found")]
    RestNotFound,
    /// No file that was read is left, so others between them and the oldest one may have come and gone.
    #[error("files may have come and gone while nothing was read")]
    ChainBroken,
    /// The file was emptied by somebody else and no copy of it has what was not read yet.
    #[error("the file was emptied and there is no copy of it")]
    Emptied,
    /// A compressed file cannot be read to its end.
    #[error("the compressed file is damaged or not complete")]
    Damaged,
}

/// What was met and passed over, or says that somebody interferes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Anomalies {
    /// Runs of NUL bytes: holes that an emptied file leaves under a writer that does not append.
    pub holes: u64,
    /// NUL bytes in them.
    pub hole_bytes: u64,
    /// Torn pieces.
    pub torn_lines: u64,
    /// Signs of a second writer: an event that begins inside another, bytes that changed after they were
    /// read.
    pub interleavings: u64,
    /// Times the file was emptied in place.
    pub copytruncates: u64,
    /// Times another file took the path.
    pub rotations: u64,
    /// Lines longer than the limit.
    pub oversized_lines: u64,
}

impl Anomalies {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.holes += other.holes;
        self.hole_bytes += other.hole_bytes;
        self.torn_lines += other.torn_lines;
        self.interleavings += other.interleavings;
        self.copytruncates += other.copytruncates;
        self.rotations += other.rotations;
        self.oversized_lines += other.oversized_lines;
    }
}

/// Tells a file from those that had its name before; stays with it when it is renamed or compressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FileIdentity {
    /// The source's path: the active file, or the file that is imported.
    pub path: String,
    /// Its name when it was read.
    pub name: String,
    /// Of what it begins with and of its inode.
    pub id: u64,
}

impl fmt::Display for FileIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:016x}", self.path, self.id)
    }
}
