//! What reaches the upstream, and what comes back.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::json;

use crate::fixture::{Fixture, Got, Plan, expected, stages, status};

#[tokio::test]
async fn t17_the_target_is_forwarded_byte_for_byte() {
    let fixture = Fixture::start(Plan::default()).await;
    for target in [
        "//api/v1/pods",
        "/api/v1//pods?watch=0&x=%zz;a=b&&",
        "/api/v1/namespaces/a/pods/x%20y?fieldSelector=a%3Db+c",
        "/api/v1/nodes/n/proxy/../../x%2Fy?",
        "/apis/g/v1?limit=5&continue=a%2Fb~",
    ] {
        let answer = fixture.get(target, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
        assert_eq!(fixture.forwarded().last().unwrap().target, target);
    }
    fixture.finish().await;
}

#[tokio::test]
async fn t42_the_audit_id_is_the_clients_and_echoed_once() {
    let answers = |got: &Got| {
        let id = got.headers.get("audit-id").unwrap().clone();
        Response::builder()
            .header("audit-id", id)
            .body(Full::default())
            .unwrap()
    };
    let fixture = Fixture::start(Plan {
        answers: Arc::new(answers),
        ..Plan::default()
    })
    .await;
    let answer = fixture.get("/version", "Audit-ID: mine\r\n").await;
    assert_eq!(answer.matches("audit-id: mine").count(), 1, "{answer}");
    let got = fixture.forwarded().remove(0);
    assert_eq!(got.headers.get("audit-id").unwrap(), "mine");
    assert_eq!(got.headers.get("x-forwarded-for").unwrap(), "127.0.0.1");
    assert_eq!(got.headers.get("authorization").unwrap(), "Bearer good");
    let events = fixture.events_when(2).await;
    assert_eq!(events[1]["auditID"], "mine");
    fixture.finish().await;
}

#[tokio::test]
async fn bodies_pass_unchanged_and_are_recorded_as_sent() {
    let body = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}, "data": {"k":"<v>"}}"#;
    let answers = |got: &Got| Response::new(Full::from(got.body.clone()));
    let fixture = Fixture::start(Plan {
        level: "RequestResponse",
        answers: Arc::new(answers),
        ..Plan::default()
    })
    .await;
    let request = format!(
        "POST /api/v1/namespaces/n/configmaps HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Authorization: Bearer good\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let answer = fixture.exchange(request.as_bytes()).await;
    assert!(answer.ends_with(body), "{answer}");
    assert_eq!(fixture.forwarded()[0].body, body);
    let events = fixture.events_when(2).await;
    assert_eq!(events[1]["objectRef"]["name"], "a");
    assert_eq!(events[1]["requestObject"]["data"], json!({"k": "<v>"}));
    assert_eq!(events[1]["annotations"]["authorization.k8s.io/reason"], "rule 7");
    fixture.finish().await;
}

#[tokio::test]
async fn t45_redirects_are_passed_on_and_not_followed() {
    let answers = |_: &Got| {
        Response::builder()
            .status(302)
            .header("location", "https://elsewhere.example/")
            .body(Full::default())
            .unwrap()
    };
    let fixture = Fixture::start(Plan {
        answers: Arc::new(answers),
        ..Plan::default()
    })
    .await;
    let answer = fixture.get("/api/v1/pods", "").await;
    assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
    assert!(answer.contains("location: https://elsewhere.example/"));
    assert_eq!(fixture.forwarded().len(), 1);
    fixture.finish().await;
}

#[tokio::test]
async fn t13_what_is_no_request_is_answered_400_without_an_event() {
    let fixture = Fixture::start(Plan::default()).await;
    for request in [
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nConnection: close\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
        "GET http://one.example/api HTTP/1.1\r\nHost: two.example\r\nConnection: close\r\n\r\n",
        "GET /api/%zz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: gateway\r\nHost: other\r\nConnection: close\r\n\r\n",
    ] {
        let answer = fixture.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{request}: {answer}");
    }
    assert!(fixture.events().is_empty());
    assert!(fixture.forwarded().is_empty());
    fixture.finish().await;
}

#[tokio::test]
async fn t18_an_ambiguous_path_is_refused_and_recorded() {
    let fixture = Fixture::start(Plan::default()).await;
    let answer = fixture.get("/api/v1/namespaces/a/%2e%2e/b/secrets", "").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let events = fixture.events_when(2).await;
    assert_eq!(
        stages(&events),
        expected(&[("RequestReceived", 0), ("ResponseComplete", 400)])
    );
    assert_eq!(
        events[1]["annotations"]["kaudit.dev/refused"],
        "path: dot segment"
    );
    assert!(fixture.forwarded().is_empty());
    fixture.finish().await;
}

#[tokio::test]
async fn t19_framing_tricks_are_one_request_or_none() {
    for (name, head) in [
        (
            "two lengths",
            "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        ),
        ("signed length", "Content-Length: +3\r\n\r\nabc"),
        (
            "unknown coding",
            "Transfer-Encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "length and coding",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
    ] {
        let fixture = Fixture::start(Plan::default()).await;
        let request = format!(
            "POST /api/v1/namespaces/n/pods HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
             Authorization: Bearer good\r\n{head}"
        );
        let answer = fixture.exchange(request.as_bytes()).await;
        let forwarded = fixture.forwarded();
        if answer.starts_with("HTTP/1.1 400") {
            assert!(forwarded.is_empty() && fixture.events().is_empty(), "{name}");
        } else {
            assert_eq!(forwarded.len(), 1, "{name}: {answer}");
            assert_eq!(fixture.events_when(2).await.len(), 2, "{name}");
            assert_eq!(forwarded[0].body, "abc", "{name}");
        }
        fixture.finish().await;
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_the_authorizers_reason() {
    let message = "pods \"x\" is forbidden: User \"alice\" cannot get resource \"pods\" in API group \"\" in the namespace \"n\": RBAC: none";
    let fixture = Fixture::start(Plan {
        answers: Arc::new(move |_: &Got| status(403, "Forbidden", message)),
        ..Plan::default()
    })
    .await;
    fixture.get("/api/v1/namespaces/n/pods/x", "").await;
    let events = fixture.events_when(2).await;
    let annotations = &events[1]["annotations"];
    assert_eq!(annotations["authorization.k8s.io/decision"], "forbid");
    assert_eq!(annotations["authorization.k8s.io/reason"], "RBAC: none");
    assert_eq!(annotations["kaudit.dev/authz-source"], "message");
    assert_eq!(events[1]["responseStatus"]["message"], message);
    fixture.finish().await;
}

#[tokio::test]
async fn an_admission_refusal_is_an_allowed_request() {
    let message = "pods \"x\" is forbidden: exceeded quota: small";
    let fixture = Fixture::start(Plan {
        answers: Arc::new(move |_: &Got| status(403, "Forbidden", message)),
        ..Plan::default()
    })
    .await;
    fixture.get("/api/v1/namespaces/n/pods/x", "").await;
    let events = fixture.events_when(2).await;
    assert_eq!(events[1]["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(events[1]["responseStatus"]["code"], 403);
    fixture.finish().await;
}

#[tokio::test]
async fn t26_a_refused_impersonation_leaves_no_impersonated_user() {
    let message = "users \"bob\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope";
    let refuses = Arc::new(move |got: &Got| {
        if got.target.contains("refused") {
            status(403, "Forbidden", message)
        } else {
            Response::new(Full::from(Bytes::from_static(b"{}")))
        }
    });
    let fixture = Fixture::start(Plan {
        answers: refuses,
        ..Plan::default()
    })
    .await;
    fixture
        .get("/api/v1/namespaces/n/pods/refused", "Impersonate-User: bob\r\n")
        .await;
    let events = fixture.events_when(2).await;
    assert!(events[1].get("impersonatedUser").is_none(), "{}", events[1]);
    assert!(
        events[1]["annotations"]
            .get("authorization.k8s.io/decision")
            .is_none()
    );
    fixture
        .get("/api/v1/namespaces/n/pods/let", "Impersonate-User: bob\r\n")
        .await;
    let events = fixture.events_when(4).await;
    assert_eq!(events[3]["impersonatedUser"]["username"], "bob");
    assert_eq!(events[3]["user"]["username"], "alice");
    let review = fixture.reviews(crate::fixture::SSAR).pop().unwrap();
    assert_eq!(review.headers.get("impersonate-user").unwrap(), "bob");
    fixture.finish().await;
}
