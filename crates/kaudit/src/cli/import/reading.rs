//! Reading a file on a thread of its own, and showing how far it is.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use kaudit_collect::{Chunk, ImportConfig, ImportError, ImportFile, ImportIdentity, Progress};
use tokio::sync::mpsc;

/// Chunks that are read ahead.
const AHEAD: usize = 2;

/// What is done sooner needs no bar.
const BAR_AFTER: Duration = Duration::from_millis(500);

/// What was read.
pub(super) enum Read {
    /// The next part.
    Chunk(Box<Chunk>, Progress),
    /// The end; nothing follows.
    Whole(ImportIdentity),
    /// It cannot be read any further; nothing follows.
    Failed(ImportError),
}

/// A file that is being read.
pub(super) struct Reading(mpsc::Receiver<Read>);

impl Reading {
    /// Begins to read. The thread ends with the file, or when nobody takes what it reads.
    pub(super) fn start(path: &Path) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let path = path.to_owned();
        std::thread::Builder::new()
            .name("import".to_owned())
            .spawn(move || {
                let end = match read(&path, &sender) {
                    Ok(Some(identity)) => Read::Whole(identity),
                    // Nobody takes it any more.
                    Ok(None) => return,
                    Err(error) => Read::Failed(error),
                };
                drop(sender.blocking_send(end));
            })?;
        Ok(Self(receiver))
    }

    pub(super) async fn next(&mut self) -> Option<Read> {
        self.0.recv().await
    }
}

fn read(path: &Path, sender: &mpsc::Sender<Read>) -> Result<Option<ImportIdentity>, ImportError> {
    let mut file = ImportFile::open(path, ImportConfig::default())?;
    while let Some(chunk) = file.next_chunk()? {
        if sender
            .blocking_send(Read::Chunk(Box::new(chunk), file.progress()))
            .is_err()
        {
            return Ok(None);
        }
    }
    Ok(file.identity())
}

/// A bar on a terminal; nothing elsewhere.
pub(super) struct Bar {
    name: String,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Bar {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            begun: Instant::now(),
            bar: None,
        }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        if self.bar.is_none() && (self.begun.elapsed() < BAR_AFTER || !std::io::stderr().is_terminal()) {
            return;
        }
        let bar = self
            .bar
            .get_or_insert_with(|| bar(&self.name, progress.total_bytes));
        bar.set_position(progress.read_bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Standard input has no length, and so no bar but a count.
fn bar(name: &str, total_bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match total_bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{msg} {spinner} {bytes} {bytes_per_sec}",
        ),
    };
    // What is not understood is shown in the crate's own way.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(name.to_owned())
}
