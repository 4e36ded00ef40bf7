//! Who may do what: RBAC over the objects in the store.
//!
//! Source: kubernetes plugin/pkg/auth/authorizer/rbac/rbac.go and pkg/registry/rbac/validation/rule.go.

mod rule;

use std::sync::Arc;

use kaudit_event::UserInfo;
use kaudit_tower::{Authorization, AuthorizationRequest, Authorizer, BoxFuture, Decision};
use serde_json::{Value, json};

use crate::kinds::store_key;
use crate::object::{items, text};
use crate::state::State;
use crate::store::Key;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Members may do everything, by no rule.
const PRIVILEGED: &str = "system:masters";

/// What is asked: a verb on a resource, or on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) user: &'a UserInfo,
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Set for a request that is about no resource.
    pub(crate) path: Option<&'a str>,
}

/// The authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

/// Answers a question.
pub(crate) fn decide(state: &State, question: &Question<'_>) -> Answer {
    if is_in(question.user, PRIVILEGED) {
        return Answer {
            allowed: true,
            reason: String::new(),
        };
    }
    let mut missing = Vec::new();
    let mut allowed = None;
    visit(state, question.user, question.namespace, |grant| {
        match grant {
            Ok(grant) if rule::allows(grant.rule, question) => {
                allowed = Some(format!("RBAC: allowed by {}", grant.described()));
            }
            Ok(_) => {}
            Err(error) => missing.push(error),
        }
        allowed.is_none()
    });
    let reason = match (&allowed, missing.as_slice()) {
        (Some(_), _) | (None, []) => String::new(),
        (None, [error]) => format!("RBAC: {error}"),
        (None, errors) => format!("RBAC: [{}]", errors.join(", ")),
    };
    Answer {
        allowed: allowed.is_some(),
        reason: allowed.unwrap_or(reason),
    }
}

fn is_in(user: &UserInfo, group: &str) -> bool {
    user.groups
        .as_deref()
        .unwrap_or_default()
        .iter()
        .any(|member| *member == group)
}

/// One rule that a binding gives to a user.
struct Grant<'a> {
    binding: &'a Value,
    subject: &'a Value,
    rule: &'a Value,
}

impl Grant<'_> {
    /// `RoleBinding "b/ns" of Role "r" to Group "g"`.
    fn described(&self) -> String {
        let name = text(self.binding, "/metadata/name");
        let namespace = text(self.binding, "/metadata/namespace");
        let (kind, name) = if namespace.is_empty() {
            ("ClusterRoleBinding", name.to_owned())
        } else {
            ("RoleBinding", format!("{name}/{namespace}"))
        };
        let quoted = |text: &str| kaudit_event::go_quoted(text.as_bytes());
        let subject = match text(self.subject, "/kind") {
            "ServiceAccount" => {
                let account = format!(
                    "{}/{}",
                    text(self.subject, "/name"),
                    text(self.subject, "/namespace")
                );
                format!("ServiceAccount {}", quoted(&account))
            }
            kind => format!("{kind} {}", quoted(text(self.subject, "/name"))),
        };
        format!(
            "{kind} {} of {} {} to {subject}",
            quoted(&name),
            text(self.binding, "/roleRef/kind"),
            quoted(text(self.binding, "/roleRef/name"))
        )
    }
}

/// Shows `each` every rule that holds for `user` in `namespace` until it returns false; a role that a
/// binding names in vain is an error.
fn visit(
    state: &State,
    user: &UserInfo,
    namespace: &str,
    mut each: impl FnMut(Result<Grant<'_>, String>) -> bool,
) {
    let mut bindings = state.store.all(&store_key(GROUP, "clusterrolebindings"), "");
    if !namespace.is_empty() {
        bindings.extend(state.store.all(&store_key(GROUP, "rolebindings"), namespace));
    }
    for binding in &bindings {
        let at = text(binding, "/metadata/namespace");
        let Some(subject) = items(binding, "/subjects").find(|subject| is_subject(subject, user, at)) else {
            continue;
        };
        let rules = match rules_of(state, binding, at) {
            Ok(rules) => rules,
            Err(error) => {
                if !each(Err(error)) {
                    return;
                }
                continue;
            }
        };
        for rule in &rules {
            if !each(Ok(Grant {
                binding,
                subject,
                rule,
            })) {
                return;
            }
        }
    }
}

fn is_subject(subject: &Value, user: &UserInfo, namespace: &str) -> bool {
    let name = text(subject, "/name");
    match text(subject, "/kind") {
        "User" => user.username == name,
        "Group" => is_in(user, name),
        "ServiceAccount" => {
            let namespace = match text(subject, "/namespace") {
                "" => namespace,
                own => own,
            };
            !namespace.is_empty()
                && user.username == format!("system:serviceaccount:{namespace}:{name}").as_str()
        }
        _ => false,
    }
}

/// The rules of the role that a binding refers to.
fn rules_of(state: &State, binding: &Value, namespace: &str) -> Result<Vec<Value>, String> {
    let name = text(binding, "/roleRef/name");
    let (singular, plural, namespace) = match text(binding, "/roleRef/kind") {
        "Role" => ("role", "roles", namespace),
        "ClusterRole" => ("clusterrole", "clusterroles", ""),
        kind => return Err(format!("unsupported role reference kind: {kind:?}")),
    };
    let key = Key::new(&store_key(GROUP, plural), namespace, name);
    let role = state.store.read(&key).ok_or_else(|| {
        format!(
            "{singular}.{GROUP} {} not found",
            kaudit_event::go_quoted(name.as_bytes())
        )
    })?;
    if role.get("aggregationRule").is_none_or(Value::is_null) {
        return Ok(items(&role, "/rules").cloned().collect());
    }
    let parts = state.store.all(&store_key(GROUP, "clusterroles"), "");
    Ok(parts
        .iter()
        .filter(|part| is_aggregated(&role, part))
        .flat_map(|part| items(part, "/rules").cloned().collect::<Vec<_>>())
        .collect())
}

/// Whether `part` carries the labels of one of the selectors of `role`.
fn is_aggregated(role: &Value, part: &Value) -> bool {
    items(role, "/aggregationRule/clusterRoleSelectors").any(|selector| {
        let Some(wanted) = selector.get("matchLabels").and_then(Value::as_object) else {
            return false;
        };
        let labels = part.pointer("/metadata/labels");
        wanted
            .iter()
            .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    })
}

/// The chain's authorizer.
#[derive(Debug)]
pub(crate) struct StoreAuthorizer(pub(crate) Arc<State>);

impl Authorizer for StoreAuthorizer {
    fn authorize<'a>(
        &'a self,
        request: AuthorizationRequest<'a>,
    ) -> BoxFuture<'a, Result<Authorization, String>> {
        let attributes = &request.attributes;
        let text = String::from_utf8_lossy;
        let path = text(attributes.path);
        let question = Question {
            user: request.user,
            verb: &text(attributes.verb),
            group: &text(attributes.api_group),
            resource: &text(attributes.resource),
            subresource: &text(attributes.subresource),
            namespace: &text(attributes.namespace),
            name: &text(attributes.name),
            path: (!attributes.is_resource_request).then_some(&*path),
        };
        let answer = decide(&self.0, &question);
        let decision = if answer.allowed {
            Decision::Allow
        } else {
            Decision::NoOpinion
        };
        let authorization = Authorization {
            decision,
            reason: answer.reason,
        };
        Box::pin(std::future::ready(Ok(authorization)))
    }
}

/// The status of a SelfSubjectRulesReview.
pub(crate) fn rules(state: &State, user: &UserInfo, namespace: &str) -> Value {
    let (mut resource_rules, mut path_rules) = (Vec::new(), Vec::new());
    if is_in(user, PRIVILEGED) {
        resource_rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        path_rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    let mut errors = Vec::new();
    visit(state, user, namespace, |grant| {
        match grant {
            Ok(Grant { rule, .. }) if items(rule, "/nonResourceURLs").next().is_some() => {
                path_rules.push(json!({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]}));
            }
            Ok(Grant { rule, .. }) => resource_rules.push(rule.clone()),
            Err(error) => errors.push(error),
        }
        true
    });
    let mut status = json!({
        "resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": !errors.is_empty(),
    });
    if let (Some(status), false) = (status.as_object_mut(), errors.is_empty()) {
        status.insert("evaluationError".to_owned(), json!(errors.join(", ")));
    }
    status
}
