//! Values that no request has, and resources in the wrong group.

use super::super::document::quoted;
use super::super::{GroupResources, Policy, PolicyRule, Stated};
use super::{Finding, LintCode, names};

pub(super) fn check(policy: &Policy, findings: &mut Vec<Finding>) {
    for (index, rule) in policy.rules().iter().enumerate() {
        let mut checker = Checker {
            rule,
            path: format!("rules[{index}]"),
            findings: &mut *findings,
        };
        checker.list("users", &rule.users, user);
        checker.list("userGroups", &rule.user_groups, user_group);
        let kind = Kind::of(rule);
        checker.list("verbs", &rule.verbs, |value| verb(kind, value));
        checker.list("namespaces", &rule.namespaces, namespace);
        checker.list("nonResourceURLs", &rule.non_resource_urls, path);
        for (at, entry) in rule.resources.iter().enumerate() {
            checker.resources(at, entry);
        }
    }
}

/// What kind of requests a rule is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Resources,
    Paths,
    Both,
}

impl Kind {
    fn of(rule: &PolicyRule) -> Self {
        if !rule.resources.is_empty() || !rule.namespaces.is_empty() {
            Self::Resources
        } else if rule.non_resource_urls.is_empty() {
            Self::Both
        } else {
            Self::Paths
        }
    }
}

/// Why a value matches nothing, and what to write instead.
struct Never {
    why: String,
    fix: Option<String>,
}

impl Never {
    fn new(why: impl Into<String>, fix: impl Into<String>) -> Option<Self> {
        Some(Self {
            why: why.into(),
            fix: Some(fix.into()),
        })
    }
}

struct Checker<'a> {
    rule: &'a PolicyRule,
    path: String,
    findings: &'a mut Vec<Finding>,
}

impl Checker<'_> {
    fn push(
        &mut self,
        code: LintCode,
        entry: &Stated<String>,
        field: &str,
        message: String,
        fix: Option<String>,
    ) {
        self.findings.push(Finding {
            code,
            at: entry.at,
            path: format!("{}.{field}", self.path),
            message,
            fix,
        });
    }

    fn list(&mut self, field: &str, list: &[Stated<String>], judge: impl Fn(&str) -> Option<Never>) {
        let judged: Vec<(&Stated<String>, Never)> = list
            .iter()
            .filter_map(|entry| Some((entry, judge(&entry.value)?)))
            .collect();
        let whole_rule = judged.len() == list.len();
        for (entry, never) in judged {
            let mut message = format!("{} matches nothing: {}", quoted(&entry.value), never.why);
            if whole_rule {
                message += "; the whole rule matches nothing";
            }
            self.push(LintCode::NeverMatches, entry, field, message, never.fix);
        }
    }

    fn resources(&mut self, at: usize, entry: &GroupResources) {
        let group = entry.group.value.as_str();
        let field = format!("resources[{at}].resources");
        for pattern in &entry.resources {
            let text = pattern.value.as_str();
            if let Some(never) = resource(group, text) {
                let message = format!("{} matches nothing: {}", quoted(text), never.why);
                self.push(LintCode::NeverMatches, pattern, &field, message, never.fix);
                continue;
            }
            let resource = text.split_once('/').map_or(text, |(resource, _)| resource);
            let groups = names::groups_of(resource);
            if names::is_built_in_group(group) && !groups.is_empty() && !groups.contains(&group) {
                let right: Vec<String> = groups.iter().map(|group| quoted(group)).collect();
                let message = format!(
                    "{} is not in API group {} but in {}; here it matches nothing",
                    quoted(resource),
                    quoted(group),
                    right.join(" and ")
                );
                let fix = format!(
                    "move it to an entry with group: {}",
                    right.first().cloned().unwrap_or_default()
                );
                self.push(LintCode::WrongGroup, pattern, &field, message, Some(fix));
            }
        }
        let plain: Vec<&str> = entry
            .resources
            .iter()
            .map(|pattern| pattern.value.as_str())
            .collect();
        self.cluster_scoped(&field, group, &plain, entry);
        for name in &entry.resource_names {
            if name.value.contains('*') {
                let message = format!(
                    "{} matches nothing: names are compared as whole texts",
                    quoted(&name.value)
                );
                let fix = Some("leave resourceNames out to match every name".to_owned());
                let field = format!("resources[{at}].resourceNames");
                self.push(LintCode::NeverMatches, name, &field, message, fix);
            }
        }
        let only_create =
            !self.rule.verbs.is_empty() && self.rule.verbs.iter().all(|verb| verb.value == "create");
        if let Some(name) = entry.resource_names.first()
            && only_create
            && plain.iter().all(|pattern| !pattern.contains(['/', '*']))
        {
            let message =
                "the names match nothing: a create request has its object's name only in the body".to_owned();
            let fix = Some("leave resourceNames out".to_owned());
            self.push(
                LintCode::NeverMatches,
                name,
                &format!("resources[{at}].resourceNames"),
                message,
                fix,
            );
        }
    }

    /// Resources without namespaces in a rule about namespaces.
    fn cluster_scoped(&mut self, field: &str, group: &str, patterns: &[&str], entry: &GroupResources) {
        let namespaces = &self.rule.namespaces;
        if namespaces.is_empty() || namespaces.iter().any(|namespace| namespace.value.is_empty()) {
            return;
        }
        for (pattern, text) in entry.resources.iter().zip(patterns) {
            let resource = text.split_once('/').map_or(*text, |(resource, _)| resource);
            if names::is_cluster_scoped(group, resource) {
                let message = format!(
                    "{} matches nothing: {resource} have no namespace, and the rule is about namespaces",
                    quoted(text)
                );
                let fix = Some("add \"\" to namespaces, or move it to a rule without them".to_owned());
                self.push(LintCode::NeverMatches, pattern, field, message, fix);
            }
        }
    }
}

fn user(name: &str) -> Option<Never> {
    if name == "*" {
        return Never::new(WILDCARD, "leave users out to match every user");
    }
    if name.contains('*') {
        return Never::new(WILDCARD, "name every user, or one of their groups in userGroups");
    }
    if names::is_system_group(name) {
        return Never::new("it is a group, not a user", "write it in userGroups");
    }
    if name.is_empty() {
        return Never::new(
            "every user has a name, and a request without a user matches no rule with users",
            "delete it",
        );
    }
    None
}

const WILDCARD: &str = "there are no wildcards here, the text is compared as it stands";

fn user_group(name: &str) -> Option<Never> {
    if name == "*" {
        return Never::new(
            WILDCARD,
            "leave userGroups out, or write system:authenticated and system:unauthenticated",
        );
    }
    if name.contains('*') {
        return Never::new(WILDCARD, "name every group");
    }
    if names::is_system_user(name) {
        return Never::new("it is a user, not a group", "write it in users");
    }
    None
}

fn verb(kind: Kind, text: &str) -> Option<Never> {
    if text.contains('*') {
        return Never::new(WILDCARD, "leave verbs out to match every verb");
    }
    let is_resource_verb = names::RESOURCE_VERBS.contains(&text);
    let lower = text.to_ascii_lowercase();
    if text != lower {
        let fix = match names::verbs_for(text) {
            Some(fix) if kind != Kind::Paths => fix.to_owned(),
            _ => format!("write {lower}"),
        };
        return Never::new("verbs are in lower case", fix);
    }
    let authorizer_only = matches!(
        text,
        "impersonate" | "use" | "bind" | "escalate" | "approve" | "sign" | "attest"
    );
    match kind {
        Kind::Resources if !is_resource_verb && !text.is_empty() => Some(Never {
            why: "no request about a resource has this verb".to_owned(),
            fix: names::verbs_for(text).map(str::to_owned).or_else(|| {
                names::nearest(text, names::RESOURCE_VERBS).map(|verb| format!("did you mean {verb}?"))
            }),
        }),
        Kind::Paths if matches!(text, "list" | "watch" | "create" | "update" | "deletecollection") => {
            Never::new(
                "a request that is not about a resource has its HTTP method in lower case as verb",
                "write get, post, put, patch or delete",
            )
        }
        Kind::Both
            if authorizer_only || matches!(text, "read" | "write" | "view" | "edit" | "all" | "connect") =>
        {
            Some(Never {
                why: "no request has this verb".to_owned(),
                fix: names::verbs_for(text).map(str::to_owned),
            })
        }
        _ => None,
    }
}

fn namespace(text: &str) -> Option<Never> {
    if text == "*" {
        return Never::new(WILDCARD, "leave namespaces out to match every namespace");
    }
    if text.contains('*') {
        return Never::new(WILDCARD, "name every namespace");
    }
    if text
        .bytes()
        .any(|byte| !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'))
    {
        return Never::new(
            "it is no name that a namespace can have",
            "a namespace's name has lower case letters, digits and dashes",
        );
    }
    None
}

fn path(text: &str) -> Option<Never> {
    let spec = text.trim_end_matches('*');
    let mut parts = spec.trim_start_matches('/').split('/');
    let version_and_more = match parts.next() {
        Some("api") => 2,
        Some("apis") => 3,
        _ => return None,
    };
    let parts: Vec<&str> = parts.collect();
    let resource = parts.get(version_and_more - 1)?;
    if resource.is_empty() {
        return None;
    }
    Never::new(
        "requests to this path are about a resource, and nonResourceURLs are compared with other paths only",
        "write it as resources with a group",
    )
}

fn resource(group: &str, text: &str) -> Option<Never> {
    if text == "*" {
        return None;
    }
    let (resource, subresource) = match text.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource)),
        None => (text, None),
    };
    if text == "*/*" {
        return Never::new(
            "both wildcards together are not supported",
            "write *, which includes subresources",
        );
    }
    if resource.is_empty() || subresource.is_some_and(str::is_empty) {
        return Never::new(
            "a part of it is empty",
            "write a resource, or resource/subresource",
        );
    }
    if subresource.is_some_and(|part| part.contains('/')) {
        return Never::new("a subresource has no slash", "write resource/subresource");
    }
    let star_within = |part: &str| part.contains('*') && part != "*";
    if star_within(resource) || subresource.is_some_and(star_within) {
        return Never::new(
            "a wildcard stands for a whole part or not at all",
            "write *, resource/* or */subresource",
        );
    }
    if resource == "*" {
        return None;
    }
    let suffix = subresource.map(|part| format!("/{part}")).unwrap_or_default();
    if let Some((plural, of)) = resource.split_once('.')
        && !plural.is_empty()
    {
        return Never::new(
            "a resource is written without its group",
            format!(
                "write group: {} and resource {}",
                quoted(of),
                quoted(&format!("{plural}{suffix}"))
            ),
        );
    }
    let plural = names::plural_of(resource, group);
    if resource.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let plural = plural.map_or_else(|| resource.to_lowercase(), str::to_owned);
        return Never::new(
            "resources are plural names in lower case, not kinds",
            format!("write {plural}{suffix}"),
        );
    }
    if names::is_built_in_group(group) || group == "*" {
        let plural = plural?;
        return Never::new(
            "there is no resource of this name",
            format!("write {plural}{suffix}"),
        );
    }
    None
}
