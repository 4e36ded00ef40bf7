//! Copies of bodies, bounded per body and for the process.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::bufread::GzDecoder;

use crate::metrics::{Metrics, count};

/// Bounds of the copies that are kept for events.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "three bounds, set by name")]
pub struct Capture {
    /// Bytes of one request body; kube-apiserver accepts no more than this default.
    pub request_bytes: usize,
    /// Bytes of one response body.
    pub response_bytes: usize,
    /// Bytes of all copies in the process.
    pub process_bytes: usize,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            request_bytes: 3 << 20,
            response_bytes: 8 << 20,
            process_bytes: 256 << 20,
        }
    }
}

/// Where bodies come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "said or seen")]
pub enum Bodies {
    /// The service says what it decoded and answered, as kube-apiserver's handlers do.
    #[default]
    Explicit,
    /// The bytes on the wire are looked at, as a proxy has to.
    Sniff,
}

/// What is left of the process' bytes.
#[derive(Debug)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    pub(crate) const fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Why a copy is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    OverLimit,
    OverBudget,
    Corrupt,
    Unreadable,
}

impl Missing {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::OverLimit => "larger than the limit for one body",
            Self::OverBudget => "the process' budget for bodies was spent",
            Self::Corrupt => "not the gzip that its header says",
            Self::Unreadable => "neither JSON nor protobuf",
        }
    }
}

/// A Status is at most this large.
const STATUS_BYTES: usize = 64 << 10;

/// So far into a Status its kind can be read.
const STATUS_HEAD: usize = 256;

/// A compressed body is read in steps of this size.
const CHUNK_BYTES: usize = 32 << 10;

/// What a copy is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The body whatever it is.
    Object { limit: usize },
    /// Only a Status; anything else is let go at its first bytes.
    Status,
}

/// A growing copy of one body.
#[derive(Debug)]
pub(crate) struct Copy {
    bytes: Vec<u8>,
    wanted: Wanted,
    /// It is not what is wanted.
    is_foreign: bool,
    missing: Option<Missing>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

impl Copy {
    pub(crate) const fn new(wanted: Wanted, budget: Arc<Budget>, metrics: Arc<Metrics>) -> Self {
        Self {
            bytes: Vec::new(),
            wanted,
            is_foreign: false,
            missing: None,
            budget,
            metrics,
        }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        if self.missing.is_some() || self.is_foreign {
            return;
        }
        let limit = match self.wanted {
            Wanted::Object { limit } => limit,
            Wanted::Status if self.bytes.is_empty() && !can_be_status(data) => {
                self.is_foreign = true;
                return;
            }
            Wanted::Status => STATUS_BYTES,
        };
        if self.bytes.len() + data.len() > limit {
            count(&self.metrics.bodies_over_limit);
            self.give_up(Missing::OverLimit);
        } else if self.budget.take(data.len()) {
            self.bytes.extend_from_slice(data);
        } else {
            count(&self.metrics.bodies_over_budget);
            self.give_up(Missing::OverBudget);
        }
    }

    fn give_up(&mut self, missing: Missing) {
        self.budget.give_back(self.bytes.len());
        self.bytes = Vec::new();
        self.missing = Some(missing);
    }

    /// The body was not read, for a reason that its header tells.
    pub(crate) fn leave_out(&mut self) {
        if matches!(self.wanted, Wanted::Object { .. }) {
            self.give_up(Missing::Unreadable);
        }
    }

    /// A copy of what a compressed body holds, within the same bounds.
    pub(crate) fn gunzipped(self) -> Self {
        let mut plain = Self::new(self.wanted, Arc::clone(&self.budget), Arc::clone(&self.metrics));
        plain.missing = self.missing;
        if self.bytes.is_empty() {
            return plain;
        }
        let mut source = GzDecoder::new(self.bytes.as_slice());
        let mut chunk = vec![0; CHUNK_BYTES];
        while plain.missing.is_none() {
            match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => plain.push(chunk.get(..read).unwrap_or_default()),
                Err(_) => plain.give_up(Missing::Corrupt),
            }
        }
        plain
    }

    /// The whole body, or why it is not there.
    pub(crate) fn bytes(&self) -> Result<&[u8], Missing> {
        self.missing.map_or(Ok(&self.bytes), Err)
    }
}

/// Whether a body that begins with `data` can be a Status, as far as can be seen.
fn can_be_status(data: &[u8]) -> bool {
    let head = data.get(..STATUS_HEAD).unwrap_or(data);
    let is_object = head.starts_with(b"{") || head.starts_with(b"k8s\0");
    is_object && (data.len() < STATUS_HEAD || head.windows(6).any(|window| window == b"Status"))
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_is_kept_where_only_a_status_is_wanted() {
        let metrics = Arc::new(Metrics::default());
        let kept = |chunks: &[&[u8]]| {
            let mut copy = Copy::new(
                Wanted::Status,
                Arc::new(Budget::new(1 << 20)),
                Arc::clone(&metrics),
            );
            chunks.iter().for_each(|chunk| copy.push(chunk));
            copy.bytes().map(<[u8]>::len)
        };
        let list = [b"{\"kind\":\"PodList\",".as_slice(), &[b' '; 1000]].concat();
        assert_eq!(kept(&[&list, &list]), Ok(0));
        assert_eq!(kept(&[b"plain text"]), Ok(0));
        assert_eq!(kept(&[b"{\"kind\":", b"\"Status\"}"]), Ok(17));
        assert_eq!(metrics.snapshot().bodies_over_limit, 0);
    }

    #[test]
    fn a_compressed_body_is_read_within_the_bounds_of_a_plain_one() {
        let metrics = Arc::new(Metrics::default());
        let budget = Arc::new(Budget::new(1 << 20));
        let read = |bytes: &[u8], limit| {
            let wanted = Wanted::Object { limit };
            let mut copy = Copy::new(wanted, Arc::clone(&budget), Arc::clone(&metrics));
            copy.push(bytes);
            copy.gunzipped().bytes().map(<[u8]>::to_vec)
        };
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut gzip, &[b'a'; 100_000]).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(read(&gzip, 100_000), Ok(vec![b'a'; 100_000]));
        assert_eq!(read(&gzip, 99_999), Err(Missing::OverLimit));
        assert_eq!(read(&gzip[..gzip.len() - 9], 200_000), Err(Missing::Corrupt));
        assert_eq!(read(b"{}", 200_000), Err(Missing::Corrupt));
        assert_eq!(read(b"", 200_000), Ok(Vec::new()));
        assert_eq!(budget.0.load(Ordering::Relaxed), 1 << 20);
    }

    #[test]
    fn a_spent_budget_is_noticed_and_given_back() {
        let budget = Arc::new(Budget::new(10));
        let metrics = Arc::new(Metrics::default());
        let mut first = Copy::new(
            Wanted::Object { limit: 100 },
            Arc::clone(&budget),
            Arc::clone(&metrics),
        );
        first.push(b"12345678");
        let mut second = Copy::new(
            Wanted::Object { limit: 100 },
            Arc::clone(&budget),
            Arc::clone(&metrics),
        );
        second.push(b"123");
        assert_eq!(second.bytes(), Err(Missing::OverBudget));
        drop(first);
        let mut third = Copy::new(
            Wanted::Object { limit: 4 },
            Arc::clone(&budget),
            Arc::clone(&metrics),
        );
        third.push(b"1234");
        assert_eq!(third.bytes(), Ok(&b"1234"[..]));
        third.push(b"5");
        assert_eq!(third.bytes(), Err(Missing::OverLimit));
        assert_eq!(budget.0.load(Ordering::Relaxed), 10);
        let counted = metrics.snapshot();
        assert_eq!((counted.bodies_over_limit, counted.bodies_over_budget), (1, 1));
    }
}
