//! An audit log that is written and rotated as kube-apiserver does it with lumberjack.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::events::Name;

/// Streams of the names of lines begin here.
pub(crate) const STREAM: u32 = 1000;

/// Bytes of a file.
const MAX_BYTES: u64 = 256 << 10;

/// Between two lines. An apiserver writes when a request ends, whatever becomes of its readers.
const PACE: Duration = Duration::from_micros(500);

/// Somebody who writes lines.
#[derive(Debug)]
pub(crate) struct LogWriter {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    file: Arc<Mutex<LogFile>>,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    pub(crate) fn start(path: &Path) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let written = Arc::<AtomicU64>::default();
        let file = Arc::new(Mutex::new(LogFile::new(path)));
        let thread = {
            let (stop, written, file) = (Arc::clone(&stop), Arc::clone(&written), Arc::clone(&file));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = written.load(Ordering::Relaxed);
                    file.lock().unwrap().write(Name {
                        stream: STREAM,
                        number,
                    });
                    written.store(number + 1, Ordering::Release);
                    std::thread::park_timeout(PACE);
                }
            })
        };
        Self {
            stop,
            written,
            file,
            thread: Some(thread),
        }
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(crate) fn rotations(&self) -> u64 {
        self.file.lock().unwrap().rotations
    }

    /// Nothing is written until all is read, and then the rotated files go, as old ones do.
    pub(crate) fn remove_read(&self, wait_until_read: impl FnOnce()) {
        let file = self.file.lock().unwrap();
        wait_until_read();
        for entry in std::fs::read_dir(file.path.parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            if path != file.path {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    /// The names of all lines that were written.
    pub(crate) fn names(&self) -> impl Iterator<Item = Name> + use<> {
        (0..self.written()).map(|number| Name {
            stream: STREAM,
            number,
        })
    }

    pub(crate) fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The active file and its rotated ones.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    active: Option<(File, u64)>,
    rotations: u64,
}

impl LogFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            active: None,
            rotations: 0,
        }
    }

    pub(crate) fn write(&mut self, name: Name) {
        let mut line = name.line();
        line.push('\n');
        let length = u64::try_from(line.len()).unwrap();
        if self
            .active
            .as_ref()
            .is_some_and(|(_, bytes)| bytes + length > MAX_BYTES)
        {
            self.rotate();
        }
        let (file, bytes) = self.active.get_or_insert_with(|| {
            // As lumberjack opens a new file: without O_APPEND.
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&self.path)
                .unwrap();
            (file, 0)
        });
        file.write_all(line.as_bytes()).unwrap();
        *bytes += length;
    }

    /// The names of rotated files hold milliseconds that grow by one; two rotations never share one.
    fn rotate(&mut self) {
        self.active = None;
        self.rotations += 1;
        let (seconds, millis) = (self.rotations / 1000, self.rotations % 1000);
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        let backup = self.path.with_file_name(format!(
            "audit-2026-01-02T03-{minutes:02}-{seconds:02}.{millis:03}.log"
        ));
        std::fs::rename(&self.path, &backup).unwrap();
        if self.rotations.is_multiple_of(2) {
            compress(&backup);
        }
    }
}

/// As lumberjack's mill: the compressed file is written beside the plain one, which then goes.
fn compress(backup: &Path) {
    let mut text = Vec::new();
    File::open(backup).unwrap().read_to_end(&mut text).unwrap();
    let mut name = backup.as_os_str().to_owned();
    name.push(".gz");
    let mut gzip = GzEncoder::new(File::create(name).unwrap(), Compression::fast());
    gzip.write_all(&text).unwrap();
    gzip.finish().unwrap();
    std::fs::remove_file(backup).unwrap();
}
