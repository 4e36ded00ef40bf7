//! The recorded cases.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kaudit_event::{Text, UserInfo};
use serde::Deserialize;

use crate::client::Answer;

#[derive(Debug, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Value)>,
    body_b64: Option<String>,
    pub(crate) policy: String,
    pub(crate) authn: Authn,
    pub(crate) authz: Authz,
    #[serde(default)]
    pub(crate) sink_refuses: Vec<String>,
    pub(crate) handler: Steps,
    pub(crate) response: Answer,
    pub(crate) events: Vec<Option<String>>,
}

/// Text, or bytes that are not UTF-8.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Text(String),
    Bytes { b64: String },
}

impl Value {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::Bytes { b64 } => STANDARD.decode(b64).unwrap(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Authn {
    pub(crate) result: String,
    pub(crate) user: Option<User>,
    #[serde(default)]
    pub(crate) annotations: Vec<(String, String)>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(crate) struct User {
    name: String,
    uid: String,
    groups: Option<Vec<String>>,
    extra: std::collections::BTreeMap<String, Option<Vec<String>>>,
}

impl User {
    pub(crate) fn info(&self) -> UserInfo {
        let texts = |values: &[String]| values.iter().map(|value| Text::from(value.clone())).collect();
        UserInfo {
            username: self.name.clone().into(),
            uid: self.uid.clone().into(),
            groups: self.groups.as_deref().map(texts),
            extra: self
                .extra
                .iter()
                .map(|(key, values)| (key.clone().into(), values.as_deref().map(texts)))
                .collect(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Authz {
    pub(crate) decision: String,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) impersonate: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Steps {
    pub(crate) steps: Option<Vec<Step>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) op: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) value: String,
    #[serde(default)]
    pub(crate) body: String,
    #[serde(default)]
    pub(crate) object_json: String,
    pub(crate) code: Option<u16>,
    #[serde(default)]
    pub(crate) ms: u64,
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Scenario {
    pub(crate) fn body(&self) -> Option<Vec<u8>> {
        self.body_b64.as_ref().map(|body| STANDARD.decode(body).unwrap())
    }
}

pub(crate) fn read() -> Vec<Scenario> {
    let folder = std::env::var_os("KAUDIT_VECTORS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors")),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join("filter-scenarios.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The events as they are recorded in the cases, and the ID that was generated, if one was.
///
/// What is normalised away is checked first: times that go backwards are told apart from `T`.
pub(crate) fn normalised(events: Vec<Option<String>>, answer: &Answer) -> (String, Vec<Option<String>>) {
    let mut generated = String::new();
    let events = events
        .into_iter()
        .map(|event| event.map(|line| one(&line, answer, &mut generated)))
        .collect();
    (generated, events)
}

fn one(line: &str, answer: &Answer, generated: &mut String) -> String {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let (received, stage_time, id) = (
        text("requestReceivedTimestamp"),
        text("stageTimestamp"),
        text("auditID"),
    );
    let is_in_order = if text("stage") == "RequestReceived" {
        stage_time == received
    } else {
        stage_time >= received
    };
    let mark = if is_in_order { "T" } else { "out of order" };
    let mut line = line
        .replace(
            &format!("\"requestReceivedTimestamp\":\"{received}\""),
            "\"requestReceivedTimestamp\":\"T\"",
        )
        .replace(
            &format!("\"stageTimestamp\":\"{stage_time}\""),
            &format!("\"stageTimestamp\":\"{mark}\""),
        );
    if is_uuid_v4(&id) && answer.sent_id.is_none() {
        line = line.replace(&format!("\"auditID\":\"{id}\""), "\"auditID\":\"ID\"");
        *generated = id;
    }
    for (key, value) in event["annotations"].as_object().into_iter().flatten() {
        if key.starts_with("apiserver.latency.k8s.io/") {
            let value = value.as_str().unwrap();
            line = line.replace(&format!("\"{key}\":\"{value}\""), &format!("\"{key}\":\"DUR\""));
        }
    }
    line
}

pub(crate) fn is_uuid_v4(id: &str) -> bool {
    let bytes = id.as_bytes();
    bytes.len() == 36
        && bytes[14] == b'4'
        && matches!(bytes[19], b'8' | b'9' | b'a' | b'b')
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}
