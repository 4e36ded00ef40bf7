//! Connections that became something else: exec, attach, port-forward.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use kaudit_dial::Load;
use kaudit_tower::SessionGuard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::arrival::Arrival;
use crate::metrics::{Metrics, count};

/// Bytes under way in each direction: two TLS records.
const BUFFER: usize = 32 << 10;

/// Both ends of a tunnel before they are joined.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) upstream: OnUpgrade,
    /// Keeps the request open in the audit log until the last byte.
    pub(crate) session: SessionGuard,
    pub(crate) arrival: Arc<Arrival>,
    /// Its part in the load of the server at the other end.
    pub(crate) load: Load,
}

impl Tunnel {
    /// Relays bytes both ways until both ends are done, one breaks, or `cut` is cancelled.
    pub(crate) async fn relay(self, cut: CancellationToken, metrics: Arc<Metrics>) {
        let Self {
            client,
            upstream,
            session,
            arrival,
            load,
        } = self;
        count(&metrics.tunnels);
        count(&metrics.tunnels_open);
        let relayed = async {
            let (client, upstream) = tokio::try_join!(client, upstream)?;
            let mut client = Counted {
                stream: TokioIo::new(client),
                arrival,
            };
            let mut upstream = TokioIo::new(upstream);
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        tokio::select! {
            () = cut.cancelled() => debug!("tunnel cut: the gateway stops"),
            relayed = relayed => if let Err(error) = relayed {
                debug!(%error, "tunnel ended");
            },
        }
        metrics.tunnels_open.fetch_sub(1, Ordering::Relaxed);
        drop((session, load));
    }
}

/// The client's end, which counts what passes.
struct Counted {
    stream: TokioIo<Upgraded>,
    arrival: Arc<Arrival>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.arrival
            .passing
            .received((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.arrival.passing.sent(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
