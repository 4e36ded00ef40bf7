//! The API over a store, asked by hand and by the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::collector::Collector;

/// Lines of a real log: reads, writes, refusals, Secrets, people and service accounts.
fn log() -> Vec<Vec<u8>> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/real/mixed.audit.jsonl.zst"
    );
    let text = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(<[u8]>::to_vec).collect()
}

/// A kaudit that has read the log; half of it is sealed.
fn started(folder: &Path) -> (Collector, Vec<Vec<u8>>, String) {
    let lines = log();
    let file = folder.join("audit.log");
    let text: Vec<u8> = lines
        .iter()
        .flat_map(|line| [line, &b"\n"[..]].concat())
        .collect();
    std::fs::write(&file, &text).unwrap();
    let sections = format!(
        "collect:\n  files: [{{instance: cp-1, path: {}}}]\nstore: {{sealAfter: 1h}}\n",
        file.display()
    );
    let process = Collector::start_as("collect,store", folder, &sections);
    let count = u64::try_from(lines.len()).unwrap();
    process.until("all lines are in the store", |process| {
        ask(process, "/api/v1/count").1["count"] == count
    });
    (process, lines, file.to_str().unwrap().to_owned())
}

/// Code, head and body of an answer.
fn exchange(process: &Collector, request: &str) -> (u16, String, Vec<u8>) {
    let host = process.api.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head, answer[end + 4..].to_vec())
}

fn token(process: &Collector) -> String {
    std::fs::read_to_string(&process.token).unwrap().trim().to_owned()
}

fn get(process: &Collector, target: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let host = process.api.strip_prefix("http://").unwrap();
    let token = token(process);
    exchange(
        process,
        &format!("GET {target} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"),
    )
}

/// A document.
fn ask(process: &Collector, target: &str) -> (u16, Value) {
    let (code, _, body) = get(process, target, "");
    (code, serde_json::from_slice(&body).unwrap())
}

/// As it stands in an address.
fn encoded(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    });
    bytes.collect()
}

/// The items of a stream of lines, and its end.
fn lines_of(process: &Collector, target: &str) -> (Vec<Vec<u8>>, Value) {
    let (code, head, body) = get(process, target, "Accept: application/x-ndjson\r\n");
    assert_eq!(code, 200, "{head}");
    assert!(
        head.to_lowercase().contains("content-type: application/x-ndjson"),
        "{head}"
    );
    let mut lines: Vec<Vec<u8>> = body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    assert_eq!(lines.pop(), Some(Vec::new()), "the last line has no end");
    let end: Value = serde_json::from_slice(&lines.pop().unwrap()).unwrap();
    (lines, end["end"].clone())
}

/// The event of an item, as its bytes stand there.
fn event_of(item: &[u8]) -> Vec<u8> {
    let name = br#","event":"#;
    let at = item.windows(name.len()).position(|piece| piece == name).unwrap();
    item[at + name.len()..item.len() - 1].to_vec()
}

#[test]
fn only_holders_of_the_token_who_ask_this_machine_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (process, ..) = started(folder.path());
    let host = process.api.strip_prefix("http://").unwrap().to_owned();
    let token = token(&process);
    for (host, token, code) in [
        (host.as_str(), token.as_str(), 200),
        ("localhost:1", &token, 200),
        ("[::1]:7440", &token, 200),
        ("evil.example", &token, 421),
        ("localhost.evil.example", &token, 421),
        (&host, "x", 401),
        (&host, "", 401),
    ] {
        let request =
            format!("GET /api/v1/count HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n");
        assert_eq!(exchange(&process, &request).0, code, "{host} {token}");
    }
    // Who asked is recorded, and in the way of nobody.
    let own = |process: &Collector, filter: &str| {
        let target = format!(
            "/api/v1/count?hidden=true&q=source:+kaudit+and+{}",
            encoded(filter)
        );
        ask(process, &target).1["count"].as_u64().unwrap()
    };
    process.until("those without the token are recorded", |process| {
        own(process, "code: 401 and not user: *") == 2
    });
    process.until("and those with it", |process| {
        own(process, "user: \"kaudit:token\"") > 3
    });
    assert_eq!(ask(&process, "/api/v1/count?q=source:+kaudit").1["count"], 0);
    process.stop();
}

#[test]
fn what_is_wrong_with_a_question_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (process, ..) = started(folder.path());
    for (target, code, detail) in [
        (
            "/api/v1/count?verb=get",
            400,
            "there is no parameter `verb` here; there are q, since",
        ),
        (
            "/api/v1/events?limit=1001",
            400,
            "limit: `1001` is no number from 0 to 1000",
        ),
        ("/api/v1/events?cursor=x", 400, "cursor: `x` is none"),
        ("/api/v1/facets", 400, "field is missing"),
        ("/api/v1/facets?field=usr", 400, "field: unknown field `usr`"),
        ("/api/v1/events/nothing", 404, "no event is `nothing`"),
        (
            "/api/v1/objects/deploy/web/versions?namespce=a",
            400,
            "there is no parameter `namespce`",
        ),
        (
            "/api/v1/objects/pods/p/blame?namespace=nowhere",
            404,
            "no event says",
        ),
    ] {
        let (own, problem) = ask(&process, target);
        let told = problem["detail"].as_str().unwrap();
        assert!(own == code && told.starts_with(detail), "{target}: {own} {told}");
        assert_eq!(problem["status"], code);
    }
    let filter = "usrname: a and code: (400 or";
    let (code, head, body) = get(&process, &format!("/api/v1/events?q={}", encoded(filter)), "");
    assert_eq!(code, 400);
    assert!(head.contains("application/problem+json"), "{head}");
    let problem: Value = serde_json::from_slice(&body).unwrap();
    let codes: Vec<&str> = problem["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].as_str().unwrap())
        .collect();
    let output = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(["query", filter, "--from", "/dev/null"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(codes.len() >= 2, "{codes:?}");
    for code in codes {
        assert!(said.contains(code), "{code} is not in {said}");
    }
    process.stop();
}

#[test]
fn pages_follow_each_other_and_lines_are_the_logs_own() {
    let folder = tempfile::tempdir().unwrap();
    let (process, lines, _) = started(folder.path());
    for order in ["newest", "oldest"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let (code, page) = ask(
                &process,
                &format!("/api/v1/events?order={order}&limit=97{cursor}"),
            );
            assert_eq!((code, &page["partial"]), (200, &json!(false)));
            for item in page["items"].as_array().unwrap() {
                seen.push((
                    item["event"]["stageTimestamp"].as_str().unwrap().to_owned(),
                    item["seq"].as_u64().unwrap(),
                ));
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let numbers: BTreeSet<u64> = seen.iter().map(|(_, seq)| *seq).collect();
        assert_eq!((numbers.len(), seen.len()), (lines.len(), lines.len()), "{order}");
        if order == "newest" {
            seen.reverse();
        }
        assert!(seen.is_sorted(), "{order}");
    }
    let (items, end) = lines_of(&process, "/api/v1/events?reveal=true");
    assert_eq!(
        end,
        json!({"events": lines.len(), "partial": false, "next": null})
    );
    let sorted = |mut lines: Vec<Vec<u8>>| {
        lines.sort();
        lines
    };
    let events = sorted(items.iter().map(|item| event_of(item)).collect());
    assert!(events == sorted(lines.clone()), "other bytes than in the log");
    let secret = br#""data":{""#;
    let has_secrets = |events: &[Vec<u8>]| {
        let with: Vec<&Vec<u8>> = events
            .iter()
            .filter(|event| event.windows(secret.len()).any(|piece| piece == secret))
            .collect();
        with.iter()
            .filter(|event| !String::from_utf8_lossy(event).contains("(masked"))
            .filter(|event| String::from_utf8_lossy(event).contains(r#""resource":"secrets""#))
            .count()
    };
    let (items, _) = lines_of(&process, "/api/v1/events");
    let masked: Vec<Vec<u8>> = items.iter().map(|item| event_of(item)).collect();
    assert_eq!(has_secrets(&masked), 0);
    let (items, end) = lines_of(&process, "/api/v1/events?limit=5&order=oldest");
    assert_eq!(items.len(), 5);
    assert!(end["next"].is_string(), "{end}");
    let (items, end) = lines_of(&process, "/api/v1/events?budget=0");
    assert_eq!((items.len(), &end["partialReason"]), (0, &json!("time")), "{end}");
    process.stop();
}

#[test]
fn counts_are_those_of_a_walk_over_the_json() {
    let folder = tempfile::tempdir().unwrap();
    let (process, lines, _) = started(folder.path());
    let events: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    type IsMeant = fn(&Value) -> bool;
    let cases: [(&str, IsMeant); 3] = [
        ("", |_| true),
        ("code >= 400", |event| {
            event["responseStatus"]["code"].as_i64() >= Some(400)
        }),
        ("verb: get and stage: ResponseComplete", |event| {
            event["verb"] == "get" && event["stage"] == "ResponseComplete"
        }),
    ];
    for (filter, is_meant) in cases {
        let meant: Vec<&Value> = events.iter().filter(|event| is_meant(event)).collect();
        let q = encoded(filter);
        assert_eq!(
            ask(&process, &format!("/api/v1/count?q={q}")).1["count"],
            meant.len(),
            "{filter}"
        );
        let target = format!("/api/v1/facets?q={q}&field=verb&field=user.username&limit=0");
        let (_, facets) = ask(&process, &target);
        assert_eq!(facets["events"], meant.len());
        for (index, pointer) in ["/verb", "/user/username"].iter().enumerate() {
            let mut expected: BTreeMap<String, u64> = BTreeMap::new();
            for event in &meant {
                let value = event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                *expected.entry(value.to_owned()).or_default() += 1;
            }
            let values = facets["facets"][index]["values"].as_array().unwrap();
            let found: BTreeMap<String, u64> = values
                .iter()
                .map(|one| {
                    (
                        one["value"].as_str().unwrap_or_default().to_owned(),
                        one["events"].as_u64().unwrap(),
                    )
                })
                .collect();
            assert_eq!(found, expected, "{filter} {pointer}");
        }
        let (_, histogram) = ask(&process, &format!("/api/v1/histogram?q={q}&buckets=10&by=verb"));
        let buckets = histogram["buckets"].as_array().unwrap();
        let sum = |of: fn(&Value) -> u64| buckets.iter().map(of).sum::<u64>();
        assert!(buckets.len() <= 10);
        assert_eq!(
            sum(|bucket| bucket["events"].as_u64().unwrap()),
            u64::try_from(meant.len()).unwrap()
        );
    }
    let (_, compared) = ask(
        &process,
        "/api/v1/compare?q=code:+403&field=responseStatus.code&limit=1",
    );
    let refused = events
        .iter()
        .filter(|event| event["responseStatus"]["code"] == 403)
        .count();
    assert_eq!(
        (&compared["selection"], &compared["baseline"]),
        (&json!(refused), &json!(lines.len()))
    );
    assert_eq!(compared["differences"][0]["value"], 403);
    let (_, partial) = ask(&process, "/api/v1/count?budget=0");
    assert_eq!(
        (&partial["partial"], &partial["partialReason"]),
        (&json!(true), &json!("time"))
    );
    let (_, suggested) = ask(&process, "/api/v1/suggest?q=verb:+del");
    let texts: Vec<&str> = suggested["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["text"].as_str())
        .collect();
    assert!(texts.contains(&"delete"), "{suggested}");
    process.stop();
}

/// A client that follows.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn new(process: &Collector, target: &str, headers: &str) -> Self {
        let host = process.api.strip_prefix("http://").unwrap();
        let token = token(process);
        let mut stream = TcpStream::connect(host).unwrap();
        write!(
            stream,
            "GET {target} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
        )
        .unwrap();
        let mut follower = Self(BufReader::new(stream));
        while follower.line() != ": events from now on" {}
        follower
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        assert!(
            self.0.read_until(b'\n', &mut line).unwrap() > 0,
            "the stream ended"
        );
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// The number and the auditID of the next event.
    fn next(&mut self) -> (u64, String) {
        let mut id = 0;
        loop {
            let line = self.line();
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.parse().unwrap();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let item: Value = serde_json::from_str(data).unwrap();
                return (id, item["event"]["auditID"].as_str().unwrap().to_owned());
            }
        }
    }
}

#[test]
fn whoever_follows_gets_each_event_once_also_after_a_break() {
    let folder = tempfile::tempdir().unwrap();
    let (process, lines, file) = started(folder.path());
    let append = |audit_id: &str| {
        let mut event: Value = serde_json::from_slice(&lines[0]).unwrap();
        event["auditID"] = json!(audit_id);
        // The order of a log's members.
        let line = String::from_utf8(lines[0].clone()).unwrap();
        let before: Value = serde_json::from_slice(&lines[0]).unwrap();
        let line = line.replacen(before["auditID"].as_str().unwrap(), audit_id, 1);
        let mut file = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
        writeln!(file, "{line}").unwrap();
    };
    let mut follower = Follower::new(&process, "/api/v1/tail", "");
    append("new-1");
    let (first, id) = follower.next();
    assert_eq!(id, "new-1");
    append("new-2");
    append("new-3");
    assert_eq!(follower.next().1, "new-2");
    drop(follower);
    let mut again = Follower::new(&process, "/api/v1/tail", &format!("Last-Event-ID: {first}\r\n"));
    assert_eq!(
        (again.next().1, again.next().1),
        ("new-2".to_owned(), "new-3".to_owned())
    );
    // From the very beginning, all of it in the order of the journal.
    let mut all = Follower::new(&process, "/api/v1/tail?after=0&q=not+auditID:+new*", "");
    let mut last = 0;
    for _ in 0..lines.len() {
        let (id, _) = all.next();
        assert!(id > last);
        last = id;
    }
    // The command line follows, too, and ends by itself.
    let output = process.ask(&[
        "tail",
        "auditID: new*",
        "--since",
        "2020-01-01",
        "--limit",
        "2",
        "-o",
        "ndjson",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    process.stop();
}

#[test]
fn the_command_line_says_the_same_of_a_server_as_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (process, _, file) = started(folder.path());
    let since = ["--since", "2020-01-01"];
    let cases: [&[&str]; 12] = [
        &["query", "code >= 400", "--count"],
        &["query", "verb: delete", "-o", "ndjson", "--order", "oldest"],
        &[
            "query",
            "verb: delete",
            "-o",
            "csv",
            "--order",
            "newest",
            "--columns",
            "time,verb,code,user,object,auditID",
        ],
        &["query", "-r", "secrets", "-o", "raw", "--order", "oldest"],
        &[
            "query",
            "--humans",
            "--limit",
            "5",
            "--columns",
            "time,user,object,auditID",
        ],
        &["top", "user.username", "code: 403", "-o", "json"],
        &["top", "verb", "--limit", "0", "-o", "csv"],
        &["compare", "code: 403", "-o", "json"],
        &["compare", "code: 403", "--with", "verb: get", "--limit", "4"],
        &["history", "ns/team-a", "-o", "json", "--all", "--diff"],
        &["history", "pod/p1", "-n", "team-a", "--all"],
        &["actor", "alice@example.com", "-o", "json"],
    ];
    for case in cases {
        let online = process.ask(&[case, &since].concat());
        let offline = Command::new(env!("CARGO_BIN_EXE_kaudit"))
            .args([case, &since, &["--from", &file]].concat())
            .output()
            .unwrap();
        let (one, other) = (
            String::from_utf8_lossy(&online.stdout),
            String::from_utf8_lossy(&offline.stdout),
        );
        assert_eq!(online.status.code(), Some(0), "{case:?}: {online:?}");
        assert_eq!(online.status.code(), offline.status.code(), "{case:?}");
        assert!(one == other, "{case:?}\n{one}\n{other}");
    }
    let named = process.ask(&[
        "query",
        "verb: delete",
        "--limit",
        "1",
        "-o",
        "name",
        "--since",
        "2020-01-01",
    ]);
    let reference = String::from_utf8(named.stdout).unwrap();
    let event = process.ask(&["event", reference.trim()]);
    let text = String::from_utf8_lossy(&event.stdout).into_owned();
    assert!(
        text.contains("verb                         delete") && text.contains("cp-1"),
        "{text}"
    );

    let exit = |arguments: &[&str]| process.ask(arguments).status.code();
    assert_eq!(exit(&["query", "usrname: a"]), Some(2));
    assert_eq!(
        exit(&["query", "verb: nothing", "-e", "--since", "2020-01-01"]),
        Some(1)
    );
    let server = process.api.clone();
    let elsewhere = |server: &str, token: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_kaudit"))
            .args(["query", "--server", server, "--token-file", token])
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "0".repeat(64)).unwrap();
    assert_eq!(elsewhere(&server, wrong.to_str().unwrap()).0, Some(4));
    process.stop();
    let (code, said) = elsewhere(&server, wrong.to_str().unwrap());
    assert_eq!(code, Some(3));
    assert!(
        said.contains("no kaudit answers at") && said.contains("--from"),
        "{said}"
    );
}
