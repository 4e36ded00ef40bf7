//! Why a request is recorded as it is: the rule that decides, and what kept each earlier one from it.

use super::compiled::{pattern_matches, url_matches};
use super::{GroupResources, Policy, PolicyRule, Position, Stated};
use crate::{Attributes, RequestAuditConfig};

/// The answer of [`Policy::evaluate`] with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The answer; its `rule` is `None` when every rule was passed over.
    pub config: RequestAuditConfig,
    /// Where the deciding rule begins.
    pub at: Option<Position>,
    /// The rules before it, in order, each with its first condition that failed.
    pub passed_over: Vec<PassedOver>,
}

/// A rule that did not match.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassedOver {
    /// Index of the rule.
    pub rule: usize,
    /// Where the condition stands.
    pub at: Position,
    /// The condition that failed first.
    pub condition: Condition,
    /// The request's value and what the rule asks for, as a sentence without a full stop.
    pub message: String,
}

/// A condition of a rule, in the order they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the fields")]
#[non_exhaustive]
pub enum Condition {
    Users,
    UserGroups,
    Verbs,
    Namespaces,
    Resources,
    NonResourceUrls,
}

impl Condition {
    /// The field's name in a policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::UserGroups => "userGroups",
            Self::Verbs => "verbs",
            Self::Namespaces => "namespaces",
            Self::Resources => "resources",
            Self::NonResourceUrls => "nonResourceURLs",
        }
    }
}

impl Policy {
    /// As [`Policy::evaluate`], with reasons. It walks the rules one by one and allocates: for people,
    /// not for every request.
    #[must_use]
    pub fn explain(&self, attributes: &Attributes<'_>) -> Explanation {
        let mut passed_over = Vec::new();
        let mut at = None;
        for (index, rule) in self.rules().iter().enumerate() {
            match failed(rule, attributes) {
                Some(failed) => passed_over.push(PassedOver {
                    rule: index,
                    at: failed.at,
                    condition: failed.condition,
                    message: failed.message,
                }),
                None => {
                    at = Some(rule.at);
                    break;
                }
            }
        }
        Explanation {
            config: self.evaluate(attributes),
            at,
            passed_over,
        }
    }
}

struct Failed {
    at: Position,
    condition: Condition,
    message: String,
}

/// The first condition of `rule` that the request does not meet.
///
/// Source: k8s.io/apiserver pkg/audit/policy/checker.go, ruleMatches.
fn failed(rule: &PolicyRule, attributes: &Attributes<'_>) -> Option<Failed> {
    let fail = |list: &[Stated<String>], condition, message| {
        Some(Failed {
            at: list.first().map_or(rule.at, |entry| entry.at),
            condition,
            message,
        })
    };
    let user = attributes.user;
    if !rule.users.is_empty() && !user.is_some_and(|user| has(&rule.users, user.username.as_bytes())) {
        let asked = one_of(&rule.users);
        let message = match user {
            None => format!("the request has no authenticated user, the rule is about {asked}"),
            Some(user) => format!("user {} is not {asked}", quoted(user.username.as_bytes())),
        };
        return fail(&rule.users, Condition::Users, message);
    }
    if !rule.user_groups.is_empty() {
        let groups = user.and_then(|user| user.groups.as_deref()).unwrap_or_default();
        if !groups
            .iter()
            .any(|group| has(&rule.user_groups, group.as_bytes()))
        {
            let asked = one_of(&rule.user_groups);
            let message = match groups {
                [] => format!("the user is in no group, the rule is about {asked}"),
                [group] => format!("group {} is not {asked}", quoted(group.as_bytes())),
                groups => format!(
                    "no group of {} is {asked}",
                    list(groups.iter().map(|group| group.as_bytes()))
                ),
            };
            return fail(&rule.user_groups, Condition::UserGroups, message);
        }
    }
    if !rule.verbs.is_empty() && !has(&rule.verbs, attributes.verb) {
        let message = format!("verb {} is not {}", quoted(attributes.verb), one_of(&rule.verbs));
        return fail(&rule.verbs, Condition::Verbs, message);
    }
    if !rule.namespaces.is_empty() {
        let condition = Condition::Namespaces;
        if !attributes.is_resource_request {
            return fail(&rule.namespaces, condition, not_about_a_resource(attributes));
        }
        if !has(&rule.namespaces, attributes.namespace) {
            let asked = one_of(&rule.namespaces);
            let message = match attributes.namespace {
                b"" => format!("the request has no namespace, the rule is about {asked}"),
                namespace => format!("namespace {} is not {asked}", quoted(namespace)),
            };
            return fail(&rule.namespaces, condition, message);
        }
    }
    if let Some(first) = rule.resources.first() {
        let fail = |message| {
            Some(Failed {
                at: first.at,
                condition: Condition::Resources,
                message,
            })
        };
        if !attributes.is_resource_request {
            return fail(not_about_a_resource(attributes));
        }
        if let Some(message) = wrong_resource(&rule.resources, attributes) {
            return fail(message);
        }
        return None;
    }
    if !rule.namespaces.is_empty() || rule.non_resource_urls.is_empty() {
        return None;
    }
    let urls = &rule.non_resource_urls;
    if attributes.is_resource_request {
        let message = "the request is about a resource, the rule about other paths".to_owned();
        return fail(urls, Condition::NonResourceUrls, message);
    }
    if !urls
        .iter()
        .any(|url| url_matches(url.value.as_bytes(), attributes.path))
    {
        let message = format!("path {} is not {}", quoted(attributes.path), one_of(urls));
        return fail(urls, Condition::NonResourceUrls, message);
    }
    None
}

/// Why no entry of `resources` matches: the complaint of the entry that came closest.
fn wrong_resource(entries: &[GroupResources], attributes: &Attributes<'_>) -> Option<String> {
    let mut patterns = Vec::new();
    let mut names = Vec::new();
    let mut right_group = false;
    for entry in entries {
        let group = entry.group.value.as_bytes();
        if group != b"*" && group != attributes.api_group {
            continue;
        }
        right_group = true;
        if entry.resources.is_empty() {
            return None;
        }
        let matched = entry
            .resources
            .iter()
            .any(|pattern| pattern_matches(pattern.value.as_bytes(), attributes));
        if !matched {
            patterns.extend(&entry.resources);
        } else if entry.resource_names.is_empty() || has(&entry.resource_names, attributes.name) {
            return None;
        } else {
            names.extend(&entry.resource_names);
        }
    }
    let bytes =
        |entries: &[&Stated<String>]| one_of_bytes(entries.iter().map(|entry| entry.value.as_bytes()));
    if !names.is_empty() {
        return Some(match attributes.name {
            b"" => format!("the request names no object, the rule is about {}", bytes(&names)),
            name => format!("name {} is not {}", quoted(name), bytes(&names)),
        });
    }
    if right_group {
        return Some(format!(
            "resource {} is not {}",
            quoted(&resource(attributes)),
            bytes(&patterns)
        ));
    }
    Some(format!(
        "API group {} is not {}",
        quoted(attributes.api_group),
        one_of_bytes(entries.iter().map(|entry| entry.group.value.as_bytes()))
    ))
}

fn resource(attributes: &Attributes<'_>) -> Vec<u8> {
    match attributes.subresource {
        b"" => attributes.resource.to_vec(),
        subresource => [attributes.resource, subresource].join(&b'/'),
    }
}

fn not_about_a_resource(attributes: &Attributes<'_>) -> String {
    format!("{} is not about a resource", quoted(attributes.path))
}

fn has(list: &[Stated<String>], value: &[u8]) -> bool {
    list.iter().any(|entry| entry.value.as_bytes() == value)
}

fn one_of(entries: &[Stated<String>]) -> String {
    one_of_bytes(entries.iter().map(|entry| entry.value.as_bytes()))
}

/// `"a"`, or `one of "a", "b"`.
fn one_of_bytes<'a>(values: impl ExactSizeIterator<Item = &'a [u8]>) -> String {
    match values.len() {
        1 => list(values),
        _ => format!("one of {}", list(values)),
    }
}

/// The first few of a list.
fn list<'a>(values: impl ExactSizeIterator<Item = &'a [u8]>) -> String {
    const SHOWN: usize = 6;
    let more = values.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = values.take(SHOWN).map(quoted).collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

fn quoted(text: &[u8]) -> String {
    kaudit_event::go_quoted(text)
}
