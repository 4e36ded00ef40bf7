//! Connections that became something else: exec, attach, port-forward.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kaudit_tower::SessionGuard;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::metrics::{Metrics, count};

/// Both ends of a tunnel before they are joined.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) upstream: OnUpgrade,
    /// Keeps the request open in the audit log until the last byte.
    pub(crate) session: SessionGuard,
}

impl Tunnel {
    /// Relays bytes both ways until both ends are done, one breaks, or `cut` is cancelled.
    pub(crate) async fn relay(self, cut: CancellationToken, metrics: Arc<Metrics>) {
        let Self {
            client,
            upstream,
            session,
        } = self;
        count(&metrics.tunnels);
        count(&metrics.tunnels_open);
        let relayed = async {
            let (client, upstream) = tokio::try_join!(client, upstream)?;
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        tokio::select! {
            () = cut.cancelled() => debug!("tunnel cut: the gateway stops"),
            relayed = relayed => if let Err(error) = relayed {
                debug!(%error, "tunnel ended");
            },
        }
        metrics.tunnels_open.fetch_sub(1, Ordering::Relaxed);
        drop(session);
    }
}
