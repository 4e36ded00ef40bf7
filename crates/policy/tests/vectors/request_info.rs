//! Request targets and RequestInfo.

use base64::prelude::{BASE64_STANDARD, Engine};
use kaudit_policy::{LongRunning, RequestInfo, RequestInfoResolver, RequestTarget};
use serde_json::Value;

use crate::cases::{bytes, cases, report};

fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// Compares one field and notes a difference.
fn compare(wrong: &mut Vec<String>, id: &str, field: &str, ours: &[u8], theirs: &Value) {
    let theirs = bytes(theirs);
    if ours != theirs {
        wrong.push(format!(
            "{id} {field}: ours `{}`, theirs `{}`",
            shown(ours),
            shown(&theirs)
        ));
    }
}

fn compare_info(wrong: &mut Vec<String>, id: &str, info: &RequestInfo, theirs: &Value) {
    for (field, ours) in [
        ("path", info.path()),
        ("verb", info.verb()),
        ("apiPrefix", info.api_prefix()),
        ("apiGroup", info.api_group()),
        ("apiVersion", info.api_version()),
        ("namespace", info.namespace()),
        ("resource", info.resource()),
        ("subresource", info.subresource()),
        ("name", info.name()),
        ("fieldSelector", info.field_selector()),
        ("labelSelector", info.label_selector()),
    ] {
        compare(wrong, id, field, ours, &theirs[field]);
    }
    if Value::Bool(info.is_resource_request()) != theirs["isResourceRequest"] {
        wrong.push(format!(
            "{id} isResourceRequest: ours {}",
            info.is_resource_request()
        ));
    }
    let parts = info
        .parts()
        .map(|parts| parts.map(<[u8]>::to_vec).collect::<Vec<_>>());
    let expected = theirs["parts"]
        .as_array()
        .map(|parts| parts.iter().map(bytes).collect::<Vec<_>>());
    if parts != expected {
        wrong.push(format!("{id} parts: ours {parts:?}, theirs {expected:?}"));
    }
}

/// The request line's target, from the bytes that were sent.
fn raw_target(case: &Value) -> Vec<u8> {
    let raw = BASE64_STANDARD.decode(case["raw_b64"].as_str().unwrap()).unwrap();
    let line = raw.split(|byte| *byte == b'\r').next().unwrap();
    let start = line.iter().position(|byte| *byte == b' ').unwrap() + 1;
    let end = line.iter().rposition(|byte| *byte == b' ').unwrap();
    line[start..end].to_vec()
}

/// What Go's server answers by itself for a reason that is in the request line's version or in the
/// headers: the target alone does not tell.
fn is_answered_for_another_reason(case: &Value) -> bool {
    let answer = case["server_answer"]["body"].as_str().unwrap();
    answer.contains("missing required Host header")
        || answer.contains("HTTP Version Not Supported")
        || case["method"] == "OPTIONS" && case["target"] == "*"
        || !matches!(case["note"].as_str(), None | Some("space in target"))
}

#[test]
fn t11_vector_request_info() {
    hold(|_, _| true);
}

#[test]
fn t12_the_uri_of_a_request_is_written_as_go_writes_it() {
    hold(|target, _| {
        let has_other_bytes = target
            .iter()
            .any(|byte| !byte.is_ascii_graphic() || b"\"<>^`{|}".contains(byte));
        has_other_bytes || target.ends_with(b"?") || target.starts_with(b"http")
    });
}

#[test]
fn t13_what_gos_server_answers_itself_is_no_request() {
    hold(|_, case| !case["server_answer"].is_null());
}

#[test]
fn t14_a_session_is_one_in_every_spelling() {
    hold(|_, case| {
        let subresource = bytes(&case["info"]["subresource"]);
        case["long_running"] == true && subresource == b"exec"
    });
    let resolver = RequestInfoResolver::default();
    let pod = "/api/v1/namespaces/n/pods/x/";
    for rest in [
        "exec",
        "exec/",
        "exec//",
        "exec?command=a;command=b",
        "%65xec",
        "ex%65c/?a",
    ] {
        for (method, verb) in [("POST", &b"create"[..]), ("GET", b"get")] {
            let target = RequestTarget::parse(method.as_bytes(), format!("{pod}{rest}").as_bytes()).unwrap();
            let info = resolver.resolve(method.as_bytes(), &target).unwrap();
            let told = (info.verb(), info.name(), info.subresource());
            assert_eq!(told, (verb, &b"x"[..], &b"exec"[..]), "{rest}");
            assert!(LongRunning::KubeApiserver.matches(&info), "{rest}");
        }
    }
}

#[test]
fn t15_queries_are_read_as_go_reads_them() {
    let of = |part: &'static [u8]| move |target: &[u8], _: &Value| has(target, part);
    hold(of(b"watch="));
    hold(of(b";"));
    hold(of(b"limit="));
    hold(of(b"x=%zz"));
}

#[test]
fn t16_a_field_selector_names_the_object() {
    hold(|target, _| has(target, b"fieldSelector=metadata.name"));
}

fn has(target: &[u8], part: &[u8]) -> bool {
    target.windows(part.len()).any(|window| window == part)
}

/// Holds what is read of a request to what Go's packages read of it, in some of the cases.
fn hold(which: impl Fn(&[u8], &Value) -> bool) {
    let resolver = RequestInfoResolver::default();
    let cases: Vec<Value> = cases("request-info.jsonl")
        .into_iter()
        .filter(|case| which(&raw_target(case), case))
        .collect();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    let mut skipped = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let method = bytes(&case["method"]);
        let parsed = RequestTarget::parse(&method, &raw_target(case));
        if !case["server_answer"].is_null() {
            if parsed.is_ok() {
                if is_answered_for_another_reason(case) {
                    skipped.push(format!("{id}: {}", case["server_answer"]["body"]));
                } else {
                    wrong.push(format!(
                        "{id}: `{}` {:?} was accepted",
                        shown(&raw_target(case)),
                        case["note"]
                    ));
                }
            }
            continue;
        }
        let target = match parsed {
            Ok(target) => target,
            Err(error) => {
                wrong.push(format!(
                    "{id}: `{}` was refused: {error}",
                    shown(&raw_target(case))
                ));
                continue;
            }
        };
        let http = &case["http"];
        compare(&mut wrong, id, "http.path", &target.path, &http["path"]);
        compare(&mut wrong, id, "http.rawPath", &target.raw_path, &http["rawPath"]);
        compare(
            &mut wrong,
            id,
            "http.rawQuery",
            &target.raw_query,
            &http["rawQuery"],
        );
        compare(
            &mut wrong,
            id,
            "audit_request_uri",
            &target.request_uri(),
            &case["audit_request_uri"],
        );
        if Value::Bool(target.force_query) != http["forceQuery"] {
            wrong.push(format!("{id} forceQuery: ours {}", target.force_query));
        }
        match resolver.resolve(&method, &target) {
            Ok(info) if !case["info"].is_null() => {
                compare_info(&mut wrong, id, &info, &case["info"]);
                if Value::Bool(LongRunning::KubeApiserver.matches(&info)) != case["long_running"] {
                    wrong.push(format!("{id} long_running"));
                }
            }
            Err(error) if case["error"] == error.message => {}
            other => wrong.push(format!(
                "{id}: ours {other:?}, theirs {} {}",
                case["error"], case["info"]
            )),
        }
    }
    report(&wrong, cases.len());
    // Of those that Go's server answers, most are told from the target.
    assert!(
        skipped.len() * 50 < cases.len() || skipped.len() * 2 < cases.len() && skipped.len() < 20,
        "too many cases are not about the target: {skipped:#?}"
    );
}
