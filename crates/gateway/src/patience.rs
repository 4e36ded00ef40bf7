//! How long the cluster may take to begin an answer.

use std::time::Duration;

use kaudit_policy::{LongRunning, RequestInfo};

use crate::upload::Findings;

/// Longer than kube-apiserver takes for a short request or for opening a watch, so that whoever takes longer is not
/// working but gone.
pub(crate) const DEFAULT: Duration = Duration::from_secs(90);

/// The audit chain ends short requests after this time, or after the shorter one that the client asked for.
const CHAIN_LIMIT: Duration = Duration::from_secs(60);

/// The time for the head of an answer; `None` where there is no limit, or the chain's comes first.
///
/// What is long-running may begin as late as it likes: the log of a silent container and another server behind
/// `/proxy/` send no head before they have something to say, and sessions wait for somebody at the other end. A watch is
/// the exception: its head comes when it is opened.
pub(crate) fn limit(configured: Duration, info: &RequestInfo, is_upgrade: bool) -> Option<Duration> {
    let is_short = !LongRunning::default().matches(info);
    let is_watch = info.verb() == b"watch" && info.subresource().is_empty();
    if is_upgrade || !(is_short || is_watch) || (is_short && configured >= CHAIN_LIMIT) {
        return None;
    }
    Some(configured)
}

/// Ready when the time is up. It begins when the cluster has the whole request: until then the client takes it.
pub(crate) async fn run_out(limit: Option<Duration>, findings: &Findings) -> Duration {
    match limit {
        Some(limit) => {
            findings.is_over().await;
            tokio::time::sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use kaudit_policy::{RequestInfoResolver, RequestTarget};

    use super::*;

    #[test]
    fn short_requests_and_watches_have_a_limit_and_what_may_begin_late_has_none() {
        let is_limited = |method: &str, target: &str, seconds: u64, is_upgrade: bool| {
            let target = RequestTarget::parse(method.as_bytes(), target.as_bytes()).unwrap();
            let info = RequestInfoResolver::default()
                .resolve(method.as_bytes(), &target)
                .unwrap();
            limit(Duration::from_secs(seconds), &info, is_upgrade).is_some()
        };
        let pods = "/api/v1/namespaces/n/pods";
        let of = |rest: &str| format!("{pods}{rest}");
        assert!(is_limited("GET", &of("?watch=1"), 90, false));
        assert!(is_limited("GET", "/api/v1/watch/pods", 90, false));
        for (method, target) in [("GET", of("")), ("POST", of("")), ("GET", "/version".to_owned())] {
            assert!(is_limited(method, &target, 20, false), "{target}");
            assert!(
                !is_limited(method, &target, 90, false),
                "the chain's limit comes first: {target}"
            );
        }
        for rest in [
            "/p/log?follow=1",
            "/p/exec",
            "/p/attach",
            "/p/portforward",
            "/p/proxy/x?watch=1",
        ] {
            assert!(!is_limited("GET", &of(rest), 1, false), "{rest}");
        }
        assert!(!is_limited("GET", &of("/p"), 1, true));
    }
}
