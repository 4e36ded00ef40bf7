//! `kaudit policy fmt`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use kaudit_policy::format;

use super::read;
use crate::cli::{print, say};
use crate::exit::{Exit, Failure};

/// Flags of `policy fmt`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// Policy files; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the files in place instead of printing
    #[arg(short, long, conflicts_with = "check")]
    write: bool,
    /// Write nothing; name the files that are not formatted
    #[arg(long)]
    check: bool,
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for file in &flags.files {
        let document = read(file)?;
        let text = format(&document)
            .map_err(|error| Failure::usage(anyhow::Error::new(error).context(file.display().to_string())))?;
        let differs = text.as_bytes() != document;
        if flags.check {
            if differs {
                print(format!("{}\n", file.display()).as_bytes())?;
                exit = Exit::No;
            }
        } else if flags.write && file != Path::new("-") {
            if differs {
                replace(file, text.as_bytes())?;
                say(format_args!("formatted {}", file.display()));
            }
        } else {
            print(text.as_bytes())?;
        }
    }
    Ok(exit)
}

/// Puts the new text in the file's place at once, with the permissions of the old.
fn replace(file: &Path, text: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::unreachable(anyhow::Error::new(error).context(format!("cannot write {}", file.display())))
    };
    // A link's target is replaced, not the link.
    let file = &file.canonicalize().map_err(failed)?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".kaudit-new");
    let new = file.with_file_name(name);
    let written = (|| {
        let permissions = std::fs::metadata(file)?.permissions();
        let mut into = std::fs::File::create(&new)?;
        into.set_permissions(permissions)?;
        into.write_all(text)?;
        into.sync_all()?;
        std::fs::rename(&new, file)
    })();
    written.map_err(|error| {
        // What could not be put in place is of no use.
        drop(std::fs::remove_file(&new));
        failed(error)
    })
}
