//! Who asks, and what happens when nobody can say.

use std::sync::Arc;

use crate::fixture::{Fixture, Identities, Plan, SSR, expected, json_response, stages, status};

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

#[tokio::test]
async fn t05_impersonation_is_the_clusters_to_decide_with_the_clients_own_rights() {
    let answers = |got: &crate::fixture::Got| {
        if got
            .headers
            .get("impersonate-user")
            .is_some_and(|user| user == "root")
        {
            status(
                403,
                "Forbidden",
                "users \"root\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            )
        } else {
            json_response(200, &serde_json::json!({"kind": "PodList", "items": []}))
        }
    };
    let fixture = Fixture::start(Plan {
        answers: Arc::new(answers),
        ..Plan::default()
    })
    .await;
    let headers = "Impersonate-User: bob\r\nImpersonate-Uid: 9\r\nImpersonate-Group: devs\r\nImpersonate-Group: ops\r\n\
                   Impersonate-Extra-Scopes: a\r\n";
    fixture.get("/api/v1/pods", headers).await;
    fixture.get("/api/v1/pods", "Impersonate-User: root\r\n").await;

    let got = fixture.forwarded();
    assert_eq!(got[0].headers.get("authorization").unwrap(), "Bearer good");
    let of = |name: &str| -> Vec<&str> {
        let values = got[0].headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    };
    assert_eq!(of("impersonate-user"), ["bob"]);
    assert_eq!(of("impersonate-uid"), ["9"]);
    assert_eq!(of("impersonate-group"), ["devs", "ops"]);
    assert_eq!(of("impersonate-extra-scopes"), ["a"]);

    let events = fixture.events_when(4).await;
    assert_eq!(events[1]["user"]["username"], "alice");
    assert_eq!(
        events[1]["impersonatedUser"],
        serde_json::json!({"username": "bob", "uid": "9", "groups": ["devs", "ops", "system:authenticated"],
            "extra": {"scopes": ["a"]}})
    );
    assert_eq!(events[3]["responseStatus"]["code"], 403);
    assert!(events[3].get("impersonatedUser").is_none(), "{}", events[3]);
    fixture.finish().await;
}

#[tokio::test]
async fn t06_the_first_user_counts_and_groups_without_a_user_are_the_clusters_400() {
    let answers = |got: &crate::fixture::Got| match got.headers.get("impersonate-user") {
        Some(_) => json_response(200, &serde_json::json!({"kind": "PodList", "items": []})),
        None => status(400, "BadRequest", "requested groups without impersonating a user"),
    };
    let fixture = Fixture::start(Plan {
        answers: Arc::new(answers),
        ..Plan::default()
    })
    .await;
    fixture
        .get(
            "/api/v1/pods",
            "Impersonate-User: bob\r\nImpersonate-User: root\r\n",
        )
        .await;
    let answer = fixture.get("/api/v1/pods", "Impersonate-Group: devs\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");

    // Nobody behind can take the second user for the one that is meant.
    let users = fixture.forwarded()[0]
        .headers
        .get_all("impersonate-user")
        .iter()
        .count();
    assert_eq!(users, 1);
    let events = fixture.events_when(4).await;
    assert_eq!(events[1]["impersonatedUser"]["username"], "bob");
    assert_eq!(events[3]["responseStatus"]["reason"], "BadRequest");
    assert!(events[3].get("impersonatedUser").is_none());
    fixture.finish().await;
}

#[tokio::test]
async fn t26_no_name_in_a_request_hides_who_it_was_carried_out_as() {
    let answers = |_: &crate::fixture::Got| {
        status(
            403,
            "Forbidden",
            "pods \"x cannot impersonate\" is forbidden: User \"bob\" cannot get resource \"pods\" in API group \"\" in the \
             namespace \"a\"",
        )
    };
    let fixture = Fixture::start(Plan {
        answers: Arc::new(answers),
        ..Plan::default()
    })
    .await;
    let path = "/api/v1/namespaces/a/pods/x%20cannot%20impersonate";
    fixture.get(path, "Impersonate-User: bob\r\n").await;
    let event = &fixture.events_when(2).await[1];
    assert_eq!(event["impersonatedUser"]["username"], "bob", "{event}");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    fixture.finish().await;
}

#[tokio::test]
async fn t08_extra_keys_are_forwarded_as_sent_and_recorded_unescaped() {
    let fixture = Fixture::start(Plan::default()).await;
    let headers = "Impersonate-User: bob\r\nImpersonate-Extra-Example.com%2FScopes: a\r\n\
                   Impersonate-Extra-Bad%zz: b\r\n";
    fixture.get("/api/v1/pods", headers).await;
    let got = fixture.forwarded().remove(0);
    assert_eq!(
        got.headers.get("impersonate-extra-example.com%2fscopes").unwrap(),
        "a"
    );
    assert_eq!(got.headers.get("impersonate-extra-bad%zz").unwrap(), "b");
    let events = fixture.events_when(2).await;
    assert_eq!(
        events[1]["impersonatedUser"]["extra"],
        serde_json::json!({"example.com/scopes": ["a"], "bad%zz": ["b"]})
    );
    fixture.finish().await;
}
