//! The tags of records, as closed segments list them.

use std::sync::Arc;

use crate::format::{self, FRAME_BYTES, FrameHeader, Kind, TAG_ENTRY_BYTES};
use crate::segment::{Segment, read_full};
use crate::view::View;
use crate::{Seq, Tag};

/// The end frame: its header and where the list is.
const END: usize = FRAME_BYTES + 8;

/// A segment and the tags of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentTags {
    /// Its first record.
    pub first: Seq,
    /// The first record after it, or the end of what was durable.
    pub next: Seq,
    /// How far each tagged record is from `first`, and its tag, in order. `None` where the segment has no
    /// list: its records have to be read.
    pub tags: Option<Vec<(u32, Tag)>>,
}

pub(crate) fn tags(view: &Arc<View>) -> impl Iterator<Item = SegmentTags> + Send + use<> {
    let (segments, durable) = {
        let kept = view.lock();
        (kept.segments.iter().cloned().collect::<Vec<_>>(), view.durable())
    };
    let bounds: Vec<Seq> = segments
        .iter()
        .skip(1)
        .map(|next| next.first)
        .chain([durable])
        .collect();
    let view = Arc::clone(view);
    segments
        .into_iter()
        .zip(bounds)
        .map(move |(segment, next)| SegmentTags {
            first: segment.first,
            next,
            tags: list(&view, &segment, next),
        })
}

/// The list that the segment ends with, if it is there and whole.
fn list(view: &View, segment: &Segment, next: Seq) -> Option<Vec<(u32, Tag)>> {
    let salt = segment.header?.salt;
    let file = view.fs.open(&segment.path).ok()?;
    let bytes = file.len().ok()?;
    let end_at = bytes.checked_sub(END as u64)?;
    let mut end = [0; END];
    (read_full(file.as_ref(), &mut end, end_at).ok()? == end.len()).then_some(())?;
    let header = FrameHeader::decode(&end, salt)?;
    let (_, payload) = end.split_at_checked(FRAME_BYTES)?;
    let is_end = header.kind == Kind::End && header.seq == next && crc32c::crc32c(payload) == header.crc;
    let list_at = is_end
        .then(|| payload.try_into().ok().map(u64::from_le_bytes))
        .flatten()?;
    if list_at == 0 {
        return None;
    }
    let length = usize::try_from(end_at.checked_sub(list_at)?).ok()?;
    let mut frame = vec![0; length];
    (read_full(file.as_ref(), &mut frame, list_at).ok()? == length).then_some(())?;
    let header = FrameHeader::decode(&frame, salt)?;
    let length = usize::try_from(header.length).ok()?;
    let payload = frame.get(FRAME_BYTES..)?.get(..length)?;
    let is_list =
        header.kind == Kind::Tags && length % TAG_ENTRY_BYTES == 0 && crc32c::crc32c(payload) == header.crc;
    is_list.then(|| format::tags(payload))
}
