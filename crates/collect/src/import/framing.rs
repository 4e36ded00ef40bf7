//! Chunks of a file as the body of a request.
//!
//! Numbers are little-endian. Every length is checked against what is there before it is believed, so that
//! reading takes no more memory than the body has.
//!
//! ```text
//! 4 bytes  "kai" and the version, 1
//! u8       form: 0 lines, 1 items of an EventList
//! u64      the file's id
//! u16      length of the file's path, then the path, UTF-8
//! entries until the end of the body, each beginning with its kind:
//!   1 line       u64 end offset, u32 length, bytes
//!   2 torn       u8 reason, u64 offset, u32 length, bytes
//!   3 oversized  u64 offset, u64 length of the line, 32 bytes BLAKE3 of it, u32 length, first bytes
//!   4 end        32 bytes BLAKE3 of the file's text, u64 its length; nothing follows
//! ```

use bytes::Bytes;

use crate::chunk::{Chunk, FileIdentity, Form, Line, OVERSIZED_HEAD_BYTES, Oversized, Torn, TornReason};
use crate::import::ImportIdentity;

/// A body is never longer: one event as large as it may be, about one chunk besides, and their places.
pub const MAX_IMPORT_BODY_BYTES: usize = kaudit_event::MAX_EVENT_BYTES + (16 << 20);

/// A path may be so long.
const MAX_PATH_BYTES: usize = 12 << 10;

const MAGIC: [u8; 4] = *b"kai\x01";
const LINE: u8 = 1;
const TORN: u8 = 2;
const OVERSIZED: u8 = 3;
const END: u8 = 4;

const REASONS: [(u8, TornReason); 4] = [
    (0, TornReason::NotObject),
    (1, TornReason::Cut),
    (2, TornReason::Unterminated),
    (3, TornReason::Overwritten),
];

/// A part of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what a body holds")]
pub struct ImportPart {
    /// What stands in it. Gaps, anomalies and the position are not carried.
    pub chunk: Chunk,
    /// What the whole file is; with the last part.
    pub end: Option<ImportIdentity>,
}

/// Why bytes are no part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// They begin as something else, or another version of kaudit made them.
    #[error("the body is no part of a file that this version of kaudit reads")]
    Magic,
    /// They end in the middle of something.
    #[error("the body ends in the middle of its {0}")]
    Cut(&'static str),
    /// Something is not what it can be.
    #[error("the body's {0} is not valid")]
    Invalid(&'static str),
}

impl ImportPart {
    /// The part as a body.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let chunk = &self.chunk;
        let mut out = Vec::with_capacity(chunk.buffer.len() + 16 * chunk.lines.len() + 512);
        out.extend_from_slice(&MAGIC);
        out.push(match chunk.form {
            Form::Lines => 0,
            Form::Items => 1,
        });
        out.extend_from_slice(&chunk.file.id.to_le_bytes());
        let path = cut(&chunk.file.path);
        out.extend_from_slice(&u16::try_from(path.len()).unwrap_or_default().to_le_bytes());
        out.extend_from_slice(path.as_bytes());
        for (text, line) in chunk.texts().zip(&chunk.lines) {
            out.push(LINE);
            out.extend_from_slice(&line.end_offset.to_le_bytes());
            push_text(&mut out, text);
        }
        for torn in &chunk.torn {
            let reason = REASONS.iter().find(|(_, reason)| *reason == torn.reason);
            out.push(TORN);
            out.push(reason.map_or(0, |(number, _)| *number));
            out.extend_from_slice(&torn.offset.to_le_bytes());
            push_text(&mut out, &torn.bytes);
        }
        for line in &chunk.oversized {
            out.push(OVERSIZED);
            out.extend_from_slice(&line.offset.to_le_bytes());
            out.extend_from_slice(&line.length.to_le_bytes());
            out.extend_from_slice(&line.hash);
            push_text(&mut out, &line.head);
        }
        if let Some(end) = &self.end {
            out.push(END);
            out.extend_from_slice(&end.hash);
            out.extend_from_slice(&end.length.to_le_bytes());
        }
        out
    }

    /// Reads a body. Its texts share the body's memory.
    ///
    /// # Errors
    ///
    /// [`FramingError`].
    pub fn from_body(body: &Bytes) -> Result<Self, FramingError> {
        let mut rest = Rest { body, at: 0 };
        if rest.array("beginning").ok() != Some(MAGIC) {
            return Err(FramingError::Magic);
        }
        let form = match rest.byte("form")? {
            0 => Form::Lines,
            1 => Form::Items,
            _ => return Err(FramingError::Invalid("form")),
        };
        let id = u64::from_le_bytes(rest.array("file")?);
        let length = usize::from(u16::from_le_bytes(rest.array("path")?));
        if length > MAX_PATH_BYTES {
            return Err(FramingError::Invalid("path"));
        }
        let path = rest.bytes(length, "path")?;
        let path = str::from_utf8(&path).map_err(|_| FramingError::Invalid("path"))?;
        let mut part = Self {
            chunk: Chunk {
                file: FileIdentity {
                    path: path.to_owned(),
                    name: path.rsplit('/').next().unwrap_or_default().to_owned(),
                    id,
                },
                form,
                buffer: body.clone(),
                ..Chunk::default()
            },
            end: None,
        };
        while rest.at < body.len() {
            rest.entry(&mut part)?;
        }
        Ok(part)
    }
}

/// As much of a path as may be told, up to a whole letter.
fn cut(path: &str) -> &str {
    let end = (0..=MAX_PATH_BYTES.min(path.len()))
        .rev()
        .find(|end| path.is_char_boundary(*end));
    path.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// A text is never longer than an event may be, which fits.
fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text);
}

struct Rest<'a> {
    body: &'a Bytes,
    at: usize,
}

impl Rest<'_> {
    fn entry(&mut self, part: &mut ImportPart) -> Result<(), FramingError> {
        match self.byte("entry")? {
            LINE => {
                let end_offset = self.number("line")?;
                let (start, end) = self.range("line")?;
                part.chunk.lines.push(Line {
                    start,
                    end,
                    end_offset,
                });
            }
            TORN => {
                let number = self.byte("reason")?;
                let reason = REASONS.iter().find(|(known, _)| *known == number);
                let (_, reason) = reason.ok_or(FramingError::Invalid("reason"))?;
                part.chunk.torn.push(Torn {
                    reason: *reason,
                    offset: self.number("torn line")?,
                    bytes: self.text("torn line")?,
                });
            }
            OVERSIZED => {
                let line = Oversized {
                    offset: self.number("oversized line")?,
                    length: self.number("oversized line")?,
                    hash: self.array("oversized line")?,
                    head: self.text("oversized line")?,
                };
                if line.head.len() > OVERSIZED_HEAD_BYTES {
                    return Err(FramingError::Invalid("oversized line"));
                }
                part.chunk.oversized.push(line);
            }
            END => {
                part.end = Some(ImportIdentity {
                    hash: self.array("end")?,
                    length: self.number("end")?,
                });
                if self.at < self.body.len() {
                    return Err(FramingError::Invalid("end"));
                }
            }
            _ => return Err(FramingError::Invalid("entry")),
        }
        Ok(())
    }

    /// Where the next bytes are, if there are so many.
    fn next(&mut self, length: usize, what: &'static str) -> Result<(usize, usize), FramingError> {
        let start = self.at;
        let end = start.checked_add(length).filter(|end| *end <= self.body.len());
        self.at = end.ok_or(FramingError::Cut(what))?;
        Ok((start, self.at))
    }

    fn bytes(&mut self, length: usize, what: &'static str) -> Result<Bytes, FramingError> {
        let (start, end) = self.next(length, what)?;
        Ok(self.body.slice(start..end))
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FramingError> {
        let (start, _) = self.next(N, what)?;
        let bytes = self.body.get(start..).and_then(<[u8]>::first_chunk::<N>);
        bytes.copied().ok_or(FramingError::Cut(what))
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, FramingError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn number(&mut self, what: &'static str) -> Result<u64, FramingError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn range(&mut self, what: &'static str) -> Result<(usize, usize), FramingError> {
        let length = u32::from_le_bytes(self.array(what)?);
        self.next(usize::try_from(length).unwrap_or(usize::MAX), what)
    }

    fn text(&mut self, what: &'static str) -> Result<Bytes, FramingError> {
        let (start, end) = self.range(what)?;
        Ok(self.body.slice(start..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> ImportPart {
        ImportPart {
            chunk: Chunk {
                file: FileIdentity {
                    path: "logs/ä.log".to_owned(),
                    name: "ä.log".to_owned(),
                    id: u64::MAX - 1,
                },
                form: Form::Items,
                buffer: Bytes::from_static(b"{\"a\":1}--{}"),
                lines: vec![
                    Line {
                        start: 0,
                        end: 7,
                        end_offset: 8,
                    },
                    Line {
                        start: 9,
                        end: 11,
                        end_offset: u64::MAX,
                    },
                ],
                torn: vec![Torn {
                    bytes: Bytes::from_static(b"\xff\0x"),
                    offset: 3,
                    reason: TornReason::Overwritten,
                }],
                oversized: vec![Oversized {
                    offset: 1,
                    length: 1 << 40,
                    head: Bytes::from_static(b"{\"kind"),
                    hash: [7; 32],
                }],
                ..Chunk::default()
            },
            end: Some(ImportIdentity {
                hash: [9; 32],
                length: 12,
            }),
        }
    }

    #[test]
    fn a_part_is_read_back_as_it_was() {
        let part = part();
        let read = ImportPart::from_body(&part.to_body().into()).unwrap();
        let texts = |part: &ImportPart| -> Vec<Vec<u8>> { part.chunk.texts().map(<[u8]>::to_vec).collect() };
        let offsets =
            |part: &ImportPart| -> Vec<u64> { part.chunk.lines.iter().map(|line| line.end_offset).collect() };
        assert_eq!(texts(&read), texts(&part));
        assert_eq!(offsets(&read), offsets(&part));
        assert_eq!(
            (&read.chunk.file, read.chunk.form),
            (&part.chunk.file, part.chunk.form)
        );
        assert_eq!(
            (&read.chunk.torn, &read.chunk.oversized),
            (&part.chunk.torn, &part.chunk.oversized)
        );
        assert_eq!(read.end, part.end);
        assert_eq!(
            ImportPart::from_body(&ImportPart::default().to_body().into())
                .unwrap()
                .end,
            None
        );
    }

    #[test]
    fn a_cut_body_is_never_read_beyond_its_end() {
        let body = part().to_body();
        let mut whole = 0;
        for end in 0..body.len() {
            // Between two entries a shorter body is one with fewer entries.
            whole += usize::from(ImportPart::from_body(&body[..end].to_vec().into()).is_ok());
        }
        assert_eq!(whole, 5);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let start = |rest: &[u8]| -> Bytes {
            [&MAGIC[..], &[0], &[0; 8], &1_u16.to_le_bytes(), b"x", rest]
                .concat()
                .into()
        };
        let huge = [&[LINE][..], &[0; 8], &u32::MAX.to_le_bytes(), b"{}"].concat();
        let behind_end = [&[END][..], &[0; 40], &[LINE]].concat();
        let head = vec![b'x'; OVERSIZED_HEAD_BYTES + 1];
        let length = u32::try_from(head.len()).unwrap().to_le_bytes();
        let oversized = [&[OVERSIZED][..], &[0; 48], &length, &head].concat();
        let table = [
            ("nothing", Bytes::new(), FramingError::Magic),
            (
                "another version",
                Bytes::from_static(b"kai\x02aaaaaaaaaaaaaaaaa"),
                FramingError::Magic,
            ),
            ("a length of 4 GiB", start(&huge), FramingError::Cut("line")),
            ("an unknown entry", start(&[9]), FramingError::Invalid("entry")),
            (
                "an unknown reason",
                start(&[TORN, 200]),
                FramingError::Invalid("reason"),
            ),
            (
                "something behind the end",
                start(&behind_end),
                FramingError::Invalid("end"),
            ),
            (
                "a long head",
                start(&oversized),
                FramingError::Invalid("oversized line"),
            ),
        ];
        for (name, body, error) in table {
            assert_eq!(ImportPart::from_body(&body), Err(error), "{name}");
        }
        let long = [
            &MAGIC[..],
            &[0],
            &[0; 8],
            &u16::MAX.to_le_bytes(),
            &[b'x'; 70_000],
        ]
        .concat();
        assert_eq!(
            ImportPart::from_body(&long.into()),
            Err(FramingError::Invalid("path"))
        );
    }

    #[test]
    fn a_path_that_is_too_long_is_cut_between_letters() {
        let mut part = part();
        part.chunk.file.path = "ä".repeat(10_000);
        let read = ImportPart::from_body(&part.to_body().into()).unwrap();
        assert_eq!(read.chunk.file.path.len(), MAX_PATH_BYTES);
    }
}
