//! The envelope of an event in the journal.
//!
//! Layout, version 1, numbers little-endian, lengths of texts as LEB128:
//!
//! ```text
//! u8   version (1)
//! u8   transport (0 gateway, 1 webhook, 2 file, 3 forward, 4 own)
//! u64  sequence number
//! i64  received, microseconds since 1970 in UTC
//! text cluster, source, instance
//! u8   bits: 1 tail position follows, 2 matched rule follows
//! [text file identity, u64 offset]
//! [u32 rule]
//! rest the event's bytes
//! ```

use bytes::Bytes;

/// What is known about an event beside the event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the codec writes each field")]
pub struct Record {
    /// The cluster it is about.
    pub cluster: String,
    /// Where it was collected, for example a file's or receiver's name.
    pub source: String,
    /// The apiserver it comes from.
    pub instance: String,
    /// Its number in the journal of the kaudit that collected it. 0 in that journal itself, which numbers
    /// its records.
    pub seq: u64,
    /// When it was taken in, microseconds since 1970 in UTC.
    pub received_micros: i64,
    /// How it came.
    pub transport: Transport,
    /// Where it ended in the file it was read from.
    pub tail: Option<TailPosition>,
    /// The policy rule that decided its level, where kaudit produced it.
    pub matched_rule: Option<u32>,
    /// The event as it was received.
    pub event: Bytes,
}

/// How an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the codec writes each")]
pub enum Transport {
    /// Made by the gateway of this process.
    Gateway,
    /// By an audit webhook.
    Webhook,
    /// From a log file.
    File,
    /// From another kaudit.
    Forward,
    /// Made by this process about requests to its own API.
    Own,
}

/// A position in a file that may rotate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "identity and offset")]
pub struct TailPosition {
    /// Tells the file from those that had its name before.
    pub file: String,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// A record may be this large.
pub const MAX_RECORD_BYTES: usize = crate::decode::MAX_EVENT_BYTES + (1 << 16);

/// Texts of a record may be this large.
const MAX_TEXT_BYTES: usize = 1 << 14;

const VERSION: u8 = 1;
const HAS_TAIL: u8 = 1;
const HAS_RULE: u8 = 2;

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// They end too early.
    #[error("the record ends in its {0}")]
    Cut(&'static str),
    /// They are of a version that is not known.
    #[error("the record has version {0}, known is {VERSION}")]
    Version(u8),
    /// A field holds what it cannot hold.
    #[error("the record's {0} is not valid")]
    Invalid(&'static str),
    /// There are too many.
    #[error("the record has {0} bytes, more than {MAX_RECORD_BYTES}")]
    TooLarge(usize),
}

/// A record without its event, borrowed: what a writer has at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the codec writes each field")]
pub struct RecordHead<'a> {
    /// As in [`Record`].
    pub cluster: &'a str,
    /// As in [`Record`].
    pub source: &'a str,
    /// As in [`Record`].
    pub instance: &'a str,
    /// As in [`Record`].
    pub seq: u64,
    /// As in [`Record`].
    pub received_micros: i64,
    /// As in [`Record`].
    pub transport: Transport,
    /// As in [`Record`]: the file's identity and the offset.
    pub tail: Option<(&'a str, u64)>,
    /// As in [`Record`].
    pub matched_rule: Option<u32>,
}

impl Record {
    /// What stands before the event.
    #[must_use]
    pub fn head(&self) -> RecordHead<'_> {
        RecordHead {
            cluster: &self.cluster,
            source: &self.source,
            instance: &self.instance,
            seq: self.seq,
            received_micros: self.received_micros,
            transport: self.transport,
            tail: self.tail.as_ref().map(|tail| (tail.file.as_str(), tail.offset)),
            matched_rule: self.matched_rule,
        }
    }

    /// Appends the record. Texts beyond 16 KiB are refused before anything is written.
    ///
    /// # Errors
    ///
    /// [`RecordError::Invalid`] and [`RecordError::TooLarge`].
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        if self.event.len() > crate::decode::MAX_EVENT_BYTES {
            return Err(RecordError::TooLarge(self.event.len()));
        }
        self.head().write(out)?;
        out.extend_from_slice(&self.event);
        Ok(())
    }
}

impl RecordHead<'_> {
    /// Appends the head; the event's bytes follow it. Texts beyond 16 KiB are refused before anything is
    /// written.
    ///
    /// # Errors
    ///
    /// [`RecordError::Invalid`].
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let texts = [
            ("cluster", self.cluster),
            ("source", self.source),
            ("instance", self.instance),
        ];
        let file = self.tail.map(|(file, _)| ("file identity", file));
        if let Some((name, _)) = texts
            .iter()
            .chain(&file)
            .find(|(_, text)| text.len() > MAX_TEXT_BYTES)
        {
            return Err(RecordError::Invalid(name));
        }
        out.push(VERSION);
        out.push(match self.transport {
            Transport::Gateway => 0,
            Transport::Own => 4,
            Transport::Webhook => 1,
            Transport::File => 2,
            Transport::Forward => 3,
        });
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.received_micros.to_le_bytes());
        for (_, text) in texts {
            push_text(out, text);
        }
        let bits = if self.tail.is_some() { HAS_TAIL } else { 0 };
        out.push(bits | if self.matched_rule.is_some() { HAS_RULE } else { 0 });
        if let Some((file, offset)) = self.tail {
            push_text(out, file);
            out.extend_from_slice(&offset.to_le_bytes());
        }
        if let Some(rule) = self.matched_rule {
            out.extend_from_slice(&rule.to_le_bytes());
        }
        Ok(())
    }
}

impl Record {
    /// Reads one record; its event shares the bytes.
    ///
    /// # Errors
    ///
    /// [`RecordError`] for bytes that no record has.
    pub fn read(bytes: &Bytes) -> Result<Self, RecordError> {
        let (head, event) = RecordHead::read(bytes)?;
        Ok(Self {
            cluster: head.cluster.to_owned(),
            source: head.source.to_owned(),
            instance: head.instance.to_owned(),
            seq: head.seq,
            received_micros: head.received_micros,
            transport: head.transport,
            tail: head.tail.map(|(file, offset)| TailPosition {
                file: file.to_owned(),
                offset,
            }),
            matched_rule: head.matched_rule,
            event: bytes.slice_ref(event),
        })
    }
}

impl<'a> RecordHead<'a> {
    /// Reads what stands before the event of a record, and the event's bytes.
    ///
    /// # Errors
    ///
    /// [`RecordError`] for bytes that no record has.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLarge(bytes.len()));
        }
        let mut reader = Reader { rest: bytes };
        let version = reader.byte("version")?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let transport = match reader.byte("transport")? {
            0 => Transport::Gateway,
            4 => Transport::Own,
            1 => Transport::Webhook,
            2 => Transport::File,
            3 => Transport::Forward,
            _ => return Err(RecordError::Invalid("transport")),
        };
        let seq = u64::from_le_bytes(reader.array("sequence number")?);
        let received_micros = i64::from_le_bytes(reader.array("received time")?);
        let cluster = reader.text("cluster")?;
        let source = reader.text("source")?;
        let instance = reader.text("instance")?;
        let bits = reader.byte("bits")?;
        if bits & !(HAS_TAIL | HAS_RULE) != 0 {
            return Err(RecordError::Invalid("bits"));
        }
        let tail = if bits & HAS_TAIL == 0 {
            None
        } else {
            let file = reader.text("file identity")?;
            Some((file, u64::from_le_bytes(reader.array("offset")?)))
        };
        let matched_rule = if bits & HAS_RULE == 0 {
            None
        } else {
            Some(u32::from_le_bytes(reader.array("rule")?))
        };
        let head = Self {
            cluster,
            source,
            instance,
            seq,
            received_micros,
            transport,
            tail,
            matched_rule,
        };
        Ok((head, reader.rest))
    }
}

/// Gives a record that was written the number that it has in its journal, unless it came with one from
/// another journal. Bytes that are no record stay as they are.
pub fn number(record: &mut [u8], seq: u64) {
    if record.first() == Some(&VERSION)
        && let Some(field) = record.get_mut(2..10)
        && field == [0; 8]
    {
        field.copy_from_slice(&seq.to_le_bytes());
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or_default());
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(RecordError::Cut(what))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, RecordError> {
        let (byte, rest) = self.rest.split_first().ok_or(RecordError::Cut(what))?;
        self.rest = rest;
        Ok(*byte)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordError> {
        let bytes = self.take(N, what)?;
        bytes.try_into().map_err(|_| RecordError::Cut(what))
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, RecordError> {
        let mut length = 0_usize;
        for shift in (0..21).step_by(7) {
            let byte = self.byte(what)?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if length > MAX_TEXT_BYTES {
                    return Err(RecordError::Invalid(what));
                }
                let bytes = self.take(length, what)?;
                return std::str::from_utf8(bytes).map_err(|_| RecordError::Invalid(what));
            }
        }
        Err(RecordError::Invalid(what))
    }
}
