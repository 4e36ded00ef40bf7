//! Raw JSON bodies: validated and compacted in one pass, never re-parsed.

use super::BodyError;
use super::plain::{Beyond, plain_run};
use super::string::hex;

/// Go's bound on nesting. Source: Go 1.26 encoding/json scanner.go, maxNestingDepth.
pub(crate) const MAX_DEPTH: usize = 10_000;

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

/// Appends `raw` without insignificant blanks and with `<`, `>`, `&`, U+2028 and U+2029 escaped.
///
/// Everything else stays as it is: existing escapes, digits of numbers, key order, repeated keys,
/// bytes that are not UTF-8. Nesting is bounded, to 10,000, and needs no stack.
///
/// # Errors
///
/// What Go's scanner says; then nothing is appended.
pub fn push_compact(out: &mut Vec<u8>, raw: &[u8]) -> Result<(), BodyError> {
    let start = out.len();
    out.reserve(raw.len());
    let mut scanner = Scanner { raw, copied: 0, out };
    match scanner.document() {
        Ok(()) => {
            scanner.flush(raw.len());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// The cursor is passed along and returned, so that it stays in a register.
struct Scanner<'a> {
    raw: &'a [u8],
    /// Bytes before this one are in `out` or were left out.
    copied: usize,
    out: &'a mut Vec<u8>,
}

/// Where the JSON value that `raw` begins with ends, if [`push_compact`] would not change it.
pub(crate) fn compact_len(raw: &[u8]) -> Option<usize> {
    let mut scanner = Scanner {
        raw,
        copied: 0,
        out: &mut Vec::new(),
    };
    let end = scanner.value().ok()?;
    (scanner.copied == 0).then_some(end)
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), BodyError> {
        let end = self.value()?;
        match self.next(end) {
            None => Ok(()),
            Some((byte, _)) => Err(invalid(byte, "after top-level value")),
        }
    }

    /// One value, to behind its end.
    fn value(&mut self) -> Result<usize, BodyError> {
        let mut enclosing: Vec<Container> = Vec::new();
        let mut innermost: Option<Container> = None;
        let mut at = 0;
        'value: loop {
            // A value begins here.
            let (byte, start) = self.next(at).ok_or(BodyError::UnexpectedEnd)?;
            at = start;
            match byte {
                b'"' => at = self.string(at + 1)?,
                b'{' | b'[' => {
                    enclosing.extend(innermost);
                    if enclosing.len() >= MAX_DEPTH {
                        return Err(invalid(byte, "exceeded max depth"));
                    }
                    let (first, start) = self.next(at + 1).ok_or(BodyError::UnexpectedEnd)?;
                    at = start;
                    match (byte, first) {
                        (b'{', b'}') | (b'[', b']') => {
                            at += 1;
                            innermost = enclosing.pop();
                        }
                        (b'{', _) => {
                            at = self.key(first, at)?;
                            innermost = Some(Container::Object);
                            continue;
                        }
                        _ => {
                            innermost = Some(Container::Array);
                            continue;
                        }
                    }
                }
                b'-' | b'0'..=b'9' => at = self.number(at, byte)?,
                b't' => at = self.literal(at, "true")?,
                b'f' => at = self.literal(at, "false")?,
                b'n' => at = self.literal(at, "null")?,
                _ => return Err(invalid(byte, "looking for beginning of value")),
            }
            // A value ended here; others may end with it.
            while let Some(container) = innermost {
                let (byte, start) = self.next(at).ok_or(BodyError::UnexpectedEnd)?;
                at = start;
                match (container, byte) {
                    (Container::Object, b',') => {
                        let (first, start) = self.next(at + 1).ok_or(BodyError::UnexpectedEnd)?;
                        at = self.key(first, start)?;
                        continue 'value;
                    }
                    (Container::Array, b',') => {
                        at += 1;
                        continue 'value;
                    }
                    (Container::Object, b'}') | (Container::Array, b']') => {
                        at += 1;
                        innermost = enclosing.pop();
                    }
                    (Container::Object, _) => return Err(invalid(byte, "after object key:value pair")),
                    (Container::Array, _) => return Err(invalid(byte, "after array element")),
                }
            }
            return Ok(at);
        }
    }

    /// The next byte that is no blank, and where it is.
    #[inline(always)]
    fn next(&mut self, at: usize) -> Option<(u8, usize)> {
        match self.raw.get(at) {
            Some(&byte) if byte > b' ' => Some((byte, at)),
            None => None,
            Some(_) => self.next_after_blanks(at),
        }
    }

    #[cold]
    #[inline(never)]
    fn next_after_blanks(&mut self, at: usize) -> Option<(u8, usize)> {
        let rest = self.raw.get(at..).unwrap_or_default();
        let blanks = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
            .count();
        if blanks > 0 {
            self.flush(at);
            self.copied = at + blanks;
        }
        rest.get(blanks).map(|byte| (*byte, at + blanks))
    }

    /// A key that begins with `first`, and its colon.
    #[inline(always)]
    fn key(&mut self, first: u8, at: usize) -> Result<usize, BodyError> {
        if first != b'"' {
            return Err(invalid(first, "looking for beginning of object key string"));
        }
        let end = self.string(at + 1)?;
        match self.next(end) {
            Some((b':', at)) => Ok(at + 1),
            Some((byte, _)) => Err(invalid(byte, "after object key")),
            None => Err(BodyError::UnexpectedEnd),
        }
    }

    /// The byte at the cursor, or the blank that Go's scanner is fed at the end of the text.
    fn peek(&self, at: usize) -> u8 {
        self.raw.get(at).copied().unwrap_or(b' ')
    }

    fn literal(&self, at: usize, word: &'static str) -> Result<usize, BodyError> {
        for (offset, expected) in word.bytes().enumerate() {
            let byte = self.peek(at + offset);
            if byte != expected {
                return Err(invalid(
                    byte,
                    &format!("in literal {word} (expecting '{}')", char::from(expected)),
                ));
            }
        }
        Ok(at + word.len())
    }

    /// Source: Go 1.26 encoding/json scanner.go, stateNeg to stateE0.
    fn number(&self, mut at: usize, first: u8) -> Result<usize, BodyError> {
        if first == b'-' {
            at += 1;
        }
        match self.peek(at) {
            b'0' => at += 1,
            b'1'..=b'9' => at = self.digits(at),
            byte => return Err(invalid(byte, "in numeric literal")),
        }
        if self.peek(at) == b'.' {
            at = self.some_digits(at + 1, "after decimal point in numeric literal")?;
        }
        if matches!(self.peek(at), b'e' | b'E') {
            at += 1;
            if matches!(self.peek(at), b'+' | b'-') {
                at += 1;
            }
            at = self.some_digits(at, "in exponent of numeric literal")?;
        }
        Ok(at)
    }

    fn digits(&self, mut at: usize) -> usize {
        while self.peek(at).is_ascii_digit() {
            at += 1;
        }
        at
    }

    fn some_digits(&self, at: usize, context: &str) -> Result<usize, BodyError> {
        let byte = self.peek(at);
        if !byte.is_ascii_digit() {
            return Err(invalid(byte, context));
        }
        Ok(self.digits(at))
    }

    /// A string, from behind its opening quote to behind its closing one.
    #[inline(always)]
    fn string(&mut self, at: usize) -> Result<usize, BodyError> {
        let rest = self.raw.get(at..).unwrap_or_default();
        let end = at + plain_run(rest, Beyond::Separators);
        match self.raw.get(end) {
            Some(b'"') => Ok(end + 1),
            _ => self.string_with_escapes(end),
        }
    }

    #[inline(never)]
    fn string_with_escapes(&mut self, mut at: usize) -> Result<usize, BodyError> {
        loop {
            let rest = self.raw.get(at..).unwrap_or_default();
            at += plain_run(rest, Beyond::Separators);
            at = match self.raw.get(at) {
                None => return Err(BodyError::UnexpectedEnd),
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => self.escape(at + 1)?,
                Some(&byte @ (b'<' | b'>' | b'&')) => {
                    self.replace(at, &[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte)], 1)
                }
                Some(&byte) if byte < 0x20 => return Err(invalid(byte, "in string literal")),
                Some(_) => match self.raw.get(at..).unwrap_or_default() {
                    [0xe2, 0x80, 0xa8, ..] => self.replace(at, b"\\u2028", 3),
                    [0xe2, 0x80, 0xa9, ..] => self.replace(at, b"\\u2029", 3),
                    _ => at + 1,
                },
            };
        }
    }

    /// What follows a backslash.
    fn escape(&self, at: usize) -> Result<usize, BodyError> {
        match self.raw.get(at) {
            None => Err(invalid(b' ', "in string escape code")),
            Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => Ok(at + 1),
            Some(b'u') => {
                for digit in at + 1..at + 5 {
                    let byte = self.peek(digit);
                    if !byte.is_ascii_hexdigit() {
                        return Err(invalid(byte, "in \\u hexadecimal character escape"));
                    }
                }
                Ok(at + 5)
            }
            Some(&byte) => Err(invalid(byte, "in string escape code")),
        }
    }

    /// Puts `escape` in the place of the `skipped` bytes from `at` on.
    fn replace(&mut self, at: usize, escape: &[u8], skipped: usize) -> usize {
        self.flush(at);
        self.out.extend_from_slice(escape);
        self.copied = at + skipped;
        self.copied
    }

    /// Copies what is before `at` and not yet copied.
    fn flush(&mut self, at: usize) {
        self.out
            .extend_from_slice(self.raw.get(self.copied..at).unwrap_or_default());
        self.copied = at;
    }
}

#[cold]
fn invalid(byte: u8, context: &str) -> BodyError {
    BodyError::InvalidCharacter {
        quoted: quote_character(byte),
        context: context.to_owned(),
    }
}

/// Source: Go 1.26 encoding/json scanner.go, quoteChar: the byte as a Latin-1 character.
fn quote_character(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        7 => r"'\a'".to_owned(),
        8 => r"'\b'".to_owned(),
        11 => r"'\v'".to_owned(),
        12 => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}
