//! `kaudit setup` as a person and as a script meet it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn setup(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .arg("setup")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

const KUBEADM: [&str; 5] = [
    "kubeadm",
    "--cluster",
    "prod",
    "--collector",
    "https://kaudit.example",
];

#[test]
fn pieces_are_written_once_and_secrets_are_private() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "s3cret\n").unwrap();
    let arguments = [&KUBEADM[..], &["--token-file", "token", "--output", "out"]].concat();
    let first = setup(dir.path(), &arguments);
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    assert!(!String::from_utf8_lossy(&first.stdout).contains("s3cret"));

    let mode = |name: &str| {
        let path = dir.path().join("out").join(name);
        path.metadata().unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("webhook.kubeconfig"), 0o600);
    assert_eq!(mode("kubeadm-config.yaml") & 0o600, 0o600);
    let kubeconfig = dir.path().join("out/webhook.kubeconfig");
    assert!(std::fs::read_to_string(&kubeconfig).unwrap().contains("s3cret"));

    std::fs::write(&kubeconfig, "mine").unwrap();
    let second = setup(dir.path(), &arguments);
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("--force"));
    assert_eq!(std::fs::read_to_string(&kubeconfig).unwrap(), "mine");

    let forced = setup(dir.path(), &[&arguments[..], &["--force"]].concat());
    assert!(forced.status.success());
    assert!(std::fs::read_to_string(&kubeconfig).unwrap().contains("s3cret"));
    assert_eq!(mode("webhook.kubeconfig"), 0o600);
}

#[test]
fn check_exits_with_0_1_or_2() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [&KUBEADM[..], &["--output", "."]].concat();
    assert!(setup(dir.path(), &arguments).status.success());
    let check = |files: &[&str]| setup(dir.path(), &[&["--check"], files].concat());

    let clean = check(&["policy.yaml", "webhook.kubeconfig", "kubeadm-config.yaml"]);
    assert_eq!(
        clean.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&clean.stdout)
    );
    assert!(String::from_utf8_lossy(&clean.stdout).contains("policy.yaml: nothing found"));

    let path = dir.path().join("webhook.kubeconfig");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("https://", "http://")).unwrap();
    let found = setup(dir.path(), &["--check", "webhook.kubeconfig", "-o", "json"]);
    assert_eq!(found.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(json["code"], "KS051");
    assert_eq!(json["line"], 6);

    std::fs::write(&path, "a: [").unwrap();
    assert_eq!(check(&["webhook.kubeconfig"]).status.code(), Some(2));
    assert_eq!(check(&["absent"]).status.code(), Some(2));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_flag_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["k3s", "--cluster", "c"][..], "--collector is missing"),
        (&["k3s", "--cluster", "c d", "--mode", "log"], "--cluster: `c d`"),
        (
            &["k3s", "--cluster", "c", "--collector", "http://h"],
            "is not https",
        ),
        (
            &["k3s", "--cluster", "c", "--mode", "log", "--policy", "recomended"],
            "neither a preset",
        ),
        (&["k3s"], "--cluster"),
        (&["openshift", "--cluster", "c"], "possible values"),
    ] {
        let output = setup(dir.path(), arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}
