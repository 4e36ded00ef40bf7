//! `kaudit export`: events of a store, a server's or that of a directory, in a folder of their own, with the hashes by
//! which they are checked.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use kaudit_store::{Order, Scan, Snapshot, StoredEvent};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::Selection;
use super::server::Server;
use super::store::{instant, meant_folder, open_to_read, size};
use super::{Output, print};
use crate::asking::{Parameters, Remote};
use crate::exit::{Exit, Failure};

/// What the manifest of an export says of itself.
const KIND: &str = "kaudit-export";
const FORMAT: u32 = 1;

pub(super) const MANIFEST: &str = "manifest.json";
const EVENTS: &str = "events.ndjson.zst";
const ENVELOPES: &str = "envelopes.ndjson.zst";

/// Events that are held at once.
const PAGE: usize = 8192;

/// A larger manifest is none of ours.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// Flags of `export`.
#[derive(Debug, Args)]
#[command(
    after_help = "events.ndjson.zst holds one event a line, byte by byte as it was received, Secret values included; the \
                  same line of envelopes.ndjson.zst says from where, when and under which number it was taken in. \
                  manifest.json says what was asked and holds the BLAKE3 of each file; `kaudit verify` checks it. Events \
                  that are in no file of the store yet are not exported; a server says how many. Where an answer of the server breaks off, the next \
                  one goes on behind it; without all events there is no manifest.json, and the exit code is 3"
)]
pub(super) struct Flags {
    #[command(flatten)]
    selection: Selection,
    /// Read the files in place of asking a server: the data directory of a kaudit, which may run, or a store's directory
    /// [env: KAUDIT_DATA_DIR, unless a server is named]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["server", "context"])]
    store: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// The folder that is made for it
    #[arg(short = 'O', long = "out", value_name = "DIR")]
    out: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What an export is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    kind: String,
    format: u32,
    /// The program and its version.
    made_by: String,
    made_at: String,
    /// What was asked, in full.
    filter: String,
    /// The version of the store's manifest that was asked, and its BLAKE3.
    store_version: u64,
    store_hash: String,
    /// The first record of the journal that was not sealed then.
    sealed_to: u64,
    pub(super) events: u64,
    pub(super) files: Vec<Written>,
}

/// A file of an export.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    pub(super) path: String,
    pub(super) bytes: u64,
    /// BLAKE3 of the file.
    pub(super) hash: String,
}

/// Of what the events are.
struct Exported {
    store_version: u64,
    store_hash: String,
    sealed_to: u64,
    /// Events that are asked for and in no file yet, where that is known.
    newer: Option<u64>,
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let filter = flags.selection.filter()?;
    let text = filter.to_string();
    match meant_folder(flags.store.as_deref(), &flags.server) {
        Some(folder) => {
            let snapshot = open_to_read(&folder)?.snapshot();
            export(flags, text, |writing| {
                of_files(&snapshot, &Scan::new(filter), writing)
            })
        }
        None => {
            let remote = flags.server.remote()?;
            let parameters = Parameters::default()
                .with("q", &text)
                .with(
                    "bodies",
                    if flags.selection.is_bodies_meant() {
                        "true"
                    } else {
                        "false"
                    },
                )
                .with("hidden", "true");
            export(flags, text, |writing| of_server(&remote, &parameters, writing))
        }
    }
}

fn export(
    flags: &Flags,
    filter: String,
    read: impl FnOnce(&mut Writing) -> Result<Exported, Failure>,
) -> Result<Exit, Failure> {
    DirBuilder::new()
        .mode(0o700)
        .create(&flags.out)
        .with_context(|| format!("cannot make the folder `{}`", flags.out.display()))
        .map_err(Failure::unreachable)?;
    let mut writing = Writing::begin(&flags.out)?;
    let of = read(&mut writing)?;
    let (events, files) = writing.finish()?;
    let manifest = Manifest {
        kind: KIND.to_owned(),
        format: FORMAT,
        made_by: concat!("kaudit ", env!("CARGO_PKG_VERSION")).to_owned(),
        made_at: instant(kaudit_collect::now_micros()),
        filter,
        store_version: of.store_version,
        store_hash: of.store_hash,
        sealed_to: of.sealed_to,
        events,
        files,
    };
    let mut bytes = serde_json::to_vec_pretty(&manifest).map_err(Failure::unreachable)?;
    bytes.push(b'\n');
    let hash = blake3::hash(&bytes).to_hex();
    let path = flags.out.join(MANIFEST);
    // Last, so that an export that was cut short is none.
    create(&path)
        .and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        })
        .with_context(|| format!("cannot write `{}`", path.display()))
        .map_err(Failure::unreachable)?;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let text = match flags.output {
        Output::Json => format!(
            "{:#}\n",
            json!({
                "events": events,
                "newer": of.newer,
                "bytes": bytes,
                "manifest": path,
                "manifestHash": hash.as_str(),
            })
        ),
        Output::Text => format!(
            "{events} events, {}\n{}BLAKE3 of {}: {hash}\nKeep this hash elsewhere: whoever changes the export can write \
             another manifest, but none of this hash.\n",
            size(bytes),
            left_out(of.newer),
            path.display()
        ),
    };
    print(text.as_bytes())
}

/// What is said of events that an export lacks.
fn left_out(newer: Option<u64>) -> String {
    match newer {
        None => "Events that are in no file of the store yet are not among them.\n".to_owned(),
        Some(0) => String::new(),
        Some(newer) => format!(
            "{newer} newer events are in no file of the store yet and not among them: export again when they are \
             (store.sealAfter).\n"
        ),
    }
}

/// The files of an export while they are written.
struct Writing {
    events: Part,
    envelopes: Part,
    count: u64,
}

impl Writing {
    fn begin(folder: &Path) -> Result<Self, Failure> {
        Ok(Self {
            events: Part::begin(folder, EVENTS)?,
            envelopes: Part::begin(folder, ENVELOPES)?,
            count: 0,
        })
    }

    fn take(&mut self, mut envelope: Envelope<'_>, event: &[u8]) -> Result<(), Failure> {
        envelope.event_hash = blake3::hash(event).to_hex().to_string();
        self.events.line(event)?;
        let line = serde_json::to_vec(&envelope).map_err(Failure::unreachable)?;
        self.envelopes.line(&line)?;
        self.count += 1;
        Ok(())
    }

    fn finish(self) -> Result<(u64, Vec<Written>), Failure> {
        Ok((self.count, vec![self.events.finish()?, self.envelopes.finish()?]))
    }
}

/// From where, when and under which number an event was taken in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    seq: u64,
    cluster: &'a str,
    source: &'a str,
    instance: &'a str,
    received_micros: i64,
    policy_rule: Option<u32>,
    /// BLAKE3 of the event.
    event_hash: String,
}

fn of_files(snapshot: &Snapshot, scan: &Scan, writing: &mut Writing) -> Result<Exported, Failure> {
    let mut after = None;
    loop {
        let page = snapshot
            .page(scan, Order::OldestFirst, PAGE, after)
            .map_err(Failure::unreachable)?;
        for event in &page.events {
            writing.take(envelope(event), &event.event)?;
        }
        after = page.next;
        if after.is_none() {
            let manifest = snapshot.manifest();
            return Ok(Exported {
                store_version: manifest.version,
                store_hash: manifest.hash().as_str().to_owned(),
                sealed_to: manifest.sealed_to,
                newer: None,
            });
        }
    }
}

fn of_server(remote: &Remote, parameters: &Parameters, writing: &mut Writing) -> Result<Exported, Failure> {
    let store = remote.export(parameters, |whence, event| {
        let envelope = Envelope {
            seq: whence.seq,
            cluster: &whence.cluster,
            source: &whence.source,
            instance: &whence.instance,
            received_micros: whence.received_micros,
            policy_rule: whence.policy_rule,
            event_hash: String::new(),
        };
        writing.take(envelope, event)
    })?;
    Ok(Exported {
        store_version: store.store_version,
        store_hash: store.store_hash,
        sealed_to: store.sealed_to,
        newer: Some(store.newer),
    })
}

fn envelope(event: &StoredEvent) -> Envelope<'_> {
    Envelope {
        seq: event.position.seq,
        cluster: &event.cluster,
        source: &event.source,
        instance: &event.instance,
        received_micros: event.received_micros,
        policy_rule: event.policy_rule,
        event_hash: String::new(),
    }
}

/// A file that is being written.
struct Part {
    name: &'static str,
    path: PathBuf,
    encoder: zstd::stream::write::Encoder<'static, Hashed>,
}

/// Hashes what it writes.
struct Hashed {
    file: BufWriter<File>,
    hash: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Part {
    fn begin(folder: &Path, name: &'static str) -> Result<Self, Failure> {
        let path = folder.join(name);
        let begun = create(&path).and_then(|file| {
            let hashed = Hashed {
                file: BufWriter::with_capacity(1 << 20, file),
                hash: blake3::Hasher::new(),
                bytes: 0,
            };
            zstd::stream::write::Encoder::new(hashed, 3)
        });
        let encoder = written(&path, begun)?;
        Ok(Self { name, path, encoder })
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let done = self
            .encoder
            .write_all(line)
            .and_then(|()| self.encoder.write_all(b"\n"));
        written(&self.path, done)
    }

    fn finish(self) -> Result<Written, Failure> {
        let finished = self.encoder.finish().and_then(|mut hashed| {
            hashed.file.flush()?;
            hashed.file.get_ref().sync_all()?;
            Ok(hashed)
        });
        let hashed = written(&self.path, finished)?;
        Ok(Written {
            path: self.name.to_owned(),
            bytes: hashed.bytes,
            hash: hashed.hash.finalize().to_hex().to_string(),
        })
    }
}

/// A new file for its owner alone.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn written<T>(path: &Path, done: io::Result<T>) -> Result<T, Failure> {
    done.with_context(|| format!("cannot write `{}`", path.display()))
        .map_err(Failure::unreachable)
}

impl Manifest {
    /// The manifest of the export in a folder, with its BLAKE3; `None` where there is no export.
    pub(super) fn read(folder: &Path) -> Result<Option<(Self, String)>, Failure> {
        let path = folder.join(MANIFEST);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.and_then(|file| file.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes)),
        }
        .with_context(|| format!("cannot read `{}`", path.display()))
        .map_err(Failure::unreachable)?;
        let manifest: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("`{}` is no manifest of an export", path.display()))
            .map_err(Failure::usage)?;
        let is_plain = |file: &Written| !file.path.contains('/') && !file.path.starts_with('.');
        if manifest.kind != KIND || manifest.format != FORMAT || !manifest.files.iter().all(is_plain) {
            return Err(Failure::usage(anyhow!(
                "`{}` is no manifest of an export that this kaudit knows",
                path.display()
            )));
        }
        Ok(Some((manifest, blake3::hash(&bytes).to_hex().to_string())))
    }
}
