//! The body of a request on its way out, which may have to go out once more.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full};

use super::{BoxError, OutgoingBody};

/// So much of a body is kept for another attempt; a longer one that was begun is not sent again.
const KEPT_BYTES: usize = 64 << 10;

/// A body that remembers its beginning until the request is answered.
#[derive(Debug)]
pub(crate) struct Outgoing {
    rest: OutgoingBody,
    /// What comes before `rest`: what an earlier attempt had taken. Most requests have nothing of all this.
    again: Option<Box<Beginning>>,
    taken: Taken,
}

/// The beginning of a body, and its trailers if it goes that far.
#[derive(Debug, Default)]
struct Beginning {
    data: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Beginning {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }
}

/// What was taken of a body.
#[derive(Debug)]
enum Taken {
    /// Nothing.
    Nothing,
    /// All of it is here.
    Kept { beginning: Box<Beginning>, bytes: usize },
    /// More than is kept, or an error: the body cannot go out again.
    Gone,
    /// Nobody asks any more.
    Forgotten,
}

impl Taken {
    /// What is kept, if anything still is.
    fn kept(&mut self) -> Option<(&mut Beginning, &mut usize)> {
        if let Self::Nothing = self {
            *self = Self::Kept {
                beginning: Box::default(),
                bytes: 0,
            };
        }
        match self {
            Self::Kept { beginning, bytes } => Some((beginning, bytes)),
            Self::Nothing | Self::Gone | Self::Forgotten => None,
        }
    }

    fn data(&mut self, taken: &Bytes) {
        if let Some((beginning, bytes)) = self.kept() {
            *bytes += taken.len();
            if *bytes > KEPT_BYTES {
                *self = Self::Gone;
            } else {
                beginning.data.push_back(taken.clone());
            }
        }
    }

    fn trailers(&mut self, taken: &HeaderMap) {
        if let Some((beginning, _)) = self.kept() {
            beginning.trailers = Some(taken.clone());
        }
    }
}

impl Outgoing {
    pub(crate) const fn new(body: OutgoingBody) -> Self {
        Self {
            rest: body,
            again: None,
            taken: Taken::Nothing,
        }
    }

    /// A body that is there.
    pub(crate) fn of_bytes(bytes: Bytes) -> OutgoingBody {
        let full = Full::new(bytes).map_err(|never: Infallible| -> BoxError { match never {} });
        full.boxed_unsync()
    }

    /// A body that has nothing.
    pub(crate) fn empty() -> OutgoingBody {
        let empty = Empty::new().map_err(|never: Infallible| -> BoxError { match never {} });
        empty.boxed_unsync()
    }

    /// The body from its beginning, unless too much of it is gone.
    pub(crate) fn rewound(mut self) -> Option<Self> {
        let mut taken = match self.taken {
            Taken::Nothing => return Some(self),
            Taken::Kept { beginning, .. } => beginning,
            Taken::Gone | Taken::Forgotten => return None,
        };
        if let Some(again) = self.again.take() {
            taken.data.extend(again.data);
            taken.trailers = taken.trailers.or(again.trailers);
        }
        self.again = Some(taken);
        self.taken = Taken::Nothing;
        Some(self)
    }

    /// No other attempt will be made.
    pub(crate) fn forget(&mut self) {
        self.taken = Taken::Forgotten;
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(data) = this.again.as_mut().and_then(|again| again.data.pop_front()) {
            this.taken.data(&data);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let frame = match this.again.take().and_then(|again| again.trailers) {
            Some(trailers) => Some(Ok(Frame::trailers(trailers))),
            None => std::task::ready!(Pin::new(&mut this.rest).poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.taken.data(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    this.taken.trailers(trailers);
                }
            }
            Some(Err(_)) => this.taken = Taken::Gone,
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.again.as_ref().is_none_or(|again| again.is_empty()) && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let again = self.again.iter().flat_map(|again| &again.data);
        let again = again.map(|data| data.len() as u64).sum::<u64>();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + again);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + again);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn body(pieces: &[&[u8]]) -> Outgoing {
        let frames: Vec<Result<Frame<Bytes>, BoxError>> = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
            .chain([Ok(Frame::trailers(HeaderMap::new()))])
            .collect();
        Outgoing::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
    }

    #[tokio::test]
    async fn a_body_that_was_begun_goes_out_again_from_its_beginning() {
        for taken in 0..4 {
            let mut body = body(&[b"a", b"bc"]);
            for _ in 0..taken {
                body.frame().await.unwrap().unwrap();
            }
            let mut again = body.rewound().unwrap();
            again.frame().await.unwrap().unwrap();
            let whole = again.rewound().unwrap().collect().await.unwrap();
            assert!(whole.trailers().is_some(), "{taken}");
            assert_eq!(whole.to_bytes(), "abc");
        }
    }

    #[tokio::test]
    async fn of_a_large_body_that_was_begun_there_is_no_second_attempt() {
        let large = vec![0; KEPT_BYTES + 1];
        let untouched = body(&[&large]);
        let mut begun = untouched.rewound().unwrap();
        begun.frame().await.unwrap().unwrap();
        assert!(begun.rewound().is_none());
    }
}
