//! kubectl through the gateway to the embedded API server, and what both recorded.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::Value;

use crate::dev::{Dev, events, kubectl_is_missing};

#[track_caller]
fn succeeds(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[track_caller]
fn fails(output: &Output, expected: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it succeeded");
    assert!(text.contains(expected), "`{text}` does not contain `{expected}`");
}

/// Final and other events by auditID and stage, so that two logs can be joined.
fn by_request(events: &[Value]) -> BTreeMap<(String, String), &Value> {
    events
        .iter()
        .map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            ((text("auditID"), text("stage")), event)
        })
        .collect()
}

#[test]
fn kubectl_works_through_the_gateway_and_both_logs_agree() {
    if kubectl_is_missing() {
        return;
    }
    let dev = Dev::start(&["--no-traffic"]);
    let admin = "kaudit-admin";
    succeeds(&dev.kubectl(admin, &["create", "namespace", "e2e"]));
    succeeds(&dev.kubectl(
        admin,
        &[
            "-n",
            "e2e",
            "create",
            "configmap",
            "settings",
            "--from-literal=colour=blue",
        ],
    ));
    succeeds(&dev.kubectl(
        admin,
        &[
            "-n",
            "e2e",
            "create",
            "secret",
            "generic",
            "db",
            "--from-literal=password=x",
        ],
    ));
    assert!(succeeds(&dev.kubectl(admin, &["-n", "e2e", "get", "configmaps"])).contains("settings"));
    succeeds(&dev.kubectl(
        admin,
        &[
            "-n",
            "e2e",
            "patch",
            "configmap",
            "settings",
            "-p",
            r#"{"data":{"colour":"red"}}"#,
        ],
    ));
    succeeds(&dev.kubectl(admin, &["-n", "e2e", "delete", "configmap", "settings"]));
    fails(
        &dev.kubectl(admin, &["-n", "e2e", "get", "configmap", "settings"]),
        "NotFound",
    );
    fails(
        &dev.kubectl("kaudit-viewer", &["-n", "e2e", "get", "secret", "db"]),
        "Forbidden",
    );

    let paths = (dev.path("gateway-audit.log"), dev.path("sandbox-audit.log"));
    let (status, _dir) = dev.interrupt();
    assert!(status.success(), "{status}");

    let (gateway, sandbox) = (events(&paths.0), events(&paths.1));
    let (gateway, sandbox) = (by_request(&gateway), by_request(&sandbox));
    let mut joined = 0;
    for (key, ours) in &gateway {
        let Some(theirs) = sandbox.get(key) else { continue };
        joined += 1;
        for field in [
            "level",
            "verb",
            "requestURI",
            "userAgent",
            "objectRef",
            "impersonatedUser",
        ] {
            assert_eq!(ours[field], theirs[field], "{field} of {key:?}");
        }
        for field in ["username", "uid", "groups"] {
            assert_eq!(
                ours["user"][field], theirs["user"][field],
                "user.{field} of {key:?}"
            );
        }
        assert_eq!(
            ours["responseStatus"]["code"], theirs["responseStatus"]["code"],
            "code of {key:?}"
        );
        assert_eq!(
            ours["responseStatus"]["reason"], theirs["responseStatus"]["reason"],
            "reason of {key:?}"
        );
        if key.1 == "ResponseComplete" {
            let decision = "authorization.k8s.io/decision";
            assert_eq!(
                ours["annotations"][decision], theirs["annotations"][decision],
                "decision of {key:?}"
            );
        }
    }
    assert!(joined >= 16, "only {joined} events could be joined");

    for (id, stage) in gateway.keys() {
        if stage == "RequestReceived" {
            let end = (id.clone(), "ResponseComplete".to_owned());
            assert!(gateway.contains_key(&end), "{id} has no final event");
        }
    }
}
