//! A client's body on its way to the cluster, and clients that stop sending theirs.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use kaudit_policy::{LongRunning, RequestInfo};
use kaudit_tower::BoxError;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::path;

/// Less than the minute in which the audit chain ends a short request, so that whoever stalls is told so.
pub(crate) const DEFAULT_IDLE: Duration = Duration::from_secs(30);

/// How long nothing may come of a body before it is given up; `None` where there is no limit.
///
/// Sessions and watches are quiet by their nature. A body for another server behind `/proxy/` is a body like any other.
pub(crate) fn idle_limit(configured: Duration, info: &RequestInfo, is_upgrade: bool) -> Option<Duration> {
    let is_quiet = LongRunning::default().matches(info) && !path::is_proxied(info);
    (!is_upgrade && !is_quiet).then_some(configured)
}

/// Why a body did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client left in its middle, or sent what is no body.
    BrokeOff,
    /// Nothing came for so long, although the cluster would have taken it.
    Stalled(Duration),
}

/// What is found of a client's body while it is sent; of one that is nothing, nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Option<Arc<OnceLock<Fault>>>);

impl Faults {
    pub(crate) fn found(&self) -> Option<Fault> {
        self.0.as_ref()?.get().copied()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nothing came of the request's body for {0:?}")]
struct Stalled(Duration);

/// A client's body, which ends with an error when nothing comes of it for too long.
///
/// Whoever sends it on polls it only when there is room for more. So the time runs while the cluster waits for the
/// client, and not while the client waits for the cluster.
#[derive(Debug)]
pub(crate) struct Upload<B, F> {
    body: B,
    limit: Option<Duration>,
    wait: Wait,
    faults: Arc<OnceLock<Fault>>,
    /// Told of a client that stalls, once.
    on_stall: Option<F>,
}

impl<B, F: FnOnce(Duration)> Upload<B, F> {
    pub(crate) fn new(body: B, limit: Option<Duration>, on_stall: F) -> (Self, Faults) {
        let faults = Arc::<OnceLock<Fault>>::default();
        let found = Faults(Some(Arc::clone(&faults)));
        let upload = Self {
            body,
            limit,
            wait: Wait::default(),
            faults,
            on_stall: Some(on_stall),
        };
        (upload, found)
    }
}

impl<B, F> Body for Upload<B, F>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    F: FnOnce(Duration) + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match (Pin::new(&mut this.body).poll_frame(cx), this.limit) {
            (Poll::Ready(Some(Ok(frame))), _) => {
                // Frames of HTTP/2 may be empty, and as many as one likes.
                if frame.data_ref().is_none_or(|data| !data.is_empty()) {
                    this.wait.is_on = false;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            (Poll::Ready(Some(Err(error))), _) => {
                this.faults.get_or_init(|| Fault::BrokeOff);
                Poll::Ready(Some(Err(error.into())))
            }
            (Poll::Ready(None), _) => Poll::Ready(None),
            (Poll::Pending, None) => Poll::Pending,
            (Poll::Pending, Some(limit)) => {
                ready!(this.wait.poll(cx, limit));
                this.faults.get_or_init(|| Fault::Stalled(limit));
                if let Some(tell) = this.on_stall.take() {
                    tell(limit);
                }
                Poll::Ready(Some(Err(Stalled(limit).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The time since somebody has been waiting.
#[derive(Debug, Default)]
struct Wait {
    /// Made when it is first needed: most bodies are there at once.
    sleep: Option<Pin<Box<Sleep>>>,
    is_on: bool,
}

impl Wait {
    /// Ready when there was nothing for `limit`.
    fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let until = || Instant::now() + limit;
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if !self.is_on {
                    sleep.as_mut().reset(until());
                }
                sleep
            }
            none => none.insert(Box::pin(sleep_until(until()))),
        };
        self.is_on = true;
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use kaudit_policy::{RequestInfoResolver, RequestTarget};
    use tokio::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    type Client = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

    /// Nobody is told of its stalling.
    type Unheard = Upload<Sent, fn(Duration)>;

    struct Sent(mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

    impl Body for Sent {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(cx)
        }
    }

    /// A client, its body, and what is found of that.
    fn upload(limit: Option<Duration>) -> (Client, Unheard, Faults) {
        let (client, frames) = mpsc::channel(8);
        let (upload, faults) = Upload::new(Sent(frames), limit, (|_| {}) as fn(Duration));
        (client, upload, faults)
    }

    async fn send(client: &Client, data: &'static str) {
        client
            .send(Ok(Frame::data(Bytes::from_static(data.as_bytes()))))
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_which_nothing_comes_ends_after_the_limit() {
        let (client, mut body, faults) = upload(Some(LIMIT));
        send(&client, "half").await;
        body.frame().await.unwrap().unwrap();
        let began = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(began.elapsed(), LIMIT);
        assert_eq!(error.to_string(), "nothing came of the request's body for 30s");
        assert_eq!(faults.found(), Some(Fault::Stalled(LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_begins_the_time_anew_and_an_empty_one_does_not() {
        let (client, mut body, faults) = upload(Some(LIMIT));
        let sending = async {
            for _ in 0..5 {
                tokio::time::sleep(LIMIT * 9 / 10).await;
                send(&client, "more").await;
            }
            loop {
                tokio::time::sleep(LIMIT / 10).await;
                if client.send(Ok(Frame::data(Bytes::new()))).await.is_err() {
                    return;
                }
            }
        };
        let taking = async move {
            let began = Instant::now();
            while let Some(Ok(_)) = body.frame().await {}
            began.elapsed()
        };
        let ((), took) = tokio::join!(sending, taking);
        assert_eq!(took, LIMIT * 9 / 10 * 5 + LIMIT);
        assert_eq!(faults.found(), Some(Fault::Stalled(LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_the_body_makes_nobody_slow() {
        let (client, mut body, faults) = upload(Some(LIMIT));
        for _ in 0..3 {
            send(&client, "more").await;
            // The cluster takes what there is, and has no room for more for a long time.
            body.frame().await.unwrap().unwrap();
            tokio::time::sleep(LIMIT * 10).await;
        }
        drop(client);
        assert!(body.frame().await.is_none());
        assert_eq!(faults.found(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_is_no_stalled_one_and_without_a_limit_there_is_none() {
        let (client, mut body, faults) = upload(Some(LIMIT));
        client.send(Err("gone".into())).await.unwrap();
        body.frame().await.unwrap().unwrap_err();
        assert_eq!(faults.found(), Some(Fault::BrokeOff));
        let (client, mut body, _) = upload(None);
        assert!(tokio::time::timeout(LIMIT * 1000, body.frame()).await.is_err());
        drop(client);
    }

    #[test]
    fn sessions_and_watches_have_no_limit_and_bodies_for_other_servers_have_one() {
        let is_limited = |method: &str, target: &str, is_upgrade: bool| {
            let target = RequestTarget::parse(method.as_bytes(), target.as_bytes()).unwrap();
            let info = RequestInfoResolver::default()
                .resolve(method.as_bytes(), &target)
                .unwrap();
            idle_limit(LIMIT, &info, is_upgrade).is_some()
        };
        let pods = "/api/v1/namespaces/n/pods";
        for target in [pods, "/api/v1/namespaces/n/services/s/proxy/upload", "/metrics"] {
            assert!(is_limited("POST", target, false), "{target}");
            assert!(!is_limited("POST", target, true), "{target}");
        }
        for target in [
            "/p/exec",
            "/p/attach",
            "/p/portforward",
            "/p/log?follow=1",
            "?watch=1",
        ] {
            assert!(!is_limited("GET", &format!("{pods}{target}"), false), "{target}");
        }
    }
}
