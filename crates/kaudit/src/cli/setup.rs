//! `kaudit setup`: what to paste to turn audit logging on, and what is wrong with what is there.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use jiff::Timestamp;
use kaudit_policy::{MAX_POLICY_BYTES, Policy, Preset};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Output, print};
use crate::exit::{Exit, Failure};
use crate::setup::address::{Collector, NAME_RULE, is_name};
use crate::setup::check::{self, File};
use crate::setup::document::MAX_FILE_BYTES;
use crate::setup::kubeconfig::Client;
use crate::setup::{self, Distribution, KubeadmApi, Mode, Privacy, Setup, Wish};

/// Certificates, keys and tokens larger than this are none.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// Flags of `setup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kaudit setup kubeadm --cluster prod-eu-1 --instance cp-1 --collector https://kaudit.example:7444 \\
    --ca-file ca.crt --client-cert-file cp-1.crt --client-key-file cp-1.key --output setup/
  kaudit setup k3s --cluster edge --mode log --policy minimal
  kaudit setup --check /etc/kubernetes/manifests/kube-apiserver.yaml policy.yaml webhook.kubeconfig

Exit codes: 0 printed, or nothing to say with --check; 1 findings; 2 a file does not parse, or the flags make no \
                      sense; 3 a file cannot be written")]
pub(super) struct Flags {
    /// How the cluster is run
    #[arg(value_enum, required_unless_present = "check")]
    distribution: Option<Distribution>,
    /// Name of the cluster, as events are found by it later
    #[arg(long, value_name = "NAME", required_unless_present = "check")]
    cluster: Option<String>,
    /// Name of this API server; each control-plane node has its own
    #[arg(long, value_name = "NAME", default_value = "cp-1")]
    instance: String,
    /// Where the collector listens: https://HOST:PORT as the node sees it; the port is 7444 if it is left out
    #[arg(long, value_name = "URL")]
    collector: Option<String>,
    /// The audit policy: recommended, minimal, cis, gke-like, or a file
    #[arg(long, value_name = "PRESET|FILE", default_value = "recommended")]
    policy: String,
    /// Certificate authority of the collector, PEM, to embed; without it a path is named
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Certificate that the API server shows, PEM, to embed; without it a path is named
    #[arg(long, value_name = "FILE", requires = "client_key_file")]
    client_cert_file: Option<PathBuf>,
    /// Key of that certificate, PEM, to embed
    #[arg(long, value_name = "FILE", requires = "client_cert_file")]
    client_key_file: Option<PathBuf>,
    /// Token that the API server shows instead, to embed
    #[arg(long, value_name = "FILE", conflicts_with = "client_cert_file")]
    token_file: Option<PathBuf>,
    /// Which way the events go
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Version of kubeadm's configuration
    #[arg(long, value_enum, default_value_t)]
    kubeadm_api: KubeadmApi,
    /// Write the pieces into this folder instead of printing them
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    output: Option<PathBuf>,
    /// Let --output replace files
    #[arg(long, requires = "output")]
    force: bool,
    /// Look at files instead: the manifest of kube-apiserver, a configuration of kubeadm, kind, k3s, RKE2 or Talos, a
    /// kubeconfig, a policy; `-` is standard input. Several are looked at together, and told apart by their content
    #[arg(long, value_name = "FILE", num_args = 1..)]
    check: Vec<PathBuf>,
    /// How to print: text, or JSON (with --check one object per line and finding)
    #[arg(short, value_name = "FORM", value_enum, default_value_t)]
    o: Output,
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    if !flags.check.is_empty() {
        return look(flags);
    }
    let wish = wish(flags)?;
    let setup = setup::plan(&wish);
    if let Some(folder) = &flags.output {
        write(&setup, folder, flags.force)?;
        return match flags.o {
            Output::Text => print(written(&wish, &setup, folder).as_bytes()),
            Output::Json => print(format!("{}\n", setup::as_json(&wish, &setup)).as_bytes()),
        };
    }
    match flags.o {
        Output::Text => print(setup::as_text(&wish, &setup).as_bytes()),
        Output::Json => print(format!("{:#}\n", setup::as_json(&wish, &setup)).as_bytes()),
    }
}

fn usage(text: String) -> Failure {
    Failure::usage(anyhow!(text))
}

/// What the flags ask for.
fn wish(flags: &Flags) -> Result<Wish, Failure> {
    let missing = |what: &str| usage(format!("{what} is missing"));
    let distribution = flags.distribution.ok_or_else(|| missing("the distribution"))?;
    let cluster = flags.cluster.clone().ok_or_else(|| missing("--cluster"))?;
    for (flag, name) in [("--cluster", &cluster), ("--instance", &flags.instance)] {
        if !is_name(name) {
            return Err(usage(format!("{flag}: `{name}` is no name: {NAME_RULE}")));
        }
    }
    let collector = flags
        .collector
        .as_deref()
        .map(Collector::parse)
        .transpose()
        .map_err(|reason| usage(format!("--collector: {reason}")))?;
    if flags.mode.has_webhook() && collector.is_none() {
        return Err(usage(
            "--collector is missing: say where the collector listens, https://HOST:7444, or use --mode log"
                .to_owned(),
        ));
    }
    let authority = flags.ca_file.as_deref().map(certificates).transpose()?;
    let client = match (&flags.client_cert_file, &flags.client_key_file, &flags.token_file) {
        (Some(certificate), Some(key), _) => Client::Certificate {
            certificate: certificates(certificate)?,
            key: private_key(key)?,
        },
        (_, _, Some(file)) => Client::Token(token(file)?),
        _ => Client::Unnamed,
    };
    Ok(Wish {
        distribution,
        mode: flags.mode,
        cluster,
        instance: flags.instance.clone(),
        collector,
        policy: policy(&flags.policy)?,
        authority,
        client,
        kubeadm_api: flags.kubeadm_api,
    })
}

/// A preset's text, or a file's that loads.
fn policy(name: &str) -> Result<String, Failure> {
    if let Some(preset) = Preset::from_name(name) {
        return Ok(preset.text().to_owned());
    }
    let path = Path::new(name);
    let text = text(path, MAX_POLICY_BYTES as u64).map_err(|failure| {
        let presets: Vec<&str> = Preset::ALL.iter().map(|preset| preset.as_str()).collect();
        Failure::usage(failure.error.context(format!(
            "--policy: `{name}` is neither a preset ({}) nor a file that can be read",
            presets.join(", ")
        )))
    })?;
    Policy::parse(text.as_bytes()).map_err(|error| {
        usage(format!(
            "--policy: {}; `kaudit policy lint` says more",
            error.from_file(name)
        ))
    })?;
    Ok(text)
}

/// A file's text, at most `most` bytes of it.
fn text(path: &Path, most: u64) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let cannot = || format!("cannot read `{}`", path.display());
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    read.with_context(cannot).map_err(Failure::usage)?;
    if bytes.len() as u64 > most {
        return Err(usage(format!("{} has more than {most} bytes", path.display())));
    }
    String::from_utf8(bytes)
        .with_context(cannot)
        .map_err(Failure::usage)
}

fn certificates(path: &Path) -> Result<String, Failure> {
    let text = text(path, MAX_SECRET_BYTES)?;
    let count = CertificateDer::pem_slice_iter(text.as_bytes())
        .filter(Result::is_ok)
        .count();
    if count == 0 {
        return Err(usage(format!(
            "{} holds no certificate in PEM form",
            path.display()
        )));
    }
    Ok(text)
}

fn private_key(path: &Path) -> Result<String, Failure> {
    let text = text(path, MAX_SECRET_BYTES)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| usage(format!("{} holds no private key in PEM form", path.display())))?;
    Ok(text)
}

fn token(path: &Path) -> Result<String, Failure> {
    let text = text(path, MAX_SECRET_BYTES)?;
    let token = text.trim();
    if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(usage(format!(
            "{} holds no token: one word is expected",
            path.display()
        )));
    }
    Ok(token.to_owned())
}

/// Writes the pieces; none if one is there already and may not be replaced.
fn write(setup: &Setup, folder: &Path, may_replace: bool) -> Result<(), Failure> {
    if !may_replace {
        let there = setup
            .pieces
            .iter()
            .map(|piece| folder.join(&piece.file))
            .find(|path| path.symlink_metadata().is_ok());
        if let Some(path) = there {
            return Err(usage(format!(
                "{} is there already: nothing is written; --force replaces it",
                path.display()
            )));
        }
    }
    for piece in &setup.pieces {
        let path = folder.join(&piece.file);
        let cannot = || format!("cannot write `{}`", path.display());
        one_file(&path, piece.content.as_bytes(), piece.privacy, may_replace)
            .with_context(cannot)
            .map_err(Failure::unreachable)?;
    }
    Ok(())
}

/// Writes a file; one that is there already is an error unless it may be replaced.
pub(super) fn one_file(
    path: &Path,
    content: &[u8],
    privacy: Privacy,
    may_replace: bool,
) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if may_replace && path.symlink_metadata().is_ok() {
        // A new file has the mode that is asked for, and no link leads it elsewhere.
        std::fs::remove_file(path)?;
    }
    let mode = match privacy {
        Privacy::Plain => 0o644,
        Privacy::Secret => 0o600,
    };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// What was written, and what to do with it.
fn written(wish: &Wish, setup: &Setup, folder: &Path) -> String {
    let mut out = setup::heading(wish);
    for piece in &setup.pieces {
        out += &format!(
            "#\n# {}: {}\n{}",
            folder.join(&piece.file).display(),
            piece.title,
            setup::comment("  ", &piece.place)
        );
    }
    out += "#\n";
    out += &setup::advice(setup);
    out
}

fn look(flags: &Flags) -> Result<Exit, Failure> {
    let mut texts = Vec::new();
    for path in &flags.check {
        let name = if path == Path::new("-") {
            "<stdin>".to_owned()
        } else {
            path.display().to_string()
        };
        texts.push((name, text(path, MAX_FILE_BYTES as u64)?));
    }
    let files: Vec<File<'_>> = texts.iter().map(|(name, text)| File { name, text }).collect();
    let findings = check::check(&files, Timestamp::now().as_second());
    let result = match flags.o {
        Output::Text => check::as_text(&files, &findings),
        Output::Json => findings
            .iter()
            .map(|finding| format!("{}\n", check::as_json(&files, finding)))
            .collect(),
    };
    print(result.as_bytes())?;
    Ok(if findings.iter().any(check::is_unreadable) {
        Exit::Usage
    } else if findings.is_empty() {
        Exit::Done
    } else {
        Exit::No
    })
}
