//! The streams of one HTTP/2 connection, run where the connection runs.
//!
//! As tasks of their own they would be woken one by one, by whichever thread is free, and each answer would go out by
//! itself. In one task a hundred requests that were read together are answered with a few writes.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::AsyncWrite;
use tracing::error;

use crate::gathered::Gathered;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a connection leaves streams that begin.
#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<Vec<Stream>>>);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // A panic ends its stream, not the others.
        let stream = AssertUnwindSafe(stream).catch_unwind().map(|ended| {
            if ended.is_err() {
                error!("a request ended with a panic");
            }
        });
        self.begun().push(Box::pin(stream));
    }
}

impl Streams {
    fn begun(&self) -> std::sync::MutexGuard<'_, Vec<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what it is given, once.
pub type Turn = fn(&mut dyn FnMut());

/// A connection and its streams.
pub(crate) struct Served<'c, C: Future, S> {
    connection: Pin<&'c mut C>,
    /// What the connection writes to.
    stream: Gathered<S>,
    begun: Streams,
    running: FuturesUnordered<Stream>,
    turn: Option<Turn>,
    /// How the connection ended, while its streams notice.
    ended: Option<C::Output>,
}

impl<C: Future, S> Drop for Served<'_, C, S> {
    fn drop(&mut self) {
        // What the connection has become may still write.
        self.stream.pass();
    }
}

impl<'c, C: Future, S: AsyncWrite + Unpin> Served<'c, C, S> {
    /// `connection` leaves its streams with `begun` and writes to `stream`.
    pub(crate) fn new(connection: Pin<&'c mut C>, begun: Streams, stream: Gathered<S>) -> Self {
        Self {
            connection,
            stream,
            begun,
            running: FuturesUnordered::new(),
            turn: None,
            ended: None,
        }
    }

    /// Has everything taken further within `turn`, and sent behind it.
    pub(crate) const fn in_turns(mut self, turn: Option<Turn>) -> Self {
        self.turn = turn;
        self
    }

    /// The connection, to tell it something.
    pub(crate) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }

    /// Runs until the connection and all streams have ended. It can be dropped and called again.
    pub(crate) async fn run(&mut self) -> C::Output {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<C::Output> {
        match self.turn {
            Some(turn) => turn(&mut || self.advance(cx)),
            None => self.advance(cx),
        }
        if let Poll::Ready(Err(_)) = self.stream.poll_send(cx) {
            // The connection finds the error by itself.
            self.advance(cx);
        }
        if !self.running.is_empty() {
            return Poll::Pending;
        }
        self.ended.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Takes everything as far as it goes.
    fn advance(&mut self, cx: &mut Context<'_>) {
        loop {
            // First, so that what they answer goes out with the connection's next write.
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
            if self.ended.is_none()
                && let Poll::Ready(ended) = self.connection.as_mut().poll(cx)
            {
                self.ended = Some(ended);
            }
            let begun = std::mem::take(&mut *self.begun.begun());
            if begun.is_empty() {
                return;
            }
            self.running.extend(begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    use super::*;
    use crate::gathered::Mode;

    fn nothing() -> Gathered<tokio::io::Sink> {
        Gathered::new(tokio::io::sink(), Mode::Gathers)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_the_last_of_its_streams() {
        let streams = Streams::default();
        let (end, ended) = oneshot::channel::<()>();
        let begins = streams.clone();
        let connection = async move {
            begins.execute(async move { drop(ended.await) });
            begins.execute(async { panic!("of one stream") });
            7
        };
        let mut connection = std::pin::pin!(connection);
        let mut served = Served::new(connection.as_mut(), streams, nothing());
        let waited = tokio::time::timeout(std::time::Duration::from_secs(1), served.run()).await;
        assert!(waited.is_err(), "a stream still runs");
        end.send(()).unwrap();
        assert_eq!(served.run().await, 7);
    }

    #[tokio::test]
    async fn streams_that_begin_are_run_at_once() {
        let streams = Streams::default();
        let begins = streams.clone();
        let connection = async move {
            let (tell, told) = oneshot::channel();
            begins.execute(async move { tell.send(5).unwrap() });
            told.await.unwrap()
        };
        let mut connection = std::pin::pin!(connection);
        let mut served = Served::new(connection.as_mut(), streams, nothing());
        assert_eq!(served.run().await, 5);
    }
}
