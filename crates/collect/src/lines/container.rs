//! The lines a container runtime writes: `<time> <stream> <tags> <text>`, where the first tag is `P` when
//! the text goes on in the next entry and `F` when it ends.

/// One line of a container's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) stream: Stream,
    pub(crate) is_last: bool,
    pub(crate) text: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The entry that a line is; `None` when it is none.
pub(crate) fn entry(line: &[u8]) -> Option<Entry<'_>> {
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
