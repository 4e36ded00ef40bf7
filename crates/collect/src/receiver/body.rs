//! A request's body, piece by piece, within bounds.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::request::Parts;
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{ReceiverOptions, Refused};
use crate::budget::{Budget, Share};
use crate::inflate::Limits;

/// Bytes that are inflated at once: at most 1032 times as many come out.
const INFLATED_AT_ONCE: usize = 1024;

/// How far a body may grow when it is inflated; its length is bounded by the memory that its reader takes.
const LIMITS: Limits = Limits::body(u64::MAX);

/// Of a body that is not wanted, so much is read.
const DRAINED_BYTES: usize = 16 << 20;

/// And for so long.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Reads a body, inflates it if it is compressed, and accounts for the memory that its reader holds.
pub(crate) struct BodyReader<'a> {
    body: &'a mut Incoming,
    idle: Duration,
    share: Share,
    coding: Coding,
    /// What came and is not inflated yet.
    waiting: Bytes,
}

enum Coding {
    Identity,
    Gzip {
        decoder: Box<MultiGzDecoder<Vec<u8>>>,
        read: u64,
        written: u64,
    },
}

impl<'a> BodyReader<'a> {
    pub(super) fn new(
        head: &Parts,
        body: &'a mut Incoming,
        budget: Budget,
        options: ReceiverOptions,
    ) -> Result<Self, Refused> {
        let coding = match head
            .headers
            .get(header::CONTENT_ENCODING)
            .map(|value| value.as_bytes())
        {
            None => Coding::Identity,
            Some(coding) if coding.eq_ignore_ascii_case(b"identity") => Coding::Identity,
            Some(coding) if coding.eq_ignore_ascii_case(b"gzip") => Coding::Gzip {
                decoder: Box::new(MultiGzDecoder::new(Vec::new())),
                read: 0,
                written: 0,
            },
            Some(_) => {
                return Err(Refused::never(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "unsupported_media_type",
                    "the body is compressed in another way than gzip",
                ));
            }
        };
        Ok(Self {
            body,
            idle: options.idle,
            share: budget.share(),
            coding,
            waiting: Bytes::new(),
        })
    }

    /// Takes memory for `bytes` that the reader of the body holds.
    pub(super) async fn hold(&mut self, bytes: usize) -> Result<(), Refused> {
        self.share
            .hold(bytes)
            .await
            .map_err(|_| Refused::later("memory", "all memory for requests is in use"))
    }

    /// The next piece, or `None` at the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Refused> {
        loop {
            if !self.waiting.is_empty() {
                let piece = self.inflate()?;
                if piece.is_empty() {
                    continue;
                }
                return Ok(Some(piece));
            }
            let Some(came) = self.next_frame().await? else {
                return self.end();
            };
            match self.coding {
                Coding::Identity if came.is_empty() => {}
                Coding::Identity => return Ok(Some(came)),
                Coding::Gzip { .. } => self.waiting = came,
            }
        }
    }

    async fn next_frame(&mut self) -> Result<Option<Bytes>, Refused> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.body.frame())
                .await
                .map_err(|_| {
                    Refused::never(StatusCode::REQUEST_TIMEOUT, "slow", "the body came too slowly")
                })?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    return Err(Refused::never(
                        StatusCode::BAD_REQUEST,
                        "broken_off",
                        format!("the body broke off: {error}"),
                    ));
                }
            }
        }
    }

    fn inflate(&mut self) -> Result<Bytes, Refused> {
        let Coding::Gzip {
            decoder,
            read,
            written,
        } = &mut self.coding
        else {
            return Ok(std::mem::take(&mut self.waiting));
        };
        let some = self.waiting.split_to(self.waiting.len().min(INFLATED_AT_ONCE));
        decoder.write_all(&some).map_err(not_gzip)?;
        let inflated = std::mem::take(decoder.get_mut());
        let length = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        *read += length(some.len());
        *written += length(inflated.len());
        if *written > LIMITS.free_bytes && *written > LIMITS.max_ratio * *read {
            return Err(Refused::never(
                StatusCode::BAD_REQUEST,
                "ratio",
                format!(
                    "the body becomes more than {} times as long when it is inflated",
                    LIMITS.max_ratio
                ),
            ));
        }
        Ok(Bytes::from(inflated))
    }

    /// What the decoder still holds when nothing more comes.
    fn end(&mut self) -> Result<Option<Bytes>, Refused> {
        let Coding::Gzip { decoder, read, .. } = &mut self.coding else {
            return Ok(None);
        };
        if *read > 0 {
            decoder.try_finish().map_err(not_gzip)?;
        }
        let inflated = std::mem::take(decoder.get_mut());
        self.coding = Coding::Identity;
        Ok((!inflated.is_empty()).then(|| Bytes::from(inflated)))
    }
}

/// Reads on without keeping anything, so that a sender that is still writing comes to read its answer: where a
/// connection is closed under it, it may see that instead.
pub(super) async fn drain(body: &mut Incoming) {
    let draining = async {
        let mut left = DRAINED_BYTES;
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // Whoever is slower sees what it sees.
    tokio::time::timeout(DRAIN_TIME, draining).await.ok();
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn not_gzip(error: std::io::Error) -> Refused {
    Refused::never(
        StatusCode::BAD_REQUEST,
        "not_gzip",
        format!("the body is not gzip: {error}"),
    )
}
