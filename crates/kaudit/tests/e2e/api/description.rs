//! The API's description against the API.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Running, target};

#[test]
fn every_path_answers_with_the_methods_and_parameters_that_are_described() {
    let running = Running::with("mixed", "{sealAfter: 1h}");
    let document = running.json("/api/v1/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(
        running
            .client
            .get("/api/v1/openapi.json", &[("authorization", "Bearer x")])
            .code,
        401
    );
    for (path, methods) in document["paths"].as_object().unwrap() {
        let address = [
            ("{ref}", "x"),
            ("{name}", "x"),
            ("{type}", "nodes"),
            ("{user}", "x"),
        ]
        .iter()
        .fold(path.clone(), |path, (open, with)| path.replace(open, with));
        let refused = running.client.send("PATCH", &address, "");
        assert_eq!(refused.code, 405, "{path}");
        let allowed: BTreeSet<String> = refused
            .allow
            .split(',')
            .map(str::to_ascii_lowercase)
            .filter(|method| method != "head")
            .collect();
        let described: BTreeSet<String> = methods.as_object().unwrap().keys().cloned().collect();
        assert_eq!(allowed, described, "{path}");

        let Some(get) = methods.get("get") else { continue };
        let answer = running.client.get(&format!("{address}?noSuchParameter=1"), &[]);
        if answer.kind != "application/problem+json" {
            continue;
        }
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        let (_, names) = detail.split_once("there are ").unwrap();
        let known: BTreeSet<&str> = names.split(", ").collect();
        let described: BTreeSet<&str> = get["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| resolved(&document, one))
            .filter(|one| one["in"] == "query")
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(known, described, "{path}");
    }
    running.process.stop();
}

#[test]
fn answers_are_as_they_are_described() {
    let running = Running::with("mixed", "{sealAfter: 20ms}");
    let document = running.json("/api/v1/openapi.json");
    let is = |answer: &Value, schema: &str| {
        let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
        assert_eq!(wrong(&document, answer, &schema), None);
    };
    let events = running.json("/api/v1/events?limit=1000");
    is(&events, "Events");
    let reference = events["items"][0]["ref"].as_str().unwrap();
    is(&running.json(&format!("/api/v1/events/{reference}")), "Found");
    for (path, schema) in [
        ("count", "Count"),
        ("count?budget=0", "Count"),
        (
            "facets?field=verb&field=responseStatus.code&field=mutating",
            "Facets",
        ),
        ("histogram", "Histogram"),
        ("histogram?by=user.username", "Histogram"),
        ("histogram?q=verb%3Anothing", "Histogram"),
        ("compare?q=verb%3Aget", "Comparison"),
        ("suggest?q=", "Suggestions"),
        ("suggest?q=verb%3A", "Suggestions"),
        ("sources", "Sources"),
        ("objects/nodes/node-1/versions?all=true", "Versions"),
        ("objects/ns/team-a/readers", "Readers"),
        ("actors/alice@example.com", "Actor"),
        ("store", "Store"),
        ("store?by=verb", "Store"),
    ] {
        is(&running.json(&format!("/api/v1/{path}")), schema);
    }
    let (items, end) = running.streamed("/api/v1/events?limit=5");
    is(&items[0], "Item");
    is(&end, "End");
    for filter in ["verb: get", "usrname: x", "verb: (a", "a and"] {
        let checked = running
            .client
            .send("POST", "/api/v1/query/check", &json!({"q": filter}).to_string());
        is(&checked.json(), "Checked");
        let answer = running.client.get(&target("count", &[("q", filter)]), &[]);
        is(
            &answer.json(),
            if answer.code == 200 { "Count" } else { "Problem" },
        );
    }
    is(
        &running
            .client
            .get("/api/v1/count", &[("authorization", "")])
            .json(),
        "Status",
    );
    is(&running.client.get("/api/v1/import", &[]).json(), "Status");
    running.process.stop();
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => schema,
    }
}

/// Where a value is not as a schema has it, of what this API's schemas use.
fn wrong(document: &Value, value: &Value, schema: &Value) -> Option<String> {
    let schema = resolved(document, schema);
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_kind = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is_kind),
        wanted => is_kind(wanted),
    };
    let is_listed = schema["enum"].as_array().is_none_or(|all| all.contains(value));
    let is_least = schema["minimum"].as_i64() <= value.as_i64().or(Some(i64::MAX));
    if !fits || !is_listed || !is_least || schema.get("const").is_some_and(|one| one != value) {
        return Some(format!("{value} is not {schema}"));
    }
    if let Value::Array(items) = value {
        return items
            .iter()
            .find_map(|item| wrong(document, item, &schema["items"]));
    }
    let members = value.as_object()?;
    let required = schema["required"].as_array();
    let missing = required
        .into_iter()
        .flatten()
        .find(|name| !members.contains_key(name.as_str().unwrap()));
    if let Some(name) = missing {
        return Some(format!("{name} is missing in {value}"));
    }
    members
        .iter()
        .find_map(|(name, value)| match schema["properties"].get(name) {
            Some(schema) => wrong(document, value, schema).map(|wrong| format!("{name}: {wrong}")),
            None if schema["additionalProperties"] == false => Some(format!("{name} is not described")),
            None => None,
        })
}
