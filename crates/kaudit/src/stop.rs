//! The signals that end the program.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::exit::Failure;

/// Listens for SIGINT and SIGTERM. The first cancels `stop`, the second `now`: no more waiting for
/// what is in flight.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    pub(crate) stop: CancellationToken,
    pub(crate) now: CancellationToken,
}

impl Stop {
    /// Signals are heard from here on, and acted upon while the returned future is polled.
    pub(crate) fn listen(&self) -> Result<impl Future<Output = ()> + use<>, Failure> {
        let hear = |kind| {
            signal(kind)
                .context("cannot listen for signals")
                .map_err(Failure::unreachable)
        };
        let mut interrupt = hear(SignalKind::interrupt())?;
        let mut terminate = hear(SignalKind::terminate())?;
        let Self { stop, now } = self.clone();
        Ok(async move {
            for (heard, is_last) in [(&stop, false), (&now, true)] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if is_last || heard.is_cancelled() {
                    warn!("stopping at once");
                } else {
                    info!("stopping; once more to stop at once");
                }
                heard.cancel();
            }
            std::future::pending().await
        })
    }
}
