//! What a gateway counts.

use std::fmt;
use std::sync::atomic::Ordering;

use kaudit_dial::{ServerMetrics, Upstream};
use kaudit_gateway::Gateway;
use kaudit_listen::{ListenerMetrics, Refused};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{GatewaySources, Labels, counter, family, gauge};

/// Everything of one gateway; `unprintable_at_sinks` are bodies that its sinks left out.
pub(super) fn encode(
    source: &GatewaySources,
    unprintable_at_sinks: u64,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let gateway = &source.gateway;
    audit(gateway, encoder)?;
    bodies(gateway, unprintable_at_sinks, encoder)?;
    traffic(source, encoder)?;
    forwarding(gateway, &source.upstream, encoder)?;
    servers(&source.upstream, encoder)?;
    reviews(gateway, encoder)?;
    connections(&source.listener, encoder)
}

fn connections(listener: &ListenerMetrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    counter(
        encoder,
        "kaudit_gateway_connections",
        "Connections of clients that were accepted",
        listener.accepted(),
    )?;
    gauge(
        encoder,
        "kaudit_gateway_connections_open",
        "Connections of clients that are open",
        listener.open(),
    )?;
    let reasons = Refused::ALL.map(|reason| ([("reason", reason.as_str())], listener.refused(reason)));
    family(
        encoder,
        "kaudit_gateway_connections_refused",
        "Connections of clients that the gateway closed, by reason",
        reasons.iter().map(|(label, value)| (label as &Labels, *value)),
    )
}

fn traffic(source: &GatewaySources, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let traffic = source.gateway.traffic();
    let mut requests = encoder.encode_descriptor(
        "kaudit_gateway_requests",
        "Requests that ended, by verb and code; code 0 stands for clients that left before the answer",
        None,
        MetricType::Counter,
    )?;
    for (verb, code, count) in &traffic.ended {
        let code = code.to_string();
        let labels = [("verb", *verb), ("code", code.as_str())];
        ConstCounter::new(*count).encode(requests.encode_family(&labels)?)?;
    }
    gauge(
        encoder,
        "kaudit_gateway_requests_open",
        "Requests that have not ended, watches and sessions included",
        traffic.open,
    )?;
    family(
        encoder,
        "kaudit_gateway_bytes",
        "Bytes of bodies and sessions of requests that ended",
        [
            (&[("direction", "from_clients")] as &Labels, traffic.from_clients),
            (&[("direction", "to_clients")], traffic.to_clients),
        ],
    )?;
    let count = traffic.added.iter().map(|(_, count)| count).sum();
    encoder
        .encode_descriptor(
            "kaudit_gateway_added_latency_seconds",
            "Time until the answer's head beyond what the cluster took for it",
            None,
            MetricType::Histogram,
        )?
        .encode_histogram::<NoLabelSet>(traffic.added_seconds, count, &traffic.added, None)?;
    let Some(unwritten) = &source.unwritten else {
        return Ok(());
    };
    family(
        encoder,
        "kaudit_gateway_access_log_lost",
        "Requests that the access log lacks, by reason",
        [
            (&[("reason", "behind")] as &Labels, traffic.unlogged),
            (&[("reason", "write")], unwritten.load(Ordering::Relaxed)),
        ],
    )
}

/// Source of the names: k8s.io/apiserver pkg/audit/metrics.go.
fn audit(gateway: &Gateway, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let audit = gateway.audit_metrics();
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
            (&[("by", "timeout")], audit.timeouts),
        ],
    )
}

fn bodies(gateway: &Gateway, unprintable_at_sinks: u64, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let audit = gateway.audit_metrics();
    family(
        encoder,
        "kaudit_audit_bodies_left_out",
        "Bodies that events lack, by reason",
        [
            (&[("reason", "over_limit")] as &Labels, audit.bodies_over_limit),
            (&[("reason", "over_budget")], audit.bodies_over_budget),
            (
                &[("reason", "unprintable")],
                audit.bodies_unprintable + unprintable_at_sinks,
            ),
        ],
    )
}

fn forwarding(gateway: &Gateway, upstream: &Upstream, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let gateway = gateway.metrics();
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
            (&[("reason", "timeout")], gateway.unanswered),
            (&[("reason", "redirect")], gateway.refused_redirects),
            (&[("reason", "path")], gateway.refused_paths),
            (&[("reason", "identity")], gateway.identity_failures),
            (&[("reason", "own_credential")], gateway.own_refused),
            (&[("reason", "in_flight")], gateway.over_in_flight),
            (&[("reason", "stalled_body")], gateway.stalled_bodies),
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
    let upstream = upstream.metrics();
    counter(
        encoder,
        "kaudit_gateway_upstream_connections_opened",
        "Connections opened to the cluster",
        upstream.opened,
    )?;
    counter(
        encoder,
        "kaudit_gateway_upstream_connections_reused",
        "Requests that found a connection to the cluster",
        upstream.reused,
    )?;
    gauge(
        encoder,
        "kaudit_gateway_upstream_connections_idle",
        "HTTP/1.1 connections to the cluster that are idle",
        upstream.idle,
    )?;
    gauge(
        encoder,
        "kaudit_gateway_upstream_connections_http2",
        "HTTP/2 connections to the cluster that take requests",
        upstream.http2,
    )?;
    gauge(
        encoder,
        "kaudit_gateway_upstream_streams",
        "Streams of these connections that are open",
        upstream.streams,
    )?;
    counter(
        encoder,
        "kaudit_gateway_upstream_retried",
        "Requests sent once more: refused unprocessed, or safe and their connection broke",
        upstream.retried,
    )?;
    counter(
        encoder,
        "kaudit_gateway_upstream_full",
        "Requests refused because every connection to the cluster was taken",
        upstream.full,
    )
}

/// What each of the cluster's servers is sent, and whether it takes it.
fn servers(upstream: &Upstream, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let servers = upstream.servers();
    by_server(
        encoder,
        "kaudit_gateway_upstream_server_requests",
        "Requests sent to each server of the cluster, attempts counted each",
        Kind::Counter,
        servers.iter().map(|server| (server, server.requests)),
    )?;
    by_server(
        encoder,
        "kaudit_gateway_upstream_server_connect_failures",
        "Connections to each server that could not be made",
        Kind::Counter,
        servers.iter().map(|server| (server, server.connect_failures)),
    )?;
    by_server(
        encoder,
        "kaudit_gateway_upstream_server_up",
        "Whether each server is given requests: 1, or 0 while it is aside",
        Kind::Gauge,
        servers
            .iter()
            .map(|server| (server, u64::from(server.aside.is_none()))),
    )?;
    by_server(
        encoder,
        "kaudit_gateway_upstream_server_connections",
        "Connections to each server that take requests",
        Kind::Gauge,
        servers.iter().map(|server| (server, server.connections)),
    )?;
    by_server(
        encoder,
        "kaudit_gateway_upstream_server_in_flight",
        "Requests under way at each server, watches and sessions included",
        Kind::Gauge,
        servers.iter().map(|server| (server, server.in_flight)),
    )
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

fn by_server<'s>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: Kind,
    values: impl Iterator<Item = (&'s ServerMetrics, u64)>,
) -> fmt::Result {
    let metric_type = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
    for (server, value) in values {
        let labels = [("server", server.server.as_str())];
        let value_of = metric.encode_family(&labels)?;
        match kind {
            Kind::Counter => ConstCounter::new(value).encode(value_of)?,
            Kind::Gauge => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(value_of)?,
        }
    }
    Ok(())
}

fn reviews(gateway: &Gateway, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let gateway = gateway.metrics();
    family(
        encoder,
        "kaudit_gateway_certificate_identities",
        "Requests whose user a client certificate or a front proxy named",
        [
            (&[("by", "certificate")] as &Labels, gateway.identity_certificates),
            (&[("by", "front_proxy")], gateway.identity_front_proxy),
        ],
    )?;
    family(
        encoder,
        "kaudit_gateway_reviews",
        "Questions about identity and decision: answered from memory, asked of the cluster, failed, not asked",
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
            (
                &[("about", "decision"), ("result", "over_budget")],
                gateway.decision_over_budget,
            ),
        ],
    )
}
