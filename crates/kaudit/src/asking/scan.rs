//! All cores over the blocks of some inputs.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use kaudit_event::DecodedEvent;
use kaudit_query::{Filter, LineFilter, LineMatch, Needles};

use super::blocks::{Block, Blocks, Progress};
use super::files::Input;
use super::found::{Found, Order, Whence, row};
use super::remote::Remote;
use crate::exit::Failure;

/// A bar is only shown for what takes longer.
const BAR_AFTER: Duration = Duration::from_millis(500);

/// What one thread makes of what it finds.
pub(crate) trait Fold: Send {
    /// An event that satisfies the filter.
    fn found(&mut self, found: Found<'_>);

    /// All events of a block were found. `false` ends the scan.
    fn end_of_block(&mut self, number: u64) -> bool {
        let _ = number;
        true
    }
}

/// Where events are asked for.
#[derive(Debug)]
pub(crate) enum Place {
    /// In files, all of them.
    Files(Vec<Input>),
    /// In the store of a running kaudit.
    Server(Box<Remote>),
}

/// A filter, prepared for lines; and what a server is told besides.
#[derive(Debug)]
pub(crate) struct Question {
    filter: Filter,
    needles: Option<Needles>,
    lines: Option<LineFilter>,
    /// A server sends so many events at most, those that come first in `order`; files are always read whole, as they
    /// are.
    pub(crate) most: Option<usize>,
    pub(crate) order: Order,
    /// A server sends the requests to its own API, too.
    pub(crate) has_hidden: bool,
    /// How a server masks values.
    pub(crate) masking: Masking,
}

/// What a server does with values that nobody should read in passing. What it masked is not masked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Masking {
    /// It shows how long they are.
    #[default]
    Lengths,
    /// It also shows which are the same.
    Digests,
    /// It does not mask them.
    Revealed,
}

/// What a scan met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scanned {
    /// Events that satisfy the filter.
    pub(crate) events: u64,
    /// Pieces that are no events.
    pub(crate) strays: u64,
    /// Why a server did not look at everything, if it did not.
    pub(crate) partial: Option<String>,
    /// The last record that a server has looked at.
    pub(crate) last: Option<u64>,
}

impl Question {
    pub(crate) fn new(filter: Filter) -> Self {
        Self {
            needles: filter.needles(),
            lines: filter.for_lines(),
            filter,
            most: None,
            order: Order::Oldest,
            has_hidden: false,
            masking: Masking::Lengths,
        }
    }

    pub(crate) const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The same of a server that does not leave the requests to its own API out.
    pub(crate) const fn with_hidden(mut self, has_hidden: bool) -> Self {
        self.has_hidden = has_hidden;
        self
    }

    /// The same of a server that does not mask values.
    pub(crate) const fn revealed(mut self, is_revealed: bool) -> Self {
        if is_revealed {
            self.masking = Masking::Revealed;
        }
        self
    }

    /// The same of a server whose masked values can be compared.
    pub(crate) const fn comparable(mut self) -> Self {
        self.masking = Masking::Digests;
        self
    }

    /// Whether the event of a line satisfies the filter; with the event, if it took that to tell. `None` for what is
    /// no event.
    pub(super) fn ask(
        &self,
        line: &[u8],
        whence: &Whence,
        number: u64,
    ) -> Option<(bool, Option<DecodedEvent>)> {
        if self
            .needles
            .as_ref()
            .is_some_and(|needles| !needles.may_match(line))
        {
            return Some((false, None));
        }
        match self.lines.as_ref().map(|lines| lines.matches(line)) {
            Some(LineMatch::Yes) => return Some((true, None)),
            Some(LineMatch::No) => return Some((false, None)),
            Some(LineMatch::Undecided) | None => {}
        }
        let event = DecodedEvent::parse(Bytes::copy_from_slice(line)).ok()?;
        let matches = self.filter.matches(&row(&event, whence, number));
        Some((matches, Some(event)))
    }
}

/// Folds what satisfies the question. Files are read with all cores, and each thread folds with what `make` gives it; a
/// server's answer is folded as it comes. A scan that a fold ended is no error.
pub(crate) fn scan<F: Fold>(
    place: Place,
    question: &Question,
    make: impl Fn() -> F,
) -> Result<(Vec<F>, Scanned), Failure> {
    let inputs = match place {
        Place::Files(inputs) => inputs,
        Place::Server(remote) => {
            let (fold, scanned) = remote.scan(question, make())?;
            return Ok((vec![fold], scanned));
        }
    };
    let total = inputs.iter().map(|input| match input {
        Input::Stdin => None,
        Input::File(file) => Some(file.bytes()),
    });
    let total: Option<u64> = total.sum();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let folds: Vec<F> = (0..threads).map(|_| make()).collect();
    let progress = Arc::new(Progress::default());
    let shared = Shared {
        question,
        blocks: Mutex::new(Blocks::new(inputs, Arc::clone(&progress))),
        is_over: AtomicBool::new(false),
        failure: Mutex::new(None),
        events: AtomicU64::new(0),
        strays: AtomicU64::new(0),
    };
    let folds = std::thread::scope(|scope| {
        let shared = &shared;
        let workers: Vec<_> = folds
            .into_iter()
            .map(|fold| scope.spawn(move || shared.work(fold)))
            .collect();
        watch(&progress, total, || {
            workers.iter().all(std::thread::ScopedJoinHandle::is_finished)
        });
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(fold) => fold,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });
    if let Some(failure) = shared
        .failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        return Err(failure);
    }
    let scanned = Scanned {
        events: shared.events.into_inner(),
        strays: shared.strays.into_inner() + progress.strays.load(Ordering::Relaxed),
        partial: None,
        last: None,
    };
    Ok((folds, scanned))
}

struct Shared<'a> {
    question: &'a Question,
    blocks: Mutex<Blocks>,
    is_over: AtomicBool,
    failure: Mutex<Option<Failure>>,
    events: AtomicU64,
    strays: AtomicU64,
}

impl Shared<'_> {
    fn work<F: Fold>(&self, mut fold: F) -> F {
        let mut memory = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let next = self
                .blocks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next(memory);
            match next {
                Ok(Some(block)) => {
                    self.look(&block, &mut fold);
                    if !fold.end_of_block(block.number) {
                        self.is_over.store(true, Ordering::Relaxed);
                    }
                    memory = block.text;
                }
                Ok(None) => break,
                Err(failure) => {
                    self.is_over.store(true, Ordering::Relaxed);
                    let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(failure);
                    break;
                }
            }
        }
        fold
    }

    fn look<F: Fold>(&self, block: &Block, fold: &mut F) {
        let (mut events, mut strays) = (0, 0);
        let mut rest = block.text.as_slice();
        let mut number = block.first;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let (line, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            rest = behind.get(1..).unwrap_or_default();
            match self.question.ask(line, &block.whence, number) {
                Some((true, decoded)) => {
                    events += 1;
                    fold.found(Found {
                        line,
                        whence: &block.whence,
                        number,
                        decoded,
                    });
                }
                Some((false, _)) => {}
                None => strays += u64::from(!line.trim_ascii().is_empty()),
            }
            number += 1;
        }
        self.events.fetch_add(events, Ordering::Relaxed);
        self.strays.fetch_add(strays, Ordering::Relaxed);
    }
}

/// Shows a bar while others work.
fn watch(progress: &Progress, total: Option<u64>, is_done: impl Fn() -> bool) {
    let begun = Instant::now();
    let is_shown = std::io::stderr().is_terminal();
    let mut bar: Option<ProgressBar> = None;
    let mut pause = Duration::from_micros(100);
    while !is_done() {
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
        if is_shown && begun.elapsed() > BAR_AFTER {
            let bar = bar.get_or_insert_with(|| bar_of(total));
            bar.set_position(progress.bytes.load(Ordering::Relaxed));
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn bar_of(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    // What is not understood is shown in the crate's own way.
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
