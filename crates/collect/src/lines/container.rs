//! The lines a container runtime writes: `<time> <stream> <tags> <text>`, where the first tag is `P` when
//! the text goes on in the next entry and `F` when it ends.

/// One line of a container's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the parts of an entry there are")]
pub struct Entry<'a> {
    /// What the container wrote to.
    pub stream: Stream,
    /// Whether what the container wrote ends here, rather than in a later entry of the stream.
    pub is_last: bool,
    /// What it wrote.
    pub text: &'a [u8],
}

/// What a container writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two streams there are")]
pub enum Stream {
    /// Standard output, which an apiserver's audit log goes to.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The entry that a line without its LF is; `None` when it is none.
#[must_use]
pub fn entry(line: &[u8]) -> Option<Entry<'_>> {
    let (time, rest) = word(line)?;
    if !is_time(time) {
        return None;
    }
    let (stream, rest) = word(rest)?;
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let (tags, text) = word(rest)?;
    let is_last = match tags.split(|byte| *byte == b':').next() {
        Some(b"F") => true,
        Some(b"P") => false,
        _ => return None,
    };
    Some(Entry {
        stream,
        is_last,
        text,
    })
}

/// `2016-10-06T00:17:09.669794202Z`, or with an offset.
fn is_time(text: &[u8]) -> bool {
    let at = |index: usize| text.get(index).copied();
    text.len() >= 20
        && text.iter().take(4).all(u8::is_ascii_digit)
        && (at(4), at(7), at(10), at(13), at(16))
            == (Some(b'-'), Some(b'-'), Some(b'T'), Some(b':'), Some(b':'))
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b' ', text)?;
    let (word, rest) = text.split_at_checked(end)?;
    Some((word, rest.get(1..)?))
}
