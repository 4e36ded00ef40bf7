//! The body of an answer to a client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use kaudit_dial::{Load, UpstreamBody};
use kaudit_tower::{BoxError, ResponseBody};
use tokio::sync::OwnedSemaphorePermit;

use crate::arrival::Arrival;
use crate::inflight::Room;
use crate::watches::Ending;

/// What an answer's bytes come from. Frames are passed on as they arrive.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    /// The gateway's own answer, or one that was read before it was passed on.
    Own(Option<Bytes>),
    /// An answer whose beginning was read already.
    Resumed {
        read: Option<Bytes>,
        rest: Box<Body>,
    },
    /// An answer that broke off after what was read of it.
    Broken {
        read: Option<Bytes>,
        error: Option<BoxError>,
    },
    Upstream(UpstreamBody),
    /// A watch: it ends, whole, when the gateway stops.
    Watch {
        body: UpstreamBody,
        ending: Ending,
    },
    /// The refusal of an upgrade.
    Dedicated {
        body: Incoming,
        _load: Load,
    },
    /// The answer to an upgrade: nothing.
    Switched,
    /// The answer to a request that takes room until it is sent.
    Admitted {
        body: Box<Body>,
        _room: OwnedSemaphorePermit,
    },
}

impl Body {
    pub(crate) fn own(bytes: Bytes) -> Self {
        Self(Kind::Own((!bytes.is_empty()).then_some(bytes)))
    }

    pub(crate) fn resumed(read: Bytes, rest: Self) -> Self {
        let read = (!read.is_empty()).then_some(read);
        let rest = Box::new(rest);
        Self(Kind::Resumed { read, rest })
    }

    pub(crate) fn broken(read: Bytes, error: BoxError) -> Self {
        let read = (!read.is_empty()).then_some(read);
        let error = Some(error);
        Self(Kind::Broken { read, error })
    }

    pub(crate) const fn upstream(body: UpstreamBody) -> Self {
        Self(Kind::Upstream(body))
    }

    pub(crate) const fn watch(body: UpstreamBody, ending: Ending) -> Self {
        Self(Kind::Watch { body, ending })
    }

    pub(crate) const fn dedicated(body: Incoming, load: Load) -> Self {
        Self(Kind::Dedicated { body, _load: load })
    }

    /// Keeps a request's room until the whole answer was taken.
    pub(crate) fn admitted(self, room: Room) -> Self {
        match room {
            Some(_room) => {
                let body = Box::new(self);
                Self(Kind::Admitted { body, _room })
            }
            None => self,
        }
    }

    pub(crate) const fn switched() -> Self {
        Self(Kind::Switched)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Resumed { read, rest } => match read.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Pin::new(rest).poll_frame(cx),
            },
            Kind::Broken { read, error } => match read.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Poll::Ready(error.take().map(Err)),
            },
            Kind::Upstream(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Watch { body, ending } => {
                if ending.is_over(cx) {
                    return Poll::Ready(None);
                }
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                let frame = frame.map(|frame| frame.map(|frame| frame.map_data(|data| ending.pass(data))));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Kind::Dedicated { body, .. } => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Switched => Poll::Ready(None),
            Kind::Admitted { body, .. } => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::Resumed { read, rest } => read.is_none() && rest.is_end_stream(),
            Kind::Broken { read, error } => read.is_none() && error.is_none(),
            Kind::Upstream(body) | Kind::Watch { body, .. } => body.is_end_stream(),
            Kind::Dedicated { body, .. } => body.is_end_stream(),
            Kind::Switched => true,
            Kind::Admitted { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Resumed { .. } | Kind::Broken { .. } => SizeHint::default(),
            Kind::Upstream(body) | Kind::Watch { body, .. } => body.size_hint(),
            Kind::Dedicated { body, .. } => body.size_hint(),
            Kind::Switched => SizeHint::with_exact(0),
            Kind::Admitted { body, .. } => body.size_hint(),
        }
    }
}

/// An answer's body on its way to the client; the request has passed when it is dropped.
#[derive(Debug)]
pub struct Delivery {
    body: ResponseBody<Body>,
    /// `None` for what was no request to an API server.
    arrival: Option<Arc<Arrival>>,
}

impl Delivery {
    pub(crate) const fn new(body: ResponseBody<Body>, arrival: Option<Arc<Arrival>>) -> Self {
        Self { body, arrival }
    }
}

impl HttpBody for Delivery {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(arrival), Some(Ok(frame))) = (&self.arrival, &frame)
            && let Some(data) = frame.data_ref()
        {
            arrival.passing.sent(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
