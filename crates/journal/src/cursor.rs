//! How far a reader of the journal has come, kept in a file of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::filesystem::Filesystem;
use crate::queue::Queue;
use crate::segment::{read_full, write_all};
use crate::view::View;
use crate::{CursorError, Seq};

/// Whether a cursor keeps the segments that it has not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it holds or it does not")]
pub enum Hold {
    /// Segments from its position on are kept.
    Yes,
    /// They may go; it then reads a gap.
    No,
}

/// A position with a name. Its clones move together.
#[derive(Clone, Debug)]
pub struct Cursor {
    name: Arc<str>,
    view: Arc<View>,
    queue: Arc<Queue>,
}

/// A cursor as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) at: Seq,
    pub(crate) hold: Hold,
}

const BYTES: usize = 32;
/// The file holds two copies, in different blocks of the disk.
const COPY_AT: u64 = 4096;
const MAGIC: [u8; 8] = *b"kacursr\n";

impl Cursor {
    pub(crate) const fn new(name: Arc<str>, view: Arc<View>, queue: Arc<Queue>) -> Self {
        Self { name, view, queue }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first record that its owner has not done with. One that was removed is at the journal's end.
    #[must_use]
    pub fn position(&self) -> Seq {
        let kept = self.view.lock();
        kept.cursors
            .get(&*self.name)
            .map_or_else(|| self.view.durable(), |position| position.at)
    }

    /// Moves on to `to`, the first record that its owner has not done with, durably. Writes and syncs a file
    /// and its directory, so it may block for some milliseconds.
    ///
    /// # Errors
    ///
    /// [`CursorError`]; the cursor is then where it was.
    pub fn advance(&self, to: Seq) -> Result<(), CursorError> {
        let _one_at_a_time = self
            .view
            .cursor_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let name = || self.name.to_string();
        let position = self.view.lock().cursors.get(&*self.name).copied();
        let position = position.ok_or_else(|| CursorError::Unknown { name: name() })?;
        let durable = self.view.durable();
        if to > durable {
            return Err(CursorError::Ahead {
                name: name(),
                to,
                durable,
            });
        }
        if to < position.at {
            return Err(CursorError::Behind {
                name: name(),
                to,
                at: position.at,
            });
        }
        let synced = self.view.sync_cursors();
        synced.map_err(|source| CursorError::Io { name: name(), source })?;
        if to == position.at {
            return Ok(());
        }
        let moved = Position { at: to, ..position };
        store(self.view.fs.as_ref(), &self.view.dir, &self.name, moved)
            .map_err(|source| CursorError::Io { name: name(), source })?;
        self.view.lock().cursors.insert(name(), moved);
        self.queue.kick();
        Ok(())
    }
}

/// Makes a cursor, or takes up the one that is there and changes what it holds.
pub(crate) fn open(
    view: &Arc<View>,
    queue: &Arc<Queue>,
    name: &str,
    hold: Hold,
) -> Result<Cursor, CursorError> {
    check(name)?;
    let _one_at_a_time = view.cursor_files.lock().unwrap_or_else(PoisonError::into_inner);
    view.sync_cursors().map_err(|source| CursorError::Io {
        name: name.to_owned(),
        source,
    })?;
    let there = view.lock().cursors.get(name).copied();
    let at = there.map_or_else(|| view.oldest(), |there| there.at);
    let position = Position { at, hold };
    if there != Some(position) {
        store(view.fs.as_ref(), &view.dir, name, position).map_err(|source| CursorError::Io {
            name: name.to_owned(),
            source,
        })?;
        view.lock().cursors.insert(name.to_owned(), position);
    }
    queue.kick();
    Ok(Cursor::new(Arc::from(name), Arc::clone(view), Arc::clone(queue)))
}

pub(crate) fn remove(view: &View, queue: &Queue, name: &str) -> Result<(), CursorError> {
    let _one_at_a_time = view.cursor_files.lock().unwrap_or_else(PoisonError::into_inner);
    if !view.lock().cursors.contains_key(name) {
        return Err(CursorError::Unknown {
            name: name.to_owned(),
        });
    }
    let directory = directory(&view.dir);
    let removed = view
        .fs
        .remove(&directory.join(name))
        .or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
    removed
        .and_then(|()| view.fs.sync_dir(&directory))
        .map_err(|source| CursorError::Io {
            name: name.to_owned(),
            source,
        })?;
    view.lock().cursors.remove(name);
    queue.kick();
    Ok(())
}

/// Where the cursors' files are.
pub(crate) fn directory(dir: &Path) -> PathBuf {
    dir.join("cursors")
}

pub(crate) fn check(name: &str) -> Result<(), CursorError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = (1..=64).contains(&name.len())
        && name.bytes().next().is_some_and(is_plain)
        && name.bytes().all(|byte| is_plain(byte) || b"._-".contains(&byte))
        && !name.ends_with(".tmp");
    if is_name {
        Ok(())
    } else {
        Err(CursorError::Name {
            name: name.to_owned(),
        })
    }
}

/// Reads a cursor; `None` if neither copy is whole.
pub(crate) fn load(fs: &dyn Filesystem, dir: &Path, name: &str) -> io::Result<Option<Position>> {
    let file = fs.open(&directory(dir).join(name))?;
    let mut failed = None;
    for at in [0, COPY_AT] {
        let mut bytes = [0; BYTES];
        match read_full(file.as_ref(), &mut bytes, at) {
            Ok(_) => {
                if let Some(position) = decode(&bytes) {
                    return Ok(Some(position));
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Replaces a cursor's file, durably.
fn store(fs: &dyn Filesystem, dir: &Path, name: &str, position: Position) -> io::Result<()> {
    let directory = directory(dir);
    let temporary = directory.join(format!("{name}.tmp"));
    let bytes = encode(position);
    let written = fs.create(&temporary).and_then(|file| {
        write_all(file.as_ref(), &[&bytes], 0)?;
        write_all(file.as_ref(), &[&bytes], COPY_AT)?;
        file.sync_all()
    });
    if let Err(error) = written {
        // What is left of it is removed at the next opening, if not now.
        drop(fs.remove(&temporary));
        return Err(error);
    }
    fs.rename(&temporary, &directory.join(name))?;
    fs.sync_dir(&directory)
}

fn encode(position: Position) -> [u8; BYTES] {
    let hold = u64::from(position.hold == Hold::Yes);
    let mut out = [0; BYTES];
    let words = [MAGIC, position.at.get().to_le_bytes(), hold.to_le_bytes()];
    for (to, word) in out.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word);
    }
    let (body, check) = out.split_at_mut(24);
    check.copy_from_slice(&u64::from(crc32c::crc32c(body)).to_le_bytes());
    out
}

fn decode(bytes: &[u8; BYTES]) -> Option<Position> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let is_whole = bytes.starts_with(&MAGIC) && word(24)? == u64::from(crc32c::crc32c(bytes.get(..24)?));
    let hold = match word(16)? {
        0 => Hold::No,
        1 => Hold::Yes,
        _ => return None,
    };
    is_whole.then_some(Position {
        at: Seq::new(word(8)?),
        hold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_and_any_flipped_bit_is_noticed() {
        let position = Position {
            at: Seq::new(u64::MAX - 1),
            hold: Hold::Yes,
        };
        let bytes = encode(position);
        assert_eq!(decode(&bytes), Some(position));
        for bit in 0..BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn names_stay_in_their_directory() {
        for name in ["store", "sink.loki-1", "0", &"a".repeat(64)] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "A",
            "-a",
            "x.tmp",
            "\u{e4}",
            &"a".repeat(65),
        ] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
