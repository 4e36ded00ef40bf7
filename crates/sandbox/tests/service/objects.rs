//! Objects and the kinds that have ways of their own.

use http::Method;
use serde_json::{Value, json};

use super::client::{Client, MAPS};

#[tokio::test]
async fn an_object_lives_through_its_verbs() {
    let client = Client::new();
    let created = client.config_map("a", json!({"k": "v"})).await;
    assert_eq!(created["metadata"]["creationTimestamp"], "2027-01-15T08:00:00Z");
    assert_eq!(created["kind"], "ConfigMap");
    let path = format!("{MAPS}/a");
    let mut object = client.get(&path).await.object();
    assert_eq!(object, created);
    object["data"] = json!({"k": "w"});
    let updated = client.put(&path, &object).await.object();
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    assert_eq!(updated["metadata"]["uid"], created["metadata"]["uid"]);
    let again = client.put(&path, &updated).await.object();
    assert_eq!(again, updated);
    let patched = client
        .patch(
            &path,
            "application/merge-patch+json",
            &json!({"data": {"k": null, "l": "1"}}),
        )
        .await;
    assert_eq!(patched.object()["data"], json!({"l": "1"}));
    assert_eq!(
        client
            .patch(&path, "application/json", &json!({}))
            .await
            .refusal()
            .0,
        415
    );
    let stale = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
    let answer = client
        .request(
            Method::DELETE,
            &path,
            &[("content-type", "application/json")],
            stale.to_string(),
        )
        .await;
    assert_eq!(answer.refusal().0, 409);
    let status = client.delete(&path).await.object();
    assert_eq!(
        (&status["status"], &status["details"]["uid"]),
        (&json!("Success"), &created["metadata"]["uid"])
    );
    assert_eq!(client.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let client = Client::new();
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let answer = client.post(&format!("{MAPS}?dryRun=All"), &object).await;
    assert_eq!(
        (answer.code, answer.object()["metadata"]["name"].clone()),
        (201, json!("a"))
    );
    assert_eq!(client.get(&format!("{MAPS}/a")).await.code, 404);
    client.config_map("a", json!({"k": "v"})).await;
    let path = format!("{MAPS}/a?dryRun=All");
    let changed = client
        .patch(
            &path,
            "application/merge-patch+json",
            &json!({"data": {"k": "w"}}),
        )
        .await
        .object();
    assert_eq!(changed["data"]["k"], "w");
    assert_eq!(client.delete(&path).await.code, 200);
    assert_eq!(client.get(&format!("{MAPS}/a")).await.object()["data"]["k"], "v");
    assert_eq!(
        client
            .post(&format!("{MAPS}?dryRun=Some"), &object)
            .await
            .refusal()
            .0,
        422
    );
}

#[tokio::test]
async fn a_deleted_namespace_takes_its_content_along() {
    let client = Client::new();
    client
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}}))
        .await
        .object();
    let maps = "/api/v1/namespaces/team/configmaps";
    assert_eq!(client.get(&format!("{maps}/kube-root-ca.crt")).await.code, 200);
    assert_eq!(
        client
            .get("/api/v1/namespaces/team/serviceaccounts/default")
            .await
            .code,
        200
    );
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    client.post(maps, &held).await.object();
    let namespace = client.delete("/api/v1/namespaces/team").await.object();
    assert_eq!(namespace["status"]["phase"], "Terminating");
    assert_eq!(
        client.get("/api/v1/namespaces/team").await.object()["status"]["phase"],
        "Terminating"
    );
    let (code, _, message) = client
        .post(maps, &json!({"metadata": {"name": "late"}}))
        .await
        .refusal();
    assert_eq!(
        (code, &*message),
        (
            403,
            "configmaps \"late\" is forbidden: unable to create new content in namespace team because it is being \
             terminated"
        )
    );
    let release = json!({"metadata": {"finalizers": null}});
    client.delete(&format!("{maps}/held")).await.object();
    client
        .patch(&format!("{maps}/held"), "application/merge-patch+json", &release)
        .await
        .object();
    assert_eq!(client.get(&format!("{maps}/held")).await.code, 404);
    assert_eq!(client.get("/api/v1/namespaces/team").await.code, 404);
}

fn deployment(replicas: u32) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }})
}

#[tokio::test]
async fn deployments_have_pods_and_a_scale() {
    let client = Client::new();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    client.post(path, &deployment(2)).await.object();
    let pods = async || {
        let list = client
            .get("/api/v1/namespaces/default/pods?labelSelector=app=web")
            .await
            .object();
        list["items"].as_array().unwrap().clone()
    };
    assert_eq!(pods().await.len(), 2);
    let scale = client.get(&format!("{path}/web/scale")).await.object();
    assert_eq!(
        (&scale["kind"], &scale["spec"], &scale["status"]["selector"]),
        (&json!("Scale"), &json!({"replicas": 2}), &json!("app=web"))
    );
    let patch = json!({"spec": {"replicas": 3}});
    let scaled = client
        .patch(
            &format!("{path}/web/scale"),
            "application/merge-patch+json",
            &patch,
        )
        .await
        .object();
    assert_eq!(scaled["spec"]["replicas"], 3);
    let found = pods().await;
    assert_eq!(found.len(), 3);
    let name = found[0]["metadata"]["name"].as_str().unwrap();
    client
        .delete(&format!("/api/v1/namespaces/default/pods/{name}"))
        .await
        .object();
    assert_eq!(pods().await.len(), 3);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let other = pods().await[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(
        client
            .post(
                &format!("/api/v1/namespaces/default/pods/{other}/eviction"),
                &eviction
            )
            .await
            .code,
        201
    );
    client.delete(&format!("{path}/web")).await.object();
    assert!(pods().await.is_empty());
}

#[tokio::test]
async fn a_status_is_written_through_its_subresource_alone() {
    let client = Client::new();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    client.post(path, &deployment(0)).await.object();
    let merge = "application/merge-patch+json";
    let patch = json!({"spec": {"paused": true}, "status": {"note": "x"}});
    let main = client.patch(&format!("{path}/web"), merge, &patch).await.object();
    assert!(main["status"].get("note").is_none() && main["spec"]["paused"] == true);
    let patch = json!({"spec": {"paused": false}, "status": {"note": "x"}});
    let status = client
        .patch(&format!("{path}/web/status"), merge, &patch)
        .await
        .object();
    assert_eq!(
        (&status["status"]["note"], &status["spec"]["paused"]),
        (&json!("x"), &json!(true))
    );
}

#[tokio::test]
async fn definitions_add_resources_while_they_exist() {
    let client = Client::new();
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    assert_eq!(client.get(widgets).await.code, 404);
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
    }});
    client.post(definitions, &definition).await.object();
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"n": 1}});
    assert_eq!(
        client.post(widgets, &widget).await.object()["apiVersion"],
        "example.com/v1"
    );
    assert_eq!(client.get(widgets).await.object()["items"][0]["kind"], "Widget");
    assert!(client.get("/apis/example.com/v1").await.object()["resources"].is_array());
    client
        .delete(&format!("{definitions}/widgets.example.com"))
        .await
        .object();
    assert_eq!(client.get(widgets).await.code, 404);
}

#[tokio::test]
async fn names_are_generated_and_managers_entered() {
    let client = Client::new();
    let object = json!({"metadata": {"generateName": "gen-"}, "data": {"k": "v"}});
    let created = client
        .request(
            Method::POST,
            &format!("{MAPS}?fieldManager=me"),
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
        .object();
    assert!(created["metadata"]["name"].as_str().unwrap().starts_with("gen-"));
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"]),
        (&json!("me"), &json!("Update"))
    );
}
