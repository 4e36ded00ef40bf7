//! A client that sees everything: raw bytes in, and what came of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::scenario::{Scenario, Value, is_uuid_v4};

/// What the client saw.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) audit_id: Vec<Value>,
    pub(crate) content_type: String,
    pub(crate) body: String,
    pub(crate) informational: Vec<u16>,
    pub(crate) aborted: bool,
    /// The ID that the request bore.
    #[serde(skip)]
    pub(crate) sent_id: Option<Vec<u8>>,
}

impl Answer {
    /// Writes `ID` where the server's own ID stands, if it is the one of the events.
    pub(crate) fn name_id(&mut self, of_events: &str) {
        if self.sent_id.take().is_some() {
            return;
        }
        for id in &mut self.audit_id {
            if let Value::Text(id) = id
                && is_uuid_v4(id)
                && (of_events.is_empty() || id == of_events)
            {
                "ID".clone_into(id);
            }
        }
    }
}

pub(crate) async fn exchange(mut stream: DuplexStream, scenario: &Scenario) -> Answer {
    let mut request = format!(
        "{} {} HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n",
        scenario.method, scenario.target
    )
    .into_bytes();
    let mut sent_id = None;
    for (name, value) in &scenario.headers {
        let value = value.bytes();
        request.extend_from_slice(format!("{name}: ").as_bytes());
        request.extend_from_slice(&value);
        request.extend_from_slice(b"\r\n");
        if name.eq_ignore_ascii_case("audit-id") && sent_id.is_none() {
            sent_id = Some(value.trim_ascii().to_vec());
        }
    }
    let body = scenario.body();
    if body.is_some() || matches!(scenario.method.as_str(), "POST" | "PUT" | "PATCH") {
        let length = body.as_ref().map_or(0, Vec::len);
        request.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(&body.unwrap_or_default());
    stream.write_all(&request).await.unwrap();
    let mut bytes = Vec::new();
    // An aborted connection may end in an error; what came before it counts.
    drop(stream.read_to_end(&mut bytes).await);
    let mut answer = parse(&bytes, scenario.method == "HEAD");
    // The first value counts; an empty one is none.
    answer.sent_id = sent_id.filter(|id| !id.is_empty());
    answer
}

fn parse(bytes: &[u8], is_head: bool) -> Answer {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Answer {
            aborted: true,
            ..Answer::default()
        };
    };
    let ids = bytes[..end].split(|byte| *byte == b'\n').filter_map(|line| {
        let (name, value) = line.split_at_checked(9)?;
        name.eq_ignore_ascii_case(b"audit-id:")
            .then(|| value.trim_ascii())
    });
    let ids = ids
        .map(|id| match std::str::from_utf8(id) {
            Ok(id) => Value::Text(id.to_owned()),
            Err(_) => Value::Bytes {
                b64: STANDARD.encode(id),
            },
        })
        .collect();
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    if (100..200).contains(&status) && status != 101 {
        let mut answer = parse(rest, is_head);
        answer.informational.insert(0, status);
        return answer;
    }
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let all = |name: &str| -> Vec<String> {
        fields
            .iter()
            .filter(|(field, _)| field == name)
            .map(|(_, value)| value.clone())
            .collect()
    };
    let (body, aborted) = match (all("content-length").first(), all("transfer-encoding").first()) {
        _ if is_head || matches!(status, 204 | 304) => (rest.to_vec(), false),
        (Some(length), _) => {
            let length: usize = length.parse().unwrap();
            (rest.to_vec(), rest.len() < length)
        }
        (None, Some(_)) => chunked(rest),
        (None, None) => (rest.to_vec(), false),
    };
    Answer {
        status,
        audit_id: ids,
        content_type: all("content-type").concat(),
        body: String::from_utf8_lossy(&body).into_owned(),
        informational: Vec::new(),
        aborted,
        sent_id: None,
    }
}

/// The body of chunks, and whether its end is missing.
fn chunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else {
            return (body, true);
        };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, false);
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(&rest[..rest.len().min(size)]);
            return (body, true);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}
