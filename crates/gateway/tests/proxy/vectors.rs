//! T12, T13, T17: requests whose reading by Go's server was recorded, as bytes through the gateway.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use crate::corpus::{Case, play};

fn cases() -> Vec<Value> {
    let folder = std::env::var_os("KAUDIT_VECTORS").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors").into(),
        std::path::PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join("request-info.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The target of a request line.
fn target(request: &[u8]) -> Vec<u8> {
    let line = request.split(|byte| *byte == b'\r').next().unwrap();
    let begin = line.iter().position(|byte| *byte == b' ').unwrap() + 1;
    let end = line.iter().rposition(|byte| *byte == b' ').unwrap();
    line[begin..end].to_vec()
}

/// Why the gateway may refuse what Go takes; `None` where it may not.
fn reason(target: &[u8], code: u16, is_audited: bool) -> Option<&'static str> {
    let has = |bytes: &[u8]| target.iter().any(|byte| bytes.contains(byte));
    let is_odd = |byte: &u8| !byte.is_ascii_graphic();
    match (code, is_audited) {
        (400, true) => Some("the path can be read in several ways"),
        (400, false) if has(b"<>^`{|}\\\"") || target.iter().any(is_odd) => {
            Some("the HTTP library refuses its bytes")
        }
        (400, false) if target.contains(&b'%') => Some("the HTTP library refuses its bytes"),
        (400, false) if !target.starts_with(b"/") => Some("it is for another server, or for none"),
        _ => None,
    }
}

#[tokio::test]
async fn t13_t17_what_go_refuses_is_refused_and_what_it_takes_is_forwarded_byte_for_byte() {
    let (mut wrong, mut forwarded, mut refused) = (Vec::new(), 0, 0);
    for case in cases() {
        let id = case["id"].as_str().unwrap();
        let raw = BASE64_STANDARD.decode(case["raw_b64"].as_str().unwrap()).unwrap();
        let sent = target(&raw);
        // Go takes CONNECT to a path.
        let is_connect = raw.starts_with(b"CONNECT ");
        let shown = String::from_utf8_lossy(&sent).into_owned();
        let (outcome, parts, events) = play(&Case::of(id, raw)).await;
        let is_taken = case["server_answer"].is_null();
        let is_right = match &outcome.forwarded[..] {
            _ if !parts.is_empty() => false,
            [] => {
                refused += 1;
                let code = outcome.codes.first().copied().unwrap_or_default();
                // kube-apiserver cannot read its path and answers 500 itself.
                let is_error = code == 500 && !case["error"].is_null();
                !is_taken || is_error || is_connect || reason(&sent, code, !events.is_empty()).is_some()
            }
            [request] => {
                forwarded += 1;
                // What follows a `#` never gets as far as the gateway, and of an absolute target the path goes on.
                let whole = sent.split(|byte| *byte == b'#').next().unwrap();
                let is_same = whole.ends_with(&target(request))
                    && (whole == target(request) || !whole.starts_with(b"/"));
                let uri = &events[0]["requestURI"];
                let is_told = whole.len() < sent.len() || *uri == case["audit_request_uri"];
                is_taken && is_same && is_told && outcome.events.len() == 1
            }
            _ => false,
        };
        if !is_right {
            wrong.push(format!(
                "{id}: `{shown}`: {outcome:?} {}",
                case["audit_request_uri"]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        forwarded > 2 * refused,
        "{forwarded} forwarded, {refused} refused"
    );
}
