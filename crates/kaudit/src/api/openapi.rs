//! The API's own description: `/api/v1/openapi.json`, OpenAPI 3.1.

mod schemas;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

/// The common parameters of questions, in their order.
const QUESTION: [&str; 7] = ["q", "since", "until", "cluster", "bodies", "hidden", "budget"];

/// What one method of one path does.
struct Operation {
    path: &'static str,
    method: &'static str,
    summary: &'static str,
    /// Whether it takes the common parameters.
    is_question: bool,
    /// Names of parameters in the document.
    parameters: &'static [&'static str],
    body: Option<(&'static str, &'static str)>,
    /// Media types and schemas of a good answer.
    answers: &'static [(&'static str, &'static str)],
    errors: Errors,
}

/// How refusals look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Errors {
    /// RFC 9457.
    Problem,
    /// As Kubernetes has them.
    Status,
}

const JSON: &str = "application/json";

const fn question(
    path: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    answers: &'static [(&'static str, &'static str)],
) -> Operation {
    Operation {
        path,
        method: "get",
        summary,
        is_question: true,
        parameters,
        body: None,
        answers,
        errors: Errors::Problem,
    }
}

const fn other(
    path: &'static str,
    method: &'static str,
    summary: &'static str,
    answers: &'static [(&'static str, &'static str)],
    errors: Errors,
) -> Operation {
    Operation {
        path,
        method,
        summary,
        is_question: false,
        parameters: &[],
        body: None,
        answers,
        errors,
    }
}

impl Operation {
    const fn with(mut self, parameters: &'static [&'static str]) -> Self {
        self.parameters = parameters;
        self
    }

    const fn of(mut self, kind: &'static str, schema: &'static str) -> Self {
        self.body = Some((kind, schema));
        self
    }
}

const OPERATIONS: &[Operation] = &[
    question(
        "/api/v1/events",
        "Events, page by page; or all of them as lines, with `Accept: application/x-ndjson`",
        &["order", "limit", "cursor", "reveal"],
        &[(JSON, "Events"), ("application/x-ndjson", "Line")],
    ),
    other(
        "/api/v1/events/{ref}",
        "get",
        "The event of a reference, or all events of an auditID, the oldest first",
        &[(JSON, "Found")],
        Errors::Problem,
    )
    .with(&["ref", "reveal"]),
    question(
        "/api/v1/export",
        "Events of the files byte by byte as they were received, Secret values included, the oldest first. An answer ends \
         after a minute, or `budget`, or a gibibyte, and says where the next one begins",
        &["cursor", "sealedTo"],
        &[("application/x-ndjson", "ExportLine")],
    ),
    question(
        "/api/v1/count",
        "How many events there are",
        &[],
        &[(JSON, "Count")],
    ),
    question(
        "/api/v1/facets",
        "The most frequent values of fields",
        &["field", "values"],
        &[(JSON, "Facets")],
    ),
    question(
        "/api/v1/histogram",
        "How many events there are over time",
        &["buckets", "interval", "by"],
        &[(JSON, "Histogram")],
    ),
    question(
        "/api/v1/compare",
        "What events have more or less of than others",
        &["with", "fields", "differences"],
        &[(JSON, "Comparison")],
    ),
    question(
        "/api/v1/tail",
        "Events as they come, as server-sent events; `q` and the like are of these events",
        &["after", "reveal", "Last-Event-ID"],
        &[("text/event-stream", "Stream")],
    ),
    other(
        "/api/v1/objects/{type}/{name}/versions",
        "get",
        "Every version of an object that events tell of, and what changed",
        &[(JSON, "Versions")],
        Errors::Problem,
    )
    .with(&[
        "type",
        "object",
        "namespace",
        "since",
        "until",
        "cluster",
        "budget",
        "reveal",
        "all",
    ]),
    other(
        "/api/v1/objects/{type}/{name}/blame",
        "get",
        "Who wrote each line of the newest version that is known",
        &[(JSON, "Blame")],
        Errors::Problem,
    )
    .with(&[
        "type",
        "object",
        "namespace",
        "since",
        "until",
        "cluster",
        "budget",
        "reveal",
        "path",
    ]),
    other(
        "/api/v1/objects/{type}/{name}/readers",
        "get",
        "Who read an object, by its name or in a list",
        &[(JSON, "Readers")],
        Errors::Problem,
    )
    .with(&[
        "type",
        "object",
        "namespace",
        "since",
        "until",
        "cluster",
        "budget",
        "reveal",
    ]),
    question(
        "/api/v1/actors/{user}",
        "What somebody did, session by session, and what for the first time",
        &["user", "gap"],
        &[(JSON, "Actor")],
    ),
    other(
        "/api/v1/store",
        "get",
        "How much there is, day by day, and when the disk is full",
        &[(JSON, "Store")],
        Errors::Problem,
    )
    .with(&["volumesBy", "budget"]),
    other(
        "/api/v1/store/retention",
        "get",
        "Which files would go now, for their age or for want of room, by the configuration of this kaudit",
        &[(JSON, "Expiring")],
        Errors::Problem,
    )
    .with(&["budget"]),
    other(
        "/api/v1/query/check",
        "post",
        "Whether a text is a filter, and what is wrong with it",
        &[(JSON, "Checked")],
        Errors::Problem,
    )
    .of(JSON, "Text"),
    other(
        "/api/v1/suggest",
        "get",
        "What may stand at a place of a filter",
        &[(JSON, "Suggestions")],
        Errors::Problem,
    )
    .with(&["text", "at"]),
    other(
        "/api/v1/sinks",
        "get",
        "Where events are sent to",
        &[(JSON, "Sinks")],
        Errors::Status,
    ),
    other(
        "/api/v1/sinks/{name}",
        "get",
        "One sink",
        &[(JSON, "Sink")],
        Errors::Status,
    )
    .with(&["name"]),
    other(
        "/api/v1/sinks/{name}",
        "put",
        "Registers an AuditSink, or another one under its name",
        &[(JSON, "Sink")],
        Errors::Status,
    )
    .with(&["name"])
    .of("application/yaml", "AuditSink"),
    other(
        "/api/v1/sinks/{name}",
        "delete",
        "Removes an AuditSink",
        &[(JSON, "Status")],
        Errors::Status,
    )
    .with(&["name"]),
    other(
        "/api/v1/sources",
        "get",
        "Where events come from, and the journal they are kept in",
        &[(JSON, "Sources")],
        Errors::Status,
    ),
    other(
        "/api/v1/import",
        "get",
        "Whether a file was imported whole before",
        &[(JSON, "KnownFile")],
        Errors::Status,
    )
    .with(&["ofCluster", "instance", "identity"]),
    other(
        "/api/v1/import",
        "post",
        "Keeps a part of a file; answers when all of it is durable",
        &[(JSON, "KeptPart")],
        Errors::Status,
    )
    .with(&["ofCluster", "instance"])
    .of("application/octet-stream", "Part"),
    other(
        "/api/v1/openapi.json",
        "get",
        "This document",
        &[(JSON, "Document")],
        Errors::Status,
    ),
];

/// A part of the API that a process may be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Where events are sent to.
    Sinks,
    /// Where they come from.
    Sources,
    /// Questions.
    Store,
}

/// Describes the parts that are served.
pub(super) fn router(parts: Vec<Part>) -> Router {
    let describe = async move || Json(document(&parts));
    Router::new().route("/api/v1/openapi.json", get(describe))
}

fn document(parts: &[Part]) -> Value {
    let mut paths = Map::new();
    let is_served = |one: &&Operation| one.part().is_none_or(|part| parts.contains(&part));
    for operation in OPERATIONS.iter().filter(is_served) {
        let methods = paths
            .entry(operation.path)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(operation.method.to_owned(), operation.document());
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "kaudit",
            "description": "Questions to the audit events that a kaudit keeps, and what it does with events. Values of \
                            Secrets and tokens are masked unless they are asked for. The API answers to loopback addresses \
                            and localhost only.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {
                "type": "http",
                "scheme": "bearer",
                "description": "The text of the file `token` in the data directory.",
            }},
            "parameters": schemas::parameters(),
            "schemas": schemas::schemas(),
        },
    })
}

impl Operation {
    /// What it belongs to, if not to the API itself.
    fn part(&self) -> Option<Part> {
        let below = self.path.strip_prefix("/api/v1/").unwrap_or_default();
        match below.split('/').next() {
            Some("openapi.json") => None,
            Some("sinks") => Some(Part::Sinks),
            Some("sources" | "import") => Some(Part::Sources),
            _ => Some(Part::Store),
        }
    }

    fn document(&self) -> Value {
        let common: &[&str] = if self.is_question { &QUESTION } else { &[] };
        let parameters: Vec<Value> = common
            .iter()
            .chain(self.parameters)
            .map(|name| json!({"$ref": format!("#/components/parameters/{name}")}))
            .collect();
        let mut responses = Map::new();
        responses.insert("200".to_owned(), answer("Done", self.answers));
        for (code, description, errors) in self.refusals() {
            let content = match errors {
                Errors::Problem => ("application/problem+json", "Problem"),
                Errors::Status => (JSON, "Status"),
            };
            responses.insert(code.to_owned(), answer(description, &[content]));
        }
        let mut operation = json!({
            "summary": self.summary,
            "operationId": self.id(),
            "parameters": parameters,
            "responses": responses,
        });
        if let (Some((kind, schema)), Some(members)) = (self.body, operation.as_object_mut()) {
            let content = content(&[(kind, schema)]);
            members.insert(
                "requestBody".to_owned(),
                json!({"required": true, "content": content}),
            );
        }
        operation
    }

    /// The method and the words of the path.
    fn id(&self) -> String {
        let words = self
            .path
            .trim_start_matches("/api/v1/")
            .split(|char: char| !char.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty());
        let mut id = self.method.to_owned();
        for word in words {
            let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
            id.push_str(&first.to_ascii_uppercase());
            id.push_str(rest);
        }
        id
    }

    fn refusals(&self) -> Vec<(&'static str, &'static str, Errors)> {
        let mut all = vec![
            ("401", "The token is missing or another one", Errors::Status),
            ("421", "The request names another host", Errors::Problem),
        ];
        let is_told = |name: &str| self.path.contains(name);
        if self.path != "/api/v1/openapi.json" {
            all.push(("400", "The request cannot be right as it is", self.errors));
        }
        if is_told("{") {
            all.push(("404", "There is none", self.errors));
        }
        let scans = self.errors == Errors::Problem && self.method == "get";
        if scans || is_told("import") {
            all.push((
                "429",
                "Too much is asked at once: again after Retry-After",
                self.errors,
            ));
        }
        if is_told("import") && self.method == "post" {
            all.push(("413", "The part is too large", self.errors));
        }
        if self.method == "put" || (is_told("import") && self.method == "post") {
            all.push(("422", "It is understood, and refused", self.errors));
        }
        if is_told("sinks") && self.method != "get" {
            all.push(("405", "There is nowhere to keep AuditSinks", self.errors));
            all.push(("409", "It is registered elsewhere", self.errors));
        }
        if scans || self.method == "put" || self.method == "delete" {
            all.push(("500", "It failed", self.errors));
        }
        all.sort_by_key(|(code, ..)| *code);
        all
    }
}

fn answer(description: &str, of: &[(&str, &str)]) -> Value {
    json!({"description": description, "content": content(of)})
}

fn content(of: &[(&str, &str)]) -> Map<String, Value> {
    of.iter()
        .map(|(kind, schema)| {
            let schema = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
            ((*kind).to_owned(), schema)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: [Part; 3] = [Part::Sinks, Part::Sources, Part::Store];

    /// Every path that a file of the API gives to a router.
    fn routes() -> BTreeSet<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api");
        let files = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        let own = std::path::PathBuf::from(format!("{folder}.rs"));
        let mut all = BTreeSet::new();
        for file in files.chain([own]).filter(|file| file.is_file()) {
            let text = std::fs::read_to_string(file).unwrap();
            for part in text.split(".route(").skip(1) {
                let path = part
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split('"').next());
                all.extend(path.filter(|path| path.starts_with('/')).map(str::to_owned));
            }
        }
        all
    }

    #[test]
    fn every_route_is_described_and_no_other() {
        let described: BTreeSet<String> = OPERATIONS.iter().map(|one| one.path.to_owned()).collect();
        assert_eq!(described, routes());
    }

    #[test]
    fn what_is_referred_to_is_there_and_what_is_there_is_referred_to() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(members) => {
                    for (name, value) in members {
                        match value.as_str().filter(|_| name == "$ref") {
                            Some(text) => drop(found.insert(text.to_owned())),
                            None => references(value, found),
                        }
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document(&ALL);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let mut known = BTreeSet::new();
        for kind in ["parameters", "schemas"] {
            let names = document["components"][kind].as_object().unwrap().keys();
            known.extend(names.map(|name| format!("#/components/{kind}/{name}")));
        }
        assert_eq!(found, known);
    }

    #[test]
    fn what_a_path_leaves_open_is_a_parameter_of_it_and_names_are_unique() {
        let mut ids = BTreeSet::new();
        for operation in OPERATIONS {
            assert!(ids.insert(operation.id()), "{}", operation.id());
            let document = document(&ALL);
            for open in operation.path.split('{').skip(1) {
                let name = open.split('}').next().unwrap();
                let parameters = &document["components"]["parameters"];
                let is_it =
                    |own: &&&str| parameters[**own]["name"] == name && parameters[**own]["in"] == "path";
                assert_eq!(
                    operation.parameters.iter().filter(is_it).count(),
                    1,
                    "{}",
                    operation.path
                );
            }
        }
    }
}
