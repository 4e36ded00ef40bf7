//! `kaudit policy`: what an audit policy means, what is wrong with it, and policies to begin with.

mod explain;
mod fmt;
mod lint;

use std::io::Read;
use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use kaudit_policy::{MAX_POLICY_BYTES, Preset};

use super::print;
use crate::auditing::read_policy;
use crate::exit::{Exit, Failure};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell what is wrong, risky or surprising about policies
    ///
    /// Exit codes: 0 nothing at or above --fail-on; 1 findings; 2 a policy does not load.
    Lint(lint::Flags),
    /// Tell which rule decides about a request, and why the earlier ones do not
    ///
    /// Exit codes: 0 answered, whatever the level is; 2 the policy does not load or the request makes no
    /// sense.
    Explain(Box<explain::Flags>),
    /// Write policies in their canonical form, comments kept
    ///
    /// Exit codes: 0 done; 1 with --check, a file is not formatted; 2 a file has no form to keep.
    Fmt(fmt::Flags),
    /// Print a policy to begin with
    Init(Init),
}

/// Flags of `policy init`.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Which policy
    #[arg(long, value_enum, default_value_t)]
    preset: PresetName,
}

/// The names of presets.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PresetName {
    /// Who did what, bodies of changes without credentials, little noise
    #[default]
    Recommended,
    /// Who did what, nothing else
    Minimal,
    /// What the CIS Kubernetes Benchmark asks for in 3.2
    Cis,
    /// The shape of the policy that Google's clusters run with
    GkeLike,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Recommended => Self::Recommended,
            PresetName::Minimal => Self::Minimal,
            PresetName::Cis => Self::Cis,
            PresetName::GkeLike => Self::GkeLike,
        }
    }
}

pub(super) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Lint(flags) => lint::run(&flags),
        Command::Explain(flags) => explain::run(&flags),
        Command::Fmt(flags) => fmt::run(&flags),
        Command::Init(init) => print(Preset::from(init.preset).text().as_bytes()),
    }
}

/// The bytes of a policy file; `-` is standard input.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    if file != Path::new("-") {
        return read_policy(file);
    }
    let mut document = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_POLICY_BYTES as u64 + 1)
        .read_to_end(&mut document)
        .map_err(Failure::unreachable)?;
    Ok(document)
}
