//! What one HTTP/2 connection writes, gathered until all its streams were taken further.
//!
//! The library below writes and flushes behind each frame of data that is more than a few bytes: a hundred answers of a
//! kilobyte are a hundred TLS records and as many system calls. Here a flush says nothing; whoever runs the connection
//! sends what has come together when everything that could be done was done.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much is gathered before it is sent in any case.
const MOST: usize = 32 << 10;

/// What is longer is not copied, but written behind what was gathered.
const LONG: usize = 4 << 10;

/// Pieces that are written at once.
const PIECES: usize = 8;

/// A stream whose writes may be gathered. Its clones are one.
#[derive(Debug)]
pub(crate) struct Gathered<S>(Arc<Mutex<Gathering<S>>>);

#[derive(Debug)]
struct Gathering<S> {
    stream: S,
    /// Takes memory only while something is in it.
    unsent: Vec<u8>,
    /// How much of it was sent already.
    sent: usize,
    mode: Mode,
}

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They wait for [`Gathered::poll_send`], which somebody calls after each poll of whoever writes.
    Gathers,
    /// They go on as they come.
    Passes,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Gathered<S> {
    pub(crate) fn new(stream: S, mode: Mode) -> Self {
        Self(Arc::new(Mutex::new(Gathering {
            stream,
            unsent: Vec::new(),
            sent: 0,
            mode,
        })))
    }

    fn gathering(&self) -> MutexGuard<'_, Gathering<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes go on as they come from now on: nobody calls [`Self::poll_send`] any more.
    pub(crate) fn pass(&self) {
        self.gathering().mode = Mode::Passes;
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn unsent(&self) -> &[u8] {
        self.unsent.get(self.sent..).unwrap_or_default()
    }

    /// Counts what was sent, first of what was gathered; how much beyond that.
    fn take(&mut self, written: usize) -> usize {
        let ours = written.min(self.unsent().len());
        self.sent += ours;
        if self.unsent().is_empty() {
            (self.unsent, self.sent) = (Vec::new(), 0);
        }
        written - ours
    }

    /// Hands over to the stream what was gathered.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let unsent @ [_, ..] = self.unsent.get(self.sent..).unwrap_or_default() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.take(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Gathers what is short; writes what is long behind what was gathered.
    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.mode == Mode::Gathers && length < LONG {
            if self.unsent().len() + length > MOST {
                ready!(self.poll_empty(cx))?;
            }
            if self.unsent.capacity() == 0 {
                self.unsent.reserve_exact(MOST);
            }
            for piece in pieces {
                self.unsent.extend_from_slice(piece);
            }
            return Poll::Ready(Ok(length));
        }
        if self.unsent().is_empty() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        }
        loop {
            let unsent = self.unsent.get(self.sent..).unwrap_or_default();
            let mut all = [IoSlice::new(unsent); 1 + PIECES];
            let (_, theirs) = all.split_at_mut(1);
            let count = pieces.len().min(theirs.len());
            for (place, piece) in theirs.iter_mut().zip(pieces) {
                *place = IoSlice::new(piece);
            }
            let all = all.get(..=count).unwrap_or_default();
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, all))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let theirs = self.take(written);
            if theirs > 0 {
                return Poll::Ready(Ok(theirs));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Sends what was gathered; nothing where writes pass, whose stream may be somebody else's by now. After an error,
    /// which whoever writes meets again, writes are gathered no more.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.gathering();
        if gathering.mode == Mode::Passes {
            return Poll::Ready(Ok(()));
        }
        let sent = ready!(gathering.poll_send(cx));
        if sent.is_err() {
            gathering.mode = Mode::Passes;
        }
        Poll::Ready(sent)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.gathering().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.gathering().poll_write(cx, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.gathering().poll_write(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.gathering();
        match gathering.mode {
            Mode::Gathers => Poll::Ready(Ok(())),
            Mode::Passes => gathering.poll_send(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.gathering();
        ready!(gathering.poll_empty(cx))?;
        Pin::new(&mut gathering.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Takes as many bytes at once as it is told, in turns; 0 keeps it waiting.
    #[derive(Debug, Default)]
    struct Slow {
        takes: VecDeque<usize>,
        taken: Vec<u8>,
        writes: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buffer)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let takes = self.takes.pop_front().unwrap_or(usize::MAX);
            if takes == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = self.taken.len();
            for piece in pieces {
                let room = takes - (self.taken.len() - before);
                self.taken.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            self.writes += 1;
            Poll::Ready(Ok(self.taken.len() - before))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn short_writes_and_flushes_are_one_write_and_take_no_memory_afterwards() {
        run(async {
            let mut gathered = Gathered::new(Slow::default(), Mode::Gathers);
            for _ in 0..20 {
                gathered.write_all(&[7; 1000]).await.unwrap();
                gathered.flush().await.unwrap();
            }
            assert_eq!(gathered.gathering().stream.writes, 0);
            poll_fn(|cx| gathered.poll_send(cx)).await.unwrap();
            let gathering = gathered.gathering();
            assert_eq!(
                (gathering.stream.writes, gathering.stream.taken.len()),
                (1, 20_000)
            );
            assert_eq!(gathering.unsent.capacity(), 0);
        });
    }

    #[test]
    fn who_gathers_no_more_sends_what_there_was_with_the_next_flush() {
        run(async {
            let mut gathered = Gathered::new(Slow::default(), Mode::Gathers);
            gathered.write_all(b"one").await.unwrap();
            gathered.pass();
            poll_fn(|cx| gathered.poll_send(cx)).await.unwrap();
            assert!(gathered.gathering().stream.taken.is_empty());
            gathered.flush().await.unwrap();
            assert_eq!(gathered.gathering().stream.taken, b"one");
            gathered.write_all(b" two").await.unwrap();
            assert_eq!(gathered.gathering().stream.taken, b"one two");
        });
    }

    proptest! {
        #[test]
        fn everything_arrives_in_order_however_slowly_it_is_taken(
            lengths in prop::collection::vec((1_usize..9000, any::<bool>()), 1..40),
            takes in prop::collection::vec(prop_oneof![Just(0), 1_usize..20_000], 0..60),
        ) {
            run(async {
                let slow = Slow { takes: takes.into(), ..Slow::default() };
                let mut gathered = Gathered::new(slow, Mode::Gathers);
                let mut expected = Vec::new();
                for (number, (length, sends)) in (0_u8..).zip(lengths) {
                    let bytes = vec![number; length];
                    expected.extend_from_slice(&bytes);
                    let (head, body) = bytes.split_at(length / 3);
                    let mut pieces = &mut [IoSlice::new(head), IoSlice::new(body)][..];
                    while !pieces.is_empty() {
                        let written = gathered.write_vectored(pieces).await.unwrap();
                        IoSlice::advance_slices(&mut pieces, written);
                    }
                    if sends {
                        poll_fn(|cx| gathered.poll_send(cx)).await.unwrap();
                    }
                    let unsent = gathered.gathering().unsent().len();
                    prop_assert!(unsent <= MOST);
                }
                gathered.shutdown().await.unwrap();
                prop_assert!(gathered.gathering().stream.taken == expected);
                Ok(())
            })?;
        }
    }
}
