//! The middleware around an axum router.

#![cfg(feature = "axum")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use kaudit_policy::Policy;
use kaudit_sink::recording::Recording;
use kaudit_tower::{Audit, AuditContext, Bodies, StatusError};
use serde_json::Value;
use tower::ServiceExt as _;

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n";

async fn answer(app: Router, target: &str) -> (StatusCode, Value) {
    let request = Request::get(target).body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn events(recording: &Recording) -> Vec<Value> {
    let lines = recording.lines();
    lines
        .iter()
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_handler_annotates_and_its_status_error_is_recorded() {
    async fn handler(audit: AuditContext) -> Result<String, StatusError> {
        audit.annotate("example.com/verb", audit.request_info().verb_text().clone());
        Err(StatusError::not_found("example.com", "flunders", "x"))
    }
    let recording = Recording::default();
    let (policy, _) = Policy::parse(POLICY.as_bytes()).unwrap();
    let audit = Audit::builder(policy, Arc::new(recording.clone()))
        .bodies(Bodies::Sniff)
        .build();
    let app = Router::new()
        .route(
            "/apis/example.com/v1/namespaces/{ns}/flunders/{name}",
            get(handler),
        )
        .layer(audit.layer());

    let (status, body) = answer(app, "/apis/example.com/v1/namespaces/a/flunders/x").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["message"], "flunders.example.com \"x\" not found");

    let events = events(&recording);
    assert_eq!(events.len(), 2);
    let last = &events[1];
    assert_eq!(last["objectRef"]["resource"], "flunders");
    assert_eq!(last["responseStatus"]["reason"], "NotFound");
    assert_eq!(last["responseStatus"]["details"]["group"], "example.com");
    assert_eq!(last["responseObject"], body);
    assert_eq!(last["annotations"]["example.com/verb"], "get");
}

#[tokio::test]
async fn a_nested_router_is_audited_with_the_whole_path() {
    async fn handler(audit: Option<AuditContext>) -> String {
        audit.map_or_else(String::new, |audit| audit.audit_id().to_string())
    }
    let recording = Recording::default();
    let (policy, _) = Policy::parse(POLICY.as_bytes()).unwrap();
    let audit = Audit::builder(policy, Arc::new(recording.clone())).build();
    let inner = Router::new().route("/v1/flunders", get(handler));
    let app = Router::new()
        .nest("/apis/example.com", inner)
        .layer(audit.layer());
    let (status, _) = answer(app, "/apis/example.com/v1/flunders?limit=5").await;
    assert_eq!(status, StatusCode::OK);
    let events = events(&recording);
    assert_eq!(events[1]["requestURI"], "/apis/example.com/v1/flunders?limit=5");
    assert_eq!(events[1]["verb"], "list");
}

#[tokio::test]
async fn a_layer_on_a_nested_router_sees_the_whole_path_too() {
    let recording = Recording::default();
    let (policy, _) = Policy::parse(POLICY.as_bytes()).unwrap();
    let audit = Audit::builder(policy, Arc::new(recording.clone())).build();
    let inner = Router::new()
        .route("/v1/flunders", get(|| async { "ok" }))
        .layer(audit.layer());
    let app = Router::new().nest("/apis/example.com", inner);
    answer(app, "/apis/example.com/v1/flunders").await;
    assert_eq!(
        events(&recording)[1]["requestURI"],
        "/apis/example.com/v1/flunders"
    );
}

#[tokio::test]
async fn a_forgotten_layer_is_noticed_with_the_first_request() {
    async fn handler(_: AuditContext) -> &'static str {
        "never"
    }
    let app = Router::new().route("/", get(handler));
    assert_eq!(answer(app, "/").await.0, StatusCode::INTERNAL_SERVER_ERROR);
}
