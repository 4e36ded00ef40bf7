//! The gateway's access log: a thread that writes lines of requests that ended.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use kaudit_backend::{RotatingFile, Rotation, RotationError};
use kaudit_gateway::Access;
use tokio::sync::mpsc;
use tracing::{error, info};

/// Requests that wait for the thread; those of a second and more. What finds no room is counted.
const WAITING: usize = 16_384;

/// Bytes that are written at once, about.
const CHUNK: usize = 64 << 10;

/// The log; [`close`](Self::close) writes what waits.
#[derive(Debug)]
pub(crate) struct AccessLog {
    sender: mpsc::Sender<Access>,
    writer: JoinHandle<()>,
    unwritten: Arc<AtomicU64>,
}

/// Where lines go.
enum Output {
    File(Box<RotatingFile>),
    Stdout(io::Stdout),
}

impl AccessLog {
    /// In the file at `path`, or on standard output for `-`.
    pub(crate) fn open(path: &str, rotation: Rotation) -> io::Result<Self> {
        let output = if path == "-" {
            Output::Stdout(io::stdout())
        } else {
            Output::File(Box::new(RotatingFile::open(Path::new(path), rotation)?))
        };
        let (sender, requests) = mpsc::channel(WAITING);
        let unwritten = Arc::new(AtomicU64::new(0));
        let writing = Writing {
            output,
            lines: Vec::with_capacity(CHUNK),
            ends: Vec::new(),
            is_failing: false,
            unwritten: Arc::clone(&unwritten),
        };
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writing.run(requests))?;
        Ok(Self {
            sender,
            writer,
            unwritten,
        })
    }

    /// Where requests go.
    pub(crate) fn sender(&self) -> mpsc::WeakSender<Access> {
        self.sender.downgrade()
    }

    /// Lines that could not be written.
    pub(crate) fn unwritten(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unwritten)
    }

    /// Writes what waits. Waits for the disk.
    pub(crate) fn close(self) {
        drop(self.sender);
        // A panic of the thread was reported by itself.
        drop(self.writer.join());
    }
}

struct Writing {
    output: Output,
    lines: Vec<u8>,
    /// Where each of the lines ends.
    ends: Vec<usize>,
    is_failing: bool,
    unwritten: Arc<AtomicU64>,
}

impl Writing {
    fn run(mut self, mut requests: mpsc::Receiver<Access>) {
        while let Some(request) = requests.blocking_recv() {
            self.add(&request);
            while self.lines.len() < CHUNK
                && let Ok(request) = requests.try_recv()
            {
                self.add(&request);
            }
            self.write();
        }
        if let Output::File(file) = &mut self.output {
            file.close();
        }
    }

    fn add(&mut self, request: &Access) {
        request.write_line(&mut self.lines);
        self.ends.push(self.lines.len());
    }

    fn write(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        let mut begin = 0;
        let at_once = match &self.output {
            Output::File(file) => file.takes(lines.len() as u64),
            Output::Stdout(_) => true,
        };
        if at_once {
            let count = self.ends.len();
            self.put(&lines, count);
        } else {
            for end in std::mem::take(&mut self.ends) {
                self.put(lines.get(begin..end).unwrap_or_default(), 1);
                begin = end;
            }
        }
        self.ends.clear();
        self.lines = lines;
        self.lines.clear();
    }

    /// A log that fails is told of once.
    fn put(&mut self, bytes: &[u8], lines: usize) {
        let written = match &mut self.output {
            Output::File(file) => file.write_line(bytes),
            Output::Stdout(stdout) => stdout
                .write_all(bytes)
                .and_then(|()| stdout.flush())
                .map_err(RotationError::from),
        };
        match written {
            Ok(()) if self.is_failing => {
                self.is_failing = false;
                info!("the access log is written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.unwritten.fetch_add(lines as u64, Ordering::Relaxed);
                if !self.is_failing {
                    self.is_failing = true;
                    error!(%error, "the access log cannot be written");
                }
            }
        }
    }
}
