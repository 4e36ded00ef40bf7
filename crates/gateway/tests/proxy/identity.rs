//! Who asks, and what happens when nobody can say.

use crate::fixture::{Fixture, Identities, Plan, SSR, expected, stages};

#[tokio::test]
async fn t07_without_an_identity_nothing_is_forwarded() {
    for identities in [
        Identities::Broken(500),
        Identities::Broken(404),
        Identities::Nonsense,
    ] {
        let fixture = Fixture::start(Plan {
            identities,
            ..Plan::default()
        })
        .await;
        let answer = fixture.get("/api/v1/pods", "").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{identities:?}: {answer}");
        assert!(answer.contains("\"kind\":\"Status\""), "{answer}");
        let events = fixture.events_when(1).await;
        assert_eq!(
            stages(&events),
            expected(&[("ResponseStarted", 503)]),
            "{identities:?}"
        );
        assert!(events[0]["user"].as_object().unwrap().is_empty());
        assert!(fixture.forwarded().is_empty());
        fixture.finish().await;
    }
}

#[tokio::test]
async fn t25_a_wrong_token_is_one_event_without_a_user() {
    let fixture = Fixture::start(Plan::default()).await;
    let request = "GET /api/v1/pods HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer bad\r\n\r\n";
    let answer = fixture.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let events = fixture.events_when(1).await;
    assert_eq!(stages(&events), expected(&[("ResponseStarted", 401)]));
    assert_eq!(events[0]["responseStatus"]["reason"], "Unauthorized");
    assert!(fixture.forwarded().is_empty());
    fixture.finish().await;
}

#[tokio::test]
async fn an_identity_is_asked_once_and_recorded_whole() {
    let fixture = Fixture::start(Plan::default()).await;
    for _ in 0..3 {
        fixture.get("/api/v1/pods", "").await;
    }
    assert_eq!(fixture.reviews(SSR).len(), 1);
    let review = &fixture.reviews(SSR)[0];
    assert_eq!(review.method, "POST");
    assert_eq!(review.headers.get("authorization").unwrap(), "Bearer good");
    let events = fixture.events_when(6).await;
    let user = &events[1]["user"];
    assert_eq!(
        *user,
        serde_json::json!({"username": "alice", "uid": "7", "groups": ["devs"], "extra": {"scopes": ["a"]}})
    );
    fixture.finish().await;
}

#[tokio::test]
async fn requests_without_credentials_are_anonymous_and_forwarded_without() {
    let fixture = Fixture::start(Plan::default()).await;
    let request = "GET /version?access_token=good HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n";
    let answer = fixture.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let events = fixture.events_when(2).await;
    assert_eq!(events[1]["user"]["username"], "system:anonymous");
    assert!(fixture.forwarded()[0].headers.get("authorization").is_none());
    fixture.finish().await;
}

#[tokio::test]
async fn t04_front_proxy_headers_change_nothing() {
    let fixture = Fixture::start(Plan::default()).await;
    fixture
        .get(
            "/api/v1/pods",
            "X-Remote-User: root\r\nX-Remote-Group: system:masters\r\nX_Remote_User: root\r\n",
        )
        .await;
    let events = fixture.events_when(2).await;
    assert_eq!(events[1]["user"]["username"], "alice");
    let got = fixture.forwarded().remove(0);
    assert!(
        got.headers.keys().all(|name| !name.as_str().contains("remote")),
        "{:?}",
        got.headers
    );
    fixture.finish().await;
}
