//! Events to bytes, compared with what upstream's encoder wrote.

use crate::description::{cases, event};
use base64::prelude::{BASE64_STANDARD, Engine};

#[test]
fn vector_event_encode() {
    let cases = cases("event-encode.jsonl");
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let event = event(&case["event"]);
        let mut json = Vec::new();
        let outcome = event.write_json_line(&mut json);
        match (outcome, case["ok"].as_bool().unwrap()) {
            (Ok(()), true) if json == decode(&case["json_b64"]) => {}
            (Err(error), false) if error.to_string() == case["json_error"] && json.is_empty() => {
                let (printable, left_out) = event.without_unprintable_bodies().unwrap();
                assert!(!left_out.is_empty());
                printable.write_json_line(&mut json).unwrap();
            }
            (outcome, _) => wrong.push(format!(
                "{id}: {outcome:?}\n  ours   {}\n  theirs {}{}",
                String::from_utf8_lossy(&json),
                String::from_utf8_lossy(&decode(&case["json_b64"])),
                case["json_error"]
            )),
        }
        let mut legacy = Vec::new();
        event.write_legacy_line(&mut legacy);
        if legacy != decode(&case["legacy_b64"]) {
            wrong.push(format!(
                "{id}: legacy\n  ours   {}\n  theirs {}",
                String::from_utf8_lossy(&legacy),
                String::from_utf8_lossy(&decode(&case["legacy_b64"]))
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

fn decode(value: &serde_json::Value) -> Vec<u8> {
    BASE64_STANDARD
        .decode(value.as_str().unwrap_or_default())
        .unwrap()
}
