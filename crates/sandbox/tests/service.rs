//! The server called in this process, one behaviour at a time.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

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

const START: i64 = 1_800_000_000;

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

struct Client {
    service: SandboxService,
    seconds: Arc<AtomicI64>,
}

struct Answer {
    code: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn object(&self) -> Value {
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
    fn refusal(&self) -> (u16, String, String) {
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
    fn new() -> Self {
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

    async fn send(&self, request: Request<Full<Bytes>>) -> http::Response<Body> {
        self.service.clone().call(request).await.unwrap()
    }

    async fn request(
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

    async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], "").await
    }

    async fn post(&self, path: &str, object: &Value) -> Answer {
        self.request(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
    }

    async fn put(&self, path: &str, object: &Value) -> Answer {
        self.request(
            Method::PUT,
            path,
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, &[], "").await
    }

    async fn patch(&self, path: &str, media_type: &str, patch: &Value) -> Answer {
        self.request(
            Method::PATCH,
            path,
            &[("content-type", media_type)],
            patch.to_string(),
        )
        .await
    }

    async fn config_map(&self, name: &str, data: Value) -> Value {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        self.post("/api/v1/namespaces/default/configmaps", &object)
            .await
            .object()
    }

    /// The first lines of a watch.
    async fn watch(&self, path: &str) -> Lines {
        let request = Request::builder().uri(path).body(Full::default()).unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Lines(response.into_body())
    }
}

struct Lines(Body);

impl Lines {
    async fn next(&mut self) -> Option<Value> {
        let frame = self.0.frame().await?.unwrap();
        Some(serde_json::from_slice(frame.data_ref().unwrap()).unwrap())
    }

    async fn event(&mut self) -> (String, String) {
        let event = self.next().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

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
