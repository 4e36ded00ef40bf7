//! What the whole policy records and what it does not, asked with made-up requests.

use kaudit_event::{Level, Stage};

use super::super::{Policy, PolicyRule, stage_set};
use super::probe::{About, Probe};
use super::{Finding, LintCode, names};

pub(super) fn check(policy: &Policy, findings: &mut Vec<Finding>) {
    for (index, rule) in policy.rules().iter().enumerate() {
        match rule.level.value {
            Level::None => {
                hidden_mutation(policy, index, rule, findings);
                hidden_secret_read(policy, index, rule, findings);
            }
            Level::Request | Level::RequestResponse => sensitive_bodies(policy, index, rule, findings),
            Level::Metadata => {}
        }
        if rule.level.value > Level::None {
            forgotten_subresources(policy, index, rule, findings);
        }
    }
    no_catch_all(policy, findings);
    doubled_volume(policy, findings);
    omitted_outcome(policy, findings);
}

const fn about(group: &'static str, resource: &'static str, namespace: &'static str) -> About<'static> {
    sub(group, resource, "", namespace)
}

const fn sub(
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    namespace: &'static str,
) -> About<'static> {
    About {
        group,
        resource,
        subresource,
        namespace,
    }
}

const WRITES: &[&str] = &["create", "update", "patch"];
const READS_AND_WRITES: &[&str] = &["create", "update", "patch", "get", "list", "deletecollection"];

/// Resources whose bodies hold credentials: the verbs whose request holds them, and the verbs where
/// request or response does.
const SENSITIVE: &[(About<'static>, &[&str], &[&str])] = &[
    (about("", "secrets", "default"), WRITES, READS_AND_WRITES),
    (about("", "configmaps", "default"), WRITES, READS_AND_WRITES),
    (
        about("authentication.k8s.io", "tokenreviews", ""),
        &["create"],
        &["create"],
    ),
    (sub("", "serviceaccounts", "token", "default"), &[], &["create"]),
];

fn sensitive_bodies(policy: &Policy, index: usize, rule: &PolicyRule, findings: &mut Vec<Finding>) {
    let mut found: Vec<(About<'_>, Probe)> = Vec::new();
    for (about, at_request, at_response) in SENSITIVE {
        let verbs = match rule.level.value {
            Level::Request => at_request,
            _ => at_response,
        };
        if let Some(probe) = Probe::decided_by(policy, index, verbs, &[*about]) {
            found.push((*about, probe));
        }
    }
    let Some((_, witness)) = found.first() else {
        return;
    };
    let patterns: Vec<String> = found.iter().map(|(about, _)| about.pattern()).collect();
    let mut entries: Vec<String> = Vec::new();
    for group in ["", "authentication.k8s.io"] {
        let of_group: Vec<String> = found
            .iter()
            .filter(|(about, _)| about.group == group)
            .map(|(about, _)| about.pattern())
            .collect();
        if !of_group.is_empty() {
            entries.push(format!(
                "{{group: {group:?}, resources: [{}]}}",
                of_group.join(", ")
            ));
        }
    }
    findings.push(Finding {
        code: LintCode::SensitiveBody,
        at: rule.level.at,
        path: format!("rules[{index}].level"),
        message: format!(
            "level {} records the bodies of {}; for one: {}",
            rule.level.value.as_str(),
            patterns.join(", "),
            witness.describe()
        ),
        fix: Some(format!(
            "before it, add a rule with level: Metadata and resources: [{}]",
            entries.join(", ")
        )),
    });
}

/// What is worth recording when it changes.
const OBJECTS: &[About<'static>] = &[
    about("rbac.authorization.k8s.io", "clusterrolebindings", ""),
    about("rbac.authorization.k8s.io", "rolebindings", "default"),
    about("", "secrets", "default"),
    about("", "configmaps", "default"),
    about("", "pods", "default"),
    sub("", "pods", "exec", "default"),
    about("", "serviceaccounts", "default"),
    about("", "namespaces", "default"),
    about("", "nodes", ""),
    about("", "services", "default"),
    about("apps", "deployments", "default"),
    about("apps", "daemonsets", "default"),
    about("batch", "jobs", "default"),
    about(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        "",
    ),
    about("apiextensions.k8s.io", "customresourcedefinitions", ""),
    about("networking.k8s.io", "networkpolicies", "default"),
];

fn hidden_mutation(policy: &Policy, index: usize, rule: &PolicyRule, findings: &mut Vec<Finding>) {
    if is_about_control_plane(rule) {
        return;
    }
    let mut witness = Probe::decided_by(policy, index, names::MUTATING_VERBS, OBJECTS);
    if witness.is_none() {
        let own = own_objects(rule);
        witness = Probe::decided_by(policy, index, names::MUTATING_VERBS, &own);
    }
    let Some(witness) = witness else { return };
    findings.push(Finding {
        code: LintCode::HiddenMutation,
        at: rule.level.at,
        path: format!("rules[{index}].level"),
        message: format!("changes leave no event; for one: {}", witness.describe()),
        fix: Some(match rule.verbs.as_slice() {
            [] => "add verbs: [get, list, watch] to the rule, or use level: Metadata".to_owned(),
            _ => format!(
                "remove {} from the rule's verbs, or use level: Metadata",
                witness.verb()
            ),
        }),
    });
}

/// The resources that the rule itself names, but for those that change all the time and tell nothing.
fn own_objects(rule: &PolicyRule) -> Vec<About<'_>> {
    let mut own = Vec::new();
    for entry in &rule.resources {
        let group = match entry.group.value.as_str() {
            "*" => "example.com",
            group => group,
        };
        let patterns = match entry.resources.as_slice() {
            [] => vec!["examples"],
            patterns => patterns.iter().map(|pattern| pattern.value.as_str()).collect(),
        };
        for pattern in patterns {
            let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
            let is_noise = subresource == "status"
                || subresource == "finalizers"
                || matches!(
                    (group, resource),
                    ("" | "events.k8s.io", "events")
                        | ("coordination.k8s.io", "leases")
                        | ("", "endpoints")
                        | ("discovery.k8s.io", "endpointslices")
                        | ("authentication.k8s.io" | "authorization.k8s.io", _)
                );
            let whole = |part: &str| {
                if part == "*" {
                    "examples".to_owned()
                } else {
                    part.to_owned()
                }
            };
            if is_noise || whole(resource) != resource || subresource == "*" {
                continue;
            }
            own.push(About {
                group,
                resource,
                subresource,
                namespace: "default",
            });
        }
    }
    if rule.resources.is_empty() || rule.resources.iter().any(|entry| entry.group.value == "*") {
        own.push(about("example.com", "examples", "default"));
    }
    own
}

/// Whether only components of the cluster itself are meant.
fn is_about_control_plane(rule: &PolicyRule) -> bool {
    !rule.users.is_empty()
        && rule.users.iter().all(|user| {
            let name = user.value.as_str();
            matches!(
                name,
                "system:apiserver"
                    | "system:aggregator"
                    | "system:kube-controller-manager"
                    | "system:kube-scheduler"
                    | "system:kube-proxy"
                    | "system:unsecured"
                    | "system:volume-scheduler"
            ) || name.starts_with("system:serviceaccount:kube-system:")
        })
}

fn hidden_secret_read(policy: &Policy, index: usize, rule: &PolicyRule, findings: &mut Vec<Finding>) {
    const READS: &[&str] = &["get", "list", "watch"];
    if is_about_control_plane(rule) {
        return;
    }
    let is_elsewhere =
        |namespace: &super::super::Stated<String>| !matches!(namespace.value.as_str(), "kube-system" | "");
    if !rule.namespaces.is_empty() && rule.namespaces.iter().all(is_elsewhere) {
        return;
    }
    let Some(witness) = Probe::decided_by(policy, index, READS, &[about("", "secrets", "kube-system")])
    else {
        return;
    };
    findings.push(Finding {
        code: LintCode::HiddenSecretRead,
        at: rule.level.at,
        path: format!("rules[{index}].level"),
        message: format!(
            "reading Secrets of the cluster leaves no event; for one: {}",
            witness.describe()
        ),
        fix: Some(
            "before it, add a rule with level: Metadata and resources: [{group: \"\", resources: [secrets]}]"
                .to_owned(),
        ),
    });
}

type VerbAndPart = (&'static str, &'static str);

/// Subresources that do something of their own, and the verb they are used with.
const SUBRESOURCES: &[(&str, &str, &[VerbAndPart])] = &[
    (
        "",
        "pods",
        &[
            ("create", "exec"),
            ("create", "attach"),
            ("create", "portforward"),
            ("create", "proxy"),
            ("create", "eviction"),
            ("patch", "ephemeralcontainers"),
            ("get", "log"),
        ],
    ),
    ("", "services", &[("create", "proxy")]),
    ("", "nodes", &[("create", "proxy")]),
    ("", "serviceaccounts", &[("create", "token")]),
    ("apps", "deployments", &[("update", "scale")]),
    ("apps", "statefulsets", &[("update", "scale")]),
];

fn forgotten_subresources(policy: &Policy, index: usize, rule: &PolicyRule, findings: &mut Vec<Finding>) {
    for entry in &rule.resources {
        for pattern in &entry.resources {
            let Some((group, resource, parts)) = SUBRESOURCES.iter().find(|(group, resource, _)| {
                pattern.value == *resource && (entry.group.value == *group || entry.group.value == "*")
            }) else {
                continue;
            };
            let namespace = if *resource == "nodes" { "" } else { "default" };
            let plain = [About {
                group,
                resource,
                subresource: "",
                namespace,
            }];
            let (mut unrecorded, mut lower): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
            for (verb, part) in *parts {
                let Some(probe) = Probe::decided_by(policy, index, &[verb], &plain) else {
                    continue;
                };
                let probe = probe.with_subresource(verb, part);
                let answer = policy.evaluate(&probe.attributes());
                let is_named = answer
                    .rule
                    .and_then(|rule| policy.rules().get(rule))
                    .is_some_and(|rule| {
                        rule.resources
                            .iter()
                            .flat_map(|entry| &entry.resources)
                            .any(|pattern| pattern.value.contains('/'))
                    });
                if answer.level == Level::None && !is_named {
                    unrecorded.push(format!("{resource}/{part}"));
                } else if answer.level < rule.level.value && !is_named {
                    lower.push(format!("{resource}/{part} (level {})", answer.level.as_str()));
                }
            }
            let mut push = |code, message| {
                findings.push(Finding {
                    code,
                    at: pattern.at,
                    path: format!("rules[{index}].resources"),
                    message,
                    fix: Some(format!(
                        "name the subresources you mean, or write {resource}/*, which is also {resource} itself"
                    )),
                });
            };
            if !unrecorded.is_empty() {
                push(
                    LintCode::SubresourceUnrecorded,
                    format!(
                        "{:?} is recorded here, but nothing records {}",
                        pattern.value,
                        unrecorded.join(", ")
                    ),
                );
            }
            if !lower.is_empty() {
                push(
                    LintCode::SubresourceForgotten,
                    format!("{:?} does not include {}", pattern.value, lower.join(", ")),
                );
            }
        }
    }
}

fn no_catch_all(policy: &Policy, findings: &mut Vec<Finding>) {
    let unconditional = |rule: &PolicyRule| {
        rule.users.is_empty()
            && rule.user_groups.is_empty()
            && rule.verbs.is_empty()
            && rule.namespaces.is_empty()
    };
    let (mut resources, mut paths) = (false, false);
    for rule in policy.rules().iter().filter(|rule| unconditional(rule)) {
        let everything = rule.resources.is_empty() && rule.non_resource_urls.is_empty();
        resources |= everything
            || rule.resources.iter().any(|entry| {
                entry.group.value == "*"
                    && (entry.resources.is_empty()
                        || entry.resources.iter().any(|pattern| pattern.value == "*"))
            });
        paths |= everything
            || rule
                .non_resource_urls
                .iter()
                .any(|url| matches!(url.value.as_str(), "*" | "/*"));
    }
    let missing = match (resources, paths) {
        (true, true) => return,
        (false, false) => "requests",
        (false, true) => "requests about resources",
        (true, false) => "requests that are not about a resource",
    };
    let Some(last) = policy.rules().last() else { return };
    findings.push(Finding {
        code: LintCode::NoCatchAll,
        at: last.at,
        path: "rules".to_owned(),
        message: format!("{missing} that match none of these rules leave no event"),
        fix: Some("end with a rule that has nothing but level: Metadata".to_owned()),
    });
}

fn doubled_volume(policy: &Policy, findings: &mut Vec<Finding>) {
    let base = policy.omit_stages().iter().map(|stage| stage.value).collect();
    let recorded = || {
        policy
            .rules()
            .iter()
            .filter(|rule| rule.level.value > Level::None)
    };
    let doubled = || recorded().filter(|rule| !stage_set(rule, base).contains(Stage::RequestReceived));
    let Some(first) = doubled().next() else { return };
    findings.push(Finding {
        code: LintCode::DoubledVolume,
        at: first.at,
        path: "omitStages".to_owned(),
        message: format!(
            "{} of {} recording rules make two events of every request",
            doubled().count(),
            recorded().count()
        ),
        fix: Some("add omitStages: [RequestReceived] to the policy".to_owned()),
    });
}

fn omitted_outcome(policy: &Policy, findings: &mut Vec<Finding>) {
    let mut push = |stage: &super::super::Stated<Stage>, path: String| {
        let message = match stage.value {
            Stage::RequestReceived => return,
            Stage::ResponseStarted => {
                "failed authentication makes events of this stage only: without it, refused credentials leave no trace"
            }
            Stage::ResponseComplete => "without this stage no event says how a request ended",
            Stage::Panic => "without this stage a request that crashes its handler has no last event",
        };
        findings.push(Finding {
            code: LintCode::OmittedOutcome,
            at: stage.at,
            path,
            message: format!("{} is omitted: {message}", stage.value.as_str()),
            fix: Some(format!("remove {}", stage.value.as_str())),
        });
    };
    for stage in policy.omit_stages() {
        push(stage, "omitStages".to_owned());
    }
    for (index, rule) in policy.rules().iter().enumerate() {
        if rule.level.value > Level::None {
            for stage in &rule.omit_stages {
                push(stage, format!("rules[{index}].omitStages"));
            }
        }
    }
}
