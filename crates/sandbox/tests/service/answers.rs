//! Refusals, bounds, and what is no object.

use std::sync::atomic::Ordering;

use http::Method;
use serde_json::{Value, json};

use super::client::{Client, MAPS};

#[tokio::test]
async fn refusals_are_statuses_with_upstreams_texts() {
    let client = Client::new();
    client.config_map("a", json!({})).await;
    let map = |name: &str| json!({"metadata": {"name": name}});
    let check = async |method: Method, path: &str, body: Value, code: u16, reason: &str, message: &str| {
        let answer = client
            .request(
                method,
                path,
                &[("content-type", "application/json")],
                body.to_string(),
            )
            .await;
        assert_eq!(
            answer.refusal(),
            (code, reason.to_owned(), message.to_owned()),
            "{path}"
        );
    };
    check(
        Method::GET,
        &format!("{MAPS}/b"),
        json!({}),
        404,
        "NotFound",
        "configmaps \"b\" not found",
    )
    .await;
    check(
        Method::GET,
        "/apis/apps/v1/namespaces/default/deployments/d",
        json!({}),
        404,
        "NotFound",
        "deployments.apps \"d\" not found",
    )
    .await;
    check(
        Method::POST,
        MAPS,
        map("a"),
        409,
        "AlreadyExists",
        "configmaps \"a\" already exists",
    )
    .await;
    check(
        Method::POST,
        "/api/v1/namespaces/absent/configmaps",
        map("a"),
        404,
        "NotFound",
        "namespaces \"absent\" not found",
    )
    .await;
    let other = json!({"metadata": {"name": "x", "namespace": "other"}});
    check(
        Method::POST,
        MAPS,
        other,
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    )
    .await;
    check(
        Method::PUT,
        &format!("{MAPS}/a"),
        map("b"),
        400,
        "BadRequest",
        "the name of the object (b) does not match the name on the URL (a)",
    )
    .await;
    check(
        Method::PUT,
        &format!("{MAPS}/a"),
        json!({"metadata": {"name": "a", "resourceVersion": "1"}}),
        409,
        "Conflict",
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes \
         to the latest version and try again",
    )
    .await;
    let missing = "the server could not find the requested resource";
    check(
        Method::GET,
        "/api/v1/nonsense",
        json!({}),
        404,
        "NotFound",
        missing,
    )
    .await;
    check(
        Method::GET,
        "/api/v1/namespaces/default/configmaps/a/scale",
        json!({}),
        404,
        "NotFound",
        missing,
    )
    .await;
    check(
        Method::PUT,
        MAPS,
        json!({}),
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
    .await;
    check(
        Method::DELETE,
        "/api/v1/namespaces/kube-system",
        json!({}),
        403,
        "Forbidden",
        "namespaces \"kube-system\" is forbidden: this namespace may not be deleted",
    )
    .await;
    assert_eq!(client.get("/apis/none.example/v1/things").await.code, 404);
    assert_eq!(client.get("/nope").await.body, "404 page not found\n");
}

#[tokio::test]
async fn bodies_are_bounded_and_typed() {
    let client = Client::new();
    let huge = vec![b' '; 3 * 1024 * 1024 + 1];
    let (code, reason, message) = client
        .request(Method::POST, MAPS, &[("content-type", "application/json")], huge)
        .await
        .refusal();
    assert_eq!(
        (code, &*reason, &*message),
        (
            413,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728"
        )
    );
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let body = format!("{{\"metadata\":{{\"name\":\"a\"}},\"data\":{deep}}}");
    let answer = client
        .request(Method::POST, MAPS, &[("content-type", "application/json")], body)
        .await;
    assert_eq!(answer.refusal().0, 400);
    for (media_type, body, code) in [
        ("text/plain", "{}", 415),
        ("application/json", "{", 400),
        ("application/json", "[]", 400),
        (
            "application/json",
            "{\"kind\":\"Secret\",\"apiVersion\":\"v1\"}",
            400,
        ),
        (
            "application/json",
            "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v2\"}",
            400,
        ),
        ("application/vnd.kubernetes.protobuf", "k8s", 400),
        (
            "application/yaml",
            "metadata: {name: from-yaml}\ndata: {a: b}",
            201,
        ),
    ] {
        let answer = client
            .request(Method::POST, MAPS, &[("content-type", media_type)], body)
            .await;
        assert_eq!(answer.code, code, "{media_type} {body}");
    }
    let large = json!({"k": "x".repeat(1024 * 1024 + 1)});
    let object = json!({"metadata": {"name": "large"}, "data": large});
    let (code, _, message) = client.post(MAPS, &object).await.refusal();
    assert_eq!(
        (code, &*message),
        (
            422,
            "ConfigMap \"large\" is invalid: []: Too long: may not be more than 1048576 bytes"
        )
    );
}

#[tokio::test]
async fn tables_and_metadata_are_served_on_request() {
    let client = Client::new();
    client.config_map("a", json!({"k": "v"})).await;
    client.seconds.fetch_add(90, Ordering::Relaxed);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let answer = client
        .request(Method::GET, &format!("{MAPS}/a"), &[("accept", table)], "")
        .await
        .object();
    assert_eq!(
        (&answer["kind"], &answer["rows"][0]["cells"]),
        (&json!("Table"), &json!(["a", 1, "90s"]))
    );
    assert_eq!(answer["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let answer = client
        .request(Method::GET, MAPS, &[("accept", partial)], "")
        .await
        .object();
    assert_eq!(answer["kind"], "PartialObjectMetadataList");
    assert!(answer["items"][0].get("data").is_none());
    let yaml = client
        .request(
            Method::GET,
            &format!("{MAPS}/a"),
            &[("accept", "application/yaml")],
            "",
        )
        .await;
    assert!(String::from_utf8_lossy(&yaml.body).contains("kind: ConfigMap"));
    let answer = client
        .request(Method::GET, MAPS, &[("accept", "image/png")], "")
        .await;
    assert_eq!(
        (answer.code, answer.json()["reason"].clone()),
        (406, json!("NotAcceptable"))
    );
}

#[tokio::test]
async fn documents_of_no_resource_are_served() {
    let client = Client::new();
    for path in ["/healthz", "/readyz", "/livez"] {
        assert_eq!(client.get(path).await.body, "ok");
    }
    assert_eq!(client.get("/version").await.object()["major"], "1");
    assert_eq!(client.get("/api").await.object()["kind"], "APIVersions");
    assert_eq!(client.get("/apis").await.object()["kind"], "APIGroupList");
    assert_eq!(
        client.get("/apis/apps").await.object()["preferredVersion"]["groupVersion"],
        "apps/v1"
    );
    assert_eq!(client.get("/api/v1").await.object()["groupVersion"], "v1");
    assert_eq!(client.get("/api/v2").await.refusal().1, "NotFound");
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = client
        .request(Method::GET, "/apis", &[("accept", aggregated)], "")
        .await;
    assert_eq!(
        answer.headers.get("content-type").unwrap(),
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!(answer.object()["kind"], "APIGroupDiscoveryList");
    assert!(client.get("/openapi/v3").await.object()["paths"]["apis/apps/v1"].is_object());
    let metrics = client.get("/metrics").await;
    assert!(
        String::from_utf8_lossy(&metrics.body).contains("apiserver_storage_objects{resource=\"nodes\"} 2")
    );
}

#[tokio::test]
async fn an_upgrade_that_is_none_is_refused() {
    let client = Client::new();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    client
        .post("/api/v1/namespaces/default/pods", &pod)
        .await
        .object();
    let path = "/api/v1/namespaces/default/pods/p";
    let (code, _, message) = client.get(&format!("{path}/exec?command=ls")).await.refusal();
    assert_eq!((code, &*message), (400, "Upgrade request required"));
    assert_eq!(client.get(&format!("{path}/exec")).await.refusal().0, 400);
    let (code, _, message) = client.get(&format!("{path}/log?container=x")).await.refusal();
    assert_eq!((code, &*message), (400, "container x is not valid for pod p"));
    assert_eq!(
        client
            .get(&format!("{path}/log?timestamps=1&tailLines=1"))
            .await
            .body,
        "2027-01-15T08:00:00.000000000Z c: ready\n"
    );
}
