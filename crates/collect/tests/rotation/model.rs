//! Random writers and readers against what must come out: each line once, or named in a gap.

use std::fs;
use std::path::{Path, PathBuf};

use kaudit_collect::TailConfig;

use crate::reader::Reader;
use crate::writer::{Writer, compress, event, gzip, with_suffix};

/// Numbers that a seed repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn is_one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A file and the lines in it.
struct Rotated {
    path: PathBuf,
    numbers: Vec<u64>,
}

struct World {
    random: Random,
    writer: Writer,
    reader: Reader,
    next: u64,
    /// In the active file.
    active: Vec<u64>,
    /// Oldest first.
    rotated: Vec<Rotated>,
    /// Half a line that the writer has not ended.
    half: Option<Vec<u8>>,
    /// In files that were removed.
    removed: Vec<u64>,
    /// Of them, those that were gone before the reader had read anything: nothing it knows comes before
    /// them, so for it the log begins behind them.
    removed_unknown: Vec<u64>,
    is_numbered: bool,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, directory: &Path) -> Self {
        let mut random = Random(seed);
        let writer = Writer::new(directory);
        let config = TailConfig {
            max_chunk_bytes: [200, 1000, 5000, 1 << 20][usize::try_from(random.below(4)).unwrap()],
            ..TailConfig::new(writer.path.to_str().unwrap())
        };
        let is_numbered = random.is_one_in(3);
        Self {
            random,
            reader: Reader::with(config),
            writer,
            next: 0,
            active: Vec::new(),
            rotated: Vec::new(),
            half: None,
            removed: Vec::new(),
            removed_unknown: Vec::new(),
            is_numbered,
            log: Vec::new(),
        }
    }

    fn write(&mut self) {
        if let Some(rest) = self.half.take() {
            self.writer.write(&rest);
        }
        for _ in 0..self.random.below(12) {
            let pad = usize::try_from(self.random.below(400)).unwrap();
            self.writer.write(&event(self.next, pad));
            self.active.push(self.next);
            self.next += 1;
        }
        if self.random.is_one_in(4) {
            let mut line = event(self.next, 50);
            let cut = usize::try_from(1 + self.random.below(line.len() as u64 - 1)).unwrap();
            self.half = Some(line.split_off(cut));
            self.writer.write(&line);
            self.active.push(self.next);
            self.next += 1;
        }
    }

    fn end_line(&mut self) {
        if let Some(rest) = self.half.take() {
            self.writer.write(&rest);
        }
    }

    fn rotate(&mut self) {
        if !self.writer.path.exists() {
            return;
        }
        self.end_line();
        let numbers = std::mem::take(&mut self.active);
        if self.is_numbered {
            self.shift();
            let first = with_suffix(&self.writer.path, ".1");
            if self.random.is_one_in(2) {
                self.copytruncate(&first);
            } else {
                self.note("renamed");
                fs::rename(self.writer.rename(), &first).unwrap();
                if !self.random.is_one_in(4) {
                    self.writer.create();
                }
            }
            self.rotated.push(Rotated { path: first, numbers });
        } else {
            let path = self.writer.rename();
            if self.random.is_one_in(3) {
                self.read();
            }
            self.writer.create();
            self.rotated.push(Rotated { path, numbers });
        }
    }

    /// `audit.log.1` becomes `audit.log.2`, and so on.
    fn shift(&mut self) {
        let count = self.rotated.len();
        for (index, file) in self.rotated.iter_mut().enumerate() {
            let suffix = if file.path.extension().is_some_and(|suffix| suffix == "gz") {
                ".gz"
            } else {
                ""
            };
            let to = with_suffix(&self.writer.path, &format!(".{}{suffix}", count - index + 1));
            fs::rename(&file.path, &to).unwrap();
            file.path = to;
        }
    }

    fn copytruncate(&mut self, copy: &Path) {
        let text = fs::read(&self.writer.path).unwrap();
        self.note(&format!("copytruncate of {}", text.len()));
        if self.random.is_one_in(4) && text.len() > 3000 {
            // Seen half done; heads must be comparable.
            let part = 1500 + usize::try_from(self.random.below(text.len() as u64 - 1500)).unwrap();
            fs::write(copy, &text[..part]).unwrap();
            self.note(&format!("copied {part}"));
            self.read();
        }
        fs::write(copy, &text).unwrap();
        if self.random.is_one_in(2) {
            self.read();
        }
        fs::File::options()
            .write(true)
            .open(&self.writer.path)
            .unwrap()
            .set_len(0)
            .unwrap();
        self.note("emptied");
        if self.random.is_one_in(2) {
            self.writer.seek_to_start();
            self.note("appending");
        }
    }

    fn compress(&mut self) {
        let plain: Vec<usize> = (0..self.rotated.len())
            .filter(|index| {
                self.rotated[*index]
                    .path
                    .extension()
                    .is_none_or(|suffix| suffix != "gz")
            })
            .collect();
        let Some(index) = plain.first() else { return };
        let file = &mut self.rotated[*index];
        if self.random.is_one_in(3) {
            // A crash left half an archive beside it, perhaps seen.
            let archive = gzip(&fs::read(&file.path).unwrap());
            fs::write(with_suffix(&file.path, ".gz"), &archive[..archive.len() / 2]).unwrap();
            if self.random.is_one_in(2) {
                self.reader.poll_and_keep();
            }
        }
        let file = &mut self.rotated[*index];
        file.path = compress(&file.path);
        let text = format!("compressed {}", file.path.display());
        self.note(&text);
    }

    fn remove(&mut self) {
        if self.rotated.len() > 2 {
            let file = self.rotated.remove(0);
            fs::remove_file(&file.path).unwrap();
            self.note(&format!("removed {}: {:?}", file.path.display(), file.numbers));
            if self.reader.lines.is_empty() {
                self.removed_unknown.extend(&file.numbers);
            }
            self.removed.extend(file.numbers);
        }
    }

    fn read(&mut self) {
        if self.random.is_one_in(2) {
            self.reader.drain();
        } else {
            for _ in 0..self.random.below(4) {
                self.reader.poll_and_keep();
            }
        }
    }

    fn note(&mut self, text: &str) {
        self.log.append(&mut self.reader.trace);
        let read = self.reader.lines.len();
        self.log
            .push(format!("{text}; {} written, {read} read", self.next));
    }

    fn step(&mut self) {
        let action = self.random.below(100);
        self.note(&format!("action {action}"));
        match action {
            0..35 => self.write(),
            35..60 => self.read(),
            60..72 => self.rotate(),
            72..80 => self.compress(),
            80..83 => self.remove(),
            83..88 => self.reader.pass(11),
            88..94 => {
                // Down for a while.
                self.reader.tail = None;
                for _ in 0..self.random.below(5) {
                    match self.random.below(4) {
                        0 | 1 => self.write(),
                        2 => self.rotate_unread(),
                        _ => self.compress_unread(),
                    }
                }
                self.reader.start();
            }
            94..97 => self.lose_chunks(),
            _ => self.reader.settle(),
        }
    }

    fn rotate_unread(&mut self) {
        if self.is_numbered || !self.writer.path.exists() {
            return;
        }
        self.end_line();
        let path = self.writer.rotate();
        let numbers = std::mem::take(&mut self.active);
        self.rotated.push(Rotated { path, numbers });
    }

    fn compress_unread(&mut self) {
        let plain = |file: &&mut Rotated| file.path.extension().is_none_or(|suffix| suffix != "gz");
        if let Some(file) = self.rotated.iter_mut().find(plain) {
            file.path = compress(&file.path);
        }
    }

    /// Several chunks are on their way when keeping the first fails.
    fn lose_chunks(&mut self) {
        self.note("goes back");
        let saved = self.reader.saved.clone().unwrap();
        for _ in 0..self.random.below(5) {
            if self.reader.poll().is_none() {
                break;
            }
        }
        self.reader.tail.as_mut().unwrap().rewind(&saved).unwrap();
    }

    fn finish(mut self) -> Result<(), String> {
        self.end_line();
        self.reader.settle();
        self.reader.restart();
        self.reader.settle();
        let mut numbers = self.reader.numbers();
        numbers.sort_unstable();
        let mut problems = Vec::new();
        for number in 0..self.next {
            let first = numbers.partition_point(|other| *other < number);
            let count = numbers[first..]
                .iter()
                .take_while(|other| **other == number)
                .count();
            let may_miss = self.removed.contains(&number);
            let was_known = !self.removed_unknown.contains(&number);
            match count {
                1 => {}
                0 if may_miss && (!was_known || !self.reader.gaps.is_empty()) => {}
                count => problems.push(format!("line {number} came {count} times")),
            }
        }
        if self.removed.is_empty() && !self.reader.gaps.is_empty() {
            problems.push(format!("gaps without a loss: {:?}", self.reader.gaps));
        }
        if !self.reader.torn.is_empty() {
            problems.push(format!("{} torn pieces", self.reader.torn.len()));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(format!("{}\n{}", self.log.join("\n"), problems.join("\n")))
        }
    }
}

#[test]
fn each_line_comes_once_or_is_named_in_a_gap() {
    let seeds = std::env::var_os("KAUDIT_TORTURE_SEEDS")
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or(200_u64);
    let first = std::env::var_os("KAUDIT_TORTURE_FIRST")
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or(0_u64);
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let directory = tempfile::tempdir().unwrap();
        let mut world = World::new(seed, directory.path());
        for _ in 0..60 {
            world.step();
        }
        if let Err(report) = world.finish() {
            failed.push((seed, report));
        }
    }
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    if let Some((seed, report)) = failed.first() {
        panic!("{} seeds failed: {seeds:?}; seed {seed}:\n{report}", failed.len());
    }
}
