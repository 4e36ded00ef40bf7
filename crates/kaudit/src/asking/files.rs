//! Which files are meant.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::exit::Failure;

/// Where events are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Standard input.
    Stdin,
    /// A regular file with its length.
    File(PathBuf, u64),
}

/// What the arguments of `--from` name: files, `-`, the files of directories (without those below), and patterns with
/// `*`, `?` and `[`. In the order of the arguments, of a directory or pattern in the order of the files' times, so
/// that a rotated log comes in its own order.
pub(crate) fn inputs(arguments: &[PathBuf]) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for argument in arguments {
        if argument == Path::new("-") {
            inputs.push(Input::Stdin);
            continue;
        }
        match fs::metadata(argument) {
            Ok(there) if there.is_dir() => inputs.extend(directory(argument)?),
            Ok(there) if there.is_file() => inputs.push(Input::File(argument.clone(), there.len())),
            Ok(_) => {
                return Err(Failure::usage(anyhow!(
                    "{}: neither a file nor a directory; standard input is given as \"-\"",
                    argument.display()
                )));
            }
            Err(error) => inputs.extend(pattern(argument, error)?),
        }
    }
    Ok(inputs)
}

fn directory(path: &Path) -> Result<Vec<Input>, Failure> {
    let cannot = || format!("{}: cannot be read", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path)
        .with_context(cannot)
        .map_err(Failure::unreachable)?
    {
        files.push(entry.with_context(cannot).map_err(Failure::unreachable)?.path());
    }
    let files = in_order(files);
    if files.is_empty() {
        return Err(Failure::usage(anyhow!(
            "{}: there is no file in it",
            path.display()
        )));
    }
    Ok(files)
}

fn pattern(argument: &Path, error: std::io::Error) -> Result<Vec<Input>, Failure> {
    let text = argument.to_string_lossy();
    let unreadable =
        |error| Failure::unreachable(anyhow::Error::new(error).context(format!("{text}: cannot be read")));
    if looks_like_a_filter(&text) {
        return Err(Failure::usage(anyhow!(
            "there is no file `{text}`\n  help: a filter stands before --from, which takes all that follows for files"
        )));
    }
    if !text.contains(['*', '?', '[']) {
        return Err(unreadable(error));
    }
    let paths = glob::glob(&text)
        .with_context(|| format!("{text}: not a pattern"))
        .map_err(Failure::usage)?;
    let files = in_order(paths.filter_map(Result::ok).collect());
    if files.is_empty() {
        return Err(Failure::unreachable(anyhow!("{text}: no file has such a name")));
    }
    Ok(files)
}

/// `--from a.log 'verb: delete'` makes a file of the filter.
fn looks_like_a_filter(text: &str) -> bool {
    text.contains(": ") || text.contains(" = ") || text.contains(">=") || text.contains("==")
}

/// The regular files, those last written long ago first, names deciding between equal times.
fn in_order(paths: Vec<PathBuf>) -> Vec<Input> {
    let mut files: Vec<_> = paths
        .into_iter()
        .filter_map(|path| {
            let there = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
            Some((there.modified().ok(), path, there.len()))
        })
        .collect();
    files.sort();
    let inputs = files
        .into_iter()
        .map(|(_, path, length)| Input::File(path, length));
    inputs.collect()
}

impl Input {
    /// What it is called.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(path, _) => path.display().to_string(),
        }
    }
}
