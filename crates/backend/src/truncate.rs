//! Takes the bodies out of events that are too large, and drops those that are too large without them.
//!
//! Source: k8s.io/apiserver plugin/pkg/audit/truncate/truncate.go.

use std::sync::Arc;

use kaudit_event::{Event, Level};
use kaudit_sink::{
    Counters, Emission, Outcome, Reason, Refusal, Reservation, Reserve, Sink, annotate_truncated,
};

/// Bounds in bytes of encoded JSON. An event counts with its type meta and final LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the two numbers of upstream's flags")]
pub struct TruncateConfig {
    /// Largest event.
    pub max_event_size: usize,
    /// Largest batch, as the sum of its events; a larger single event still goes out, alone.
    pub max_batch_size: usize,
}

/// Bounds the size of what its delegate gets.
///
/// An event over the bound of level Request or above loses both bodies and is annotated
/// `audit.k8s.io/truncated`; what is too large even then, and any other event over the bound, is dropped
/// and counted, and the outcome is not worse for it.
#[derive(Debug)]
pub struct Truncate {
    delegate: Arc<dyn Sink>,
    config: TruncateConfig,
    counters: Arc<Counters>,
}

/// An event that may be handed on, or why not.
type Measured<'e> = Result<(Measure<'e>, usize), (Reason, String)>;

enum Measure<'e> {
    AsItIs(&'e Emission<'e>),
    WithoutBodies(Emission<'static>),
}

impl Truncate {
    /// Bounds what `delegate` gets.
    #[must_use]
    pub fn new(delegate: Arc<dyn Sink>, config: TruncateConfig, counters: Arc<Counters>) -> Self {
        Self {
            delegate,
            config,
            counters,
        }
    }

    /// As [`Sink::submit_batch`], for a producer that looks at the
    /// [marks](Emission::is_marked_truncated) of its events afterwards.
    pub fn submit_all(&self, batch: &[Emission<'_>]) -> Outcome {
        let mut outcome = Outcome::Accepted;
        let mut dropped = Vec::new();
        let mut next = Vec::new();
        let mut next_size = 0;
        for emission in batch {
            let (measured, size) = match self.measure(emission) {
                Ok(measured) => measured,
                Err(error) => {
                    dropped.push((emission.event(), error));
                    continue;
                }
            };
            if !next.is_empty() && next_size + size > self.config.max_batch_size {
                outcome = outcome.and(self.delegate.submit_batch(std::mem::take(&mut next)));
                next_size = 0;
            }
            next.push(match measured {
                Measure::AsItIs(emission) => emission.share(),
                Measure::WithoutBodies(truncated) => truncated,
            });
            next_size += size;
        }
        if !next.is_empty() {
            outcome = outcome.and(self.delegate.submit_batch(next));
        }
        if !dropped.is_empty() {
            self.report(&dropped);
        }
        outcome
    }

    fn measure<'e>(&self, emission: &'e Emission<'e>) -> Measured<'e> {
        let size = size(emission)?;
        let maximum = self.config.max_event_size;
        if size <= maximum {
            return Ok((Measure::AsItIs(emission), size));
        }
        if emission
            .event()
            .level
            .known()
            .is_some_and(|level| level >= Level::Request)
        {
            let mut event = emission.event().clone();
            event.request_object = None;
            event.response_object = None;
            annotate_truncated(&mut event);
            emission.mark_truncated();
            let truncated = Emission::owned(event).by_rule(emission.rule());
            let size = self::size(&truncated)?;
            if size <= maximum {
                self.counters.event_truncated();
                return Ok((Measure::WithoutBodies(truncated), size));
            }
        }
        let message = "event is too large even after truncating".to_owned();
        Err((Reason::TooLarge, message))
    }

    /// Counts and reports what was dropped; errors are joined, equal ones once.
    fn report(&self, dropped: &[(&Event, (Reason, String))]) {
        let mut messages: Vec<&str> = Vec::new();
        for (_, (_, message)) in dropped {
            if !messages.contains(&message.as_str()) {
                messages.push(message);
            }
        }
        let message = match messages.as_slice() {
            [single] => (*single).to_owned(),
            several => format!("[{}]", several.join(", ")),
        };
        for reason in [Reason::Encode, Reason::TooLarge] {
            let of_this: Vec<&Event> = dropped
                .iter()
                .filter(|(_, (why, _))| *why == reason)
                .map(|(event, _)| *event)
                .collect();
            if !of_this.is_empty() {
                let refusal = Refusal {
                    plugin: "truncate",
                    reason,
                    message: message.clone(),
                };
                self.counters.plugin_error(&refusal, of_this);
            }
        }
    }
}

fn size(emission: &Emission<'_>) -> Result<usize, (Reason, String)> {
    emission
        .line()
        .map(<[u8]>::len)
        .map_err(|error| (Reason::Encode, error.to_string()))
}

impl Sink for Truncate {
    fn reserve(&self, events: u32) -> Reserve {
        self.delegate.reserve(events)
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        match self.measure(emission) {
            Ok((Measure::AsItIs(emission), _)) => self.delegate.submit(emission, reservation),
            Ok((Measure::WithoutBodies(truncated), _)) => self.delegate.submit(&truncated, reservation),
            Err(error) => {
                self.report(&[(emission.event(), error)]);
                Outcome::Accepted
            }
        }
    }

    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        self.submit_all(&batch)
    }

    fn name(&self) -> String {
        format!("truncate<{}>", self.delegate.name())
    }

    fn shutdown(&self) {
        self.delegate.shutdown();
    }
}
