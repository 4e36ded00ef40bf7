//! The log backend: one event, one line, one write.
//!
//! Source: k8s.io/apiserver plugin/pkg/audit/log/backend.go and pkg/server/options/audit.go.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kaudit_sink::{Counters, Emission, Outcome, Reason, Refusal, Reservation, Reserve, Sink};

use crate::rotate::{RotatingFile, Rotation, RotationError};

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

    fn write(&self, line: &[u8]) -> Result<(), (Reason, String)> {
        match &mut *self.output.lock().unwrap_or_else(PoisonError::into_inner) {
            Output::File(file) => file.write_line(line).map_err(|error| match error {
                RotationError::TooLarge { .. } => (Reason::TooLarge, error.to_string()),
                RotationError::Io(error) => (Reason::Write, error.to_string()),
            }),
            Output::Stream(stream) => stream
                .write_all(line)
                .and_then(|()| stream.flush())
                .map_err(|error| (Reason::Write, error.to_string())),
        }
    }

    /// The event's line; without a body that cannot be printed, if that is what is wrong with it.
    fn with_line<T>(
        &self,
        emission: &Emission<'_>,
        use_line: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, (Reason, String)> {
        let event = emission.event();
        if self.format == Format::Legacy {
            let mut line = Vec::with_capacity(512);
            event.write_legacy_line(&mut line);
            return Ok(use_line(&line));
        }
        match emission.line() {
            Ok(line) => Ok(use_line(line)),
            Err(error) => {
                let printable = event.without_unprintable_bodies().and_then(|(event, _)| {
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

impl Sink for Log {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        let written = self
            .with_line(emission, |line| self.write(line))
            .and_then(|written| written);
        match written {
            Ok(()) => Outcome::Accepted,
            Err((reason, message)) => {
                let refusal = Refusal {
                    plugin: "log",
                    reason,
                    message,
                };
                self.counters
                    .plugin_error(&refusal, std::slice::from_ref(emission.event()));
                Outcome::Refused(vec![refusal])
            }
        }
    }

    fn name(&self) -> String {
        "log".to_owned()
    }

    fn shutdown(&self) {
        if let Output::File(file) = &mut *self.output.lock().unwrap_or_else(PoisonError::into_inner) {
            file.close();
        }
    }
}
