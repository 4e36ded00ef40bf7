//! A disk that fails as disks do, the same way every time for the same seed.
//!
//! Each file has what programs see and what is on the medium; a write changes the first and marks blocks of
//! 512 bytes as dirty, a sync brings them to the second. Names work the same way, and are brought over by a
//! sync of their directory. [`SimulatedDisk::crash`] cuts the power: every dirty block and every change of a
//! name that was not synced survives or does not, each for itself. Calls can be made to fail by their number,
//! space is bounded if wanted, and bits can be flipped.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{FileHandle, Filesystem};

const BLOCK: usize = 512;
/// Space is counted in these.
const PAGE: u64 = 4096;

/// A source of numbers that are the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Numbers that follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`; 0 if that is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.roll() % bound }
    }

    /// True once in `in_how_many` times.
    pub const fn hits(&mut self, in_how_many: u64) -> bool {
        self.below(in_how_many) == 0
    }
}

/// A kind of call, for faults that are to hit only such calls and for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "they are the methods' names")]
pub enum Call {
    CreateDir,
    List,
    Create,
    Open,
    Rename,
    Remove,
    SyncDir,
    Available,
    Lock,
    Read,
    Write,
    SyncData,
    SyncAll,
    SetLen,
    Allocate,
    Len,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the three ways to fail")]
pub enum Fault {
    /// It fails with EIO, perhaps half done; a sync loses what it likes and says so only once.
    Io,
    /// It fails with ENOSPC, perhaps half done.
    NoSpace,
    /// The power goes: this call and all later ones fail.
    PowerOff,
}

/// A disk in memory. Its clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    dice: Dice,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that are not durable: where, and what each name then leads to.
    pending: Vec<(PathBuf, Vec<Change>)>,
    locks: BTreeSet<PathBuf>,
    capacity: Option<u64>,
    calls: Vec<Call>,
    faults: BTreeMap<u64, Fault>,
    nth: Vec<(Call, u64, Fault)>,
    /// One call in so many fails.
    rate: Option<(u64, Fault)>,
    is_off: bool,
    seconds: u64,
}

/// A name and the file that it then leads to.
type Change = (PathBuf, Option<u64>);

/// Faults that were taken away for a while.
#[derive(Debug)]
pub struct Paused {
    calls: usize,
    faults: BTreeMap<u64, Fault>,
    nth: Vec<(Call, u64, Fault)>,
    rate: Option<(u64, Fault)>,
}

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    allocated: u64,
    /// Pages that cannot be read.
    bad: BTreeSet<u64>,
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
}

struct Unlock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl SimulatedDisk {
    /// An empty disk; everything random about it follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            dice: Dice::new(seed),
            files: BTreeMap::new(),
            next_file: 1,
            directories: BTreeSet::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            locks: BTreeSet::new(),
            capacity: None,
            calls: Vec::new(),
            faults: BTreeMap::new(),
            nth: Vec::new(),
            rate: None,
            is_off: false,
            seconds: 0,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// The disk after the power went and came again. Faults that were asked for are forgotten.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut inner = self.lock();
        let dice = &mut inner.dice;
        // Some devices tear in sectors, some in pages.
        let tear = if dice.hits(2) { 1 } else { 8 };
        // From "nearly nothing survives" to "nearly everything does".
        let odds = dice.below(5);
        let mut dice = dice.clone();
        let mut names = inner.durable_names.clone();
        for (_, changes) in &inner.pending {
            if dice.below(4) < odds {
                apply(&mut names, changes);
            }
        }
        let mut files = BTreeMap::new();
        for file in names.values() {
            if let Some(content) = inner.files.get(file) {
                files.insert(*file, content.after_crash(&mut dice, tear, odds));
            }
        }
        inner.dice = dice.clone();
        let after = Inner {
            dice: Dice::new(dice.roll()),
            files,
            next_file: inner.next_file,
            directories: inner.directories.clone(),
            durable_names: names.clone(),
            names,
            pending: Vec::new(),
            locks: BTreeSet::new(),
            capacity: inner.capacity,
            calls: Vec::new(),
            faults: BTreeMap::new(),
            nth: Vec::new(),
            rate: None,
            is_off: false,
            seconds: inner.seconds,
        };
        Self {
            inner: Arc::new(Mutex::new(after)),
        }
    }

    /// Makes the block of 4 KiB that holds byte `at` of a file unreadable, until the next crash.
    pub fn spoil(&self, path: &Path, at: u64) {
        let mut inner = self.lock();
        if let Some(file) = inner.names.get(path).copied() {
            inner.content(file).bad.insert(at / PAGE);
        }
    }

    /// Bounds the space of all files; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes that files take.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Makes call number `call` fail, counted from 0 over all calls.
    pub fn fail_call(&self, call: u64, fault: Fault) {
        self.lock().faults.insert(call, fault);
    }

    /// Makes the `nth` call of a kind from now on fail, counted from 0.
    pub fn fail_nth(&self, kind: Call, nth: u64, fault: Fault) {
        self.lock().nth.push((kind, nth, fault));
    }

    /// Makes one call in `one_in` fail; `None` for none.
    pub fn fail_at_random(&self, rate: Option<(u64, Fault)>) {
        self.lock().rate = rate;
    }

    /// Takes all faults that wait away; [`resume_faults`](Self::resume_faults) brings them back.
    #[must_use]
    pub fn pause_faults(&self) -> Paused {
        let mut inner = self.lock();
        Paused {
            calls: inner.calls.len(),
            faults: std::mem::take(&mut inner.faults),
            nth: std::mem::take(&mut inner.nth),
            rate: inner.rate.take(),
        }
    }

    /// Calls since [`pause_faults`](Self::pause_faults) do not count.
    pub fn resume_faults(&self, paused: Paused) {
        let mut inner = self.lock();
        inner.calls.truncate(paused.calls);
        inner.faults = paused.faults;
        inner.nth = paused.nth;
        inner.rate = paused.rate;
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// Whether the power went.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// The files.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    /// What programs see in a file.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.lock();
        let file = inner.names.get(path)?;
        inner.files.get(file).map(|content| content.seen.clone())
    }

    /// Puts a file there, durably, with its directory.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut inner = self.lock();
        if let Some(above) = path.parent() {
            inner.directories.insert(above.to_owned());
        }
        let file = inner.next_file;
        inner.next_file += 1;
        inner.names.insert(path.to_owned(), file);
        inner.durable_names.insert(path.to_owned(), file);
        let content = Content {
            seen: bytes.to_vec(),
            durable: bytes.to_vec(),
            dirty: BTreeSet::new(),
            allocated: pages(bytes.len() as u64),
            bad: BTreeSet::new(),
        };
        inner.files.insert(file, content);
    }

    /// Flips a bit of a file, silently; whether there is such a bit.
    pub fn flip(&self, path: &Path, bit: u64) -> bool {
        let mut inner = self.lock();
        let Some(file) = inner.names.get(path).copied() else {
            return false;
        };
        let Some(content) = inner.files.get_mut(&file) else {
            return false;
        };
        let at = usize::try_from(bit / 8).unwrap_or(usize::MAX);
        let mask = 1 << (bit % 8);
        let mut is_there = false;
        for bytes in [&mut content.seen, &mut content.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
                is_there = true;
            }
        }
        is_there
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; the fault that hits it, if one does.
    fn call(&self, call: Call) -> (MutexGuard<'_, Inner>, Option<Fault>) {
        let mut inner = self.lock();
        let fault = inner.call(call);
        (inner, fault)
    }
}

impl Inner {
    fn call(&mut self, call: Call) -> Option<Fault> {
        let number = self.calls.len() as u64;
        self.calls.push(call);
        if self.is_off {
            return Some(Fault::PowerOff);
        }
        let mut fault = self.faults.remove(&number);
        for (kind, left, hit) in &mut self.nth {
            if *kind == call {
                if *left == 0 {
                    fault = Some(*hit);
                }
                *left = left.wrapping_sub(1);
            }
        }
        self.nth.retain(|(_, left, _)| *left != u64::MAX);
        if let Some((one_in, hit)) = self.rate
            && self.dice.hits(one_in)
        {
            fault = Some(hit);
        }
        self.is_off = fault == Some(Fault::PowerOff);
        fault
    }

    fn used(&self) -> u64 {
        let named: BTreeSet<_> = self.names.values().collect();
        named
            .into_iter()
            .filter_map(|file| self.files.get(file))
            .map(|content| content.allocated)
            .sum()
    }

    fn free(&self) -> u64 {
        self.capacity
            .map_or(1 << 50, |capacity| capacity.saturating_sub(self.used()))
    }

    fn change(&mut self, directory: &Path, changes: Vec<Change>) {
        apply(&mut self.names, &changes);
        self.pending.push((directory.to_owned(), changes));
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.files.entry(file).or_default()
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, changes: &[Change]) {
    for (path, file) in changes {
        match file {
            Some(file) => names.insert(path.clone(), *file),
            None => names.remove(path),
        };
    }
}

/// Cuts, or extends with zeros; faster than `Vec::resize` in builds without optimisation.
fn resize(bytes: &mut Vec<u8>, length: usize) {
    match length.checked_sub(bytes.len()) {
        Some(more) => bytes.extend_from_slice(&vec![0; more]),
        None => bytes.truncate(length),
    }
}

const fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE) * PAGE
}

impl Content {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / BLOCK..to.div_ceil(BLOCK));
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            resize(&mut self.seen, end);
        }
        if let Some(place) = self.seen.get_mut(offset..end) {
            place.copy_from_slice(bytes);
        }
        self.touch(offset, end);
    }

    fn resize(&mut self, bytes: usize) {
        let before = self.seen.len();
        resize(&mut self.seen, bytes);
        if bytes < before {
            self.touch(bytes, before);
        }
    }

    /// Brings blocks to the medium.
    fn persist(&mut self, blocks: impl Iterator<Item = usize>) {
        for block in blocks {
            let from = block * BLOCK;
            let to = (from + BLOCK).min(self.seen.len());
            if self.durable.len() < to {
                resize(&mut self.durable, to);
            }
            if let (Some(seen), Some(durable)) = (self.seen.get(from..to), self.durable.get_mut(from..to)) {
                durable.copy_from_slice(seen);
            }
        }
    }

    fn sync(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        resize(&mut self.durable, self.seen.len());
        self.persist(dirty.into_iter());
    }

    /// A sync that failed: some blocks made it, some are believed to have, some are gone from memory too.
    fn fail_sync(&mut self, dice: &mut Dice) {
        for block in std::mem::take(&mut self.dirty) {
            match dice.below(3) {
                0 => self.persist(std::iter::once(block)),
                1 => {}
                _ => {
                    let from = block * BLOCK;
                    let to = (from + BLOCK).min(self.seen.len());
                    let mut old = self
                        .durable
                        .get(from..to.min(self.durable.len()))
                        .unwrap_or_default()
                        .to_vec();
                    old.resize(to.saturating_sub(from), 0);
                    if let Some(seen) = self.seen.get_mut(from..to) {
                        seen.copy_from_slice(&old);
                    }
                }
            }
        }
    }

    fn after_crash(&self, dice: &mut Dice, tear: usize, odds: u64) -> Self {
        let length = if dice.below(4) < odds {
            self.seen.len()
        } else {
            self.durable.len()
        };
        let mut bytes = self.durable.clone();
        resize(&mut bytes, length);
        let mut kept = (usize::MAX, false);
        for block in &self.dirty {
            if kept.0 != block / tear {
                kept = (block / tear, dice.below(4) < odds);
            }
            let from = block * BLOCK;
            let to = (from + BLOCK).min(length).min(self.seen.len());
            if kept.1
                && let (Some(seen), Some(place)) = (self.seen.get(from..to), bytes.get_mut(from..to))
            {
                place.copy_from_slice(seen);
            }
        }
        Self {
            seen: bytes.clone(),
            allocated: pages(bytes.len() as u64),
            durable: bytes,
            dirty: BTreeSet::new(),
            bad: BTreeSet::new(),
        }
    }
}

/// Makes the checks of a segment's header and of all frames that follow each other right, so that what is
/// behind the checks can be tried.
#[must_use]
pub fn reseal(segment: Vec<u8>, salt: u64) -> Vec<u8> {
    crate::format::reseal(segment, salt)
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn enospc() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error())
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Io | Self::PowerOff => eio(),
            Self::NoSpace => enospc(),
        }
    }
}

fn check(fault: Option<Fault>) -> io::Result<()> {
    fault.map_or(Ok(()), |fault| Err(fault.error()))
}

fn wide(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl FileHandle for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut inner, fault) = self.disk.call(Call::Read);
        check(fault)?;
        let content = inner.content(self.file);
        let last = (offset + buffer.len() as u64).saturating_sub(1) / PAGE;
        if content.bad.range(offset / PAGE..=last).next().is_some() {
            return Err(eio());
        }
        let there = content.seen.get(wide(offset)..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), there.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn write_at(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let (mut inner, fault) = self.disk.call(Call::Write);
        let bytes = parts.iter().fold(Vec::new(), |mut bytes, part| {
            bytes.extend_from_slice(part);
            bytes
        });
        if let Some(fault) = fault {
            let taken = wide(inner.dice.below(bytes.len() as u64 + 1));
            let taken = bytes.get(..taken).unwrap_or_default();
            let content = inner.content(self.file);
            content.put(wide(offset), taken);
            content.allocated = content.allocated.max(pages(content.seen.len() as u64));
            return Err(fault.error());
        }
        let free = inner.free();
        let content = inner.content(self.file);
        let allowed = content.allocated + free / PAGE * PAGE;
        let length = bytes.len().min(wide(allowed.saturating_sub(offset)));
        if length == 0 && !bytes.is_empty() {
            return Err(enospc());
        }
        content.put(wide(offset), bytes.get(..length).unwrap_or_default());
        content.allocated = content.allocated.max(pages(offset + length as u64));
        Ok(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Call::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Call::SyncAll)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let (mut inner, fault) = self.disk.call(Call::SetLen);
        check(fault)?;
        let content = inner.content(self.file);
        content.resize(wide(bytes));
        content.allocated = content.allocated.min(pages(bytes));
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let (mut inner, fault) = self.disk.call(Call::Allocate);
        check(fault)?;
        let free = inner.free();
        let content = inner.content(self.file);
        if pages(bytes).saturating_sub(content.allocated) > free {
            return Err(enospc());
        }
        content.allocated = content.allocated.max(pages(bytes));
        if content.seen.len() < wide(bytes) {
            content.resize(wide(bytes));
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let (mut inner, fault) = self.disk.call(Call::Len);
        check(fault)?;
        Ok(inner.content(self.file).seen.len() as u64)
    }
}

impl SimulatedFile {
    fn sync(&self, call: Call) -> io::Result<()> {
        let (mut inner, fault) = self.disk.call(call);
        match fault {
            None => inner.content(self.file).sync(),
            // What becomes of the blocks is decided when the power comes again.
            Some(Fault::PowerOff) => return Err(eio()),
            Some(fault) => {
                let mut dice = inner.dice.clone();
                inner.content(self.file).fail_sync(&mut dice);
                inner.dice = dice;
                return Err(fault.error());
            }
        }
        Ok(())
    }
}

impl Filesystem for SimulatedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (mut inner, fault) = self.call(Call::CreateDir);
        check(fault)?;
        inner.directories.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let (inner, fault) = self.call(Call::List);
        check(fault)?;
        let here = inner.names.keys().filter(|name| name.parent() == Some(path));
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(here.filter_map(name).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let (mut inner, fault) = self.call(Call::Create);
        check(fault)?;
        let file = match inner.names.get(path).copied() {
            Some(file) => {
                let content = inner.content(file);
                content.resize(0);
                content.allocated = 0;
                file
            }
            None => {
                let file = inner.next_file;
                inner.next_file += 1;
                inner.files.insert(file, Content::default());
                let directory = path.parent().unwrap_or(path).to_owned();
                inner.change(&directory, vec![(path.to_owned(), Some(file))]);
                file
            }
        };
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            file,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let (inner, fault) = self.call(Call::Open);
        check(fault)?;
        let file = inner.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut inner, fault) = self.call(Call::Rename);
        check(fault)?;
        let file = inner.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        let directory = to.parent().unwrap_or(to).to_owned();
        inner.change(
            &directory,
            vec![(from.to_owned(), None), (to.to_owned(), Some(file))],
        );
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut inner, fault) = self.call(Call::Remove);
        check(fault)?;
        inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let directory = path.parent().unwrap_or(path).to_owned();
        inner.change(&directory, vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut inner, fault) = self.call(Call::SyncDir);
        check(fault)?;
        let pending = std::mem::take(&mut inner.pending);
        for (directory, changes) in pending {
            if directory == path {
                apply(&mut inner.durable_names, &changes);
            } else {
                inner.pending.push((directory, changes));
            }
        }
        Ok(())
    }

    fn available(&self, _path: &Path) -> io::Result<u64> {
        let (inner, fault) = self.call(Call::Available);
        check(fault)?;
        Ok(inner.free())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let (mut inner, fault) = self.call(Call::Lock);
        check(fault)?;
        if !inner.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn salt(&self) -> io::Result<u64> {
        Ok(self.lock().dice.roll())
    }

    fn now(&self) -> SystemTime {
        let mut inner = self.lock();
        inner.seconds += 1;
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + inner.seconds)
    }
}

impl Drop for Unlock {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("SimulatedDisk")
            .field("files", &inner.names.len())
            .field("calls", &inner.calls.len())
            .field("is_off", &inner.is_off)
            .finish_non_exhaustive()
    }
}
