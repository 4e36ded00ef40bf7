//! Findings: each with a policy that has it and one that has not.

use kaudit_policy::{Finding, LintCode, Severity, lint};

fn findings(rules: &str) -> Vec<Finding> {
    lint(
        format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n{rules}")
            .as_bytes(),
    )
}

fn codes(rules: &str) -> Vec<&'static str> {
    findings(rules)
        .into_iter()
        .map(|finding| finding.code.as_str())
        .collect()
}

/// The only finding of this code.
#[track_caller]
fn only(code: LintCode, rules: &str) -> Finding {
    let all = findings(rules);
    let of_code: Vec<&Finding> = all.iter().filter(|finding| finding.code == code).collect();
    assert_eq!(of_code.len(), 1, "{all:#?}");
    of_code[0].clone()
}

#[track_caller]
fn none(code: LintCode, rules: &str) {
    let all = findings(rules);
    assert!(all.iter().all(|finding| finding.code != code), "{all:#?}");
}

#[test]
fn metadata_for_everything_is_clean() {
    assert_eq!(codes("- level: Metadata\n"), [""; 0]);
}

#[test]
fn codes_are_unique_and_explained() {
    let mut names: Vec<&str> = LintCode::ALL.iter().map(|code| code.as_str()).collect();
    names.dedup();
    assert_eq!(names.len(), LintCode::ALL.len());
    assert!(LintCode::ALL.iter().all(|code| code.explanation().ends_with('.')));
}

#[test]
fn the_documentation_lists_every_code() {
    let documentation = include_str!("../../../../docs/policy.md");
    for code in LintCode::ALL {
        let row = format!("| {code} | {} |", code.severity().as_str());
        assert!(documentation.contains(&row), "{row} is missing in docs/policy.md");
    }
}

#[test]
fn a_document_that_does_not_load_has_an_error_with_its_line() {
    for (document, code, line) in [
        ("a: [", LintCode::Unreadable, 1),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: 3\n",
            LintCode::Unreadable,
            3,
        ),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n",
            LintCode::NotAPolicy,
            3,
        ),
        ("kind: Policy\nrules:\n- level: None\n", LintCode::NotAPolicy, 1),
        (
            "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules:\n- level: None\n",
            LintCode::NotAPolicy,
            2,
        ),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n- level: Metadat\n",
            LintCode::InvalidValue,
            5,
        ),
    ] {
        let findings = lint(document.as_bytes());
        let errors: Vec<&Finding> = findings
            .iter()
            .filter(|finding| finding.code.severity() == Severity::Error)
            .collect();
        assert_eq!(errors.len(), 1, "{document}\n{findings:#?}");
        assert_eq!(
            (errors[0].code, errors[0].at.line),
            (code, line),
            "{document}\n{findings:#?}"
        );
    }
}

#[test]
fn every_invalid_value_is_told_with_the_nearest_valid_one() {
    let findings = findings(
        "- level: metadata\n- level: Request\n  omitStages: [RequestRecieved]\n- level: None\n  nonResourceURLs: [healthz]\n",
    );
    let told: Vec<(usize, Option<&str>)> = findings
        .iter()
        .map(|finding| (finding.at.line, finding.fix.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (5, Some("did you mean Metadata?")),
            (7, Some("did you mean RequestReceived?")),
            (9, Some("write \"/healthz\"")),
        ]
    );
}

#[test]
fn unknown_fields_are_warnings_with_the_field_that_was_meant() {
    let verbs = only(
        LintCode::UnknownField,
        "- level: Metadata\n  resources:\n  - group: \"\"\n    resources: [pods]\n    verbs: [get]\n",
    );
    assert_eq!(verbs.at.line, 9);
    assert!(
        verbs.message.contains("matches more than it says"),
        "{}",
        verbs.message
    );
    assert_eq!(
        verbs.fix.as_deref(),
        Some("indent verbs like the rule's other fields")
    );
    let near = only(LintCode::UnknownField, "- level: Metadata\n  usergroups: [a]\n");
    assert_eq!(near.fix.as_deref(), Some("did you mean userGroups?"));
    assert_eq!(near.path, "rules[0].usergroups");
}

#[test]
fn a_repeated_key_is_told() {
    let finding = only(LintCode::RepeatedField, "- level: Metadata\n  level: None\n");
    assert_eq!(finding.at.line, 6);
}

#[test]
fn an_unreachable_rule_names_what_shadows_it() {
    let finding = only(
        LintCode::Unreachable,
        "- level: Metadata\n- level: Request\n  verbs: [create]\n",
    );
    assert_eq!(finding.at.line, 6);
    assert!(
        finding.message.contains("rules[0] (line 5, Metadata)"),
        "{}",
        finding.message
    );
    let two = only(
        LintCode::Unreachable,
        "- level: Metadata\n  verbs: [get]\n- level: Metadata\n  verbs: [list]\n- level: Request\n  verbs: [get, list]\n- level: Metadata\n",
    );
    assert!(
        two.message.contains("rules[0]") && two.message.contains("rules[1]"),
        "{}",
        two.message
    );
}

#[test]
fn shadowing_knows_the_patterns_of_resources_and_paths() {
    let rule = |group: &str, resources: &str| {
        format!("- level: Metadata\n  resources:\n  - group: {group:?}\n    resources: [{resources}]\n")
    };
    for (earlier, later, shadowed) in [
        (rule("", "pods/*"), rule("", "pods"), true),
        (rule("", "pods/*"), rule("", "pods/log"), true),
        (rule("", "pods"), rule("", "pods/log"), false),
        (rule("", "\"*/log\""), rule("", "pods/log"), true),
        (rule("", "\"*/log\""), rule("", "pods/*"), false),
        (rule("", "\"*\""), rule("", "\"*/log\""), true),
        (rule("*", "pods"), rule("apps", "pods"), true),
        (rule("apps", "pods"), rule("*", "pods"), false),
        (
            "- level: None\n  nonResourceURLs: [\"/api*\"]\n".to_owned(),
            "- level: None\n  nonResourceURLs: [\"/api/v1*\", /apis]\n".to_owned(),
            true,
        ),
        (
            "- level: None\n  nonResourceURLs: [/api]\n".to_owned(),
            "- level: None\n  nonResourceURLs: [\"/api*\"]\n".to_owned(),
            false,
        ),
    ] {
        let found = codes(&format!("{earlier}{later}- level: Metadata\n")).contains(&"KP020");
        assert_eq!(found, shadowed, "{earlier}{later}");
    }
}

#[test]
fn values_that_no_request_has_are_told() {
    for (rules, fix) in [
        ("- level: None\n  users: [\"*\"]\n", "leave users out"),
        (
            "- level: None\n  users: [\"system:serviceaccount:ci:*\"]\n",
            "name every user",
        ),
        (
            "- level: None\n  users: [\"system:masters\"]\n",
            "write it in userGroups",
        ),
        (
            "- level: None\n  userGroups: [\"system:anonymous\"]\n",
            "write it in users",
        ),
        ("- level: None\n  verbs: [\"*\"]\n", "leave verbs out"),
        ("- level: None\n  verbs: [GET]\n", "write get"),
        (
            "- level: None\n  verbs: [post]\n  namespaces: [default]\n",
            "write create",
        ),
        (
            "- level: None\n  verbs: [craete]\n  namespaces: [default]\n",
            "did you mean create?",
        ),
        (
            "- level: None\n  verbs: [list]\n  nonResourceURLs: [/x]\n",
            "write get",
        ),
        ("- level: None\n  verbs: [impersonate]\n", "leave it out"),
        ("- level: None\n  namespaces: [\"*\"]\n", "leave namespaces out"),
        (
            "- level: None\n  namespaces: [\"team-*\"]\n",
            "name every namespace",
        ),
        (
            "- level: None\n  nonResourceURLs: [/api/v1/pods]\n",
            "write it as resources",
        ),
        (
            "- level: None\n  nonResourceURLs: [\"/apis/apps/v1/deployments*\"]\n",
            "write it as resources",
        ),
        (
            "- level: None\n  resources: [{group: \"\", resources: [\"*/*\"]}]\n",
            "write *",
        ),
        (
            "- level: None\n  resources: [{group: \"\", resources: [\"pods/\"]}]\n",
            "write a resource",
        ),
        (
            "- level: None\n  resources: [{group: \"\", resources: [Pod]}]\n",
            "write pods",
        ),
        (
            "- level: None\n  resources: [{group: apps, resources: [deploy/scale]}]\n",
            "write deployments/scale",
        ),
        (
            "- level: None\n  resources: [{group: \"\", resources: [deployments.apps]}]\n",
            "write group: \"apps\"",
        ),
        (
            "- level: None\n  resources: [{group: \"\", resources: [\"pod*\"]}]\n",
            "write *, resource/*",
        ),
        (
            "- level: None\n  namespaces: [default]\n  resources: [{group: \"\", resources: [nodes]}]\n",
            "add \"\"",
        ),
        (
            "- level: None\n  verbs: [create]\n  resources: [{group: \"\", resources: [pods], resourceNames: [a]}]\n",
            "leave resourceNames out",
        ),
    ] {
        let finding = only(LintCode::NeverMatches, rules);
        let told = finding.fix.unwrap_or_default();
        assert!(told.starts_with(fix), "{rules}: {told}");
    }
}

#[test]
fn values_that_requests_have_are_left_alone() {
    for rules in [
        "- level: None\n  verbs: [post, options]\n  nonResourceURLs: [/x, \"/api*\", /apis/apps/v1]\n",
        "- level: None\n  verbs: [get, proxy]\n  namespaces: [\"\", default]\n",
        "- level: None\n  resources: [{group: \"\", resources: [pods, pods/log, \"*/status\", \"pods/*\", \"*\"]}]\n",
        "- level: None\n  resources: [{group: metrics.k8s.io, resources: [pods, nodes]}]\n",
        "- level: None\n  namespaces: [team]\n  resources: [{group: \"\", resources: [namespaces]}]\n",
        "- level: None\n  users: [\"system:node:a\", alice@example.com]\n",
        "- level: None\n  resources: [{group: \"*\", resources: [routes, widgets]}]\n",
    ] {
        none(LintCode::NeverMatches, rules);
        none(LintCode::WrongGroup, rules);
    }
}

#[test]
fn a_resource_in_the_wrong_group_is_told_with_the_right_one() {
    let finding = only(
        LintCode::WrongGroup,
        "- level: None\n  verbs: [get]\n  resources: [{group: \"\", resources: [deployments]}]\n",
    );
    assert!(finding.message.contains("\"apps\""), "{}", finding.message);
    only(
        LintCode::WrongGroup,
        "- level: None\n  verbs: [get]\n  resources: [{group: extensions, resources: [ingresses]}]\n",
    );
}

#[test]
fn bodies_with_credentials_are_told_with_a_witness() {
    let finding = only(LintCode::SensitiveBody, "- level: Request\n");
    assert!(
        finding.message.contains("secrets, configmaps, tokenreviews")
            && finding.message.contains("create secrets in namespace"),
        "{}",
        finding.message
    );
    assert!(
        !finding.message.contains("serviceaccounts/token"),
        "the request for a token has none"
    );
    let all = only(LintCode::SensitiveBody, "- level: RequestResponse\n");
    assert!(all.message.contains("serviceaccounts/token"), "{}", all.message);
    let reads = "- level: Request\n  verbs: [get, list]\n- level: Metadata\n";
    none(LintCode::SensitiveBody, reads);
    let protected = "- level: Metadata\n  resources:\n  - {group: \"\", resources: [secrets, configmaps, serviceaccounts/token]}\n  - {group: authentication.k8s.io}\n- level: RequestResponse\n";
    none(LintCode::SensitiveBody, protected);
}

#[test]
fn hidden_changes_and_hidden_reads_of_secrets_are_told() {
    let change = only(
        LintCode::HiddenMutation,
        "- level: None\n  namespaces: [dev]\n- level: Metadata\n",
    );
    assert!(
        change.message.contains("in namespace \"dev\""),
        "{}",
        change.message
    );
    only(
        LintCode::HiddenMutation,
        "- level: None\n  users: [backup]\n- level: Metadata\n",
    );
    only(
        LintCode::HiddenMutation,
        "- level: None\n  resources: [{group: example.com}]\n- level: Metadata\n",
    );
    none(
        LintCode::HiddenMutation,
        "- level: None\n  users: [\"system:kube-scheduler\"]\n- level: Metadata\n",
    );
    none(
        LintCode::HiddenMutation,
        "- level: None\n  resources: [{group: \"\", resources: [events]}, {group: coordination.k8s.io, resources: [leases]}]\n- level: Metadata\n",
    );
    only(
        LintCode::HiddenSecretRead,
        "- level: None\n  verbs: [get, list, watch]\n- level: Metadata\n",
    );
    none(
        LintCode::HiddenSecretRead,
        "- level: Metadata\n  resources: [{group: \"\", resources: [secrets]}]\n- level: None\n  verbs: [get, list, watch]\n- level: Metadata\n",
    );
}

#[test]
fn a_missing_catch_all_is_told() {
    only(LintCode::NoCatchAll, "- level: Metadata\n  verbs: [get]\n");
    let resources = only(
        LintCode::NoCatchAll,
        "- level: Metadata\n  nonResourceURLs: [\"*\"]\n",
    );
    assert!(
        resources.message.contains("about resources"),
        "{}",
        resources.message
    );
    none(
        LintCode::NoCatchAll,
        "- level: Metadata\n  nonResourceURLs: [\"*\"]\n- level: Metadata\n  resources: [{group: \"*\"}]\n",
    );
}

#[test]
fn forgotten_subresources_are_told() {
    let lower = only(
        LintCode::SubresourceForgotten,
        "- level: Request\n  resources: [{group: \"\", resources: [pods]}]\n- level: Metadata\n",
    );
    assert!(
        lower.message.contains("pods/exec (level Metadata)"),
        "{}",
        lower.message
    );
    let unrecorded = only(
        LintCode::SubresourceUnrecorded,
        "- level: Request\n  resources: [{group: \"\", resources: [pods]}]\n",
    );
    assert!(unrecorded.message.contains("pods/exec"), "{}", unrecorded.message);
    none(
        LintCode::SubresourceForgotten,
        "- level: Request\n  resources: [{group: \"\", resources: [\"pods/*\"]}]\n- level: Metadata\n",
    );
}

#[test]
fn stages_that_double_or_lose_are_told() {
    let doubled = lint(b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n");
    assert_eq!(doubled.len(), 1, "{doubled:#?}");
    assert_eq!(doubled[0].code, LintCode::DoubledVolume);
    assert_eq!(doubled[0].code.severity(), Severity::Note);
    let lost = only(
        LintCode::OmittedOutcome,
        "- level: Metadata\n  omitStages: [ResponseComplete]\n",
    );
    assert_eq!(lost.at.line, 6);
}
