//! Requests made of what is read from the journal.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use kaudit_journal::{Gap, GapReason, Item, ReadError, Reader, Seq};

use super::wire::FrameWriter;

/// A part of the disk that cannot be read is given up after so many tries.
const READ_TRIES: u32 = 10;

/// What compresses better than this is sent as it is: the other side takes it for an attack.
const MAX_RATIO: usize = 50;

/// A request.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) body: Bytes,
    pub(super) is_gzip: bool,
    pub(super) records: u64,
    /// Numbers in gaps.
    pub(super) gap_records: u64,
    /// The first number that is not in it.
    pub(super) next: Seq,
}

/// Reads the journal in order and makes requests of it.
#[derive(Debug)]
pub(super) struct Outlet {
    reader: Reader,
    /// A record that did not fit into the request before.
    held: Option<(Seq, Bytes)>,
    max_records: u32,
    max_bytes: usize,
    gzip: bool,
    failures: u32,
}

impl Outlet {
    pub(super) fn new(reader: Reader, max_records: u32, max_bytes: usize, gzip: bool) -> Self {
        Self {
            reader,
            held: None,
            max_records: max_records.max(1),
            max_bytes,
            gzip,
            failures: 0,
        }
    }

    /// The next request; `None` at the end of what is durable. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the disk cannot be read. After some tries what cannot be read becomes a gap.
    pub(super) fn next(&mut self) -> Result<Option<Outgoing>, ReadError> {
        let mut writer = FrameWriter::new();
        let (mut records, mut gap_records) = (0, 0);
        let mut next = None;
        while writer.frames() < self.max_records {
            let (seq, payload) = match self.held.take() {
                Some(held) => held,
                None => match self.reader.next() {
                    Ok(Some(Item::Record { seq, payload, .. })) => (seq, payload),
                    Ok(Some(Item::Gap(gap))) => {
                        writer.gap(gap);
                        gap_records += gap.to.since(gap.from);
                        continue;
                    }
                    Ok(Some(_)) => continue,
                    Ok(None) => break,
                    // What was read before it is sent first.
                    Err(_) if writer.frames() > 0 => break,
                    Err(error) => {
                        self.failures += 1;
                        if self.failures >= READ_TRIES {
                            self.failures = 0;
                            self.reader.skip_unreadable();
                        }
                        return Err(error);
                    }
                },
            };
            self.failures = 0;
            if writer.frames() > 0 && writer.bytes().saturating_add(payload.len()) > self.max_bytes {
                next = Some(seq);
                self.held = Some((seq, payload));
                break;
            }
            if writer.record(seq, &payload) {
                records += 1;
            } else {
                writer.gap(Gap {
                    from: seq,
                    to: seq.plus(1),
                    reason: GapReason::Corrupt,
                });
                gap_records += 1;
            }
        }
        if writer.frames() == 0 {
            return Ok(None);
        }
        let (body, is_gzip) = coded(writer.finish(), self.gzip);
        Ok(Some(Outgoing {
            body,
            is_gzip,
            records,
            gap_records,
            next: next.unwrap_or_else(|| self.reader.position()),
        }))
    }
}

/// The body, compressed if that is wanted and worth it.
fn coded(body: Vec<u8>, gzip: bool) -> (Bytes, bool) {
    if gzip {
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
        let written = encoder.write_all(&body);
        if let Ok(compressed) = written.and_then(|()| encoder.finish())
            && compressed.len() < body.len()
            && body.len() / compressed.len().max(1) <= MAX_RATIO
        {
            return (Bytes::from(compressed), true);
        }
    }
    (Bytes::from(body), false)
}
