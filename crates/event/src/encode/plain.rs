//! Bytes that a JSON string takes as they are, found sixteen at a time.

use wide::u8x16;

/// Which bytes from 0x80 on end a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// Each of them.
    All,
    /// Only 0xe2, with which U+2028 and U+2029 begin.
    Separators,
}

/// Length of the leading run of bytes that are printed as they are: neither control characters nor `"`,
/// `\`, `<`, `>`, `&`, nor those of `beyond`.
#[inline(always)]
pub(super) fn plain_run(bytes: &[u8], beyond: Beyond) -> usize {
    let (chunks, rest) = bytes.as_chunks::<16>();
    let mut at = 0;
    for chunk in chunks {
        let found = special(*chunk, beyond);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    at + rest.iter().take_while(|byte| is_plain(**byte, beyond)).count()
}

/// Whether all of `bytes` are one run.
#[inline(always)]
pub(super) fn is_all_plain(bytes: &[u8], beyond: Beyond) -> bool {
    if let Some(last) = bytes.last_chunk::<16>() {
        let (chunks, _) = bytes.as_chunks::<16>();
        // The last sixteen may have been looked at before.
        return chunks.iter().all(|chunk| special(*chunk, beyond) == 0) && special(*last, beyond) == 0;
    }
    let mut both = [0; 16];
    let (front, back) = both.split_at_mut(8);
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        front.copy_from_slice(first);
        back.copy_from_slice(last);
        return special(both, beyond) == 0;
    }
    bytes.iter().all(|byte| is_plain(*byte, beyond))
}

/// One bit for each byte that ends a run.
#[inline(always)]
fn special(bytes: [u8; 16], beyond: Beyond) -> u32 {
    let bytes = u8x16::new(bytes);
    let is = |byte: u8| bytes.simd_eq(u8x16::splat(byte));
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    // `<` and `>` differ in the second bit.
    let angle = (bytes | u8x16::splat(2)).simd_eq(u8x16::splat(b'>'));
    let high = match beyond {
        Beyond::All => bytes.max(u8x16::splat(0x80)).simd_eq(bytes),
        Beyond::Separators => is(0xe2),
    };
    (control | is(b'"') | is(b'\\') | is(b'&') | angle | high).to_bitmask()
}

#[inline(always)]
const fn is_plain(byte: u8, beyond: Beyond) -> bool {
    match byte {
        0..0x20 | b'"' | b'\\' | b'<' | b'>' | b'&' => false,
        0x80.. => match beyond {
            Beyond::All => false,
            Beyond::Separators => byte != 0xe2,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_ends_a_run_or_does_not() {
        for beyond in [Beyond::All, Beyond::Separators] {
            for length in [1, 7, 8, 9, 15, 16, 17, 31, 32, 40] {
                for place in 0..length {
                    for byte in 0..=u8::MAX {
                        let mut bytes = vec![b'a'; length];
                        bytes[place] = byte;
                        let run = if is_plain(byte, beyond) { length } else { place };
                        assert_eq!(plain_run(&bytes, beyond), run, "{byte:#x} at {place} of {length}");
                        assert_eq!(is_all_plain(&bytes, beyond), run == length);
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_of_several_ends_the_run() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let bytes = [b'a', first, second, b'a', b'a', b'a', b'a', b'a'];
                let expected = bytes
                    .iter()
                    .take_while(|byte| is_plain(**byte, Beyond::Separators))
                    .count();
                assert_eq!(plain_run(&bytes, Beyond::Separators), expected);
            }
        }
    }
}
