//! Inputs as blocks of whole lines.

use std::collections::VecDeque;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kaudit_collect::{Bounded, Form, ImportConfig, ImportFile, InflateError, Limits};

use super::files::Input;
use super::found::Whence;
use crate::exit::Failure;

/// A block has about this many bytes, unless a line is longer.
const BLOCK_BYTES: usize = 1 << 20;

/// So much of a text decides how it is read.
const PEEK_BYTES: usize = 64 << 10;

/// How a log of kube-apiserver begins.
const LINE_HEAD: &[u8] = br#"{"kind":"Event","#;

/// Some lines of one input.
#[derive(Debug)]
pub(super) struct Block {
    /// Its place among the blocks.
    pub(super) number: u64,
    pub(super) whence: Arc<Whence>,
    /// The number of its first line among the lines of all inputs, from 1.
    pub(super) first: u64,
    /// Lines, each with its LF except perhaps the last.
    pub(super) text: Vec<u8>,
}

/// What was read so far, for who watches.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes of the files as they lie on the disk.
    pub(super) bytes: AtomicU64,
    /// Pieces that are no events, found while they were split.
    pub(super) strays: AtomicU64,
}

/// All blocks of some inputs, in order.
pub(super) struct Blocks {
    inputs: VecDeque<Input>,
    current: Option<(Arc<Whence>, Reading)>,
    progress: Arc<Progress>,
    number: u64,
    lines: u64,
}

enum Reading {
    /// JSON lines, as kube-apiserver writes them.
    Lines(Lines),
    /// Lists, container logs, and what begins with anything else.
    Other(Box<ImportFile>),
}

struct Lines {
    reader: Box<dyn Read + Send>,
    /// Read and not handed out.
    rest: Vec<u8>,
    is_at_end: bool,
}

impl Blocks {
    pub(super) fn new(inputs: Vec<Input>, progress: Arc<Progress>) -> Self {
        Self {
            inputs: inputs.into(),
            current: None,
            progress,
            number: 0,
            lines: 1,
        }
    }

    /// The next block, in the memory of `text`; `None` at the end.
    ///
    /// # Errors
    ///
    /// An input cannot be read; the blocks before it are good.
    pub(super) fn next(&mut self, mut text: Vec<u8>) -> Result<Option<Block>, Failure> {
        loop {
            text.clear();
            let Some((whence, reading)) = &mut self.current else {
                let Some(input) = self.inputs.pop_front() else {
                    return Ok(None);
                };
                let name = input.name();
                let reading = open(&input, &self.progress).map_err(|error| unreadable(&name, error))?;
                self.current = Some((Arc::new(Whence::file(name)), reading));
                continue;
            };
            let has_more = match reading {
                Reading::Lines(lines) => {
                    let name = whence.source.as_deref().unwrap_or_default();
                    lines.fill(&mut text).map_err(|error| unreadable(name, error))?
                }
                Reading::Other(file) => fill_from(file, &mut text, &self.progress)?,
            };
            if !has_more {
                self.current = None;
                continue;
            }
            let count = memchr::memchr_iter(b'\n', &text).count();
            let is_open = text.last().is_some_and(|last| *last != b'\n');
            let block = Block {
                number: self.number,
                whence: Arc::clone(whence),
                first: self.lines,
                text,
            };
            self.number += 1;
            self.lines += u64::try_from(count + usize::from(is_open)).unwrap_or_default();
            return Ok(Some(block));
        }
    }
}

fn unreadable(name: &str, error: io::Error) -> Failure {
    let context = match InflateError::of(&error) {
        Some(_) => format!("{name}: cannot be unpacked to its end"),
        None => format!("{name}: cannot be read"),
    };
    Failure::unreachable(anyhow::Error::new(error).context(context))
}

/// Counts what goes through.
struct Counted<R> {
    inner: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        let wide = u64::try_from(count).unwrap_or_default();
        self.progress.bytes.fetch_add(wide, Ordering::Relaxed);
        Ok(count)
    }
}

fn open(input: &Input, progress: &Arc<Progress>) -> io::Result<Reading> {
    let inner: Box<dyn Read + Send> = match input {
        Input::Stdin => Box::new(io::stdin()),
        Input::File(file) => Box::new(file.reader()?),
    };
    let mut counted = Counted {
        inner,
        progress: Arc::clone(progress),
    };
    let mut magic = Vec::new();
    counted.by_ref().take(4).read_to_end(&mut magic)?;
    let kind = magic.clone();
    let whole = Cursor::new(magic).chain(counted);
    let buffered = |whole| BufReader::with_capacity(128 << 10, whole);
    // Files that somebody has come from a writer that is trusted, and are streamed.
    let mut text: Box<dyn Read + Send> = match kind.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(Bounded::gzip(buffered(whole), Limits::none())),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(Bounded::zstd(buffered(whole), Limits::none())?),
        _ => Box::new(whole),
    };
    let mut peeked = Vec::new();
    text.by_ref().take(PEEK_BYTES as u64).read_to_end(&mut peeked)?;
    if peeked.starts_with(LINE_HEAD) {
        return Ok(Reading::Lines(Lines {
            reader: text,
            rest: peeked,
            is_at_end: false,
        }));
    }
    let config = ImportConfig::default();
    let import = ImportFile::from_reader(Cursor::new(peeked).chain(text), &input.name(), config);
    import
        .map(|file| Reading::Other(Box::new(file)))
        .map_err(io::Error::other)
}

impl Lines {
    /// Whole lines; `false` at the end.
    fn fill(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        text.extend_from_slice(&self.rest);
        self.rest.clear();
        let mut searched = 0;
        while !self.is_at_end {
            let end = memchr::memrchr(b'\n', text.get(searched..).unwrap_or_default());
            if let Some(end) = end.filter(|_| text.len() >= BLOCK_BYTES) {
                let end = searched + end + 1;
                self.rest.extend_from_slice(text.get(end..).unwrap_or_default());
                text.truncate(end);
                return Ok(true);
            }
            if text.len() > kaudit_event::MAX_EVENT_BYTES + BLOCK_BYTES {
                return Err(io::Error::other(format!(
                    "a line has more than {} bytes",
                    kaudit_event::MAX_EVENT_BYTES
                )));
            }
            // Only what is behind has no line end yet.
            searched = if end.is_none() { text.len() } else { searched };
            let count = self.reader.by_ref().take(BLOCK_BYTES as u64).read_to_end(text)?;
            self.is_at_end = count < BLOCK_BYTES;
        }
        Ok(!text.is_empty())
    }
}

/// Log lines of what had another form; `false` at the end.
fn fill_from(file: &mut ImportFile, text: &mut Vec<u8>, progress: &Progress) -> Result<bool, Failure> {
    loop {
        let chunk = file
            .next_chunk()
            .map_err(|error| Failure::unreachable(anyhow::Error::new(error)))?;
        let Some(chunk) = chunk else { return Ok(false) };
        let strays = chunk.torn.len() + chunk.oversized.len();
        progress
            .strays
            .fetch_add(u64::try_from(strays).unwrap_or_default(), Ordering::Relaxed);
        for event in chunk.texts() {
            match chunk.form {
                Form::Lines => text.extend_from_slice(event),
                // An item that cannot be read is told of as a line that cannot.
                Form::Items => match kaudit_event::log_line_of_item(event) {
                    Ok(line) => text.extend_from_slice(&line),
                    Err(_) => text.extend_from_slice(event),
                },
            }
            text.extend_from_slice(b"\n");
        }
        if !text.is_empty() {
            return Ok(true);
        }
    }
}
