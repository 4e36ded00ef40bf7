//! The task that delivers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kaudit_journal::{Gap, GapReason, Item, ReadError, Reader, Seq};
use kaudit_sink::{Emission, Reason, Refusal};
use tokio::time::Instant;

use super::record::Waiting;
use super::{PLUGIN, Shared};
use crate::settler::with_cause;

/// The cursor is written at most so often, unless events were lost.
const ADVANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Between looks at the bounds while nothing is delivered.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A part of the disk that cannot be read is given up after so many tries.
const READ_TRIES: u32 = 5;

/// Events that are lost and reported together.
const REPORTED: usize = 400;

pub(super) struct Worker {
    shared: Arc<Shared>,
    /// Absent while a thread reads.
    reader: Option<Reader>,
    /// What was read and is neither delivered nor lost.
    batch: VecDeque<(Seq, Waiting)>,
    read_failures: u32,
    last_delivery: Instant,
    last_advance: Instant,
    backoff: Duration,
    /// When the shutdown ends.
    until: Option<Instant>,
}

/// What one reading brought.
struct Read {
    reader: Reader,
    records: Vec<(Seq, Option<Waiting>)>,
    gaps: Vec<Gap>,
    error: Option<ReadError>,
}

/// Reads events of at most so many and so many bytes, at least one.
fn read(mut reader: Reader, max_events: usize, max_bytes: usize) -> Read {
    let (mut records, mut gaps, mut error) = (Vec::new(), Vec::new(), None);
    let mut bytes = 0;
    while records.len() < max_events && bytes < max_bytes {
        match reader.next() {
            Ok(Some(Item::Record { seq, payload, .. })) => {
                bytes += payload.len();
                records.push((seq, Waiting::read(payload)));
            }
            Ok(Some(Item::Gap(gap))) => gaps.push(gap),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(failed) => {
                error = Some(failed);
                break;
            }
        }
    }
    Read {
        reader,
        records,
        gaps,
        error,
    }
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let reader = shared.journal.reader(shared.cursor.position());
        let now = Instant::now();
        Self {
            backoff: shared.options.initial_backoff,
            shared,
            reader: Some(reader),
            batch: VecDeque::new(),
            read_failures: 0,
            last_delivery: now,
            last_advance: now,
            until: None,
        }
    }

    /// Delivers until it is told to stop and everything is delivered, or something fails then.
    pub(super) async fn run(mut self) {
        loop {
            self.look_at_bounds().await;
            self.fill().await;
            if self.shared.stop.is_cancelled() && self.until.is_none() {
                self.until = Some(Instant::now() + self.shared.options.drain);
            }
            if self.batch.is_empty() {
                let is_all = self.position() >= self.shared.journal.durable();
                if self.until.is_some_and(|until| is_all || Instant::now() >= until) {
                    break;
                }
                self.rest().await;
                continue;
            }
            if !self.is_full() && self.until.is_none() && !self.wait_for_more().await {
                continue;
            }
            let attempt = self.attempt().await;
            let is_over = self.until.is_some_and(|until| Instant::now() >= until);
            match attempt {
                Ok(()) => self.delivered().await,
                Err(error) => {
                    self.failed(error);
                    if self.shared.stop.is_cancelled() {
                        break;
                    }
                    self.back_off().await;
                }
            }
            if is_over {
                break;
            }
        }
        self.advance().await;
    }

    /// The first event that is neither delivered nor lost.
    fn position(&self) -> Seq {
        match self.batch.front() {
            Some((seq, _)) => *seq,
            None => self
                .reader
                .as_ref()
                .map_or_else(|| self.shared.status().position, Reader::position),
        }
    }

    fn batch_bytes(&self) -> usize {
        self.batch.iter().map(|(_, waiting)| waiting.bytes()).sum()
    }

    fn is_full(&self) -> bool {
        let options = &self.shared.options;
        self.batch.len() >= options.max_batch_events.max(1) || self.batch_bytes() >= options.max_batch_bytes
    }

    /// Says where the spool stands.
    fn note(&self) {
        let position = self.position();
        {
            let mut status = self.shared.status();
            status.position = position;
            status.oldest_micros = self.batch.front().map(|(_, waiting)| waiting.queued_micros);
        }
        let backlog = self.shared.journal.durable().since(position);
        self.shared
            .counters
            .queued(usize::try_from(backlog).unwrap_or(usize::MAX));
    }

    /// Reads until the batch is full or nothing more is there.
    async fn fill(&mut self) {
        while !self.is_full() {
            let options = &self.shared.options;
            let events = options.max_batch_events.max(1) - self.batch.len();
            let bytes = options.max_batch_bytes.saturating_sub(self.batch_bytes()).max(1);
            if self.read(events, bytes).await == 0 {
                break;
            }
        }
        self.note();
    }

    /// Reads some events into the batch; how many numbers that took.
    async fn read(&mut self, events: usize, bytes: usize) -> u64 {
        let Some(reader) = self.reader.take() else {
            return 0;
        };
        let before = reader.position();
        let reading = tokio::task::spawn_blocking(move || read(reader, events, bytes));
        let Ok(read) = reading.await else {
            // It panicked, or the runtime ends: go on from what is known.
            self.reader = Some(self.shared.journal.reader(before));
            return 0;
        };
        let passed = read.reader.position().since(before);
        self.reader = Some(read.reader);
        for gap in read.gaps {
            self.gap(gap);
        }
        for (seq, waiting) in read.records {
            match waiting {
                Some(waiting) => self.batch.push_back((seq, waiting)),
                None => self.lost_unnamed(Reason::Corrupt, 1, "a record of the spool is of another kind"),
            }
        }
        match read.error {
            None => self.read_failures = 0,
            Some(error) => self.cannot_read(&error).await,
        }
        passed
    }

    async fn cannot_read(&mut self, error: &ReadError) {
        self.read_failures += 1;
        tracing::warn!(
            tries = self.read_failures,
            "cannot read the spool: {}",
            with_cause(error)
        );
        if self.read_failures >= READ_TRIES {
            self.read_failures = 0;
            if let Some(reader) = &mut self.reader {
                reader.skip_unreadable();
            }
        } else {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn gap(&mut self, gap: Gap) {
        let events = gap.to.since(gap.from);
        match gap.reason {
            GapReason::Expired => {
                self.lost_unnamed(
                    Reason::SpoolFull,
                    events,
                    "the spool is full: its oldest events made room",
                );
            }
            _ => self.lost_unnamed(
                Reason::Corrupt,
                events,
                "events of the spool cannot be read any more",
            ),
        }
    }

    fn lost_unnamed(&self, reason: Reason, events: u64, message: &str) {
        *self.shared.status().evicted.entry(reason).or_default() += events;
        self.shared
            .counters
            .lost_unnamed(&refusal(reason, message), events);
    }

    fn lost(&self, reason: Reason, message: &str, events: &[Waiting]) {
        if events.is_empty() {
            return;
        }
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        *self.shared.status().evicted.entry(reason).or_default() += count;
        let emissions: Vec<Emission<'static>> = events.iter().map(Waiting::emission).collect();
        self.shared
            .counters
            .plugin_error(&refusal(reason, message), emissions.iter().map(Emission::event));
    }

    fn has_too_many_bytes(&self) -> bool {
        let max_bytes = self.shared.options.journal().max_bytes;
        self.shared.journal.bytes_from(self.position()) > max_bytes - max_bytes / 8
    }

    /// Lets the oldest events go that are beyond a bound.
    async fn look_at_bounds(&mut self) {
        let before = self.position();
        let mut lost = Vec::new();
        while self.has_too_many_bytes() {
            if let Some((_, waiting)) = self.batch.pop_front() {
                lost.push(waiting);
            } else if self.read(REPORTED, usize::MAX).await == 0 {
                break;
            }
            if lost.len() >= REPORTED {
                self.lost(Reason::SpoolFull, FULL, &lost);
                lost.clear();
            }
        }
        self.lost(Reason::SpoolFull, FULL, &lost);
        loop {
            let lost: Vec<Waiting> = self.too_old();
            if lost.is_empty() {
                break;
            }
            let message = format!(
                "it waited longer than {} s",
                self.shared.options.max_age.as_secs()
            );
            self.lost(Reason::SpoolAge, &message, &lost);
            if self.batch.is_empty() {
                self.read(REPORTED, self.shared.options.max_batch_bytes.max(1))
                    .await;
            }
        }
        if self.position() > before {
            self.note();
            self.advance().await;
        }
    }

    /// Takes those out of the batch that have waited too long.
    fn too_old(&mut self) -> Vec<Waiting> {
        let max_age = i64::try_from(self.shared.options.max_age.as_micros()).unwrap_or(i64::MAX);
        let oldest = (self.shared.options.clock)().saturating_sub(max_age);
        let mut old = Vec::new();
        while let Some((_, waiting)) = self
            .batch
            .pop_front_if(|(_, waiting)| waiting.queued_micros < oldest)
        {
            old.push(waiting);
        }
        old
    }

    /// Nothing is there: writes the cursor, and waits for something.
    async fn rest(&mut self) {
        let stop = self.shared.stop.clone();
        if self.shared.cursor.position() < self.position() {
            tokio::select! {
                () = tokio::time::sleep_until(self.last_advance + ADVANCE_INTERVAL) => self.advance().await,
                () = stop.cancelled(), if self.until.is_none() => {}
            }
            return;
        }
        tokio::select! {
            _ = self.shared.journal.wait_durable(self.position()) => {}
            () = stop.cancelled(), if self.until.is_none() => {}
        }
    }

    /// Whether the batch is to be delivered although it is not full.
    async fn wait_for_more(&mut self) -> bool {
        let options = &self.shared.options;
        let due = self.last_delivery + options.max_batch_wait;
        if Instant::now() >= due {
            return true;
        }
        let wanted = u64::try_from(options.max_batch_events).unwrap_or(u64::MAX);
        let last = self.position().plus(wanted.saturating_sub(1));
        let stop = self.shared.stop.clone();
        let look = Instant::now() + LOOK_INTERVAL;
        tokio::select! {
            () = tokio::time::sleep_until(due.min(look)) => {}
            _ = self.shared.journal.wait_durable(last) => {}
            () = stop.cancelled() => {}
        }
        false
    }

    async fn attempt(&self) -> Result<(), String> {
        let batch = self.batch.iter().map(|(_, waiting)| waiting.emission()).collect();
        let attempt = self.shared.deliver.attempt(batch);
        let (stop, drain) = (self.shared.stop.clone(), self.shared.options.drain);
        let stopped = async move {
            stop.cancelled().await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            end = attempt => end,
            () = stopped => Err("there is no time left before the end of the process".to_owned()),
        }
    }

    async fn delivered(&mut self) {
        let events = self.batch.len();
        self.batch.clear();
        self.shared.counters.kept(events);
        {
            let mut status = self.shared.status();
            status.delivered_batches += 1;
            status.delivered_events += u64::try_from(events).unwrap_or_default();
            status.failures_in_a_row = 0;
            status.last_error = None;
        }
        self.note();
        self.backoff = self.shared.options.initial_backoff;
        self.last_delivery = Instant::now();
        if self.last_delivery.duration_since(self.last_advance) >= ADVANCE_INTERVAL {
            self.advance().await;
        }
    }

    fn failed(&self, error: String) {
        let failures = {
            let mut status = self.shared.status();
            status.failures_in_a_row += 1;
            status.last_error = Some(error.clone());
            status.failures_in_a_row
        };
        tracing::warn!(
            failures,
            events = self.batch.len(),
            backlog = self.shared.journal.durable().since(self.position()),
            "{} did not take a batch, which stays in the spool: {error}",
            self.shared.deliver.name()
        );
    }

    /// Waits before the next attempt, and looks at the bounds meanwhile.
    async fn back_off(&mut self) {
        let options = &self.shared.options;
        let jitter = (options.jitter)().clamp(0.0, 1.0);
        let until = Instant::now() + self.backoff.mul_f64(1.0 + 0.2 * jitter);
        self.backoff = self.backoff.mul_f64(1.5).min(options.max_backoff);
        let stop = self.shared.stop.clone();
        while Instant::now() < until && !stop.is_cancelled() {
            let next = until.min(Instant::now() + LOOK_INTERVAL);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = stop.cancelled() => {}
            }
            self.look_at_bounds().await;
        }
    }

    /// Writes down how far it has come.
    async fn advance(&mut self) {
        self.last_advance = Instant::now();
        let (cursor, to) = (self.shared.cursor.clone(), self.position());
        if cursor.position() >= to {
            return;
        }
        match tokio::task::spawn_blocking(move || cursor.advance(to)).await {
            Ok(Ok(())) => self.shared.journal.release(),
            Ok(Err(error)) => {
                tracing::warn!(
                    "what was delivered may be delivered again: {}",
                    with_cause(&error)
                );
            }
            // The runtime ends.
            Err(_) => {}
        }
    }
}

const FULL: &str = "the spool is full: its oldest events made room";

fn refusal(reason: Reason, message: &str) -> Refusal {
    Refusal {
        plugin: PLUGIN,
        reason,
        message: message.to_owned(),
    }
}
