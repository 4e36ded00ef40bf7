//! What is done when the disk refuses.
//!
//! A full disk leaves everything as it was before the group: what was written of it is cut away, durably, and
//! the same segment goes on. After any other error nothing is believed of what the system holds in memory:
//! the file is opened anew, what is durable is read again, the rest is cut, and the next group goes to a new
//! segment. A handle whose sync failed is never synced again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Core, Uncut};
use crate::error::is_full;
use crate::format::Kind;
use crate::segment::{Scan, Step};
use crate::{AppendError, Seq, State};

/// Why a group did not become durable.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    JournalFull,
    DiskFull {
        error: Option<Arc<io::Error>>,
    },
    Io {
        doing: &'static str,
        error: Arc<io::Error>,
        is_sync: bool,
    },
}

impl Failure {
    pub(super) fn write(doing: &'static str, error: io::Error) -> Self {
        if is_full(&error) {
            return Self::DiskFull {
                error: Some(Arc::new(error)),
            };
        }
        Self::Io {
            doing,
            error: Arc::new(error),
            is_sync: false,
        }
    }

    /// Also for want of space, a sync that failed is no ordinary refusal.
    pub(super) fn sync(doing: &'static str, error: io::Error) -> Self {
        Self::Io {
            doing,
            error: Arc::new(error),
            is_sync: true,
        }
    }

    pub(super) fn no_segment() -> Self {
        Self::write("begin a segment", io::Error::other("there is no file for it"))
    }

    pub(crate) fn append_error(&self) -> AppendError {
        match self {
            Self::JournalFull => AppendError::JournalFull,
            Self::DiskFull { error } => AppendError::DiskFull {
                source: error.clone(),
            },
            Self::Io { doing, error, .. } => AppendError::Io {
                doing,
                source: Arc::clone(error),
            },
        }
    }
}

impl Core {
    pub(super) fn count(&self, failure: &Failure) {
        let counters = &mut self.view.lock().counters;
        match failure {
            Failure::JournalFull => {}
            Failure::DiskFull { .. } => counters.full_errors += 1,
            Failure::Io { is_sync: true, .. } => counters.sync_errors += 1,
            Failure::Io { is_sync: false, .. } => counters.write_errors += 1,
        }
    }

    /// No segment could be had for a group.
    pub(super) fn refuse(&mut self, failure: Failure) -> Failure {
        self.count(&failure);
        self.change_state(&failure);
        failure
    }

    /// A group failed while it was written.
    pub(super) fn fail(&mut self, failure: Failure) -> Failure {
        self.count(&failure);
        let Some(tail) = &mut self.tail else {
            return failure;
        };
        if let Failure::DiskFull { .. } = failure {
            let cut = tail
                .file
                .set_len(tail.durable)
                .and_then(|()| tail.file.sync_all());
            if cut.is_ok() {
                tail.written = tail.durable;
                tail.is_shrunk = true;
                tail.segment.set_bytes(tail.durable);
                self.change_state(&failure);
                return failure;
            }
        }
        if let Some(tail) = self.tail.take() {
            self.uncut = Some(Uncut {
                segment: tail.segment,
                durable: tail.durable,
                group: tail.group,
                group_seq: tail.group_seq,
            });
        }
        self.tags.clear();
        match (self.reopen(), &failure) {
            (Ok(()), Failure::DiskFull { .. }) => self.change_state(&failure),
            (Ok(()), _) => {}
            (Err(error), _) => self.change_state(&Failure::Io {
                doing: "open a segment anew",
                error: Arc::new(error),
                is_sync: false,
            }),
        }
        failure
    }

    /// Opens the segment of a failed group anew, looks whether what is durable is there, and cuts the rest.
    fn reopen(&mut self) -> io::Result<()> {
        let Some(uncut) = &self.uncut else { return Ok(()) };
        let file = self.fs.open(&uncut.segment.path)?;
        let salt = uncut.segment.header.map_or(0, |header| header.salt);
        let bound = self.next;
        let mut scan = Scan::new(Arc::clone(&file), salt, uncut.group_seq, bound, uncut.durable);
        scan.seek(uncut.group, uncut.group_seq);
        let mut found = 0;
        // A read that fails says nothing yet about what is there; whoever reads the records will see.
        while let Ok(step @ (Step::Frame { .. } | Step::Damaged)) = scan.step(Seq::new(0)) {
            found += u64::from(matches!(step, Step::Frame { header, .. } if header.kind == Kind::Record));
        }
        let lost = bound.since(uncut.group_seq).saturating_sub(found);
        self.view.lock().counters.corrupt_records += lost;
        file.set_len(uncut.durable)?;
        file.sync_all()?;
        uncut.segment.set_bytes(uncut.durable);
        self.uncut = None;
        Ok(())
    }

    fn change_state(&mut self, failure: &Failure) {
        let now = self.fs.now();
        match failure {
            Failure::JournalFull => {
                if !matches!(self.state, State::Full { .. }) {
                    self.state = State::Full { since: now };
                }
            }
            Failure::DiskFull { error } => {
                self.give_up_reserve();
                if !matches!(self.state, State::DiskFull { .. }) {
                    self.state = State::DiskFull {
                        since: now,
                        error: error.clone(),
                    };
                }
            }
            Failure::Io { error, .. } => {
                if !matches!(self.state, State::Broken { .. }) {
                    self.state = State::Broken {
                        since: now,
                        error: Arc::clone(error),
                    };
                }
            }
        }
    }

    /// Tries whether the journal can go on, and says whether it can.
    pub(crate) fn heal(&mut self) -> bool {
        if matches!(self.state, State::Ready) {
            return true;
        }
        match self.try_heal() {
            Ok(()) => self.state = State::Ready,
            Err(failure) => self.change_state(&failure),
        }
        self.is_ready()
    }

    fn try_heal(&mut self) -> Result<(), Failure> {
        self.reopen()
            .map_err(|error| Failure::write("open a segment anew", error))?;
        if !self.has_reserve {
            match self.take_reserve() {
                Ok(()) => self.has_reserve = true,
                Err(error) if is_full(&error) => return Err(Failure::write("take the reserve", error)),
                Err(_) => {}
            }
        }
        // The group that wanted more is gone.
        if let Some(size) = self.wanted.map(|size| size.min(self.options.segment_bytes)) {
            self.make_room(size)?;
            self.have_spare(size)?;
        }
        let shrunk = self.tail.as_ref().filter(|tail| tail.is_shrunk);
        if let Some(lacking) = shrunk.map(|tail| tail.size.saturating_sub(tail.durable))
            && !self.free_for(lacking)?
        {
            return Err(Failure::DiskFull { error: None });
        }
        if let Some(tail) = self.tail.as_mut().filter(|tail| tail.is_shrunk) {
            let size = tail.size;
            tail.file
                .allocate(size)
                .map_err(|error| Failure::write("take space for a segment", error))?;
            tail.is_shrunk = false;
            tail.segment.set_bytes(size);
        }
        Ok(())
    }

    pub(super) fn take_reserve(&self) -> io::Result<()> {
        if self.options.reserve_bytes == 0 {
            return Ok(());
        }
        let path = self.reserve_path();
        let there = self.fs.open(&path).and_then(|file| file.len());
        if there.is_ok_and(|bytes| bytes == self.options.reserve_bytes) {
            return Ok(());
        }
        let taken = self
            .fs
            .create(&path)
            .and_then(|file| file.allocate(self.options.reserve_bytes));
        if taken.is_err() {
            drop(self.fs.remove(&path));
        }
        taken
    }

    fn give_up_reserve(&mut self) {
        if self.options.reserve_bytes > 0 && self.fs.remove(&self.reserve_path()).is_ok() {
            self.has_reserve = false;
        }
    }

    fn reserve_path(&self) -> PathBuf {
        reserve_path(&self.dir)
    }
}

/// The file that is given up when the disk is full.
pub(crate) fn reserve_path(dir: &Path) -> PathBuf {
    dir.join("reserve")
}
