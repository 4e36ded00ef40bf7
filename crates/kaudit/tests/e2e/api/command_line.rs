//! What the command line answers from files and from a server.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::Running;
use super::follow::append;

const EVER: [&str; 2] = ["--since", "2020-01-01"];

fn kaudit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(arguments)
        .output()
        .unwrap()
}

/// The same without the hashes of masked values, whose key nobody keeps.
fn undigested(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(9).position(|window| window == b"(masked: ") {
        let end = at + rest[at..].iter().position(|byte| *byte == b')').unwrap();
        let mark = &rest[at..end];
        let length = mark.iter().position(|byte| *byte == b',').unwrap_or(mark.len());
        out.extend_from_slice(&rest[..at + length]);
        rest = &rest[end..];
    }
    out.extend_from_slice(rest);
    out
}

/// Asks both and compares what they print and how they end.
#[track_caller]
fn same(running: &Running, arguments: &[&str]) -> String {
    let from = running.log.to_str().unwrap();
    let online = running.process.ask(arguments);
    let offline = kaudit(&[arguments, &["--from", from]].concat());
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        online.status.code(),
        offline.status.code(),
        "{arguments:?}: {} and {}",
        said(&online),
        said(&offline)
    );
    let is_same = undigested(&online.stdout) == undigested(&offline.stdout);
    let (online, offline) = (text(&online), text(&offline));
    if !is_same {
        let mut lines = online.lines().zip(offline.lines());
        let other = lines.find(|(online, offline)| online != offline);
        panic!(
            "{arguments:?}: {} and {} lines, first {other:?}",
            online.lines().count(),
            offline.lines().count()
        );
    }
    offline
}

#[test]
fn questions_have_the_same_answers_from_a_server_and_from_files() {
    let running = Running::with("mixed", "{sealAfter: 1s}");
    let asked = |arguments: &[&str]| {
        let text = same(&running, &[arguments, &EVER[..]].concat());
        assert!(!text.is_empty(), "{arguments:?} prints nothing");
        text
    };
    for filter in [
        "",
        "responseStatus.code >= 400",
        "verb: delete and objectRef.resource: secrets",
        "not stage: RequestReceived and user.username: *@example.com",
        "\"alice\"",
        "objectRef.name~\"^kube-.*\"",
    ] {
        for (output, order) in [
            ("ndjson", "newest"),
            ("csv", "oldest"),
            ("raw", "newest"),
            ("json", "oldest"),
        ] {
            asked(&["query", filter, "--order", order, "-o", output]);
        }
        asked(&["query", filter, "--count"]);
        asked(&["top", "user.username", filter, "-o", "json"]);
        asked(&["top", "responseStatus.code", filter, "-o", "csv", "--limit", "3"]);
        asked(&["top", "user.groups", filter, "--limit", "0"]);
        asked(&["compare", filter, "-o", "json"]);
        asked(&[
            "compare",
            filter,
            "--fields",
            "verb,user.username",
            "--limit",
            "5",
        ]);
    }
    for output in ["yaml", "sentence"] {
        asked(&["query", "verb: delete", "-o", output]);
    }
    asked(&["query", "--limit", "5", "--columns", "time,verb,user,object"]);
    asked(&["query", "nginx", "--bodies", "--count"]);
    asked(&[
        "query",
        "--humans",
        "-r",
        "secrets",
        "--verb",
        "create,delete",
        "-o",
        "ndjson",
        "--order",
        "oldest",
        "--reveal",
    ]);
    asked(&["query", "-n", "kube-system", "--code", ">=400", "-o", "markdown"]);
    asked(&["compare", "nginx", "--bodies", "--with", "system", "-o", "json"]);
    asked(&["actor", "alice@example.com"]);
    asked(&[
        "actor",
        "system:serviceaccount:kube-system:deployment-controller",
        "-o",
        "json",
    ]);
    running.process.stop();
}

#[test]
fn objects_and_events_are_told_alike_by_a_server_and_by_files() {
    let running = Running::with("rr-all", "{sealAfter: 20ms}");
    let object = |event: &Value| {
        let text = |name: &str| event["objectRef"][name].as_str().unwrap_or_default().to_owned();
        (text("resource"), text("namespace"), text("name"))
    };
    for resource in ["secrets", "deployments", "configmaps", "serviceaccounts"] {
        let event = running.events.iter().find(|event| {
            event["objectRef"]["resource"] == resource
                && !object(event).2.is_empty()
                && ["update", "patch"].contains(&event["verb"].as_str().unwrap())
                && event["responseStatus"]["code"] == 200
        });
        let Some(event) = event else { continue };
        let (_, namespace, name) = object(event);
        let named = format!("{resource}/{name}");
        for command in [
            &["history", &named, "-n", &namespace][..],
            &["history", &named, "-n", &namespace, "--diff", "--all"],
            &["history", &named, "-n", &namespace, "-o", "json"],
            &["blame", &named, "-n", &namespace],
            &["blame", &named, "-n", &namespace, "-o", "json"],
        ] {
            let text = same(&running, &[command, &EVER[..]].concat());
            assert!(!text.is_empty(), "{command:?}");
        }
        let audit_id = event["auditID"].as_str().unwrap();
        for output in ["json", "raw"] {
            same(&running, &["event", audit_id, "-o", output]);
        }
        same(&running, &["event", audit_id, "-o", "json", "--reveal"]);
    }
    let listed = running
        .process
        .ask(&["query", "verb: delete", "-o", "name", "--since", "2020-01-01"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let shown = running
        .process
        .ask(&["event", listed.lines().next().unwrap(), "-o", "json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["items"][0]["verb"], "delete");
    assert_eq!(shown["items"].as_array().unwrap().len(), 1);
    running.process.stop();
}

#[test]
fn how_a_question_ends_is_told_by_the_exit_code() {
    let running = Running::with("mixed", "{sealAfter: 1h}");
    let code = |arguments: &[&str]| {
        let output = running.process.ask(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    };
    for command in [
        &["query", "usrname: a"][..],
        &["top", "verb", "usrname: a"],
        &["compare", "verb: ("],
        &["tail", "verb: ("],
    ] {
        assert_eq!(code(command).0, 2, "{command:?}");
    }
    assert_eq!(code(&["top", "usrname"]).0, 2);
    assert_eq!(
        code(&["query", "verb: nothing", "--since", "2020-01-01", "--exit-status"]).0,
        1
    );
    assert_eq!(code(&["query", "verb: nothing", "--since", "2020-01-01"]).0, 0);
    assert_eq!(
        code(&["query", "verb: get", "--since", "2020-01-01", "--exit-status"]).0,
        0
    );
    assert_eq!(
        code(&["top", "verb", "verb: nothing", "--since", "2020-01-01", "-e"]).0,
        1
    );
    assert_eq!(code(&["event", "00000000-0000-0000-0000-000000000000"]).0, 1);
    let (_, said) = code(&["query", "verb: get"]);
    assert!(said.contains("of the last 24 hours"), "{said}");

    let other = running.folder.path().join("other");
    std::fs::write(
        &other,
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n",
    )
    .unwrap();
    let other = other.to_str().unwrap();
    let token = running.process.token.to_str().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    for command in [
        &["query"][..],
        &["query", "--count"],
        &["top", "verb"],
        &["compare", "verb: get"],
        &["event", "x"],
        &["history", "deploy/x", "-n", "y"],
        &["blame", "deploy/x", "-n", "y"],
        &["actor", "x"],
        &["tail"],
    ] {
        let bad = kaudit(
            &[
                command,
                &["--server", &running.process.api, "--token-file", other],
            ]
            .concat(),
        );
        assert_eq!(bad.status.code(), Some(4), "{command:?}: {bad:?}");
        let lost = kaudit(&[command, &["--server", &nobody, "--token-file", token]].concat());
        assert_eq!(lost.status.code(), Some(3), "{command:?}: {lost:?}");
        let said = String::from_utf8_lossy(&lost.stderr).into_owned();
        assert!(said.contains("no kaudit answers at"), "{said}");
    }
    running.process.stop();
}

#[test]
fn a_tail_with_a_limit_ends_by_itself() {
    let running = Running::with("mixed", "{sealAfter: 1h}");
    let output = running
        .process
        .ask(&["tail", "--limit", "2", "--since", "2020-01-01", "-o", "ndjson"]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    let oldest = running.process.ask(&[
        "query",
        "--order",
        "oldest",
        "--limit",
        "2",
        "--since",
        "2020-01-01",
        "-o",
        "ndjson",
    ]);
    let oldest: Vec<Value> = String::from_utf8(oldest.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines, oldest);
    running.process.stop();
}

#[test]
fn a_tail_from_a_time_on_shows_every_event_once() {
    let running = Running::with("mixed", "{sealAfter: 1h}");
    let limit = (running.lines.len() + 1).to_string();
    let tail = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(["tail", "--since", "2020-01-01", "-o", "raw", "--limit", &limit])
        .args(["--server", &running.process.api, "--token-file"])
        .arg(&running.process.token)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Whether it is there before the tail looks back or comes later. Its time is older than most.
    let event = append(&running, "new");
    let output = tail.wait_with_output().unwrap();
    assert!(output.status.success());
    let mut shown: Vec<&[u8]> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    shown.sort_unstable();
    let event = event.to_string();
    let mut expected: Vec<&[u8]> = running.lines.iter().map(Vec::as_slice).collect();
    expected.push(event.as_bytes());
    expected.sort_unstable();
    assert!(shown == expected, "{} of {limit} lines", shown.len());
    running.process.stop();
}

#[test]
fn a_context_leads_to_its_server_with_its_own_token() {
    let running = Running::with("mixed", "{sealAfter: 1h}");
    let home = running.folder.path().join("home");
    let folder = home.join("kaudit");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&running.process.token, folder.join("token")).unwrap();
    let file = folder.join("config.yaml");
    let text = format!(
        "# ours\napiVersion: kaudit.dev/v1alpha1\nkind: ClientConfig\ncontexts:\n- name: here\n  server: {}\n  tokenFile: \
         token\n- {{name: bare, server: '{}'}}\n",
        running.process.api, running.process.api
    );
    std::fs::write(&file, &text).unwrap();
    let at = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kaudit"))
            .args(arguments)
            .current_dir(running.folder.path())
            .env("XDG_CONFIG_HOME", &home)
            .env_remove("KAUDIT_SERVER")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let count = ["query", "--count", EVER[0], EVER[1]];
    let all = format!("{}\n", running.lines.len());
    let (code, found, said) = at(&[&count[..], &["--context", "here"]].concat());
    assert_eq!((code, found), (Some(0), all.clone()), "{said}");
    let (code, _, said) = at(&[&count[..], &["--context", "bare"]].concat());
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains(&format!(
            "{}:8: context `bare` has no `tokenFile`",
            file.display()
        )),
        "{said}"
    );

    assert_eq!(at(&["config", "current-context"]).0, Some(1));
    assert_eq!(at(&["config", "use-context", "here"]).0, Some(0));
    assert_eq!(at(&["config", "current-context"]).1, "here\n");
    assert_eq!(at(&count).1, all);
    let (_, listed, _) = at(&["config", "get-contexts", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed[0]["current"], &listed[1]["name"]),
        (&true.into(), &"bare".into())
    );
    let path = file.to_str().unwrap();
    assert_eq!(at(&["config", "validate", path]).0, Some(0));
    std::fs::write(&file, text.replace("tokenFile", "tokenfile")).unwrap();
    let (code, _, said) = at(&["config", "validate", path]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("line 7, column 3: unknown key `tokenfile`, did you mean `tokenFile`?"),
        "{said}"
    );
    running.process.stop();
}

/// What a shell is offered at the end of a line.
fn offered(line: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(["--", "kaudit"])
        .args(line)
        .env("KAUDIT_COMPLETE", "fish")
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{line:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text
        .lines()
        .map(|line| line.split('\t').next().unwrap().to_owned());
    words.collect()
}

#[test]
fn shells_and_kubectl_are_offered_what_the_server_knows() {
    let running = Running::with("mixed", "{sealAfter: 1h}");
    let server = format!("--server={}", running.process.api);
    let token = running.process.token.to_str().unwrap();
    let ours = ["--token-file", token, &server];
    for (line, expected) in [
        (
            &["query", "user.username: ali"][..],
            "user.username: alice@example.com",
        ),
        (
            &["query", "verb: get and user.username: ali"],
            "verb: get and user.username: alice@example.com",
        ),
        (&["query", "-u", "ali"], "alice@example.com"),
        (&["tail", "-r", "secr"], "secrets"),
        (&["actor", "ali"], "alice@example.com"),
        (&["history", "deployme"], "deployments/"),
    ] {
        let (last, first) = line.split_last().unwrap();
        // A machine that is busy answers late, and then there is nothing.
        let mut words = Vec::new();
        running.process.until("the server answers in time", |_| {
            words = offered(
                &[
                    first.get(..1).unwrap(),
                    &ours[..],
                    first.get(1..).unwrap(),
                    &[last],
                ]
                .concat(),
            );
            words.iter().any(|word| word == expected)
        });
        let begins = |word: &String| word.to_lowercase().starts_with(&last.to_lowercase());
        assert!(words.iter().all(begins), "{line:?}: {words:?}");
    }

    let link = running.folder.path().join("kubectl_complete-kaudit");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kaudit"), &link).unwrap();
    running.process.until("the server answers kubectl in time", |_| {
        let output = Command::new(&link)
            .arg("query")
            .args(ours)
            .args(["-n", "team-"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().last(), Some(":4"), "{text}");
        text.lines().any(|line| line.starts_with("team-a\t"))
    });
    running.process.stop();
}

#[test]
fn a_server_that_does_not_answer_holds_nobody_up_who_completes_a_word() {
    // It takes connections, and that is all.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let server = format!("http://{}", silent.local_addr().unwrap());
    let ours = ["--token-file", token.to_str().unwrap(), "--server", &server];
    let begun = std::time::Instant::now();
    let words = offered(&[&["query"][..], &ours, &["verb: dele"]].concat());
    assert!(words.iter().any(|word| word == "verb: delete"), "{words:?}");
    assert_eq!(
        offered(&[&["query"][..], &ours, &["-u", "ali"]].concat()),
        [""; 0]
    );
    // Two times 200 ms, and a busy machine; a question would wait for 90 s.
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        offered(&["query", "--token-file", "nowhere", "-u", "ali"]),
        [""; 0]
    );
}
