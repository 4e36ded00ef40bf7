//! Questions over files, as a person with an audit log and one binary asks them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn kaudit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(arguments)
        .env_remove("CLICOLOR_FORCE")
        .output()
        .unwrap()
}

/// What it prints; it ends well.
fn answer(arguments: &[&str]) -> String {
    let output = kaudit(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn real(name: &str) -> PathBuf {
    let folder = std::env::var_os("KAUDIT_REAL_LOGS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/real")),
        PathBuf::from,
    );
    folder.join(name)
}

fn text_of(name: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let mut decoder = zstd::Decoder::new(std::fs::File::open(real(name)).unwrap()).unwrap();
    decoder.read_to_end(&mut text).unwrap();
    text
}

fn events_of(name: &str) -> Vec<Value> {
    let text = text_of(name);
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const MIXED: &str = "mixed.audit.jsonl.zst";
const BODIES: &str = "rr-all.audit.jsonl.zst";

#[test]
fn filters_that_people_paste_find_what_a_walk_over_the_json_finds() {
    type IsMeant = fn(&Value) -> bool;
    let cases: [(&str, IsMeant); 4] = [
        ("responseStatus.code >= 400", |event| {
            event["responseStatus"]["code"].as_i64() >= Some(400)
        }),
        (
            r#"user.username: "alice@example.com" AND verb: "delete""#,
            |event| event["user"]["username"] == "alice@example.com" && event["verb"] == "delete",
        ),
        (r#"objectRef.resource: "secrets""#, |event| {
            event["objectRef"]["resource"] == "secrets"
        }),
        (r#"userAgent: "kube-apiserver""#, |event| {
            let agent = event["userAgent"].as_str().unwrap_or_default();
            agent.split('/').next() == Some("kube-apiserver")
        }),
    ];
    for log in [MIXED, BODIES] {
        let (path, events) = (real(log), events_of(log));
        for (filter, is_meant) in cases {
            let count = answer(&["query", filter, "--count", "--from", path.to_str().unwrap()]);
            let expected = events.iter().filter(|event| is_meant(event)).count();
            assert!(expected > 0, "{filter} tells nothing of {log}");
            assert_eq!(count.trim(), expected.to_string(), "{filter} in {log}");
        }
    }
}

#[test]
fn raw_output_without_a_filter_is_the_log_byte_for_byte_in_every_packing() {
    let folder = tempfile::tempdir().unwrap();
    let text = text_of(MIXED);
    let plain = folder.path().join("audit.log");
    std::fs::write(&plain, &text).unwrap();
    let packed = folder.path().join("audit.log.gz");
    let mut encoder = flate2::write::GzEncoder::new(
        std::fs::File::create(&packed).unwrap(),
        flate2::Compression::fast(),
    );
    encoder.write_all(&text).unwrap();
    encoder.finish().unwrap();
    for path in [&plain, &packed, &real(MIXED)] {
        let output = kaudit(&["query", "-o", "raw", "--from", path.to_str().unwrap()]);
        assert!(output.status.success());
        assert!(output.stdout == text, "{} comes out changed", path.display());
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(["query", "-o", "raw", "--from", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = text.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.stdout == text, "standard input comes out changed");
}

#[test]
fn directories_patterns_and_lists_are_read_too() {
    let folder = tempfile::tempdir().unwrap();
    let text = String::from_utf8(text_of(MIXED)).unwrap();
    let lines: Vec<&str> = text.lines().take(60).collect();
    let (first, second) = lines.split_at(20);
    std::fs::write(folder.path().join("audit-1.log"), first.join("\n") + "\n").unwrap();
    let list = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
        second.join(",")
    );
    std::fs::write(folder.path().join("list.json"), list).unwrap();
    let of = |from: &str| answer(&["query", "--count", "--from", from]).trim().to_owned();
    let directory = folder.path().to_str().unwrap().to_owned();
    assert_eq!(of(&directory), "60");
    assert_eq!(of(&format!("{directory}/audit-*.log")), "20");
    assert_eq!(of(&format!("{directory}/list.json")), "40");
    let yaml = answer(&["query", "-o", "yaml", "--limit", "2", "--from", &directory]);
    assert_eq!(yaml.matches("---\n").count(), 2);
    assert!(
        yaml.contains("\nstage: ") && yaml.contains("\n  username: "),
        "{yaml}"
    );
    // What comes out as a list goes in again.
    let printed = answer(&["query", "-o", "json", "--from", &directory]);
    let again = folder.path().join("again.json");
    std::fs::write(&again, printed).unwrap();
    assert_eq!(of(again.to_str().unwrap()), "60");
}

#[test]
fn a_log_is_followed_over_its_rotation_from_what_is_there_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let text = String::from_utf8(text_of(MIXED)).unwrap();
    let lines: Vec<&str> = text.lines().take(30).collect();
    let (there, coming) = lines.split_at(10);
    std::fs::write(&log, there.join("\n") + "\n").unwrap();
    let mut following = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args([
            "tail",
            "-o",
            "raw",
            "--since",
            "2020-01-01",
            "--limit",
            "30",
            "--from",
        ])
        .arg(&log)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = |count: usize| -> Vec<String> { shown.by_ref().take(count).map(Result::unwrap).collect() };
    assert_eq!(next(10), there);
    let (before, after) = coming.split_at(10);
    let mut old = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    old.write_all((before.join("\n") + "\n").as_bytes()).unwrap();
    std::fs::rename(&log, folder.path().join("audit-2026-01-02T03-04-05.006.log")).unwrap();
    std::fs::write(&log, after.join("\n") + "\n").unwrap();
    assert_eq!(next(20), coming);
    assert!(following.wait().unwrap().success());
}

#[test]
fn following_ends_when_nobody_reads_any_more_though_nothing_comes() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    std::fs::write(&log, "").unwrap();
    let mut following = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(["tail", "--from"])
        .arg(&log)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(following.stdout.take());
    assert!(following.wait().unwrap().success());
}

#[test]
fn lines_of_a_pipe_are_shown_as_they_come() {
    let mut following = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(["tail", "-o", "raw", "--from", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = following.stdin.take().unwrap();
    let mut shown = BufReader::new(following.stdout.take().unwrap()).lines();
    let text = String::from_utf8(text_of(MIXED)).unwrap();
    for line in text.lines().take(3) {
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(shown.next().unwrap().unwrap(), line);
    }
    drop(input);
    assert!(shown.next().is_none());
    assert!(following.wait().unwrap().success());
}

#[test]
fn the_newest_come_first_and_the_rest_is_named() {
    let path = real(BODIES);
    let from = path.to_str().unwrap();
    let output = kaudit(&["query", "verb: delete", "--from", from, "--limit", "3"]);
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    TIME (UTC)           VERB    CODE  USER               OBJECT                                                   FROM       AGENT
    2026-11-23 18:56:05  delete  200   system:apiserver   kube-system/leases/apiserver-rplpdvtx3lntmi4xy2xnxookk4  127.0.0.1  kube-apiserver/v0.0.0
    2026-11-23 18:56:05  delete        system:apiserver   kube-system/leases/apiserver-rplpdvtx3lntmi4xy2xnxookk4  127.0.0.1  kube-apiserver/v0.0.0
    2026-11-23 18:56:04  delete  403   carol@example.com  kube-system/namespaces/kube-system                       127.0.0.1  audit-scenario/1.0
    ");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("3 of 176 events; --limit 0 for all"), "{said}");
    assert!(said.contains("next: kaudit event 2026-11-23T"), "{said}");
}

#[test]
fn secret_values_are_masked_unless_somebody_asks() {
    let path = real(BODIES);
    let query = [
        "query",
        "-r",
        "secrets",
        "--verb",
        "create",
        "--from",
        path.to_str().unwrap(),
        "-o",
        "ndjson",
    ];
    let masked = answer(&query);
    assert!(masked.contains("(masked: "));
    let values = |text: &str| -> Vec<Value> {
        let events = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .map(|event| event["requestObject"]["data"].clone())
            .filter(Value::is_object)
            .collect()
    };
    let revealed = answer(&[&query[..], &["--reveal"]].concat());
    assert_eq!(values(&masked).len(), values(&revealed).len());
    for (shown, hidden) in values(&revealed).iter().zip(values(&masked)) {
        for (key, value) in shown.as_object().unwrap() {
            assert!(hidden[key].as_str().unwrap().starts_with("(masked: "));
            assert!(!masked.contains(value.as_str().unwrap()) || value.as_str().unwrap().len() < 6);
        }
    }
}

#[test]
fn an_event_is_found_by_its_reference_and_by_its_audit_id() {
    let path = real(BODIES);
    let from = path.to_str().unwrap();
    let names = answer(&[
        "query",
        "verb: delete and stage: ResponseComplete",
        "--from",
        from,
        "-o",
        "name",
        "--limit",
        "1",
    ]);
    let reference = names.trim();
    let one = answer(&["event", reference, "--from", from, "-o", "json"]);
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let id = one["items"][0]["auditID"].as_str().unwrap();
    let all: Value = serde_json::from_str(&answer(&["event", id, "--from", from, "-o", "json"])).unwrap();
    assert!(all["items"].as_array().unwrap().len() >= 2, "every stage of {id}");
    let stages = answer(&["event", reference, "--stages", "--from", from, "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&stages).unwrap(), all);
    let text = answer(&["event", reference, "--from", from]);
    assert!(
        text.contains(&format!("auditID                      {id}")),
        "{text}"
    );
    let none = kaudit(&["event", "no-such-id", "--from", from]);
    assert_eq!(none.status.code(), Some(1));
}

#[test]
fn top_counts_as_a_walk_over_the_json_does() {
    let path = real(MIXED);
    let top = answer(&[
        "top",
        "user.username",
        "--from",
        path.to_str().unwrap(),
        "-o",
        "json",
        "--limit",
        "0",
    ]);
    let top: Value = serde_json::from_str(&top).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for event in events_of(MIXED) {
        let name = event["user"]["username"]
            .as_str()
            .filter(|name| !name.is_empty())
            .map(str::to_owned);
        *expected.entry(name).or_insert(0_u64) += 1;
    }
    let counted: std::collections::BTreeMap<Option<String>, u64> = top["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["value"].as_str().map(str::to_owned),
                one["events"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(counted, expected);
    assert_eq!(top["exact"], true);
}

#[test]
fn every_mistake_in_a_filter_is_shown_where_it_stands() {
    let output = kaudit(&["query", "usrname: alice and code: 400 401", "--from", "/nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r#"
    error: unknown field `usrname` [KA-Q003]
      |
    1 | usrname: alice and code: 400 401
      | ^^^^^^^ did you mean `user.username`?  (shorthand: `user`)

    error: the bare word `401` stands next to a comparison [KA-Q007]
      |
    1 | usrname: alice and code: 400 401
      |                              ^^^ several values: `usrname: alice and code: (400 or 401)`   free text: `... and "401"`
    "#);
}

#[test]
fn what_cannot_be_read_or_is_no_event_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let missing_path = folder.path().join("none.log");
    let missing = kaudit(&["query", "--from", missing_path.to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("none.log: cannot be read"));
    let behind = kaudit(&["query", "--from", missing_path.to_str().unwrap(), "verb: delete"]);
    assert_eq!(behind.status.code(), Some(3));
    std::fs::write(&missing_path, "").unwrap();
    let behind = kaudit(&["query", "--from", missing_path.to_str().unwrap(), "verb: delete"]);
    assert_eq!(behind.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&behind.stderr).contains("help: a filter stands before --from"));
    let text = text_of(MIXED);
    let first = text.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    let log = folder.path().join("audit.log");
    std::fs::write(
        &log,
        [first, b"not an event\n", &first[..first.len() / 2], b"\n"].concat(),
    )
    .unwrap();
    let output = kaudit(&["query", "--from", log.to_str().unwrap(), "--no-headers"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("2 lines or pieces are no audit events"), "{said}");
    let nothing = kaudit(&["query", "verb: nothing", "-e", "--from", log.to_str().unwrap()]);
    assert_eq!(nothing.status.code(), Some(1));
}

#[test]
fn an_objects_history_and_blame_are_told_from_its_events() {
    let path = real(BODIES);
    let from = path.to_str().unwrap();
    let history = answer(&["history", "deploy/web", "-n", "team-a", "--diff", "--from", from]);
    assert!(
        history.contains("spec.template.spec.containers[web].image  registry.example.com/web:2.0 -> registry.example.com/web:2.2"),
        "{history}"
    );
    assert!(
        history.contains("reconstructed") && history.contains("exact"),
        "{history}"
    );
    let field = "spec.template.spec.containers";
    let blame = answer(&[
        "blame",
        "deploy/web",
        "-n",
        "team-a",
        "--field",
        field,
        "--from",
        from,
    ]);
    assert!(
        blame.lines().any(|line| line.starts_with("alice@example.com")
            && line.contains("image: registry.example.com/web:2.2")
            && line.contains("# was registry.example.com/web:2.0")),
        "{blame}"
    );
    let without = kaudit(&["history", "deploy/web", "--from", from]);
    assert_eq!(without.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&without.stderr).contains("give it with -n"));
}

/// An event at the end of a day, at one in winter, and two within the hour that comes twice in autumn.
fn log_over_the_year(folder: &tempfile::TempDir) -> String {
    let times = [
        "2026-07-15T22:30:00.000007Z",
        "2026-01-15T11:00:00.000000Z",
        "2026-10-25T00:30:00.000000Z",
        "2026-10-25T01:30:00.000000Z",
    ];
    let lines = times.map(|time| {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{time}","stage":"ResponseComplete","requestURI":"/","verb":"get","user":{{"username":"ada"}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"}}"#
        )
    });
    let path = folder.path().join("audit.log");
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    path.to_str().unwrap().to_owned()
}

fn in_zone(zone: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(arguments)
        .env("TZ", zone)
        .output()
        .unwrap()
}

#[test]
fn local_times_are_shown_and_read_in_the_zone_of_tz_and_programs_get_utc() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_over_the_year(&folder);
    // The rules by themselves, and by name where the system has a database.
    let mut zones = vec![("CET-1CEST,M3.5.0,M10.5.0/3", "TIME")];
    if std::path::Path::new("/usr/share/zoneinfo/Europe/Berlin").exists() {
        zones.push(("Europe/Berlin", "TIME (EUROPE/BERLIN)"));
        zones.push((":Europe/Berlin", "TIME (EUROPE/BERLIN)"));
    }
    for (zone, head) in zones {
        let shown = |arguments: &[&str]| {
            let all = [arguments, &["--from", &log]].concat();
            let output = in_zone(zone, &all);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{zone} {arguments:?}: {said}");
            String::from_utf8(output.stdout).unwrap()
        };
        let table = shown(&["query", "--local", "--columns", "time", "--order", "oldest"]);
        let rows: Vec<&str> = table.lines().skip(1).collect();
        let expected = [
            "2026-01-15 12:00:00+01:00",
            "2026-07-16 00:30:00+02:00",
            "2026-10-25 02:30:00+02:00",
            "2026-10-25 02:30:00+01:00",
        ];
        assert_eq!(rows, expected, "{zone}");
        assert!(shown(&["query", "--local"]).starts_with(head), "{zone}");
        let found = |arguments: &[&str]| {
            shown(&[&["query", "--count"], arguments].concat())
                .trim()
                .to_owned()
        };
        // A day of 25 hours; the days of July as they are here and in UTC.
        assert_eq!(found(&["--local", "time: 2026-10-25"]), "2");
        assert_eq!(found(&["--local", "time: 2026-07-16"]), "1");
        assert_eq!(found(&["--utc", "time: 2026-07-16"]), "0");
        assert_eq!(found(&["time: 2026-07-16"]), "0");
        assert_eq!(
            found(&["--local", "--utc", "time: 2026-07-16"]),
            "0",
            "the last one counts"
        );
        // What a table shows can be put into a flag, with the offset and without it.
        for since in [
            "2026-10-25 02:30:00+01:00",
            "2026-10-25T02:30:00+01:00",
            "2026-10-25T01:30Z",
        ] {
            assert_eq!(found(&["--local", "--since", since]), "1", "{since}");
        }
        assert_eq!(found(&["--local", "--since", "2026-07-16 00:30"]), "3");
        assert_eq!(found(&["--local", "--until", "2026-07-16 00:30"]), "1");
        assert_eq!(found(&["--local", "--at", "2026-07-16T00:33"]), "1");
        assert_eq!(found(&["--at", "2026-07-16T00:33"]), "0");
        for format in [
            "ndjson",
            "json",
            "yaml",
            "csv",
            "name",
            "raw",
            "jsonpath={.stageTimestamp}",
        ] {
            let local = shown(&["query", "--local", "-o", format]);
            assert_eq!(local, shown(&["query", "-o", format]), "{format}");
            assert!(local.contains("2026-07-15"), "{format}");
        }
        let sentences = shown(&["query", "--local", "-o", "sentence"]);
        assert!(
            sentences.contains("2026-07-16 00:30:00+02:00 ada get"),
            "{sentences}"
        );
        let top = shown(&["top", "stageTimestamp", "--local"]);
        assert!(top.contains("2026-07-16T00:30:00.000007+02:00"), "{top}");
        let event = shown(&["event", "2026-07-15T22:30:00.000007Z", "--local"]);
        let field = event
            .lines()
            .find(|line| line.contains("stageTimestamp"))
            .unwrap();
        assert!(field.ends_with("2026-07-16T00:30:00.000007+02:00"), "{field}");
        assert!(
            event.contains("2026-07-15T22:30:00.000007Z-"),
            "a reference stays what it is"
        );
        let actor = shown(&["actor", "ada", "--local", "--gap", "600"]);
        assert!(
            actor.contains("from 2026-01-15 12:00:00+01:00 to 2026-10-25 02:30:00+01:00"),
            "{actor}"
        );
    }
    let unknown = in_zone("Europe/Nowhere", &["query", "--local", "--from", &log]);
    assert_eq!(unknown.status.code(), Some(2));
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        said.contains("TZ=`Europe/Nowhere` is no zone") && said.contains("help: "),
        "{said}"
    );
    assert!(
        in_zone("Europe/Nowhere", &["query", "--from", &log])
            .status
            .success()
    );
}
