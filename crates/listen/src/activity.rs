//! What a connection is doing, so that it can be ended without cutting anybody off.
//!
//! A client that keeps a connection may send its next request at the very moment at which the server stops, and
//! cannot know whether a request was carried out whose connection was reset. So a connection without a request is
//! not closed at once: what still comes is answered with `Connection: close`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tokio::sync::Notify;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    under_way: AtomicUsize,
    changed: Notify,
    is_closing: AtomicBool,
    is_http2: AtomicBool,
    /// Requests that may still be cancelled, and the most.
    credit: AtomicUsize,
    full_credit: usize,
    abused: Notify,
}

impl Activity {
    /// Of a connection of which ALPN says what it speaks, or nothing, and whose peer may cancel so many unanswered
    /// requests.
    pub(crate) fn new(alpn: Option<&[u8]>, cancelled: usize) -> Self {
        Self {
            credit: AtomicUsize::new(cancelled),
            full_credit: cancelled,
            is_http2: AtomicBool::new(alpn == Some(b"h2")),
            ..Self::default()
        }
    }

    /// From now on answers say that the connection ends.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Whether the peer speaks HTTP/2, as far as is known.
    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// Waits until the peer has cancelled too many requests.
    pub(crate) async fn abused(&self) {
        self.abused.notified().await;
    }

    /// A request was answered: that forgives one that was cancelled.
    fn answered(&self) {
        if self.credit.load(Ordering::Relaxed) < self.full_credit {
            self.credit.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request was cancelled before it was answered.
    fn cancelled(&self) {
        let spend = |credit: usize| credit.checked_sub(1);
        if self
            .credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_err()
        {
            // Kept for whoever waits later.
            self.abused.notify_one();
        }
    }

    /// Waits until there has been no request for `time`, or until it shows that the peer speaks HTTP/2 where that
    /// was not known.
    pub(crate) async fn idle_or_http2(&self, time: Duration) {
        while !self.is_http2() && !self.is_idle_for(time).await {}
    }

    /// Waits until there has been no request for `time`.
    pub(crate) async fn idle(&self, time: Duration) {
        while !self.is_idle_for(time).await {}
    }

    /// Whether nothing changed for `time` where nothing was under way.
    async fn is_idle_for(&self, time: Duration) -> bool {
        let mut changed = std::pin::pin!(self.changed.notified());
        // What changes after this line is heard, so that the number below cannot be an old one.
        changed.as_mut().enable();
        if self.under_way.load(Ordering::SeqCst) > 0 {
            changed.await;
            return false;
        }
        tokio::time::timeout(time, changed).await.is_err()
    }

    fn begin(self: &Arc<Self>, version: Version) -> UnderWay {
        if version == Version::HTTP_2 {
            self.is_http2.store(true, Ordering::Relaxed);
        }
        self.under_way.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
        UnderWay(Arc::clone(self))
    }
}

/// A request from its head to the end of its answer's body.
#[derive(Debug)]
struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

/// A connection's service, with its requests counted.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    pub(crate) inner: S,
    pub(crate) activity: Arc<Activity>,
}

impl<S, R, B> Service<Request<R>> for Counted<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<Answer<B>>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let under_way = Some(self.activity.begin(request.version()));
        Answering {
            inner: self.inner.call(request),
            under_way,
        }
    }
}

pin_project! {
    /// The answer to a request, to come.
    #[derive(Debug)]
    pub(crate) struct Answering<F> {
        #[pin]
        inner: F,
        under_way: Option<UnderWay>,
    }

    impl<F> PinnedDrop for Answering<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(UnderWay(activity)) = this.project().under_way {
                activity.cancelled();
            }
        }
    }
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        let under_way = this.under_way.take();
        if let Some(UnderWay(activity)) = &under_way {
            activity.answered();
        }
        let ends = under_way.as_ref().is_some_and(|UnderWay(activity)| {
            activity.is_closing.load(Ordering::Relaxed) && !activity.is_http2()
        });
        if ends && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| Answer {
            body,
            _under_way: under_way,
        })))
    }
}

pin_project! {
    /// An answer's body; the request is over when it is dropped.
    #[derive(Debug)]
    pub(crate) struct Answer<B> {
        #[pin]
        body: B,
        _under_way: Option<UnderWay>,
    }
}

impl<B: Body> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LINGER: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_its_last_request_is_long_over() {
        let activity = Arc::new(Activity::default());
        let began = Instant::now();
        let request = activity.begin(Version::HTTP_11);
        let ((), ()) = tokio::join!(activity.idle(LINGER), async {
            tokio::time::advance(3 * LINGER).await;
            drop(request);
            tokio::time::advance(LINGER / 2).await;
            drop(activity.begin(Version::HTTP_11));
        });
        assert_eq!(began.elapsed(), 3 * LINGER + LINGER / 2 + LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_lingers_for_http2_once_it_is_known() {
        let activity = Arc::new(Activity::default());
        let began = Instant::now();
        let ((), request) = tokio::join!(activity.idle_or_http2(LINGER), async {
            activity.begin(Version::HTTP_2)
        });
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(request);
        Activity::new(Some(b"h2"), 1).idle_or_http2(LINGER).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        Activity::new(Some(b"http/1.1"), 1).idle_or_http2(LINGER).await;
        assert_eq!(began.elapsed(), LINGER);
    }

    /// Whether the peer has cancelled too many requests.
    async fn is_abused(activity: &Activity) -> bool {
        tokio::time::timeout(Duration::ZERO, activity.abused())
            .await
            .is_ok()
    }

    /// Whether a further cancelled request is one too many after these: `x` is cancelled, `a` answered.
    async fn is_too_many(credit: usize, history: &str) -> bool {
        let activity = Arc::new(Activity::new(Some(b"h2"), credit));
        let service = Counted {
            inner: Slow,
            activity: Arc::clone(&activity),
        };
        for event in history.chars() {
            let answering = service.call(Request::new(event == 'a'));
            match event {
                'a' => drop(answering.await),
                // The stream is reset before there is an answer.
                _ => drop(answering),
            }
            assert!(!is_abused(&activity).await, "{history}");
        }
        drop(service.call(Request::new(false)));
        is_abused(&activity).await
    }

    /// Answers those that it is told to.
    struct Slow;

    impl Service<Request<bool>> for Slow {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Infallible>> + Send>>;

        fn call(&self, request: Request<bool>) -> Self::Future {
            let is_answered = request.into_body();
            Box::pin(async move {
                if !is_answered {
                    std::future::pending::<()>().await;
                }
                Ok(Response::new(String::new()))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_answered_request_forgives_one_that_was_cancelled_and_none_is_forgiven_beforehand() {
        for (history, too_many) in [
            ("", false),
            ("xx", false),
            ("xxx", true),
            ("xxxa", false),
            ("xxxax", true),
            ("aaaaaaxxx", true),
            ("xaxaxaxaxaxa", false),
            ("xxaxaxaxax", false),
            ("xxxaxaxaxaa", false),
        ] {
            assert_eq!(is_too_many(3, history).await, too_many, "{history}");
        }
    }
}
