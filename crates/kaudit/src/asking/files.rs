//! Which files are meant.
//!
//! A log that is being written may be rotated at any moment: its files get other names, and compressed ones appear beside
//! them. So directories are read until they are at rest, and files are opened then, not when it is their turn.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};

use crate::exit::Failure;

/// So many files are held open; of others it is only known which they were.
const MAX_OPEN: usize = 256;

/// Looks at a directory in which files come and go; a rotation is over sooner.
const MAX_LOOKS: u32 = 32;

/// Where events are read from.
#[derive(Debug)]
pub(crate) enum Input {
    /// Standard input.
    Stdin,
    /// A regular file.
    File(Named),
}

/// A regular file as it was found under its name.
#[derive(Debug)]
pub(crate) struct Named {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device and inode.
    key: (u64, u64),
    handle: Option<Arc<File>>,
}

/// What some arguments name.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) inputs: Vec<Input>,
    /// Compressed files beside what they were made of: they are not finished, or about to replace it.
    pub(crate) left_out: Vec<PathBuf>,
}

/// What the arguments of `--from` name: files, `-`, the files of directories (without those below), and patterns with
/// `*`, `?` and `[`. In the order of the arguments, of a directory or pattern in the order of the files' times, so
/// that a rotated log comes in its own order.
pub(crate) fn inputs(arguments: &[PathBuf]) -> Result<Inputs, Failure> {
    let mut all = Inputs::default();
    for argument in arguments {
        if argument == Path::new("-") {
            all.inputs.push(Input::Stdin);
            continue;
        }
        match fs::metadata(argument) {
            Ok(there) if there.is_dir() => all.add(directory(argument, all.room())?),
            Ok(there) if there.is_file() => {
                let file = Named::find(argument, &there, all.room());
                all.inputs.extend(
                    file.map_err(|error| unreadable(argument, error))?
                        .map(Input::File),
                );
            }
            Ok(_) => {
                return Err(Failure::usage(anyhow!(
                    "{}: neither a file nor a directory; standard input is given as \"-\"",
                    argument.display()
                )));
            }
            Err(error) => all.add(pattern(argument, error, all.room())?),
        }
    }
    Ok(all)
}

fn directory(path: &Path, room: usize) -> Result<Inputs, Failure> {
    let files = at_rest(path, room, || {
        let entries = fs::read_dir(path).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<PathBuf>>>()
        });
        entries.map_err(|error| unreadable(path, error))
    })?;
    if files.inputs.is_empty() {
        return Err(Failure::usage(anyhow!(
            "{}: there is no file in it",
            path.display()
        )));
    }
    Ok(files)
}

fn pattern(argument: &Path, error: io::Error, room: usize) -> Result<Inputs, Failure> {
    let text = argument.to_string_lossy();
    refuse_a_filter(argument)?;
    if !text.contains(['*', '?', '[']) {
        return Err(unreadable(argument, error));
    }
    let files = at_rest(argument, room, || {
        let paths = glob::glob(&text)
            .with_context(|| format!("{text}: not a pattern"))
            .map_err(Failure::usage)?;
        Ok(paths.filter_map(Result::ok).collect())
    })?;
    if files.inputs.is_empty() {
        return Err(Failure::unreachable(anyhow!("{text}: no file has such a name")));
    }
    Ok(files)
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> Failure {
    Failure::unreachable(anyhow::Error::new(error).context(format!("{}: cannot be read", path.display())))
}

/// `--from a.log 'verb: delete'` makes a file of the filter.
pub(crate) fn refuse_a_filter(path: &Path) -> Result<(), Failure> {
    let text = path.to_string_lossy();
    let is_filter = text.contains(": ") || text.contains(" = ") || text.contains(">=") || text.contains("==");
    if is_filter && !path.exists() {
        return Err(Failure::usage(anyhow!(
            "there is no file `{text}`\n  help: a filter stands before --from, which takes all that follows for files"
        )));
    }
    Ok(())
}

/// The regular files among what `list` gives, those last written long ago first, names deciding between equal times.
/// There is `room` for so many open ones.
fn at_rest(
    whole: &Path,
    room: usize,
    mut list: impl FnMut() -> Result<Vec<PathBuf>, Failure>,
) -> Result<Inputs, Failure> {
    let mut names = without_archives(list()?);
    for _ in 0..MAX_LOOKS {
        let files = find(&names.0, room)?;
        let (before, left_out) = std::mem::replace(&mut names, without_archives(list()?));
        let (before, now): (HashSet<_>, HashSet<_>) = (before.iter().collect(), names.0.iter().collect());
        if before == now && is_same(&files, &names.0) {
            let inputs = in_order(files);
            return Ok(Inputs { inputs, left_out });
        }
    }
    Err(Failure::unreachable(anyhow!(
        "{}: its files are renamed faster than they can be looked at; name those that are meant",
        whole.display()
    )))
}

/// The paths, and apart from them the compressed files beside what they were made of.
fn without_archives(mut paths: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let all: HashSet<PathBuf> = paths.iter().cloned().collect();
    let is_left_out = |path: &mut PathBuf| is_archive(path) && all.contains(&path.with_extension(""));
    let archives = paths.extract_if(.., is_left_out).collect();
    (paths, archives)
}

/// Whether a file is compressed, by its name.
pub(super) fn is_archive(path: &Path) -> bool {
    path.extension()
        .is_some_and(|suffix| suffix == "gz" || suffix == "zst")
}

/// The regular files among these that are still there.
fn find(paths: &[PathBuf], room: usize) -> Result<Vec<Named>, Failure> {
    let mut files: Vec<Named> = Vec::new();
    for path in paths {
        let left = room.saturating_sub(files.len());
        match fs::metadata(path).and_then(|there| Named::find(path, &there, left)) {
            Ok(file) => files.extend(file),
            // Gone since, or a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(path, error)),
        }
    }
    Ok(files)
}

/// Whether the paths still lead to these files, and to no others.
fn is_same(files: &[Named], paths: &[PathBuf]) -> bool {
    let now = paths.iter().filter_map(|path| {
        let there = fs::metadata(path).ok().filter(Metadata::is_file)?;
        Some((path.as_path(), key(&there)))
    });
    let before: HashSet<_> = files.iter().map(|file| (file.path.as_path(), file.key)).collect();
    now.collect::<HashSet<_>>() == before
}

fn in_order(mut files: Vec<Named>) -> Vec<Input> {
    files.sort_by(|one, other| (one.modified, &one.path).cmp(&(other.modified, &other.path)));
    files.into_iter().map(Input::File).collect()
}

fn key(there: &Metadata) -> (u64, u64) {
    (there.dev(), there.ino())
}

impl Inputs {
    /// How many more files may be held open.
    fn room(&self) -> usize {
        MAX_OPEN.saturating_sub(self.inputs.len())
    }

    fn add(&mut self, other: Self) {
        self.inputs.extend(other.inputs);
        self.left_out.extend(other.left_out);
    }
}

impl Named {
    fn of(path: &Path, there: &Metadata, handle: Option<Arc<File>>) -> Self {
        Self {
            path: path.to_owned(),
            bytes: there.len(),
            modified: there.modified().ok(),
            key: key(there),
            handle,
        }
    }

    /// The file that `there` tells of, open if there is room; `None` if it is no regular one.
    fn find(path: &Path, there: &Metadata, room: usize) -> io::Result<Option<Self>> {
        // Opening what is no regular file may wait for ever.
        if !there.is_file() {
            return Ok(None);
        }
        if room == 0 {
            return Ok(Some(Self::of(path, there, None)));
        }
        let file = File::open(path)?;
        let there = file.metadata()?;
        let is_file = there.is_file();
        Ok(is_file.then(|| Self::of(path, &there, Some(Arc::new(file)))))
    }

    /// Its bytes from the first on, whatever its name is by now. Only one reads it at a time.
    pub(super) fn reader(&self) -> io::Result<Arc<File>> {
        if let Some(file) = &self.handle {
            file.as_ref().rewind()?;
            return Ok(Arc::clone(file));
        }
        let file = File::open(&self.path)?;
        if key(&file.metadata()?) != self.key {
            return Err(io::Error::other(
                "it is another file than before, as after a rotation; ask again",
            ));
        }
        Ok(Arc::new(file))
    }

    /// How long it was when it was found.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Input {
    /// What it is called.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(file) => file.path.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn texts(inputs: &Inputs) -> Vec<(String, String)> {
        let files = inputs.inputs.iter().map(|input| match input {
            Input::File(file) => file,
            Input::Stdin => panic!("standard input"),
        });
        let read = |file: &Named| {
            let mut text = String::new();
            file.reader().unwrap().as_ref().read_to_string(&mut text).unwrap();
            let name = file.path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, text)
        };
        files.map(read).collect()
    }

    fn names(folder: &Path) -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        names
    }

    fn pairs<'a>(texts: &'a [(String, String)]) -> Vec<(&'a str, &'a str)> {
        let pair = |(name, text): &'a (String, String)| (name.as_str(), text.as_str());
        texts.iter().map(pair).collect()
    }

    #[test]
    fn what_is_rotated_after_the_directory_was_read_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let (active, backup) = (folder.path().join("audit.log"), folder.path().join("audit-1.log"));
        fs::write(&active, "one").unwrap();
        let mut looks = 0;
        let inputs = at_rest(folder.path(), MAX_OPEN, || {
            let listed = names(folder.path());
            looks += 1;
            if looks == 1 {
                fs::rename(&active, &backup).unwrap();
                fs::write(&active, "two").unwrap();
            }
            Ok(listed)
        })
        .unwrap();
        let mut texts = texts(&inputs);
        texts.sort();
        assert_eq!(pairs(&texts), [("audit-1.log", "one"), ("audit.log", "two")]);
        assert_eq!(looks, 3);
    }

    #[test]
    fn what_is_rotated_and_compressed_before_its_turn_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let active = folder.path().join("audit.log");
        fs::write(&active, "one").unwrap();
        let inputs = inputs(&[folder.path().to_owned()]).unwrap();
        fs::remove_file(&active).unwrap();
        fs::write(folder.path().join("audit-1.log.gz"), "archive").unwrap();
        fs::write(&active, "two").unwrap();
        assert_eq!(pairs(&texts(&inputs)), [("audit.log", "one")]);
        assert_eq!(pairs(&texts(&inputs)), [("audit.log", "one")], "and once more");
    }

    #[test]
    fn an_archive_beside_its_original_is_left_out_and_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["audit-1.log", "audit-1.log.gz", "audit-2.log.zst"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let found = inputs(&[folder.path().to_owned()]).unwrap();
        let mut read: Vec<String> = texts(&found).into_iter().map(|(name, _)| name).collect();
        read.sort();
        assert_eq!(read, ["audit-1.log", "audit-2.log.zst"]);
        assert_eq!(found.left_out, [folder.path().join("audit-1.log.gz")]);
        let asked = inputs(&[folder.path().join("audit-1.log.gz")]).unwrap();
        assert_eq!(texts(&asked).len(), 1, "whoever names it means it");
    }

    #[test]
    fn more_files_than_are_held_open_are_known_again() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MAX_OPEN {
            fs::write(folder.path().join(format!("{number}.log")), number.to_string()).unwrap();
        }
        let inputs = inputs(&[folder.path().to_owned()]).unwrap();
        assert_eq!(texts(&inputs).len(), MAX_OPEN + 1);
        let closed = inputs.inputs.iter().find_map(|input| match input {
            Input::File(file) if file.handle.is_none() => Some(file),
            _ => None,
        });
        let closed = closed.unwrap();
        fs::rename(&closed.path, folder.path().join("rotated")).unwrap();
        fs::write(&closed.path, "another").unwrap();
        let error = closed.reader().unwrap_err().to_string();
        assert!(error.contains("ask again"), "{error}");
    }

    #[test]
    fn no_more_files_are_held_open_however_they_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: usize| folder.path().join(format!("{number}.log"));
        for number in 0..MAX_OPEN - 1 {
            fs::write(path(number), "").unwrap();
        }
        let named: Vec<PathBuf> = (0..MAX_OPEN - 1).map(path).collect();
        let pattern = folder.path().join("*.log");
        let inputs =
            inputs(&[&named[..], &[folder.path().to_owned(), pattern], &named[..2]].concat()).unwrap();
        let is_open = |input: &&Input| matches!(input, Input::File(file) if file.handle.is_some());
        assert_eq!(inputs.inputs.iter().filter(is_open).count(), MAX_OPEN);
        assert_eq!(inputs.inputs.len(), 3 * (MAX_OPEN - 1) + 2);
    }

    #[test]
    fn a_directory_that_does_not_come_to_rest_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let mut number = 0;
        fs::write(folder.path().join("0"), "").unwrap();
        let error = at_rest(folder.path(), MAX_OPEN, || {
            let listed = names(folder.path());
            fs::rename(
                folder.path().join(number.to_string()),
                folder.path().join((number + 1).to_string()),
            )
            .unwrap();
            number += 1;
            Ok(listed)
        })
        .unwrap_err();
        assert!(format!("{error:?}").contains("renamed faster"), "{error:?}");
    }
}
