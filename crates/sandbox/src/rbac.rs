//! Role-based access control: whether a rule of a bound role allows a request, and by which binding.
//!
//! Source: kubernetes plugin/pkg/auth/authorizer/rbac/rbac.go, pkg/registry/rbac/validation/rule.go.

use std::borrow::Cow;
use std::collections::HashMap;

use kaudit_event::{UserInfo, go_quoted};
use serde_json::{Value, json};

use crate::access::{Answer, Question};
use crate::object::{items, text};

/// The group whose members nothing is refused.
///
/// Source: k8s.io/apiserver pkg/authentication/user/user.go, SystemPrivilegedGroup.
pub(crate) const MASTERS: &str = "system:masters";

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) urls: Vec<String>,
}

/// What a binding names as its role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoleRef {
    pub(crate) kind: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

#[derive(Clone, Debug)]
struct Binding {
    name: String,
    /// Empty for a ClusterRoleBinding.
    namespace: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// A role that a binding names and nobody made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}.rbac.authorization.k8s.io {} not found", go_quoted(name.as_bytes()))]
pub(crate) struct MissingRole {
    pub(crate) resource: &'static str,
    pub(crate) name: String,
}

/// All roles and bindings at one moment.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    cluster_roles: HashMap<String, Vec<Rule>>,
    /// By namespace and name.
    roles: HashMap<(String, String), Vec<Rule>>,
    cluster_bindings: Vec<Binding>,
    /// By namespace.
    bindings: HashMap<String, Vec<Binding>>,
}

/// The objects a [`Policy`] is read from.
#[derive(Debug)]
pub(crate) struct Objects<I> {
    pub(crate) cluster_roles: I,
    pub(crate) roles: I,
    pub(crate) cluster_bindings: I,
    pub(crate) bindings: I,
}

impl Rule {
    pub(crate) fn of(rule: &Value) -> Self {
        let list = |field: &str| {
            items(rule, field)
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        Self {
            verbs: list("/verbs"),
            groups: list("/apiGroups"),
            resources: list("/resources"),
            names: list("/resourceNames"),
            urls: list("/nonResourceURLs"),
        }
    }

    /// The rules of a role.
    pub(crate) fn all(role: &Value) -> Vec<Self> {
        items(role, "/rules").map(Self::of).collect()
    }

    /// Source: pkg/apis/rbac/v1/evaluation_helpers.go.
    fn allows(&self, question: &Question<'_>) -> bool {
        if !has(&self.verbs, question.verb) {
            return false;
        }
        if let Some(path) = question.path {
            return self.urls.iter().any(|url| url_covers(url, path));
        }
        has(&self.groups, question.group)
            && self
                .resources
                .iter()
                .any(|resource| resource_covers(resource, question.resource, question.subresource))
            && (self.names.is_empty() || self.names.iter().any(|name| name == question.name))
    }
}

/// Whether a list has the value, or the star that stands for all.
pub(crate) fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == "*" || item == value)
}

/// A trailing star covers what begins so.
pub(crate) fn url_covers(url: &str, path: &str) -> bool {
    url == path || (url.ends_with('*') && path.starts_with(url.trim_end_matches('*')))
}

fn resource_covers(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    let Some((parent, part)) = rule.split_once('/') else {
        return false;
    };
    part == subresource && (parent == "*" || parent == resource)
}

impl Subject {
    fn of(subject: &Value) -> Self {
        let field = |pointer: &str| text(subject, pointer).to_owned();
        Self {
            kind: field("/kind"),
            name: field("/name"),
            namespace: field("/namespace"),
        }
    }

    /// The namespace of a service account, which may be that of the binding.
    fn namespace<'a>(&'a self, binding: &'a str) -> &'a str {
        if self.namespace.is_empty() {
            binding
        } else {
            &self.namespace
        }
    }

    fn is(&self, user: &UserInfo, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => user.username == self.name.as_str(),
            "Group" => user
                .groups
                .iter()
                .flatten()
                .any(|group| *group == self.name.as_str()),
            "ServiceAccount" => {
                let namespace = self.namespace(binding_namespace);
                let account = user
                    .username
                    .as_bytes()
                    .strip_prefix(b"system:serviceaccount:")
                    .and_then(|account| account.strip_prefix(namespace.as_bytes()))
                    .and_then(|account| account.strip_prefix(b":"));
                !namespace.is_empty() && account == Some(self.name.as_bytes())
            }
            _ => false,
        }
    }
}

impl Binding {
    fn of(binding: &Value) -> Self {
        Self {
            name: text(binding, "/metadata/name").to_owned(),
            namespace: text(binding, "/metadata/namespace").to_owned(),
            role: RoleRef::of(binding),
            subjects: items(binding, "/subjects").map(Subject::of).collect(),
        }
    }

    fn subject(&self, user: &UserInfo) -> Option<&Subject> {
        self.subjects
            .iter()
            .find(|subject| subject.is(user, &self.namespace))
    }

    /// `RoleBinding "b/ns" of Role "r" to User "u"`.
    fn describe(&self, subject: &Subject) -> String {
        let (kind, name) = if self.namespace.is_empty() {
            ("ClusterRoleBinding", Cow::Borrowed(&self.name))
        } else {
            (
                "RoleBinding",
                Cow::Owned(format!("{}/{}", self.name, self.namespace)),
            )
        };
        let whom = match subject.kind.as_str() {
            "ServiceAccount" => {
                Cow::Owned(format!("{}/{}", subject.name, subject.namespace(&self.namespace)))
            }
            _ => Cow::Borrowed(&subject.name),
        };
        format!(
            "{kind} {} of {} {} to {} {}",
            quoted(&name),
            self.role.kind,
            quoted(&self.role.name),
            subject.kind,
            quoted(&whom)
        )
    }
}

impl RoleRef {
    pub(crate) fn of(binding: &Value) -> Self {
        Self {
            kind: text(binding, "/roleRef/kind").to_owned(),
            name: text(binding, "/roleRef/name").to_owned(),
        }
    }
}

fn quoted(text: &str) -> String {
    go_quoted(text.as_bytes())
}

/// Whether nothing is refused to the user.
pub(crate) fn is_master(user: &UserInfo) -> bool {
    user.groups.iter().flatten().any(|group| *group == MASTERS)
}

impl Policy {
    pub(crate) fn new<'a, I: IntoIterator<Item = &'a Value>>(objects: Objects<I>) -> Self {
        let name = |object: &Value| text(object, "/metadata/name").to_owned();
        let namespace = |object: &Value| text(object, "/metadata/namespace").to_owned();
        let mut bindings: HashMap<String, Vec<Binding>> = HashMap::new();
        for object in objects.bindings {
            bindings
                .entry(namespace(object))
                .or_default()
                .push(Binding::of(object));
        }
        Self {
            cluster_roles: objects
                .cluster_roles
                .into_iter()
                .map(|role| (name(role), Rule::all(role)))
                .collect(),
            roles: objects
                .roles
                .into_iter()
                .map(|role| ((namespace(role), name(role)), Rule::all(role)))
                .collect(),
            cluster_bindings: objects.cluster_bindings.into_iter().map(Binding::of).collect(),
            bindings,
        }
    }

    /// Answers a question; a refusal's reason names roles that are missing.
    pub(crate) fn decide(&self, question: &Question<'_>) -> Answer {
        if is_master(question.user) {
            return Answer {
                allowed: true,
                reason: String::new(),
            };
        }
        let mut missing: Vec<String> = Vec::new();
        for (binding, subject, rules) in self.bound(question.user, question.namespace) {
            match rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(question)) => {
                    return Answer {
                        allowed: true,
                        reason: format!("RBAC: allowed by {}", binding.describe(subject)),
                    };
                }
                Ok(_) => {}
                Err(error) => missing.push(error.to_string()),
            }
        }
        let reason = match aggregate(missing) {
            None => String::new(),
            Some(missing) => format!("RBAC: {missing}"),
        };
        Answer {
            allowed: false,
            reason,
        }
    }

    /// The bindings of a user with the rules they give, cluster-wide ones first.
    fn bound<'a, 'q>(
        &'a self,
        user: &'q UserInfo,
        namespace: &'q str,
    ) -> impl Iterator<Item = (&'a Binding, &'a Subject, Result<&'a [Rule], MissingRole>)> {
        let local = if namespace.is_empty() {
            None
        } else {
            self.bindings.get(namespace)
        };
        self.cluster_bindings
            .iter()
            .chain(local.into_iter().flatten())
            .filter_map(move |binding| {
                let subject = binding.subject(user)?;
                Some((
                    binding,
                    subject,
                    self.role_rules(&binding.role, &binding.namespace),
                ))
            })
    }

    /// The rules of a role that is named from a namespace.
    ///
    /// # Errors
    ///
    /// [`MissingRole`] when there is no such role.
    pub(crate) fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<&[Rule], MissingRole> {
        let (resource, rules) = if role.kind == "Role" {
            let key = (namespace.to_owned(), role.name.clone());
            ("role", self.roles.get(&key))
        } else {
            ("clusterrole", self.cluster_roles.get(&role.name))
        };
        rules.map(Vec::as_slice).ok_or_else(|| MissingRole {
            resource,
            name: role.name.clone(),
        })
    }

    /// Everything that a user may do in a namespace, and what could not be found out.
    pub(crate) fn rules_of(&self, user: &UserInfo, namespace: &str) -> (Vec<&Rule>, Option<String>) {
        let mut out = Vec::new();
        let mut missing = Vec::new();
        for (_, _, rules) in self.bound(user, namespace) {
            match rules {
                Ok(rules) => out.extend(rules),
                Err(error) => missing.push(error.to_string()),
            }
        }
        (out, aggregate(missing))
    }

    /// The status of a SelfSubjectRulesReview.
    pub(crate) fn review(&self, user: &UserInfo, namespace: &str) -> Value {
        let (rules, missing) = self.rules_of(user, namespace);
        let mut resources = Vec::new();
        let mut paths = Vec::new();
        for rule in rules {
            if !rule.resources.is_empty() {
                let mut line =
                    json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
                if let (false, Value::Object(line)) = (rule.names.is_empty(), &mut line) {
                    line.insert("resourceNames".to_owned(), json!(rule.names));
                }
                resources.push(line);
            }
            if !rule.urls.is_empty() {
                paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.urls}));
            }
        }
        let mut status = json!({
            "resourceRules": resources,
            "nonResourceRules": paths,
            "incomplete": missing.is_some(),
        });
        if let (Some(missing), Value::Object(status)) = (missing, &mut status) {
            status.insert("evaluationError".to_owned(), json!(missing));
        }
        status
    }
}

/// Several errors stand in brackets, each once.
///
/// Source: k8s.io/apimachinery pkg/util/errors/errors.go, aggregate.Error.
fn aggregate(errors: Vec<String>) -> Option<String> {
    let mut seen: Vec<String> = Vec::new();
    for error in errors {
        if !seen.contains(&error) {
            seen.push(error);
        }
    }
    match seen.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

#[cfg(test)]
pub(crate) use tests::real_log_events;

#[cfg(test)]
mod tests;
