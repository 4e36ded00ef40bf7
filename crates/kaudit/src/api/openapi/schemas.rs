//! What goes in and out, as JSON Schema.

use serde_json::{Map, Value, json};

/// By their names in the document.
pub(super) fn parameters() -> Value {
    let time = "a time ago as `6h`, a time as `2026-11-23T14:00`, or `now-1d`";
    let all = [
        query(
            "q",
            "q",
            string(),
            "A filter, as `verb: delete`; everything without one",
        ),
        query(
            "since",
            "since",
            string(),
            &format!("Not before, by stageTimestamp: {time}"),
        ),
        query("until", "until", string(), &format!("Before: {time}")),
        several("cluster", "cluster", "Only events of these clusters"),
        query(
            "bodies",
            "bodies",
            boolean(),
            "Free text of the filter is looked for in bodies, too",
        ),
        query(
            "hidden",
            "hidden",
            boolean(),
            "Also what kaudit recorded of its own reads",
        ),
        query(
            "budget",
            "budget",
            json!({"type": "integer", "minimum": 0, "maximum": 60_000, "default": 10_000}),
            "Milliseconds that it may take; what was not looked at by then makes the answer `partial`. A stream of lines \
             has no budget unless one is given; a tail has none",
        ),
        query(
            "order",
            "order",
            json!({"type": "string", "enum": ["newest", "oldest"], "default": "newest"}),
            "Which come first, by stageTimestamp",
        ),
        query(
            "limit",
            "limit",
            json!({"type": "integer", "minimum": 0}),
            "So many events: 100 of a page unless it says otherwise, at most 1000; of a stream all, unless it says \
             otherwise. 0 is as nothing",
        ),
        query("cursor", "cursor", string(), "`next` of the answer before"),
        query(
            "reveal",
            "reveal",
            json!({"type": "string", "enum": ["false", "true", "changes"], "default": "false"}),
            "`true` shows the values of Secrets and tokens; `changes` masks them so that the same value looks the same, as \
             long as this kaudit runs",
        ),
        several_required("field", "field", "A field; at most 20 of them"),
        several(
            "fields",
            "field",
            "Fields to compare, at most 20; those of who, what, where and how without one",
        ),
        query(
            "values",
            "limit",
            json!({"type": "integer", "minimum": 0, "maximum": 10_000, "default": 10}),
            "So many values of each; 0 for all, up to 10000",
        ),
        query(
            "differences",
            "limit",
            json!({"type": "integer", "minimum": 0, "maximum": 10_000, "default": 15}),
            "So many differences; 0 for all, up to 10000",
        ),
        query(
            "buckets",
            "buckets",
            json!({"type": "integer", "minimum": 0, "maximum": 1000, "default": 60}),
            "So many buckets at most; less than 2 is as 2. Not together with `interval`",
        ),
        query(
            "interval",
            "interval",
            string(),
            "The width of each bucket as `30s`, `5m` or `1h30m`, from 1ms to 1000d; a 400 when there were more than 1000",
        ),
        query(
            "by",
            "by",
            string(),
            "A field: each bucket also by its eight most frequent values",
        ),
        query(
            "with",
            "with",
            string(),
            "The filter of what is compared with; everything without one",
        ),
        query(
            "after",
            "after",
            json!({"type": "integer", "minimum": 0}),
            "Begins after the record of this number, in place of now",
        ),
        one(
            "Last-Event-ID",
            "Last-Event-ID",
            "header",
            false,
            json!({"type": "integer", "minimum": 0}),
            "As `after`, and instead of it: browsers send it when they connect again",
        ),
        query("text", "q", string(), "A filter that is being written"),
        query(
            "at",
            "at",
            json!({"type": "integer", "minimum": 0}),
            "Where the cursor is, in bytes of UTF-8; at the end unless it says otherwise",
        ),
        one(
            "ref",
            "ref",
            "path",
            true,
            string(),
            "A reference as `ref` of an event has it, or an auditID",
        ),
        one("name", "name", "path", true, string(), "The name of a sink"),
        one(
            "type",
            "type",
            "path",
            true,
            string(),
            "The type of an object, as kubectl takes it: `deploy`, `deployments.apps`",
        ),
        one("object", "name", "path", true, string(), "The name of an object"),
        one(
            "user",
            "user",
            "path",
            true,
            string(),
            "A user, as events name it",
        ),
        query(
            "namespace",
            "namespace",
            string(),
            "The namespace of the object; none for objects of the cluster",
        ),
        query(
            "all",
            "all",
            boolean(),
            "Also writes that changed only the status or bookkeeping, and those fields",
        ),
        query("path", "field", string(), "Only this field and what is in it"),
        query(
            "gap",
            "gap",
            json!({"type": "integer", "minimum": 0, "maximum": 100_000, "default": 30}),
            "Minutes without a request that end a session",
        ),
        query(
            "sealedTo",
            "sealedTo",
            count(),
            "Only records before this one: that of the first answer, so that all answers together are of one time",
        ),
        query(
            "volumesBy",
            "by",
            string(),
            "Also what takes the room, by the values of this field",
        ),
        one(
            "ofCluster",
            "cluster",
            "query",
            true,
            string(),
            "Whose events they are",
        ),
        one(
            "instance",
            "instance",
            "query",
            true,
            string(),
            "Of which apiserver",
        ),
        one(
            "identity",
            "identity",
            "query",
            true,
            json!({"type": "string", "pattern": "^[0-9a-f]{64}-[0-9]+$"}),
            "Hash and length of the file's text",
        ),
    ];
    Value::Object(all.into_iter().collect())
}

fn query(key: &str, name: &str, schema: Value, description: &str) -> (String, Value) {
    one(key, name, "query", false, schema, description)
}

fn several(key: &str, name: &str, description: &str) -> (String, Value) {
    one(key, name, "query", false, list(string()), description)
}

fn several_required(key: &str, name: &str, description: &str) -> (String, Value) {
    one(key, name, "query", true, list(string()), description)
}

fn one(
    key: &str,
    name: &str,
    place: &str,
    is_required: bool,
    schema: Value,
    description: &str,
) -> (String, Value) {
    let parameter = json!({
        "name": name,
        "in": place,
        "required": is_required,
        "description": description,
        "schema": schema,
    });
    (key.to_owned(), parameter)
}

fn string() -> Value {
    json!({"type": "string"})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

fn number() -> Value {
    json!({"type": "integer"})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn open() -> Value {
    json!({"type": "object"})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn of(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// The same, or null.
fn or_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
    }
    schema
}

/// The value of a field; null where it is absent.
fn value() -> Value {
    json!({"type": ["string", "integer", "boolean", "null"]})
}

/// An object with these members and no others; those whose names end with `?` may be missing.
fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in members {
        match name.strip_suffix('?') {
            Some(name) => drop(properties.insert(name.to_owned(), schema)),
            None => {
                required.push(name.to_owned());
                properties.insert(name.to_owned(), schema);
            }
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The same of an answer for which events were looked at.
fn looked<const N: usize>(members: [(&str, Value); N]) -> Value {
    let mut schema = object(members);
    let more = object([
        ("partial", boolean()),
        ("partialReason?", reason()),
        ("stats", of("Stats")),
    ]);
    for name in ["properties", "required"] {
        match (schema.get_mut(name), more.get(name)) {
            (Some(Value::Object(own)), Some(Value::Object(more))) => own.extend(more.clone()),
            (Some(Value::Array(own)), Some(Value::Array(more))) => own.extend(more.clone()),
            _ => {}
        }
    }
    schema
}

fn reason() -> Value {
    json!({
        "type": "string",
        "enum": ["time", "memory", "cancelled", "behind"],
        "description": "Why events are missing: the budget was over; there were more than are held; nobody waited; the \
                        store has not read all of the journal yet",
    })
}

pub(super) fn schemas() -> Value {
    let span = || object([("start", count()), ("end", count())]);
    let mut all = Map::new();
    let mut add = |name: &str, schema: Value| drop(all.insert(name.to_owned(), schema));
    add(
        "Item",
        object([
            ("ref", string()),
            ("cluster", string()),
            ("source", string()),
            ("instance", string()),
            ("seq", count()),
            ("receivedMicros", number()),
            ("policyRule", or_null(count())),
            (
                "event",
                json!({
                    "type": ["object", "string"],
                    "description": "An Event of audit.k8s.io/v1, byte for byte as it was received where nothing in it is \
                                    masked; what cannot be read as one is a string. The last member",
                }),
            ),
        ]),
    );
    add(
        "Events",
        looked([("items", list(of("Item"))), ("next", or_null(string()))]),
    );
    add("Found", looked([("items", list(of("Item")))]));
    add(
        "Versions",
        looked([
            (
                "object",
                object([
                    ("group", or_null(string())),
                    ("resource", string()),
                    ("namespace", string()),
                    ("name", string()),
                ]),
            ),
            ("versions", list(open())),
        ]),
    );
    add("Blame", looked([("lines", list(open()))]));
    add(
        "Readers",
        looked([(
            "readers",
            list(object([
                ("user", string()),
                ("verb", string()),
                ("viaList", boolean()),
                ("events", count()),
                ("first", time()),
                ("last", time()),
            ])),
        )]),
    );
    add(
        "Actor",
        looked([
            ("user", string()),
            ("kind", string()),
            ("groups", list(string())),
            ("sessions", list(open())),
        ]),
    );
    add(
        "Store",
        looked([
            ("files", count()),
            ("events", count()),
            ("eventBytes", count()),
            ("storedBytes", count()),
            ("rawEvents", count()),
            ("unsealedEvents", count()),
            ("manifestVersion", count()),
            ("sealedTo", count()),
            ("counts", open()),
            ("days", list(open())),
            ("forecastBytes", open()),
            ("freeBytes", or_null(count())),
            ("daysToFull", or_null(count())),
            (
                "volumes?",
                list(object([
                    ("value", or_null(string())),
                    ("events", count()),
                    ("eventBytes", count()),
                ])),
            ),
        ]),
    );
    add(
        "Line",
        json!({"oneOf": [of("Item"), object([("end", of("End"))])]}),
    );
    add(
        "End",
        object([
            ("events", count()),
            ("partial", boolean()),
            ("partialReason?", reason()),
            ("error?", string()),
            ("next", or_null(string())),
            ("seq", count()),
        ]),
    );
    add(
        "ExportLine",
        json!({"oneOf": [object([("begin", of("ExportBegin"))]), of("Exported"), object([("end", of("ExportEnd"))])]}),
    );
    add(
        "ExportBegin",
        object([
            ("sealedTo", count()),
            ("newer", count()),
            ("storeVersion", count()),
            ("storeHash", string()),
            ("expired", count()),
        ]),
    );
    add(
        "Exported",
        object([
            ("at", string()),
            ("seq", count()),
            ("cluster", string()),
            ("source", string()),
            ("instance", string()),
            ("receivedMicros", count()),
            ("policyRule", or_null(count())),
            ("event?", open()),
            ("eventBase64?", string()),
        ]),
    );
    add(
        "ExportEnd",
        object([
            ("events", count()),
            ("next", or_null(string())),
            ("error?", string()),
        ]),
    );
    add(
        "Expiring",
        object([
            (
                "items",
                list(object([
                    ("path", string()),
                    ("reason", string()),
                    ("newest", string()),
                    ("events", count()),
                    ("keptEvents", count()),
                    ("bytes", count()),
                ])),
            ),
            ("isLimited", boolean()),
            ("partial", boolean()),
            ("partialReason?", reason()),
        ]),
    );
    add(
        "Stream",
        json!({
            "type": "string",
            "description": "`id` is the record's number, `event` is `event`, `data` an Item. An `event: error` is the last \
                            one. Comments come while nothing else does, each with the number to resume after",
        }),
    );
    add("Count", looked([("count", count())]));
    add(
        "Facets",
        looked([
            ("events", count()),
            (
                "facets",
                list(object([
                    ("field", string()),
                    ("values", list(of("Value"))),
                    ("distinct", count()),
                    ("beyond", count()),
                    ("other", count()),
                    ("exact", boolean()),
                ])),
            ),
        ]),
    );
    add("Value", object([("value", value()), ("events", count())]));
    add(
        "Histogram",
        looked([
            ("from", or_null(time())),
            ("to", or_null(time())),
            ("intervalMicros", count()),
            ("events", count()),
            (
                "buckets",
                list(object([
                    ("at", time()),
                    ("events", count()),
                    ("by?", list(of("Value"))),
                ])),
            ),
        ]),
    );
    add(
        "Comparison",
        looked([
            ("selection", count()),
            ("baseline", count()),
            ("exact", boolean()),
            (
                "differences",
                list(object([
                    ("field", string()),
                    ("value", value()),
                    ("selection", count()),
                    ("baseline", count()),
                    ("selectionShare", json!({"type": "number"})),
                    ("baselineShare", json!({"type": "number"})),
                    ("lift", json!({"type": ["number", "null"]})),
                ])),
            ),
        ]),
    );
    add(
        "Stats",
        object([
            ("files", count()),
            ("filesOpened", count()),
            ("groupsRead", count()),
            ("rowsScanned", count()),
            ("rowsMatched", count()),
            ("elapsedMicros", count()),
        ]),
    );
    add("Text", object([("q", string())]));
    add(
        "Checked",
        object([
            ("valid", boolean()),
            ("diagnostics", list(of("Diagnostic"))),
            ("printed", or_null(string())),
        ]),
    );
    add(
        "Diagnostic",
        object([
            ("code", string()),
            (
                "severity",
                json!({"type": "string", "enum": ["error", "warning"]}),
            ),
            ("message", string()),
            ("span", span()),
            ("labels", list(object([("span", span()), ("message", string())]))),
            ("help", or_null(string())),
            ("fix", or_null(object([("span", span()), ("text", string())]))),
        ]),
    );
    add(
        "Suggestions",
        object([
            ("from", count()),
            ("to", count()),
            (
                "items",
                list(object([
                    ("text", string()),
                    (
                        "kind",
                        json!({"type": "string", "enum": ["field", "operator", "value", "keyword"]}),
                    ),
                    ("help", string()),
                ])),
            ),
        ]),
    );
    add(
        "Problem",
        object([
            ("type", string()),
            ("title", string()),
            ("status", number()),
            ("detail", string()),
            ("diagnostics?", list(of("Diagnostic"))),
        ]),
    );
    add(
        "Status",
        json!({
            "type": "object",
            "description": "As Kubernetes has it.",
            "properties": {
                "kind": {"const": "Status"},
                "apiVersion": {"const": "v1"},
                "status": {"type": "string", "enum": ["Success", "Failure"]},
                "message": string(),
                "reason": string(),
                "code": number(),
            },
            "required": ["kind", "apiVersion", "status"],
        }),
    );
    add("Sinks", object([("items", list(of("Sink")))]));
    add(
        "Sink",
        json!({
            "type": "object",
            "properties": {
                "name": string(),
                "kind": string(),
                "state": string(),
                "target": string(),
                "composition": string(),
                "queued": count(),
                "delivered": count(),
                "dropped": count(),
            },
            "required": ["name", "kind", "state", "target", "composition", "queued", "delivered", "dropped"],
        }),
    );
    add(
        "AuditSink",
        json!({
            "type": "string",
            "description": "An AuditSink of auditregistration.k8s.io/v1alpha1, as YAML or JSON.",
        }),
    );
    add(
        "Sources",
        object([
            (
                "items",
                list(json!({
                    "type": "object",
                    "properties": {
                        "cluster": string(),
                        "instance": string(),
                        "transport": string(),
                        "path": string(),
                        "problem": string(),
                        "events": count(),
                        "bytes": count(),
                    },
                    "required": ["cluster", "instance", "transport", "events", "bytes"],
                })),
            ),
            ("journal", open()),
            ("forward?", open()),
            (
                "signals",
                list(object([
                    ("kind", string()),
                    ("cluster", string()),
                    ("instance", string()),
                    ("auditID", string()),
                    ("atMicros", number()),
                ])),
            ),
        ]),
    );
    add("KnownFile", object([("isKnown", boolean())]));
    add(
        "KeptPart",
        object([
            ("events", count()),
            ("duplicates", count()),
            ("quarantined", count()),
        ]),
    );
    add(
        "Part",
        json!({"type": "string", "description": "The framing is in docs/collect.md."}),
    );
    add(
        "Document",
        json!({"type": "object", "required": ["openapi", "paths"]}),
    );
    Value::Object(all)
}
