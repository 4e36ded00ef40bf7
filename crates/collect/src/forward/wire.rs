//! Records and gaps as they travel from one kaudit to another.
//!
//! The body of `POST /v1/forward`, after its content coding is undone; numbers little-endian:
//!
//! ```text
//! 8 bytes  "kaudfwd" and the version (1)
//! frames   u8 kind, u32 length, as many bytes:
//!   1 record  the envelope of `kaudit_event::record` with its event; its number is that of the edge's journal
//!   2 gap     u64 first number, u64 first number after it, u8 why (1 corrupt, 2 expired, 3 missing):
//!             records that the edge cannot read any more
//!   3 end     u32 frames before this one; nothing follows
//! ```
//!
//! A length is looked at before anything is allocated for it. A body without its end was cut.

use bytes::{Buf as _, Bytes, BytesMut};
use kaudit_event::record::{self, MAX_RECORD_BYTES};
use kaudit_journal::{Gap, GapReason, Seq};

/// The media type of the body.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kaudit.forward";

/// The header that names the edge.
pub(crate) const EDGE_HEADER: &str = "kaudit-edge";

const MAGIC: &[u8; 8] = b"kaudfwd\x01";
const FRAME_HEAD_BYTES: usize = 5;
const RECORD: u8 = 1;
const GAP: u8 = 2;
const END: u8 = 3;
const GAP_BYTES: usize = 17;
const END_BYTES: usize = 4;

/// Writes a body.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    bytes: Vec<u8>,
    frames: u32,
}

impl FrameWriter {
    pub(crate) fn new() -> Self {
        Self {
            bytes: MAGIC.to_vec(),
            frames: 0,
        }
    }

    pub(crate) const fn frames(&self) -> u32 {
        self.frames
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record as it stands in the journal at `seq`; `false`, and nothing is added, if it is larger than
    /// a record may be.
    pub(crate) fn record(&mut self, seq: Seq, payload: &[u8]) -> bool {
        if payload.len() > MAX_RECORD_BYTES {
            return false;
        }
        self.head(RECORD, payload.len());
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        if let Some(record) = self.bytes.get_mut(start..) {
            record::number(record, seq.get());
        }
        true
    }

    pub(crate) fn gap(&mut self, gap: Gap) {
        self.head(GAP, GAP_BYTES);
        self.bytes.extend_from_slice(&gap.from.get().to_le_bytes());
        self.bytes.extend_from_slice(&gap.to.get().to_le_bytes());
        self.bytes.push(match gap.reason {
            GapReason::Corrupt => 1,
            GapReason::Expired => 2,
            _ => 3,
        });
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let frames = self.frames;
        self.head(END, END_BYTES);
        self.bytes.extend_from_slice(&frames.to_le_bytes());
        self.bytes
    }

    fn head(&mut self, kind: u8, length: usize) {
        self.bytes.push(kind);
        // No frame is longer than a record may be.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.frames += 1;
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A record's bytes.
    Record(Bytes),
    /// Records that are gone.
    Gap(Gap),
}

/// Why a body is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the body is no stream of records, or of a version that is not known here")]
    Magic,
    #[error("a frame of kind {kind} has {length} bytes")]
    Frame { kind: u8, length: u32 },
    #[error("a gap ends before it begins")]
    Gap,
    #[error("the body has {frames} frames and says that it has {said}")]
    Count { frames: u32, said: u32 },
    #[error("there is something behind the end")]
    Behind,
    #[error("the body ends before its end")]
    Cut,
}

/// Reads a body whose bytes come in pieces. It holds one frame and the piece that came last.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    bytes: BytesMut,
    has_begun: bool,
    has_ended: bool,
    frames: u32,
}

impl FrameReader {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// The next frame, or `None` when more bytes are needed or the end was read.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, WireError> {
        if !self.has_begun {
            let Some(magic) = self.bytes.get(..MAGIC.len()) else {
                return Ok(None);
            };
            if magic != MAGIC {
                return Err(WireError::Magic);
            }
            self.bytes.advance(MAGIC.len());
            self.has_begun = true;
        }
        if self.has_ended {
            return if self.bytes.is_empty() {
                Ok(None)
            } else {
                Err(WireError::Behind)
            };
        }
        let Some(&[kind, a, b, c, d]) = self.bytes.first_chunk::<FRAME_HEAD_BYTES>() else {
            return Ok(None);
        };
        let said = u32::from_le_bytes([a, b, c, d]);
        let length = usize::try_from(said).unwrap_or(usize::MAX);
        let is_valid = match kind {
            RECORD => length <= MAX_RECORD_BYTES,
            GAP => length == GAP_BYTES,
            END => length == END_BYTES,
            _ => false,
        };
        if !is_valid {
            return Err(WireError::Frame { kind, length: said });
        }
        if self.bytes.len() - FRAME_HEAD_BYTES < length {
            return Ok(None);
        }
        self.bytes.advance(FRAME_HEAD_BYTES);
        let mut payload = self.bytes.split_to(length).freeze();
        match kind {
            RECORD => {
                self.frames = self.frames.saturating_add(1);
                Ok(Some(Frame::Record(payload)))
            }
            GAP => {
                self.frames = self.frames.saturating_add(1);
                let (from, to) = (payload.get_u64_le(), payload.get_u64_le());
                let reason = match payload.get_u8() {
                    1 => GapReason::Corrupt,
                    2 => GapReason::Expired,
                    _ => GapReason::Missing,
                };
                if from >= to {
                    return Err(WireError::Gap);
                }
                Ok(Some(Frame::Gap(Gap {
                    from: Seq::new(from),
                    to: Seq::new(to),
                    reason,
                })))
            }
            _ => {
                let said = payload.get_u32_le();
                if said != self.frames {
                    return Err(WireError::Count {
                        frames: self.frames,
                        said,
                    });
                }
                self.has_ended = true;
                self.next()
            }
        }
    }

    /// Says that all bytes came.
    pub(crate) fn finish(&self) -> Result<(), WireError> {
        if self.has_ended && self.bytes.is_empty() {
            Ok(())
        } else {
            Err(WireError::Cut)
        }
    }
}

#[cfg(test)]
mod tests {
    use kaudit_event::record::{Record, Transport};

    use super::*;

    fn record(seq: u64) -> Vec<u8> {
        let record = Record {
            cluster: "c".to_owned(),
            source: "webhook".to_owned(),
            instance: "i".to_owned(),
            seq,
            received_micros: 5,
            transport: Transport::Webhook,
            tail: None,
            matched_rule: None,
            event: Bytes::from_static(b"{}"),
        };
        let mut bytes = Vec::new();
        record.write(&mut bytes).unwrap();
        bytes
    }

    const HOLE: Gap = Gap {
        from: Seq::new(7),
        to: Seq::new(u64::MAX),
        reason: GapReason::Expired,
    };

    fn body() -> Vec<u8> {
        let mut writer = FrameWriter::new();
        assert!(writer.record(Seq::new(6), &record(0)));
        writer.gap(HOLE);
        assert!(writer.record(Seq::new(8), &record(3)));
        writer.finish()
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<Frame>, WireError> {
        let mut reader = FrameReader::default();
        let mut frames = Vec::new();
        for piece in pieces {
            reader.push(piece);
            while let Some(frame) = reader.next()? {
                frames.push(frame);
            }
        }
        reader.finish()?;
        Ok(frames)
    }

    #[test]
    fn frames_are_read_however_they_are_cut_with_the_numbers_of_the_edge() {
        let body = body();
        let expected = vec![
            Frame::Record(Bytes::from(record(6))),
            Frame::Gap(HOLE),
            // It came with a number from an edge before this one.
            Frame::Record(Bytes::from(record(3))),
        ];
        for cut in 0..=body.len() {
            let (first, second) = body.split_at(cut);
            assert_eq!(read(&[first, second]).as_ref(), Ok(&expected));
            let cut_off = read(&[first]);
            assert_eq!(cut_off.is_ok(), cut == body.len());
        }
    }

    #[test]
    fn what_is_no_body_is_refused_before_it_is_held() {
        assert_eq!(read(&[b"kaudfwd\x02"]), Err(WireError::Magic));
        let large = u32::try_from(MAX_RECORD_BYTES + 1).unwrap();
        for (kind, length) in [
            (RECORD, large),
            (RECORD, u32::MAX),
            (GAP, 16),
            (END, 5),
            (0, 0),
            (4, 1),
        ] {
            let mut body = MAGIC.to_vec();
            body.push(kind);
            body.extend_from_slice(&length.to_le_bytes());
            assert_eq!(read(&[&body]), Err(WireError::Frame { kind, length }));
        }
        let body = body();
        assert_eq!(read(&[&body, b"x"]), Err(WireError::Behind));
        let mut short = body.clone();
        let count = short.len() - 4;
        short[count] = 2;
        assert_eq!(read(&[&short]), Err(WireError::Count { frames: 3, said: 2 }));
        let mut backwards = FrameWriter::new();
        backwards.gap(Gap {
            to: HOLE.from,
            ..HOLE
        });
        assert_eq!(read(&[&backwards.finish()]), Err(WireError::Gap));
    }

    #[test]
    fn a_record_that_is_too_large_is_not_written() {
        let mut writer = FrameWriter::new();
        assert!(!writer.record(Seq::FIRST, &vec![0; MAX_RECORD_BYTES + 1]));
        assert_eq!(writer.frames(), 0);
    }
}
