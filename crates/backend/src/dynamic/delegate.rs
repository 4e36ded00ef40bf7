//! What stands behind an AuditSink.

use std::sync::Arc;
use std::time::Duration;

use kaudit_dial::{Cluster, Pem, Server, Trust};
use kaudit_sink::{Counters, Sink};
use tokio::runtime::Handle;

use super::AuditSink;
use crate::{BatchConfig, Buffered, Webhook, WebhookConfig, WhenFull};

/// Batches of one sink that are under way at once; upstream has no bound.
const MAX_IN_FLIGHT: usize = 64;

/// A webhook behind a queue; deliveries are tasks of `runtime`.
///
/// Source of the numbers: release-1.18 of k8s.io/apiserver plugin/pkg/audit/dynamic/defaults.go and
/// factory.go.
pub(super) fn start(
    object: &AuditSink,
    counters: &Arc<Counters>,
    runtime: &Handle,
) -> Result<Arc<dyn Sink>, String> {
    let server: Server = object.url.parse()?;
    let trust = object
        .ca_bundle
        .clone()
        .map(Pem::Inline)
        .map_or(Trust::Public, Trust::Authorities);
    let config = WebhookConfig {
        initial_backoff: Duration::from_millis(500),
        ..WebhookConfig::default()
    };
    let webhook = Webhook::new(
        &Cluster::new(server, trust),
        config,
        Arc::clone(counters),
        runtime.clone(),
    );
    let webhook = webhook.map_err(|error| error.to_string())?;
    let batch = BatchConfig {
        buffer_size: 5000,
        max_batch_size: 400,
        max_batch_wait: Duration::from_secs(30),
        throttle: Some(object.throttle),
        max_in_flight: MAX_IN_FLIGHT,
        when_full: WhenFull::DropNewest,
    };
    Ok(Arc::new(Buffered::new(
        Arc::new(webhook),
        batch,
        Arc::clone(counters),
    )))
}
