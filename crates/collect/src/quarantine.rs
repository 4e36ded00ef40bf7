//! Bytes that were no event, kept with the reason.
//!
//! One file for each time that something was put away: for each piece a line of JSON that says where it came
//! from, when, why, and how many bytes follow, then the bytes and an LF. The files are on disk when
//! [`Quarantine::put`] returns. Their sum has a bound: the oldest files make room, which is counted and logged.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kaudit_event::push_json_string;

use crate::source::Origin;

/// A piece that was no event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what is known of a piece")]
pub struct Piece<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Why it is none.
    pub reason: String,
    /// Where it stood, for a piece of a file: the file and the byte it begins at.
    pub place: Option<(String, u64)>,
}

/// The folder, and what is in it.
#[derive(Debug)]
pub struct Quarantine {
    folder: PathBuf,
    max_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    files: VecDeque<(String, u64)>,
    bytes: u64,
    number: u64,
    pieces: u64,
    dropped_files: u64,
}

/// What lies in quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuarantineStats {
    /// Files now.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Pieces that were put away since the process started.
    pub pieces: u64,
    /// Files that made room for newer ones since then.
    pub dropped_files: u64,
}

impl Quarantine {
    /// Opens the folder, which is made if it is not there, with a bound in bytes.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made or read.
    pub fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(SUFFIX) {
                continue;
            }
            files.push((name, entry.metadata()?.len()));
        }
        files.sort();
        let bytes = files.iter().map(|(_, bytes)| bytes).sum();
        Ok(Self {
            folder: folder.to_owned(),
            max_bytes,
            state: Mutex::new(State {
                files: files.into(),
                bytes,
                ..State::default()
            }),
        })
    }

    /// Puts pieces of one source away; they are on disk when this returns. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The file system's; then nothing is kept and nobody may be told that it was.
    pub fn put(&self, origin: &Origin, pieces: &[Piece<'_>], now_micros: i64) -> io::Result<()> {
        if pieces.is_empty() {
            return Ok(());
        }
        let mut content = Vec::new();
        for piece in pieces {
            push_header(&mut content, origin, piece, now_micros);
            content.extend_from_slice(piece.bytes);
            content.push(b'\n');
        }
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        // The lock is held across the disk's work: the order of files is the order of names.
        let mut state = self.state();
        self.make_room(&mut state, size)?;
        state.number += 1;
        let name = format!(
            "{:017}-{:06}{SUFFIX}",
            now_micros.max(0) / 1000,
            state.number % 1_000_000
        );
        self.write(&name, &content)?;
        state.files.push_back((name, size));
        state.bytes += size;
        state.pieces += u64::try_from(pieces.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn make_room(&self, state: &mut State, size: u64) -> io::Result<()> {
        while state.bytes.saturating_add(size) > self.max_bytes {
            let Some((oldest, bytes)) = state.files.front().cloned() else {
                break;
            };
            match fs::remove_file(self.folder.join(&oldest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            state.files.pop_front();
            state.bytes -= bytes;
            state.dropped_files += 1;
            tracing::warn!(
                file = oldest,
                bytes,
                "the quarantine is full: its oldest file made room"
            );
        }
        Ok(())
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.folder.join(name);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            })
            .and_then(|()| File::open(&self.folder)?.sync_all());
        if written.is_err() {
            // Half a file would be taken for a whole one later.
            drop(fs::remove_file(&path));
        }
        written
    }

    /// What lies here now.
    #[must_use]
    pub fn stats(&self) -> QuarantineStats {
        let state = self.state();
        QuarantineStats {
            files: u64::try_from(state.files.len()).unwrap_or(u64::MAX),
            bytes: state.bytes,
            pieces: state.pieces,
            dropped_files: state.dropped_files,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SUFFIX: &str = ".quarantine";

fn push_header(out: &mut Vec<u8>, origin: &Origin, piece: &Piece<'_>, now_micros: i64) {
    let mut text = |key: &str, value: &str| {
        out.extend_from_slice(key.as_bytes());
        push_json_string(out, value.as_bytes());
    };
    text("{\"cluster\":", origin.cluster.as_str());
    text(",\"instance\":", origin.instance.as_str());
    text(",\"source\":", &origin.source());
    text(",\"reason\":", &piece.reason);
    if let Some((file, offset)) = &piece.place {
        text(",\"file\":", file);
        out.extend_from_slice(format!(",\"offset\":{offset}").as_bytes());
    }
    out.extend_from_slice(
        format!(
            ",\"receivedMicros\":{now_micros},\"bytes\":{}}}\n",
            piece.bytes.len()
        )
        .as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Way;

    fn origin() -> Origin {
        Origin {
            cluster: "c".parse().unwrap(),
            instance: "i".parse().unwrap(),
            transport: Way::Webhook,
            path: String::new(),
        }
    }

    fn piece(bytes: &[u8]) -> Piece<'_> {
        Piece {
            bytes,
            reason: "not JSON".to_owned(),
            place: Some(("audit.log".to_owned(), 7)),
        }
    }

    #[test]
    fn pieces_are_on_disk_with_their_reason() {
        let folder = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(&folder.path().join("q"), 1 << 20).unwrap();
        quarantine
            .put(&origin(), &[piece(b"ab\nc"), piece(b"")], 1_000_000)
            .unwrap();
        let (name, size) = quarantine.state().files[0].clone();
        let content = fs::read_to_string(folder.path().join("q").join(name)).unwrap();
        assert_eq!(
            content,
            "{\"cluster\":\"c\",\"instance\":\"i\",\"source\":\"webhook\",\"reason\":\"not JSON\",\"file\":\"audit.log\",\
             \"offset\":7,\"receivedMicros\":1000000,\"bytes\":4}\nab\nc\n{\"cluster\":\"c\",\"instance\":\"i\",\
             \"source\":\"webhook\",\"reason\":\"not JSON\",\"file\":\"audit.log\",\"offset\":7,\
             \"receivedMicros\":1000000,\"bytes\":0}\n\n"
        );
        let stats = quarantine.stats();
        assert_eq!((stats.files, stats.bytes, stats.pieces), (1, size, 2));
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(folder.path(), 1000).unwrap();
        for at in 0..10 {
            quarantine.put(&origin(), &[piece(&[b'x'; 300])], at).unwrap();
        }
        let stats = quarantine.stats();
        assert!(stats.bytes <= 1000);
        assert_eq!(stats.files + stats.dropped_files, 10);
        assert_eq!(
            Quarantine::open(folder.path(), 1000).unwrap().stats().files,
            stats.files
        );
    }
}
