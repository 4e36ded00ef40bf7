//! What a scraper reads.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::dev::Dev;

/// The body of a GET from a plain HTTP address.
fn get(address: &str, path: &str) -> String {
    let host = address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    body.to_owned()
}

/// Samples by family, as OpenMetrics 1.0 wants them: a family's lines stand together, behind its type.
fn parse(text: &str) -> BTreeMap<String, Vec<(String, f64)>> {
    let mut families: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(lines.peek().is_none(), "something follows the end");
            return families;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!families.contains_key(name), "{name} comes twice");
            families.insert(name.to_owned(), Vec::new());
            current = Some((name.to_owned(), kind.to_owned()));
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("labels end")),
            None => (series, ""),
        };
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once("=\"").expect("a label has a quoted value");
            assert!(
                key.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
                "{line}"
            );
            assert!(!value.trim_end_matches('"').contains('"'), "{line}");
        }
        let (family, kind) = current.as_ref().expect("a type comes first");
        let endings: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "histogram" => &["_sum", "_count", "_bucket"],
            _ => &[""],
        };
        assert!(
            endings.iter().any(|ending| name == format!("{family}{ending}")),
            "{line}"
        );
        // The parts of a histogram are told apart by their names.
        let labels = if kind == "histogram" { series } else { labels };
        let samples = families.get_mut(family).unwrap();
        assert!(
            samples.iter().all(|(known, _)| known != labels),
            "{line} comes twice"
        );
        samples.push((labels.to_owned(), value.parse().unwrap()));
    }
    panic!("there is no end")
}

#[test]
fn a_scrape_has_upstreams_metrics_and_ours_and_health_names_the_sinks() {
    let dev = Dev::start(&["--no-traffic"]);
    let families = parse(&get(&dev.ready["metrics"], "/metrics"));
    for name in [
        "apiserver_audit_event",
        "apiserver_audit_error",
        "apiserver_audit_level",
        "apiserver_audit_requests_rejected",
        "kaudit_audit_events_lost",
        "kaudit_sink_queued_events",
        "kaudit_webhook_failed_attempts",
        "kaudit_reloads",
        "kaudit_gateway_upstream_server_connect_failures",
    ] {
        assert!(families.contains_key(name), "{name} is missing");
    }
    let levels: Vec<&str> = families["apiserver_audit_level"]
        .iter()
        .map(|(labels, _)| labels.as_str())
        .collect();
    assert_eq!(
        levels,
        [
            "level=\"None\"",
            "level=\"Metadata\"",
            "level=\"Request\"",
            "level=\"RequestResponse\""
        ]
    );
    let up = &families["kaudit_gateway_upstream_server_up"];
    assert!(up[0].0.starts_with("server=\"https://127.0.0.1:"), "{up:?}");
    assert_eq!((up.len(), up[0].1), (1, 1.0));
    assert_eq!(get(&dev.ready["metrics"], "/livez"), "ok\n");
    let verbose = get(&dev.ready["metrics"], "/readyz?verbose");
    for line in [
        "[+]sink/log active ignoreErrors<log>\n",
        "[+]sink/journal active journal\n",
        "[+]journal ready\n",
        " takes requests\n",
        "[+]source/dev/gateway gateway ",
    ] {
        assert!(verbose.contains(line), "{line} is not in {verbose}");
    }
    assert!(verbose.ends_with("\nok\n"), "{verbose}");
}
