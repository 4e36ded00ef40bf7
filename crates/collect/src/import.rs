//! Reads one file to its end, whatever it holds: JSON lines, EventLists, container logs, compressed or
//! not. The format is told by the content, never by the name.

mod document;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lines::{self, Nesting};
use crate::tail::{Fill, Reading, push_torn};
use crate::{
    Anomalies, Bounded, Chunk, FileIdentity, InflateError, Limits, LogFormat, TailConfig, TornReason,
};
use document::Documents;

pub(crate) use document::Reached;

/// How to read a file.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "settings, filled in over the defaults")]
pub struct ImportConfig {
    /// An event may be this long; of a longer one only the head is kept.
    pub max_line_bytes: usize,
    /// A chunk holds about this much, unless an event is longer.
    pub max_chunk_bytes: usize,
    /// What may come out of a compressed file.
    pub limits: Limits,
    /// How lines are written, where there are lines.
    pub format: LogFormat,
}

impl Default for ImportConfig {
    fn default() -> Self {
        Self {
            max_line_bytes: kaudit_event::MAX_EVENT_BYTES,
            max_chunk_bytes: 1 << 20,
            limits: Limits {
                max_bytes: u64::MAX,
                max_ratio: 100,
                free_bytes: 64 << 20,
            },
            format: LogFormat::Auto,
        }
    }
}

/// How far the reading is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of the file, as it lies on disk, that were read.
    pub read_bytes: u64,
    /// Bytes of the file; `None` for standard input.
    pub total_bytes: Option<u64>,
    /// Bytes of text that came out.
    pub text_bytes: u64,
}

/// Tells whether a text was imported before, compressed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ImportIdentity {
    /// BLAKE3 of the uncompressed text.
    pub hash: [u8; 32],
    /// Its length in bytes.
    pub length: u64,
}

/// Why a file cannot be imported, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It cannot be opened or read.
    #[error("{path}: cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a device, a pipe or a socket.
    #[error("{path}: not a regular file; standard input is given as \"-\"")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged, or grows too much.
    #[error("{path}: cannot be unpacked behind its first {read_bytes} bytes")]
    Inflate {
        /// The file.
        path: PathBuf,
        /// Bytes of the file that were read before.
        read_bytes: u64,
        /// Why.
        #[source]
        source: InflateError,
    },
}

/// One file that is read to its end.
pub struct ImportFile {
    path: PathBuf,
    config: TailConfig,
    total_bytes: Option<u64>,
    read_bytes: Arc<AtomicU64>,
    file: FileIdentity,
    state: State,
}

enum State {
    Begin(Box<Text>),
    Lines(Box<Reading>),
    Documents {
        text: Box<Text>,
        documents: Box<Documents>,
        /// Text that was read and not split.
        buffer: Vec<u8>,
        is_at_end: bool,
    },
    Failed,
    Done(ImportIdentity),
}

/// Its first bytes decide what a text is.
const PEEK_BYTES: usize = 1 << 20;

impl ImportFile {
    /// Opens a regular file, following symbolic links, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// [`ImportError`] when it cannot be opened or is no regular file.
    pub fn open(path: &Path, config: ImportConfig) -> Result<Self, ImportError> {
        if path == Path::new("-") {
            return Self::from_reader(io::stdin(), "-", config);
        }
        let failed = |source| ImportError::Io {
            path: path.to_owned(),
            source,
        };
        // A pipe would wait for its writer already while it is opened.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(ImportError::NotRegular {
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(failed)?;
        let there = file.metadata().map_err(failed)?;
        if !there.is_file() {
            return Err(ImportError::NotRegular {
                path: path.to_owned(),
            });
        }
        let mut import = Self::from_reader(file, &path.to_string_lossy(), config)?;
        import.path = path.to_owned();
        import.total_bytes = Some(there.len());
        Ok(import)
    }

    /// Reads anything, for example standard input; `name` stands for its path.
    ///
    /// # Errors
    ///
    /// [`ImportError`] when its first bytes cannot be read.
    pub fn from_reader(
        reader: impl Read + Send + 'static,
        name: &str,
        config: ImportConfig,
    ) -> Result<Self, ImportError> {
        let path = PathBuf::from(name);
        let read_bytes = Arc::new(AtomicU64::new(0));
        let mut counted = Counted {
            inner: reader,
            count: Arc::clone(&read_bytes),
        };
        let failed = |source| ImportError::Io {
            path: path.clone(),
            source,
        };
        let mut magic = Vec::new();
        counted.by_ref().take(4).read_to_end(&mut magic).map_err(failed)?;
        let kind = magic.clone();
        let whole = io::Cursor::new(magic).chain(counted);
        let input: Box<dyn Read + Send> = match kind.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(Bounded::gzip(whole, config.limits)),
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                Box::new(Bounded::zstd(whole, config.limits).map_err(failed)?)
            }
            _ => Box::new(whole),
        };
        let file = FileIdentity {
            path: name.to_owned(),
            name: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            id: 0,
        };
        Ok(Self {
            path,
            config: TailConfig {
                format: config.format,
                max_line_bytes: config.max_line_bytes,
                max_chunk_bytes: config.max_chunk_bytes,
                ..TailConfig::new(name)
            },
            total_bytes: None,
            read_bytes,
            file,
            state: State::Begin(Box::new(Text::new(input))),
        })
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`ImportError`]; the chunks before it are good, and reading ends here.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, ImportError> {
        loop {
            let mut chunk = Chunk {
                file: self.file.clone(),
                ..Chunk::default()
            };
            let state = std::mem::replace(&mut self.state, State::Failed);
            self.state = match self.step(state, &mut chunk) {
                Ok(state) => state,
                Err(source) => return Err(self.error(source)),
            };
            if !chunk.is_empty() || chunk.anomalies != Anomalies::default() {
                return Ok(Some(chunk));
            }
            if matches!(self.state, State::Done(_) | State::Failed) {
                return Ok(None);
            }
        }
    }

    fn step(&mut self, state: State, chunk: &mut Chunk) -> io::Result<State> {
        Ok(match state {
            State::Begin(mut text) => {
                text.peek(PEEK_BYTES)?;
                let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&text.peeked).as_bytes();
                self.file.id = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                let kind = match self.config.format {
                    LogFormat::Auto => text_kind(&text.peeked),
                    LogFormat::Json => Kind::Lines(LogFormat::Json),
                    LogFormat::Cri => Kind::Lines(LogFormat::Cri),
                };
                match kind {
                    Kind::Documents => State::Documents {
                        text,
                        documents: Box::new(Documents::new(self.config.max_line_bytes)),
                        buffer: Vec::new(),
                        is_at_end: false,
                    },
                    Kind::Lines(format) => State::Lines(Box::new(Reading::of_text(text, &self.file, format))),
                }
            }
            State::Lines(mut reading) => match reading.fill(&self.config, chunk)? {
                Fill::Taken => State::Lines(reading),
                Fill::End | Fill::Changed => {
                    if let Some(carried) = reading.finish(&self.config, chunk) {
                        // There is no next file to complete it.
                        let reason = TornReason::Unterminated;
                        push_torn(chunk, carried.text.into(), carried.offset, reason);
                    }
                    reading
                        .text()
                        .map_or(State::Failed, |text| State::Done(text.identity()))
                }
            },
            State::Documents {
                mut text,
                mut documents,
                mut buffer,
                mut is_at_end,
            } => {
                if buffer.is_empty() && !is_at_end {
                    let bytes = self.config.max_chunk_bytes.max(1);
                    is_at_end = read_part(&mut text, bytes, &mut buffer)? < bytes;
                }
                chunk.form = documents.form();
                let taken = documents.feed(&buffer, chunk);
                buffer.drain(..taken);
                let is_done = is_at_end && buffer.is_empty();
                if is_done {
                    documents.finish(chunk);
                }
                documents.take(chunk);
                if is_done {
                    State::Done(text.identity())
                } else {
                    State::Documents {
                        text,
                        documents,
                        buffer,
                        is_at_end,
                    }
                }
            }
            ended @ (State::Failed | State::Done(_)) => ended,
        })
    }

    fn error(&self, source: io::Error) -> ImportError {
        let path = self.path.clone();
        match InflateError::of(&source) {
            Some(inflate) => ImportError::Inflate {
                path,
                read_bytes: self.read_bytes.load(Ordering::Relaxed),
                source: inflate.clone(),
            },
            None => ImportError::Io { path, source },
        }
    }

    /// How far the reading is.
    pub fn progress(&self) -> Progress {
        let text_bytes = match &self.state {
            State::Begin(text) | State::Documents { text, .. } => text.length,
            State::Lines(reading) => reading.text().map_or(0, |text| text.length),
            State::Failed => 0,
            State::Done(identity) => identity.length,
        };
        Progress {
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes,
            text_bytes,
        }
    }

    /// What the text was; known when all of it was handed over.
    pub const fn identity(&self) -> Option<ImportIdentity> {
        match &self.state {
            State::Done(identity) => Some(*identity),
            _ => None,
        }
    }

    /// Reads a whole file only to know what it is, to see whether it was imported before. Not for standard
    /// input, which would be empty afterwards.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`next_chunk`](Self::next_chunk).
    pub fn identify(path: &Path, config: ImportConfig) -> Result<ImportIdentity, ImportError> {
        let mut file = Self::open(path, config)?;
        let State::Begin(mut text) = std::mem::replace(&mut file.state, State::Failed) else {
            return Ok(Text::new(Box::new(io::empty())).identity());
        };
        io::copy(&mut text, &mut io::sink()).map_err(|source| file.error(source))?;
        Ok(text.identity())
    }
}

/// As many bytes, unless the text ends. What came before an error is handed over first; the error repeats.
fn read_part(text: &mut Text, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let before = buffer.len();
    match text.take(bytes as u64).read_to_end(buffer) {
        Ok(count) => Ok(count),
        Err(_) if buffer.len() > before => Ok(bytes),
        Err(error) => Err(error),
    }
}

/// The text of a file, unpacked, and what it was so far.
pub(crate) struct Text {
    input: Box<dyn Read + Send>,
    /// Read, to see what it is, and not handed over.
    peeked: Vec<u8>,
    given: usize,
    hasher: blake3::Hasher,
    length: u64,
}

impl Text {
    fn new(input: Box<dyn Read + Send>) -> Self {
        Self {
            input,
            peeked: Vec::new(),
            given: 0,
            hasher: blake3::Hasher::new(),
            length: 0,
        }
    }

    fn peek(&mut self, bytes: usize) -> io::Result<()> {
        let outcome = (&mut self.input).take(bytes as u64).read_to_end(&mut self.peeked);
        match outcome {
            Err(error) if self.peeked.is_empty() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn identity(&self) -> ImportIdentity {
        ImportIdentity {
            hash: *self.hasher.finalize().as_bytes(),
            length: self.length,
        }
    }
}

impl Read for Text {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.peeked.get(self.given..).unwrap_or_default();
        let count = if rest.is_empty() {
            self.peeked = Vec::new();
            self.given = 0;
            self.input.read(out)?
        } else {
            let count = rest.read(out)?;
            self.given += count;
            count
        };
        self.hasher.update(out.get(..count).unwrap_or_default());
        self.length += count as u64;
        Ok(count)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ImportFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportFile")
            .field("path", &self.path)
            .field("config", &self.config)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lines(LogFormat),
    Documents,
}

/// Told by the first line: whole objects on lines of their own are lines, unless they are lists.
fn text_kind(text: &[u8]) -> Kind {
    let start = text
        .iter()
        .position(|byte| !byte.is_ascii_whitespace() && *byte != 0)
        .unwrap_or(text.len());
    let text = text.get(start..).unwrap_or_default();
    let (line, is_whole) = match memchr::memchr(b'\n', text).and_then(|end| text.split_at_checked(end)) {
        Some((line, _)) => (line.trim_ascii_end(), true),
        None => (text, false),
    };
    if lines::entry(line).is_some() {
        return Kind::Lines(LogFormat::Cri);
    }
    if line.first() != Some(&b'{') || lines::begins_event(line) {
        return Kind::Lines(LogFormat::Json);
    }
    let mut nesting = Nesting::default();
    let mut at = 0;
    loop {
        let rest = line.get(at..).unwrap_or_default();
        let (step, reached) = nesting.feed_to_array(rest);
        at += step;
        match reached {
            Some(Reached::Array) if document::ends_with_items_key(line.get(..at).unwrap_or_default()) => {
                return Kind::Documents;
            }
            Some(Reached::Array) => {}
            Some(Reached::End) if is_whole && at == line.len() => return Kind::Lines(LogFormat::Json),
            Some(Reached::End) | None => return Kind::Documents,
        }
    }
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
