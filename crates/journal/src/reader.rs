//! Reading records in order.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::format::Kind;
use crate::segment::{Scan, Segment, Step};
use crate::view::{Place, View};
use crate::{ReadError, Seq, TAG_BYTES, Tag};

/// Reads durable records in order, from any point on.
#[derive(Debug)]
pub struct Reader {
    view: Arc<View>,
    next: Seq,
    current: Option<Current>,
    /// A record that was found behind a gap.
    found: Option<Item>,
}

/// What a reader answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// A record, as it was appended.
    Record {
        /// Its number.
        seq: Seq,
        /// Its tag.
        tag: Option<Tag>,
        /// Its bytes.
        payload: Bytes,
    },
    /// Records that cannot be read any more.
    Gap(Gap),
}

/// A run of records that cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "from where to where and why")]
pub struct Gap {
    /// The first of them.
    pub from: Seq,
    /// The first after them.
    pub to: Seq,
    /// Why.
    pub reason: GapReason,
}

/// Why records cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// What is on disk is not what was written.
    Corrupt,
    /// They were removed for want of space.
    Expired,
    /// They are not there, and nothing says why.
    Missing,
}

#[derive(Debug)]
struct Current {
    /// Keeps the segment's file from being used again.
    segment: Arc<Segment>,
    scan: Scan,
    bound: Seq,
    is_damaged: bool,
}

impl Reader {
    pub(crate) const fn new(view: Arc<View>, next: Seq) -> Self {
        Self {
            view,
            next,
            current: None,
            found: None,
        }
    }

    pub(crate) const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The number of the record that is read next.
    #[must_use]
    pub const fn position(&self) -> Seq {
        self.next
    }

    /// The next record or gap; `None` at the end of what is durable.
    ///
    /// Gaps and records together cover every number once, in order.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the disk does not let a segment be read. The reader stays where it is.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator that ends may not begin again"
    )]
    pub fn next(&mut self) -> Result<Option<Item>, ReadError> {
        if let Some(item) = self.found.take() {
            if let Item::Record { seq, .. } = item {
                self.next = seq.plus(1);
            }
            return Ok(Some(item));
        }
        loop {
            if let Some(current) = &mut self.current {
                let step = current.scan.step(self.next);
                let segment = Arc::clone(&current.segment);
                match step {
                    Err(error) => return Err(self.failed(&segment, error)),
                    Ok(Step::Frame { header, payload, .. }) if header.kind == Kind::Record => {
                        if header.seq < self.next {
                            continue;
                        }
                        return Ok(Some(self.record(header.seq, header.tagged, payload)));
                    }
                    Ok(Step::Frame { .. }) => continue,
                    Ok(Step::Damaged) => {
                        current.is_damaged = true;
                        continue;
                    }
                    Ok(Step::End) => {}
                }
                if self.next < current.bound {
                    // All that could be read was read: the rest of the segment's numbers are gone.
                    let reason = if current.is_damaged || current.scan.passed() > 0 {
                        GapReason::Corrupt
                    } else {
                        GapReason::Missing
                    };
                    let bound = current.bound;
                    return Ok(Some(self.gap(bound, reason)));
                }
            }
            match self.view.place(self.next) {
                Place::End => return Ok(None),
                Place::Gap { to, reason } => {
                    self.current = None;
                    return Ok(Some(self.gap(to, reason)));
                }
                Place::In { segment, bound, end } => {
                    if let Some(gap) = self.go_on(segment, bound, end)? {
                        return Ok(Some(gap));
                    }
                }
            }
        }
    }

    /// Gives up the block of the disk that could not be read. What was in it is then a gap.
    pub fn skip_unreadable(&mut self) {
        match &mut self.current {
            Some(current) => {
                current.is_damaged = true;
                current.scan.skip_block();
            }
            // Not even the file could be opened.
            None => {
                if let Place::In { bound, .. } = self.view.place(self.next) {
                    let from = self.next;
                    self.next = bound;
                    self.found = Some(Item::Gap(Gap {
                        from,
                        to: bound,
                        reason: GapReason::Corrupt,
                    }));
                }
            }
        }
    }

    fn go_on(&mut self, segment: Arc<Segment>, bound: Seq, end: u64) -> Result<Option<Item>, ReadError> {
        if let Some(current) = &mut self.current
            && Arc::ptr_eq(&current.segment, &segment)
        {
            current.scan.extend(end, bound);
            current.bound = bound;
            return Ok(None);
        }
        self.current = None;
        let Some(header) = segment.header else {
            return Ok(Some(self.gap(bound, GapReason::Corrupt)));
        };
        match self.view.fs.open(&segment.path) {
            Ok(file) => {
                let scan = Scan::new(file, header.salt, segment.first, bound, end);
                self.current = Some(Current {
                    segment,
                    scan,
                    bound,
                    is_damaged: false,
                });
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_listed = matches!(self.view.place(self.next),
                    Place::In { segment: there, .. } if Arc::ptr_eq(&there, &segment));
                // Either it went just now and the list knows, or somebody took the file away.
                Ok(is_listed.then(|| self.gap(bound, GapReason::Missing)))
            }
            Err(error) => Err(self.failed(&segment, error)),
        }
    }

    fn record(&mut self, seq: Seq, tagged: bool, mut payload: Bytes) -> Item {
        let tag = if tagged {
            payload.get(..TAG_BYTES).and_then(|tag| Tag::try_from(tag).ok())
        } else {
            None
        };
        if tag.is_some() {
            payload.advance(TAG_BYTES);
        }
        let record = Item::Record { seq, tag, payload };
        if seq > self.next {
            if let Some(current) = &mut self.current {
                current.is_damaged = false;
            }
            self.found = Some(record);
            return self.gap(seq, GapReason::Corrupt);
        }
        self.next = seq.plus(1);
        record
    }

    const fn gap(&mut self, to: Seq, reason: GapReason) -> Item {
        let from = self.next;
        self.next = to;
        Item::Gap(Gap { from, to, reason })
    }

    fn failed(&self, segment: &Segment, source: io::Error) -> ReadError {
        ReadError {
            seq: self.next,
            path: segment.path.clone(),
            source,
        }
    }
}
