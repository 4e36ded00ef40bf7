//! What upstream refuses, in its order and its words.
//!
//! Source: k8s.io/apiserver pkg/apis/audit/validation/validation.go.

use kaudit_event::{Level, Stage};

use super::decode::{Draft, DraftRule, Entry};
use super::document::{Position, quoted};

/// One error with the place it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) at: Position,
    pub(crate) message: String,
}

pub(crate) fn validate(draft: &Draft) -> Vec<Invalid> {
    let mut errors = Vec::new();
    stages(&draft.omit_stages, "omitStages", &mut errors);
    for (index, rule) in draft.rules.iter().enumerate() {
        validate_rule(rule, &format!("rules[{index}]"), &mut errors);
    }
    errors
}

fn validate_rule(rule: &DraftRule, path: &str, errors: &mut Vec<Invalid>) {
    let mut push = |at, message| errors.push(Invalid { at, message });
    if rule.level.text.is_empty() {
        push(rule.at, format!("{path}.level: Required value"));
    } else if Level::from_name(rule.level.text.as_bytes()).is_none() {
        push(
            rule.level.at,
            format!(
                "{path}.level: Unsupported value: {}: supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\"",
                quoted(&rule.level.text)
            ),
        );
    }
    for (index, url) in rule
        .non_resource_urls
        .iter()
        .enumerate()
        .filter(|(_, url)| url.text != "*")
    {
        let invalid = format!(
            "{path}.nonResourceURLs[{index}]: Invalid value: {}",
            quoted(&url.text)
        );
        if !url.text.starts_with('/') {
            push(
                url.at,
                format!("{invalid}: non-resource URL rules must begin with a '/' character"),
            );
        }
        if url.text.find('*').is_some_and(|at| at + 1 < url.text.len()) {
            push(
                url.at,
                format!("{invalid}: non-resource URL wildcards '*' must be the final character of the rule"),
            );
        }
    }
    for resources in &rule.resources {
        let group = &resources.group;
        if !group.text.is_empty() && group.text != "*" {
            let problems = subdomain_problems(&group.text);
            if !problems.is_empty() {
                push(
                    group.at,
                    format!(
                        "{path}.resources.group: Invalid value: {}: {}",
                        quoted(&group.text),
                        problems.join(",")
                    ),
                );
            }
        }
        if let Some(name) = resources.resource_names.first()
            && resources.resources.is_empty()
        {
            push(
                name.at,
                format!(
                    "{path}.resources.resourceNames: Invalid value: {}: using resourceNames requires at least one resource",
                    json_list(&resources.resource_names)
                ),
            );
        }
    }
    stages(&rule.omit_stages, &format!("{path}.omitStages"), errors);
    if let Some(url) = rule.non_resource_urls.first()
        && (!rule.resources.is_empty() || !rule.namespaces.is_empty())
    {
        errors.push(Invalid {
            at: url.at,
            message: format!(
                "{path}.nonResourceURLs: Invalid value: {}: rules cannot apply to both regular resources and non-resource URLs",
                json_list(&rule.non_resource_urls)
            ),
        });
    }
}

fn stages(entries: &[Entry], path: &str, errors: &mut Vec<Invalid>) {
    for (index, stage) in entries.iter().enumerate() {
        if Stage::from_name(stage.text.as_bytes()).is_none() {
            errors.push(Invalid {
                at: stage.at,
                message: format!(
                    "{path}[{index}]: Invalid value: {}: allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
                    quoted(&stage.text)
                ),
            });
        }
    }
}

/// A list as Go's JSON encoder prints it.
fn json_list(entries: &[Entry]) -> String {
    let mut list = Vec::from(*b"[");
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        kaudit_event::push_json_string(&mut list, entry.text.as_bytes());
    }
    list.push(b']');
    String::from_utf8_lossy(&list).into_owned()
}

/// Source: k8s.io/apimachinery pkg/util/validation, IsDNS1123Subdomain.
fn subdomain_problems(group: &str) -> Vec<&'static str> {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &[u8]| {
        [label.first(), label.last()]
            .iter()
            .all(|end| end.is_some_and(is_letter))
            && label.iter().all(|byte| is_letter(byte) || *byte == b'-')
    };
    let mut problems = Vec::new();
    if group.len() > 253 {
        problems.push("must be no more than 253 characters");
    }
    if !group.as_bytes().split(|byte| *byte == b'.').all(is_label) {
        problems.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and \
             end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        );
    }
    problems
}
