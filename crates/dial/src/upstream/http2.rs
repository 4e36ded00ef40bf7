//! One HTTP/2 connection: its streams, its limit, and whether it still lives.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, SendStream};
use http::{Request, Response, header};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::outgoing::Outgoing;
use crate::connect::Stream;

/// A connection on which nothing was read for so long is asked whether it lives, as by client-go.
const SILENCE: Duration = Duration::from_secs(30);

/// It has so long to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// How often silence is looked for.
const TICK: Duration = Duration::from_secs(5);

/// More streams are not put into one connection, whatever the server allows.
const MAX_STREAMS: usize = 100;

/// Bytes of a body that a stream reads ahead of whoever takes them: what a slow reader costs.
const STREAM_WINDOW: u32 = 512 << 10;

/// The same of a connection. Larger than all its streams together, so that none waits for another's reader.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// Bytes of a response's headers.
const MAX_HEADER_BYTES: u32 = 256 << 10;

/// A connection that takes streams.
#[derive(Debug)]
pub(crate) struct Link {
    sender: SendRequest<Bytes>,
    /// Streams that are open or about to be.
    streams: AtomicUsize,
    limit: AtomicUsize,
    was_used: AtomicBool,
    was_lost: AtomicBool,
    /// Requests under way over all connections to the server.
    busy: Arc<AtomicUsize>,
}

/// The right to one stream of a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Link>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    /// Streams that are taken.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// Streams that the server allows, as far as they are used.
    fn limit(&self) -> usize {
        self.limit.load(Ordering::Acquire).min(MAX_STREAMS)
    }

    /// Streams up to which a connection is taken before there is another one.
    pub(crate) fn comfort(&self) -> usize {
        (self.limit() * 4 / 5).max(1)
    }

    /// A stream, if fewer than `most` are taken and the server allows it. Only under the pool's lock.
    pub(crate) fn take(self: &Arc<Self>, most: usize) -> Option<Slot> {
        if self.streams() >= most.min(self.limit()) {
            return None;
        }
        self.streams.fetch_add(1, Ordering::AcqRel);
        self.busy.fetch_add(1, Ordering::Relaxed);
        Some(Slot(Arc::clone(self)))
    }

    /// The connection broke; whether that is news, as it is for the first of its streams that notices.
    pub(crate) fn lose(&self) -> bool {
        !self.was_lost.swap(true, Ordering::Relaxed)
    }

    /// What begins a stream, unless the connection takes no new ones: it is closed or going away.
    pub(crate) async fn ready(&self) -> Option<SendRequest<Bytes>> {
        self.sender.clone().ready().await.ok()
    }
}

/// A request for which the connection had no stream.
#[derive(Debug)]
pub(crate) struct Unsent {
    error: h2::Error,
    body: Outgoing,
}

impl From<Unsent> for Exchanged {
    fn from(Unsent { error, body }: Unsent) -> Self {
        Self::Refused {
            error,
            is_sent: false,
            body: Some(body),
        }
    }
}

/// What became of a request on a connection.
#[derive(Debug)]
pub(crate) enum Exchanged {
    Answered {
        response: Response<h2::RecvStream>,
        length: Option<u64>,
        slot: Arc<Slot>,
        /// What is still to be sent.
        rest: Option<Upload>,
    },
    /// The server did not act on it, and says so, or never had it.
    Refused {
        error: h2::Error,
        is_sent: bool,
        body: Option<Outgoing>,
    },
    /// It broke; the server may have acted on it.
    Broken {
        error: h2::Error,
        is_connection_lost: bool,
        body: Option<Outgoing>,
    },
}

impl Slot {
    /// The connection.
    pub(crate) const fn link(&self) -> &Arc<Link> {
        &self.0
    }

    /// Whether an earlier request went over the connection.
    pub(crate) fn was_used(&self) -> bool {
        self.0.was_used.swap(true, Ordering::Relaxed)
    }

    /// Sends a request over `sender`, which is the connection's and ready, and returns what waits for the answer's head.
    /// What is sent of the body meanwhile can be had back from what comes of it.
    pub(crate) fn exchange(
        self,
        mut sender: SendRequest<Bytes>,
        mut head: Request<()>,
        body: Outgoing,
    ) -> Result<impl Future<Output = Exchanged> + Send, Unsent> {
        announce_length(&mut head, &body);
        let has_body = !body.is_end_stream();
        match sender.send_request(head, !has_body) {
            Ok((response, stream)) => Ok(self.answer(response, Upload::of(stream, body), has_body)),
            Err(error) => Err(Unsent { error, body }),
        }
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would hold its arguments twice"
    )]
    fn answer(
        self,
        mut response: ResponseFuture,
        mut upload: Upload,
        has_body: bool,
    ) -> impl Future<Output = Exchanged> + Send {
        async move {
            let mut is_uploaded = !has_body;
            let answered = poll_fn(|cx| {
                if !is_uploaded {
                    is_uploaded = upload.poll(cx).is_ready();
                }
                Pin::new(&mut response).poll(cx)
            })
            .await;
            match answered {
                Ok(response) => self.answered(response, upload, is_uploaded),
                Err(error) => broken(error, upload.body.rewound()),
            }
        }
    }

    fn answered(
        self,
        response: Response<h2::RecvStream>,
        mut upload: Upload,
        is_uploaded: bool,
    ) -> Exchanged {
        upload.body.forget();
        let length = response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        Exchanged::Answered {
            response,
            length,
            rest: (!is_uploaded).then_some(upload),
            slot: Arc::new(self),
        }
    }
}

/// What an error says of a request that had been sent.
fn broken(error: h2::Error, body: Option<Outgoing>) -> Exchanged {
    // A server may only say so of streams that it did not act on: RFC 9113 sections 6.8 and 8.7.
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        let is_sent = true;
        return Exchanged::Refused { error, is_sent, body };
    }
    Exchanged::Broken {
        is_connection_lost: !error.is_reset(),
        error,
        body,
    }
}

/// A request whose body is there says how long it is, as over HTTP/1.1.
fn announce_length(head: &mut Request<()>, body: &Outgoing) {
    if head.headers().contains_key(header::CONTENT_LENGTH) {
        return;
    }
    if let Some(length) = body.size_hint().exact()
        && length > 0
    {
        head.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
}

/// A request's body on its way.
#[derive(Debug)]
pub(crate) struct Upload {
    stream: SendStream<Bytes>,
    body: Outgoing,
    /// Taken from the body; the server has no room for it yet.
    unsent: Bytes,
    is_last: bool,
}

impl Upload {
    const fn of(stream: SendStream<Bytes>, body: Outgoing) -> Self {
        Self {
            stream,
            body,
            unsent: Bytes::new(),
            is_last: false,
        }
    }

    /// Sends until nothing is left or the server wants no more.
    pub(crate) async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if !self.unsent.is_empty() {
                self.stream.reserve_capacity(self.unsent.len());
                let room = match std::task::ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(0)) => continue,
                    Some(Ok(room)) => room.min(self.unsent.len()),
                    // The server reset the stream, or the connection is gone; the response says so.
                    Some(Err(_)) | None => return Poll::Ready(()),
                };
                let piece = self.unsent.split_to(room);
                let is_last = self.is_last && self.unsent.is_empty();
                if self.stream.send_data(piece, is_last).is_err() || is_last {
                    return Poll::Ready(());
                }
                continue;
            }
            if let Poll::Ready(_reset) = self.stream.poll_reset(cx) {
                return Poll::Ready(());
            }
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    // An error means that the stream is closed already.
                    drop(self.stream.send_data(Bytes::new(), true));
                    return Poll::Ready(());
                }
                Some(Err(_)) => {
                    // Never the end of a body that is not whole.
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(());
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.is_last = self.body.is_end_stream();
                        if data.is_empty() && self.is_last {
                            drop(self.stream.send_data(data, true));
                            return Poll::Ready(());
                        }
                        self.unsent = data;
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            drop(self.stream.send_trailers(trailers));
                            return Poll::Ready(());
                        }
                    }
                },
            }
        }
    }
}

/// A connection and the work that keeps it going.
#[derive(Debug)]
pub(crate) struct Opened<S: Stream> {
    pub(crate) sender: SendRequest<Bytes>,
    pub(crate) driver: Driver<S>,
}

/// Begins HTTP/2 on a stream.
pub(crate) async fn begin<S: Stream>(stream: S) -> Result<Opened<S>, h2::Error> {
    let reads = Arc::new(AtomicU64::new(0));
    let stream = Heard {
        stream,
        reads: Arc::clone(&reads),
    };
    let (sender, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_BYTES)
        // No stream is opened before the server has said how many it takes.
        .initial_max_send_streams(0)
        .handshake(stream)
        .await?;
    let pings = connection.ping_pong();
    Ok(Opened {
        sender,
        driver: Driver {
            connection,
            pings,
            reads,
        },
    })
}

/// Runs a connection.
#[derive(Debug)]
pub(crate) struct Driver<S: Stream> {
    connection: Connection<Heard<S>, Bytes>,
    pings: Option<PingPong>,
    reads: Arc<AtomicU64>,
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error(transparent)]
    Http(#[from] h2::Error),
    #[error("the server answered no ping for {} s", PING_TIMEOUT.as_secs())]
    Silent,
}

impl<S: Stream> Driver<S> {
    /// Polls the connection until the server's settings are there, which is when streams may be opened.
    pub(crate) async fn settle(&mut self) -> Result<(), h2::Error> {
        poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
                return Poll::Ready(ended.and_then(|()| Err(Reason::NO_ERROR.into())));
            }
            if self.connection.max_concurrent_send_streams() > 0 {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await
    }

    pub(crate) fn link(&self, sender: SendRequest<Bytes>, busy: Arc<AtomicUsize>) -> Arc<Link> {
        Arc::new(Link {
            sender,
            streams: AtomicUsize::new(0),
            limit: AtomicUsize::new(self.connection.max_concurrent_send_streams()),
            was_used: AtomicBool::new(false),
            was_lost: AtomicBool::new(false),
            busy,
        })
    }

    /// Runs until the connection ends, which it also does when nobody holds its [`Link`] or a stream of it
    /// any more. `on_tick` is called every few seconds.
    pub(crate) async fn run(
        self,
        link: std::sync::Weak<Link>,
        mut on_tick: impl FnMut() + Send,
    ) -> Result<(), Ended> {
        let Self {
            mut connection,
            pings,
            reads,
        } = self;
        let mut watching = pin!(watch_over(pings, reads, &mut on_tick));
        poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(ended.map_err(Ended::from));
            }
            if let Some(link) = link.upgrade() {
                link.limit
                    .store(connection.max_concurrent_send_streams(), Ordering::Release);
            }
            watching.as_mut().poll(cx).map(Err)
        })
        .await
    }
}

/// Asks a silent server whether it lives; returns when it does not.
async fn watch_over(
    pings: Option<PingPong>,
    reads: Arc<AtomicU64>,
    on_tick: &mut (impl FnMut() + Send),
) -> Ended {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = reads.load(Ordering::Relaxed);
    let mut since = Instant::now();
    loop {
        ticks.tick().await;
        on_tick();
        let now = reads.load(Ordering::Relaxed);
        if now != heard {
            (heard, since) = (now, Instant::now());
        } else if since.elapsed() >= SILENCE {
            // An error means that the connection ends, which its own future tells.
            if pings.send_ping(Ping::opaque()).is_err() {
                return std::future::pending().await;
            }
            loop {
                match timeout(PING_TIMEOUT, poll_fn(|cx| pings.poll_pong(cx))).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(_)) => return std::future::pending().await,
                    Err(_) if reads.load(Ordering::Relaxed) == heard => return Ended::Silent,
                    // The answer may wait behind much else that is coming.
                    Err(_) => heard = reads.load(Ordering::Relaxed),
                }
            }
            (heard, since) = (reads.load(Ordering::Relaxed), Instant::now());
        }
    }
}

/// A stream that counts what was read from it.
#[derive(Debug)]
pub(crate) struct Heard<S> {
    stream: S,
    reads: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
