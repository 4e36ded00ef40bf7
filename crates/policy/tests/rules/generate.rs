//! Policies and requests from one small vocabulary, so that they meet.

use kaudit_event::UserInfo;
use kaudit_policy::Attributes;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

const USERS: &[&str] = &["alice", "bob", "system:apiserver"];
const GROUPS: &[&str] = &["dev", "ops", "system:authenticated"];
const VERBS: &[&str] = &["get", "list", "create", "delete"];
const NAMESPACES: &[&str] = &["", "default", "kube-system"];
const API_GROUPS: &[&str] = &["", "apps", "*"];
const PATTERNS: &[&str] = &[
    "pods",
    "pods/log",
    "pods/*",
    "*/log",
    "*",
    "*/*",
    "secrets",
    "deployments/scale",
];
const NAMES: &[&str] = &["", "web", "db"];
const URLS: &[&str] = &["*", "/healthz", "/healthz*", "/api*", "/metrics", "/*"];
const PATHS: &[&str] = &["/healthz", "/healthz/etcd", "/api", "/metrics", "/"];
const LEVELS: &[&str] = &["None", "Metadata", "Request", "RequestResponse"];
const STAGES: &[&str] = &["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

fn some(values: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        3 => Just(Vec::new()),
        2 => subsequence(values.to_vec(), 1..=2),
    ]
}

fn resources() -> impl Strategy<Value = Value> {
    (select(API_GROUPS), some(PATTERNS), some(NAMES)).prop_map(|(group, resources, names)| {
        let names = if resources.is_empty() { Vec::new() } else { names };
        json!({"group": group, "resources": resources, "resourceNames": names})
    })
}

fn rule() -> impl Strategy<Value = Value> {
    let who = (some(USERS), some(GROUPS), some(VERBS));
    let what = prop_oneof![
        3 => (some(NAMESPACES), prop::collection::vec(resources(), 0..3)).prop_map(|(namespaces, resources)| {
            json!({"namespaces": namespaces, "resources": resources})
        }),
        1 => some(URLS).prop_map(|urls| json!({"nonResourceURLs": urls})),
    ];
    let how = (select(LEVELS), some(STAGES), prop::option::of(any::<bool>()));
    (who, what, how).prop_map(|((users, groups, verbs), mut rule, (level, stages, managed))| {
        rule["level"] = json!(level);
        rule["users"] = json!(users);
        rule["userGroups"] = json!(groups);
        rule["verbs"] = json!(verbs);
        rule["omitStages"] = json!(stages);
        if let Some(managed) = managed {
            rule["omitManagedFields"] = json!(managed);
        }
        rule
    })
}

/// A valid policy with up to `rules` rules.
pub(crate) fn policy(rules: usize) -> impl Strategy<Value = Value> {
    (
        prop::collection::vec(rule(), 1..=rules),
        some(STAGES),
        any::<bool>(),
    )
        .prop_map(|(rules, stages, managed)| {
            json!({
                "apiVersion": "audit.k8s.io/v1",
                "kind": "Policy",
                "omitStages": stages,
                "omitManagedFields": managed,
                "rules": rules,
            })
        })
}

/// A request of the same vocabulary.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    user: Option<UserInfo>,
    verb: &'static str,
    resource: Option<(
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    )>,
    path: &'static str,
}

impl Request {
    pub(crate) fn attributes(&self) -> Attributes<'_> {
        let (group, resource, subresource, namespace, name) = self.resource.unwrap_or_default();
        Attributes {
            user: self.user.as_ref(),
            verb: self.verb.as_bytes(),
            is_resource_request: self.resource.is_some(),
            api_group: group.as_bytes(),
            api_version: b"v1",
            resource: resource.as_bytes(),
            subresource: subresource.as_bytes(),
            namespace: namespace.as_bytes(),
            name: name.as_bytes(),
            path: self.path.as_bytes(),
        }
    }
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let user = prop::option::weighted(
        0.9,
        (select(USERS), subsequence(GROUPS.to_vec(), 0..=2)).prop_map(|(name, groups)| UserInfo {
            username: name.to_owned().into(),
            groups: Some(groups.into_iter().map(|group| group.to_owned().into()).collect()),
            ..UserInfo::default()
        }),
    );
    let resource = prop::option::weighted(
        0.8,
        (
            select(&["", "apps"][..]),
            select(&["pods", "secrets", "deployments"][..]),
            select(&["", "log", "scale"][..]),
            select(NAMESPACES),
            select(NAMES),
        ),
    );
    (user, select(VERBS), resource, select(PATHS)).prop_map(|(user, verb, resource, path)| Request {
        user,
        verb,
        resource,
        path,
    })
}
