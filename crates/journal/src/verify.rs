//! Reading everything.

use crate::{Gap, Item, Reader};

/// What [`Journal::verify`](crate::Journal::verify) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Records read.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Records that cannot be read.
    pub gaps: Vec<Gap>,
    /// Blocks of the disk that could not be read.
    pub unreadable_blocks: u64,
}

pub(crate) fn verify(mut reader: Reader) -> Verified {
    let mut verified = Verified::default();
    loop {
        match reader.next() {
            Ok(Some(Item::Record { payload, .. })) => {
                verified.records += 1;
                verified.bytes += payload.len() as u64;
            }
            Ok(Some(Item::Gap(gap))) => verified.gaps.push(gap),
            Ok(None) => return verified,
            Err(_) => {
                verified.unreadable_blocks += 1;
                reader.skip_unreadable();
            }
        }
    }
}
