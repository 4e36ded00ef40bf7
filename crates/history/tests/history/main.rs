//! Histories of objects, from events as they are recorded.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod blame;
mod masking;
mod properties;
mod real;
mod versions;

use bytes::Bytes;
use kaudit_event::DecodedEvent;
use kaudit_history::{History, Limits, Taken, Target, Version};
use serde_json::{Value, json};

/// An event to be given to a history; unset fields are those of a recorded success.
#[derive(Clone, Debug)]
struct Said {
    verb: &'static str,
    subresource: &'static str,
    code: i64,
    query: &'static str,
    user: &'static str,
    name: &'static str,
    stage: &'static str,
    request: Option<Value>,
    response: Option<Value>,
    annotations: Value,
}

impl Said {
    fn new(verb: &'static str) -> Self {
        Self {
            verb,
            subresource: "",
            code: if verb == "create" { 201 } else { 200 },
            query: "",
            user: "alice",
            name: "a",
            stage: "ResponseComplete",
            request: None,
            response: None,
            annotations: json!({}),
        }
    }

    fn request(mut self, body: Value) -> Self {
        self.request = Some(body);
        self
    }

    fn response(mut self, body: Value) -> Self {
        self.response = Some(body);
        self
    }

    fn user(mut self, user: &'static str) -> Self {
        self.user = user;
        self
    }

    fn of(mut self, subresource: &'static str) -> Self {
        self.subresource = subresource;
        self
    }
}

/// A history of one object and a clock for its events.
struct Told {
    history: History,
    count: u64,
}

impl Told {
    fn about(group: &str, resource: &str) -> Self {
        let target = Target::new(group, resource, "n", "a");
        Self {
            history: History::new(target, Limits::default()),
            count: 0,
        }
    }

    fn say(&mut self, said: Said) -> Taken {
        let target = self.history.target();
        let level = match (&said.request, &said.response) {
            (_, Some(_)) => "RequestResponse",
            (Some(_), None) => "Request",
            (None, None) => "Metadata",
        };
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level, "auditID": self.count.to_string(),
            "stage": said.stage, "requestURI": format!("/x{}", said.query), "verb": said.verb,
            "user": {"username": said.user}, "userAgent": "kubectl/v1.36.3",
            "objectRef": {"resource": target.resource, "namespace": "n", "name": said.name,
                "apiGroup": target.group, "apiVersion": "v1", "subresource": said.subresource},
            "responseStatus": {"metadata": {}, "code": said.code},
            "stageTimestamp": format!("2026-11-25T10:{:02}:{:02}.000000Z", self.count / 60 % 60, self.count % 60),
            "annotations": said.annotations,
        });
        if let Some(body) = said.request {
            event["requestObject"] = body;
        }
        if let Some(body) = said.response {
            event["responseObject"] = body;
        }
        let event = DecodedEvent::parse(Bytes::from(event.to_string())).unwrap();
        let taken = self.history.push(self.count, &event.view());
        self.count += 1;
        taken
    }

    fn last(&self) -> &Version {
        self.history.versions().next_back().unwrap()
    }

    fn object(&self) -> &Value {
        self.last().object.as_ref().unwrap()
    }
}

/// A config map as a server answers it.
fn config_map(version: u64, data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "a", "namespace": "n", "uid": "u-1", "resourceVersion": version.to_string()},
        "data": data})
}

/// The same as a client sends it.
fn sent(data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "n"}, "data": data})
}
