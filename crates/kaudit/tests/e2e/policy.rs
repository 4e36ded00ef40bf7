//! `kaudit policy` as a person and as a script meet it.

use std::process::{Command, Output};

fn kaudit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(arguments)
        .output()
        .unwrap()
}

fn write(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.yaml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn every_preset_is_lint_clean() {
    for preset in ["recommended", "minimal", "cis", "gke-like"] {
        let text = kaudit(&["policy", "init", "--preset", preset]);
        assert!(text.status.success());
        let (_dir, path) = write(&String::from_utf8(text.stdout).unwrap());
        let lint = kaudit(&["policy", "lint", &path]);
        assert!(
            lint.status.success(),
            "{preset}: {}",
            String::from_utf8_lossy(&lint.stdout)
        );
    }
}

#[test]
fn lint_names_file_line_and_fix_and_exits_with_1() {
    let (_dir, path) = write(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n- level: RequestResponse\n  verbs: [create]\n",
    );
    let lint = kaudit(&["policy", "lint", &path]);
    let text = String::from_utf8(lint.stdout).unwrap();
    assert_eq!(lint.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("{path}:5")), "{text}");
}

#[test]
fn a_policy_that_does_not_load_exits_with_2_and_says_why() {
    let (_dir, path) = write("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Everything\n");
    let explain = kaudit(&["policy", "explain", &path, "--verb", "get", "--resource", "pods"]);
    assert_eq!(explain.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&explain.stderr).contains("Unsupported value: \"Everything\""));
}

#[test]
fn explain_names_the_rule_and_why_earlier_ones_did_not_match() {
    let (_dir, path) = write(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n  users: [bob]\n- level: Metadata\n  verbs: [get]\n",
    );
    let explain = kaudit(&[
        "policy",
        "explain",
        &path,
        "--user",
        "alice",
        "--uri",
        "GET /api/v1/pods/x",
        "-o",
        "json",
    ]);
    assert!(
        explain.status.success(),
        "{}",
        String::from_utf8_lossy(&explain.stderr)
    );
    let json: serde_json::Value = serde_json::from_slice(&explain.stdout).unwrap();
    assert_eq!(json["level"], "Metadata");
    assert_eq!(json["rule"], 1);
}

#[test]
fn explain_takes_the_groups_of_service_accounts_as_given() {
    let (_dir, path) = write(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n  userGroups: [\"system:serviceaccounts:ci\"]\n- level: Metadata\n",
    );
    let of = |user: &str| {
        let arguments = [
            "policy",
            "explain",
            &path,
            "--user",
            user,
            "--resource",
            "deployments.apps/scale",
        ];
        String::from_utf8(kaudit(&arguments).stdout).unwrap()
    };
    assert!(of("system:serviceaccount:ci:robot").contains("level None, by rules[0]"));
    let alice = of("alice");
    assert!(
        alice.contains("alice (in system:authenticated): get deployments/scale of apps"),
        "{alice}"
    );
    assert!(alice.contains("level Metadata, by rules[1]"), "{alice}");
}

#[test]
fn explain_reads_the_requests_of_a_log() {
    let (_dir, policy) = write(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n  verbs: [watch]\n- level: Metadata\n",
    );
    let log = tempfile::NamedTempFile::new().unwrap();
    let event = |verb: &str| {
        format!(
            "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"a\",\"stage\":\"ResponseComplete\",\"requestURI\":\"/api/v1/pods\",\"verb\":\"{verb}\",\"user\":{{\"username\":\"alice\"}},\"objectRef\":{{\"resource\":\"pods\",\"apiVersion\":\"v1\"}},\"requestReceivedTimestamp\":\"2026-01-01T00:00:00.000000Z\",\"stageTimestamp\":\"2026-01-01T00:00:00.000000Z\"}}\n"
        )
    };
    std::fs::write(log.path(), event("watch") + &event("list")).unwrap();
    let arguments = [
        "policy",
        "explain",
        &policy,
        "--event",
        log.path().to_str().unwrap(),
        "-o",
        "json",
    ];
    let explained = kaudit(&arguments);
    assert!(
        explained.status.success(),
        "{}",
        String::from_utf8_lossy(&explained.stderr)
    );
    let levels: Vec<String> = String::from_utf8(explained.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            json["level"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(levels, ["None", "Metadata"]);
}

#[test]
fn fmt_checks_prints_and_writes() {
    let (_dir, path) = write("kind: Policy\napiVersion: audit.k8s.io/v1\nrules:\n- level: Metadata # all\n");
    let check = kaudit(&["policy", "fmt", "--check", &path]);
    assert_eq!(check.status.code(), Some(1));
    let printed = kaudit(&["policy", "fmt", &path]);
    assert!(kaudit(&["policy", "fmt", "--write", &path]).status.success());
    let expected = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n  - level: Metadata # all\n";
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), expected);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    assert!(kaudit(&["policy", "fmt", "--check", &path]).status.success());
}
