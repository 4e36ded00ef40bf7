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
///
/// It is marked as sensitive, by which an HTTP/2 connection keeps it out of its table of headers: each is sent once, would
/// take the place of what is sent again, and would be compared with all its predecessors there.
pub(crate) fn header_value(id: &Text) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(id.clone().into_bytes()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// IDs that are made in one go: each by itself would be a system call for its random bytes, and an
/// allocation for its text. The system gives a seed, which a BLAKE3 stream makes longer for less than half of
/// what the system would take.
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
    let mut seed = [0; 32];
    // Without entropy IDs would repeat; they join events and prove nothing, so the request goes on.
    if getrandom::fill(&mut seed).is_err() {
        error!("the system gives no random bytes: Audit-IDs are not unique");
    }
    let mut random = [0; 16 * BATCH];
    blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut random);
    let mut texts = Vec::with_capacity(LETTERS * BATCH);
    for bytes in random.as_chunks::<16>().0 {
        texts.extend_from_slice(&uuid_v4(*bytes));
    }
    Bytes::from(texts)
}

/// A UUID of version 4 from random bytes, lower-case with dashes.
fn uuid_v4(random: [u8; 16]) -> [u8; LETTERS] {
    const VERSION: u128 = 0xf000 << 64;
    const VARIANT: u128 = 0xc000 << 48;
    let bits = u128::from_be_bytes(random) & !VERSION & !VARIANT | 0x4000 << 64 | 0x8000 << 48;
    let quarter = |shift: u32| hexadecimal((bits >> shift & 0xffff_ffff) as u64);
    let (a, b, c, d) = (quarter(96), quarter(64), quarter(32), quarter(0));
    let mut text = [b'-'; LETTERS];
    text[0..8].copy_from_slice(&a);
    text[9..13].copy_from_slice(&b[..4]);
    text[14..18].copy_from_slice(&b[4..]);
    text[19..23].copy_from_slice(&c[..4]);
    text[24..28].copy_from_slice(&c[4..]);
    text[28..].copy_from_slice(&d);
    text
}

/// The eight lower-case digits of a number below 2^32, all at once: each half byte moves into a byte of its own.
const fn hexadecimal(value: u64) -> [u8; 8] {
    let value = (value & 0xffff) | (value & 0xffff_0000) << 16;
    let value = (value & 0x0000_00ff_0000_00ff) | (value & 0x0000_ff00_0000_ff00) << 8;
    let value = (value & 0x000f_000f_000f_000f) | (value & 0x00f0_00f0_00f0_00f0) << 4;
    // A digit of ten or more carries into bit 4 with 6 added.
    let letters = (value + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (value + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_bits_but_those_of_version_and_variant_are_printed() {
        let random = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128.to_be_bytes();
        let text = String::from_utf8(uuid_v4(random).to_vec()).unwrap();
        assert_eq!(text, "01234567-89ab-4def-bedc-ba9876543210");
    }

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
