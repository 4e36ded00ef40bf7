//! HTTP/1.1 as any client speaks it.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How long an answer may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

pub(super) struct Client {
    runtime: Runtime,
    address: String,
    token: String,
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) kind: String,
    /// Methods that may be used in place of one that may not.
    pub(super) allow: String,
    pub(super) body: Bytes,
}

impl Answer {
    /// What is no UTF-8 in an event is replaced.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// An answer that is read bit by bit. Its connection ends with it.
pub(super) struct Reading<'a> {
    client: &'a Client,
    pub(super) code: u16,
    kind: String,
    allow: String,
    body: Incoming,
    read: BytesMut,
    _connection: JoinSet<()>,
}

/// A server-sent event.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) data: Value,
}

impl Client {
    pub(super) fn new(api: &str, token: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime,
            address: api.strip_prefix("http://").unwrap().to_owned(),
            token: token.to_owned(),
        }
    }

    /// Asks with the token, unless `headers` has another one.
    pub(super) fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.open("GET", target, headers, "").whole()
    }

    pub(super) fn send(&self, method: &str, target: &str, body: &str) -> Answer {
        self.open(method, target, &[], body).whole()
    }

    pub(super) fn stream(&self, target: &str, headers: &[(&str, &str)]) -> Reading<'_> {
        self.open("GET", target, headers, "")
    }

    fn open(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reading<'_> {
        let mut request = Request::builder().method(method).uri(target);
        let own = format!("Bearer {}", self.token);
        for (name, value) in [("host", self.address.as_str()), ("authorization", own.as_str())] {
            if !headers.iter().any(|(given, _)| *given == name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        self.runtime.block_on(async {
            let answer = async {
                let stream = TcpStream::connect(&self.address).await.unwrap();
                let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .unwrap();
                let mut connections = JoinSet::new();
                // An answer that breaks off shows in its body.
                connections.spawn(async { drop(connection.await) });
                (sender.send_request(request).await.unwrap(), connections)
            };
            let (answer, connection) = tokio::time::timeout(LONG, answer).await.unwrap();
            let (head, body) = answer.into_parts();
            let header = |name: &str| {
                let value = head.headers.get(name);
                value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
            };
            Reading {
                client: self,
                code: head.status.as_u16(),
                kind: header("content-type"),
                allow: header("allow"),
                body,
                read: BytesMut::new(),
                _connection: connection,
            }
        })
    }
}

impl Reading<'_> {
    fn whole(self) -> Answer {
        let collected = self
            .client
            .runtime
            .block_on(async { tokio::time::timeout(LONG, self.body.collect()).await.unwrap() });
        Answer {
            code: self.code,
            kind: self.kind,
            allow: self.allow,
            body: collected.unwrap().to_bytes(),
        }
    }

    /// The next line without its end; `None` at the end of the answer.
    #[track_caller]
    pub(super) fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let frame = self.client.runtime.block_on(async {
                let frame = tokio::time::timeout(LONG, self.body.frame()).await;
                frame.expect("nothing comes")
            })?;
            self.read.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// The next event of an event stream.
    #[track_caller]
    pub(super) fn sent(&mut self) -> Sent {
        let (mut id, mut data) = (None, String::new());
        loop {
            let line = self.line().expect("the stream goes on");
            if line.is_empty() {
                if !data.is_empty() {
                    return Sent {
                        id: id.unwrap(),
                        data: serde_json::from_str(&data).unwrap(),
                    };
                }
            } else if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.parse().unwrap());
            } else if let Some(text) = line.strip_prefix("data: ") {
                data.push_str(text);
            } else {
                assert!(line == "event: event" || line.starts_with(':'), "{line}");
            }
        }
    }
}

/// A value as it stands in a target.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap();
        }
    }
    out
}

/// The code of a request to `address` that names `host` and shows `token`.
pub(super) fn code_of(address: &str, host: &str, token: &str) -> u16 {
    use std::io::{Read as _, Write as _};

    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /api/v1/count HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
