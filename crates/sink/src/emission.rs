//! One event on its way to the sinks.

use std::cell::OnceCell;

use kaudit_event::{EncodeError, Event};

/// An event and its JSON line, which is encoded at most once however many sinks want it.
#[derive(Debug)]
pub struct Emission<'a> {
    event: &'a Event,
    line: OnceCell<Result<Vec<u8>, EncodeError>>,
}

impl<'a> Emission<'a> {
    /// An event that nobody has encoded yet.
    #[must_use]
    pub const fn new(event: &'a Event) -> Self {
        Self {
            event,
            line: OnceCell::new(),
        }
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &'a Event {
        self.event
    }

    /// The log line of format `json`, with its final LF.
    ///
    /// # Errors
    ///
    /// The encoder's error, the same for every caller.
    pub fn line(&self) -> Result<&[u8], &EncodeError> {
        self.line
            .get_or_init(|| {
                let mut line = Vec::with_capacity(1024);
                self.event.write_json_line(&mut line).map(|()| line)
            })
            .as_ref()
            .map(Vec::as_slice)
    }
}
