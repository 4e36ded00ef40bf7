//! Log files into the journal: one thread for each source.
//!
//! The position behind a chunk is a mark of the batch that holds the chunk's lines, so that it is durable with
//! them and never before. Several batches may be under way; when one fails, reading goes back to the last position
//! that is durable. While the journal takes nothing, nothing is read: the files are the buffer.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kaudit_journal::Reject;

use crate::chunk::Chunk;
use crate::clock;
use crate::intake::{Beside, Intake, NotKept, Taken};
use crate::parcel::Parcel;
use crate::source::Source;
use crate::tail::{Poll, SourceStatus, Tail, TailConfig, TailError, TailStatus};
use crate::unpack;

/// Batches that may be under way at once.
const UNDER_WAY: usize = 4;

/// Files with nothing new are looked at again after this time.
const IDLE: Duration = Duration::from_millis(100);

/// After a failure the journal is tried again then.
const PAUSE: Duration = Duration::from_millis(500);

/// A source of log files that is being read.
#[derive(Debug)]
pub struct Tailing {
    source: Source,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: Mutex<bool>,
    stop: Condvar,
    report: Mutex<Report>,
}

#[derive(Clone, Debug, Default)]
struct Report {
    files: TailStatus,
    /// Why nothing is read at the moment.
    held: Option<&'static str>,
}

/// Why a source of log files cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The path or the saved position is not good.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// No thread can be had.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl Tailing {
    /// Begins to read where `source` was left, or where `config` says for one that is new.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(intake: Intake, source: Source, config: TailConfig) -> Result<Self, StartError> {
        let mark = mark_of(&source);
        let saved = intake.journal().mark(&mark);
        let tail = Tail::open(config, saved.as_deref(), clock::now())?;
        let shared = Arc::new(Shared::default());
        let mut reading = Reading {
            durable: saved.unwrap_or_default(),
            tail,
            parcel: Parcel::new(source.clone()),
            intake,
            source: source.clone(),
            mark,
            under_way: VecDeque::new(),
            shared: Arc::clone(&shared),
        };
        if reading.durable.is_empty() {
            reading.durable = reading.tail.position();
        }
        let thread = std::thread::Builder::new()
            .name("tail".to_owned())
            .spawn(move || reading.run())
            .map_err(StartError::Thread)?;
        Ok(Self {
            source,
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The source.
    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// How reading goes.
    #[must_use]
    pub fn status(&self) -> TailStatus {
        self.shared.report().files.clone()
    }

    /// Why nothing is read at the moment: a word for what the journal lacks.
    #[must_use]
    pub fn held_back(&self) -> Option<&'static str> {
        self.shared.report().held
    }

    /// Stops reading, and waits until what was read is durable. Blocks.
    pub fn stop(&self) {
        *self
            .shared
            .stopping
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stop.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(
                path = self.source.origin().path,
                "reading log files ended by a panic"
            );
        }
    }
}

impl Drop for Tailing {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, but not beyond a stop.
    fn pause(&self, time: Duration) {
        let stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        if !*stopping {
            drop(self.stop.wait_timeout(stopping, time));
        }
    }
}

/// The name under which the position of a source is kept.
fn mark_of(source: &Source) -> Vec<u8> {
    let origin = source.origin();
    let path = blake3::hash(origin.path.as_bytes()).to_hex();
    let name = blake3::hash(format!("{}/{}", origin.cluster, origin.instance).as_bytes()).to_hex();
    format!("tail/{name}/{path}").into_bytes()
}

/// Lines that are not known to be durable.
struct UnderWay {
    taken: Taken,
    /// Behind them.
    position: Vec<u8>,
    /// The source's path, and bytes of its text.
    path: String,
    bytes: usize,
}

struct Reading {
    tail: Tail,
    intake: Intake,
    source: Source,
    mark: Vec<u8>,
    parcel: Parcel,
    /// Oldest first.
    under_way: VecDeque<UnderWay>,
    /// The position that is durable.
    durable: Vec<u8>,
    shared: Arc<Shared>,
}

impl Reading {
    fn run(mut self) {
        while !self.shared.is_stopping() {
            self.settle();
            if self.under_way.len() >= UNDER_WAY {
                self.wait();
                continue;
            }
            match self.tail.poll(clock::now()) {
                Poll::Chunk(chunk) => self.keep(&chunk),
                Poll::Idle => {
                    self.report(None);
                    if self.under_way.is_empty() {
                        self.shared.pause(IDLE);
                    } else {
                        self.wait();
                    }
                }
            }
        }
        while !self.under_way.is_empty() {
            self.wait();
            self.settle();
        }
    }

    /// Hands a chunk to the journal, as often as it takes.
    fn keep(&mut self, chunk: &Chunk) {
        let now_micros = clock::now_micros();
        self.parcel.clear();
        let pieces = unpack::into_parcel(chunk, &self.intake, &mut self.parcel, now_micros);
        for gap in &chunk.gaps {
            self.source.counting().gaps += 1;
            tracing::warn!(
                cluster = %self.source.origin().cluster,
                instance = %self.source.origin().instance,
                file = gap.file,
                offset = gap.offset,
                reason = %gap.reason,
                "events are missing"
            );
        }
        let mut is_put_away = false;
        while !self.shared.is_stopping() {
            let marks: [(&[u8], &[u8]); 1] = [(&self.mark, &chunk.position)];
            let taken = if is_put_away {
                Ok(())
            } else {
                self.intake.put_away(&self.source, &pieces, now_micros)
            };
            is_put_away |= taken.is_ok();
            let taken =
                taken.and_then(|()| self.intake.take(&self.parcel, Beside::marks(&marks), now_micros));
            match taken {
                Ok(taken) => {
                    self.under_way.push_back(UnderWay {
                        taken,
                        position: chunk.position.clone(),
                        path: chunk.file.path.clone(),
                        bytes: chunk.lines.iter().map(|line| line.end - line.start + 1).sum(),
                    });
                    // Now that these lines count as under way: before, they would seem to be durable.
                    self.report(None);
                    return;
                }
                Err(NotKept::Rejected(Reject::QueueFull)) if !self.under_way.is_empty() => self.wait(),
                Err(NotKept::Rejected(Reject::QueueFull)) => self.shared.pause(IDLE),
                Err(error) => {
                    self.hold(&error);
                    self.shared.pause(PAUSE);
                }
            }
            if self.settle() == Settled::WentBack {
                return;
            }
        }
    }

    /// Waits for the oldest batch, or a moment.
    fn wait(&self) {
        if let Some(UnderWay { taken, .. }) = self.under_way.front() {
            // What came of it is looked at by whoever settles.
            drop(taken.wait_timeout(IDLE));
        }
    }

    /// Looks which batches are durable; after a failure goes back to the last position that is.
    fn settle(&mut self) -> Settled {
        while let Some(UnderWay { taken, .. }) = self.under_way.front() {
            match taken.wait_timeout(Duration::ZERO) {
                None => break,
                Some(Ok(())) => {
                    if let Some(first) = self.under_way.pop_front() {
                        self.durable = first.position;
                    }
                }
                Some(Err(error)) => {
                    self.hold(&error);
                    self.under_way.clear();
                    if let Err(error) = self.tail.rewind(&self.durable) {
                        // Its own position is one that it reads.
                        tracing::error!(%error, "cannot go back to the last durable position");
                    }
                    self.shared.pause(PAUSE);
                    return Settled::WentBack;
                }
            }
        }
        Settled::GoesOn
    }

    fn hold(&self, error: &NotKept) {
        let reason = error.reason();
        self.source.held_back(reason);
        let before = self.shared.report().held.replace(reason);
        if before != Some(reason) {
            tracing::warn!(path = self.source.origin().path, %error, "reading log files waits");
        }
    }

    fn report(&self, held: Option<&'static str>) {
        let mut files = self.tail.status();
        // What is not durable was not read: whoever removes a log that was read may rely on it.
        for under_way in &self.under_way {
            let of_path = |file: &&mut SourceStatus| file.path.to_string_lossy() == under_way.path;
            if let Some(file) = files.sources.iter_mut().find(of_path) {
                file.behind_bytes += u64::try_from(under_way.bytes).unwrap_or_default();
            }
        }
        let mut report = self.shared.report();
        report.files = files;
        report.held = held;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    GoesOn,
    WentBack,
}

#[cfg(test)]
mod tests;
