//! What the comparison with apiservers' own counters says.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::completeness::{Tally, Watching};
use kaudit_collect::completeness::Status;

type Count = fn(&Status, &Tally) -> u64;
type Value = fn(&Status) -> Option<u64>;

/// Of every watched apiserver.
pub(super) fn encode(watchings: &[Watching], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if watchings.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = watchings
        .iter()
        .map(|watching| (watching, watching.status(), watching.tally()))
        .collect();
    let gauges: [(&str, &str, Value); 4] = [
        (
            "kaudit_completeness_missing_events",
            "Events that an apiserver counted and that certainly did not come",
            |status| Some(status.gap.map_or(0, |gap| gap.at_least)),
        ),
        (
            "kaudit_completeness_missing_events_at_most",
            "The most events that can be missing, whatever is known",
            |status| status.at_most.map(|most| most.events),
        ),
        (
            "kaudit_completeness_excess_events",
            "Events that came beyond what an apiserver counted: another one sends under its name",
            |status| Some(status.excess),
        ),
        (
            "kaudit_completeness_complete_timestamp_seconds",
            "Up to here nothing is missing since the look before",
            |status| {
                let at = status.complete_through?.0.div_euclid(1_000_000);
                u64::try_from(at).ok()
            },
        ),
    ];
    for (name, help, of) in gauges {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (watching, status, _) in &all {
            if let Some(value) = of(status) {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(metric.encode_family(&labels(watching))?)?;
            }
        }
    }
    let counters: [(&str, &str, Count); 3] = [
        (
            "kaudit_completeness_lost_events",
            "Missing events of processes that ended long ago",
            |status, _| status.lost,
        ),
        (
            "kaudit_completeness_restarts",
            "Restarts of an apiserver that were seen",
            |status, _| status.restarts,
        ),
        (
            "kaudit_completeness_rejected_requests",
            "Requests that an apiserver refused because their events could not be kept",
            |_, tally| tally.rejected,
        ),
    ];
    for (name, help, of) in counters {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (watching, status, tally) in &all {
            ConstCounter::new(of(status, tally)).encode(metric.encode_family(&labels(watching))?)?;
        }
    }
    let mut metric = encoder.encode_descriptor(
        "kaudit_completeness_scrapes",
        "Looks at an apiserver's counters by what became of them",
        None,
        MetricType::Counter,
    )?;
    for (watching, status, tally) in &all {
        for (outcome, count) in [
            ("ok", tally.read.saturating_sub(status.unusable_scrapes)),
            ("unusable", status.unusable_scrapes),
            ("failed", tally.failed),
        ] {
            let labels = with(watching, "outcome", outcome);
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
    }
    let mut metric = encoder.encode_descriptor(
        "kaudit_completeness_backend_errors",
        "Events that an apiserver's backend could not deliver, by what the apiserver says",
        None,
        MetricType::Counter,
    )?;
    for (watching, _, tally) in &all {
        for (plugin, count) in &tally.backend_errors {
            let labels = with(watching, "plugin", plugin);
            ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn labels(watching: &Watching) -> [(&'static str, &str); 2] {
    [
        ("cluster", watching.cluster().as_str()),
        ("instance", watching.instance().as_str()),
    ]
}

fn with<'a>(watching: &'a Watching, key: &'static str, value: &'a str) -> [(&'static str, &'a str); 3] {
    let [cluster, instance] = labels(watching);
    [cluster, instance, (key, value)]
}
