//! A segment: its name, its header, and what stands in it frame by frame.

mod scan;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Seq;
use crate::filesystem::FileHandle;
use crate::format::{COPY_AT, HEADER_BYTES, SegmentHeader};

pub(crate) use scan::{BLOCK, Scan, Step};

/// How often a read that failed is tried before it counts as failed.
pub(crate) const READ_TRIES: usize = 3;

/// A file of records. The one after it in the list says where its numbers end.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Number of the first record.
    pub(crate) first: Seq,
    pub(crate) path: PathBuf,
    /// `None` when both copies of the header are damaged: then nothing in it can be read.
    pub(crate) header: Option<SegmentHeader>,
    /// Bytes that hold durable frames.
    end: AtomicU64,
    /// Bytes that the file takes.
    bytes: AtomicU64,
}

impl Segment {
    pub(crate) const fn new(
        first: Seq,
        path: PathBuf,
        header: Option<SegmentHeader>,
        end: u64,
        bytes: u64,
    ) -> Self {
        Self {
            first,
            path,
            header,
            end: AtomicU64::new(end),
            bytes: AtomicU64::new(bytes),
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// `seg-00000000000000000001.kaj`
pub(crate) fn path(dir: &Path, first: Seq) -> PathBuf {
    dir.join(format!("seg-{:020}.kaj", first.get()))
}

/// The number in a segment's name.
pub(crate) fn first_of(name: &str) -> Option<Seq> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(".kaj")?;
    let is_number = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let first = is_number.then(|| digits.parse().ok()).flatten()?;
    (first > 0 && first < u64::MAX).then_some(Seq::new(first))
}

/// The header of a segment that begins with record `first`, from whichever copy is whole.
///
/// # Errors
///
/// A read that failed again and again while the other copy was of no use.
pub(crate) fn read_header(file: &dyn FileHandle, first: Seq) -> io::Result<Option<SegmentHeader>> {
    let mut failed = None;
    for at in [0, COPY_AT] {
        let mut bytes = [0; HEADER_BYTES];
        match read_full(file, &mut bytes, at) {
            Ok(_) => match SegmentHeader::decode(&bytes) {
                Some(header) if header.first == first => return Ok(Some(header)),
                _ => {}
            },
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Reads until `buffer` is full or the file ends; returns how much was read.
pub(crate) fn read_full(file: &dyn FileHandle, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    let mut tries = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) => {
                tries += 1;
                if tries >= READ_TRIES {
                    return Err(error);
                }
            }
        }
    }
    Ok(done)
}

/// Writes all of `parts` one after the other; returns how many bytes that were.
pub(crate) fn write_all(file: &dyn FileHandle, parts: &[&[u8]], offset: u64) -> io::Result<u64> {
    let mut slices: Vec<_> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    let mut at = offset;
    io::IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let written = file.write_at(rest, at)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        at += written as u64;
        io::IoSlice::advance_slices(&mut rest, written);
    }
    Ok(at - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_the_first_number_at_full_width() {
        for first in [1, u64::from(u32::MAX) + 1, u64::MAX - 1] {
            let path = path(Path::new("d"), Seq::new(first));
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            assert_eq!(first_of(name), Some(Seq::new(first)));
        }
        for name in [
            "seg-1.kaj",
            "seg-00000000000000000000.kaj",
            "seg-18446744073709551615.kaj",
            "seg-99999999999999999999.kaj",
            "seg-0000000000000000000x.kaj",
            "seg-00000000000000000001.kaj.tmp",
            "LOCK",
        ] {
            assert_eq!(first_of(name), None, "{name}");
        }
    }
}
