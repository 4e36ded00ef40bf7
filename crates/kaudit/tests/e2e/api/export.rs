//! The store of a running process asked from the command line, and an export of it beside one of its files.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{Running, target};

/// What the answers to a client's first connections are cut to, one after the other; those after them are whole.
fn cutting(api: &str, cuts: Vec<u64>) -> String {
    let to: SocketAddr = api.strip_prefix("http://").unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut cuts = cuts.into_iter();
        for client in listener.incoming() {
            let (client, most) = (client.unwrap(), cuts.next().unwrap_or(u64::MAX));
            std::thread::spawn(move || pass(client, to, most));
        }
    });
    format!("http://{address}")
}

fn kaudit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Passes a request on, and so much of the answer. The head of the answer is not counted.
fn pass(mut client: TcpStream, to: SocketAddr, most: u64) {
    let server = TcpStream::connect(to).unwrap();
    let (mut request, mut forward) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let up = std::thread::spawn(move || std::io::copy(&mut request, &mut forward));
    let mut answer = BufReader::new(server);
    let mut line = Vec::new();
    while line != b"\r\n" {
        line.clear();
        if answer.read_until(b'\n', &mut line).unwrap_or(0) == 0 || client.write_all(&line).is_err() {
            break;
        }
    }
    // Who has gone reads no more.
    std::io::copy(&mut answer.by_ref().take(most), &mut client).ok();
    client.shutdown(Shutdown::Both).ok();
    answer.get_ref().shutdown(Shutdown::Both).ok();
    drop(up.join().unwrap());
}

fn unpacked(folder: &Path, name: &str) -> Vec<u8> {
    let packed = std::fs::read(folder.join(name)).unwrap();
    zstd::decode_all(packed.as_slice()).unwrap()
}

#[track_caller]
fn good(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"))
}

const MEANT: &str = "not source: kaudit";

#[test]
fn a_server_shows_its_store_and_exports_what_its_files_hold_however_often_an_answer_breaks_off() {
    let running = Running::with("rr-all", "{sealAfter: 20ms, retention: 3650d}");
    let process = &running.process;
    let count = running.lines.len();
    process.until("everything is sealed", |process| {
        process.metric("kaudit_store_sealed_events_total")[""] >= i64::try_from(count).unwrap()
    });
    let data = process.token.parent().unwrap().to_str().unwrap().to_owned();
    let stats = good(&process.ask(&["store", "stats", "--by", "verb", "-o", "json"]));
    assert!(stats["events"].as_u64().unwrap() >= count as u64, "{stats}");
    assert!(stats["volumes"].as_array().unwrap().len() > 3, "{stats}");
    let going = good(&process.ask(&["store", "retain", "-o", "json"]));
    assert_eq!(going, json!({"items": [], "isLimited": true, "partial": false}));
    let refused = process.ask(&["store", "retain", "--yes"]);
    assert_eq!(refused.status.code(), Some(2));

    let out = |name: &str| running.folder.path().join(name);
    let export = |name: &str, place: &[&str]| {
        let folder = out(name);
        let folder = folder.to_str().unwrap();
        kaudit(&[&["export", MEANT, "-O", folder, "-o", "json"], place].concat())
    };
    let token = process.token.to_str().unwrap();
    let of_files = good(&export("files", &["--store", &data]));
    let of_server = good(&export(
        "server",
        &["--server", &process.api, "--token-file", token],
    ));
    assert_eq!(
        (&of_files["events"], &of_server["events"]),
        (&json!(count), &json!(count))
    );
    let length = u64::try_from(unpacked(&out("files"), "events.ndjson.zst").len()).unwrap();
    let broken = cutting(&process.api, vec![length / 9, length / 7, 5000]);
    let cut = good(&export("cut", &["--server", &broken, "--token-file", token]));
    assert_eq!(cut["events"], count);
    for name in ["events.ndjson.zst", "envelopes.ndjson.zst"] {
        let files = unpacked(&out("files"), name);
        for other in ["server", "cut"] {
            assert!(unpacked(&out(other), name) == files, "{name} of {other}");
        }
    }
    let mut lines: Vec<&[u8]> = running.lines.iter().map(Vec::as_slice).collect();
    lines.sort_unstable();
    let events = unpacked(&out("cut"), "events.ndjson.zst");
    let mut exported: Vec<&[u8]> = events
        .strip_suffix(b"\n")
        .unwrap()
        .split(|byte| *byte == b'\n')
        .collect();
    exported.sort_unstable();
    assert!(exported == lines, "other events than were read");
    let verified = good(&kaudit(&["verify", out("cut").to_str().unwrap(), "-o", "json"]));
    assert_eq!(verified["intact"], true);

    // Who never gets as far as the first line has nothing, and is told so.
    let broken = cutting(&process.api, vec![3; 100]);
    let none = export("none", &["--server", &broken, "--token-file", token]);
    assert_eq!(none.status.code(), Some(3), "{none:?}");
    assert!(!out("none").join("manifest.json").exists());

    let asked = running.json(&target(
        "count",
        &[("q", "requestURI: /api/v1/export*"), ("hidden", "true")],
    ));
    assert!(
        asked["count"].as_u64().unwrap() >= 5,
        "who exported is recorded: {asked}"
    );
    running.process.stop();
}

#[test]
fn an_export_is_continued_where_an_answer_says_so_and_is_of_the_records_of_the_first() {
    let running = Running::with("mixed", "{sealAfter: 20ms}");
    let count = running.lines.len();
    running.process.until("everything is sealed", |process| {
        process.metric("kaudit_store_sealed_events_total")[""] >= i64::try_from(count).unwrap()
    });
    let lines = |target: &str| -> Vec<Value> {
        let answer = running.client.get(target, &[]);
        assert_eq!((answer.code, answer.kind.as_str()), (200, "application/x-ndjson"));
        let text = answer.text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let all = lines(&target("export", &[]));
    assert_eq!(all.len(), count + 2, "own reads are left out unless asked for");
    assert_eq!(all.last().unwrap()["end"]["next"], Value::Null);
    let at = all[count / 2]["at"].as_str().unwrap();
    let rest = lines(&target("export", &[("cursor", at)]));
    assert!(rest[1..rest.len() - 1] == all[count / 2 + 1..count + 1]);
    let some = lines(&target("export", &[("sealedTo", "11"), ("hidden", "true")]));
    assert_eq!(some[0]["begin"]["sealedTo"], 11);
    assert_eq!(some.len(), 10 + 2);
    let none = running.client.get(&target("export", &[("cursor", "x")]), &[]);
    assert_eq!(none.code, 400);
    running.process.stop();
}

#[test]
fn an_export_says_how_many_of_the_events_that_were_asked_for_are_in_no_file_yet() {
    let running = Running::with("mixed", "{sealAfter: 1h}");
    let process = &running.process;
    let asked = |filter: &str| running.json(&target("count", &[("q", filter)]))["count"].as_u64();
    let count = u64::try_from(running.lines.len()).unwrap();
    process.until("everything was read", |_| asked("") == Some(count));
    let meant = "verb: create";
    let created = asked(meant).unwrap();
    assert!(created > 0 && created < count);
    let folder = running.folder.path().join("out");
    let place = [
        "--server",
        &process.api,
        "--token-file",
        process.token.to_str().unwrap(),
    ];
    let export = ["export", meant, "-O", folder.to_str().unwrap()];
    let told = kaudit(&[&export[..], &place].concat());
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let told = String::from_utf8(told.stdout).unwrap();
    let line = format!("{created} newer events are in no file of the store yet");
    assert!(told.starts_with("0 events, ") && told.contains(&line), "{told}");
    running.process.stop();
}
