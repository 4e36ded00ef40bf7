//! Policies made ready for matching: the answer of each rule, and the search for the first that matches.
//!
//! Source of the semantics: k8s.io/apiserver pkg/audit/policy/checker.go, ruleMatches.

mod index;

use kaudit_event::StageSet;

use super::{GroupResources, PolicyRule, Stated, stage_set};
use crate::{Attributes, RequestAuditConfig};
use index::{Clauses, same};

/// Up to this many rules a straight walk is as fast as the indexes.
const WALK: usize = 3;

#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    rules: Vec<PolicyRule>,
    answers: Vec<RequestAuditConfig>,
    otherwise: RequestAuditConfig,
    /// `None` where walking the rules is better.
    clauses: Option<Clauses>,
}

impl Compiled {
    pub(crate) fn new(rules: &[PolicyRule], omit_stages: StageSet, omit_managed_fields: bool) -> Self {
        let answers = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| RequestAuditConfig {
                level: rule.level.value,
                omit_stages: stage_set(rule, omit_stages),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(omit_managed_fields),
                rule: Some(index),
            })
            .collect();
        let otherwise = RequestAuditConfig {
            omit_stages,
            omit_managed_fields,
            ..RequestAuditConfig::default()
        };
        Self {
            answers,
            otherwise,
            clauses: (rules.len() > WALK).then(|| Clauses::of(rules)).flatten(),
            rules: rules.to_vec(),
        }
    }

    pub(crate) fn evaluate(&self, attributes: &Attributes<'_>) -> RequestAuditConfig {
        let found = match &self.clauses {
            Some(clauses) => clauses.first_rule(&self.rules, attributes),
            None => self.rules.iter().position(|rule| matches(rule, attributes)),
        };
        found
            .and_then(|at| self.answers.get(at))
            .copied()
            .unwrap_or(self.otherwise)
    }
}

/// The whole rule, condition by condition.
pub(crate) fn matches(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    let contains =
        |list: &[Stated<String>], value: &[u8]| list.iter().any(|entry| same(entry.value.as_bytes(), value));
    if !rule.users.is_empty()
        && !attributes
            .user
            .is_some_and(|user| contains(&rule.users, user.username.as_bytes()))
    {
        return false;
    }
    if !rule.user_groups.is_empty() {
        let groups = attributes
            .user
            .and_then(|user| user.groups.as_deref())
            .unwrap_or_default();
        if !groups
            .iter()
            .any(|group| contains(&rule.user_groups, group.as_bytes()))
        {
            return false;
        }
    }
    if !rule.verbs.is_empty() && !contains(&rule.verbs, attributes.verb) {
        return false;
    }
    if !rule.resources.is_empty() || !rule.namespaces.is_empty() {
        return attributes.is_resource_request
            && (rule.namespaces.is_empty() || contains(&rule.namespaces, attributes.namespace))
            && (rule.resources.is_empty() || resources_match(&rule.resources, attributes));
    }
    rule.non_resource_urls.is_empty()
        || (!attributes.is_resource_request && path_matches(rule, attributes.path))
}

#[inline(never)]
fn resources_match(entries: &[GroupResources], attributes: &Attributes<'_>) -> bool {
    entries.iter().any(|entry| {
        let group = entry.group.value.as_bytes();
        (group == b"*" || same(group, attributes.api_group))
            && (entry.resources.is_empty()
                || (entry
                    .resources
                    .iter()
                    .any(|pattern| pattern_matches(pattern.value.as_bytes(), attributes))
                    && (entry.resource_names.is_empty()
                        || entry
                            .resource_names
                            .iter()
                            .any(|name| same(name.value.as_bytes(), attributes.name)))))
    })
}

/// `*`, `resource`, `resource/subresource`, `*/subresource` or `resource/*`, which is also the resource
/// itself.
pub(crate) fn pattern_matches(pattern: &[u8], attributes: &Attributes<'_>) -> bool {
    let (resource, subresource) = (attributes.resource, attributes.subresource);
    let of_resource = || {
        let (of, rest) = pattern.split_at_checked(resource.len())?;
        same(of, resource).then_some(rest)
    };
    match of_resource() {
        Some([]) if subresource.is_empty() => return true,
        Some(b"/*") => return true,
        Some([b'/', part @ ..]) if !subresource.is_empty() && same(part, subresource) => return true,
        _ => {}
    }
    match pattern {
        b"*" => true,
        [b'*', b'/', part @ ..] => !subresource.is_empty() && same(part, subresource),
        _ => false,
    }
}

/// Whether one of the rule's URLs is the path, or a prefix of it.
fn path_matches(rule: &PolicyRule, path: &[u8]) -> bool {
    rule.non_resource_urls
        .iter()
        .any(|url| url_matches(url.value.as_bytes(), path))
}

/// `*`, the path itself, or a prefix of it followed by `*`.
pub(crate) fn url_matches(spec: &[u8], path: &[u8]) -> bool {
    if spec == b"*" || spec == path {
        return true;
    }
    let stars = spec.iter().rev().take_while(|byte| **byte == b'*').count();
    stars > 0
        && spec
            .get(..spec.len() - stars)
            .is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Policy;

    /// Whether a policy of these rules is walked; either way its last rule answers alice's request.
    #[track_caller]
    fn is_walked(rules: &[Value]) -> bool {
        let document = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
        let (policy, _) = Policy::parse(document.to_string().as_bytes()).unwrap();
        let user = kaudit_event::UserInfo {
            username: "alice".into(),
            ..Default::default()
        };
        let long = "a".repeat(300);
        let attributes = Attributes {
            user: Some(&user),
            verb: b"get",
            is_resource_request: true,
            api_group: b"",
            api_version: b"v1",
            resource: long.as_bytes(),
            subresource: b"status",
            namespace: b"",
            name: b"",
            path: b"",
        };
        assert_eq!(policy.evaluate(&attributes).rule, Some(rules.len() - 1));
        policy.compiled.clauses.is_none()
    }

    #[test]
    fn policies_that_are_small_or_too_large_for_sets_are_walked() {
        let others =
            |count: usize| (0..count).map(|user| json!({"level": "None", "users": [user.to_string()]}));
        let with_last = |count: usize, last: Value| others(count).chain([last]).collect::<Vec<_>>();
        let everything = json!({"level": "Metadata"});
        let long = json!({"level": "Metadata", "resources": [{"resources": ["a".repeat(300) + "/*"]}]});
        assert!(is_walked(&with_last(WALK - 1, everything.clone())));
        assert!(!is_walked(&with_last(WALK, everything.clone())));
        assert!(!is_walked(&with_last(1000, everything.clone())));
        assert!(is_walked(&with_last(WALK, long)));
        assert!(is_walked(&with_last(20_000, everything)));
    }
}
