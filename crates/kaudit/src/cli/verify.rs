//! `kaudit verify`: whether files are what they were when they were sealed.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use kaudit_store::{Finding, Verified};
use serde_json::{Value, json};

use super::export::Manifest;
use super::store::{open_to_read, size};
use super::table::table_of;
use super::{Output, print};
use crate::exit::{Exit, Failure};

/// Flags of `verify`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The data directory of a kaudit, a store's directory, or the folder of an export
    path: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Beside a kaudit that writes, files may go between two looks; it is looked again so often.
const LOOKS: usize = 5;

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let (findings, text) = match Manifest::read(&flags.path)? {
        Some((manifest, hash)) => {
            let findings = findings_of(&flags.path, &manifest)?;
            let text = export_shown(&manifest, &hash, &findings, flags.output);
            (findings.len(), text)
        }
        None => {
            let verified = verified(flags)?;
            (verified.findings.len(), shown(&verified, flags.output))
        }
    };
    print(text.as_bytes())?;
    Ok(if findings == 0 { Exit::Done } else { Exit::Damaged })
}

/// What is wrong with the files of an export.
fn findings_of(folder: &Path, manifest: &Manifest) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for file in &manifest.files {
        let path = folder.join(&file.path);
        let mut hasher = blake3::Hasher::new();
        match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let path = file.path.clone();
                findings.push(Finding::Missing { path });
                continue;
            }
            opened => opened.and_then(|opened| hasher.update_reader(opened).map(drop)),
        }
        .with_context(|| format!("cannot read `{}`", path.display()))
        .map_err(Failure::unreachable)?;
        let found = hasher.finalize().to_hex().to_string();
        if found != file.hash {
            findings.push(Finding::Changed {
                path: file.path.clone(),
                expected: file.hash.clone(),
                found,
            });
        }
    }
    Ok(findings)
}

fn export_shown(manifest: &Manifest, hash: &str, findings: &[Finding], output: Output) -> String {
    let rows: Vec<[String; 3]> = findings.iter().map(row).collect();
    if output == Output::Json {
        let value = json!({
            "intact": rows.is_empty(), "files": manifest.files.len(), "events": manifest.events,
            "manifestHash": hash, "findings": findings_json(&rows),
        });
        return format!("{value:#}\n");
    }
    let verdict = if rows.is_empty() {
        "the files are what the manifest says"
    } else {
        "the files are not what the manifest says"
    };
    let mut text = format!(
        "{} events: {verdict}\nBLAKE3 of the manifest: {hash}\n",
        manifest.events
    );
    if !rows.is_empty() {
        text.push('\n');
        text += &table_of(&["FINDING", "WHERE", "WHAT"], &rows).concat();
    }
    text
}

fn findings_json(rows: &[[String; 3]]) -> Vec<Value> {
    rows.iter()
        .map(|[kind, place, what]| json!({"kind": kind, "where": place, "what": what}))
        .collect()
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
        let value = json!({
            "intact": rows.is_empty(), "files": verified.files, "bytes": verified.bytes,
            "versions": verified.versions, "findings": findings_json(&rows),
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
