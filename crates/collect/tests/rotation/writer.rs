//! Writes and rotates as lumberjack and logrotate do, one step at a time.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;

/// An event line, LF included.
pub(crate) fn event(number: u64, pad: usize) -> Vec<u8> {
    let pad = "x".repeat(pad);
    format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"{number:08}\",\
         \"annotations\":{{\"pad\":\"{pad}\"}}}}\n"
    )
    .into_bytes()
}

/// The number of an event line.
pub(crate) fn number(line: &[u8]) -> u64 {
    let text = std::str::from_utf8(line).unwrap();
    let at = text.find("\"auditID\":\"").expect("an event") + 11;
    text[at..at + 8].parse().unwrap()
}

pub(crate) struct Writer {
    pub(crate) path: PathBuf,
    file: Option<File>,
    offset: u64,
    /// In the names of rotated files.
    pub(crate) millis: u64,
}

impl Writer {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("audit.log"),
            file: None,
            offset: 0,
            millis: 0,
        }
    }

    /// As after a rotation: at its own offset, not appending.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let file = self.file.get_or_insert_with(|| {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&self.path)
                .unwrap();
            self.offset = file.metadata().unwrap().len();
            file
        });
        file.write_all_at(bytes, self.offset).unwrap();
        self.offset += bytes.len() as u64;
    }

    pub(crate) fn events(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.write(&event(number, 200));
        }
    }

    /// The first step of a rotation; there is no file at the path then.
    pub(crate) fn rename(&mut self) -> PathBuf {
        self.file = None;
        let modified = fs::metadata(&self.path).unwrap().modified().unwrap();
        let millis = modified
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis();
        self.millis = u64::try_from(millis).unwrap().max(self.millis + 1);
        let time = jiff::Timestamp::from_millisecond(i64::try_from(self.millis).unwrap()).unwrap();
        let name = time.strftime("audit-%Y-%m-%dT%H-%M-%S.%3f.log").to_string();
        let backup = self.path.with_file_name(name);
        fs::rename(&self.path, &backup).unwrap();
        backup
    }

    /// The second step.
    pub(crate) fn create(&mut self) {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&self.path)
            .unwrap();
        self.file = Some(file);
        self.offset = 0;
    }

    pub(crate) fn rotate(&mut self) -> PathBuf {
        let backup = self.rename();
        self.create();
        backup
    }

    /// An emptied file under a writer that appends.
    pub(crate) fn seek_to_start(&mut self) {
        self.offset = 0;
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Replaces a file by its archive.
pub(crate) fn compress(path: &Path) -> PathBuf {
    let archive = with_suffix(path, ".gz");
    fs::write(&archive, gzip(&fs::read(path).unwrap())).unwrap();
    fs::remove_file(path).unwrap();
    archive
}
