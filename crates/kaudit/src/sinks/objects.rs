//! Files of AuditSink objects.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use kaudit_backend::dynamic::{AuditSink, InvalidSink, MAX_FILE_BYTES, Surroundings};

/// A valid object and its file.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) file: PathBuf,
    pub(super) object: AuditSink,
}

/// Why something in a file is no sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) file: PathBuf,
    /// The object's, as far as it is known.
    pub(crate) name: Option<String>,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Unreadable(String),
    Invalid { line: usize, reason: String },
    NotStarted(String),
}

impl Problem {
    pub(super) const fn not_started(file: PathBuf, name: String, why: String) -> Self {
        Self {
            file,
            name: Some(name),
            what: What::NotStarted(why),
        }
    }

    pub(super) const fn is_unreadable(&self) -> bool {
        matches!(self.what, What::Unreadable(_))
    }
}

impl fmt::Display for Problem {
    /// File, line, reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.what {
            What::Unreadable(why) => write!(f, "{file}: cannot be read: {why}"),
            What::Invalid { line, reason } => write!(f, "{file}:{line}: {reason}"),
            What::NotStarted(why) => write!(f, "{file}: cannot be started: {why}"),
        }
    }
}

/// The contents of all files of objects in `folders`, by name, and what cannot be read. A folder that is
/// not there is empty.
pub(super) fn read<'f>(folders: impl Iterator<Item = &'f Path>) -> (Vec<(PathBuf, Vec<u8>)>, Vec<Problem>) {
    let (mut contents, mut problems) = (Vec::new(), Vec::new());
    let unreadable = |file: &Path, error: &io::Error| Problem {
        file: file.to_owned(),
        name: None,
        what: What::Unreadable(error.to_string()),
    };
    for folder in folders {
        let files = match files(folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                problems.push(unreadable(folder, &error));
                continue;
            }
        };
        for file in files {
            match read_bounded(&file) {
                Ok(content) => contents.push((file, content)),
                Err(error) => problems.push(unreadable(&file, &error)),
            }
        }
    }
    (contents, problems)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_object = path.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"]
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        });
        if is_object && !is_hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let size = std::fs::metadata(file)?.len();
    if size > MAX_FILE_BYTES as u64 {
        return Err(io::Error::other(format!(
            "a file of objects may have {MAX_FILE_BYTES} bytes, this one has {size}"
        )));
    }
    std::fs::read(file)
}

/// The valid objects, and what is wrong with the others. Of two with one name the first counts.
pub(super) fn parse(
    contents: &[(PathBuf, Vec<u8>)],
    surroundings: Surroundings,
) -> (Vec<Found>, Vec<Problem>) {
    let (mut found, mut problems): (Vec<Found>, Vec<Problem>) = (Vec::new(), Vec::new());
    for (file, content) in contents {
        let invalid = |name, line, reason| Problem {
            file: file.clone(),
            name,
            what: What::Invalid { line, reason },
        };
        let Ok(text) = std::str::from_utf8(content) else {
            problems.push(invalid(None, 1, "the file is not UTF-8".to_owned()));
            continue;
        };
        for object in AuditSink::parse_all(text, surroundings) {
            match object {
                Ok(object) => match found.iter().find(|found| found.object.name == object.name) {
                    Some(first) => {
                        let reason = format!(
                            "AuditSink `{}` is defined twice: {} comes first and counts",
                            object.name,
                            first.file.display()
                        );
                        problems.push(invalid(Some(object.name), 1, reason));
                    }
                    None => found.push(Found {
                        file: file.clone(),
                        object,
                    }),
                },
                Err(InvalidSink {
                    name, line, reason, ..
                }) => problems.push(invalid(name, line, reason)),
            }
        }
    }
    (found, problems)
}

fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.yaml"))
}

/// Puts an object's text into its file; returns what was there.
pub(super) fn write(folder: &Path, name: &str, text: &str) -> io::Result<Option<Vec<u8>>> {
    let path = path_of(folder, name);
    let before = match std::fs::read(&path) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    std::fs::create_dir_all(folder)?;
    replace(&path, text.as_bytes())?;
    Ok(before)
}

/// Puts back what [`write()`] returned.
pub(super) fn restore(folder: &Path, name: &str, before: Option<Vec<u8>>) -> io::Result<()> {
    let path = path_of(folder, name);
    match before {
        Some(before) => replace(&path, &before),
        None => std::fs::remove_file(path),
    }
}

/// Readers see the old content or the new one.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    let new = path.with_file_name(hidden);
    std::fs::write(&new, content)?;
    std::fs::rename(&new, path)
}
