//! What is there when a journal is opened.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::{self, Core, Start};
use crate::cursor::{self, Hold, Position};
use crate::error::is_full;
use crate::filesystem::{FileHandle, Filesystem};
use crate::format::{self, DATA_AT, FRAME_BYTES, Kind, SegmentHeader};
use crate::segment::{self, BLOCK, Scan, Segment, Step};
use crate::view::{Kept, View};
use crate::{Gap, GapReason, OpenError, Options, Seq};

/// What opening a journal found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// Segments.
    pub segments: u64,
    /// Records from [`oldest`](Self::oldest) to [`next`](Self::next), known gaps not counted.
    pub records: u64,
    /// Bytes that the segments take.
    pub bytes: u64,
    /// Bytes of a torn tail that were cut away: a group that was not finished, or damage at the very end.
    pub cut_bytes: u64,
    /// Damaged frames in the last segment that were no records.
    pub corrupt_frames: u64,
    /// Blocks of the last segment that could not be read, again and again. What was in them may come back: no
    /// record there was given up, but a mark may be an older one than was acknowledged.
    pub unreadable_blocks: u64,
    /// Bytes of the last segment that were to be written again and could not for want of space. A record in
    /// them that was never acknowledged may be lost at the next power cut, although it can be read now.
    pub unsettled_bytes: u64,
    /// Records that are gone, as far as the last segment and the list of segments tell.
    pub gaps: Vec<Gap>,
    /// The marks.
    pub marks: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Cursors whose files were damaged: they stand at the oldest record and hold it.
    pub lost_cursors: Vec<String>,
    /// The oldest record.
    pub oldest: Seq,
    /// The number of the next record.
    pub next: Seq,
    /// How long it took.
    pub elapsed: Duration,
}

/// A segment as the directory tells it.
struct Found {
    first: Seq,
    path: PathBuf,
    header: Option<SegmentHeader>,
    bytes: u64,
    file: Arc<dyn FileHandle>,
}

/// The last segment, frame by frame.
struct Last {
    /// The end of the last whole frame.
    end: u64,
    next: Seq,
    marks: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether the marks that the segment began with were found.
    has_snapshot: bool,
    gaps: Vec<Gap>,
    corrupt_frames: u64,
    unreadable_blocks: u64,
    /// The numbers of those of them in which nothing was found, in order.
    unread: Vec<u64>,
    /// Where the frames begin that nothing says were durable.
    unproved: u64,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { doing, path, source }
}

/// Opens the journal in `dir`, alone.
pub(crate) fn open(
    fs: Arc<dyn Filesystem>,
    dir: &Path,
    options: Options,
) -> Result<(Core, Recovery), OpenError> {
    options.check()?;
    let begun = Instant::now();
    let cursor_dir = cursor::directory(dir);
    fs.create_dir(dir).map_err(failed("create directory", dir))?;
    fs.create_dir(&cursor_dir)
        .map_err(failed("create directory", &cursor_dir))?;
    let lock = lock(fs.as_ref(), dir)?;
    // Names that a process left behind in the system's memory are made durable before anything follows
    // from them.
    let (mut has_unsynced_names, mut has_unsynced_cursors) = (false, false);
    for (directory, is_unsynced) in [
        (dir, &mut has_unsynced_names),
        (cursor_dir.as_path(), &mut has_unsynced_cursors),
    ] {
        match fs.sync_dir(directory) {
            Ok(()) => {}
            // Whatever follows from them tries it again.
            Err(error) if is_full(&error) => *is_unsynced = true,
            Err(error) => return Err(failed("sync directory", directory)(error)),
        }
    }
    let mut recovery = Recovery::default();
    let mut cursors = cursors(fs.as_ref(), dir, &mut recovery)?;
    let mut found = segments(fs.as_ref(), dir)?;

    let reached = cursors
        .values()
        .map(|position| position.at)
        .max()
        .unwrap_or(Seq::FIRST);
    let mut next = options.first_seq;
    let mut empty = None;
    let mut last_end = 0;
    while let Some(last) = found.last() {
        let Some(header) = last.header else {
            // How many records it held is not known, but how many it can have held at most is.
            let most = last.bytes / FRAME_BYTES as u64;
            if last.bytes <= DATA_AT || is_blank(last) {
                drop(fs.remove(&last.path));
                found.pop();
                continue;
            }
            next = next.max(last.first.plus(most));
            last_end = last.bytes;
            recovery.marks = marks_before(&found, found.len() - 1);
            break;
        };
        let state = scan_last(last, header, Seq::END);
        recovery.marks.clone_from(&state.marks);
        if !state.has_snapshot {
            let mut marks = marks_before(&found, found.len() - 1);
            marks.append(&mut recovery.marks);
            recovery.marks = marks;
        }
        recovery.unreadable_blocks += state.unreadable_blocks;
        recovery.corrupt_frames += state.corrupt_frames;
        recovery.gaps.extend(&state.gaps);
        last_end = state.end;
        let bytes = last.bytes;
        next = next.max(state.next);
        if state.unreadable_blocks > 0 {
            // What cannot be read now may be readable later: its numbers are not given again.
            next = next.max(state.next.plus(bytes / FRAME_BYTES as u64));
            recovery.unsettled_bytes =
                settle(fs.as_ref(), dir, last, &state).map_err(failed("make durable", &last.path))?;
            last_end = bytes;
        } else {
            if state.end < bytes {
                recovery.cut_bytes += torn_bytes(last, header, state.end);
            }
            recovery.unsettled_bytes =
                settle(fs.as_ref(), dir, last, &state).map_err(failed("make durable", &last.path))?;
            if state.next == last.first {
                // No records; its marks are, until the next segment has them too.
                empty = Some(last.path.clone());
                found.pop();
                last_end = found.last().map_or(0, |last| last.bytes);
            } else if let Some(last) = found.last_mut() {
                last.bytes = last_end;
            }
        }
        break;
    }
    if reached > next {
        // Somebody read records that are not there any more; their numbers are not given again.
        recovery.gaps.push(Gap {
            from: next,
            to: reached,
            reason: GapReason::Missing,
        });
        next = reached;
    }
    let oldest = found.first().map_or(next, |first| first.first);
    for position in cursors.values_mut().filter(|position| position.at == Seq::new(0)) {
        position.at = oldest;
    }

    recovery.segments = found.len() as u64;
    recovery.bytes = found.iter().map(|found| found.bytes).sum();
    recovery.oldest = oldest;
    recovery.next = next;
    let bounds: Vec<Seq> = found
        .iter()
        .skip(1)
        .map(|found| found.first)
        .chain([next])
        .collect();
    for (segment, bound) in found.iter().zip(bounds) {
        if segment.header.is_none() {
            recovery.gaps.push(Gap {
                from: segment.first,
                to: bound,
                reason: GapReason::Corrupt,
            });
        }
    }
    recovery.gaps.sort_unstable_by_key(|gap| gap.from);
    let lost: u64 = recovery
        .gaps
        .iter()
        .map(|gap| gap.to.since(gap.from.max(oldest)))
        .sum();
    recovery.records = next.since(oldest).saturating_sub(lost);

    let mut kept = Kept {
        marks: recovery.marks.clone(),
        cursors,
        ..Kept::default()
    };
    kept.counters.corrupt_records = lost;
    kept.counters.corrupt_frames = recovery.corrupt_frames;
    kept.counters.cut_bytes = recovery.cut_bytes;
    let count = found.len();
    kept.segments = found
        .into_iter()
        .enumerate()
        .map(|(at, found)| {
            let end = if at + 1 == count { last_end } else { found.bytes };
            Arc::new(Segment::new(
                found.first,
                found.path,
                found.header,
                end,
                found.bytes,
            ))
        })
        .collect::<VecDeque<_>>();
    let view = Arc::new(View::new(
        Arc::clone(&fs),
        dir.to_owned(),
        kept,
        next,
        has_unsynced_cursors,
    ));
    let core = Core::new(Start {
        fs,
        dir: dir.to_owned(),
        options,
        view,
        next,
        empty,
        has_unsynced_names,
        lock,
    });
    recovery.elapsed = begun.elapsed();
    Ok((core, recovery))
}

fn lock(fs: &dyn Filesystem, dir: &Path) -> Result<Box<dyn std::any::Any + Send + Sync>, OpenError> {
    let path = dir.join("LOCK");
    fs.lock(&path).map_err(|source| {
        if source.kind() != io::ErrorKind::WouldBlock {
            return OpenError::Io {
                doing: "lock",
                path: path.clone(),
                source,
            };
        }
        let mut text = [0; 16];
        let pid = fs.open(&path).ok().and_then(|file| {
            let read = segment::read_full(file.as_ref(), &mut text, 0).ok()?;
            std::str::from_utf8(text.get(..read)?).ok()?.trim().parse().ok()
        });
        OpenError::Locked {
            path: path.clone(),
            pid,
        }
    })
}

/// The cursors; one that is damaged gets the number 0 for the time being.
fn cursors(
    fs: &dyn Filesystem,
    dir: &Path,
    recovery: &mut Recovery,
) -> Result<BTreeMap<String, Position>, OpenError> {
    let directory = cursor::directory(dir);
    let mut cursors = BTreeMap::new();
    for name in fs.list(&directory).map_err(failed("list", &directory))? {
        if cursor::check(&name).is_err() {
            if name.ends_with(".tmp") {
                drop(fs.remove(&directory.join(&name)));
            }
            continue;
        }
        let position = cursor::load(fs, dir, &name).unwrap_or_default();
        if position.is_none() {
            recovery.lost_cursors.push(name.clone());
        }
        cursors.insert(
            name,
            position.unwrap_or(Position {
                at: Seq::new(0),
                hold: Hold::Yes,
            }),
        );
    }
    Ok(cursors)
}

/// The segments in order, by their headers.
fn segments(fs: &dyn Filesystem, dir: &Path) -> Result<Vec<Found>, OpenError> {
    let mut names = fs.list(dir).map_err(failed("list", dir))?;
    names.sort_unstable();
    let mut found = Vec::new();
    for name in names {
        if name == "spare" {
            drop(fs.remove(&dir.join(name)));
            continue;
        }
        let Some(first) = segment::first_of(&name) else {
            continue;
        };
        let path = dir.join(&name);
        let file = fs.open(&path).map_err(failed("open", &path))?;
        let bytes = file.len().map_err(failed("read the length of", &path))?;
        let header = segment::read_header(file.as_ref(), first).map_err(failed("read", &path))?;
        found.push(Found {
            first,
            path,
            header,
            bytes,
            file,
        });
    }
    Ok(found)
}

/// Reads a segment from end to end; its numbers end before `bound`.
fn scan_last(found: &Found, header: SegmentHeader, bound: Seq) -> Last {
    let file = Arc::clone(&found.file);
    let mut scan = Scan::new(file, header.salt, found.first, bound, found.bytes);
    let mut last = Last {
        end: DATA_AT.min(found.bytes),
        next: found.first,
        marks: BTreeMap::new(),
        has_snapshot: false,
        gaps: Vec::new(),
        corrupt_frames: 0,
        unreadable_blocks: 0,
        unread: Vec::new(),
        unproved: DATA_AT,
    };
    // Marks behind damage wait for a frame that says that all before it was durable: then the damage came
    // later, and they hold. Otherwise it may be a group that was never finished.
    let mut is_hole = false;
    let mut held: Vec<bytes::Bytes> = Vec::new();
    let mut damaged = 0;
    loop {
        let Ok(step) = scan.step(Seq::new(0)) else {
            last.unreadable_blocks += 1;
            let block = scan.offset() / BLOCK;
            if last.end <= block * BLOCK {
                last.unread.push(block);
            }
            scan.skip_block();
            continue;
        };
        let (header, offset, payload) = match step {
            Step::End => return last,
            Step::Damaged => {
                is_hole = true;
                damaged += 1;
                continue;
            }
            Step::Frame {
                header,
                offset,
                payload,
            } => (header, offset, payload),
        };
        if offset > last.end {
            is_hole = true;
            if header.seq > last.next {
                last.gaps.push(Gap {
                    from: last.next,
                    to: header.seq,
                    reason: GapReason::Corrupt,
                });
            } else {
                last.corrupt_frames += damaged.max(1);
            }
        }
        damaged = 0;
        last.end = offset + header.size();
        last.next = header.seq;
        match header.kind {
            Kind::Record => last.next = header.seq.plus(1),
            Kind::Snapshot => {
                format::apply_marks(&mut last.marks, &payload);
                last.has_snapshot = true;
            }
            Kind::Marks if is_hole => held.push(payload),
            Kind::Marks => format::apply_marks(&mut last.marks, &payload),
            Kind::Commit | Kind::End => {
                for payload in held.drain(..) {
                    format::apply_marks(&mut last.marks, &payload);
                }
                is_hole = false;
                last.unproved = last.end;
            }
            Kind::Tags => {}
        }
    }
}

/// Makes durable what was found, and cuts what is behind it.
///
/// A process that ended may have left frames in the system's memory only, even such whose sync failed and of
/// which the system believes that they are on disk. So what nothing proves to be there is written again.
/// Where even that takes space and there is none, what the system has must do: a full disk keeps no journal
/// from opening. Returns the bytes for which that is so.
fn settle(fs: &dyn Filesystem, dir: &Path, found: &Found, last: &Last) -> io::Result<u64> {
    let mut at = last.unproved;
    let mut has_reserve = true;
    let mut buffer = vec![0; 256 << 10];
    while at < last.end {
        // Where some blocks cannot be read, one that cannot takes no other with it.
        let most = if last.unreadable_blocks > 0 {
            BLOCK - at % BLOCK
        } else {
            u64::MAX
        };
        let length = usize::try_from(most.min(last.end - at)).unwrap_or(usize::MAX);
        let length = length.min(buffer.len());
        let chunk = buffer.get_mut(..length).unwrap_or_default();
        let read = match segment::read_full(found.file.as_ref(), chunk, at) {
            Ok(read) => read,
            Err(_) if last.unread.binary_search(&(at / BLOCK)).is_ok() => {
                at += most.min(last.end - at);
                continue;
            }
            // Frames in it were read a moment ago, and readers would read it: it must not be left as it is.
            Err(error) => return Err(error),
        };
        match segment::write_all(found.file.as_ref(), &[chunk.get(..read).unwrap_or_default()], at) {
            Ok(0) => break,
            Ok(written) => at += written,
            Err(error) if is_full(&error) && has_reserve => {
                has_reserve = false;
                drop(fs.remove(&core::reserve_path(dir)));
            }
            Err(error) if is_full(&error) => break,
            Err(error) => return Err(error),
        }
    }
    let is_cut = last.end < found.bytes && last.unreadable_blocks == 0;
    if is_cut {
        found.file.set_len(last.end)?;
    }
    if last.unproved < last.end || is_cut {
        found.file.sync_all()?;
    }
    Ok(last.end.saturating_sub(at))
}

/// The marks at the end of the segments before `end`, for when the next one's own list of them is damaged.
fn marks_before(found: &[Found], end: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut changes = Vec::new();
    let bounds = found.iter().skip(1).map(|found| found.first);
    let earlier: Vec<_> = found.iter().zip(bounds).take(end).collect();
    for (found, bound) in earlier.into_iter().rev() {
        let Some(header) = found.header else { continue };
        let state = scan_last(found, header, bound);
        changes.push(state.marks);
        if state.has_snapshot {
            break;
        }
    }
    changes
        .into_iter()
        .rev()
        .fold(BTreeMap::new(), |mut all, mut change| {
            all.append(&mut change);
            all
        })
}

/// Whether a segment without a header has nothing in it.
fn is_blank(found: &Found) -> bool {
    blank_from(found, 0).is_none()
}

/// The last byte that is not 0, from `start` on.
fn blank_from(found: &Found, start: u64) -> Option<u64> {
    let mut buffer = vec![0; 64 << 10];
    let zeros = [0; 4096];
    let mut at = start;
    let mut last = None;
    while at < found.bytes {
        let Ok(read @ 1..) = segment::read_full(found.file.as_ref(), &mut buffer, at) else {
            break;
        };
        let seen = buffer.get(..read).unwrap_or_default();
        // Most of it is space that was never written.
        if seen.chunks(zeros.len()).any(|chunk| !zeros.starts_with(chunk))
            && let Some(place) = seen.iter().rposition(|byte| *byte != 0)
        {
            last = Some(at + place as u64);
        }
        at += read as u64;
    }
    last
}

/// Bytes behind the last frame that somebody wrote into this segment.
fn torn_bytes(found: &Found, header: SegmentHeader, end: u64) -> u64 {
    if header.recycled {
        // What is there may be of an earlier segment; a frame of this one can still be told.
        let mut scan = Scan::new(
            Arc::clone(&found.file),
            header.salt,
            found.first,
            Seq::END,
            found.bytes,
        );
        let mut torn = 0;
        while let Ok(step @ (Step::Frame { .. } | Step::Damaged)) = scan.step(Seq::END) {
            if scan.offset() > end && matches!(step, Step::Damaged) {
                torn = scan.offset() - end;
            }
        }
        return torn;
    }
    blank_from(found, end).map_or(0, |last| last + 1 - end)
}
