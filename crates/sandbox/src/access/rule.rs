//! One PolicyRule against one question.
//!
//! Source: kubernetes pkg/apis/rbac/v1/evaluation_helpers.go.

use serde_json::Value;

use super::Question;

const ALL: &str = "*";

/// Whether `rule` allows what is asked.
pub(super) fn allows(rule: &Value, question: &Question<'_>) -> bool {
    let verb = |listed: &str| listed == ALL || listed == question.verb;
    if !any(rule, "verbs", verb) {
        return false;
    }
    if let Some(path) = question.path {
        return any(rule, "nonResourceURLs", |listed| {
            listed == path
                || listed
                    .strip_suffix('*')
                    .is_some_and(|prefix| path.starts_with(prefix))
        });
    }
    any(rule, "apiGroups", |listed| {
        listed == ALL || listed == question.group
    }) && any(rule, "resources", |listed| is_resource(listed, question))
        && (is_empty(rule, "resourceNames") || any(rule, "resourceNames", |listed| listed == question.name))
}

/// `*` is everything, `*/s` one subresource of everything; `r/*` means nothing to RBAC.
fn is_resource(listed: &str, question: &Question<'_>) -> bool {
    if listed == ALL {
        return true;
    }
    if question.subresource.is_empty() {
        return listed == question.resource;
    }
    listed.split_once('/').is_some_and(|(resource, subresource)| {
        subresource == question.subresource && (resource == ALL || resource == question.resource)
    })
}

fn any(rule: &Value, list: &str, test: impl Fn(&str) -> bool) -> bool {
    rule.get(list)
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().filter_map(Value::as_str).any(test))
}

fn is_empty(rule: &Value, list: &str) -> bool {
    rule.get(list).and_then(Value::as_array).is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use kaudit_event::UserInfo;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(rule: Value, [verb, group, resource, subresource, name]: [&str; 5], expected: bool) {
        let user = UserInfo::default();
        let question = Question {
            user: &user,
            verb,
            group,
            resource,
            subresource,
            namespace: "",
            name,
            path: None,
        };
        assert_eq!(allows(&rule, &question), expected, "{rule} {question:?}");
    }

    #[test]
    fn rules_match_as_upstream_matches_them() {
        let pods = |resources: Value| json!({"verbs": ["get"], "apiGroups": [""], "resources": resources});
        check(pods(json!(["pods"])), ["get", "", "pods", "", "x"], true);
        check(pods(json!(["pods"])), ["list", "", "pods", "", ""], false);
        check(pods(json!(["pods"])), ["get", "apps", "pods", "", ""], false);
        check(pods(json!(["pods"])), ["get", "", "pods", "log", "x"], false);
        check(pods(json!(["pods/log"])), ["get", "", "pods", "log", "x"], true);
        check(pods(json!(["*/log"])), ["get", "", "pods", "log", "x"], true);
        check(pods(json!(["pods/*"])), ["get", "", "pods", "log", "x"], false);
        check(pods(json!(["*"])), ["get", "", "pods", "log", "x"], true);
        let named =
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["secrets"], "resourceNames": ["a"]});
        check(named.clone(), ["get", "", "secrets", "", "a"], true);
        check(named.clone(), ["get", "", "secrets", "", "b"], false);
        check(named, ["list", "", "secrets", "", ""], false);
    }

    #[test]
    fn paths_match_by_prefix() {
        let user = UserInfo::default();
        let rule = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]});
        for (path, expected) in [
            ("/healthz", true),
            ("/healthz/x", false),
            ("/api/v1", true),
            ("/api", false),
        ] {
            let question = Question {
                user: &user,
                verb: "get",
                group: "",
                resource: "",
                subresource: "",
                namespace: "",
                name: "",
                path: Some(path),
            };
            assert_eq!(allows(&rule, &question), expected, "{path}");
        }
    }
}
