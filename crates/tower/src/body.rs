//! The bodies that pass through, and the guard that ends an audited request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::AuditContext;
use crate::context::End;

/// An error that is not named.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// A request's body on its way to the service; what is recorded of it is copied as it passes.
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
        copy_to: Option<AuditContext>,
    }
}

impl<B> RequestBody<B> {
    pub(crate) const fn new(inner: B, copy_to: Option<AuditContext>) -> Self {
        Self { inner, copy_to }
    }

    /// The server's own body.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<B: Body<Data = Bytes>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = std::task::ready!(this.inner.poll_frame(cx));
        if let (Some(audit), Some(Ok(frame))) = (this.copy_to, &frame)
            && let Some(data) = frame.data_ref()
        {
            audit.copy_request(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// A response's body; its end is the end of the audited request.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
        guard: Option<Guard>,
        copies: bool,
        // When a frame was handed over, until the next one is asked for.
        handed_over: Option<Instant>,
    }
}

pin_project! {
    #[project = KindProject]
    #[derive(Debug)]
    enum Kind<B> {
        Service { #[pin] body: B },
        Own { body: Option<Bytes> },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) const fn service(body: B, guard: Option<Guard>, copies: bool) -> Self {
        Self {
            kind: Kind::Service { body },
            guard,
            copies,
            handed_over: None,
        }
    }

    /// A body of which the chain knows nothing, for answers that are given before it.
    #[must_use]
    pub fn unaudited(body: Bytes) -> Self {
        Self::own(body, None)
    }

    pub(crate) fn own(body: Bytes, guard: Option<Guard>) -> Self {
        Self {
            kind: Kind::Own {
                body: (!body.is_empty()).then_some(body),
            },
            guard,
            copies: false,
            handed_over: None,
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let body = match this.kind.project() {
            KindProject::Own { body } => {
                let frame = body.take().map(|data| Ok(Frame::data(data)));
                end(this.guard, End::Complete);
                return Poll::Ready(frame);
            }
            KindProject::Service { body } => body,
        };
        if let Some(since) = this.handed_over.take()
            && let Some(guard) = this.guard.as_ref()
        {
            guard
                .audit
                .track(|trackers| trackers.response_write += since.elapsed());
        }
        let mut body = body;
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let frame = body.as_mut().poll_frame(cx);
            let is_last = matches!(&frame, Poll::Ready(Some(Ok(_)))) && body.is_end_stream();
            (frame, is_last)
        }));
        let (frame, is_last) = match polled {
            Ok((Poll::Pending, _)) => return Poll::Pending,
            Ok((Poll::Ready(frame), is_last)) => (frame, is_last),
            Err(panic) => {
                let message = panic_message(panic.as_ref());
                end(this.guard, End::Panic(message.clone()));
                return Poll::Ready(Some(Err(message.into())));
            }
        };
        match frame {
            None => {
                end(this.guard, End::Complete);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                let error = error.into();
                end(this.guard, End::UpstreamError(error.to_string()));
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(frame)) => {
                if *this.copies
                    && let (Some(guard), Some(data)) = (this.guard.as_ref(), frame.data_ref())
                {
                    guard.audit.copy_response(data);
                }
                if is_last {
                    end(this.guard, End::Written);
                } else if this.guard.is_some() {
                    *this.handed_over = Some(Instant::now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Service { body } => body.is_end_stream(),
            Kind::Own { body } => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Service { body } => body.size_hint(),
            Kind::Own { body } => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
        }
    }
}

fn end(guard: &mut Option<Guard>, end: End) {
    if let Some(guard) = guard.take() {
        guard.finish(end);
    }
}

/// Owned in turn by the response's future and its body; whoever drops it undone lost the client.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) audit: AuditContext,
    done: bool,
}

impl Guard {
    pub(crate) const fn new(audit: AuditContext) -> Self {
        Self { audit, done: false }
    }

    pub(crate) fn finish(mut self, end: End) {
        self.done = true;
        self.audit.finish(end);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.done {
            self.audit.finish(End::ClientGone);
        }
    }
}

/// The value of a panic as Go's `%v` would show a string or an error.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the service panicked".to_owned())
}
