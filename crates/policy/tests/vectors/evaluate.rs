//! Policy evaluation.

use std::collections::BTreeMap;

use kaudit_event::UserInfo;
use kaudit_policy::{Attributes, Policy};
use serde_json::Value;

use crate::cases::{bytes, cases, report};

fn user(value: &Value) -> Option<UserInfo> {
    (!value.is_null()).then(|| UserInfo {
        username: bytes(&value["name"]).into(),
        groups: value["groups"]
            .as_array()
            .map(|groups| groups.iter().map(|group| bytes(group).into()).collect()),
        ..UserInfo::default()
    })
}

#[test]
fn vector_policy_eval() {
    let policies: BTreeMap<String, Policy> = cases("policy-eval-policies.jsonl")
        .iter()
        .map(|case| {
            let (policy, _) = Policy::parse(&bytes(&case["doc"])).unwrap();
            (case["id"].as_str().unwrap().to_owned(), policy)
        })
        .collect();
    let cases = cases("policy-eval.jsonl");
    let mut wrong = Vec::new();
    for case in &cases {
        let attrs = &case["attrs"];
        let user = user(&attrs["user"]);
        let field = |name: &str| bytes(&attrs[name]);
        let (verb, group, version) = (field("verb"), field("apiGroup"), field("apiVersion"));
        let (resource, subresource) = (field("resource"), field("subresource"));
        let (namespace, name, path) = (field("namespace"), field("name"), field("path"));
        let config = policies[case["policy"].as_str().unwrap()].evaluate(&Attributes {
            user: user.as_ref(),
            verb: &verb,
            is_resource_request: attrs["resourceRequest"].as_bool().unwrap_or_default(),
            api_group: &group,
            api_version: &version,
            resource: &resource,
            subresource: &subresource,
            namespace: &namespace,
            name: &name,
            path: &path,
        });
        let mut stages: Vec<_> = config.omit_stages.iter().map(|stage| stage.as_str()).collect();
        stages.sort_unstable();
        let rule = config.rule.map_or(-1, |rule| i64::try_from(rule).unwrap());
        let ours = serde_json::json!({
            "level": config.level.as_str(),
            "omitStages": stages,
            "omitManagedFields": config.omit_managed_fields,
            "rule": rule,
        });
        if ours != case["expect"] {
            wrong.push(format!("{}: ours {ours}, theirs {}", case["id"], case["expect"]));
        }
    }
    report(&wrong, cases.len());
}
