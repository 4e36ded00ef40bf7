//! The data directory: one process at a time, its key, its name.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// A data directory that this process holds.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Held as long as this lives.
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// Another process holds it.
    #[error(
        "the data directory `{}` is in use{}: a data directory belongs to one kaudit at a time; stop the other one, \
         or give this one a directory of its own with --data-dir",
        path.display(),
        pid.map(|pid| format!(" by process {pid}")).unwrap_or_default()
    )]
    InUse { path: PathBuf, pid: Option<u32> },
    /// The file system refused.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "`{}` does not hold 64 hexadecimal digits: it is what makes the ids of events; restore it from a backup, or delete \
         it, and events that are here already will not be recognised when they come again",
        path.display()
    )]
    Key { path: PathBuf },
    /// The system has no random bytes.
    #[error("the system gives no random bytes for `{}`", path.display())]
    NoRandomness { path: PathBuf },
}

impl DataDir {
    /// Makes the directory if it is not there, and takes it for this process.
    pub(crate) fn take(path: &Path) -> Result<Self, DataError> {
        let io = |doing: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| DataError::Io { doing, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("make the data directory", path))?;
        let lock_path = path.join("LOCK");
        let mut lock: File = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who it is helps; that it cannot be read does not matter.
                drop((&lock).take(20).read_to_string(&mut holder));
                return Err(DataError::InUse {
                    path: path.to_owned(),
                    pid: holder.trim().parse().ok(),
                });
            }
            Err(error) => return Err(io("lock", &lock_path)(error.into())),
        }
        lock.set_len(0)
            .and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .map_err(io("write", &lock_path))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The store's key, made at first use.
    pub(crate) fn key(&self) -> Result<[u8; 32], DataError> {
        secret(&self.path.join("key"))
    }

    /// What tells this data directory from all others where its events are sent, made at first use.
    pub(crate) fn id(&self) -> Result<String, DataError> {
        let id = secret(&self.path.join("id"))?;
        Ok(id.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

/// 32 random bytes in a file that only its owner can read.
fn secret(path: &Path) -> Result<[u8; 32], DataError> {
    let io = |doing: &'static str| {
        let path = path.to_owned();
        move |source| DataError::Io { doing, path, source }
    };
    match File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(100).read_to_string(&mut text).map_err(io("read"))?;
            return unhex(text.trim()).ok_or_else(|| DataError::Key {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("read")(error)),
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| DataError::NoRandomness {
        path: path.to_owned(),
    })?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // Whole or not at all: half a key after a crash would be another key.
    let new = path.with_extension("new");
    let folder = path.parent().unwrap_or(Path::new("."));
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(format!("{text}\n").as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&new, path))
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(io("write"))?;
    Ok(random)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[high, low]| high * 16 + low)
        .collect();
    (digits.len() == 64).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_process_and_keeps_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let data = DataDir::take(&path).unwrap();
        let key = data.key().unwrap();
        assert_eq!(data.key().unwrap(), key);
        assert_eq!(data.id().unwrap().len(), 16);
        let error = DataDir::take(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("in use by process {}", std::process::id())),
            "{error}"
        );
        drop(data);
        let data = DataDir::take(&path).unwrap();
        assert_eq!(data.key().unwrap(), key);
        std::fs::write(path.join("key"), "nonsense").unwrap();
        assert!(matches!(data.key(), Err(DataError::Key { .. })));
    }
}
