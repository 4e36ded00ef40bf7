//! The body of an answer, and the connection that it holds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use super::http2::Slot;
use super::outgoing::Outgoing;
use super::pool::Lease;

/// Why an answer's body broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// HTTP/1.1.
    #[error("the server's answer broke off")]
    Http1(#[source] hyper::Error),
    /// HTTP/2.
    #[error("the server's answer broke off")]
    Http2(#[source] h2::Error),
    /// It ended before its announced length.
    #[error("the server's answer ended {missing} bytes before its announced length")]
    Short {
        /// So many bytes did not come.
        missing: u64,
    },
}

/// A response's body; while it is read its connection, or its part of one, is taken.
#[derive(Debug)]
pub struct UpstreamBody(Kind);

#[derive(Debug)]
enum Kind {
    Http1 {
        body: Incoming,
        lease: Option<(Lease, SendRequest<Outgoing>)>,
    },
    Http2(Box<Http2Body>),
}

#[derive(Debug)]
pub(crate) struct Http2Body {
    stream: RecvStream,
    /// What is still to come, where the server said it.
    missing: Option<u64>,
    phase: Phase,
    slot: Option<Arc<Slot>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Data,
    Trailers,
    Done,
}

impl UpstreamBody {
    pub(crate) fn http1(body: Incoming, lease: Lease, sender: SendRequest<Outgoing>) -> Self {
        let lease = Some((lease, sender));
        let mut kind = Kind::Http1 { body, lease };
        kind.give_back_if_done();
        Self(kind)
    }

    pub(crate) fn http2(stream: RecvStream, length: Option<u64>, slot: Arc<Slot>) -> Self {
        let is_done = stream.is_end_stream();
        Self(Kind::Http2(Box::new(Http2Body {
            stream,
            missing: length.filter(|_| !is_done),
            phase: if is_done { Phase::Done } else { Phase::Data },
            slot: (!is_done).then_some(slot),
        })))
    }
}

impl Kind {
    fn give_back_if_done(&mut self) {
        if let Self::Http1 { body, lease } = self
            && body.is_end_stream()
            && let Some((lease, sender)) = lease.take()
        {
            lease.give_back(sender);
        }
    }
}

impl Http2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.phase == Phase::Data {
            match std::task::ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The peer may send as much again: whoever polls has taken it.
                    if let Err(error) = self.stream.flow_control().release_capacity(data.len()) {
                        return self.end(Some(Err(BodyError::Http2(error))));
                    }
                    if let Some(missing) = &mut self.missing {
                        *missing = missing.saturating_sub(data.len() as u64);
                    }
                    if self.stream.is_end_stream() {
                        return self.end(Some(Ok(Frame::data(data))));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // A server that wants no more of the request resets the stream behind its whole answer.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {
                    let missing = self.missing.unwrap_or_default();
                    let short = (missing > 0).then_some(Err(BodyError::Short { missing }));
                    return self.end(short);
                }
                Some(Err(error)) => return self.end(Some(Err(BodyError::Http2(error)))),
                None => self.phase = Phase::Trailers,
            }
        }
        if self.phase == Phase::Trailers {
            return match std::task::ready!(self.stream.poll_trailers(cx)) {
                Ok(Some(trailers)) => self.end(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) => self.end(None),
                Err(error) if error.reason() == Some(Reason::NO_ERROR) => self.end(None),
                Err(error) => self.end(Some(Err(BodyError::Http2(error)))),
            };
        }
        Poll::Ready(None)
    }

    /// The last frame: what the body held is free for another request.
    fn end(
        &mut self,
        last: Option<Result<Frame<Bytes>, BodyError>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.phase = Phase::Done;
        self.slot = None;
        Poll::Ready(last)
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let kind = &mut self.0;
        match kind {
            Kind::Http2(body) => body.poll_frame(cx),
            Kind::Http1 { body, lease } => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                match &frame {
                    None => {
                        if let Some((lease, sender)) = lease.take() {
                            lease.give_back(sender);
                        }
                    }
                    Some(Ok(_)) => kind.give_back_if_done(),
                    Some(Err(_)) => *lease = None,
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Http1)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Http1 { body, .. } => body.is_end_stream(),
            Kind::Http2(body) => body.phase == Phase::Done,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Http1 { body, .. } => body.size_hint(),
            Kind::Http2(body) => match (body.phase, body.missing) {
                (Phase::Done, _) => SizeHint::with_exact(0),
                (_, Some(missing)) => SizeHint::with_exact(missing),
                (_, None) => SizeHint::default(),
            },
        }
    }
}
