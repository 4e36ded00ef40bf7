//! Byte-exact encoding: the JSON line, the EventList item, the legacy line.

use crate::Event;

/// Why an event could not be encoded. The text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A body is not JSON, or a timestamp is out of range.
    #[error("{0}")]
    Json(String),
}

impl Event {
    /// Appends the log line of format `json` with its final LF.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] with the text of Go's encoder; then nothing is appended.
    pub fn write_json_line(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(b'\n');
        Ok(())
    }

    /// Appends the event as an item of an EventList: with its own type meta, without LF.
    ///
    /// # Errors
    ///
    /// As [`Event::write_json_line`].
    pub fn write_json_item(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(b"{}");
        Ok(())
    }

    /// Appends the log line of format `legacy` with its final LF.
    pub fn write_legacy_line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
    }
}
