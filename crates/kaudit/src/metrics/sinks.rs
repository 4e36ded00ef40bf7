//! What sinks count.

use std::collections::BTreeMap;
use std::fmt;

use kaudit_sink::CountersSnapshot;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::counter;
use crate::sinks::{Sinks, State};

/// Everything of all sinks, of which `lost` is the sum.
pub(super) fn encode(
    sinks: &Sinks,
    lost: &CountersSnapshot,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    losses(lost, encoder)?;
    rows(sinks, encoder)
}

fn losses(lost: &CountersSnapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
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
    )
}

/// How each sink is; one that is drained is counted with the one that took its name.
fn rows(sinks: &Sinks, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut rows: BTreeMap<(String, String), (u64, u64, u64, u64)> = BTreeMap::new();
    for row in sinks.list() {
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
