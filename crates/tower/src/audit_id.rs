//! The ID that joins the events of a request, and the events of all servers it passes.

use std::cell::RefCell;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use kaudit_event::Text;
use tracing::error;

/// The header that carries it, on requests and responses.
pub(crate) static HEADER: HeaderName = HeaderName::from_static("audit-id");

/// The client's ID verbatim, or a new UUID.
pub(crate) fn of_request(parts: &Parts) -> Text {
    match parts.headers.get(&HEADER) {
        Some(id) if !id.is_empty() => Text::copy_from_slice(id.as_bytes()),
        _ => Text::from(IDS.with_borrow_mut(Ids::take)),
    }
}

/// The header's value; shares the text.
pub(crate) fn header_value(id: &Text) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(id.clone().into_bytes()).ok()
}

/// IDs that are made in one go: each by itself would be a system call for its random bytes, and an
/// allocation for its text.
struct Ids(Bytes);

/// So many at once; a text that is kept keeps the others of its batch in memory.
const BATCH: usize = 32;

/// Letters of a UUID's text.
const LETTERS: usize = 36;

thread_local! {
    static IDS: RefCell<Ids> = const { RefCell::new(Ids(Bytes::new())) };
}

impl Ids {
    fn take(&mut self) -> Bytes {
        if self.0.is_empty() {
            self.0 = batch();
        }
        self.0.split_to(LETTERS.min(self.0.len()))
    }
}

fn batch() -> Bytes {
    let mut random = [0; 16 * BATCH];
    // Without entropy IDs would repeat; they join events and prove nothing, so the request goes on.
    if getrandom::fill(&mut random).is_err() {
        error!("the system gives no random bytes: Audit-IDs are not unique");
    }
    let mut texts = Vec::with_capacity(LETTERS * BATCH);
    for bytes in random.as_chunks::<16>().0 {
        texts.extend_from_slice(&uuid_v4(*bytes));
    }
    Bytes::from(texts)
}

/// A UUID of version 4 from random bytes, lower-case with dashes.
fn uuid_v4(mut bytes: [u8; 16]) -> [u8; LETTERS] {
    /// Where the digits of each byte begin.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let digit = |nibble: u8| match nibble {
        0..10 => b'0' + nibble,
        letter => b'a' + letter - 10,
    };
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; LETTERS];
    for (byte, place) in bytes.iter().zip(PLACES) {
        let digits = [digit(byte >> 4), digit(byte & 15)];
        if let Some(into) = text.get_mut(place..place + 2) {
            into.copy_from_slice(&digits);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_uuids_of_version_4_and_differ() {
        let mut ids = Ids(Bytes::new());
        let taken: HashSet<Bytes> = (0..3 * BATCH).map(|_| ids.take()).collect();
        assert_eq!(taken.len(), 3 * BATCH);
        for id in taken {
            let id = id.as_ref();
            assert_eq!(id.len(), LETTERS);
            assert_eq!(
                (id[8], id[13], id[14], id[18], id[23]),
                (b'-', b'-', b'4', b'-', b'-')
            );
            assert!(b"89ab".contains(&id[19]), "{id:?}");
        }
    }
}
