//! docs/cookbook.md says what the commands in it print.

use std::path::Path;
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// What a shell in the repository's root prints.
fn shell(line: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_kaudit"));
    let path = std::env::join_paths(
        std::iter::once(binary.parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let output = Command::new("sh")
        .args(["-c", line])
        .env("PATH", path.unwrap())
        .env("LOGS", "testdata/real/rr-all.audit.jsonl.zst")
        .current_dir(ROOT)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_cookbooks_commands_print_what_it_says() {
    let file = Path::new(ROOT).join("docs/cookbook.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut expected = String::new();
    let mut commands = 0;
    let mut is_console = false;
    for line in text.lines() {
        if is_console && line.starts_with("$ ") {
            expected.push_str(line);
            expected.push('\n');
            expected.push_str(&shell(line.strip_prefix("$ ").unwrap()));
            commands += 1;
            continue;
        }
        if line.starts_with("```") {
            is_console = line == "```console";
        } else if is_console {
            continue;
        }
        expected.push_str(line);
        expected.push('\n');
    }
    assert!(commands > 10);
    if std::env::var_os("KAUDIT_WRITE_DOCS").is_some() {
        std::fs::write(&file, &expected).unwrap();
        return;
    }
    assert!(
        text == expected,
        "the commands print something else now: see what KAUDIT_WRITE_DOCS=1 makes of docs/cookbook.md"
    );
}
