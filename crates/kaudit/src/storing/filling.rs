//! From the journal into memory, and from there to files.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kaudit_collect::now_micros;
use kaudit_journal::{Cursor, Journal, Seq, State};
use kaudit_store::CaughtUp;
use tracing::{debug, warn};

use super::Inner;
use super::ending::Haste;
use super::health::{Doing, Failed};

/// Pauses after failures.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Without anything to do the thread looks around so often.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// While events are sealed, the journal is looked at so often.
const LOOK: Duration = Duration::from_millis(10);

/// The last work may take so long; what is not done then stays in the journal.
const LAST_WORK: Duration = Duration::from_secs(10);

/// When something that failed is tried again.
#[derive(Debug, Default)]
struct Retry {
    pause: Duration,
    at: Option<Instant>,
}

impl Retry {
    fn failed(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.at = Some(Instant::now() + self.pause);
    }

    fn worked(&mut self) {
        *self = Self::default();
    }

    /// How long it is not to be tried yet.
    fn left(&self) -> Duration {
        self.at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }
}

/// Runs until the end is to come, and then until everything is sealed.
pub(super) fn run(inner: &Arc<Inner>, journal: &Journal, mut cursor: Option<Cursor>) {
    let (mut reading, mut sealing) = (Retry::default(), Retry::default());
    // Since when there is something unsealed.
    let mut since: Option<Instant> = None;
    let mut last_work: Option<Instant> = None;
    loop {
        let haste = inner.ending.haste();
        let is_last = haste > Haste::None;
        let until = is_last.then(|| *last_work.get_or_insert_with(|| Instant::now() + LAST_WORK));
        if haste == Haste::AtOnce || until.is_some_and(|until| until < Instant::now()) {
            return;
        }
        let caught_up = read(inner, journal, &mut reading);
        let read_to = inner.store.snapshot().read_to();
        if read_to > inner.store.manifest().sealed_to {
            since.get_or_insert_with(Instant::now);
        }
        let age = since.map(|since| since.elapsed());
        let is_due = match caught_up {
            Ok(CaughtUp::Full) => true,
            _ => is_last || age.is_some_and(|age| age >= inner.settings.seal_after),
        };
        let may_seal = since.is_some() && (is_last || sealing.left().is_zero());
        if is_due && may_seal && seal(inner, journal, &mut cursor, &mut reading, &mut sealing).is_ok() {
            since = None;
            // More may have been read meanwhile.
            let is_all = inner.store.snapshot().read_to() <= inner.store.manifest().sealed_to;
            if !is_last || caught_up == Ok(CaughtUp::Full) || !is_all {
                continue;
            }
        }
        if is_last {
            return;
        }
        // Sealing is due then, or is tried again.
        let seal_in = age.map_or(LONGEST_REST, |age| {
            inner.settings.seal_after.saturating_sub(age).max(sealing.left())
        });
        match caught_up {
            Ok(CaughtUp::End) if !matches!(journal.state(), State::Closed) => {
                let timeout = seal_in.min(LONGEST_REST).max(Duration::from_millis(1));
                let _durable: Seq = journal.wait_durable_timeout(Seq::new(read_to), timeout);
            }
            // A closed journal has nothing to wait for, and a full memory has to be sealed first.
            Ok(CaughtUp::End) => drop(inner.ending.rest(seal_in.min(LONGEST_REST))),
            Ok(_) => drop(inner.ending.rest(sealing.left())),
            Err(Failed) => drop(inner.ending.rest(reading.left().min(seal_in))),
        }
    }
}

fn read(inner: &Inner, journal: &Journal, retry: &mut Retry) -> Result<CaughtUp, Failed> {
    if !retry.left().is_zero() {
        return Err(Failed);
    }
    let caught_up = inner
        .health
        .attempt(Doing::Reading, || inner.store.catch_up(journal));
    match caught_up {
        Ok(_) => retry.worked(),
        Err(Failed) => retry.failed(),
    }
    // What was read before a failure is there.
    let read_to = inner.store.snapshot().read_to();
    inner.grown.send_if_modified(|to| {
        let has_grown = *to < read_to;
        *to = (*to).max(read_to);
        has_grown
    });
    caught_up
}

fn seal(
    inner: &Inner,
    journal: &Journal,
    cursor: &mut Option<Cursor>,
    reading: &mut Retry,
    retry: &mut Retry,
) -> Result<(), Failed> {
    let began = Instant::now();
    let mut work = || {
        inner.health.attempt(Doing::Sealing, || {
            let cursor = match cursor {
                Some(cursor) => cursor,
                // On a disk that was full at the start.
                None => cursor.insert(inner.store.cursor(journal)?),
            };
            inner.store.seal(cursor, now_micros())
        })
    };
    let sealed = std::thread::scope(|scope| {
        let (done, is_done) = mpsc::sync_channel::<()>(1);
        let named = std::thread::Builder::new().name("store-seal".to_owned());
        let thread = named.spawn_scoped(scope, move || {
            let _done = done;
            work()
        });
        let Ok(thread) = thread else {
            return Err(Failed);
        };
        // What comes meanwhile can be seen meanwhile. The channel ends with the work.
        while is_done.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
            // A failure is counted, and the next look tries again.
            let _caught_up: Result<CaughtUp, Failed> = read(inner, journal, reading);
        }
        thread.join().unwrap_or(Err(Failed))
    });
    let took = began.elapsed();
    match sealed {
        Ok(sealed) => {
            retry.worked();
            inner.health.note(|figures| {
                figures.seals += 1;
                figures.sealed_files += u64::try_from(sealed.parts.len()).unwrap_or(u64::MAX);
                figures.seal_time += took;
            });
            let (files, duplicates) = (sealed.parts.len(), sealed.duplicates);
            debug!(to = sealed.to, files, duplicates, ?took, "sealed");
            if sealed.unread > 0 {
                let files = sealed.unread;
                warn!(
                    files,
                    "cannot look for duplicates in files that cannot be read: what is in them may be kept twice"
                );
            }
            Ok(())
        }
        Err(Failed) => {
            retry.failed();
            Err(Failed)
        }
    }
}
