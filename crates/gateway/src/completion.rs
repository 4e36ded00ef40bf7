//! Writes that go on when their client is gone.
//!
//! The cluster carries a write out whether or not somebody waits for the answer, and the event is to say how
//! that ended.

use std::time::Duration;

use http::{Method, Request, header};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The answer to a client that is gone is waited for as long as kube-apiserver lets a request take.
const LIMIT: Duration = Duration::from_secs(60);

/// Requests that are brought to their end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Completion {
    tasks: TaskTracker,
    cut: CancellationToken,
}

/// Whether a request changes something and is answered once: sessions end with their client.
pub(crate) fn is_write<B>(request: &Request<B>) -> bool {
    let method = request.method();
    let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
    writes && !request.headers().contains_key(header::UPGRADE)
}

impl Completion {
    /// Runs `answer` to its end, or until [`LIMIT`] after whoever waits for it went away. `None` when it was
    /// cut off before.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        answer: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (mut client, answered) = oneshot::channel();
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            let too_long = async {
                client.closed().await;
                tokio::time::sleep(LIMIT).await;
            };
            let answer = tokio::select! {
                answer = answer => answer,
                () = too_long => return,
                () = cut.cancelled() => return,
            };
            // Nobody to take it is what this is for; dropping it ends the request's record.
            drop(client.send(answer));
        });
        answered.await.ok()
    }

    /// Waits until all have ended; those that outlive `deadline` are cut off.
    pub(crate) async fn finish(&self, deadline: tokio::time::Instant) {
        self.tasks.close();
        if tokio::time::timeout_at(deadline, self.tasks.wait())
            .await
            .is_err()
        {
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::{Instant, advance, timeout};

    use super::*;

    /// An answer that comes when it is let, and tells of its end.
    fn answer(
        release: CancellationToken,
        ended: mpsc::Sender<&'static str>,
    ) -> impl Future<Output = u8> + Send {
        struct OnDrop(mpsc::Sender<&'static str>, &'static str);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.try_send(self.1).unwrap();
            }
        }
        async move {
            let mut end = OnDrop(ended, "cut off");
            release.cancelled().await;
            end.1 = "answered";
            7
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_comes_to_whoever_waits() {
        let (ended, _ends) = mpsc::channel(1);
        let release = CancellationToken::new();
        release.cancel();
        assert_eq!(Completion::default().run(answer(release, ended)).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_goes_on_without_its_client_for_a_minute() {
        for (waits, end) in [(59, "answered"), (61, "cut off")] {
            let completion = Completion::default();
            let (ended, mut ends) = mpsc::channel(1);
            let release = CancellationToken::new();
            let run = completion.run(answer(release.clone(), ended));
            // The client waits for a moment and goes away.
            assert!(timeout(Duration::from_millis(1), run).await.is_err());
            tokio::time::sleep(Duration::from_secs(waits)).await;
            release.cancel();
            assert_eq!(ends.recv().await, Some(end));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_outlives_the_deadline_is_cut_off() {
        let completion = Completion::default();
        let (ended, mut ends) = mpsc::channel(1);
        let run = completion.run(answer(CancellationToken::new(), ended));
        assert!(timeout(Duration::from_millis(1), run).await.is_err());
        advance(Duration::from_secs(1)).await;
        completion.finish(Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(ends.recv().await, Some("cut off"));
    }

    #[test]
    fn sessions_and_reads_are_no_writes() {
        let is = |method: &str, upgrade: bool| {
            let request = Request::builder().method(method);
            let request = if upgrade {
                request.header("upgrade", "SPDY/3.1")
            } else {
                request
            };
            is_write(&request.body(()).unwrap())
        };
        assert!(is("POST", false) && is("PATCH", false) && is("DELETE", false) && is("PUT", false));
        assert!(!is("GET", false) && !is("POST", true));
    }
}
