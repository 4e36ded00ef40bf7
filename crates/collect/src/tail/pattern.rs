//! Which active files a pattern names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::MatchOptions;

use super::names;

/// A file, a directory, or a glob.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// A file, or a directory that stands for its `*.log`.
    Path(PathBuf),
    Glob {
        directories: String,
        name: glob::Pattern,
    },
}

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

const META: [char; 3] = ['*', '?', '['];

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if !text.contains(META) {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        glob::Pattern::new(text).map_err(|error| error.to_string())?;
        let (directories, name) = text.rsplit_once('/').unwrap_or((".", text));
        if name.is_empty() {
            return Err("it ends with a slash; the last part must name files".to_owned());
        }
        Ok(Self::Glob {
            directories: if directories.is_empty() { "/" } else { directories }.to_owned(),
            name: glob::Pattern::new(name).map_err(|error| error.to_string())?,
        })
    }

    /// The active files, whether they are there or only rotated ones of theirs, and what hindered the
    /// search.
    pub(super) fn search(&self) -> (Vec<PathBuf>, Option<String>) {
        let mut paths = Vec::new();
        let mut problem = None;
        match self {
            Self::Path(path) if path.is_dir() => {
                let is_log = |name: &str| {
                    let stem = name.strip_suffix(".log");
                    stem.is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.'))
                };
                search_directory(path, is_log, &mut paths, &mut problem);
            }
            Self::Path(path) => paths.push(path.clone()),
            Self::Glob { directories, name } => {
                let matches = |file: &str| name.matches_with(file, OPTIONS);
                if directories.contains(META) {
                    let found = glob::glob(directories).into_iter().flatten();
                    for directory in found {
                        match directory {
                            Ok(directory) if directory.is_dir() => {
                                search_directory(&directory, matches, &mut paths, &mut problem);
                            }
                            Ok(_) => {}
                            Err(error) => problem = Some(error.to_string()),
                        }
                    }
                } else {
                    search_directory(Path::new(directories), matches, &mut paths, &mut problem);
                }
            }
        }
        paths.sort();
        paths.dedup();
        (paths, problem)
    }
}

fn search_directory(
    directory: &Path,
    matches: impl Fn(&str) -> bool,
    paths: &mut Vec<PathBuf>,
    problem: &mut Option<String>,
) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            *problem = Some(format!("{}: {error}", directory.display()));
            return;
        }
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                *problem = Some(format!("{}: {error}", directory.display()));
                return;
            }
        };
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let active = names::backup(&name).map_or(name, |backup| backup.active);
        if !is_directory && matches(&active) {
            paths.push(directory.join(active));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_lead_to_their_active_file() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "audit.log",
            "audit-2026-07-23T14-47-51.123.log",
            "other-2026-07-23T14-47-51.123.log.gz",
            "third.log.1",
            ".hidden.log",
            "note.txt",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        fs::create_dir(directory.path().join("folder.log")).unwrap();
        let root = directory.path().to_str().unwrap();
        let names = |pattern: String| -> Vec<String> {
            let (paths, problem) = Pattern::parse(&pattern).unwrap().search();
            assert_eq!(problem, None);
            let name = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
            paths.iter().map(name).collect()
        };
        assert_eq!(names(root.to_owned()), ["audit.log", "other.log", "third.log"]);
        assert_eq!(names(format!("{root}/*u*.log")), ["audit.log"]);
        assert_eq!(names(format!("{root}/none.log")), ["none.log"]);
        assert_eq!(
            names(format!("{}*/th*", root.get(..root.len() - 1).unwrap())),
            ["third.log"]
        );
        assert!(Pattern::parse("").is_err());
        assert!(Pattern::parse("/var/log/*/").is_err());
        assert!(Pattern::parse("/var/log/[a.log").is_err());
    }
}
