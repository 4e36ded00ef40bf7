//! Copies of bodies, bounded per body and for the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::write::GzDecoder;

use crate::bodies::{STATUS_BYTES, can_be_status};
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
            Self::Unreadable => "in an encoding that is not read",
        }
    }
}

/// What a copy is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The body whatever it is.
    Object { limit: usize },
    /// Only a Status; anything else is let go at its first bytes.
    Status,
    /// A Status or a token, which are as small.
    Token,
}

/// A growing copy of one body.
#[derive(Debug)]
pub(crate) struct Copy(Form);

/// How the body comes.
#[derive(Debug)]
enum Form {
    Plain(Kept),
    /// What is in it is kept as it comes, so that neither the body nor the work piles up.
    Gzip {
        decoder: Box<GzDecoder<Kept>>,
        is_begun: bool,
    },
}

/// What is kept of a body.
#[derive(Debug)]
struct Kept {
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
        Self(Form::Plain(Kept {
            bytes: Vec::new(),
            wanted,
            is_foreign: false,
            missing: None,
            budget,
            metrics,
        }))
    }

    /// The body, of which nothing has come yet, is compressed; so it is no Status, which is never large enough.
    ///
    /// Source: k8s.io/apiserver pkg/endpoints/handlers/responsewriters/writers.go, defaultGzipThresholdBytes.
    pub(crate) fn gunzipped(self) -> Self {
        match self.0 {
            Form::Plain(kept) if matches!(kept.wanted, Wanted::Object { .. }) => Self(Form::Gzip {
                decoder: Box::new(GzDecoder::new(kept)),
                is_begun: false,
            }),
            form => Self(form),
        }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        match &mut self.0 {
            Form::Plain(kept) => kept.push(data),
            Form::Gzip { decoder, is_begun } => {
                *is_begun |= !data.is_empty();
                if decoder.get_ref().is_growing() && io::Write::write_all(decoder, data).is_err() {
                    decoder.get_mut().corrupt();
                }
            }
        }
    }

    /// There is no more to come.
    pub(crate) fn end(&mut self) {
        if let Form::Gzip { decoder, is_begun } = &mut self.0
            && *is_begun
            && decoder.get_ref().is_growing()
            && decoder.try_finish().is_err()
        {
            decoder.get_mut().corrupt();
        }
    }

    fn kept(&self) -> &Kept {
        match &self.0 {
            Form::Plain(kept) => kept,
            Form::Gzip { decoder, .. } => decoder.get_ref(),
        }
    }

    /// The body was not read, for a reason that its header tells.
    pub(crate) fn leave_out(&mut self) {
        let kept = match &mut self.0 {
            Form::Plain(kept) => kept,
            Form::Gzip { decoder, .. } => decoder.get_mut(),
        };
        if matches!(kept.wanted, Wanted::Object { .. }) {
            kept.give_up(Missing::Unreadable);
        }
    }

    /// What a body may have, also in another encoding.
    pub(crate) fn limit(&self) -> usize {
        match self.kept().wanted {
            Wanted::Object { limit } => limit,
            Wanted::Status | Wanted::Token => STATUS_BYTES,
        }
    }

    /// What was made of the body is too large; that is counted.
    pub(crate) fn over_limit(&self) -> Missing {
        count(&self.kept().metrics.bodies_over_limit);
        Missing::OverLimit
    }

    /// Whether the body is wanted whatever it is.
    pub(crate) fn is_of_object(&self) -> bool {
        matches!(self.kept().wanted, Wanted::Object { .. })
    }

    /// The whole body, or why it is not there.
    pub(crate) fn bytes(&self) -> Result<&[u8], Missing> {
        let kept = self.kept();
        kept.missing.map_or(Ok(&kept.bytes), Err)
    }
}

impl Kept {
    const fn is_growing(&self) -> bool {
        self.missing.is_none() && !self.is_foreign
    }

    fn push(&mut self, data: &[u8]) {
        if !self.is_growing() {
            return;
        }
        let limit = match self.wanted {
            Wanted::Object { limit } => limit,
            Wanted::Status if self.bytes.is_empty() && !can_be_status(data) => {
                self.is_foreign = true;
                return;
            }
            Wanted::Status | Wanted::Token => STATUS_BYTES,
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

    /// It broke, unless it is not wanted any more, which ends the decoder too.
    fn corrupt(&mut self) {
        if self.is_growing() {
            self.give_up(Missing::Corrupt);
        }
    }
}

/// Takes what a decoder gives, and ends it where no more is wanted.
impl io::Write for Kept {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.push(data);
        if self.is_growing() {
            Ok(data.len())
        } else {
            Err(io::ErrorKind::FileTooLarge.into())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Kept {
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
        let list = [b"apiVersion: v1\nitems:\n".as_slice(), &[b' '; 1000]].concat();
        assert_eq!(kept(&[&list, &list]), Ok(0));
        assert_eq!(kept(&[b"{\"kind\":", b"\"Status\"}"]), Ok(17));
        assert_eq!(kept(&[b"apiVersion: v1\ncode: 404\n", b"kind: Status\n"]), Ok(38));
        assert_eq!(kept(&[b"\xd9\xd9\xf7\xa1\x44kind\x46Status"]), Ok(16));
        assert_eq!(metrics.snapshot().bodies_over_limit, 0);
    }

    #[test]
    fn a_compressed_body_is_read_within_the_bounds_of_a_plain_one() {
        let metrics = Arc::new(Metrics::default());
        let budget = Arc::new(Budget::new(1 << 20));
        let read = |bytes: &[u8], limit| {
            let wanted = Wanted::Object { limit };
            let mut copy = Copy::new(wanted, Arc::clone(&budget), Arc::clone(&metrics)).gunzipped();
            bytes.chunks(11).for_each(|piece| copy.push(piece));
            copy.end();
            copy.bytes().map(<[u8]>::to_vec)
        };
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        io::Write::write_all(&mut gzip, &[b'a'; 100_000]).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(read(&gzip, 100_000), Ok(vec![b'a'; 100_000]));
        assert_eq!(read(&gzip, 99_999), Err(Missing::OverLimit));
        assert_eq!(read(&gzip[..gzip.len() - 9], 200_000), Err(Missing::Corrupt));
        assert_eq!(read(b"{}", 200_000), Err(Missing::Corrupt));
        assert_eq!(read(b"", 200_000), Ok(Vec::new()));
        assert_eq!(budget.0.load(Ordering::Relaxed), 1 << 20);
    }

    #[test]
    fn t34_a_compressed_body_is_let_go_when_it_is_too_large_or_not_what_is_wanted() {
        let metrics = Arc::new(Metrics::default());
        let budget = Arc::new(Budget::new(1 << 20));
        let kept = |wanted, plain: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            io::Write::write_all(&mut gzip, plain).unwrap();
            let mut copy = Copy::new(wanted, Arc::clone(&budget), Arc::clone(&metrics)).gunzipped();
            copy.push(&gzip.finish().unwrap());
            copy.end();
            (copy.bytes().map(<[u8]>::len), copy.kept().bytes.capacity())
        };
        let limit = 100_000;
        let over = vec![b' '; 100 * limit];
        assert_eq!(
            kept(Wanted::Object { limit }, &over),
            (Err(Missing::OverLimit), 0)
        );
        assert_eq!(kept(Wanted::Status, b"{\"kind\":\"Status\"}"), (Ok(0), 0));
        assert_eq!(metrics.snapshot().bodies_over_limit, 1);
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
