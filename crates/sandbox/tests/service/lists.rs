//! Lists and watches.

use serde_json::{Value, json};

use super::client::{Client, MAPS};

#[tokio::test]
async fn lists_are_paged_selected_and_consistent() {
    let client = Client::new();
    for name in ["a", "b", "c"] {
        let object = json!({"metadata": {"name": name, "labels": {"n": name}}});
        client.post(MAPS, &object).await.object();
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = client.get(&format!("{MAPS}?limit=2")).await.object();
    assert_eq!(
        (first["kind"].clone(), names(&first)),
        (json!("ConfigMapList"), vec!["a".into(), "b".into()])
    );
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    assert!(first["items"][0].get("kind").is_none());
    client.delete(&format!("{MAPS}/c")).await.object();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = client
        .get(&format!("{MAPS}?limit=5&continue={token}"))
        .await
        .object();
    assert_eq!(names(&second), ["c", "kube-root-ca.crt"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    assert_eq!(
        names(
            &client
                .get(&format!("{MAPS}?labelSelector=n%20in%20(a,c)"))
                .await
                .object()
        ),
        ["a"]
    );
    assert_eq!(
        names(
            &client
                .get(&format!("{MAPS}?fieldSelector=metadata.name=b"))
                .await
                .object()
        ),
        ["b"]
    );
    for (query, code) in [
        ("continue=!", 400),
        ("limit=x", 400),
        ("fieldSelector=data.x=1", 400),
        ("labelSelector=a+b", 400),
        ("resourceVersion=99999", 504),
    ] {
        assert_eq!(
            client.get(&format!("{MAPS}?{query}")).await.refusal().0,
            code,
            "{query}"
        );
    }
    let everywhere = client.get("/api/v1/configmaps").await.object();
    assert!(names(&everywhere).len() > 3);
    let deleted = client.delete(&format!("{MAPS}?labelSelector=n=a")).await.object();
    assert_eq!(names(&deleted), ["a"]);
}

#[tokio::test]
async fn a_watch_tells_what_happens() {
    let client = Client::new();
    let mut lines = client.watch(&format!("{MAPS}?watch=1&labelSelector=x=y")).await;
    let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}}});
    let created = client.post(MAPS, &object).await.object();
    client.config_map("unseen", json!({})).await;
    let path = format!("{MAPS}/a");
    client
        .patch(
            &path,
            "application/merge-patch+json",
            &json!({"data": {"k": "v"}}),
        )
        .await
        .object();
    client
        .patch(
            &path,
            "application/merge-patch+json",
            &json!({"metadata": {"labels": {"x": "z"}}}),
        )
        .await
        .object();
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(lines.event().await, (kind.to_owned(), "a".to_owned()));
    }
    // The same from the past.
    let revision = created["metadata"]["resourceVersion"].as_str().unwrap();
    let mut lines = client
        .watch(&format!("{MAPS}?watch=1&resourceVersion={revision}"))
        .await;
    assert_eq!(lines.event().await, ("ADDED".to_owned(), "unseen".to_owned()));
    assert_eq!(lines.event().await, ("MODIFIED".to_owned(), "a".to_owned()));
    // Initial events end with a bookmark that says so.
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&fieldSelector=metadata.name=a"
    );
    let mut lines = client.watch(&path).await;
    assert_eq!(lines.event().await.0, "ADDED");
    let bookmark = lines.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let mut lines = client
        .watch(&format!(
            "{MAPS}?watch=1&resourceVersion=0&fieldSelector=metadata.name=unseen"
        ))
        .await;
    assert_eq!(lines.event().await, ("ADDED".to_owned(), "unseen".to_owned()));
    client.delete(&format!("{MAPS}/unseen")).await.object();
    let deleted = lines.next().await.unwrap();
    assert_ne!(
        deleted["object"]["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_watch_from_too_far_back_gets_410_as_an_event() {
    let client = Client::new();
    let mut lines = client
        .watch(&format!("{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1"))
        .await;
    assert_eq!(lines.event().await.0, "ADDED");
    let mut lines = client
        .watch(&format!("{MAPS}?watch=1&resourceVersion=0000&timeoutSeconds=1"))
        .await;
    let event = lines.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert!(lines.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_after_its_timeout() {
    let client = Client::new();
    let mut lines = client
        .watch(&format!(
            "{MAPS}?watch=1&timeoutSeconds=5&fieldSelector=metadata.name=none"
        ))
        .await;
    assert!(lines.next().await.is_none());
}
