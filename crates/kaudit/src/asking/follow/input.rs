//! Lines that somebody writes to standard input.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use kaudit_collect::lines::{self, Entry, Stream};
use kaudit_event::MAX_EVENT_BYTES;

use super::{Line, ask};
use crate::asking::files::unreadable;
use crate::asking::found::Whence;
use crate::asking::scan::{Fold, Question};
use crate::exit::Failure;

/// Shows `fold` the lines that somebody writes to `input`, until its end, each when it is whole. How many lines are
/// no audit events.
///
/// # Errors
///
/// `input` cannot be read.
pub(crate) fn follow_input<F: Fold>(
    mut input: impl BufRead,
    question: &Question,
    fold: &mut F,
) -> Result<u64, Failure> {
    let whence = Arc::new(Whence::file("-".to_owned()));
    let (mut lines, mut strays) = (0, 0);
    let mut line = Vec::new();
    let mut container = ContainerLine::default();
    // Of a line that is too long.
    let mut is_rest = false;
    loop {
        line.clear();
        // One more than a line may have, for its end.
        let room = u64::try_from(MAX_EVENT_BYTES + 1).unwrap_or(u64::MAX);
        let count = std::io::Read::take(&mut input, room)
            .read_until(b'\n', &mut line)
            .map_err(|error| unreadable(Path::new("-"), error))?;
        if count == 0 {
            return Ok(strays);
        }
        let is_whole = line.last() == Some(&b'\n') || count <= MAX_EVENT_BYTES;
        let is_too_long = is_rest || !is_whole;
        is_rest = !is_whole;
        if is_too_long {
            strays += u64::from(is_whole);
            continue;
        }
        let text = match lines::entry(line.strip_suffix(b"\n").unwrap_or(&line)) {
            None => line.trim_ascii(),
            Some(entry) => match container.take(&entry) {
                Took::Whole => container.text.trim_ascii(),
                Took::Part => continue,
                Took::TooLong => {
                    strays += 1;
                    continue;
                }
            },
        };
        if text.is_empty() {
            continue;
        }
        lines += 1;
        strays += u64::from(ask(question, text, &whence, lines, fold) == Line::Stray);
        if !fold.end_of_block(lines) {
            return Ok(strays);
        }
    }
}

/// What a container wrote to its standard output, put together from the entries of its runtime.
#[derive(Debug, Default)]
struct ContainerLine {
    text: Vec<u8>,
    state: Took,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Took {
    #[default]
    Whole,
    Part,
    TooLong,
}

impl ContainerLine {
    /// What there is behind an entry. A line that is too long is told of once, with its last one.
    fn take(&mut self, entry: &Entry<'_>) -> Took {
        if entry.stream == Stream::Stderr {
            return Took::Part;
        }
        if self.state == Took::Whole {
            self.text.clear();
        }
        if self.state == Took::TooLong || self.text.len() + entry.text.len() > MAX_EVENT_BYTES {
            self.text = Vec::new();
            self.state = if entry.is_last { Took::Whole } else { Took::TooLong };
            return if entry.is_last { Took::TooLong } else { Took::Part };
        }
        self.text.extend_from_slice(entry.text);
        self.state = if entry.is_last { Took::Whole } else { Took::Part };
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::tests::{Ids, all, line};
    use super::*;

    #[test]
    fn lines_of_an_input_are_shown_when_they_are_whole_and_others_are_counted() {
        let too_long = std::io::repeat(b'x').take((MAX_EVENT_BYTES + 2) as u64);
        let text = format!("\n{}no event\n\n{}", line("2"), line("3").trim_end());
        let first = line("1");
        let input = first.as_bytes().chain(too_long).chain(text.as_bytes());
        let mut ids = Ids::new();
        let strays = follow_input(std::io::BufReader::new(input), &all(), &mut ids).unwrap();
        assert_eq!(ids.0, ["1", "2", "3"]);
        assert_eq!(strays, 2);
    }

    #[test]
    fn what_a_container_wrote_is_put_together() {
        let first = line("1");
        let (begin, end) = first.trim_end().split_at(40);
        let second = line("2");
        let part = "x".repeat(MAX_EVENT_BYTES / 2 + 1);
        let time = "2026-01-02T03:04:05.000000006Z";
        let text = format!(
            "{time} stdout P {begin}\n{time} stderr F I0102 a message\n{time} stdout F {end}\n\
             {time} stdout P {part}\n{time} stdout P {part}\n{time} stdout F rest\n{time} stdout F {second}"
        );
        let mut ids = Ids::new();
        let strays = follow_input(text.as_bytes(), &all(), &mut ids).unwrap();
        assert_eq!(ids.0, ["1", "2"]);
        assert_eq!(strays, 1);
    }
}
