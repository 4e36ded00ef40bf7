//! Any text as a policy: it loads or is refused; what loads can be explained, linted and formatted, and
//! means the same afterwards.

#![no_main]

use kaudit_event::UserInfo;
use kaudit_policy::{Attributes, Policy, Severity, format, lint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    // A tag that a comma ends panics in the YAML parser; the policy crate catches it, libFuzzer does not.
    let may_panic = |line: &[u8]| {
        line.iter()
            .position(|byte| *byte == b'!')
            .is_some_and(|at| line[at..].contains(&b','))
    };
    if document.split(|byte| *byte == b'\n').any(may_panic) {
        return;
    }
    let findings = lint(document);
    let refused = findings
        .iter()
        .any(|finding| finding.code.severity() == Severity::Error);
    let formatted = format(document);
    if let Ok(text) = &formatted {
        let again = format(text.as_bytes()).expect("what was formatted can be formatted");
        assert_eq!(&again, text, "formatting twice");
    }
    let Ok((policy, _)) = Policy::parse(document) else {
        assert!(refused, "refused without a finding");
        return;
    };
    assert!(!refused, "loaded, with an error: {findings:?}");
    let after = formatted.ok().map(|text| {
        Policy::parse(text.as_bytes())
            .expect("what loads does after formatting")
            .0
    });
    let user = UserInfo {
        username: "alice".to_owned().into(),
        groups: Some(vec!["dev".to_owned().into()]),
        ..UserInfo::default()
    };
    for (resource, subresource) in [("pods", ""), ("pods", "log"), ("secrets", "")] {
        for is_resource_request in [true, false] {
            let asked = Attributes {
                user: Some(&user),
                verb: b"get",
                is_resource_request,
                api_group: b"",
                api_version: b"v1",
                resource: resource.as_bytes(),
                subresource: subresource.as_bytes(),
                namespace: b"default",
                name: b"web",
                path: b"/healthz",
            };
            let answer = policy.evaluate(&asked);
            let explanation = policy.explain(&asked);
            assert_eq!(explanation.config, answer);
            let passed = answer.rule.unwrap_or(policy.rules().len());
            assert_eq!(explanation.passed_over.len(), passed, "{answer:?}");
            if let Some(after) = &after {
                assert_eq!(after.evaluate(&asked), answer, "after formatting");
            }
        }
    }
});
