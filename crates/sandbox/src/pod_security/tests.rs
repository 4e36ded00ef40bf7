//! Each rule, the labels, and what a real server wrote.

use serde_json::json;

use super::*;

fn standard(text: &str) -> Standard {
    Standard::parse(text).unwrap()
}

fn namespace(labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), json!(value)))
        .collect();
    json!({"metadata": {"name": "ns", "labels": labels}})
}

/// A pod that every standard admits, with changes.
fn careful(spec: &Value, container: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        }}],
    }});
    merge(&mut pod["spec"], spec);
    merge(&mut pod["spec"]["containers"][0], container);
    pod
}

fn merge(target: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().unwrap() {
        if value.is_object() && target.get(key).is_some_and(Value::is_object) {
            merge(&mut target[key], value);
        } else {
            target[key] = value.clone();
        }
    }
}

#[test]
fn a_careful_pod_breaks_no_rule() {
    for level in ["baseline:latest", "restricted:latest", "restricted:v1.20"] {
        assert_eq!(standard(level).violations(&careful(&json!({}), &json!({}))), None);
    }
}

#[test]
fn each_rule_has_its_text() {
    let none = json!({});
    let context = |value: Value| json!({"securityContext": value});
    let cases: Vec<(&str, Value, Value, &str)> = vec![
        (
            "baseline",
            json!({"hostPID": true, "hostNetwork": true}),
            none.clone(),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            "baseline",
            json!({"volumes": [{"name": "v", "hostPath": {}}]}),
            none.clone(),
            "hostPath volumes (volume \"v\")",
        ),
        (
            "restricted",
            json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}]}),
            none.clone(),
            "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
        (
            "baseline",
            none.clone(),
            json!({"ports": [{"hostPort": 80}, {"hostPort": 9}]}),
            "hostPort (container \"c\" uses hostPorts 80, 9)",
        ),
        (
            "baseline",
            none.clone(),
            context(json!({"privileged": true})),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            "baseline",
            none.clone(),
            context(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            "restricted",
            none.clone(),
            context(json!({"capabilities": {"add": ["CHOWN"], "drop": []}})),
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; \
             container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            "baseline",
            none.clone(),
            context(json!({"procMount": "Unmasked"})),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            "baseline",
            context(json!({"seLinuxOptions": {"type": "spc_t", "user": "u", "role": "r"}})),
            none.clone(),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set; \
             role may not be set)",
        ),
        (
            "baseline",
            context(json!({"appArmorProfile": {"type": "Unconfined"}})),
            none.clone(),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            "baseline",
            context(json!({"seccompProfile": {"type": "Unconfined"}})),
            none.clone(),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            "restricted",
            context(json!({"seccompProfile": null})),
            none.clone(),
            "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \
             \"RuntimeDefault\" or \"Localhost\")",
        ),
        (
            "baseline",
            context(json!({"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]})),
            none.clone(),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            "baseline",
            none.clone(),
            json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
        (
            "baseline",
            context(json!({"windowsOptions": {"hostProcess": true}})),
            none.clone(),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            "restricted",
            none.clone(),
            context(json!({"allowPrivilegeEscalation": null})),
            "allowPrivilegeEscalation != false (container \"c\" must set \
             securityContext.allowPrivilegeEscalation=false)",
        ),
        (
            "restricted",
            context(json!({"runAsNonRoot": null})),
            none.clone(),
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            "restricted",
            none.clone(),
            context(json!({"runAsNonRoot": false})),
            "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
        ),
        (
            "restricted",
            context(json!({"runAsUser": 0})),
            context(json!({"runAsUser": 0})),
            "runAsUser=0 (pod and container \"c\" must not set runAsUser=0)",
        ),
    ];
    for (level, spec, container, expected) in cases {
        let pod = careful(&spec, &container);
        let found = standard(&format!("{level}:latest")).violations(&pod);
        assert_eq!(found.as_deref(), Some(expected));
        assert_eq!(standard("privileged:latest").violations(&pod), None);
    }
}

#[test]
fn rules_hold_from_their_release_on() {
    let pod = careful(&json!({}), &json!({"securityContext": {"runAsUser": 0}}));
    assert!(standard("restricted:v1.22").violations(&pod).is_none());
    assert!(standard("restricted:v1.23").violations(&pod).is_some());
    let pod = careful(
        &json!({"hostUsers": false}),
        &json!({"securityContext": {"runAsUser": 0}}),
    );
    assert!(standard("restricted:v1.34").violations(&pod).is_some());
    assert!(standard("restricted:latest").violations(&pod).is_none());
    let pod = careful(
        &json!({"os": {"name": "windows"}}),
        &json!({"securityContext": {"allowPrivilegeEscalation": null}}),
    );
    assert!(standard("restricted:v1.24").violations(&pod).is_some());
    assert!(standard("restricted:v1.25").violations(&pod).is_none());
}

#[test]
fn labels_name_the_modes() {
    let (modes, causes) = Modes::of(&namespace(&[
        ("enforce", "restricted"),
        ("enforce-version", "v1.30"),
    ]));
    assert!(causes.is_empty());
    assert_eq!(modes.enforce.to_string(), "restricted:v1.30");
    assert_eq!(modes.audit.to_string(), "privileged:latest");
    assert_eq!(modes.warn.to_string(), "restricted:v1.30");
    let (modes, _) = Modes::of(&namespace(&[("enforce", "baseline"), ("warn", "privileged")]));
    assert_eq!(modes.warn.to_string(), "privileged:latest");
    let (modes, causes) = Modes::of(&namespace(&[
        ("enforce", "bogus"),
        ("audit", "bogus"),
        ("warn-version", "1.2"),
    ]));
    assert_eq!(modes.enforce.to_string(), "restricted:latest");
    assert_eq!(modes.audit.to_string(), "privileged:latest");
    let texts: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    assert_eq!(
        texts,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"bogus\": must be one of \
             privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"bogus\": must be one of privileged, \
             baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.2\": must be \"latest\" or \
             \"v1.x\"",
        ]
    );
}

#[test]
fn a_refused_pod_is_noted_and_not_warned_of() {
    let bad = json!({"metadata": {}, "spec": {"hostPID": true, "containers": [{"name": "c"}]}});
    let all = namespace(&[
        ("enforce", "baseline"),
        ("audit", "baseline"),
        ("warn", "baseline"),
    ]);
    let verdict = pod(&all, &bad, None);
    assert_eq!(
        verdict.refusal.as_deref(),
        Some("violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)")
    );
    assert_eq!(verdict.warning, None);
    let keys: Vec<&str> = verdict.annotations.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "pod-security.kubernetes.io/enforce-policy",
            "pod-security.kubernetes.io/audit-violations"
        ]
    );
    let soft = pod(&namespace(&[("warn", "baseline")]), &bad, None);
    assert_eq!(
        soft.warning.as_deref(),
        Some("would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)")
    );
    assert_eq!(soft.refusal, None);
}

#[test]
fn only_new_images_are_looked_at_again() {
    let all = namespace(&[("enforce", "baseline")]);
    let before =
        json!({"metadata": {}, "spec": {"hostPID": true, "containers": [{"name": "c", "image": "1"}]}});
    let mut after = before.clone();
    after["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(pod(&all, &after, Some(&before)), Verdict::default());
    after["spec"]["containers"][0]["image"] = json!("2");
    assert!(pod(&all, &after, Some(&before)).refusal.is_some());
}

#[test]
fn a_stricter_level_warns_of_pods_that_are_there() {
    let named = |name: &str| json!({"metadata": {"name": name}, "spec": {"hostPID": true}});
    let pods = [named("b"), named("a"), named("c")];
    let warnings = namespace_warnings(
        &namespace(&[("enforce", "baseline")]),
        &namespace(&[]),
        pods.iter(),
    );
    assert_eq!(
        warnings,
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 2 other pods): host namespaces",
        ]
    );
    let relaxed = namespace_warnings(
        &namespace(&[("enforce", "baseline")]),
        &namespace(&[("enforce", "restricted")]),
        pods.iter(),
    );
    assert!(relaxed.is_empty());
}

/// The standard and the violations that a text names.
fn parts(text: &str) -> Option<(Standard, &str)> {
    let (_, rest) = text.split_once("PodSecurity \"")?;
    let (name, violations) = rest.split_once("\": ")?;
    Some((standard(name), violations))
}

#[test]
fn real_log_violations_are_found_in_the_recorded_pods() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for event in crate::rbac::real_log_events() {
        let pods = event.pointer("/objectRef/resource") == Some(&json!("pods"));
        let Some(object) = event
            .get("requestObject")
            .filter(|_| pods && event["verb"] == "create")
        else {
            continue;
        };
        if object["kind"] != "Pod" {
            continue;
        }
        let message = text(&event, "/responseStatus/message");
        let noted = text(
            &event,
            "/annotations/pod-security.kubernetes.io~1audit-violations",
        );
        let enforced = text(&event, "/annotations/pod-security.kubernetes.io~1enforce-policy");
        for (text, standard) in [(message, Standard::parse(enforced)), (noted, None)] {
            let expected = parts(text);
            let admitted = event["responseStatus"]["code"] == 201;
            let Some(standard) = expected
                .map(|(standard, _)| standard)
                .or(standard.filter(|_| admitted))
            else {
                continue;
            };
            seen += 1;
            let found = standard.violations(object);
            if found.as_deref() != expected.map(|(_, violations)| violations) {
                wrong.push((text.to_owned(), found));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {seen}: {wrong:#?}", wrong.len());
    assert!(seen > 5, "{seen}");
}
