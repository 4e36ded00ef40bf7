//! Decompression that cannot be made to exhaust anything: streamed, bounded in size and in ratio, and
//! checked to its trailer.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// How much may come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the three numbers of a bound")]
pub struct Limits {
    /// Largest output in bytes.
    pub max_bytes: u64,
    /// Output beyond `free_bytes` may be this many times the input. Audit logs shrink 20 to 40 times.
    pub max_ratio: u64,
    /// Output that is not held against the ratio.
    pub free_bytes: u64,
}

impl Limits {
    /// For the body of a request: 100 times beyond the first MiB.
    pub const fn body(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            max_ratio: 100,
            free_bytes: 1 << 20,
        }
    }

    /// None. For files that are streamed in bounded memory and come from a trusted writer, where a body
    /// that a client made to shrink well must not cost its neighbours.
    pub const fn none() -> Self {
        Self {
            max_bytes: u64::MAX,
            max_ratio: u64::MAX,
            free_bytes: u64::MAX,
        }
    }
}

/// Why a stream cannot be read on. It comes as the inner error of an [`io::Error`] of kind `InvalidData`
/// or `UnexpectedEof`; [`InflateError::of`] finds it there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InflateError {
    /// More comes out than allowed.
    #[error("more than {0} bytes come out of it")]
    TooLarge(u64),
    /// It grows too much.
    #[error("it grows more than {max_ratio} times beyond its first {free_bytes} bytes")]
    Ratio {
        /// The limit.
        max_ratio: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// It ends before its trailer.
    #[error("the compressed data ends too early")]
    Incomplete,
    /// It is damaged: its parts, its checksum or its length.
    #[error("the compressed data is damaged: {0}")]
    Damaged(String),
    /// Something else follows it.
    #[error("something that is not compressed follows the compressed data")]
    TrailingBytes,
}

impl InflateError {
    /// The reason in an error that [`Bounded`] gave.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<InflateError> for io::Error {
    fn from(error: InflateError) -> Self {
        let kind = match error {
            InflateError::Incomplete => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Reads what is inside a compressed stream, within [`Limits`]. All members of a gzip file, all frames of
/// a zstd file; zeros behind them are padding, anything else is an error. An error repeats.
pub struct Bounded<R> {
    decoder: Decoder<R>,
    limits: Limits,
    produced: u64,
    failed: Option<InflateError>,
}

enum Decoder<R> {
    Gzip(Option<GzDecoder<Counted<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Counted<R>>>),
}

const INPUT_BYTES: usize = 64 << 10;

/// The largest window that a zstd stream may ask for: 128 MiB, as the `zstd` tool allows.
const ZSTD_WINDOW_LOG: u32 = 27;

impl<R: Read> Bounded<R> {
    /// One or more gzip members. Nothing is read before the first byte is asked for.
    pub fn gzip(reader: R, limits: Limits) -> Self {
        Self {
            decoder: Decoder::Gzip(Some(GzDecoder::new(Counted::new(reader)))),
            limits,
            produced: 0,
            failed: None,
        }
    }

    /// One or more zstd frames, with windows of at most 128 MiB.
    ///
    /// # Errors
    ///
    /// When there is no memory for a decoder.
    pub fn zstd(reader: R, limits: Limits) -> io::Result<Self> {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(Counted::new(reader))?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Ok(Self {
            decoder: Decoder::Zstd(Box::new(decoder)),
            limits,
            produced: 0,
            failed: None,
        })
    }

    /// Compressed bytes taken from the reader so far.
    pub fn consumed(&self) -> u64 {
        match &self.decoder {
            Decoder::Gzip(Some(decoder)) => decoder.get_ref().consumed,
            Decoder::Gzip(None) => 0,
            Decoder::Zstd(decoder) => decoder.get_ref().consumed,
        }
    }

    /// Bytes that came out so far.
    pub const fn produced(&self) -> u64 {
        self.produced
    }

    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let decoder = match &mut self.decoder {
            Decoder::Zstd(decoder) => return decoder.read(out),
            Decoder::Gzip(decoder) => decoder,
        };
        loop {
            let Some(current) = decoder else { return Ok(0) };
            let count = current.read(out)?;
            if count > 0 {
                return Ok(count);
            }
            // The trailer was checked; another member may follow.
            let is_another = match current.get_mut().fill_buf()? {
                [] => return Ok(0),
                [0, ..] => {
                    skip_padding(current.get_mut())?;
                    return Ok(0);
                }
                [first, ..] => *first == 0x1f,
            };
            if !is_another {
                return Err(InflateError::TrailingBytes.into());
            }
            *decoder = decoder.take().map(|current| GzDecoder::new(current.into_inner()));
        }
    }

    fn check(&self) -> Result<(), InflateError> {
        let Limits {
            max_bytes,
            max_ratio,
            free_bytes,
        } = self.limits;
        if self.produced > max_bytes {
            return Err(InflateError::TooLarge(max_bytes));
        }
        let allowed = self
            .consumed()
            .saturating_mul(max_ratio)
            .saturating_add(free_bytes);
        if self.produced > allowed {
            return Err(InflateError::Ratio {
                max_ratio,
                free_bytes,
            });
        }
        Ok(())
    }
}

fn skip_padding(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let rest = reader.fill_buf()?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(InflateError::TrailingBytes.into());
        }
        match rest.len() {
            0 => return Ok(()),
            length => reader.consume(length),
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        if out.is_empty() {
            return Ok(0);
        }
        // One byte beyond the limit tells a stream that has just its size from a larger one.
        let room = (self.limits.max_bytes - self.produced.min(self.limits.max_bytes)).saturating_add(1);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(out.len());
        let out = out.get_mut(..room).unwrap_or_default();
        let error = match self.decode(out) {
            Ok(count) => {
                self.produced += count as u64;
                match self.check() {
                    Ok(()) => return Ok(count),
                    Err(error) => error,
                }
            }
            Err(error) => match (InflateError::of(&error), error.kind()) {
                (Some(own), _) => own.clone(),
                (None, io::ErrorKind::UnexpectedEof) => InflateError::Incomplete,
                (None, io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => return Err(error),
                // What the reader itself reports has an errno; what the decoder finds has none.
                (None, _) if error.raw_os_error().is_some() => return Err(error),
                (None, _) => InflateError::Damaged(error.to_string()),
            },
        };
        self.failed = Some(error.clone());
        Err(error.into())
    }
}

impl<R> fmt::Debug for Bounded<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded")
            .field("limits", &self.limits)
            .field("produced", &self.produced)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Counts what the decoder took.
struct Counted<R> {
    inner: BufReader<R>,
    consumed: u64,
}

impl<R: Read> Counted<R> {
    fn new(reader: R) -> Self {
        Self {
            inner: BufReader::with_capacity(INPUT_BYTES, reader),
            consumed: 0,
        }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.consumed += count as u64;
        Ok(count)
    }
}

impl<R: Read> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.consumed += count as u64;
        self.inner.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn inflated(compressed: &[u8], limits: Limits) -> Result<Vec<u8>, InflateError> {
        let mut out = Vec::new();
        let mut reader = Bounded::gzip(compressed, limits);
        match reader.read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(error) => {
                assert!(reader.read(&mut [0; 8]).is_err(), "an error repeats");
                Err(InflateError::of(&error).unwrap().clone())
            }
        }
    }

    #[test]
    fn members_follow_each_other_and_zeros_are_padding() {
        let two = [gzip(b"one "), gzip(b""), gzip(b"two"), vec![0; 512]].concat();
        assert_eq!(inflated(&two, Limits::body(100)).unwrap(), b"one two");
        let garbage = [gzip(b"one"), b"garbage".to_vec()].concat();
        assert_eq!(
            inflated(&garbage, Limits::none()),
            Err(InflateError::TrailingBytes)
        );
        assert_eq!(inflated(b"", Limits::none()), Err(InflateError::Incomplete));
        assert!(matches!(
            inflated(b"{\"kind\":1}, {\"kind\":2}", Limits::none()),
            Err(InflateError::Damaged(_))
        ));
    }

    #[test]
    fn every_cut_and_every_changed_trailer_is_noticed() {
        let whole = gzip(b"{\"kind\":\"Event\"}\n");
        for length in 1..whole.len() {
            assert_eq!(
                inflated(&whole[..length], Limits::none()),
                Err(InflateError::Incomplete),
                "{length}"
            );
        }
        for at in whole.len() - 8..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(
                matches!(inflated(&changed, Limits::none()), Err(InflateError::Damaged(_))),
                "{at}"
            );
        }
    }

    #[test]
    fn size_and_ratio_are_bounded() {
        let text = vec![b'a'; 4 << 20];
        let bomb = gzip(&text);
        assert_eq!(
            inflated(&bomb, Limits::body(u64::MAX)),
            Err(InflateError::Ratio {
                max_ratio: 100,
                free_bytes: 1 << 20
            })
        );
        assert_eq!(inflated(&bomb, Limits::none()).unwrap().len(), text.len());
        assert_eq!(
            inflated(&gzip(b"12345"), Limits::body(4)),
            Err(InflateError::TooLarge(4))
        );
        assert_eq!(inflated(&gzip(b"1234"), Limits::body(4)).unwrap(), b"1234");
        assert_eq!(
            inflated(&gzip(b"1234"), Limits::body(0)),
            Err(InflateError::TooLarge(0))
        );
    }

    #[test]
    fn zstd_is_read_over_its_frames() {
        let two = [
            zstd::encode_all(&b"one "[..], 3).unwrap(),
            zstd::encode_all(&b"two"[..], 3).unwrap(),
        ]
        .concat();
        let mut out = Vec::new();
        Bounded::zstd(&two[..], Limits::none())
            .unwrap()
            .read_to_end(&mut out)
            .unwrap();
        assert_eq!(out, b"one two");
        let error = Bounded::zstd(&two[..two.len() - 2], Limits::none())
            .unwrap()
            .read_to_end(&mut out)
            .unwrap_err();
        assert_eq!(InflateError::of(&error), Some(&InflateError::Incomplete));
    }
}
