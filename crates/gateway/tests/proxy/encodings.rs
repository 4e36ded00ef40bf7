//! T35: bodies in every encoding pass byte for byte, and are recorded as the JSON that they are.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, METADATA, head, past_reviews, raw_upstream};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CBOR: &str = "application/cbor";
const YAML: &str = "application/yaml";
const FULL: &str = "RequestResponse";
const CONFIG_MAPS: &str = "POST /api/v1/namespaces/n/configmaps";

/// A request, and the answer to it.
struct Exchange<'a> {
    level: &'a str,
    request: &'a str,
    content_type: &'a str,
    accept: &'a str,
    sent: &'a [u8],
    code: &'a str,
    answer_type: &'a str,
    answered: &'a [u8],
}

impl<'a> Exchange<'a> {
    /// A ConfigMap is created.
    const fn new(content_type: &'a str, sent: &'a [u8], answered: &'a [u8]) -> Self {
        Self {
            level: FULL,
            request: CONFIG_MAPS,
            content_type,
            accept: content_type,
            sent,
            code: "201 Created",
            answer_type: content_type,
            answered,
        }
    }

    /// The last event of it.
    async fn event(&self) -> Value {
        let answer_head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
            self.code,
            self.answer_type,
            self.answered.len()
        );
        let answer = [answer_head.as_bytes(), self.answered].concat();
        let got = Arc::new(Mutex::new(Vec::new()));
        let (seen, length) = (Arc::clone(&got), self.sent.len());
        let (upstream, tasks) = raw_upstream(move |mut stream, _| {
            let (seen, answer) = (Arc::clone(&seen), answer.clone());
            async move {
                if past_reviews(&mut stream).await.is_empty() {
                    return;
                }
                let body = body(&mut stream, length).await;
                seen.lock().unwrap().extend(body);
                stream.write_all(&answer).await.unwrap();
            }
        })
        .await;
        let unused = Arc::new(Mutex::new(Vec::new()));
        let fixture = Fixture::in_front_of(upstream, self.level, false, unused, tasks).await;
        let request = format!(
            "{} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\nContent-Type: {}\r\nAccept: {}\r\n\
             Content-Length: {length}\r\n\r\n",
            self.request, self.content_type, self.accept
        );
        let mut client = TcpStream::connect(fixture.addr).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client.write_all(self.sent).await.unwrap();
        let head = head(&mut client).await;
        assert!(
            head.contains(&format!("content-type: {}\r\n", self.answer_type)),
            "{head}"
        );
        assert_eq!(body(&mut client, self.answered.len()).await, self.answered);
        assert_eq!(*got.lock().unwrap(), self.sent);
        let mut events = fixture.events_when(2).await;
        drop(client);
        fixture.finish().await;
        events.remove(1)
    }
}

async fn body(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    body
}

/// A field of a protobuf message that has bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let tag = number << 3 | 2;
    match u8::try_from(bytes.len()).unwrap() {
        length @ 0..128 => [&[tag, length], bytes].concat(),
        length => [&[tag, length, 1], bytes].concat(),
    }
}

fn envelope(api_version: &[u8], kind: &[u8], raw: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version), field(2, kind)].concat();
    [b"k8s\0".to_vec(), field(1, &type_meta), field(2, raw)].concat()
}

/// The keys of an object as they stand in the event.
fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn t35_a_known_kind_in_protobuf_is_recorded_as_a_json_client_gets_it() {
    let meta = [field(1, b"settings"), field(3, b"n")].concat();
    let data = field(2, &[field(1, b"k"), field(2, b"<v>")].concat());
    let sent = envelope(b"v1", b"ConfigMap", &[field(1, &meta), data].concat());
    let answered = envelope(
        b"v1",
        b"ConfigMap",
        &field(
            1,
            &[
                meta,
                field(5, b"uid-7"),
                field(6, b"42"),
                field(8, &[8, 1, 16, 0]),
            ]
            .concat(),
        ),
    );
    let event = Exchange::new(PROTOBUF, &sent, &answered).event().await;
    assert_eq!(event["objectRef"]["name"], "settings");
    assert_eq!(
        event["requestObject"],
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "settings", "namespace": "n"}, "data": {"k": "<v>"}})
    );
    assert_eq!(
        event["responseObject"],
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {
            "name": "settings", "namespace": "n", "uid": "uid-7", "resourceVersion": "42",
            "creationTimestamp": "1970-01-01T00:00:01Z"}})
    );
    assert_eq!(
        keys(&event["requestObject"]),
        ["kind", "apiVersion", "metadata", "data"]
    );
    let annotations = event["annotations"].as_object().unwrap();
    assert!(
        !annotations.keys().any(|key| key.contains("object-")),
        "{annotations:?}"
    );
}

#[tokio::test]
async fn t35_what_is_not_known_in_protobuf_is_recorded_with_its_kind_and_bytes() {
    let meta = field(1, b"settings");
    let unknown_kind = envelope(b"example.com/v1", b"ConfigMap", &field(1, &meta));
    let unknown_field = envelope(
        b"v1",
        b"ConfigMap",
        &[field(1, &meta), field(15, b"new")].concat(),
    );
    let event = Exchange::new(PROTOBUF, &unknown_kind, &unknown_field)
        .event()
        .await;
    assert_eq!(event["objectRef"]["name"], "settings");
    assert_eq!(
        event["requestObject"],
        json!({"apiVersion": "example.com/v1", "kind": "ConfigMap", "raw": "CgoKCHNldHRpbmdz"})
    );
    assert_eq!(
        event["responseObject"],
        json!({"apiVersion": "v1", "kind": "ConfigMap", "raw": "CgoKCHNldHRpbmdzegNuZXc="})
    );
    let annotations = &event["annotations"];
    assert_eq!(annotations["kaudit.dev/request-object-encoding"], "protobuf");
    assert_eq!(annotations["kaudit.dev/response-object-encoding"], "protobuf");
}

#[tokio::test]
async fn t35_a_status_in_protobuf_is_recorded_as_it_is_in_json() {
    let status = [
        field(2, b"Failure"),
        field(3, b"configmaps \"a\" already exists"),
        field(4, b"AlreadyExists"),
        vec![6 << 3, 0x99, 0x03],
    ]
    .concat();
    let sent = envelope(b"v1", b"ConfigMap", &field(1, &field(1, b"a")));
    let answered = envelope(b"v1", b"Status", &status);
    let event = Exchange {
        code: "409 Conflict",
        ..Exchange::new(PROTOBUF, &sent, &answered)
    };
    let event = event.event().await;
    assert_eq!(event["responseStatus"]["reason"], "AlreadyExists");
    assert_eq!(event["responseStatus"]["code"], 409);
    assert_eq!(
        event["responseObject"],
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "configmaps \"a\" already exists", "reason": "AlreadyExists", "code": 409})
    );
}

#[tokio::test]
async fn t35_cbor_passes_unchanged_and_is_recorded_as_json() {
    let object = b"\xd9\xd9\xf7\xa3\x48metadata\xa1\x44name\x41c\x44kind\x49ConfigMap\x4aapiVersion\x42v1";
    let event = Exchange::new(CBOR, object, object).event().await;
    assert_eq!(event["objectRef"]["name"], "c");
    for body in ["requestObject", "responseObject"] {
        assert_eq!(
            event[body],
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}})
        );
        assert_eq!(keys(&event[body]), ["kind", "apiVersion", "metadata"]);
    }
}

#[tokio::test]
async fn t35_yaml_passes_unchanged_and_is_recorded_as_json() {
    let sent = b"kind: ConfigMap\napiVersion: v1\nmetadata: {name: c}\ndata:\n  on: 'yes'\n";
    let answered =
        b"apiVersion: v1\ndata:\n  \"true\": \"yes\"\nkind: ConfigMap\nmetadata:\n  name: c\n  uid: u\n";
    let event = Exchange::new(YAML, sent, answered).event().await;
    assert_eq!(event["objectRef"]["name"], "c");
    assert_eq!(
        event["requestObject"],
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"true": "yes"}})
    );
    assert_eq!(
        event["responseObject"],
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c", "uid": "u"}, "data": {"true": "yes"}})
    );
    assert_eq!(
        keys(&event["responseObject"]),
        ["kind", "apiVersion", "metadata", "data"]
    );
}

#[tokio::test]
async fn t35_a_status_in_yaml_is_read_at_every_level() {
    let answered = b"apiVersion: v1\ncode: 409\nkind: Status\nmessage: it exists\nmetadata: {}\nreason: AlreadyExists\nstatus: Failure\n";
    for level in [METADATA, FULL] {
        let event = Exchange {
            level,
            code: "409 Conflict",
            ..Exchange::new(YAML, b"kind: ConfigMap\n", answered)
        };
        let event = event.event().await;
        assert_eq!(
            event["responseStatus"],
            json!({"metadata": {}, "status": "Failure", "message": "it exists", "reason": "AlreadyExists", "code": 409})
        );
    }
}

#[tokio::test]
async fn t35_a_patch_in_yaml_is_recorded_as_json() {
    let exchange = Exchange {
        request: "PATCH /api/v1/namespaces/n/configmaps/c",
        content_type: "application/apply-patch+yaml",
        accept: "application/json",
        answer_type: "application/json",
        ..Exchange::new("", b"kind: ConfigMap\napiVersion: v1\n", b"{}")
    };
    let event = exchange.event().await;
    assert_eq!(
        event["requestObject"],
        json!({"kind": "ConfigMap", "apiVersion": "v1"})
    );
}

#[tokio::test]
async fn t35_bodies_that_are_not_what_they_are_said_to_be_are_left_out_with_a_word() {
    let event = Exchange::new(CBOR, b"\xff", b"\xff").event().await;
    assert!(event["requestObject"].is_null() && event["responseObject"].is_null());
    let annotations = event["annotations"].as_object().unwrap();
    let of = |body: kaudit_event::Body| annotations[body.annotation()].as_str().unwrap().to_owned();
    assert_eq!(of(kaudit_event::Body::Request), "content type application/cbor");
    assert_eq!(
        of(kaudit_event::Body::Response),
        "in an encoding that is not read"
    );
    assert_eq!(event["responseStatus"]["code"], 201);
}

#[tokio::test]
async fn t35_yaml_that_is_too_large_to_be_read_is_left_out_with_a_word() {
    let sent = [b"kind: ConfigMap\ndata: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    let event = Exchange::new(YAML, &sent, b"kind: ConfigMap\n").event().await;
    assert!(event["requestObject"].is_null());
    assert_eq!(
        event["annotations"][kaudit_event::Body::Request.annotation()],
        "larger than the limit for one body"
    );
    assert_eq!(event["responseObject"], json!({"kind": "ConfigMap"}));
}

/// `{"jti":"7c5a"}` as the payload of a token.
const TOKEN: &str = "e30.eyJqdGkiOiI3YzVhIn0.c2ln";

#[tokio::test]
async fn a_token_that_is_issued_is_named_by_its_identifier_and_not_recorded() {
    let json = format!(
        r#"{{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","metadata":{{}},"spec":{{"audiences":["a"]}},"status":{{"token":"{TOKEN}"}}}}"#
    );
    let protobuf = envelope(
        b"authentication.k8s.io/v1",
        b"TokenRequest",
        &[
            field(1, b""),
            field(2, &field(1, b"a")),
            field(3, &field(1, TOKEN.as_bytes())),
        ]
        .concat(),
    );
    for (content_type, answered) in [("application/json", json.as_bytes()), (PROTOBUF, &protobuf)] {
        let exchange = Exchange {
            level: METADATA,
            request: "POST /api/v1/namespaces/n/serviceaccounts/robot/token",
            answer_type: content_type,
            accept: content_type,
            ..Exchange::new("application/json", b"{}", answered)
        };
        let event = exchange.event().await;
        let annotations = &event["annotations"];
        assert_eq!(
            annotations["authentication.kubernetes.io/issued-credential-id"],
            "JTI=7c5a"
        );
        assert!(!event.to_string().contains(TOKEN), "{event}");
    }
}

#[tokio::test]
async fn a_refusal_that_the_client_accepts_in_no_encoding_is_recorded_by_its_code() {
    let status = br#"{
  "metadata": {},
  "status": "Failure",
  "message": "only the following media types are accepted: application/json, application/yaml",
  "reason": "NotAcceptable",
  "code": 406,
  "kind": "Status",
  "apiVersion": "v1"
}"#;
    let exchange = |accept| Exchange {
        request: "GET /api/v1/namespaces/n/configmaps/c",
        accept,
        code: "406 Not Acceptable",
        answer_type: "application/json",
        ..Exchange::new("", b"", status)
    };
    let event = exchange("text/plain").event().await;
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 406}));
    assert!(event["responseObject"].is_null());
    let event = exchange("application/json").event().await;
    assert_eq!(event["responseStatus"]["reason"], "NotAcceptable");
}

#[tokio::test]
async fn json_that_is_no_object_of_the_api_is_not_recorded() {
    let exchange = Exchange {
        request: "GET /.well-known/openid-configuration",
        code: "200 OK",
        ..Exchange::new("application/json", b"", br#"{"issuer":"x"}"#)
    };
    let event = exchange.event().await;
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 200}));
    assert!(event["responseObject"].is_null());
}
