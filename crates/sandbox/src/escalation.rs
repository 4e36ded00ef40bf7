//! Nobody may grant in roles and bindings what they do not hold.
//!
//! Source: kubernetes pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased,
//! pkg/registry/rbac/validation/rule.go, ConfirmNoEscalation, and k8s.io/component-helpers
//! auth/rbac/validation/policy_comparator.go.

use std::collections::BTreeSet;

use kaudit_event::{UserInfo, go_quoted};
use serde_json::Value;

use crate::access::Question;
use crate::kinds::Kind;
use crate::object::text;
use crate::rbac::{Policy, RoleRef, Rule, has, is_master, url_covers};
use crate::status::ApiError;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or binding that grants more than its writer has.
///
/// # Errors
///
/// 403 with the rights that are missing, 404 for a bound role that does not exist.
pub(crate) fn check(
    policy: &Policy,
    user: &UserInfo,
    kind: &Kind,
    namespace: &str,
    object: &Value,
    before: Option<&Value>,
) -> Result<(), ApiError> {
    if is_master(user) {
        return Ok(());
    }
    let unchanged = |fields: &[&str]| {
        before.is_some_and(|before| {
            fields
                .iter()
                .all(|field| before.get(*field) == object.get(*field))
        })
    };
    let name = text(object, "/metadata/name");
    let may = |verb: &str, resource: &str, name: &str| {
        let question = Question {
            user,
            verb,
            group: GROUP,
            resource,
            subresource: "",
            namespace,
            name,
            path: None,
        };
        policy.decide(&question).allowed
    };
    let refuse = |why: &str| ApiError::forbidden(GROUP, &kind.plural, name, why);
    let holder = Holder {
        user,
        rules: policy.rules_of(user, namespace),
    };
    match &*kind.plural {
        "roles" | "clusterroles" => {
            if unchanged(&["rules", "aggregationRule"]) || may("escalate", &kind.plural, name) {
                return Ok(());
            }
            holder.confirm(&Rule::all(object)).map_err(|why| refuse(&why))?;
            let aggregates = object
                .get("aggregationRule")
                .is_some_and(|rule| rule.pointer("/clusterRoleSelectors").is_some());
            if aggregates && holder.confirm(&everything()).is_err() {
                return Err(refuse(
                    "must have cluster-admin privileges to use the aggregationRule",
                ));
            }
            Ok(())
        }
        _ => {
            let role = RoleRef::of(object);
            let resource = if role.kind == "Role" {
                "roles"
            } else {
                "clusterroles"
            };
            if unchanged(&["roleRef", "subjects"]) || may("bind", resource, &role.name) {
                return Ok(());
            }
            let rules = policy
                .role_rules(&role, namespace)
                .map_err(|missing| ApiError::not_found(GROUP, missing.resource, &missing.name))?;
            holder.confirm(rules).map_err(|why| refuse(&why))
        }
    }
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule {
            verbs: all(),
            groups: all(),
            resources: all(),
            ..Rule::default()
        },
        Rule {
            verbs: all(),
            urls: all(),
            ..Rule::default()
        },
    ]
}

/// A user and what it may do.
struct Holder<'a> {
    user: &'a UserInfo,
    rules: (Vec<&'a Rule>, Option<String>),
}

impl Holder<'_> {
    /// # Errors
    ///
    /// The text that says which rights are missing.
    fn confirm(&self, wanted: &[Rule]) -> Result<(), String> {
        let (own, missing_roles) = &self.rules;
        let missing: Vec<Rule> = wanted
            .iter()
            .flat_map(single)
            .filter(|wanted| !own.iter().any(|own| covers(own, wanted)))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let lines: BTreeSet<String> = compact(missing).iter().map(describe).collect();
        let groups: Vec<String> = self
            .user
            .groups
            .iter()
            .flatten()
            .map(|group| go_quoted(group.as_bytes()))
            .collect();
        let mut out = format!(
            "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            go_quoted(self.user.username.as_bytes()),
            groups.join(" "),
            lines.into_iter().collect::<Vec<_>>().join("\n")
        );
        if let Some(missing) = missing_roles {
            out.push_str(&format!("; resolution errors: [{missing}]"));
        }
        Err(out)
    }
}

/// A rule as rules of one group, resource, verb and name, or of one path and verb, each.
fn single(rule: &Rule) -> Vec<Rule> {
    let one = |value: &String| vec![value.clone()];
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.groups {
            for resource in &rule.resources {
                let base = Rule {
                    verbs: one(verb),
                    groups: one(group),
                    resources: one(resource),
                    ..Rule::default()
                };
                if rule.names.is_empty() {
                    out.push(base);
                    continue;
                }
                out.extend(rule.names.iter().map(|name| Rule {
                    names: one(name),
                    ..base.clone()
                }));
            }
        }
        out.extend(rule.urls.iter().map(|url| Rule {
            verbs: one(verb),
            urls: one(url),
            ..Rule::default()
        }));
    }
    out
}

/// Whether `own` allows all that a single rule allows.
fn covers(own: &Rule, wanted: &Rule) -> bool {
    let all = |own: &[String], wanted: &[String]| wanted.iter().all(|wanted| has(own, wanted));
    let resources = wanted.resources.iter().all(|wanted| {
        has(&own.resources, wanted)
            || wanted.split_once('/').is_some_and(|(_, part)| {
                own.resources
                    .iter()
                    .any(|own| own.strip_prefix("*/") == Some(part))
            })
    });
    let names = own.names.is_empty()
        || (!wanted.names.is_empty() && wanted.names.iter().all(|name| own.names.contains(name)));
    let urls = wanted
        .urls
        .iter()
        .all(|wanted| own.urls.iter().any(|own| url_covers(own, wanted)));
    all(&own.verbs, &wanted.verbs) && all(&own.groups, &wanted.groups) && resources && names && urls
}

/// Joins the verbs of single rules for one resource.
///
/// Source: kubernetes pkg/registry/rbac/validation/policy_compact.go, CompactRules.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = out.iter_mut().find(|other| {
            rule.urls.is_empty()
                && other.groups == rule.groups
                && other.resources == rule.resources
                && other.names == rule.names
                && other.urls.is_empty()
        });
        match same {
            Some(other) => other.verbs.extend(rule.verbs),
            None => out.push(rule),
        }
    }
    out
}

/// Source: kubernetes pkg/apis/rbac/v1/evaluation_helpers.go, CompactString.
fn describe(rule: &Rule) -> String {
    let parts: Vec<String> = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, values)| !values.is_empty())
    .map(|(name, values)| {
        let values: Vec<String> = values.iter().map(|value| go_quoted(value.as_bytes())).collect();
        format!("{name}:[{}]", values.join(" "))
    })
    .collect();
    format!("{{{}}}", parts.join(", "))
}
