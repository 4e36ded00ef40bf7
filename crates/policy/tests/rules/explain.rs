//! Explanations as sentences.

use kaudit_event::UserInfo;
use kaudit_policy::{Attributes, Policy};

const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: [bob]
- level: None
  userGroups: [ops, sre]
- level: None
  verbs: [watch]
- level: None
  namespaces: [kube-system]
- level: None
  resources:
  - group: apps
- level: None
  resources:
  - group: \"\"
    resources: [pods, secrets]
- level: None
  resources:
  - group: \"\"
    resources: [pods/log]
    resourceNames: [db]
- level: None
  nonResourceURLs: [/healthz]
- level: Metadata
";

#[test]
fn each_rule_tells_the_first_condition_that_failed() {
    let (policy, _) = Policy::parse(POLICY.as_bytes()).unwrap();
    let alice = UserInfo {
        username: "alice".to_owned().into(),
        groups: Some(vec!["dev".to_owned().into()]),
        ..UserInfo::default()
    };
    let log = Attributes {
        user: Some(&alice),
        verb: b"get",
        is_resource_request: true,
        api_group: b"",
        api_version: b"v1",
        resource: b"pods",
        subresource: b"log",
        namespace: b"prod",
        name: b"web",
        path: b"/api/v1/namespaces/prod/pods/web/log",
    };
    let explanation = policy.explain(&log);
    let lines: Vec<String> = explanation
        .passed_over
        .iter()
        .map(|passed| {
            format!(
                "{}:{} {}: {}",
                passed.rule,
                passed.at.line,
                passed.condition.as_str(),
                passed.message
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "0:5 users: user \"alice\" is not \"bob\"",
            "1:7 userGroups: group \"dev\" is not one of \"ops\", \"sre\"",
            "2:9 verbs: verb \"get\" is not \"watch\"",
            "3:11 namespaces: namespace \"prod\" is not \"kube-system\"",
            "4:14 resources: API group \"\" is not \"apps\"",
            "5:17 resources: resource \"pods/log\" is not one of \"pods\", \"secrets\"",
            "6:21 resources: name \"web\" is not \"db\"",
            "7:25 nonResourceURLs: the request is about a resource, the rule about other paths",
        ]
    );
    assert_eq!(explanation.config.rule, Some(8));
    assert_eq!(explanation.at.unwrap().line, 26);
}

#[test]
fn a_request_that_no_rule_matches_is_at_level_none() {
    let document = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n  users: [bob]\n";
    let (policy, _) = Policy::parse(document.as_bytes()).unwrap();
    let asked = Attributes {
        user: None,
        verb: b"get",
        is_resource_request: false,
        api_group: b"",
        api_version: b"",
        resource: b"",
        subresource: b"",
        namespace: b"",
        name: b"",
        path: b"/healthz",
    };
    let explanation = policy.explain(&asked);
    assert_eq!(explanation.config.level, kaudit_event::Level::None);
    assert_eq!(explanation.config.rule, None);
    assert_eq!(
        explanation.passed_over[0].message,
        "the request has no authenticated user, the rule is about \"bob\""
    );
}
