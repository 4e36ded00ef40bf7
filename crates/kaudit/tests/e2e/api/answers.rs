//! What is answered, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{FILTERS, Running, json_of, target};

/// Sealed at once: answers come from files.
const SEALED: &str = "{sealAfter: 20ms}";
/// Answers come from memory.
const UNSEALED: &str = "{sealAfter: 1h}";

#[test]
fn what_cannot_be_answered_is_refused_with_the_reason() {
    let running = Running::with("mixed", UNSEALED);
    let client = &running.client;
    assert_eq!(
        client
            .get("/api/v1/count", &[("authorization", "Bearer wrong")])
            .code,
        401
    );
    assert_eq!(client.get("/api/v1/count", &[("authorization", "")]).code, 401);
    let elsewhere = client.get("/api/v1/count", &[("host", "kaudit.example.com")]);
    assert_eq!(elsewhere.code, 421);
    assert_eq!(elsewhere.kind, "application/problem+json");
    for host in ["localhost:1", "127.0.0.1", "[::1]:7440", "LOCALHOST"] {
        assert_eq!(client.get("/api/v1/count", &[("host", host)]).code, 200, "{host}");
    }

    let unknown = client.get("/api/v1/count?limits=1", &[]);
    assert_eq!(
        (unknown.code, unknown.kind.as_str()),
        (400, "application/problem+json")
    );
    let unknown = unknown.json();
    assert_eq!(
        unknown["detail"],
        "there is no parameter `limits` here; there are q, since, until, cluster, bodies, hidden, budget"
    );
    assert_eq!(
        (unknown["status"].as_u64(), unknown["type"].as_str()),
        (Some(400), Some("about:blank"))
    );
    for wrong in [
        "count?budget=-1",
        "count?hidden=perhaps",
        "count?q=a&q=b",
        "count?since=yesterdayish",
        "events?limit=1001",
        "events?order=best",
        "events?cursor=x",
        "facets",
        "facets?field=usr.username",
        "histogram?buckets=1001",
        "histogram?by=verb&by=stage",
        "histogram?interval=5",
        "histogram?interval=1us",
        "histogram?interval=1m&buckets=5",
        // They lie minutes apart.
        "histogram?interval=1ms",
        "compare?with=usrname%3Aa",
        "suggest?at=5",
        "tail?after=x",
        "nothing?",
    ] {
        let answer = client.get(&format!("/api/v1/{wrong}"), &[]);
        let expected = if wrong == "nothing?" { 404 } else { 400 };
        assert_eq!(answer.code, expected, "{wrong}: {}", answer.text());
    }
    let missing = client.get("/api/v1/events/00000000-0000-0000-0000-000000000000", &[]);
    assert_eq!(
        (missing.code, missing.kind.as_str()),
        (404, "application/problem+json")
    );
    running.process.stop();
}

#[test]
fn a_filter_that_does_not_parse_is_told_as_the_command_line_tells_it() {
    let running = Running::with("mixed", UNSEALED);
    for filter in ["usrname: a", "verb: (get", "responseStatus.code > x", "verb:"] {
        let answer = running.client.get(&target("events", &[("q", filter)]), &[]);
        assert_eq!(
            (answer.code, answer.kind.as_str()),
            (400, "application/problem+json")
        );
        let answer = answer.json();
        let told = answer["diagnostics"].as_array().unwrap();
        assert!(!told.is_empty(), "{answer}");
        let output = running.process.ask(&["query", filter]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        for diagnostic in told {
            let code = diagnostic["code"].as_str().unwrap();
            assert!(said.contains(code), "{code} is not in {said}");
            let message = diagnostic["message"].as_str().unwrap();
            assert!(said.contains(message), "{message} is not in {said}");
        }
        let checked = running
            .client
            .send("POST", "/api/v1/query/check", &json!({"q": filter}).to_string())
            .json();
        assert_eq!(checked["valid"], false);
        assert_eq!(checked["diagnostics"], answer["diagnostics"]);
    }
    let good = running
        .client
        .send(
            "POST",
            "/api/v1/query/check",
            r#"{"q":"verb:get AND  stage:Panic"}"#,
        )
        .json();
    assert_eq!(
        good,
        json!({"valid": true, "diagnostics": [], "printed": "verb: get and stage: Panic"})
    );
    assert_eq!(
        running
            .client
            .send("POST", "/api/v1/query/check", "verb: get")
            .code,
        400
    );
    running.process.stop();
}

#[test]
fn counts_facets_and_curves_are_what_a_walk_over_the_log_counts() {
    for store in [UNSEALED, SEALED] {
        let running = Running::with("mixed", store);
        if store == SEALED {
            let count = i64::try_from(running.lines.len()).unwrap();
            running.process.until("everything is sealed", |process| {
                process.metric("kaudit_store_sealed_events_total")[""] >= count
            });
        }
        for (filter, is_meant) in FILTERS {
            let meant: Vec<&Value> = running.events.iter().filter(|event| is_meant(event)).collect();
            assert!(!meant.is_empty(), "{filter} tells nothing");
            counts_are(&running, filter, &meant);
        }
        running.process.stop();
    }
}

fn counts_are(running: &Running, filter: &str, meant: &[&Value]) {
    let events = meant.len();
    let count = running.json(&target("count", &[("q", filter)]));
    assert_eq!(count["count"], events, "{filter}");
    assert_eq!(count["partial"], false);

    let facets = running.json(&target(
        "facets",
        &[
            ("q", filter),
            ("field", "verb"),
            ("field", "user.username"),
            ("field", "objectRef.resource"),
            ("field", "responseStatus.code"),
            ("limit", "0"),
        ],
    ));
    assert_eq!(facets["events"], events, "{filter}");
    let of: [fn(&Value) -> &Value; 4] = [
        |event| &event["verb"],
        |event| &event["user"]["username"],
        |event| &event["objectRef"]["resource"],
        |event| &event["responseStatus"]["code"],
    ];
    for (facet, of) in facets["facets"].as_array().unwrap().iter().zip(of) {
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for event in meant {
            // What is empty is absent.
            let value = Some(of(event)).filter(|value| *value != "");
            *expected
                .entry(value.unwrap_or(&Value::Null).to_string())
                .or_default() += 1;
        }
        let values = facet["values"].as_array().unwrap();
        let found: BTreeMap<String, u64> = values
            .iter()
            .map(|one| (one["value"].to_string(), one["events"].as_u64().unwrap()))
            .collect();
        assert_eq!(found, expected, "{} of {filter}", facet["field"]);
        assert_eq!((&facet["exact"], &facet["beyond"]), (&json!(true), &json!(0)));
        let counts: Vec<u64> = values.iter().map(|one| one["events"].as_u64().unwrap()).collect();
        assert!(counts.is_sorted_by(|one, next| one >= next), "{counts:?}");
        // What a shorter list leaves out, it counts.
        let field = facet["field"].as_str().unwrap();
        let short = running.json(&target(
            "facets",
            &[("q", filter), ("field", field), ("limit", "1")],
        ));
        let short = &short["facets"][0];
        let first = short["values"][0]["events"].as_u64().unwrap();
        assert_eq!(
            first + short["beyond"].as_u64().unwrap(),
            counts.iter().sum::<u64>()
        );
    }

    let histogram = running.json(&target(
        "histogram",
        &[("q", filter), ("buckets", "10"), ("by", "stage")],
    ));
    let buckets = histogram["buckets"].as_array().unwrap();
    assert!(buckets.len() <= 10, "{histogram}");
    let width = histogram["intervalMicros"].as_i64().unwrap();
    let mut sum = 0;
    for bucket in buckets {
        let at = bucket["at"].as_str().unwrap();
        let inside = |event: &&&Value| {
            let micros = micros(event["stageTimestamp"].as_str().unwrap()) - micros(at);
            (0..width).contains(&micros)
        };
        let expected = meant.iter().filter(inside).count();
        assert_eq!(bucket["events"], expected, "{at} of {filter}");
        sum += expected;
        let by = bucket["by"].as_array().unwrap();
        let parts: u64 = by.iter().map(|one| one["events"].as_u64().unwrap()).sum();
        assert_eq!(bucket["events"], parts, "there are fewer stages than curves");
    }
    assert_eq!((sum, &histogram["events"]), (events, &json!(events)));

    let fixed = running.json(&target(
        "histogram",
        &[("q", filter), ("interval", "7s"), ("by", "stage")],
    ));
    assert_eq!(fixed["intervalMicros"], 7_000_000);
    for bucket in fixed["buckets"].as_array().unwrap() {
        let at = micros(bucket["at"].as_str().unwrap());
        let inside = |event: &&&Value| {
            let micros = micros(event["stageTimestamp"].as_str().unwrap()) - at;
            (0..7_000_000).contains(&micros)
        };
        let expected = meant.iter().filter(inside).count();
        assert_eq!(bucket["events"], expected, "{bucket} of {filter}");
        let by = bucket["by"].as_array().unwrap();
        let parts: u64 = by.iter().map(|one| one["events"].as_u64().unwrap()).sum();
        assert_eq!(bucket["events"], parts);
    }
    assert_eq!(fixed["events"], json!(events));

    let compared = running.json(&target(
        "compare",
        &[("q", filter), ("with", ""), ("field", "verb"), ("limit", "0")],
    ));
    assert_eq!(
        (&compared["selection"], &compared["baseline"]),
        (&json!(events), &json!(running.events.len()))
    );
    for row in compared["differences"].as_array().unwrap() {
        let of = |event: &&Value| {
            let verb = Some(&event["verb"]).filter(|verb| *verb != "");
            verb.unwrap_or(&Value::Null) == &row["value"]
        };
        let selected = meant.iter().copied().filter(of).count();
        let all = running.events.iter().filter(of).count();
        assert_eq!(
            (&row["selection"], &row["baseline"]),
            (&json!(selected), &json!(all)),
            "{row}"
        );
    }
}

/// Of a time with six digits.
fn micros(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

#[test]
fn pages_give_every_event_once_and_in_order() {
    let running = Running::with("mixed", UNSEALED);
    let filter = "responseStatus.code >= 400";
    let (all, end) = running.streamed(&target("events", &[("q", filter), ("order", "oldest")]));
    assert_eq!((&end["partial"], &end["next"]), (&json!(false), &json!(null)));
    let keys = |items: &[Value]| -> Vec<(i64, u64)> {
        items
            .iter()
            .map(|item| {
                let time = item["event"]["stageTimestamp"].as_str().unwrap();
                (micros(time), item["seq"].as_u64().unwrap())
            })
            .collect()
    };
    let sorted = keys(&all);
    assert!(sorted.is_sorted_by(|one, next| one < next));
    assert_eq!(
        sorted.len(),
        running
            .events
            .iter()
            .filter(|event| event["responseStatus"]["code"].as_i64() >= Some(400))
            .count()
    );
    for order in ["oldest", "newest"] {
        let mut walked = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut parameters = vec![("q", filter), ("order", order), ("limit", "7")];
            if !cursor.is_empty() {
                parameters.push(("cursor", &cursor));
            }
            let page = running.json(&target("events", &parameters));
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 7);
            walked.extend(items.clone());
            match page["next"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        if order == "newest" {
            walked.reverse();
        }
        assert!(walked == all, "{order}: another walk");
    }
    // The same from the middle of a stream.
    let (head, end) = running.streamed(&target("events", &[("q", filter), ("limit", "10")]));
    let cursor = end["next"].as_str().unwrap().to_owned();
    let (mut tail, _) = running.streamed(&target("events", &[("q", filter), ("cursor", &cursor)]));
    let mut whole = head;
    whole.append(&mut tail);
    whole.reverse();
    assert!(whole == all, "a stream goes on elsewhere");

    let one = &all[3];
    let reference = one["ref"].as_str().unwrap();
    let found = running.json(&format!("/api/v1/events/{reference}"));
    assert_eq!(found["items"], json!([one]));
    let audit_id = one["event"]["auditID"].as_str().unwrap();
    let found = running.json(&format!("/api/v1/events/{audit_id}"));
    let stages = running
        .events
        .iter()
        .filter(|event| event["auditID"] == audit_id)
        .count();
    assert_eq!(found["items"].as_array().unwrap().len(), stages);
    running.process.stop();
}

#[test]
fn a_stream_is_the_log_byte_for_byte_where_it_is_revealed_and_masked_otherwise() {
    let running = Running::with("rr-all", SEALED);
    let of = |reveal: &str| -> BTreeSet<Vec<u8>> {
        let target = format!("/api/v1/events?reveal={reveal}");
        let answer = running.client.get(&target, &[("accept", "application/x-ndjson")]);
        let mut lines: Vec<&[u8]> = answer.body.split(|byte| *byte == b'\n').collect();
        assert_eq!(lines.pop(), Some(&b""[..]));
        let mut end: Value = serde_json::from_slice(lines.pop().unwrap()).unwrap();
        let count = running.lines.len();
        // What asked for it before is an event, too.
        let seq = end["end"].as_object_mut().unwrap().shift_remove("seq").unwrap();
        assert!(seq.as_u64() >= u64::try_from(count).ok(), "{seq}");
        assert_eq!(
            end["end"],
            json!({"events": count, "partial": false, "next": null})
        );
        let events = lines.iter().map(|line| {
            let member = br#","event":"#;
            let at = line
                .windows(member.len())
                .position(|window| window == member)
                .unwrap();
            line[at + member.len()..line.len() - 1].to_vec()
        });
        let events: Vec<Vec<u8>> = events.collect();
        assert_eq!(events.len(), running.lines.len());
        events.into_iter().collect()
    };
    let log: BTreeSet<Vec<u8>> = running.lines.iter().cloned().collect();
    let revealed = of("true");
    assert!(revealed == log, "other bytes than the log's");
    let masked = of("false");
    let changed: Vec<&Vec<u8>> = masked.difference(&log).collect();
    assert!(!changed.is_empty(), "there are Secrets in this log");
    for event in changed {
        let event = json_of(event);
        assert!(event.to_string().contains("(masked"), "{event}");
        let kind = event["objectRef"]["resource"].as_str().unwrap();
        assert!(
            [
                "secrets",
                "serviceaccounts",
                "tokenreviews",
                "certificatesigningrequests"
            ]
            .contains(&kind),
            "{kind}"
        );
    }
    running.process.stop();
}

#[test]
fn an_event_of_many_lines_is_one_line_of_a_stream() {
    let running = Running::with("mixed", UNSEALED);
    let mut event = running.events[0].clone();
    event["auditID"] = json!("11111111-2222-3333-4444-555555555555");
    let list =
        json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": [event]});
    let path = running.folder.path().join("list.json");
    std::fs::write(&path, format!("{list:#}\n")).unwrap();
    let output = running.process.ask(&[
        "import",
        "--cluster",
        "c",
        "--instance",
        "other",
        path.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{output:?}");
    let filter = target(
        "events",
        &[("q", "auditID: 11111111-2222-3333-4444-555555555555")],
    );
    for reveal in ["&reveal=true", ""] {
        let (items, _) = running.streamed(&format!("{filter}{reveal}"));
        assert_eq!(items.len(), 1);
        assert_eq!(items[0]["event"], event);
    }
    let ndjson = running.process.ask(&[
        "query",
        "auditID: 11111111-2222-3333-4444-555555555555",
        "--since",
        "2020-01-01",
        "-o",
        "ndjson",
    ]);
    assert_eq!(
        serde_json::from_slice::<Value>(&ndjson.stdout).unwrap(),
        event,
        "{ndjson:?}"
    );
    let mut tail = running.client.stream(
        "/api/v1/tail?q=auditID%3A11111111-2222-3333-4444-555555555555",
        &[("last-event-id", "0")],
    );
    assert_eq!(tail.sent().data["event"], event);
    drop(tail);
    running.process.stop();
}

#[test]
fn fields_operators_and_values_are_suggested() {
    let running = Running::with("mixed", UNSEALED);
    let texts = |text: &str| -> Vec<String> {
        let answer = running.json(&target("suggest", &[("q", text)]));
        assert_eq!(answer["to"], text.len(), "{answer}");
        let items = answer["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["text"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(texts("user.us").contains(&"user.username".to_owned()));
    let users = texts("user.username: ali");
    assert!(users.contains(&"alice@example.com".to_owned()), "{users:?}");
    assert!(!users.contains(&"bob@example.com".to_owned()), "{users:?}");
    let verbs = texts("verb: ");
    assert!(
        verbs.contains(&"get".to_owned()) && verbs.contains(&"watch".to_owned()),
        "{verbs:?}"
    );
    running.process.stop();
}

#[test]
fn an_answer_that_a_budget_ended_says_so() {
    let running = Running::with("mixed", SEALED);
    for question in [
        "count?budget=0",
        "facets?field=verb&budget=0",
        "histogram?budget=0",
        "compare?q=verb%3Aget&budget=0",
        "events?budget=0",
    ] {
        let answer = running.json(&format!("/api/v1/{question}"));
        assert_eq!(
            (&answer["partial"], &answer["partialReason"]),
            (&json!(true), &json!("time")),
            "{question}: {answer}"
        );
    }
    let (items, end) = running.streamed("/api/v1/events?budget=0");
    assert_eq!(
        (&end["partial"], &end["partialReason"]),
        (&json!(true), &json!("time"))
    );
    // Nothing is lost between the part and the rest.
    let cursor = end["next"].as_str().map(str::to_owned);
    let rest = match &cursor {
        Some(cursor) => running.streamed(&target("events", &[("cursor", cursor)])).0,
        None => running.streamed("/api/v1/events").0,
    };
    assert_eq!(items.len() + rest.len(), running.lines.len());
    running.process.stop();
}
