//! What a demo collects of itself.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::dev::Dev;

/// The program, asked about the demo.
fn ask(dev: &Dev, verb: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(["source", verb, "--server", &dev.ready["api"]])
        .arg("--token-file")
        .arg(format!("{}/token", dev.ready["data"]))
        .args(arguments)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
    )
}

#[test]
fn the_demo_keeps_what_the_gateway_and_the_api_server_record() {
    let dev = Dev::start(&[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let seen = loop {
        let (_, answer) = ask(&dev, "list", &["--output", "json"]);
        let sources: Value = serde_json::from_str(&answer).unwrap();
        let events = |transport: &str| {
            let items = sources["items"].as_array().unwrap().iter();
            let of = items.filter(|row| row["transport"] == transport && row["cluster"] == "dev");
            of.map(|row| row["events"].as_u64().unwrap()).sum::<u64>()
        };
        if events("gateway") > 0 && events("webhook") > 0 {
            break sources;
        }
        assert!(Instant::now() < deadline, "{answer}");
        std::thread::park_timeout(Duration::from_millis(100));
    };
    assert_eq!(seen["journal"]["state"], "ready");
    assert!(seen["journal"]["records"].as_u64().unwrap() > 0);
    let (code, table) = ask(&dev, "list", &[]);
    assert_eq!(code, Some(0), "{table}");
    assert!(table.starts_with("SOURCE "), "{table}");
    let (code, text) = ask(&dev, "status", &["dev/sandbox"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("dev/sandbox by webhook\n"), "{text}");
    assert!(!text.contains("dev/gateway"), "{text}");
}
