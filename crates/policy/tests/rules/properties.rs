//! Evaluation against an evaluator that is too simple to be wrong, and explanations against evaluation.

use kaudit_policy::{Attributes, LintCode, Policy, PolicyRule, Stated, format, lint};
use proptest::prelude::*;

use crate::generate::{policy, request};

fn has(list: &[Stated<String>], value: &[u8]) -> bool {
    list.iter().any(|entry| entry.value.as_bytes() == value)
}

/// The rules of audit policies, condition by condition, with no regard for speed.
fn naive(rule: &PolicyRule, asked: &Attributes<'_>) -> bool {
    let groups = asked
        .user
        .and_then(|user| user.groups.clone())
        .unwrap_or_default();
    let who = (rule.users.is_empty()
        || asked
            .user
            .is_some_and(|user| has(&rule.users, user.username.as_bytes())))
        && (rule.user_groups.is_empty()
            || groups
                .iter()
                .any(|group| has(&rule.user_groups, group.as_bytes())))
        && (rule.verbs.is_empty() || has(&rule.verbs, asked.verb));
    if !who {
        return false;
    }
    if rule.namespaces.is_empty() && rule.resources.is_empty() {
        return rule.non_resource_urls.is_empty()
            || (!asked.is_resource_request
                && rule.non_resource_urls.iter().any(|url| {
                    let path = std::str::from_utf8(asked.path).unwrap();
                    match url.value.strip_suffix('*') {
                        Some(prefix) => path.starts_with(prefix),
                        None => path == url.value,
                    }
                }));
    }
    let resource = std::str::from_utf8(asked.resource).unwrap();
    let subresource = std::str::from_utf8(asked.subresource).unwrap();
    let full = match subresource {
        "" => resource.to_owned(),
        part => format!("{resource}/{part}"),
    };
    asked.is_resource_request
        && (rule.namespaces.is_empty() || has(&rule.namespaces, asked.namespace))
        && (rule.resources.is_empty()
            || rule.resources.iter().any(|entry| {
                let group = entry.group.value.as_bytes();
                let named = entry.resource_names.is_empty() || has(&entry.resource_names, asked.name);
                (group == b"*" || group == asked.api_group)
                    && (entry.resources.is_empty()
                        || (named
                            && entry.resources.iter().any(|pattern| {
                                let pattern = pattern.value.as_str();
                                pattern == "*"
                                    || pattern == full
                                    || (pattern == format!("{resource}/*"))
                                    || (!subresource.is_empty() && pattern == format!("*/{subresource}"))
                            })))
            }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_first_rule_that_matches_decides(
        document in policy(90),
        requests in prop::collection::vec(request(), 1..12),
    ) {
        let (policy, _) = Policy::parse(document.to_string().as_bytes()).unwrap();
        for request in &requests {
            let asked = request.attributes();
            let answer = policy.evaluate(&asked);
            let expected = policy.rules().iter().position(|rule| naive(rule, &asked));
            prop_assert_eq!(answer.rule, expected);
        }
    }

    #[test]
    fn an_explanation_agrees_with_the_evaluation(document in policy(12), request in request()) {
        let (policy, _) = Policy::parse(document.to_string().as_bytes()).unwrap();
        let asked = request.attributes();
        let explanation = policy.explain(&asked);
        prop_assert_eq!(explanation.config, policy.evaluate(&asked));
        let decided = explanation.config.rule.unwrap_or(policy.rules().len());
        let passed_over: Vec<usize> = explanation.passed_over.iter().map(|passed| passed.rule).collect();
        prop_assert_eq!(passed_over, (0..decided).collect::<Vec<_>>());
        prop_assert_eq!(explanation.at, explanation.config.rule.map(|rule| policy.rules()[rule].at));
    }

    #[test]
    fn a_rule_called_unreachable_never_decides(
        document in policy(8),
        requests in prop::collection::vec(request(), 60),
    ) {
        let text = document.to_string();
        let (policy, _) = Policy::parse(text.as_bytes()).unwrap();
        let unreachable: Vec<String> = lint(text.as_bytes())
            .into_iter()
            .filter(|finding| finding.code == LintCode::Unreachable)
            .map(|finding| finding.path)
            .collect();
        for request in &requests {
            if let Some(rule) = policy.evaluate(&request.attributes()).rule {
                prop_assert!(!unreachable.contains(&format!("rules[{rule}]")), "rules[{}]: {:?}", rule, request);
            }
        }
    }

    #[test]
    fn a_formatted_policy_means_the_same_and_stays_as_it_is(document in policy(8)) {
        let text = document.to_string();
        let (before, _) = Policy::parse(text.as_bytes()).unwrap();
        let formatted = format(text.as_bytes()).unwrap();
        let (after, _) = Policy::parse(formatted.as_bytes()).unwrap();
        prop_assert_eq!(bare(&before), bare(&after));
        prop_assert_eq!(format(formatted.as_bytes()).unwrap(), formatted);
    }

    #[test]
    fn any_text_is_linted_and_formatted_or_refused(text in "[-a-z:#\\[\\]{} \n\"*&!|>,]{0,80}") {
        prop_assert!(lint(text.as_bytes()).iter().all(|finding| finding.at.line > 0), "a finding without a place");
        if let Ok(formatted) = format(text.as_bytes()) {
            prop_assert_eq!(format(formatted.as_bytes()).unwrap(), formatted);
        }
    }
}

/// A policy without places.
pub(crate) fn bare(policy: &Policy) -> String {
    let mut text = format!(
        "{:?} {:?} {}",
        policy.name(),
        policy
            .omit_stages()
            .iter()
            .map(|stage| stage.value)
            .collect::<Vec<_>>(),
        policy.omit_managed_fields()
    );
    let values = |list: &[Stated<String>]| list.iter().map(|entry| entry.value.clone()).collect::<Vec<_>>();
    for rule in policy.rules() {
        text += &format!(
            "\n{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            rule.level.value,
            values(&rule.users),
            values(&rule.user_groups),
            values(&rule.verbs),
            values(&rule.namespaces),
            values(&rule.non_resource_urls),
            rule.omit_stages
                .iter()
                .map(|stage| stage.value)
                .collect::<Vec<_>>(),
            rule.omit_managed_fields,
        );
        for entry in &rule.resources {
            text += &format!(
                " {:?} {:?} {:?}",
                entry.group.value,
                values(&entry.resources),
                values(&entry.resource_names)
            );
        }
    }
    text
}
