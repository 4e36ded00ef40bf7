//! Learns what became of events that were appended to a journal, counts it, and tells those who wait.
//!
//! A thread, because nobody awaits the ticket of an event whose request has gone on. It has no queue of its own
//! to bound: each entry's bytes wait in the journal's queue, which is bounded, and go when it is settled.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use kaudit_event::Event;
use kaudit_journal::Ticket;
use kaudit_sink::{Counters, Emission, Outcome, Reason, Receipt, Refusal, Refusals};
use tokio::sync::oneshot;

use crate::intake::{NotKept, Taken};

/// Whether requests wait for the durability of their events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the modes of kube-apiserver's backends")]
pub enum SinkMode {
    /// An event that is queued is accepted. A loss is counted and does not matter to the request.
    #[default]
    Batch,
    /// The request waits until its first event is durable, or will not be, and goes on either way.
    Blocking,
    /// As `Blocking`, but an event of RequestReceived that is not kept refuses the request.
    BlockingStrict,
}

/// What durability means to the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// The event is where it was to go.
    Kept,
    /// It still has to go somewhere.
    Queued,
}

/// What an append answered with.
#[derive(Debug)]
pub(crate) enum Appended {
    Taken(Taken),
    Ticket(Ticket),
}

/// Settles appended events, in order.
pub(crate) struct Settler {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    plugin: &'static str,
    mode: SinkMode,
    durable: Durable,
    counters: Arc<Counters>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Submissions that may still add an entry.
    begun: usize,
    is_closed: bool,
    is_resting: bool,
}

struct Entry {
    appended: Appended,
    events: Vec<Emission<'static>>,
    done: Option<oneshot::Sender<Result<(), Refusals>>>,
}

/// A submission under way, which the end waits for.
pub(crate) struct Begun<'a>(&'a Shared);

impl fmt::Debug for Settler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settler")
            .field("mode", &self.shared.mode)
            .finish_non_exhaustive()
    }
}

impl Settler {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When there can be no further thread.
    pub(crate) fn start(
        plugin: &'static str,
        mode: SinkMode,
        durable: Durable,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            plugin,
            mode,
            durable,
            counters,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let working = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("audit-{plugin}"))
            .spawn(move || working.work())?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Begins a submission; `None` after the end.
    pub(crate) fn begin(&self) -> Option<Begun<'_>> {
        let mut state = self.shared.state();
        if state.is_closed {
            return None;
        }
        state.begun += 1;
        Some(Begun(&self.shared))
    }

    /// Counts events that were not appended, and answers as the mode says.
    pub(crate) fn refuse<'e>(
        &self,
        reason: Reason,
        message: impl Into<String>,
        events: impl IntoIterator<Item = &'e Event>,
    ) -> Outcome {
        let refusal = Refusal {
            plugin: self.shared.plugin,
            reason,
            message: message.into(),
        };
        self.shared.counters.plugin_error(&refusal, events);
        match (self.shared.mode, reason) {
            // As upstream's buffer does, which is closed only when no request should come any more.
            (SinkMode::BlockingStrict, _) | (SinkMode::Batch, Reason::ShutDown) => {
                Outcome::Refused(vec![refusal])
            }
            (SinkMode::Batch | SinkMode::Blocking, _) => Outcome::Accepted,
        }
    }

    /// Waits until everything that was appended is settled; nothing begins any more.
    pub(crate) fn finish(&self) {
        self.shared.state().is_closed = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of audit plugin '{}' panicked", self.shared.plugin);
        }
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Begun<'_> {
    /// Hands over events that were appended. What the request waits for is what the mode says.
    pub(crate) fn settle(self, appended: Appended, events: Vec<Emission<'static>>) -> Outcome {
        let (done, outcome) = match self.0.mode {
            SinkMode::Batch => (None, Outcome::Accepted),
            mode @ (SinkMode::Blocking | SinkMode::BlockingStrict) => {
                let (done, end) = oneshot::channel();
                let plugin = self.0.plugin;
                let receipt = Receipt::new(async move {
                    let end = end.await.unwrap_or_else(|_| {
                        Err(vec![Refusal {
                            plugin,
                            reason: Reason::ShutDown,
                            message: STOPPED.to_owned(),
                        }])
                    });
                    match mode {
                        SinkMode::BlockingStrict => end,
                        SinkMode::Batch | SinkMode::Blocking => Ok(()),
                    }
                });
                (Some(done), Outcome::Pending(receipt))
            }
        };
        let mut state = self.0.state();
        state.entries.push_back(Entry {
            appended,
            events,
            done,
        });
        outcome
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let wakes = {
            let mut state = self.0.state();
            state.begun -= 1;
            std::mem::take(&mut state.is_resting)
        };
        if wakes {
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let entries = {
                let mut state = self.state();
                while state.entries.is_empty() {
                    if state.is_closed && state.begun == 0 {
                        return;
                    }
                    state.is_resting = true;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::take(&mut state.entries)
            };
            entries.into_iter().for_each(|entry| self.settle(entry));
        }
    }

    fn settle(&self, entry: Entry) {
        let end = match entry.appended {
            Appended::Taken(taken) => taken.wait(),
            Appended::Ticket(ticket) => ticket.wait().map(drop).map_err(NotKept::from),
        };
        let end = match end {
            Ok(()) => {
                if self.durable == Durable::Kept {
                    self.counters.kept(entry.events.len());
                }
                Ok(())
            }
            Err(error) => {
                let refusal = Refusal {
                    plugin: self.plugin,
                    reason: reason(&error),
                    message: with_cause(&error),
                };
                self.counters
                    .plugin_error(&refusal, entry.events.iter().map(Emission::event));
                Err(vec![refusal])
            }
        };
        if let Some(done) = entry.done {
            // Where nobody waits any more, it was counted.
            done.send(end).ok();
        }
    }
}

/// What upstream's buffer says.
pub(crate) const STOPPED: &str = "audit backend shut down";

/// The class of a failure.
pub(crate) fn reason(error: &NotKept) -> Reason {
    match error.reason() {
        "queue_full" => Reason::QueueFull,
        "too_large" => Reason::TooLarge,
        "shut_down" => Reason::ShutDown,
        _ => Reason::Write,
    }
}

/// An error's text with those behind it.
pub(crate) fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The event's line to keep, without a body that cannot be printed; or why there is none.
pub(crate) fn kept_line(emission: &Emission<'_>, counters: &Counters) -> Result<Emission<'static>, String> {
    let Err(error) = emission.line() else {
        return Ok(emission.keep_line());
    };
    let Some((event, _)) = emission.event().without_unprintable_bodies() else {
        return Err(error.to_string());
    };
    let kept = Emission::owned(event).by_rule(emission.rule());
    kept.line().map_err(ToString::to_string)?;
    counters.body_left_out();
    Ok(kept.keep_line())
}
