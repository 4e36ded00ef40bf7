//! Metrics: upstream's under upstream's names, ours under `kaudit_`.

mod collection;
mod completeness;
mod gateway;
mod sinks;
mod store;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kaudit_dial::Upstream;
use kaudit_gateway::Gateway;
use kaudit_listen::ListenerMetrics;
use kaudit_sink::{Counters, CountersSnapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::collection::Collection;
use crate::reload::Reloads;
use crate::sinks::Sinks;
use crate::storing::Storing;

/// Where the numbers are read from at each scrape.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) gateway: Option<GatewaySources>,
    pub(crate) sinks: Option<Arc<Sinks>>,
    pub(crate) collection: Option<Collection>,
    pub(crate) storing: Option<Storing>,
    pub(crate) reloads: Arc<Reloads>,
}

/// Where a gateway's numbers are read from.
#[derive(Debug)]
pub(crate) struct GatewaySources {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Upstream,
    pub(crate) listener: ListenerMetrics,
    /// Lines of the access log that could not be written, where there is one.
    pub(crate) unwritten: Option<Arc<AtomicU64>>,
}

/// All numbers in OpenMetrics text.
pub(crate) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        text.clear();
    }
    text
}

pub(crate) fn registry(sources: Sources) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    registry
}

type Labels = [(&'static str, &'static str)];

/// A metric with its values by label.
fn family<'l>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (&'l Labels, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        let labels: Vec<(&str, &str)> = labels.to_vec();
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    let metric = encoder.encode_descriptor(name, help, None, ConstCounter::<u64>::TYPE)?;
    counter.encode(metric)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    let metric = encoder.encode_descriptor(name, help, None, ConstGauge::<i64>::TYPE)?;
    gauge.encode(metric)
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let lost = self.lost();
        if let Some(gateway) = &self.gateway {
            gateway::encode(gateway, lost.bodies_left_out, encoder)?;
        }
        if let Some(sinks) = &self.sinks {
            sinks::encode(sinks, &lost, encoder)?;
        }
        if let Some(collection) = &self.collection {
            collection::encode(collection, encoder)?;
        }
        if let Some(storing) = &self.storing {
            store::encode(storing, encoder)?;
        }
        self.reloads(encoder)
    }
}

impl Sources {
    /// What all sinks together lost.
    fn lost(&self) -> CountersSnapshot {
        let all = Counters::default();
        for counters in self.sinks.iter().flat_map(|sinks| sinks.counters()) {
            all.absorb(&counters);
        }
        all.snapshot()
    }

    fn reloads(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let reloads = &self.reloads;
        family(
            encoder,
            "kaudit_reloads",
            "Changed files by what became of them",
            [
                (
                    &[("file", "policy"), ("outcome", "ok")] as &Labels,
                    read(&reloads.policy_ok),
                ),
                (
                    &[("file", "policy"), ("outcome", "failed")],
                    read(&reloads.policy_failed),
                ),
                (
                    &[("file", "certificate"), ("outcome", "ok")],
                    read(&reloads.certificate_ok),
                ),
                (
                    &[("file", "certificate"), ("outcome", "failed")],
                    read(&reloads.certificate_failed),
                ),
                (
                    &[("file", "authorities"), ("outcome", "ok")],
                    read(&reloads.authorities_ok),
                ),
                (
                    &[("file", "authorities"), ("outcome", "failed")],
                    read(&reloads.authorities_failed),
                ),
                (
                    &[("file", "upstream_certificates"), ("outcome", "ok")],
                    read(&reloads.upstream_certificates_ok),
                ),
                (
                    &[("file", "upstream_certificates"), ("outcome", "failed")],
                    read(&reloads.upstream_certificates_failed),
                ),
                (&[("file", "token"), ("outcome", "ok")], read(&reloads.tokens_ok)),
                (
                    &[("file", "token"), ("outcome", "failed")],
                    read(&reloads.tokens_failed),
                ),
            ],
        )
    }
}
