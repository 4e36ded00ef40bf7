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
use tokio_util::sync::{CancellationToken, DropGuard};

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
pub(crate) struct Findings(Option<Found>);

#[derive(Clone, Debug)]
struct Found {
    fault: Arc<OnceLock<Fault>>,
    /// Nothing more comes of it.
    is_over: CancellationToken,
}

impl Findings {
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.as_ref()?.fault.get().copied()
    }

    /// Ready when nothing more comes of the body, so that whoever waits now waits for the cluster.
    pub(crate) async fn is_over(&self) {
        if let Some(found) = &self.0 {
            found.is_over.cancelled().await;
        }
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
    fault: Arc<OnceLock<Fault>>,
    is_over: DropGuard,
    /// Told of a client that stalls, once.
    on_stall: Option<F>,
}

impl<B, F: FnOnce(Duration)> Upload<B, F> {
    pub(crate) fn new(body: B, limit: Option<Duration>, on_stall: F) -> (Self, Findings) {
        let found = Found {
            fault: Arc::default(),
            is_over: CancellationToken::new(),
        };
        let upload = Self {
            body,
            limit,
            wait: Wait::default(),
            fault: Arc::clone(&found.fault),
            is_over: found.is_over.clone().drop_guard(),
            on_stall: Some(on_stall),
        };
        (upload, Findings(Some(found)))
    }

    fn end(&self) {
        self.is_over.token().cancel();
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
                if this.body.is_end_stream() {
                    this.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            (Poll::Ready(Some(Err(error))), _) => {
                this.fault.get_or_init(|| Fault::BrokeOff);
                Poll::Ready(Some(Err(error.into())))
            }
            (Poll::Ready(None), _) => {
                this.end();
                Poll::Ready(None)
            }
            (Poll::Pending, None) => Poll::Pending,
            (Poll::Pending, Some(limit)) => {
                ready!(this.wait.poll(cx, limit));
                this.fault.get_or_init(|| Fault::Stalled(limit));
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
    use crate::patience;

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
    fn upload(limit: Option<Duration>) -> (Client, Unheard, Findings) {
        let (client, frames) = mpsc::channel(8);
        let (upload, findings) = Upload::new(Sent(frames), limit, (|_| {}) as fn(Duration));
        (client, upload, findings)
    }

    async fn send(client: &Client, data: &'static str) {
        client
            .send(Ok(Frame::data(Bytes::from_static(data.as_bytes()))))
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_which_nothing_comes_ends_after_the_limit() {
        let (client, mut body, findings) = upload(Some(LIMIT));
        send(&client, "half").await;
        body.frame().await.unwrap().unwrap();
        let began = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(began.elapsed(), LIMIT);
        assert_eq!(error.to_string(), "nothing came of the request's body for 30s");
        assert_eq!(findings.fault(), Some(Fault::Stalled(LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_begins_the_time_anew_and_an_empty_one_does_not() {
        let (client, mut body, findings) = upload(Some(LIMIT));
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
        assert_eq!(findings.fault(), Some(Fault::Stalled(LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_the_body_makes_nobody_slow() {
        let (client, mut body, findings) = upload(Some(LIMIT));
        for _ in 0..3 {
            send(&client, "more").await;
            // The cluster takes what there is, and has no room for more for a long time.
            body.frame().await.unwrap().unwrap();
            tokio::time::sleep(LIMIT * 10).await;
        }
        drop(client);
        assert!(body.frame().await.is_none());
        assert_eq!(findings.fault(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_is_no_stalled_one_and_without_a_limit_there_is_none() {
        let (client, mut body, findings) = upload(Some(LIMIT));
        client.send(Err("gone".into())).await.unwrap();
        body.frame().await.unwrap().unwrap_err();
        assert_eq!(findings.fault(), Some(Fault::BrokeOff));
        let (client, mut body, _) = upload(None);
        assert!(tokio::time::timeout(LIMIT * 1000, body.frame()).await.is_err());
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clusters_time_begins_when_nothing_more_comes_of_the_body() {
        let run_out = |findings: Findings| async move {
            let began = Instant::now();
            patience::run_out(Some(LIMIT), &findings).await;
            began.elapsed()
        };
        let (client, mut body, findings) = upload(None);
        let sending = async move {
            tokio::time::sleep(LIMIT * 2).await;
            send(&client, "late").await;
            drop(client);
            while body.frame().await.is_some() {}
            // What may have to be sent again is kept.
            body
        };
        let (_body, took) = tokio::join!(sending, run_out(findings));
        assert_eq!(took, LIMIT * 3);
        let (_client, body, findings) = upload(None);
        drop(body);
        assert_eq!(run_out(findings).await, LIMIT);
        assert_eq!(run_out(Findings::default()).await, LIMIT);
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
