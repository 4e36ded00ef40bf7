//! Loading policies.
//!
//! Whole texts are compared for errors of version and validation, for an empty policy, for what the
//! decoder says about types and kinds, and for warnings. Syntax errors of YAML and JSON are compared by
//! class and line: the words are the parser's.

use kaudit_policy::{Policy, PolicyError, Stated, Warnings, unreadable_file};
use serde_json::{Value, json};

use crate::cases::{bytes, cases, report};

fn texts(list: &[Stated<String>]) -> Vec<&str> {
    list.iter().map(|entry| entry.value.as_str()).collect()
}

fn stages(list: &[Stated<kaudit_event::Stage>]) -> Vec<&str> {
    list.iter().map(|entry| entry.value.as_str()).collect()
}

/// The policy as the vectors describe one.
fn described(policy: &Policy) -> Value {
    let rules: Vec<Value> = policy
        .rules()
        .iter()
        .map(|rule| {
            let resources: Vec<Value> = rule
                .resources
                .iter()
                .map(|entry| {
                    json!({
                        "group": entry.group.value,
                        "resources": texts(&entry.resources),
                        "resourceNames": texts(&entry.resource_names),
                    })
                })
                .collect();
            json!({
                "level": rule.level.value.as_str(),
                "users": texts(&rule.users),
                "userGroups": texts(&rule.user_groups),
                "verbs": texts(&rule.verbs),
                "resources": resources,
                "namespaces": texts(&rule.namespaces),
                "nonResourceURLs": texts(&rule.non_resource_urls),
                "omitStages": stages(&rule.omit_stages),
                "omitManagedFields": rule.omit_managed_fields,
            })
        })
        .collect();
    json!({
        "name": policy.name(),
        "omitStages": stages(policy.omit_stages()),
        "omitManagedFields": policy.omit_managed_fields(),
        "rules": rules,
    })
}

/// Empty and missing lists are the same, and so are missing and empty texts.
fn normalised(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| {
                !value.is_null() && **value != json!([]) && **value != json!("") && **value != json!(false)
            })
            .map(|(key, value)| (key.clone(), normalised(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(normalised).collect(),
        other => other.clone(),
    }
}

/// `false` means something in a rule, where it overrides.
fn overrides(value: &Value) -> Vec<Value> {
    value["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["omitManagedFields"].clone())
        .collect()
}

/// The part of a syntax error that has to agree: its class and its line.
fn syntax(text: &str) -> Option<(&str, Option<&str>)> {
    let (class, rest) = if let Some(rest) = text.strip_prefix("failed decoding: yaml: ") {
        ("yaml", rest)
    } else {
        (
            "json",
            text.strip_prefix("failed decoding: couldn't get version/kind; json parse error: ")?,
        )
    };
    let line = rest.strip_prefix("line ").and_then(|rest| rest.split(':').next());
    Some((class, line))
}

fn same_error(ours: &PolicyError, theirs: &str) -> bool {
    let ours = ours.to_string();
    ours == theirs || syntax(theirs).is_some_and(|theirs| syntax(&ours) == Some(theirs))
}

#[test]
fn vector_policy_load() {
    let cases = cases("policy-load.jsonl");
    let mut wrong = Vec::new();
    for case in &cases {
        let id = &case["id"];
        let document = match case.get("doc_b64") {
            Some(encoded) => bytes(&json!({"b64": encoded})),
            None => bytes(&case["doc"]),
        };
        let (outcome, Warnings(warnings)) = Policy::load(&document);
        let theirs = case["error"].as_str().unwrap_or_default();
        match &outcome {
            Ok(policy) if case["ok"] == true => {
                let (ours, theirs) = (described(policy), &case["policy"]);
                if normalised(&ours) != normalised(theirs) || overrides(&ours) != overrides(theirs) {
                    wrong.push(format!("{id}: ours {ours}\n  theirs {theirs}"));
                }
            }
            Err(error) if case["ok"] == false && same_error(error, theirs) => {}
            outcome => wrong.push(format!(
                "{id} ({}): ours {:?}, theirs `{theirs}`",
                case["note"],
                outcome.as_ref().err()
            )),
        }
        if warnings.first().map(String::as_str) != case["warning"].as_str() {
            wrong.push(format!(
                "{id}: warning, ours {warnings:?}, theirs {}",
                case["warning"]
            ));
        }
    }
    report(&wrong, cases.len());
}

#[test]
fn vector_policy_load_file() {
    let cases = cases("policy-load-file.jsonl");
    let mut wrong = Vec::new();
    for case in &cases {
        let path = case["path"].as_str().unwrap_or_default();
        let theirs = case["error"].as_str().unwrap();
        // Upstream's text ends in the system's, which names the path again.
        let (_, system) = theirs.split_once(": ").unwrap_or(("", theirs));
        let ours = unreadable_file(path, system);
        if ours != theirs {
            wrong.push(format!("{}: ours `{ours}`, theirs `{theirs}`", case["id"]));
        }
    }
    report(&wrong, cases.len());
}

#[test]
fn an_error_of_a_file_names_the_file() {
    let error = Policy::parse(b"apiVersion: audit.k8s.io/v1\nkind: Policy\n").unwrap_err();
    assert_eq!(
        error.from_file("/etc/p.yaml"),
        "loaded illegal policy with 0 rules: from file /etc/p.yaml"
    );
}
