//! From one segment to the next.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::{COMMIT, Core, FOOTER, Failure, Spare, Tail};
use crate::error::is_full;
use crate::format::{self, COPY_AT, DATA_AT, Kind, SegmentHeader};
use crate::segment::{self, Segment, write_all};

impl Core {
    /// Closes the segment that is written, if there is one, and begins the next, with room for a group of
    /// `need` bytes. Nothing is closed before the space for the next is there.
    pub(super) fn roll(&mut self, need: u64) -> Result<(), Failure> {
        let least = DATA_AT + self.snapshot_bytes() + COMMIT + need.saturating_add(FOOTER + COMMIT);
        let size = self.options.segment_bytes.max(least);
        self.wanted = Some(size);
        self.make_room(size)?;
        self.have_spare(size)?;
        self.close_tail();
        self.begin()
    }

    /// Makes sure that there is a spare file of `size` bytes.
    pub(super) fn have_spare(&mut self, size: u64) -> Result<(), Failure> {
        self.sync_names()?;
        let there = self.spare.as_ref().map_or(0, |spare| spare.size);
        if there == size {
            return Ok(());
        }
        if size > there && !self.free_for(size - there)? {
            return Err(Failure::DiskFull { error: None });
        }
        // What was let go may be the spare now.
        let there = self.spare.as_ref().map_or(0, |spare| spare.size);
        let (file, is_recycled) = match self.spare.take() {
            Some(spare) => (spare.file, spare.is_recycled),
            None => {
                let created = self.fs.create(&self.spare_path());
                (
                    created.map_err(|error| Failure::write("create a segment", error))?,
                    false,
                )
            }
        };
        let sized = if size < there {
            file.set_len(size)
        } else {
            file.allocate(size)
        };
        if let Err(error) = sized {
            drop(file);
            self.give_up_spare();
            if is_full(&error) && self.let_one_go()? {
                return self.have_spare(size);
            }
            return Err(Failure::write("take space for a segment", error));
        }
        self.spare = Some(Spare {
            file,
            size,
            is_recycled,
        });
        Ok(())
    }

    /// Makes the spare file the segment that is written.
    fn begin(&mut self) -> Result<(), Failure> {
        let Some(spare) = self.spare.take() else {
            return Err(Failure::no_segment());
        };
        match self.try_begin(&spare) {
            Ok(tail) => {
                self.wanted = None;
                if let Some(empty) = self.empty.take().filter(|empty| *empty != tail.segment.path) {
                    // It holds no records; at worst the next opening finds it again.
                    drop(self.fs.remove(&empty));
                }
                self.tags.clear();
                self.is_listed = true;
                let segment = Arc::clone(&tail.segment);
                self.tail = Some(tail);
                self.view.publish(self.next, |kept| {
                    // One that got no records has the same number, and its file was replaced.
                    kept.segments.retain(|there| there.first != segment.first);
                    kept.segments.push_back(segment);
                });
                Ok(())
            }
            Err(failure) => {
                self.give_up_spare();
                Err(failure)
            }
        }
    }

    /// The header and all marks are durable before the file gets a segment's name, so that a segment that can
    /// be seen always has them.
    fn try_begin(&self, spare: &Spare) -> Result<Tail, Failure> {
        let failed = |doing| move |error| Failure::write(doing, error);
        let salt = self.fs.salt().map_err(failed("choose a salt"))?;
        let since = self.fs.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = SegmentHeader {
            first: self.next,
            created_nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            salt,
            recycled: spare.is_recycled,
        };
        let mut marks = Vec::new();
        for (key, value) in &self.view.lock().marks {
            format::push_mark(&mut marks, key, value);
        }
        let snapshot = format::frame(Kind::Snapshot, self.next, salt, &marks);
        let encoded = header.encode();
        let file = &spare.file;
        write_all(file.as_ref(), &[&encoded], 0).map_err(failed("write a segment's header"))?;
        let written = write_all(file.as_ref(), &[&encoded, &snapshot], COPY_AT)
            .map_err(failed("write a segment's header"))?;
        file.sync_all()
            .map_err(|error| Failure::sync("sync a segment's header", error))?;
        let path = segment::path(&self.dir, self.next);
        self.fs
            .rename(&self.spare_path(), &path)
            .map_err(failed("name a segment"))?;
        // If this fails the file stays, without records and with all marks, which those it may have replaced
        // had; the next attempt takes its name.
        let synced = self.fs.sync_dir(&self.dir);
        synced.map_err(|error| Failure::sync("sync the journal's directory", error))?;
        let durable = COPY_AT + written;
        Ok(Tail {
            segment: Arc::new(Segment::new(self.next, path, Some(header), durable, spare.size)),
            file: Arc::clone(file),
            salt,
            durable,
            written: durable,
            group: durable,
            group_seq: self.next,
            size: spare.size,
            is_shrunk: false,
        })
    }

    /// Ends the segment that is written with the list of its tags and cuts it to its length.
    ///
    /// All its records are durable. If the disk fails here, the segment stays as it is, without a list: the
    /// next segment's number says where its own end.
    pub(super) fn close_tail(&mut self) {
        let Some(tail) = self.tail.take() else { return };
        let mut frames = Vec::new();
        let mut list_at = 0;
        if self.is_listed && !self.tags.is_empty() {
            list_at = tail.written;
            format::push_frame(&mut frames, Kind::Tags, &self.tags);
        }
        format::push_frame(&mut frames, Kind::End, &u64::to_le_bytes(list_at));
        format::seal(&mut frames, self.next, tail.salt, |_, _| ());
        let closed = || -> io::Result<u64> {
            let end = tail.written + write_all(tail.file.as_ref(), &[&frames], tail.written)?;
            tail.file.set_len(end)?;
            tail.file.sync_all()?;
            Ok(end)
        };
        match closed() {
            Ok(end) => tail.segment.set_bytes(end),
            Err(error) => self.count(&Failure::sync("close a segment", error)),
        }
        self.tags.clear();
    }

    pub(super) fn give_up_spare(&mut self) {
        self.spare = None;
        // Whatever stays is removed at the next opening, or taken over by the next attempt.
        drop(self.fs.remove(&self.spare_path()));
    }

    pub(super) fn spare_path(&self) -> PathBuf {
        self.dir.join("spare")
    }
}
