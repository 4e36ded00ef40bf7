//! A log file that rotates as lumberjack v2.2.1 does.
//!
//! The active file keeps its name. When a line would take it over the maximum it is renamed to
//! `<name>-<UTC time>.<ext>` and a new file with the same mode and owner takes its place. A thread then
//! removes what is too many or too old and compresses the rest.
//!
//! Unlike there, a file that somebody else moved or removed is noticed and opened anew, a line that was
//! torn by a full disk is cut off again, and a compression that fails is reported.

mod clean;

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clean::Cleaner;
use tracing::warn;

/// A megabyte as lumberjack counts it.
const MEGABYTE: u64 = 1 << 20;

/// How often it is checked that the path still leads to the open file.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// When to rotate and what to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the four numbers of upstream's flags")]
pub struct Rotation {
    /// Largest size of a file in MB; 0 never rotates.
    pub max_size_megabytes: u64,
    /// Rotated files to keep; 0 keeps all.
    pub max_backups: usize,
    /// Days to keep rotated files, by the time in their name; 0 keeps them.
    pub max_age_days: u64,
    /// Whether rotated files are compressed.
    pub compress: bool,
}

/// Why a line was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// The line alone is larger than a file may be.
    #[error("write length {length} exceeds maximum file size {maximum}")]
    TooLarge {
        /// Bytes of the line.
        length: u64,
        /// Bytes of a file.
        maximum: u64,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The active file and its rotated ones.
///
/// Writing waits for the disk; [close](Self::close) lets the clean-up finish.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    active: Option<Active>,
    cleaner: Cleaner,
    clock: fn() -> SystemTime,
}

#[derive(Debug)]
struct Active {
    file: File,
    size: u64,
    identity: (u64, u64),
    checked: Instant,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the names of rotated files hold the time; tests bring their own"
)]
fn system_clock() -> SystemTime {
    SystemTime::now()
}

impl RotatingFile {
    /// Makes sure that the file can be written, and closes it again: the first line opens it. It is created with mode
    /// 0600, its directories with 0700.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        Self::open_with_clock(path, rotation, system_clock)
    }

    fn open_with_clock(path: &Path, rotation: Rotation, clock: fn() -> SystemTime) -> io::Result<Self> {
        make_directory(path, 0o700)?;
        drop(append(path)?);
        Ok(Self {
            path: path.to_owned(),
            rotation,
            active: None,
            cleaner: Cleaner::default(),
            clock,
        })
    }

    const fn maximum(&self) -> u64 {
        self.rotation.max_size_megabytes * MEGABYTE
    }

    /// Whether lines of `length` bytes in all go to the file that is open, without a rotation.
    #[must_use]
    pub fn takes(&self, length: u64) -> bool {
        let maximum = self.maximum();
        self.active
            .as_ref()
            .is_some_and(|active| maximum == 0 || active.size + length <= maximum)
    }

    /// Writes one line, or lines that it [takes](Self::takes), whole or not at all.
    ///
    /// # Errors
    ///
    /// [`RotationError`]; the next line opens the file anew.
    pub fn write_line(&mut self, line: &[u8]) -> Result<(), RotationError> {
        let length = line.len() as u64;
        let rotates = self.rotation.max_size_megabytes > 0;
        if rotates && length > self.maximum() {
            return Err(RotationError::TooLarge {
                length,
                maximum: self.maximum(),
            });
        }
        self.notice_external_rotation();
        if self.active.is_none() {
            self.clean();
            self.open_active(length)?;
        }
        if rotates
            && self
                .active
                .as_ref()
                .is_some_and(|active| active.size + length > self.maximum())
        {
            self.rotate()?;
        }
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if let Err(error) = active.file.write_all(line) {
            active.cut_torn_line();
            // A descriptor that failed is not trusted again.
            self.active = None;
            return Err(error.into());
        }
        active.size += length;
        Ok(())
    }

    /// Closes the file and lets the clean-up finish.
    pub fn close(&mut self) {
        self.active = None;
        self.cleaner.finish();
    }

    /// Lets go of a file that the path does not lead to any more.
    fn notice_external_rotation(&mut self) {
        let Some(active) = &mut self.active else { return };
        if active.checked.elapsed() < CHECK_INTERVAL {
            return;
        }
        active.checked = Instant::now();
        let is_same =
            fs::metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == active.identity);
        if !is_same {
            warn!(path = %self.path.display(), "the audit log was moved or removed, opening it anew");
            self.active = None;
        }
    }

    /// Opens the file for its first line: one that would be full at once is rotated first.
    fn open_active(&mut self, length: u64) -> io::Result<()> {
        let size = match fs::metadata(&self.path) {
            Ok(there) => there.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.start_new(),
            Err(error) => return Err(error),
        };
        if self.rotation.max_size_megabytes > 0 && size + length >= self.maximum() {
            return self.rotate();
        }
        match append(&self.path) {
            Ok(file) => {
                self.active = Some(Active::new(file)?);
                Ok(())
            }
            Err(_) => self.start_new(),
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.active = None;
        self.start_new()?;
        self.clean();
        Ok(())
    }

    /// Moves the file out of the way, if there is one, and creates the next with its mode and owner.
    fn start_new(&mut self) -> io::Result<()> {
        make_directory(&self.path, 0o755)?;
        let mut mode = 0o600;
        let mut owner = None;
        if let Ok(old) = fs::metadata(&self.path) {
            mode = old.permissions().mode() & 0o7777;
            owner = Some((old.uid(), old.gid()));
            fs::rename(&self.path, self.backup_path((self.clock)()))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(mode)
            .open(&self.path)?;
        if let Some((uid, gid)) = owner
            && let Err(error) = std::os::unix::fs::fchown(&file, Some(uid), Some(gid))
        {
            warn!(%error, path = %self.path.display(), "the new audit log cannot have the old one's owner");
        }
        self.active = Some(Active::new(file)?);
        Ok(())
    }

    /// `audit.log` becomes `audit-2026-07-23T14-47-51.123.log`.
    fn backup_path(&self, now: SystemTime) -> PathBuf {
        let (prefix, extension) = name_parts(&self.path);
        let mut name = prefix;
        name.push(clean::timestamp(now));
        name.push(extension);
        self.path.with_file_name(name)
    }

    fn clean(&mut self) {
        let Rotation {
            max_backups,
            max_age_days,
            compress,
            ..
        } = self.rotation;
        if max_backups > 0 || max_age_days > 0 || compress {
            self.cleaner.trigger(&self.path, self.rotation, (self.clock)());
        }
    }
}

impl Active {
    fn new(file: File) -> io::Result<Self> {
        let there = file.metadata()?;
        Ok(Self {
            size: there.len(),
            identity: (there.dev(), there.ino()),
            checked: Instant::now(),
            file,
        })
    }

    /// Takes back the part of a line that was written before the disk was full; where even that fails,
    /// ends the line, so that it does not swallow the next one.
    fn cut_torn_line(&mut self) {
        let is_cut = self.file.set_len(self.size).is_ok();
        if !is_cut && self.file.write_all_at(b"\n", self.size).is_err() {
            warn!("a torn line may stand at the end of the audit log");
        }
    }
}

/// What comes before and after the time in the names of rotated files: `audit-` and `.log`.
fn name_parts(path: &Path) -> (OsString, OsString) {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let (stem, extension) = match name.rfind('.').and_then(|at| name.split_at_checked(at)) {
        Some((stem, extension)) => (stem.to_owned(), extension.to_owned()),
        None => (name, String::new()),
    };
    (OsString::from(stem + "-"), OsString::from(extension))
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => {
            DirBuilder::new().recursive(true).mode(mode).create(directory)
        }
        _ => Ok(()),
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests;
