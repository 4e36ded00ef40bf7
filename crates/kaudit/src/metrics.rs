//! Metrics: upstream's under upstream's names, ours under `kaudit_`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kaudit_dial::Upstream;
use kaudit_gateway::Gateway;
use kaudit_sink::Counters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::reload::Reloads;
use crate::sinks::{Sinks, State};

/// Where the numbers are read from at each scrape.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Upstream,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) reloads: Arc<Reloads>,
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
        self.audit(encoder)?;
        self.losses(encoder)?;
        self.sinks(encoder)?;
        self.forwarding(encoder)?;
        self.reviews(encoder)?;
        self.reloads(encoder)
    }
}

impl Sources {
    /// Source of the names: k8s.io/apiserver pkg/audit/metrics.go.
    fn audit(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let audit = self.gateway.audit_metrics();
        counter(
            encoder,
            "apiserver_audit_event",
            "Audit events generated and sent to the audit backend",
            audit.events,
        )?;
        counter(
            encoder,
            "apiserver_audit_requests_rejected",
            "Requests rejected because of an error in the audit backend",
            audit.rejected,
        )?;
        let [none, metadata, request, request_response] = audit.levels;
        family(
            encoder,
            "apiserver_audit_level",
            "Requests by the level at which the policy records them",
            [
                (&[("level", "None")] as &Labels, none),
                (&[("level", "Metadata")], metadata),
                (&[("level", "Request")], request),
                (&[("level", "RequestResponse")], request_response),
            ],
        )?;
        counter(
            encoder,
            "kaudit_audited_requests",
            "Audited requests that began",
            audit.received,
        )?;
        counter(
            encoder,
            "kaudit_audited_requests_ended",
            "Audited requests that had their final event",
            audit.finals,
        )?;
        family(
            encoder,
            "kaudit_audited_requests_aborted",
            "Audited requests that did not end by themselves",
            [
                (&[("by", "client")] as &Labels, audit.client_gone),
                (&[("by", "upstream")], audit.upstream_errors),
                (&[("by", "panic")], audit.panics),
            ],
        )
    }

    fn losses(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = Counters::default();
        for counters in self.sinks.counters() {
            all.absorb(&counters);
        }
        let lost = all.snapshot();
        let mut by_plugin: Vec<(&'static str, u64)> = Vec::new();
        for (plugin, _, count) in &lost.lost {
            match by_plugin.iter_mut().find(|(name, _)| name == plugin) {
                Some((_, sum)) => *sum += count,
                None => by_plugin.push((plugin, *count)),
            }
        }
        let mut metric = encoder.encode_descriptor(
            "apiserver_audit_error",
            "Audit events that were not kept, by plugin",
            None,
            MetricType::Counter,
        )?;
        for (plugin, count) in by_plugin {
            let labels = [("plugin", plugin)];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        let mut metric = encoder.encode_descriptor(
            "kaudit_audit_events_lost",
            "Audit events that were not kept, by plugin and reason",
            None,
            MetricType::Counter,
        )?;
        for (plugin, reason, count) in &lost.lost {
            let labels = [("plugin", *plugin), ("reason", reason.as_str())];
            ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
        }
        let mut metric = encoder.encode_descriptor(
            "kaudit_webhook_failed_attempts",
            "Attempts to deliver to a webhook that failed, by class; an event is lost when all of them did",
            None,
            MetricType::Counter,
        )?;
        for (class, count) in &lost.failed_attempts {
            ConstCounter::new(*count).encode(metric.encode_family(&[("class", *class)])?)?;
        }
        counter(
            encoder,
            "kaudit_audit_events_truncated",
            "Audit events that were handed on without their bodies because they were too large",
            lost.truncated,
        )?;
        let audit = self.gateway.audit_metrics();
        family(
            encoder,
            "kaudit_audit_bodies_left_out",
            "Bodies that events lack, by reason",
            [
                (&[("reason", "over_limit")] as &Labels, audit.bodies_over_limit),
                (&[("reason", "over_budget")], audit.bodies_over_budget),
                (
                    &[("reason", "unprintable")],
                    audit.bodies_unprintable + lost.bodies_left_out,
                ),
            ],
        )
    }

    /// How each sink is; one that is drained is counted with the one that took its name.
    fn sinks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut rows: BTreeMap<(String, String), (u64, u64, u64, u64)> = BTreeMap::new();
        for row in self.sinks.list() {
            let sums = rows.entry((row.kind, row.name)).or_default();
            sums.0 += row.queued;
            sums.1 += row.delivered;
            sums.2 += row.dropped;
            sums.3 += u64::from(matches!(row.state, State::Active | State::Draining));
        }
        let mut write = |name, help, kind, value: fn(&(u64, u64, u64, u64)) -> u64| {
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for ((kind, name), sums) in &rows {
                let labels = [("kind", kind.as_str()), ("sink", name.as_str())];
                let family = metric.encode_family(&labels)?;
                ConstGauge::new(i64::try_from(value(sums)).unwrap_or(i64::MAX)).encode(family)?;
            }
            Ok(())
        };
        write(
            "kaudit_sink_queued_events",
            "Events that wait in a sink's queue",
            MetricType::Gauge,
            |sums| sums.0,
        )?;
        // These fall to nothing when a sink is removed, as gauges may and counters may not.
        write(
            "kaudit_sink_delivered_events",
            "Events that a sink has written or delivered",
            MetricType::Gauge,
            |sums| sums.1,
        )?;
        write(
            "kaudit_sink_dropped_events",
            "Events that a sink has not kept",
            MetricType::Gauge,
            |sums| sums.2,
        )?;
        write(
            "kaudit_sink_working",
            "1 for a sink that takes events and kept the last of them",
            MetricType::Gauge,
            |sums| u64::from(sums.3 > 0),
        )
    }

    fn forwarding(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gateway = self.gateway.metrics();
        counter(
            encoder,
            "kaudit_gateway_forwarded_requests",
            "Requests sent on to the cluster",
            gateway.forwarded,
        )?;
        family(
            encoder,
            "kaudit_gateway_failed_requests",
            "Requests that the gateway answered itself, by reason",
            [
                (&[("reason", "unreachable")] as &Labels, gateway.unreachable),
                (&[("reason", "broken")], gateway.broken),
                (&[("reason", "path")], gateway.refused_paths),
                (&[("reason", "identity")], gateway.identity_failures),
            ],
        )?;
        counter(
            encoder,
            "kaudit_gateway_tunnels",
            "Connections that became tunnels (exec, attach, port-forward)",
            gateway.tunnels,
        )?;
        gauge(
            encoder,
            "kaudit_gateway_tunnels_open",
            "Tunnels that are open",
            gateway.tunnels_open,
        )?;
        let upstream = self.upstream.metrics();
        counter(
            encoder,
            "kaudit_gateway_upstream_connections_opened",
            "Connections opened to the cluster",
            upstream.opened,
        )?;
        counter(
            encoder,
            "kaudit_gateway_upstream_connections_reused",
            "Requests that found an idle connection",
            upstream.reused,
        )?;
        gauge(
            encoder,
            "kaudit_gateway_upstream_connections_idle",
            "Connections to the cluster that are idle",
            upstream.idle,
        )
    }

    fn reviews(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gateway = self.gateway.metrics();
        family(
            encoder,
            "kaudit_gateway_reviews",
            "Questions about identity and decision: answered from memory, asked of the cluster, failed",
            [
                (
                    &[("about", "identity"), ("result", "known")] as &Labels,
                    gateway.identity_hits,
                ),
                (
                    &[("about", "identity"), ("result", "asked")],
                    gateway.identity_reviews,
                ),
                (
                    &[("about", "identity"), ("result", "failed")],
                    gateway.identity_failures,
                ),
                (
                    &[("about", "decision"), ("result", "known")],
                    gateway.decision_hits,
                ),
                (
                    &[("about", "decision"), ("result", "asked")],
                    gateway.decision_reviews,
                ),
                (
                    &[("about", "decision"), ("result", "failed")],
                    gateway.decision_failures,
                ),
            ],
        )
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
            ],
        )
    }
}
