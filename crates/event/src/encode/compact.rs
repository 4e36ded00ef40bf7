//! Raw JSON bodies: validated and compacted in one pass, never re-parsed.

use super::BodyError;
use super::string::hex;

/// Go's bound on nesting. Source: Go 1.26 encoding/json scanner.go, maxNestingDepth.
pub(crate) const MAX_DEPTH: usize = 10_000;

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    /// After `[`.
    ValueOrEnd,
    Key,
    /// After `{`.
    KeyOrEnd,
    Colon,
    /// After a value: a separator, an end, or the end of the text.
    AfterValue,
}

/// Appends `raw` without insignificant blanks and with `<`, `>`, `&`, U+2028 and U+2029 escaped.
///
/// Everything else stays as it is: existing escapes, digits of numbers, key order, repeated keys,
/// bytes that are not UTF-8. Nesting is bounded by [`MAX_DEPTH`] and needs no stack.
///
/// # Errors
///
/// What Go's scanner says; then nothing is appended.
pub(crate) fn push_compact(out: &mut Vec<u8>, raw: &[u8]) -> Result<(), BodyError> {
    let start = out.len();
    out.reserve(raw.len());
    let mut scanner = Scanner {
        raw,
        at: 0,
        copied: 0,
        stack: Vec::new(),
        out,
    };
    match scanner.scan() {
        Ok(()) => {
            scanner.flush();
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

struct Scanner<'a> {
    raw: &'a [u8],
    at: usize,
    /// Bytes before this one are in `out` or were left out.
    copied: usize,
    stack: Vec<Container>,
    out: &'a mut Vec<u8>,
}

impl Scanner<'_> {
    fn scan(&mut self) -> Result<(), BodyError> {
        let mut expect = Expect::Value;
        while let Some(&byte) = self.raw.get(self.at) {
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                self.flush();
                while matches!(self.raw.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
                    self.at += 1;
                }
                self.copied = self.at;
                continue;
            }
            expect = match expect {
                Expect::Value => self.value(byte)?,
                Expect::ValueOrEnd if byte == b']' => self.close(),
                Expect::ValueOrEnd => self.value(byte)?,
                Expect::KeyOrEnd if byte == b'}' => self.close(),
                Expect::Key | Expect::KeyOrEnd => {
                    if byte != b'"' {
                        return Err(invalid(byte, "looking for beginning of object key string"));
                    }
                    self.string()?;
                    Expect::Colon
                }
                Expect::Colon if byte == b':' => self.step(Expect::Value),
                Expect::Colon => return Err(invalid(byte, "after object key")),
                Expect::AfterValue => match (self.stack.last(), byte) {
                    (None, _) => return Err(invalid(byte, "after top-level value")),
                    (Some(Container::Object), b',') => self.step(Expect::Key),
                    (Some(Container::Array), b',') => self.step(Expect::Value),
                    (Some(Container::Object), b'}') | (Some(Container::Array), b']') => self.close(),
                    (Some(Container::Object), _) => return Err(invalid(byte, "after object key:value pair")),
                    (Some(Container::Array), _) => return Err(invalid(byte, "after array element")),
                },
            };
        }
        if expect == Expect::AfterValue && self.stack.is_empty() {
            Ok(())
        } else {
            Err(BodyError::UnexpectedEnd)
        }
    }

    fn step(&mut self, next: Expect) -> Expect {
        self.at += 1;
        next
    }

    fn close(&mut self) -> Expect {
        self.stack.pop();
        self.step(Expect::AfterValue)
    }

    fn open(&mut self, byte: u8, container: Container, next: Expect) -> Result<Expect, BodyError> {
        self.stack.push(container);
        if self.stack.len() > MAX_DEPTH {
            return Err(invalid(byte, "exceeded max depth"));
        }
        Ok(self.step(next))
    }

    fn value(&mut self, byte: u8) -> Result<Expect, BodyError> {
        match byte {
            b'{' => return self.open(byte, Container::Object, Expect::KeyOrEnd),
            b'[' => return self.open(byte, Container::Array, Expect::ValueOrEnd),
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.number(byte)?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => return Err(invalid(byte, "looking for beginning of value")),
        }
        Ok(Expect::AfterValue)
    }

    /// The byte at the cursor, or the blank that Go's scanner is fed at the end of the text.
    fn peek(&self) -> u8 {
        self.raw.get(self.at).copied().unwrap_or(b' ')
    }

    fn literal(&mut self, word: &'static str) -> Result<(), BodyError> {
        for expected in word.bytes() {
            let byte = self.peek();
            if byte != expected {
                return Err(invalid(
                    byte,
                    &format!("in literal {word} (expecting '{}')", char::from(expected)),
                ));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Source: Go 1.26 encoding/json scanner.go, stateNeg to stateE0.
    fn number(&mut self, first: u8) -> Result<(), BodyError> {
        if first == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            byte => return Err(invalid(byte, "in numeric literal")),
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<(), BodyError> {
        let byte = self.peek();
        if !byte.is_ascii_digit() {
            return Err(invalid(byte, context));
        }
        self.digits();
        Ok(())
    }

    /// A string, from its opening quote to behind its closing one.
    fn string(&mut self) -> Result<(), BodyError> {
        self.at += 1;
        loop {
            self.at += plain_run(self.raw.get(self.at..).unwrap_or_default());
            match self.raw.get(self.at) {
                None => return Err(BodyError::UnexpectedEnd),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(&byte @ (b'<' | b'>' | b'&')) => {
                    self.replace(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte)], 1);
                }
                Some(&byte) if byte < 0x20 => return Err(invalid(byte, "in string literal")),
                Some(_) => match self.raw.get(self.at..).unwrap_or_default() {
                    [0xe2, 0x80, 0xa8, ..] => self.replace(b"\\u2028", 3),
                    [0xe2, 0x80, 0xa9, ..] => self.replace(b"\\u2029", 3),
                    _ => self.at += 1,
                },
            }
        }
    }

    fn escape(&mut self) -> Result<(), BodyError> {
        self.at += 1;
        match self.raw.get(self.at) {
            None => return Err(invalid(b' ', "in string escape code")),
            Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    let byte = self.peek();
                    if !byte.is_ascii_hexdigit() {
                        return Err(invalid(byte, "in \\u hexadecimal character escape"));
                    }
                    self.at += 1;
                }
            }
            Some(&byte) => return Err(invalid(byte, "in string escape code")),
        }
        Ok(())
    }

    /// Puts `escape` in the place of the next `skipped` bytes.
    fn replace(&mut self, escape: &[u8], skipped: usize) {
        self.flush();
        self.out.extend_from_slice(escape);
        self.at += skipped;
        self.copied = self.at;
    }

    /// Copies what was scanned and not yet copied.
    fn flush(&mut self) {
        self.out
            .extend_from_slice(self.raw.get(self.copied..self.at).unwrap_or_default());
        self.copied = self.at;
    }
}

/// Length of the leading run of bytes inside a string that need no look.
fn plain_run(bytes: &[u8]) -> usize {
    let (chunks, _) = bytes.as_chunks::<16>();
    let whole = chunks
        .iter()
        .take_while(|chunk| {
            chunk.iter().fold(0_u8, |found, &byte| {
                found
                    | u8::from(byte < 0x20)
                    | u8::from(byte == b'"')
                    | u8::from(byte == b'\\')
                    | u8::from(byte == b'<')
                    | u8::from(byte == b'>')
                    | u8::from(byte == b'&')
                    | u8::from(byte == 0xe2)
            }) == 0
        })
        .count()
        * 16;
    let rest = bytes.get(whole..).unwrap_or_default();
    whole
        + rest
            .iter()
            .take_while(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2))
            .count()
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
