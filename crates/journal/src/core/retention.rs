//! How old segments go.

use std::sync::Arc;

use super::{Core, Failure, Spare};
use crate::cursor::Hold;
use crate::view::Kept;
use crate::{Seq, WhenFull};

/// What may be done with the oldest segment.
enum Verdict {
    /// All holding cursors have passed it.
    Released,
    /// Nobody holds it, or nobody is asked.
    Expired,
    /// A holding cursor needs it.
    Held,
}

impl Core {
    /// Lets the oldest segments go until one of `size` bytes may be added.
    pub(super) fn make_room(&mut self, size: u64) -> Result<(), Failure> {
        loop {
            {
                let kept = self.view.lock();
                let taken: u64 = kept.segments.iter().map(|segment| segment.bytes()).sum();
                if taken.saturating_add(size) <= self.options.max_bytes {
                    return Ok(());
                }
                // The last one has the marks and the numbers until there is another.
                let is_last = kept.segments.len() <= 1;
                if is_last || matches!(self.verdict(&kept, self.options.when_full), Verdict::Held) {
                    return Err(Failure::JournalFull);
                }
            }
            self.let_go(self.options.when_full)?;
        }
    }

    /// Lets all segments go that every holding cursor has passed; none if there is no such cursor.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub(crate) fn release(&mut self) -> Result<(), Failure> {
        while self.let_one_go()? {}
        Ok(())
    }

    /// Lets the oldest segment go if every holding cursor has passed it.
    pub(super) fn let_one_go(&mut self) -> Result<bool, Failure> {
        let may_go = {
            let kept = self.view.lock();
            let is_released = matches!(self.verdict(&kept, WhenFull::Refuse), Verdict::Released);
            kept.segments.len() > 1 && is_released
        };
        if may_go {
            self.let_go(WhenFull::Refuse)?;
        }
        Ok(may_go)
    }

    /// Gives released segments back to a disk that lacks `lacking` bytes beyond what has to stay free.
    pub(super) fn free_for(&mut self, lacking: u64) -> Result<bool, Failure> {
        loop {
            let free = self
                .fs
                .available(&self.dir)
                .map_err(|error| Failure::write("ask for free space", error))?;
            if free.saturating_sub(lacking) >= self.options.min_free_bytes {
                return Ok(true);
            }
            if !self.let_one_go()? {
                return Ok(false);
            }
        }
    }

    fn verdict(&self, kept: &Kept, when_full: WhenFull) -> Verdict {
        let held = held_from(kept);
        let end = self.end_of_oldest(kept);
        match held {
            Some(held) if end <= held => Verdict::Released,
            Some(_) if when_full == WhenFull::Refuse => Verdict::Held,
            _ => Verdict::Expired,
        }
    }

    fn end_of_oldest(&self, kept: &Kept) -> Seq {
        kept.segments.get(1).map_or(self.next, |next| next.first)
    }

    /// Recycles or removes the oldest segment.
    fn let_go(&mut self, when_full: WhenFull) -> Result<(), Failure> {
        // One after the other, so that no crash leaves an older one before a gap.
        self.sync_names()?;
        let synced = self.view.sync_cursors();
        synced.map_err(|error| Failure::sync("sync the cursors' directory", error))?;
        let (segment, end, verdict) = {
            let mut kept = self.view.lock();
            let end = self.end_of_oldest(&kept);
            let verdict = self.verdict(&kept, when_full);
            let Some(segment) = kept.segments.pop_front() else {
                return Ok(());
            };
            (segment, end, verdict)
        };
        // Out of the list nobody can come to have it; whoever has it goes on with a file without a name.
        let is_alone = Arc::strong_count(&segment) == 1;
        let recycled = is_alone && self.spare.is_none() && segment.header.is_some();
        let gone = if recycled {
            self.fs.rename(&segment.path, &self.spare_path())
        } else {
            self.fs.remove(&segment.path)
        };
        let gone = match gone {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            gone => gone,
        };
        if let Err(error) = gone {
            self.view.lock().segments.push_front(segment);
            return Err(Failure::write("remove a segment", error));
        }
        self.has_unsynced_names = true;
        {
            let mut kept = self.view.lock();
            let records = end.since(segment.first);
            match verdict {
                Verdict::Released => kept.counters.released_records += records,
                Verdict::Expired | Verdict::Held => kept.counters.expired_records += records,
            }
        }
        self.sync_names()?;
        if recycled && let Ok(file) = self.fs.open(&self.spare_path()) {
            self.spare = Some(Spare {
                file,
                size: segment.bytes(),
                is_recycled: true,
            });
        }
        Ok(())
    }

    /// Makes durable which segments went, if that is not so yet. Before it is, none may follow them, and the
    /// file `spare` may still be a segment after a crash, so nothing may be written to it.
    pub(super) fn sync_names(&mut self) -> Result<(), Failure> {
        if self.has_unsynced_names {
            let synced = self.fs.sync_dir(&self.dir);
            synced.map_err(|error| Failure::sync("sync the journal's directory", error))?;
            self.has_unsynced_names = false;
        }
        Ok(())
    }
}

/// From where on a holding cursor needs records.
fn held_from(kept: &Kept) -> Option<Seq> {
    let holding = kept
        .cursors
        .values()
        .filter(|position| position.hold == Hold::Yes);
    holding.map(|position| position.at).min()
}
