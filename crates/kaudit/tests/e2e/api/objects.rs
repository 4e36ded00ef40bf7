//! Objects, actors and the store itself, and what requests leave behind.

use serde_json::Value;

use super::{Running, target};

/// What the command line prints of the same file.
#[track_caller]
fn printed(running: &Running, arguments: &[&str]) -> Value {
    let log = running.log.to_str().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(arguments)
        .args(["-o", "json", "--from", log])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An answer without what is said of every scan.
fn without_looked(mut answer: Value) -> Value {
    let members = answer.as_object_mut().unwrap();
    assert_eq!(members.shift_remove("partial"), Some(Value::Bool(false)));
    members.shift_remove("stats");
    answer
}

#[test]
fn objects_and_actors_are_documents_of_the_command_line() {
    let running = Running::with("rr-all", "{sealAfter: 50ms}");
    let object = "objects/deploy/web";
    let place = ("namespace", "team-a");
    let versions =
        without_looked(running.json(&target(&format!("{object}/versions"), &[place, ("all", "true")])));
    assert_eq!(
        versions,
        printed(
            &running,
            &["history", "deploy/web", "-n", "team-a", "--all", "--diff"]
        )
    );
    assert!(versions["versions"].as_array().unwrap().len() > 3);
    let blame = running.json(&target(
        &format!("{object}/blame"),
        &[place, ("field", "spec.replicas")],
    ));
    let expected = printed(
        &running,
        &["blame", "deploy/web", "-n", "team-a", "--field", "spec.replicas"],
    );
    assert_eq!(without_looked(blame), expected);
    let actor = running.json("/api/v1/actors/alice@example.com?gap=5");
    let expected = printed(&running, &["actor", "alice@example.com", "--gap", "5"]);
    assert_eq!(without_looked(actor), expected);
    assert!(!expected["sessions"].as_array().unwrap().is_empty());
    running.process.stop();
}

#[test]
fn who_read_an_object_by_name_or_in_a_list_is_told() {
    let running = Running::with("rr-all", "{}");
    let answer = running.json(&target("objects/secrets/s1/readers", &[("namespace", "team-a")]));
    let found: u64 = answer["readers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reader| reader["events"].as_u64().unwrap())
        .sum();
    let of = |event: &&Value| {
        let object = &event["objectRef"];
        let verb = event["verb"].as_str().unwrap();
        let stage = if verb == "watch" {
            "ResponseStarted"
        } else {
            "ResponseComplete"
        };
        let is_named = |key: &str, own: &str| {
            object[key]
                .as_str()
                .is_none_or(|name| name == own || name.is_empty())
        };
        object["resource"] == "secrets"
            && ["get", "list", "watch"].contains(&verb)
            && event["stage"] == stage
            && event["responseStatus"]["code"].as_i64() < Some(400)
            && is_named("name", "s1")
            && is_named("namespace", "team-a")
    };
    let expected = running.events.iter().filter(of).count();
    assert!(expected > 2);
    assert_eq!(found, u64::try_from(expected).unwrap(), "{answer}");
    running.process.stop();
}

#[test]
fn the_store_tells_what_takes_its_room() {
    let running = Running::with("mixed", "{sealAfter: 20ms}");
    running.process.until("all is sealed", |_| {
        running.json("/api/v1/store")["unsealedEvents"] == 0
    });
    let store = running.json("/api/v1/store?by=verb");
    let own = store["volumes"].as_array().unwrap().iter();
    let bytes: u64 = own.map(|volume| volume["eventBytes"].as_u64().unwrap()).sum();
    let lines: usize = running.lines.iter().map(Vec::len).sum();
    // Requests of this test are events, too.
    assert!(bytes >= u64::try_from(lines).unwrap(), "{store}");
    running.process.stop();
}

#[test]
fn who_asks_is_recorded_and_hidden_from_who_does_not_ask_for_that() {
    let running = Running::with("mixed", "{}");
    let own = |filter: &str, hidden: &str| {
        let filter = format!("source: kaudit and {filter}");
        let target = target("count", &[("q", filter.as_str()), ("hidden", hidden)]);
        running.json(&target)["count"].as_u64().unwrap()
    };
    let host = running.process.api.strip_prefix("http://").unwrap();
    for token in ["wrong", ""] {
        let code = super::http::code_of(host, host, token);
        assert_eq!(code, 401, "{token}");
    }
    for (name, code) in [
        ("localhost:1", 401),
        ("[::1]:7440", 401),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
    ] {
        assert_eq!(super::http::code_of(host, name, "wrong"), code, "{name}");
    }
    running
        .process
        .until("those without the token are recorded", |_| {
            own("code: 401 and not user: *", "true") == 4
        });
    running
        .process
        .until("and those with it", |_| own("user: \"kaudit:token\"", "true") > 3);
    assert_eq!(own("code > 0", "false"), 0);
    running.process.stop();
}
