//! A client in the same process, who may do everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use kaudit_event::{Text, UserInfo};
use kaudit_sandbox::{Body, Sandbox, SandboxService};
use kaudit_tower::{AuditContext, Authentication, Authenticator, BoxFuture};
use serde_json::{Value, json};
use tower_service::Service as _;

pub(crate) const START: i64 = 1_800_000_000;

/// Everybody may do everything.
#[derive(Debug)]
struct Admin;

impl Authenticator for Admin {
    fn authenticate<'a>(&'a self, _: &'a Parts, _: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        let user = UserInfo {
            username: Text::from_static("admin"),
            groups: Some(vec![
                Text::from_static("system:masters"),
                Text::from_static("system:authenticated"),
            ]),
            ..UserInfo::default()
        };
        Box::pin(std::future::ready(Authentication::User(Arc::new(user))))
    }
}

pub(crate) struct Client {
    pub(crate) service: SandboxService,
    pub(crate) seconds: Arc<AtomicI64>,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn object(&self) -> Value {
        assert!(
            self.code < 300,
            "{} {}",
            self.code,
            String::from_utf8_lossy(&self.body)
        );
        self.json()
    }

    /// Code, reason and message of a refusal.
    #[track_caller]
    pub(crate) fn refusal(&self) -> (u16, String, String) {
        let status = self.json();
        assert_eq!(
            (&status["kind"], &status["status"]),
            (&json!("Status"), &json!("Failure")),
            "{status}"
        );
        assert_eq!(status["code"], self.code);
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        (self.code, text("reason"), text("message"))
    }
}

impl Client {
    pub(crate) fn new() -> Self {
        let seconds = Arc::new(AtomicI64::new(START));
        let clock = Arc::clone(&seconds);
        let sandbox = Sandbox::builder()
            .authenticator(Arc::new(Admin))
            .clock(move || Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap())
            .build();
        Self {
            service: sandbox.service(),
            seconds,
        }
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> http::Response<Body> {
        self.service.clone().call(request).await.unwrap()
    }

    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request.body(Full::new(body.into())).unwrap()).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Answer {
        self.request(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, object: &Value) -> Answer {
        self.request(
            Method::PUT,
            path,
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, &[], "").await
    }

    pub(crate) async fn patch(&self, path: &str, media_type: &str, patch: &Value) -> Answer {
        self.request(
            Method::PATCH,
            path,
            &[("content-type", media_type)],
            patch.to_string(),
        )
        .await
    }

    pub(crate) async fn config_map(&self, name: &str, data: Value) -> Value {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        self.post("/api/v1/namespaces/default/configmaps", &object)
            .await
            .object()
    }

    /// The first lines of a watch.
    pub(crate) async fn watch(&self, path: &str) -> Lines {
        let request = Request::builder().uri(path).body(Full::default()).unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Lines(response.into_body())
    }
}

pub(crate) struct Lines(Body);

impl Lines {
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let frame = self.0.frame().await?.unwrap();
        Some(serde_json::from_slice(frame.data_ref().unwrap()).unwrap())
    }

    pub(crate) async fn event(&mut self) -> (String, String) {
        let event = self.next().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
