//! Start and stop.

use std::collections::BTreeSet;

use crate::dev::{Dev, events};

#[test]
fn an_interrupt_ends_the_demo_cleanly_with_every_final_event_written() {
    let dev = Dev::start(&[]);
    let path = dev.path("gateway-audit.log");
    // The traffic has begun when the log holds events of several users.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::fs::read(&path).map_or(0, |log| log.len()) < 20_000 {
        assert!(std::time::Instant::now() < deadline, "the demo makes no traffic");
        std::thread::yield_now();
    }
    let (status, _dir) = dev.interrupt();
    assert!(status.success(), "{status}");

    let log = events(&path);
    let of = |stages: &[&str]| -> BTreeSet<String> {
        log.iter()
            .filter(|event| stages.contains(&event["stage"].as_str().unwrap()))
            .map(|event| event["auditID"].as_str().unwrap().to_owned())
            .collect()
    };
    let received = of(&["RequestReceived"]);
    assert!(
        received.len() > 5,
        "only {} requests were recorded from their beginning",
        received.len()
    );
    let unfinished: Vec<_> = received
        .difference(&of(&["ResponseComplete", "Panic"]))
        .cloned()
        .collect();
    assert!(unfinished.is_empty(), "without final event: {unfinished:?}");
}

#[test]
fn the_ready_line_has_every_key() {
    let dev = Dev::start(&["--no-traffic"]);
    for key in [
        "api",
        "metrics",
        "sandbox",
        "gateway",
        "collector",
        "kubeconfig",
        "data",
    ] {
        assert!(dev.ready.contains_key(key), "{key} is missing in {:?}", dev.ready);
    }
    assert!(std::path::Path::new(&dev.ready["kubeconfig"]).exists());
}
