//! A durable, checksummed, append-only journal of opaque records.
//!
//! A [`Batch`] of records is [appended](Journal::append) without blocking; its [`Ticket`] is answered when
//! the records survive a power cut. One thread writes: it takes what is queued as one group, writes it, and
//! syncs once. [Readers](Reader) see what is durable, in order, each record or an explicit [`Gap`];
//! [cursors](Cursor) keep how far they came; [marks](Batch::mark) are small values that become durable with
//! the records of their batch and never before them.
//!
//! # What is promised
//!
//! - **J-1** A record whose ticket was answered with its number is read after any crash.
//! - **J-2** A reader covers every number once, in order, with the record or with a gap and its reason.
//! - **J-3** Nothing is read that was not appended.
//! - A mark is never ahead of the records before it.
//! - What failed for want of space, or with an error after which the journal is ready again, never comes
//!   back. What fails while the journal is [broken](State::Broken), or at a crash, may be there or not.
//! - Damage costs the records it hits: a flipped bit one, wherever it is. Nothing keeps a journal from
//!   opening but a disk that refuses to be read or written, a lock, or options out of their bounds.
//! - Nothing wraps: see [`Seq`].
//!
//! What counts as durable is what the disk says after `fdatasync`. A disk that lies about that, or damage to
//! the last record together with everything behind it, looks like a group that was never finished; it is
//! counted in [`Recovery::cut_bytes`]. A number that a cursor has passed is even then not given again.
//!
//! # What is on disk
//!
//! ```text
//! DIR/LOCK                           locked while the journal is open; holds the process id
//! DIR/seg-00000000000000000001.kaj   a segment, named after its first record
//! DIR/spare                          space for the next segment
//! DIR/reserve                        space that is given up when the disk is full
//! DIR/cursors/NAME                   a position and whether it holds segments, twice
//! ```
//!
//! A segment's space is taken beforehand. It begins with a header (magic, version, first number, time of
//! making, a random salt, a check) at offset 0 and a copy in another block at 4096, followed by frames, each
//! at a multiple of 8: a header of 32 bytes (length, kind, number, CRC-32C of the payload, and a check of the
//! header of 64 bits, keyed with the salt), then the payload. The checks tell a segment's own frames from
//! those that its space held before and from bytes that look like frames inside a payload, whose author does
//! not know the salt. The payload's checksum is computed where the batch is built and needs no salt: the
//! header that holds it is bound to the segment and the number.
//!
//! | frame | what it holds |
//! | --- | --- |
//! | snapshot | all marks as they were when the segment began; always the first |
//! | commit | nothing; all before it was durable when it was written. One stands before each group, or was written without a sync when nothing else was to be done |
//! | record | a tag, if it has one, and the payload |
//! | marks | changes of marks, behind the records of their batch |
//! | tags | of each tagged record its distance from the segment's first and its tag |
//! | end | where the tags frame is; the end of a segment that was closed in order |
//!
//! A segment ends where the next one's numbers begin, whatever else its file holds. Before the next one gets
//! its name its header and snapshot are durable, and before its first group is written so is the name; then
//! everything in the one before is durable too. A batch lies in one segment; if it is larger than a segment,
//! the segment is as large as the batch.
//!
//! # What opening may do
//!
//! Of all segments the headers are read, of the last one every frame. Where no frame is at its place the next
//! is searched at multiples of 8. A frame that is damaged with a commit frame somewhere behind it was durable:
//! it is a gap. Damage behind the last commit frame with whole frames behind it costs only itself too, but
//! marks behind it are not applied, because the group may never have been finished. What is behind the last
//! whole frame is cut away. What no commit frame proves to be durable is written again and synced, since a
//! process may have died before its sync or after one that failed; so what is read once is read always. On a
//! full disk that has no space even for that, [`Recovery::unsettled_bytes`] says for how much it does not hold.
//! The last segment is then left as it is and the next group begins a new one. A segment without records
//! stays until then for its marks. If the snapshot of the last segment is damaged, earlier segments are read
//! for the marks.
//!
//! Blocks of the last segment that cannot be read are no proof of anything: nothing is cut, and numbers that
//! may be there are not given again. They are also not written again: of a group whose sync failed, what
//! only comes to light in such a block after the opening may be lost at the next crash, although it was read.
//!
//! # When the disk refuses
//!
//! *No space*: the state is [`State::DiskFull`]; what was written of the group is cut away and the segment
//! goes on later. The reserve is given up so that cursors can still move. *Any other error*: the system's
//! memory of the file is not believed any more and the handle never synced again; the file is opened anew,
//! the last durable group looked at, the rest cut, and a new segment begun. If even that fails the state is
//! [`State::Broken`]. In both states the journal tries by itself, several times a second, whether it can go
//! on, and reading goes on meanwhile.
//!
//! At any failure everything that was accepted and is not durable fails with it, so that nothing becomes
//! durable behind something that did not: see [`Journal::failures`].

mod batch;
mod core;
mod cursor;
mod error;
pub mod filesystem;
mod format;
mod journal;
mod options;
mod queue;
mod reader;
mod recovery;
mod segment;
mod seq;
mod stats;
mod tags;
mod ticket;
#[cfg(test)]
mod torture;
mod verify;
mod view;

pub use batch::{Batch, MARK_KEY_BYTES, MARK_VALUE_BYTES, MARKS, MarkError};
pub use cursor::{Cursor, Hold};
pub use error::{AppendError, CursorError, OpenError, ReadError, Reject, Rejected, State};
pub use journal::{Journal, Room};
pub use options::{Options, OptionsError, WhenFull};
pub use reader::{Gap, GapReason, Item, Reader};
pub use recovery::Recovery;
pub use seq::Seq;
pub use stats::{COMMIT_BUCKETS_MICROS, Stats};
pub use tags::SegmentTags;
pub use ticket::Ticket;
pub use verify::Verified;
pub use view::WaitDurable;

/// Bytes of a [`Tag`].
pub const TAG_BYTES: usize = 24;

/// What a record is known by to its users; the journal only keeps it.
pub type Tag = [u8; TAG_BYTES];
