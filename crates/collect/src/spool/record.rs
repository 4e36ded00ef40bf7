//! An event as it waits on disk.
//!
//! ```text
//! u8   version (1)
//! i64  queued, microseconds since 1970 in UTC, little-endian as the lengths
//! u16  length, and the kind of the event itself
//! u16  length, and its API version
//! rest the event's line with its LF
//! ```

use bytes::{Buf, Bytes};
use kaudit_event::Text;
use kaudit_sink::Emission;

const VERSION: u8 = 1;

/// An event that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) queued_micros: i64,
    kind: Text,
    api_version: Text,
    line: Bytes,
}

/// Appends an event that is kept as its line.
pub(super) fn write(emission: &Emission<'_>, now_micros: i64, out: &mut Vec<u8>) -> Result<(), String> {
    let line = emission.line().map_err(ToString::to_string)?;
    let (kind, api_version) = emission.type_meta();
    out.push(VERSION);
    out.extend_from_slice(&now_micros.to_le_bytes());
    for text in [kind, api_version] {
        let length = u16::try_from(text.as_bytes().len())
            .map_err(|_| "the event's type meta is too long".to_owned())?;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(line);
    Ok(())
}

impl Waiting {
    /// Reads what was written; `None` for anything else.
    pub(super) fn read(mut bytes: Bytes) -> Option<Self> {
        let version = bytes.try_get_u8().ok()?;
        let queued_micros = bytes.try_get_i64_le().ok()?;
        let mut text = || {
            let length = usize::from(bytes.try_get_u16_le().ok()?);
            (length <= bytes.len()).then(|| Text::from(bytes.split_to(length)))
        };
        let (kind, api_version) = (text()?, text()?);
        (version == VERSION).then_some(Self {
            queued_micros,
            kind,
            api_version,
            line: bytes,
        })
    }

    /// Bytes of its line.
    pub(super) fn bytes(&self) -> usize {
        self.line.len()
    }

    pub(super) fn emission(&self) -> Emission<'static> {
        Emission::of_line(self.line.clone(), self.kind.clone(), self.api_version.clone())
    }
}

#[cfg(test)]
mod tests {
    use kaudit_sink::conformance::event;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else_is() {
        let mut event = event(1, 2);
        event.kind = "Event".into();
        let emission = Emission::new(&event);
        let mut bytes = Vec::new();
        write(&emission, -7, &mut bytes).unwrap();
        let bytes = Bytes::from(bytes);
        let waiting = Waiting::read(bytes.clone()).unwrap();
        assert_eq!(waiting.queued_micros, -7);
        assert_eq!(waiting.emission().line(), emission.line());
        assert_eq!(waiting.emission().type_meta(), emission.type_meta());
        for end in 0..18 {
            assert!(Waiting::read(bytes.slice(..end)).is_none(), "{end}");
        }
        let mut other = bytes.to_vec();
        other[0] = 2;
        assert!(Waiting::read(other.into()).is_none());
    }
}
