//! What the server's own audit events say.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use kaudit_event::{Text, UserInfo};
use kaudit_listen::{ListenConfig, Listener};
use kaudit_policy::Policy;
use kaudit_sandbox::{Sandbox, SandboxService};
use kaudit_sink::{Emission, Outcome, Reservation, Reserve, Sink};
use kaudit_tower::{AuditContext, Authentication, Authenticator, BoxFuture};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

#[derive(Debug, Default)]
struct Events(Mutex<Vec<Value>>);

impl Sink for Events {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        self.0
            .lock()
            .unwrap()
            .push(serde_json::from_slice(emission.line().unwrap()).unwrap());
        Outcome::Accepted
    }

    fn name(&self) -> String {
        "events".to_owned()
    }
}

/// The user that the `x-user` header names.
#[derive(Debug)]
struct Named;

impl Authenticator for Named {
    fn authenticate<'a>(&'a self, parts: &'a Parts, _: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        let user = parts.headers.get("x-user").map(|name| UserInfo {
            username: Text::copy_from_slice(name.as_bytes()),
            groups: Some(vec![
                Text::from_static("system:masters"),
                Text::from_static("system:authenticated"),
            ]),
            ..UserInfo::default()
        });
        let answer = user.map_or(Authentication::Failed, |user| {
            Authentication::User(Arc::new(user))
        });
        Box::pin(std::future::ready(answer))
    }
}

struct Client {
    sandbox: Sandbox,
    service: SandboxService,
    events: Arc<Events>,
}

impl Client {
    fn new(level: &str) -> Self {
        let events = Arc::new(Events::default());
        let policy = format!(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{{level: {level}}}]\n"
        );
        let (policy, _) = Policy::parse(policy.as_bytes()).unwrap();
        let sink: Arc<dyn Sink> = Arc::<Events>::clone(&events);
        let sandbox = Sandbox::builder()
            .authenticator(Arc::new(Named))
            .audit(policy, sink)
            .build();
        Self {
            service: sandbox.service(),
            sandbox,
            events,
        }
    }

    /// Sends a request, reads its answer, and gives the code and its events.
    async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> (u16, Vec<Value>) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-user", "ann")
            .header("content-type", media_type)
            .body(Full::new(body.into()))
            .unwrap();
        self.answer(request).await
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> (u16, Vec<Value>) {
        let response = self.service.clone().call(request).await.unwrap();
        let code = response.status().as_u16();
        drop(response.into_body().collect().await.unwrap());
        (code, std::mem::take(&mut *self.events.0.lock().unwrap()))
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_create_is_recorded_with_both_objects() {
    let client = Client::new("RequestResponse");
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let (code, events) = client
        .send(Method::POST, MAPS, "application/json", object.to_string())
        .await;
    assert_eq!((code, events.len()), (201, 1));
    let event = &events[0];
    assert_eq!(event["stage"], "ResponseComplete");
    assert_eq!(event["user"]["username"], "ann");
    assert_eq!(
        event["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"})
    );
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(event["requestObject"]["data"], json!({"k": "v"}));
    assert!(event["requestObject"]["metadata"].get("uid").is_none());
    assert!(event["responseObject"]["metadata"]["uid"].is_string());
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
}

#[tokio::test]
async fn a_refusal_is_recorded_as_its_status() {
    let client = Client::new("RequestResponse");
    let (code, events) = client.send(Method::GET, &format!("{MAPS}/none"), "", "").await;
    assert_eq!(code, 404);
    assert_eq!(
        events[0]["responseStatus"],
        json!({"metadata": {}, "status": "Failure", "message": "configmaps \"none\" not found", "reason": "NotFound",
            "details": {"name": "none", "kind": "configmaps"}, "code": 404})
    );
    assert_eq!(events[0]["responseObject"]["kind"], "Status");
    let (code, events) = client.send(Method::GET, "/nope", "", "").await;
    assert_eq!(
        (code, &events[0]["responseStatus"]),
        (404, &json!({"metadata": {}, "code": 404}))
    );
    assert!(events[0].get("responseObject").is_none());
}

#[tokio::test]
async fn patches_and_delete_options_are_recorded_in_their_own_way() {
    let client = Client::new("Request");
    let object = json!({"metadata": {"name": "a"}}).to_string();
    client.send(Method::POST, MAPS, "application/json", object).await;
    let patch = "{\"data\": {\"k\":  \"v\"}}";
    let path = format!("{MAPS}/a");
    let (_, events) = client
        .send(Method::PATCH, &path, "application/merge-patch+json", patch)
        .await;
    assert_eq!(events[0]["requestObject"], json!({"data": {"k": "v"}}));
    assert!(events[0].get("responseObject").is_none());
    let options = json!({"propagationPolicy": "Background", "unknown": 1}).to_string();
    let (code, events) = client
        .send(Method::DELETE, &path, "application/json", options)
        .await;
    assert_eq!(code, 200);
    assert_eq!(
        events[0]["requestObject"],
        json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/__internal", "propagationPolicy": "Background"})
    );
    assert_eq!(events[0]["responseStatus"]["status"], "Success");
}

#[tokio::test]
async fn a_body_that_is_not_decoded_is_not_recorded() {
    let client = Client::new("RequestResponse");
    let (code, events) = client.send(Method::POST, MAPS, "application/json", "{").await;
    assert_eq!(code, 400);
    assert!(events[0].get("requestObject").is_none());
    assert_eq!(events[0]["responseStatus"]["reason"], "BadRequest");
}

#[tokio::test]
async fn discovery_is_recorded_and_health_is_not_an_object() {
    let client = Client::new("RequestResponse");
    let (_, events) = client.send(Method::GET, "/apis/apps/v1", "", "").await;
    assert_eq!(events[0]["responseObject"]["kind"], "APIResourceList");
    assert!(events[0].get("objectRef").is_none());
    let (_, events) = client.send(Method::GET, "/healthz", "", "").await;
    assert_eq!(events[0]["responseStatus"], json!({"metadata": {}, "code": 200}));
    assert!(events[0].get("responseObject").is_none());
}

#[tokio::test]
async fn a_deprecated_version_is_annotated() {
    let client = Client::new("Metadata");
    let (code, events) = client.send(Method::GET, "/api/v1/endpoints", "", "").await;
    assert_eq!(
        (code, &events[0]["annotations"]["k8s.io/deprecated"]),
        (200, &json!("true"))
    );
}

#[tokio::test]
async fn a_token_request_names_its_credential() {
    let client = Client::new("Metadata");
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let (code, events) = client.send(Method::POST, path, "application/json", "{}").await;
    assert_eq!(code, 201);
    let id = events[0]["annotations"]["authentication.kubernetes.io/issued-credential-id"]
        .as_str()
        .unwrap();
    assert!(id.starts_with("JTI="));
}

#[tokio::test]
async fn nobody_and_somebody_else() {
    let client = Client::new("Metadata");
    let request = Request::builder().uri(MAPS).body(Full::default()).unwrap();
    let (code, events) = client.answer(request).await;
    assert_eq!((code, &events[0]["stage"]), (401, &json!("ResponseStarted")));
    let request = Request::builder()
        .method(Method::POST)
        .uri("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("x-user", "ann")
        .header("impersonate-user", "bob")
        .body(Full::from("{}"))
        .unwrap();
    let response = client.service.clone().call(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(review["status"]["userInfo"]["username"], "bob");
    let events = client.events.0.lock().unwrap();
    assert_eq!(events[0]["impersonatedUser"]["username"], "bob");
}

#[tokio::test]
async fn a_watch_has_started_before_it_completes() {
    let client = Client::new("Metadata");
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1");
    let request = Request::builder()
        .uri(&path)
        .header("x-user", "ann")
        .body(Full::default())
        .unwrap();
    let response = client.service.clone().call(request).await.unwrap();
    let stages = || -> Vec<Value> {
        client
            .events
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|event| event["stage"].clone())
            .collect()
    };
    assert_eq!(stages(), [json!("ResponseStarted")]);
    drop(response);
    assert_eq!(stages(), [json!("ResponseStarted"), json!("ResponseComplete")]);
}

#[tokio::test]
async fn a_session_completes_when_its_last_byte_is_through() {
    let client = Client::new("Metadata");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    client
        .send(Method::POST, pods, "application/json", pod.to_string())
        .await;
    let listener = Listener::bind(ListenConfig::plain("127.0.0.1:0".parse().unwrap()))
        .await
        .unwrap();
    let address = listener.local_addr();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let (sandbox, stopped) = (client.sandbox.clone(), stop.clone());
    tasks.spawn(async move { sandbox.serve(listener, stopped, Duration::from_secs(5)).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {pods}/p/attach?stdin=1 HTTP/1.1\r\nHost: x\r\nX-User: ann\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    let stages = || -> Vec<Value> {
        client
            .events
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|event| event["stage"].clone())
            .collect()
    };
    assert_eq!(stages(), [json!("ResponseStarted")]);
    drop(stream);
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
    assert_eq!(stages(), [json!("ResponseStarted"), json!("ResponseComplete")]);
    let event = client.events.0.lock().unwrap()[1].clone();
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 101}));
    assert_eq!(event["objectRef"]["subresource"], "attach");
    assert_eq!(event["sourceIPs"], json!(["127.0.0.1"]));
}

const PODS: &str = "/api/v1/namespaces/safe/pods";

#[tokio::test]
async fn pod_security_annotates_what_it_enforced_and_found() {
    let client = Client::new("Metadata");
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/enforce-version": "v1.30",
        "pod-security.kubernetes.io/audit": "restricted",
    });
    let namespace = json!({"metadata": {"name": "safe", "labels": labels}});
    let (code, _) = client
        .send(
            Method::POST,
            "/api/v1/namespaces",
            "application/json",
            namespace.to_string(),
        )
        .await;
    assert_eq!(code, 201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, events) = client
        .send(Method::POST, PODS, "application/json", pod.to_string())
        .await;
    assert_eq!(code, 201);
    let annotations = &events[0]["annotations"];
    assert_eq!(
        annotations["pod-security.kubernetes.io/enforce-policy"],
        "baseline:v1.30"
    );
    let violations = annotations["pod-security.kubernetes.io/audit-violations"].as_str();
    assert!(
        violations.unwrap().starts_with(
            "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false ("
        )
    );
    let pod = json!({"metadata": {"name": "q"}, "spec": {"hostPID": true, "containers": [{"name": "c", "image": "i"}]}});
    let (code, events) = client
        .send(Method::POST, PODS, "application/json", pod.to_string())
        .await;
    assert_eq!(code, 403);
    assert_eq!(events[0]["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(
        events[0]["responseStatus"]["message"],
        "pods \"q\" is forbidden: violates PodSecurity \"baseline:v1.30\": host namespaces (hostPID=true)"
    );
    let (_, events) = client
        .send(
            Method::POST,
            "/api/v1/namespaces/default/pods",
            "application/json",
            pod.to_string(),
        )
        .await;
    assert_eq!(
        events[0]["annotations"]["pod-security.kubernetes.io/enforce-policy"],
        "privileged:latest"
    );
}

#[tokio::test]
async fn the_reason_names_the_binding() {
    let client = Client::new("Metadata");
    let binding = json!({
        "metadata": {"name": "readers", "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let (code, events) = client
        .send(Method::POST, bindings, "application/json", binding.to_string())
        .await;
    assert_eq!(code, 201);
    assert_eq!(events[0]["annotations"]["authorization.k8s.io/reason"], "");
    let get = |path: &str| {
        Request::builder()
            .uri(path)
            .header("x-user", "ann")
            .header("impersonate-user", "bob")
            .body(Full::default())
            .unwrap()
    };
    let (code, events) = client.answer(get(MAPS)).await;
    assert_eq!(code, 200);
    assert_eq!(
        events[0]["annotations"]["authorization.k8s.io/reason"],
        "RBAC: allowed by RoleBinding \"readers/default\" of ClusterRole \"view\" to User \"bob\""
    );
    let (code, events) = client.answer(get("/api/v1/nodes")).await;
    assert_eq!(code, 403);
    assert_eq!(
        events[0]["annotations"],
        json!({"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""})
    );
}

#[tokio::test]
async fn patches_that_do_not_fit_are_answered_as_the_real_server_does() {
    let client = Client::new("Metadata");
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    client
        .send(Method::POST, MAPS, "application/json", object.to_string())
        .await;
    let path = format!("{MAPS}/a");
    let cases = [
        (
            "application/json-patch+json",
            r#"[{"op":"test","path":"/data/k","value":"w"}]"#,
            422,
            "the server rejected our request due to an error in our request",
        ),
        (
            "application/merge-patch+json",
            "[]",
            400,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            "application/strategic-merge-patch+json",
            "",
            400,
            "error decoding patch: unexpected end of JSON input",
        ),
        (
            "application/strategic-merge-patch+json",
            r#"{"data":{"$patch":"merge","s":"1"}}"#,
            500,
            "unknown patch type: merge in map: map[$patch:merge s:1]",
        ),
        (
            "application/apply-patch+yaml",
            "kind: ConfigMap",
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        ("text/plain", "{}", 415, "415: Unsupported Media Type"),
    ];
    for (media_type, body, expected, message) in cases {
        let (code, events) = client.send(Method::PATCH, &path, media_type, body).await;
        assert_eq!(code, expected, "{media_type} {body}");
        assert_eq!(events[0]["responseStatus"]["message"], message);
    }
    let (code, _) = client
        .send(
            Method::PATCH,
            &path,
            "application/merge-patch+json",
            r#"{"metadata":{"labels":{"x":"y"}}}"#,
        )
        .await;
    assert_eq!(code, 200);
}
