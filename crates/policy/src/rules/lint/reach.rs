//! Rules that never decide, since earlier ones match all of their requests.
//!
//! A rule is taken apart into atoms: one value of each of its conditions. An atom is covered when some
//! earlier rule certainly matches every request of it; a rule is unreachable when all its atoms are.

use super::super::{Policy, PolicyRule, Stated};
use super::{Finding, LintCode};

/// Rules with more atoms are not judged.
const MAX_ATOMS: usize = 20_000;

pub(super) fn check(policy: &Policy, findings: &mut Vec<Finding>) {
    for (index, rule) in policy.rules().iter().enumerate() {
        let earlier = policy.rules().get(..index).unwrap_or_default();
        let Some(by) = shadowed_by(rule, earlier) else {
            continue;
        };
        let names: Vec<String> = by
            .iter()
            .filter_map(|at| {
                let rule = earlier.get(*at)?;
                Some(format!(
                    "rules[{at}] (line {}, {})",
                    rule.at.line,
                    rule.level.value.as_str()
                ))
            })
            .collect();
        findings.push(Finding {
            code: LintCode::Unreachable,
            at: rule.at,
            path: format!("rules[{index}]"),
            message: format!(
                "this rule never decides: {} {} every request of it first",
                names.join(" and "),
                if names.len() == 1 { "matches" } else { "match" }
            ),
            fix: Some(match by.first().and_then(|at| earlier.get(*at)) {
                Some(first) => format!("move it before line {}, or delete it", first.at.line),
                None => "delete it".to_owned(),
            }),
        });
    }
}

/// One value of each condition; `None` where the rule has no such condition.
struct Atom<'a> {
    user: Option<&'a str>,
    group: Option<&'a str>,
    verb: Option<&'a str>,
    scope: Scope<'a>,
}

#[derive(Clone, Copy)]
enum Scope<'a> {
    Resource {
        namespace: Option<&'a str>,
        api_group: &'a str,
        pattern: &'a str,
        name: Option<&'a str>,
    },
    Path(&'a str),
}

/// The earlier rules that together match every request of `rule`.
fn shadowed_by(rule: &PolicyRule, earlier: &[PolicyRule]) -> Option<Vec<usize>> {
    if earlier.is_empty() {
        return None;
    }
    let (users, groups, verbs) = (each(&rule.users), each(&rule.user_groups), each(&rule.verbs));
    let scopes = scopes(rule);
    let count = users.len() * groups.len() * verbs.len() * scopes.len();
    if count > MAX_ATOMS {
        return None;
    }
    let mut by: Vec<usize> = Vec::new();
    for user in &users {
        for group in &groups {
            for verb in &verbs {
                for scope in &scopes {
                    let atom = Atom {
                        user: *user,
                        group: *group,
                        verb: *verb,
                        scope: *scope,
                    };
                    let at = earlier.iter().position(|earlier| covers(earlier, &atom))?;
                    if !by.contains(&at) {
                        by.push(at);
                    }
                }
            }
        }
    }
    by.sort_unstable();
    Some(by)
}

fn each(list: &[Stated<String>]) -> Vec<Option<&str>> {
    match list {
        [] => vec![None],
        list => list.iter().map(|entry| Some(entry.value.as_str())).collect(),
    }
}

fn scopes(rule: &PolicyRule) -> Vec<Scope<'_>> {
    if !rule.non_resource_urls.is_empty() && rule.resources.is_empty() && rule.namespaces.is_empty() {
        return rule
            .non_resource_urls
            .iter()
            .map(|url| Scope::Path(&url.value))
            .collect();
    }
    let mut scopes = Vec::new();
    for namespace in each(&rule.namespaces) {
        let mut push = |api_group, pattern, name| {
            scopes.push(Scope::Resource {
                namespace,
                api_group,
                pattern,
                name,
            });
        };
        if rule.resources.is_empty() {
            push("*", "*", None);
        }
        for entry in &rule.resources {
            let group = entry.group.value.as_str();
            if entry.resources.is_empty() {
                push(group, "*", None);
            }
            for pattern in &entry.resources {
                for name in each(&entry.resource_names) {
                    push(group, pattern.value.as_str(), name);
                }
            }
        }
    }
    if rule.resources.is_empty() && rule.namespaces.is_empty() {
        scopes.push(Scope::Path("*"));
    }
    scopes
}

fn covers(rule: &PolicyRule, atom: &Atom<'_>) -> bool {
    admits(&rule.users, atom.user)
        && admits(&rule.user_groups, atom.group)
        && admits(&rule.verbs, atom.verb)
        && covers_scope(rule, atom.scope)
}

fn admits(list: &[Stated<String>], value: Option<&str>) -> bool {
    list.is_empty() || value.is_some_and(|value| list.iter().any(|entry| entry.value == value))
}

fn covers_scope(rule: &PolicyRule, scope: Scope<'_>) -> bool {
    let about_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    match scope {
        Scope::Path(spec) => {
            !about_resources
                && (rule.non_resource_urls.is_empty()
                    || rule
                        .non_resource_urls
                        .iter()
                        .any(|url| covers_path(&url.value, spec)))
        }
        Scope::Resource {
            namespace,
            api_group,
            pattern,
            name,
        } => {
            if !about_resources {
                return rule.non_resource_urls.is_empty();
            }
            admits(&rule.namespaces, namespace)
                && (rule.resources.is_empty()
                    || rule.resources.iter().any(|entry| {
                        (entry.group.value == "*" || entry.group.value == api_group)
                            && (entry.resources.is_empty()
                                || (entry
                                    .resources
                                    .iter()
                                    .any(|of| covers_pattern(&of.value, pattern))
                                    && admits(&entry.resource_names, name)))
                    }))
        }
    }
}

/// Whether `of` matches every resource that `pattern` matches.
fn covers_pattern(of: &str, pattern: &str) -> bool {
    if of == "*" || of == pattern {
        return true;
    }
    let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
    match of.split_once('/') {
        Some(("*", part)) => part != "*" && !part.is_empty() && part == subresource,
        Some((of, "*")) => of == resource && resource != "*",
        _ => false,
    }
}

/// Whether `of` matches every path that `spec` matches.
fn covers_path(of: &str, spec: &str) -> bool {
    of == "*"
        || of == spec
        || of.strip_suffix('*').is_some_and(|prefix| {
            spec.trim_end_matches('*')
                .starts_with(prefix.trim_end_matches('*'))
                && spec != "*"
        })
}
