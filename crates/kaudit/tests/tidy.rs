//! Checks that the workspace obeys the layer table in `ARCHITECTURE.md`, and that the crates others
//! embed stay light.

#![expect(clippy::expect_used, reason = "tests stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Reads the rows of the layer table: a crate's name, then every name it may depend on.
fn allowed(markdown: &str) -> BTreeMap<String, BTreeSet<String>> {
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    markdown
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split_once("` |"))
        .map(|(name, rest)| (name.to_owned(), names(rest)))
        .collect()
}

/// A package's name in the table, if it is one of ours.
fn short(name: &Value) -> Option<String> {
    match name.as_str()? {
        "kaudit" => Some("kaudit".to_owned()),
        name => name.strip_prefix("kaudit-").map(str::to_owned),
    }
}

/// Workspace crates and the workspace crates they depend on, dev-dependencies left out.
fn actual(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|package| {
            let inner = package["dependencies"]
                .as_array()?
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .filter_map(|dependency| short(&dependency["name"]))
                .collect();
            Some((short(&package["name"])?, inner))
        })
        .collect()
}

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn crates_depend_only_downwards() {
    let metadata = cargo(&["metadata", "--no-deps", "--offline", "--format-version=1"]);
    let actual = actual(&serde_json::from_slice(&metadata).expect("cargo prints JSON"));
    let markdown = std::fs::read_to_string(format!("{ROOT}/ARCHITECTURE.md")).expect("file exists");
    let allowed = allowed(&markdown);

    assert_eq!(
        actual.keys().collect::<Vec<_>>(),
        allowed.keys().collect::<Vec<_>>(),
        "every crate has a row in ARCHITECTURE.md, and every row a crate"
    );
    for (name, dependencies) in &actual {
        let extra: Vec<_> = dependencies.difference(&allowed[name]).collect();
        assert!(extra.is_empty(), "`{name}` may not depend on {extra:?}");
    }
}

#[test]
fn an_undeclared_edge_is_noticed() {
    let table = allowed("| `a` | `b` |\n| `b` | — |\n");
    assert_eq!(table["a"], BTreeSet::from(["b".to_owned()]));
    assert!(table["b"].is_empty());
}

#[test]
fn embeddable_crates_pull_in_no_tls_no_client_and_no_server() {
    const FORBIDDEN: [&str; 7] = [
        "hyper",
        "hyper-util",
        "rustls",
        "tokio-rustls",
        "aws-lc-rs",
        "ring",
        "openssl",
    ];
    for package in ["kaudit-event", "kaudit-sink", "kaudit-policy", "kaudit-tower"] {
        let tree = cargo(&[
            "tree",
            "--offline",
            "--package",
            package,
            "--edges",
            "normal",
            "--prefix",
            "none",
        ]);
        let tree = String::from_utf8(tree).expect("cargo prints UTF-8");
        let found: Vec<_> = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|name| FORBIDDEN.contains(name))
            .collect();
        assert!(found.is_empty(), "`{package}` pulls in {found:?}");
    }
}

#[test]
fn policy_knows_no_http_library() {
    let tree = cargo(&[
        "tree",
        "--offline",
        "--package",
        "kaudit-policy",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]);
    let tree = String::from_utf8(tree).expect("cargo prints UTF-8");
    assert!(
        !tree
            .lines()
            .any(|line| line.starts_with("http ") || line.starts_with("tokio ")),
        "{tree}"
    );
}
