//! A caller of a tail that keeps what it is given, and can be stopped and started.

use std::path::Path;
use std::time::{Duration, SystemTime};

use kaudit_collect::{Anomalies, Chunk, Gap, MAX_POSITION_BYTES, Poll, SourceStatus, Tail, TailConfig};

use crate::writer::number;

pub(crate) struct Reader {
    pub(crate) config: TailConfig,
    pub(crate) tail: Option<Tail>,
    /// Kept with the lines.
    pub(crate) saved: Option<Vec<u8>>,
    pub(crate) now: SystemTime,
    pub(crate) lines: Vec<Vec<u8>>,
    pub(crate) torn: Vec<Vec<u8>>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) anomalies: Anomalies,
    /// What each chunk had, in words.
    pub(crate) trace: Vec<String>,
}

pub(crate) fn start_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

impl Reader {
    pub(crate) fn new(path: &Path) -> Self {
        Self::with(TailConfig::new(path.to_str().unwrap()))
    }

    pub(crate) fn with(config: TailConfig) -> Self {
        let mut reader = Self {
            config,
            tail: None,
            saved: None,
            now: start_time(),
            lines: Vec::new(),
            torn: Vec::new(),
            gaps: Vec::new(),
            anomalies: Anomalies::default(),
            trace: Vec::new(),
        };
        reader.start();
        reader
    }

    pub(crate) fn start(&mut self) {
        let mut tail = Tail::open(self.config.clone(), self.saved.as_deref(), self.now).unwrap();
        self.saved = Some(tail.position());
        self.tail = Some(tail);
    }

    /// Stops as a crash does: only what was saved is left.
    pub(crate) fn restart(&mut self) {
        self.tail = None;
        self.start();
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(crate) fn poll(&mut self) -> Option<Chunk> {
        self.now += Duration::from_millis(10);
        match self.tail.as_mut().unwrap().poll(self.now) {
            Poll::Chunk(chunk) => Some(*chunk),
            Poll::Idle => None,
        }
    }

    pub(crate) fn poll_and_keep(&mut self) {
        if let Some(chunk) = self.poll() {
            self.keep(chunk);
        }
    }

    pub(crate) fn keep(&mut self, chunk: Chunk) {
        assert!(chunk.position.len() <= MAX_POSITION_BYTES);
        let mut end_offset = 0;
        for line in &chunk.lines {
            assert!(line.end_offset >= end_offset, "offsets grow");
            end_offset = line.end_offset;
        }
        self.trace.push(format!(
            "  {} {:04x}: {} lines up to {end_offset}, {} torn, {:?}",
            chunk.file.name,
            chunk.file.id & 0xffff,
            chunk.lines.len(),
            chunk.torn.len(),
            chunk.gaps
        ));
        self.lines.extend(chunk.texts().map(<[u8]>::to_vec));
        self.torn
            .extend(chunk.torn.iter().map(|torn| torn.bytes.to_vec()));
        self.gaps.extend(chunk.gaps);
        self.anomalies.rotations += chunk.anomalies.rotations;
        self.anomalies.copytruncates += chunk.anomalies.copytruncates;
        self.anomalies.holes += chunk.anomalies.holes;
        self.anomalies.hole_bytes += chunk.anomalies.hole_bytes;
        self.anomalies.torn_lines += chunk.anomalies.torn_lines;
        self.anomalies.interleavings += chunk.anomalies.interleavings;
        self.anomalies.oversized_lines += chunk.anomalies.oversized_lines;
        self.saved = Some(chunk.position);
    }

    /// Polls until there is nothing.
    pub(crate) fn drain(&mut self) {
        for _ in 0..100_000 {
            match self.poll() {
                Some(chunk) => self.keep(chunk),
                None => return,
            }
        }
        panic!("it does not come to rest");
    }

    /// Drains, lets the directory be looked through again, drains.
    pub(crate) fn settle(&mut self) {
        for _ in 0..3 {
            self.drain();
            self.pass(11);
        }
        self.drain();
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.lines.iter().map(|line| number(line)).collect()
    }

    #[track_caller]
    pub(crate) fn expect(&self, numbers: std::ops::Range<u64>) {
        assert_eq!(self.numbers(), numbers.collect::<Vec<_>>());
    }

    pub(crate) fn status(&self) -> SourceStatus {
        self.tail.as_ref().unwrap().status().sources.remove(0)
    }
}
