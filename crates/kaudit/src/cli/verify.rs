//! `kaudit verify`: whether files are what they were when they were sealed.

use std::path::PathBuf;

use clap::Args;
use kaudit_store::{Finding, Verified};
use serde_json::{Value, json};

use super::store::{open_to_read, size};
use super::table::table_of;
use super::{Output, print};
use crate::exit::{Exit, Failure};

/// Flags of `verify`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The data directory of a kaudit, or a store's directory
    path: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Beside a kaudit that writes, files may go between two looks; it is looked again so often.
const LOOKS: usize = 5;

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let verified = verified(flags)?;
    print(shown(&verified, flags.output).as_bytes())?;
    Ok(if verified.findings.is_empty() {
        Exit::Done
    } else {
        Exit::Damaged
    })
}

/// What is so with a store that did not change meanwhile, or is so always.
fn verified(flags: &Flags) -> Result<Verified, Failure> {
    let store = open_to_read(&flags.path)?;
    let mut looks = 0;
    loop {
        let before = store.manifest().version;
        let verified = store.snapshot().verify().map_err(Failure::unreachable)?;
        looks += 1;
        if verified.findings.is_empty() || looks == LOOKS {
            return Ok(verified);
        }
        store.refresh().map_err(Failure::unreachable)?;
        if store.manifest().version == before {
            return Ok(verified);
        }
    }
}

fn shown(verified: &Verified, output: Output) -> String {
    let rows: Vec<[String; 3]> = verified.findings.iter().map(row).collect();
    if output == Output::Json {
        let findings: Vec<Value> = rows
            .iter()
            .map(|[kind, place, what]| json!({"kind": kind, "where": place, "what": what}))
            .collect();
        let value = json!({
            "intact": rows.is_empty(), "files": verified.files, "bytes": verified.bytes,
            "versions": verified.versions, "findings": findings,
        });
        return format!("{value:#}\n");
    }
    let mut text = format!(
        "{} files, {}, are as they were when they were sealed; {} versions of the manifest follow each other\n",
        verified.files,
        size(verified.bytes),
        verified.versions
    );
    if !rows.is_empty() {
        text.push('\n');
        text += &table_of(&["FINDING", "WHERE", "WHAT"], &rows).concat();
    }
    text
}

fn row(finding: &Finding) -> [String; 3] {
    match finding {
        Finding::Missing { path } => ["missing".to_owned(), path.clone(), "it is not there".to_owned()],
        Finding::Changed {
            path,
            expected,
            found,
        } => [
            "changed".to_owned(),
            path.clone(),
            format!("its hash is {found}, and was {expected}"),
        ],
        Finding::Unreadable { version, reason } => [
            "unreadable".to_owned(),
            format!("manifest version {version}"),
            reason.clone(),
        ],
        Finding::BrokenChain { version } => [
            "broken chain".to_owned(),
            format!("manifest version {version}"),
            "it does not follow the version before it: one of the two was changed".to_owned(),
        ],
        other => ["unknown".to_owned(), String::new(), format!("{other:?}")],
    }
}
