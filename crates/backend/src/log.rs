//! The log backend: one event, one line, one write; a batch is one write.
//!
//! Source: k8s.io/apiserver plugin/pkg/audit/log/backend.go and pkg/server/options/audit.go.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kaudit_sink::{Counters, Emission, Outcome, Reason, Refusal, Refusals, Reservation, Reserve, Sink};

use crate::rotate::{RotatingFile, Rotation, RotationError};

/// Bytes that a batch writes at once, unless one line is longer.
const MAX_WRITE: usize = 1 << 20;

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "upstream has these two")]
pub enum Format {
    /// One JSON document per line.
    #[default]
    Json,
    /// One line of text.
    Legacy,
}

/// Why the log cannot be opened. The text is upstream's.
#[derive(Debug, thiserror::Error)]
#[error("ensureLogFile: cannot create or open `{}`", path.display())]
pub struct LogError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Writes events to a file or a stream.
pub struct Log {
    format: Format,
    output: Mutex<Output>,
    counters: Arc<Counters>,
}

enum Output {
    File(RotatingFile),
    Stream(Box<dyn Write + Send>),
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// A log in the file at `path`, which is created with mode 0600, its directories with 0700.
    ///
    /// # Errors
    ///
    /// [`LogError`] when the file cannot be created or opened for writing.
    pub fn file(
        path: &Path,
        rotation: Rotation,
        format: Format,
        counters: Arc<Counters>,
    ) -> Result<Self, LogError> {
        let file = RotatingFile::open(path, rotation).map_err(|source| LogError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            format,
            output: Mutex::new(Output::File(file)),
            counters,
        })
    }

    /// A log on a stream, for example standard output.
    #[must_use]
    pub fn stream(stream: Box<dyn Write + Send>, format: Format, counters: Arc<Counters>) -> Self {
        Self {
            format,
            output: Mutex::new(Output::Stream(stream)),
            counters,
        }
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event's line; without a body that cannot be printed, if that is what is wrong with it.
    fn with_line<T>(
        &self,
        emission: &Emission<'_>,
        use_line: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, (Reason, String)> {
        if self.format == Format::Legacy {
            let mut line = Vec::with_capacity(512);
            emission.event().write_legacy_line(&mut line);
            return Ok(use_line(&line));
        }
        match emission.line() {
            Ok(line) => Ok(use_line(line)),
            Err(error) => {
                let printable = emission
                    .event()
                    .without_unprintable_bodies()
                    .and_then(|(event, _)| {
                        let mut line = Vec::new();
                        event.write_json_line(&mut line).is_ok().then_some(line)
                    });
                let Some(line) = printable else {
                    return Err((Reason::Encode, error.to_string()));
                };
                self.counters.body_left_out();
                Ok(use_line(&line))
            }
        }
    }
}

/// Lines that are written at once.
struct Group<'b> {
    bytes: Vec<u8>,
    events: Vec<&'b Emission<'b>>,
}

impl Output {
    /// Whether `length` more bytes behind `pending` ones go to the same file.
    fn takes(&self, pending: usize, length: usize) -> bool {
        pending + length <= MAX_WRITE
            && match self {
                Self::File(file) => file.takes((pending + length) as u64),
                Self::Stream(_) => true,
            }
    }

    fn write(&mut self, line: &[u8]) -> Result<(), (Reason, String)> {
        match self {
            Self::File(file) => file.write_line(line).map_err(|error| match error {
                RotationError::TooLarge { .. } => (Reason::TooLarge, error.to_string()),
                RotationError::Io(error) => (Reason::Write, error.to_string()),
            }),
            Self::Stream(stream) => stream
                .write_all(line)
                .and_then(|()| stream.flush())
                .map_err(|error| (Reason::Write, error.to_string())),
        }
    }
}

impl Log {
    fn refuse(&self, (reason, message): (Reason, String), events: &[&Emission<'_>]) -> Refusals {
        let refusal = Refusal {
            plugin: "log",
            reason,
            message,
        };
        self.counters
            .plugin_error(&refusal, events.iter().map(|emission| emission.event()));
        vec![refusal; events.len()]
    }

    fn write_group(&self, output: &mut Output, group: &mut Group<'_>, refusals: &mut Refusals) {
        if !group.events.is_empty() {
            match output.write(&group.bytes) {
                Ok(()) => self.counters.kept(group.events.len()),
                Err(error) => refusals.extend(self.refuse(error, &group.events)),
            }
        }
        group.bytes.clear();
        group.events.clear();
    }
}

impl Sink for Log {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        let written = self
            .with_line(emission, |line| self.output().write(line))
            .and_then(|written| written);
        match written {
            Ok(()) => {
                self.counters.kept(1);
                Outcome::Accepted
            }
            Err(error) => Outcome::Refused(self.refuse(error, &[emission])),
        }
    }

    /// One write for as many lines as fit before the next rotation.
    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        let mut refusals = Refusals::new();
        // A line of text is made when it is written; how long it will be nobody knows.
        let lines = batch.iter().filter(|_| self.format == Format::Json);
        let length: usize = lines
            .filter_map(|emission| Some(emission.line().ok()?.len()))
            .sum();
        let mut group = Group {
            bytes: Vec::with_capacity(length.min(MAX_WRITE)),
            events: Vec::with_capacity(batch.len()),
        };
        let mut output = self.output();
        for emission in &batch {
            let line = self.with_line(emission, |line| {
                if !output.takes(group.bytes.len(), line.len()) {
                    self.write_group(&mut output, &mut group, &mut refusals);
                }
                group.bytes.extend_from_slice(line);
                group.events.push(emission);
            });
            if let Err(error) = line {
                refusals.extend(self.refuse(error, &[emission]));
            }
        }
        self.write_group(&mut output, &mut group, &mut refusals);
        Outcome::of(refusals)
    }

    fn takes_lines(&self) -> bool {
        self.format == Format::Json
    }

    fn name(&self) -> String {
        "log".to_owned()
    }

    fn shutdown(&self) {
        if let Output::File(file) = &mut *self.output() {
            file.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kaudit_event::Event;
    use kaudit_sink::conformance::{self, Subject};

    /// Remembers every write.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ids(text: &[u8]) -> Vec<String> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let line: serde_json::Value = serde_json::from_slice(line).unwrap();
                line["auditID"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn it_passes_the_conformance_suite() {
        conformance::check(|| {
            let writes = Writes::default();
            let counters = Arc::new(Counters::default());
            let log = Log::stream(Box::new(writes.clone()), Format::Json, Arc::clone(&counters));
            Subject {
                sink: Arc::new(log),
                counters,
                kept: Box::new(move || ids(&writes.0.lock().unwrap().concat())),
            }
        });
    }

    #[test]
    fn a_batch_is_one_write() {
        let writes = Writes::default();
        let log = Log::stream(Box::new(writes.clone()), Format::Json, Arc::default());
        let events: Vec<Event> = (0..100).map(|number| conformance::event(0, number)).collect();
        assert!(
            log.submit_batch(events.iter().map(Emission::new).collect())
                .is_accepted()
        );
        let written = writes.0.lock().unwrap().clone();
        assert_eq!(written.len(), 1);
        assert_eq!(ids(&written.concat()).len(), 100);
    }

    #[test]
    fn a_batch_rotates_where_its_lines_one_by_one_would() {
        let event = |number: usize| Event {
            user_agent: "x".repeat(100_000 + number).into(),
            ..conformance::event(0, number)
        };
        let events: Vec<Event> = (0..40).map(event).collect();
        let dir = tempfile::tempdir().unwrap();
        let sizes = |name: &str, submit: &dyn Fn(&Log)| {
            let path = dir.path().join(name).join("audit.log");
            let rotation = Rotation {
                max_size_megabytes: 1,
                ..Rotation::default()
            };
            let log = Log::file(&path, rotation, Format::Json, Arc::default()).unwrap();
            submit(&log);
            log.shutdown();
            std::fs::metadata(path).unwrap().len()
        };
        // The active file's size tells where the last rotation was; names of rotated files hold the time.
        let singly = sizes("singly", &|log| {
            for event in &events {
                assert!(
                    log.submit(&Emission::new(event), &mut Reservation::none())
                        .is_accepted()
                );
            }
        });
        let at_once = sizes("at-once", &|log| {
            let batch = events.iter().map(Emission::new).collect();
            assert!(log.submit_batch(batch).is_accepted());
        });
        assert_eq!(singly, at_once);
    }
}
