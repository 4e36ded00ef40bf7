//! Decisions over small policies, and the reasons that a real server logged.

use serde_json::json;

use super::*;

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        username: name.to_owned().into(),
        groups: Some(groups.iter().map(|&group| group.to_owned().into()).collect()),
        ..UserInfo::default()
    }
}

fn policy(
    cluster_roles: &[Value],
    roles: &[Value],
    cluster_bindings: &[Value],
    bindings: &[Value],
) -> Policy {
    Policy::new(Objects {
        cluster_roles,
        roles,
        cluster_bindings,
        bindings,
    })
}

fn role(namespace: &str, name: &str, rules: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace}, "rules": rules})
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subject: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"kind": role.0, "name": role.1},
        "subjects": [subject],
    })
}

fn ask<'a>(user: &'a UserInfo, verb: &'a str, resource: &'a str, namespace: &'a str) -> Question<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    Question {
        user,
        verb,
        group,
        resource,
        subresource,
        namespace,
        name: "x",
        path: None,
    }
}

fn one_rule(rule: &Value) -> Policy {
    let subject = json!({"kind": "User", "name": "ann"});
    policy(
        &[role("", "r", &json!([rule]))],
        &[],
        &[binding("", "b", ("ClusterRole", "r"), &subject)],
        &[],
    )
}

#[test]
fn resources_match_as_a_whole_by_subresource_or_all() {
    let ann = user("ann", &[]);
    let cases = [
        ("pods", "pods", true),
        ("pods", "pods/log", false),
        ("pods/log", "pods/log", true),
        ("pods/log", "pods", false),
        ("*", "pods/log", true),
        ("*/log", "pods/log", true),
        ("*/log", "pods", false),
        ("*/scale", "pods/log", false),
        ("pods/*", "pods/log", false),
    ];
    for (resource, asked, expected) in cases {
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]});
        let answer = one_rule(&rule).decide(&ask(&ann, "get", asked, ""));
        assert_eq!(answer.allowed, expected, "{resource} {asked}");
    }
}

#[test]
fn groups_verbs_and_names_must_match_too() {
    let ann = user("ann", &[]);
    let policy = one_rule(
        &json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["x"]}),
    );
    let asked = ask(&ann, "get", "deployments.apps", "ns");
    assert!(policy.decide(&asked).allowed);
    assert!(!policy.decide(&Question { name: "y", ..asked }).allowed);
    assert!(!policy.decide(&Question { name: "", ..asked }).allowed);
    assert!(
        !policy
            .decide(&Question {
                verb: "list",
                ..asked
            })
            .allowed
    );
    assert!(!policy.decide(&Question { group: "", ..asked }).allowed);
    let star = one_rule(&json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
    assert!(star.decide(&asked).allowed);
}

#[test]
fn a_trailing_star_covers_paths_that_begin_so() {
    let ann = user("ann", &[]);
    let policy = one_rule(&json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
    for (path, expected) in [
        ("/healthz", true),
        ("/healthz/ping", false),
        ("/api/v1", true),
        ("/api", false),
        ("/apis", false),
    ] {
        let question = Question {
            path: Some(path),
            ..ask(&ann, "get", "", "")
        };
        assert_eq!(policy.decide(&question).allowed, expected, "{path}");
    }
}

#[test]
fn a_binding_in_a_namespace_gives_rights_there_alone() {
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let subject = json!({"kind": "ServiceAccount", "name": "robot"});
    let policy = policy(
        &[],
        &[role("a", "reader", &rules)],
        &[],
        &[binding("a", "read", ("Role", "reader"), &subject)],
    );
    let robot = user("system:serviceaccount:a:robot", &[]);
    assert_eq!(
        policy.decide(&ask(&robot, "get", "pods", "a")).reason,
        "RBAC: allowed by RoleBinding \"read/a\" of Role \"reader\" to ServiceAccount \"robot/a\""
    );
    assert!(!policy.decide(&ask(&robot, "get", "pods", "b")).allowed);
    assert!(!policy.decide(&ask(&robot, "get", "pods", "")).allowed);
    let other = user("system:serviceaccount:b:robot", &[]);
    assert!(!policy.decide(&ask(&other, "get", "pods", "a")).allowed);
}

#[test]
fn a_refusal_names_each_missing_role_once() {
    let subject = json!({"kind": "Group", "name": "g"});
    let bindings = [
        binding("", "a", ("ClusterRole", "gone"), &subject),
        binding("", "b", ("ClusterRole", "gone"), &subject),
    ];
    let local = [binding("ns", "c", ("Role", "lost"), &subject)];
    let policy = policy(&[], &[], &bindings, &local);
    let ann = user("ann", &["g"]);
    assert_eq!(
        policy.decide(&ask(&ann, "get", "pods", "")).reason,
        "RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found"
    );
    assert_eq!(
        policy.decide(&ask(&ann, "get", "pods", "ns")).reason,
        "RBAC: [clusterrole.rbac.authorization.k8s.io \"gone\" not found, \
         role.rbac.authorization.k8s.io \"lost\" not found]"
    );
    assert_eq!(
        policy.decide(&ask(&user("bob", &[]), "get", "pods", "ns")).reason,
        ""
    );
}

#[test]
fn masters_may_everything_without_a_reason() {
    let answer = Policy::default().decide(&ask(&user("root", &[MASTERS]), "delete", "nodes", ""));
    assert_eq!((answer.allowed, answer.reason.as_str()), (true, ""));
}

/// The lines of the recorded logs.
pub(crate) fn real_log_events() -> Vec<Value> {
    let folder = std::env::var_os("KAUDIT_REAL_LOGS").map_or_else(
        || std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/real")),
        Into::into,
    );
    let mut events = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with(".audit.jsonl.zst") {
            continue;
        }
        let content = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        // Some clients sent bytes that are not UTF-8.
        let content = String::from_utf8_lossy(&content);
        events.extend(
            content
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()),
        );
    }
    assert!(!events.is_empty());
    events
}

/// Rebuilds the binding that a reason names and asks what the event's user did.
#[test]
fn real_log_reasons_are_given_for_the_bindings_they_name() {
    let mut seen = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for event in real_log_events() {
        let Some(reason) = event
            .pointer("/annotations/authorization.k8s.io~1reason")
            .and_then(Value::as_str)
        else {
            continue;
        };
        let Some(rest) = reason.strip_prefix("RBAC: allowed by ") else {
            continue;
        };
        let acting = event.get("impersonatedUser").unwrap_or(&event["user"]);
        let words: Vec<&str> = rest.split('"').collect();
        let [kind, bound, of, role_name, to, whom, ""] = words[..] else {
            panic!("{reason}")
        };
        if !seen.insert((reason.to_owned(), text(acting, "/username").to_owned())) {
            continue;
        }
        let role_kind = of.trim().trim_start_matches("of ");
        let subject_kind = to.trim().trim_start_matches("to ");
        let (name, namespace) = match bound.split_once('/') {
            Some(parts) if kind.trim() == "RoleBinding" => parts,
            _ => (bound, ""),
        };
        let subject = match whom.split_once('/') {
            Some((name, namespace)) if subject_kind == "ServiceAccount" => {
                json!({"kind": subject_kind, "name": name, "namespace": namespace})
            }
            _ => json!({"kind": subject_kind, "name": whom}),
        };
        let rules = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        let binding = [binding(namespace, name, (role_kind, role_name), &subject)];
        let roles = [role(
            if role_kind == "Role" { namespace } else { "" },
            role_name,
            &rules,
        )];
        let (cluster_roles, roles): (&[Value], &[Value]) = if role_kind == "Role" {
            (&[], &roles)
        } else {
            (&roles, &[])
        };
        let (cluster_bindings, bindings): (&[Value], &[Value]) = if namespace.is_empty() {
            (&binding, &[])
        } else {
            (&[], &binding)
        };
        let groups: Vec<&str> = items(acting, "/groups").filter_map(Value::as_str).collect();
        let user = user(text(acting, "/username"), &groups);
        let answer = policy(cluster_roles, roles, cluster_bindings, bindings)
            .decide(&ask(&user, "get", "pods", namespace));
        if answer.reason != reason {
            wrong.push((reason.to_owned(), answer.reason));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), seen.len());
    assert!(seen.len() > 10, "{}", seen.len());
}
