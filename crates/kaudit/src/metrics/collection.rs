//! What collecting and the journal count.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{counter, gauge};
use crate::collection::{Collection, SourceRow};

/// Everything of the collecting part.
pub(super) fn encode(collection: &Collection, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    sources(&collection.rows(), encoder)?;
    super::completeness::encode(collection.watchings(), encoder)?;
    receiver(collection, encoder)?;
    journal(collection, encoder)?;
    forward(collection, encoder)?;
    quarantine(collection, encoder)
}

fn forward(collection: &Collection, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(row) = collection.forward_row() else {
        return Ok(());
    };
    let counters = [
        (
            "kaudit_forward_records",
            "Records that the central kaudit took",
            row.forwarded,
        ),
        (
            "kaudit_forward_duplicates",
            "Those of them that were there already",
            row.duplicates,
        ),
        (
            "kaudit_forward_gaps",
            "Records that could not be read here any more; the central kaudit was told",
            row.gaps,
        ),
    ];
    for (name, help, value) in counters {
        counter(encoder, name, help, value)?;
    }
    gauge(
        encoder,
        "kaudit_forward_backlog_records",
        "Records that the central kaudit has not taken yet",
        row.backlog_records,
    )?;
    gauge(
        encoder,
        "kaudit_forward_backlog_bytes",
        "What they take of the journal",
        row.backlog_bytes,
    )?;
    gauge(
        encoder,
        "kaudit_forward_working",
        "1 while the central kaudit takes records",
        u64::from(row.problem.is_none()),
    )
}

type Of = fn(&SourceRow) -> u64;

type OfSome = fn(&SourceRow) -> Option<i64>;

fn sources(rows: &[SourceRow], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let counters: [(&str, &str, Of); 8] = [
        ("kaudit_source_events", "Events that were kept", |row| row.events),
        (
            "kaudit_source_bytes",
            "Bytes of the records of kept events",
            |row| row.bytes,
        ),
        (
            "kaudit_source_duplicates",
            "Events that were here already and not kept again",
            |row| row.duplicates,
        ),
        (
            "kaudit_source_other_copies",
            "Events of which a copy with other content is here; kept",
            |row| row.other_copies,
        ),
        (
            "kaudit_source_audit_id_reused",
            "Events whose Audit-ID stands on another request too; kept",
            |row| row.audit_id_reused,
        ),
        (
            "kaudit_source_quarantined",
            "Pieces that were no event and lie in quarantine",
            |row| row.quarantined,
        ),
        (
            "kaudit_source_oversized",
            "Events larger than is kept; they lost their bodies",
            |row| row.oversized,
        ),
        (
            "kaudit_source_gaps",
            "Events that are known to be missing",
            |row| row.gaps,
        ),
    ];
    for (name, help, of) in counters {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for row in rows {
            ConstCounter::new(of(row)).encode(metric.encode_family(&labels(row))?)?;
        }
    }
    let mut metric = encoder.encode_descriptor(
        "kaudit_source_held_back",
        "Times that a source was told to come again later, by reason",
        None,
        MetricType::Counter,
    )?;
    for row in rows {
        for (reason, count) in &row.held_back {
            let mut labels = labels(row).to_vec();
            labels.push(("reason", reason.as_str()));
            ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
        }
    }
    let gauges: [(&str, &str, OfSome); 4] = [
        (
            "kaudit_source_last_event_timestamp_seconds",
            "Newest stage time of the source's events",
            |row| row.last_event_micros.map(|micros| micros / 1_000_000),
        ),
        (
            "kaudit_source_last_received_timestamp_seconds",
            "When something came from the source last",
            |row| row.last_received_micros.map(|micros| micros / 1_000_000),
        ),
        (
            "kaudit_source_certificate_expiration_timestamp_seconds",
            "End of the client certificate that the source showed last",
            |row| row.certificate_not_after,
        ),
        (
            "kaudit_source_healthy",
            "1 for a source that is as it should be",
            |row| Some(i64::from(row.problem.is_none())),
        ),
    ];
    for (name, help, of) in gauges {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for row in rows {
            if let Some(value) = of(row) {
                ConstGauge::new(value).encode(metric.encode_family(&labels(row))?)?;
            }
        }
    }
    Ok(())
}

fn labels(row: &SourceRow) -> [(&'static str, &str); 4] {
    [
        ("cluster", &row.cluster),
        ("instance", &row.instance),
        ("transport", &row.transport),
        ("path", &row.path),
    ]
}

fn receiver(collection: &Collection, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "kaudit_receiver_requests",
        "Requests that the receiver answered, by status and reason",
        None,
        MetricType::Counter,
    )?;
    for (status, reason, count) in collection.answers() {
        let status = status.to_string();
        let labels = [("code", status.as_str()), ("reason", reason)];
        ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn journal(collection: &Collection, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let stats = collection.journal().stats();
    let counters = [
        (
            "kaudit_journal_records",
            "Records that became durable",
            stats.committed_records,
        ),
        (
            "kaudit_journal_commits",
            "Groups that became durable",
            stats.commits,
        ),
        (
            "kaudit_journal_failures",
            "Groups that could not be made durable; their senders were not told that they were",
            stats.failures,
        ),
        (
            "kaudit_journal_corrupt_records",
            "Records that were found corrupt",
            stats.corrupt_records,
        ),
        (
            "kaudit_journal_expired_records",
            "Records that went with the oldest segments for want of room",
            stats.expired_records,
        ),
    ];
    for (name, help, value) in counters {
        counter(encoder, name, help, value)?;
    }
    let gauges = [
        ("kaudit_journal_bytes", "Bytes of all segments", stats.bytes),
        ("kaudit_journal_segments", "Segments", stats.segments),
        (
            "kaudit_journal_queue_bytes",
            "Bytes that wait to become durable",
            stats.queue_bytes,
        ),
        (
            "kaudit_journal_ready",
            "1 when the journal takes records",
            u64::from(collection.is_ready()),
        ),
        (
            "kaudit_dedup_events",
            "Events of which a duplicate would be recognised",
            collection.remembered(),
        ),
    ];
    for (name, help, value) in gauges {
        gauge(encoder, name, help, value)?;
    }
    Ok(())
}

fn quarantine(collection: &Collection, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let stats = collection.quarantine();
    gauge(
        encoder,
        "kaudit_quarantine_bytes",
        "Bytes in quarantine",
        stats.bytes,
    )?;
    counter(
        encoder,
        "kaudit_quarantine_dropped_files",
        "Files of the quarantine that made room for newer ones",
        stats.dropped_files,
    )
}
