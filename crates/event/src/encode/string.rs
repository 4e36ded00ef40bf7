//! JSON strings as Go's encoder prints them.

use super::plain::{Beyond, is_all_plain, plain_run};

pub(crate) const fn hex(nibble: u8) -> u8 {
    match nibble & 15 {
        digit @ 0..10 => b'0' + digit,
        letter => b'a' + letter - 10,
    }
}

/// Appends `bytes` as a JSON string in quotes.
///
/// HTML characters, U+2028 and U+2029 are escaped; each byte that is not UTF-8 becomes the six
/// characters `\ufffd`. Source: Go 1.26 encoding/json encode.go, appendString.
pub fn push_json_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    if is_all_plain(bytes, Beyond::All) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    push_with_escapes(out, bytes);
    out.push(b'"');
}

/// Bytes of what [`push_json_string`] writes of `bytes`, if `text` begins with it. `scratch` is written over.
#[must_use]
pub fn json_string_len(text: &[u8], bytes: &[u8], scratch: &mut Vec<u8>) -> Option<usize> {
    if is_all_plain(bytes, Beyond::All) {
        let rest = text.strip_prefix(b"\"")?.strip_prefix(bytes)?;
        return (rest.first() == Some(&b'"')).then_some(bytes.len() + 2);
    }
    scratch.clear();
    push_json_string(scratch, bytes);
    text.starts_with(scratch).then_some(scratch.len())
}

/// Bytes of the string that `inner` begins with, up to its closing quote, if [`push_json_string`] writes
/// it so.
#[inline(always)]
pub(crate) fn string_len_as_encoded(inner: &[u8]) -> Option<usize> {
    let run = plain_run(inner, Beyond::All);
    match inner.get(run)? {
        b'"' => Some(run),
        _ => string_with_escapes_len(inner, run),
    }
}

#[inline(never)]
fn string_with_escapes_len(inner: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let rest = inner.get(at..)?;
        at += match rest {
            [b'"', ..] => return Some(at),
            [b'\\', b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'\\', b'u', b'2', b'0', b'2', b'8' | b'9', ..] | [b'\\', b'u', b'f', b'f', b'f', b'd', ..] => 6,
            [b'\\', b'u', b'0', b'0', high @ b'0'..=b'3', low, ..] => {
                let digit = char::from(*low)
                    .to_digit(16)
                    .filter(|_| !low.is_ascii_uppercase())?;
                let byte = u8::try_from(u32::from(high - b'0') * 16 + digit).ok()?;
                let mut written = Vec::with_capacity(6);
                match byte {
                    0..0x20 | b'<' | b'>' | b'&' => push_escape(&mut written, byte),
                    _ => return None,
                }
                rest.starts_with(&written)
                    .then_some(written.len())
                    .filter(|length| *length == 6)?
            }
            [0x80..=0xff, ..] => {
                let run = rest.iter().take_while(|byte| **byte >= 0x80).count();
                let text = std::str::from_utf8(rest.get(..run)?).ok()?;
                if text.contains(['\u{2028}', '\u{2029}']) {
                    return None;
                }
                run
            }
            _ => match plain_run(rest, Beyond::All) {
                0 => return None,
                run => run,
            },
        };
    }
}

fn push_with_escapes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let (plain, tail) = rest
            .split_at_checked(plain_run(rest, Beyond::All))
            .unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        rest = match tail.first() {
            None => break,
            Some(&byte) if byte < 0x80 => {
                push_escape(out, byte);
                tail.get(1..).unwrap_or_default()
            }
            Some(_) => push_not_ascii(out, tail),
        };
    }
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        8 => b'b',
        12 => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(hex(byte >> 4));
            out.push(hex(byte));
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends the leading run of bytes from 0x80 on; returns what follows it.
fn push_not_ascii<'a>(out: &mut Vec<u8>, bytes: &'a [u8]) -> &'a [u8] {
    let run = bytes.iter().take_while(|byte| **byte >= 0x80).count();
    let (run, rest) = bytes.split_at_checked(run).unwrap_or((bytes, &[]));
    for chunk in run.utf8_chunks() {
        let mut valid = chunk.valid();
        while let Some(at) = valid.find(['\u{2028}', '\u{2029}']) {
            let (before, separator) = valid.split_at_checked(at).unwrap_or((valid, ""));
            out.extend_from_slice(before.as_bytes());
            out.extend_from_slice(if separator.starts_with('\u{2028}') {
                b"\\u2028"
            } else {
                b"\\u2029"
            });
            valid = separator.get(3..).unwrap_or_default();
        }
        out.extend_from_slice(valid.as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    rest
}
