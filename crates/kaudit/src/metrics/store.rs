//! What the store holds, and how it is filled.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{counter, gauge};
use crate::storing::{Doing, Report, Storing};

/// Everything of the store.
pub(super) fn encode(storing: &Storing, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let report = storing.report();
    volume(&report, encoder)?;
    work(&report, encoder)?;
    cache(&report, encoder)?;
    counts(&report, encoder)
}

fn volume(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let stats = &report.stats;
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let gauges = [
        ("kaudit_store_files", "Files of events", wide(stats.files)),
        ("kaudit_store_bytes", "Bytes of these files", stats.stored_bytes),
        ("kaudit_store_events", "Events in files", stats.sealed.events),
        (
            "kaudit_store_event_bytes",
            "What these events take as log lines",
            stats.sealed.event_bytes,
        ),
        (
            "kaudit_store_raw_events",
            "Events in files that keep the received bytes beside the columns",
            stats.raw_rows,
        ),
        (
            "kaudit_store_unsealed_events",
            "Events in memory and in the journal that are in no file yet",
            wide(stats.tail_events),
        ),
        (
            "kaudit_store_unsealed_bytes",
            "What they take as log lines",
            report.unsealed_bytes,
        ),
        (
            "kaudit_store_sealed_to",
            "The first record of the journal that is in no file",
            report.sealed_to,
        ),
        (
            "kaudit_store_lag_records",
            "Records that are durable in the journal and cannot be asked for yet",
            report.lag_records,
        ),
    ];
    for (name, help, value) in gauges {
        gauge(encoder, name, help, value)?;
    }
    let mut metric = encoder.encode_descriptor(
        "kaudit_store_working",
        "1 while this work of the store does not fail",
        None,
        MetricType::Gauge,
    )?;
    for doing in Doing::ALL {
        let labels = [("work", doing.as_str())];
        let works = i64::from(!report.failing.contains(&doing));
        ConstGauge::new(works).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn work(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let figures = &report.figures;
    let counters = [
        (
            "kaudit_store_seals",
            "Times that what was in memory was written to files",
            figures.seals,
        ),
        (
            "kaudit_store_sealed_files",
            "Files that were written then",
            figures.sealed_files,
        ),
        (
            "kaudit_store_compacted_files",
            "Files that were merged because their day was over",
            figures.compacted_files,
        ),
        (
            "kaudit_store_compacted_into_files",
            "Files that took their place",
            figures.compacted_into_files,
        ),
        (
            "kaudit_store_retained_files",
            "Files that went, whole or but for what is kept longer",
            figures.retained_files,
        ),
    ];
    for (name, help, value) in counters {
        counter(encoder, name, help, value)?;
    }
    seconds(
        encoder,
        "kaudit_store_seal_seconds",
        "Time that writing files took",
        figures.seal_time,
    )?;
    seconds(
        encoder,
        "kaudit_store_compact_seconds",
        "Time that merging files took",
        figures.compact_time,
    )?;
    let mut metric = encoder.encode_descriptor(
        "kaudit_store_errors",
        "Failures of the store by what it did and why it could not; it is tried again",
        None,
        MetricType::Counter,
    )?;
    for ((doing, reason), count) in &figures.errors {
        let labels = [("work", doing.as_str()), ("reason", reason)];
        ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The local files of a bucket.
fn cache(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(cache) = &report.cache else {
        return Ok(());
    };
    gauge(
        encoder,
        "kaudit_store_cache_bytes",
        "Bytes of the bucket's files that are kept locally",
        cache.bytes,
    )?;
    let counters = [
        (
            "kaudit_store_cache_hits",
            "Files that were there when a question needed them",
            cache.hits,
        ),
        (
            "kaudit_store_fetched_files",
            "Files that came from the bucket",
            cache.fetched,
        ),
        (
            "kaudit_store_fetched_bytes",
            "Bytes of these",
            cache.fetched_bytes,
        ),
        (
            "kaudit_store_fetch_errors",
            "Files that did not come; the question got an error",
            cache.failed,
        ),
    ];
    for (name, help, value) in counters {
        counter(encoder, name, help, value)?;
    }
    Ok(())
}

/// What the manifest counts since the store began.
fn counts(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let counts = &report.counts;
    counter(
        encoder,
        "kaudit_store_sealed_events",
        "Events that were written to files since the store began",
        counts.sealed,
    )?;
    let families = [
        (
            "kaudit_store_rejected_records",
            "Records of the journal that were not kept, by reason",
            &counts.rejected,
        ),
        (
            "kaudit_store_lost_records",
            "Records that the journal had lost before they were in a file, by reason",
            &counts.lost,
        ),
        (
            "kaudit_store_dropped_events",
            "Events that were not written to files, by reason: duplicate, the same event is in a file already",
            &counts.dropped,
        ),
        (
            "kaudit_store_expired_events",
            "Events that were removed because their time was over, by the limit that said so",
            &counts.expired,
        ),
    ];
    for (name, help, values) in families {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, count) in values {
            let labels = [("reason", reason.as_str())];
            ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn seconds(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, time: Duration) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(time.as_secs_f64()).encode(metric)
}
