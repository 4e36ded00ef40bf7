//! Any text as a filter: it is read or refused, never more; what was read prints as itself, and means the
//! same of an event, of its line, and to a search for needles.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use kaudit_event::{DecodedEvent, MicroTime};
use kaudit_query::{Filter, LineMatch, MAX_TEXT_BYTES, Row, complete};
use libfuzzer_sys::fuzz_target;

const NOW: MicroTime = MicroTime::from_unix(1_795_446_000, 0);

const LINES: [&str; 2] = [
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/n/pods/p/exec?command=sh\u0026command=-c","verb":"create","user":{"username":"alice","groups":["devs","system:authenticated"],"extra":{"k":["v"]}},"impersonatedUser":{"username":"bob"},"sourceIPs":["203.0.113.7","10.3.4.9"],"userAgent":"kubectl/v1.36.3","objectRef":{"resource":"pods","namespace":"n","name":"p","apiVersion":"v1","subresource":"exec"},"responseStatus":{"metadata":{},"message":"\"no\"","reason":"Forbidden","code":403},"requestObject":{"spec":{"containers":[{"image":"nginx:latest"}]}},"requestReceivedTimestamp":"2026-11-23T14:02:10.000000Z","stageTimestamp":"2026-11-23T14:02:11.482913Z","annotations":{"authorization.k8s.io/decision":"forbid"}}"#,
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"","stage":"RequestReceived","requestURI":"/","verb":"get","user":{},"requestReceivedTimestamp":null,"stageTimestamp":"2026-11-23T14:02:11.482913Z"}"#,
];

static EVENTS: LazyLock<Vec<DecodedEvent>> = LazyLock::new(|| {
    LINES
        .iter()
        .map(|line| DecodedEvent::parse(Bytes::from_static(line.as_bytes())).expect("the lines are events"))
        .collect()
});

fuzz_target!(|text: &[u8]| {
    let text = String::from_utf8_lossy(text);
    let completions = complete(&text, text.len() / 2);
    assert!(
        text.get(completions.replaces).is_some(),
        "a completion replaces whole characters"
    );
    let filter = match Filter::parse(&text, NOW) {
        Ok(filter) => filter,
        Err(errors) => {
            assert!(!errors.is_empty(), "a refusal has a reason");
            for error in errors {
                assert!(text.get(error.span).is_some(), "a span covers whole characters");
                assert!(error.fix.is_none_or(|fix| text.get(fix.span).is_some()));
            }
            return;
        }
    };
    let printed = filter.to_string();
    if printed.len() <= MAX_TEXT_BYTES {
        assert_eq!(
            Filter::parse(&printed, NOW).as_ref(),
            Ok(&filter),
            "printed {printed}"
        );
    }
    let for_lines = filter.for_lines();
    let needles = filter.needles();
    for event in EVENTS.iter() {
        let holds = filter.matches(&Row::of(event.view()));
        if let Some(answer) = for_lines.as_ref().map(|lines| lines.matches(event.text())) {
            assert!(answer == LineMatch::from(holds) || answer == LineMatch::Undecided);
        }
        if let Some(needles) = &needles {
            assert!(!holds || needles.may_match(event.text()));
        }
    }
});
