//! Latency annotations of slow requests.
//!
//! Source: k8s.io/apiserver pkg/endpoints/request/webhook_duration.go.

use std::time::Duration;

/// Only requests that took longer are annotated.
pub(crate) const THRESHOLD: Duration = Duration::from_millis(500);

/// Time spent in parts of the chain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trackers {
    pub(crate) authentication: Duration,
    pub(crate) impersonation: Duration,
    pub(crate) authorization: Duration,
    pub(crate) response_write: Duration,
}

impl Trackers {
    /// The annotations of a request that took `total`, if it was slow and anything was tracked.
    pub(crate) fn annotations(&self, total: Duration) -> Vec<(&'static str, String)> {
        let tracked = [
            ("apiserver.latency.k8s.io/authentication", self.authentication),
            ("apiserver.latency.k8s.io/authorization", self.authorization),
            ("apiserver.latency.k8s.io/impersonation", self.impersonation),
            ("apiserver.latency.k8s.io/response-write", self.response_write),
        ];
        if total <= THRESHOLD || tracked.iter().all(|(_, spent)| spent.is_zero()) {
            return Vec::new();
        }
        tracked
            .into_iter()
            .chain([("apiserver.latency.k8s.io/total", total)])
            .filter(|(_, spent)| !spent.is_zero())
            .map(|(key, spent)| (key, go_duration(spent)))
            .collect()
    }
}

/// Go's text of a duration: the largest unit below a second that fits, hours to seconds from there on.
pub(crate) fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let scaled = |unit: u128, name: &str| {
        let fraction = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}{name}", nanos / unit)
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => scaled(1_000, "µs"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        _ => {
            let total = duration.as_secs();
            let rest = Duration::new(total % 60, duration.subsec_nanos());
            let seconds = match rest.as_nanos() {
                0 => "0s".to_owned(),
                nanos => {
                    let fraction = format!("{:09}", nanos % 1_000_000_000);
                    let fraction = fraction.trim_end_matches('0');
                    let dot = if fraction.is_empty() { "" } else { "." };
                    format!("{}{dot}{fraction}s", nanos / 1_000_000_000)
                }
            };
            match (total / 3600, total / 60 % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanos, expected) in [
            (600_920_687, "600.920687ms"),
            (2_654, "2.654µs"),
            (7, "7ns"),
            (1_500_000_000, "1.5s"),
            (60_250_000_000, "1m0.25s"),
            (3_603_000_000_000, "1h0m3s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), expected);
        }
    }
}
