//! Bounds and pace.

use std::time::Duration;

use crate::Seq;

/// What happens when the segments together would pass [`Options::max_bytes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "keep or drop, there is no third")]
pub enum WhenFull {
    /// Segments that a holding cursor still needs stay, and appends are refused.
    #[default]
    Refuse,
    /// The oldest closed segments go, held or not; whoever still wanted them reads a gap.
    DropOldest,
}

/// Bounds and pace of a journal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Bytes of a segment, 64 KiB to 4 GiB. One batch that is larger gets a segment of its own size.
    pub segment_bytes: u64,
    /// Bytes of all segments together; at least two segments. A batch that with all marks would take more
    /// than half of it is refused as too large.
    pub max_bytes: u64,
    /// What happens when `max_bytes` would be passed.
    pub when_full: WhenFull,
    /// A commit begins so long after the beginning of the last one at the latest, if there is anything to
    /// write, and at once when `commit_bytes` wait.
    pub linger: Duration,
    /// A commit begins earlier than after `linger` when that is so many times as long as commits took of late:
    /// a fast disk is asked often, a slow one seldom.
    pub commit_share: u32,
    /// So many bytes begin a commit at once.
    pub commit_bytes: usize,
    /// Bytes accepted or reserved and not yet durable. One larger batch passes if it is alone.
    pub queue_bytes: usize,
    /// Bytes of a record's payload.
    pub max_record_bytes: usize,
    /// Bytes of the file `reserve`, given up when the disk is full so that cursors can still be written,
    /// and taken back before anything else when there is space again. 0 for none.
    pub reserve_bytes: u64,
    /// No new segment is made when less than this would stay free on the disk, and no segment is left that
    /// every holding cursor has passed.
    pub min_free_bytes: u64,
    /// The lowest number a new record may get. For a journal that replaces one that was lost: numbers its
    /// readers know are not given again.
    pub first_seq: Seq,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            max_bytes: 10 << 30,
            when_full: WhenFull::Refuse,
            linger: Duration::from_millis(5),
            commit_share: 8,
            commit_bytes: 1 << 20,
            queue_bytes: 32 << 20,
            max_record_bytes: (64 << 20) + (128 << 10),
            reserve_bytes: 16 << 20,
            min_free_bytes: 64 << 20,
            first_seq: Seq::FIRST,
        }
    }
}

/// An option out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal option {option} is {value}, which is not within {bounds}")]
#[non_exhaustive]
pub struct OptionsError {
    /// The option's name.
    pub option: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub bounds: String,
}

impl Options {
    /// Whether all options are within their bounds.
    ///
    /// # Errors
    ///
    /// The first that is not.
    pub fn check(&self) -> Result<(), OptionsError> {
        let within = |option, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(OptionsError {
                option,
                value: value.to_string(),
                bounds: format!("{low} to {high}"),
            })
        };
        let wide = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        within("segment_bytes", self.segment_bytes, 64 << 10, 4 << 30)?;
        within("max_bytes", self.max_bytes, 2 * self.segment_bytes, 1 << 60)?;
        within("commit_bytes", wide(self.commit_bytes), 1, 1 << 40)?;
        within("queue_bytes", wide(self.queue_bytes), 1, 1 << 40)?;
        within("max_record_bytes", wide(self.max_record_bytes), 1, 2 << 30)?;
        within("reserve_bytes", self.reserve_bytes, 0, 1 << 40)?;
        within("first_seq", self.first_seq.get(), 1, u64::MAX - 1)?;
        let linger = u64::try_from(self.linger.as_millis()).unwrap_or(u64::MAX);
        within("linger in milliseconds", linger, 0, 60_000)
    }

    /// Bytes that all marks together may take.
    pub(crate) const fn marks_bytes(&self) -> u64 {
        self.segment_bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_bounds_and_others_are_named() {
        assert_eq!(Options::default().check(), Ok(()));
        let small = Options {
            segment_bytes: 1,
            ..Options::default()
        };
        let error = small.check().expect_err("too small");
        assert_eq!(
            error.to_string(),
            "journal option segment_bytes is 1, which is not within 65536 to 4294967296"
        );
        let narrow = Options {
            max_bytes: 64 << 20,
            ..Options::default()
        };
        assert_eq!(narrow.check().expect_err("one segment only").option, "max_bytes");
    }
}
