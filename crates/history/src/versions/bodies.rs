//! What an event has of bodies.

use kaudit_event::{Body, EventView};
use serde_json::Value;

use crate::body;

/// The bodies of an event that can be read, and why one cannot.
pub(super) struct Bodies {
    pub(super) request: Result<body::Parsed, String>,
    pub(super) response: Result<body::Parsed, String>,
}

impl Bodies {
    pub(super) fn of(view: &EventView<'_>) -> Self {
        let read = |text: Option<&[u8]>, which: &str, body: Body| {
            let annotation = |key: &str| view.annotation(key);
            if annotation("audit.k8s.io/truncated").is_some_and(|value| &*value == b"true") {
                return Err(format!("the {which} was cut off the event for its size"));
            }
            if let Some(why) =
                annotation(body.annotation()).or_else(|| annotation("kaudit.dev/bodies-omitted"))
            {
                let why = String::from_utf8_lossy(&why).into_owned();
                return Err(format!("the {which} was left out of the event: {why}"));
            }
            let encoding = match body {
                Body::Request => "kaudit.dev/request-object-encoding",
                Body::Response => "kaudit.dev/response-object-encoding",
            };
            if let Some(encoding) = annotation(encoding) {
                let encoding = String::from_utf8_lossy(&encoding).into_owned();
                return Err(format!("the {which} was recorded as {encoding}"));
            }
            match text {
                Some(text) => body::parse(text),
                None => Err(format!(
                    "the {which} was not recorded{}",
                    view.level()
                        .map(|level| format!(" at level {level}"))
                        .unwrap_or_default()
                )),
            }
        };
        let (request, response) = (view.request_object(), view.response_object());
        Self {
            request: read(request, "request", Body::Request),
            response: read(response, "answer", Body::Response),
        }
    }

    pub(super) fn options_say_dry_run(&self) -> bool {
        self.request.as_ref().is_ok_and(|body| {
            kind(&body.value) == "DeleteOptions"
                && body
                    .value
                    .get("dryRun")
                    .and_then(Value::as_array)
                    .is_some_and(|values| values.iter().any(|value| value == "All"))
        })
    }
}

pub(super) fn kind(body: &Value) -> &str {
    body.get("kind").and_then(Value::as_str).unwrap_or_default()
}
