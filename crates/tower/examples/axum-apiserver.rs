//! A Kubernetes-style API server of one resource, audited as kube-apiserver audits.
//!
//! ```console
//! $ cargo run -p kaudit-tower --features axum --example axum-apiserver
//! $ curl -s -X POST -H 'Authorization: Bearer ada' -H 'Content-Type: application/json' \
//!     -d '{"metadata":{"name":"one"},"spec":{"size":3}}' \
//!     http://127.0.0.1:8080/apis/wardle.example.com/v1/namespaces/default/flunders
//! $ kubectl --server http://127.0.0.1:8080 get flunders
//! $ tail -f audit.log
//! ```
//!
//! kubectl sends tokens over TLS only: here it is anonymous.
//!
//! Two arguments change where it listens and where it writes: `axum-apiserver ADDRESS FILE`.

#![expect(clippy::print_stdout, reason = "it tells where it serves")]
#![expect(
    clippy::indexing_slicing,
    reason = "JSON values are indexed by key; a flunder with a name is an object"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::map_request;
use axum::routing::get;
use axum::{Json, Router};
use kaudit_backend::{Format, Log, Rotation};
use kaudit_event::UserInfo;
use kaudit_policy::Policy;
use kaudit_sink::{Counters, Sink};
use kaudit_tower::{
    Anonymous, Audit, AuditContext, Authentication, Authenticator, Bodies, BoxFuture, RemoteAddr, StatusError,
};
use serde_json::{Value, json};

const GROUP: &str = "wardle.example.com";
const API_VERSION: &str = "wardle.example.com/v1";

/// Who changes something is recorded with what was sent; who reads, without RequestReceived.
const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: None, nonResourceURLs: ['/api*', '/openapi*', '/version']}
- {level: RequestResponse, verbs: [create, delete]}
- {level: Metadata, omitStages: [RequestReceived]}
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let file = arguments.next().unwrap_or_else(|| "audit.log".to_owned());

    let (policy, _warnings) = Policy::parse(POLICY.as_bytes())?;
    let counters = Arc::new(Counters::default());
    let log = Log::file(FilePath::new(&file), Rotation::default(), Format::Json, counters)?;
    let sink: Arc<dyn Sink> = Arc::new(log);
    let audit = Audit::builder(policy, Arc::clone(&sink))
        .authenticator(Arc::new(Tokens))
        .bodies(Bodies::Sniff)
        .build();
    // The layer added last is the outermost: the chain wants to know where a request comes from.
    let app = api(Store::default())
        .layer(audit.layer())
        .layer(map_request(peer));

    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("serving on http://{}, events in {file}", listener.local_addr()?);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    sink.shutdown();
    Ok(())
}

/// Tells the chain the client's address.
async fn peer(ConnectInfo(address): ConnectInfo<SocketAddr>, mut request: Request) -> Request {
    request.extensions_mut().insert(RemoteAddr::from(address));
    request
}

/// The token is the name: `Bearer ada` is ada. Without one a request is anonymous.
#[derive(Debug)]
struct Tokens;

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, parts: &'a Parts, _: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        let header = parts.headers.get("authorization");
        let authentication = match header.map(|value| value.to_str().unwrap_or_default().split_once(' ')) {
            None => Authentication::User(Arc::new(Anonymous::user())),
            Some(Some(("Bearer", name))) if !name.is_empty() => Authentication::User(Arc::new(UserInfo {
                username: name.to_owned().into(),
                groups: Some(vec!["system:authenticated".into()]),
                ..UserInfo::default()
            })),
            Some(_) => Authentication::Failed,
        };
        Box::pin(std::future::ready(authentication))
    }
}

/// Flunders by namespace and name.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<BTreeMap<(String, String), Value>>>);

impl Store {
    fn flunders(&self) -> MutexGuard<'_, BTreeMap<(String, String), Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn api(store: Store) -> Router {
    let group = json!({"name": GROUP, "versions": [{"groupVersion": API_VERSION, "version": "v1"}],
        "preferredVersion": {"groupVersion": API_VERSION, "version": "v1"}});
    let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]});
    let resources = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION,
        "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
            "verbs": ["create", "delete", "get", "list"]}]});
    let core = json!({"kind": "APIVersions", "versions": [], "serverAddressByClientCIDRs": []});
    let fixed = |object: Value| get(move || std::future::ready(Json(object.clone())));
    Router::new()
        .route("/api", fixed(core))
        .route("/apis", fixed(groups))
        .route("/apis/wardle.example.com/v1", fixed(resources))
        .route("/apis/wardle.example.com/v1/flunders", get(list_all))
        .route(
            "/apis/wardle.example.com/v1/namespaces/{namespace}/flunders",
            get(list).post(create),
        )
        .route(
            "/apis/wardle.example.com/v1/namespaces/{namespace}/flunders/{name}",
            get(read).delete(delete),
        )
        .with_state(store)
}

async fn list_all(State(store): State<Store>) -> Json<Value> {
    list_of(store.flunders().values().cloned().collect())
}

async fn list(State(store): State<Store>, Path(namespace): Path<String>) -> Json<Value> {
    let flunders = store.flunders();
    let items = flunders.iter().filter(|((place, _), _)| *place == namespace);
    list_of(items.map(|(_, flunder)| flunder.clone()).collect())
}

fn list_of(items: Vec<Value>) -> Json<Value> {
    Json(json!({"kind": "FlunderList", "apiVersion": API_VERSION, "metadata": {}, "items": items}))
}

async fn create(
    audit: AuditContext,
    State(store): State<Store>,
    Path(namespace): Path<String>,
    Json(mut flunder): Json<Value>,
) -> Result<(StatusCode, Json<Value>), StatusError> {
    let name = flunder["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if name.is_empty() {
        return Err(StatusError::bad_request("metadata.name is required"));
    }
    let mut flunders = store.flunders();
    let key = (namespace.clone(), name.clone());
    if flunders.contains_key(&key) {
        return Err(StatusError::already_exists(GROUP, "flunders", &name));
    }
    flunder["apiVersion"] = json!(API_VERSION);
    flunder["kind"] = json!("Flunder");
    flunder["metadata"]["namespace"] = json!(namespace);
    audit.annotate("wardle.example.com/shard", format!("{}", name.len() % 4));
    flunders.insert(key, flunder.clone());
    Ok((StatusCode::CREATED, Json(flunder)))
}

async fn read(
    State(store): State<Store>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<Value>, StatusError> {
    let found = store.flunders().get(&(namespace, name.clone())).cloned();
    found
        .map(Json)
        .ok_or_else(|| StatusError::not_found(GROUP, "flunders", &name))
}

async fn delete(
    State(store): State<Store>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<Value>, StatusError> {
    let removed = store.flunders().remove(&(namespace, name.clone()));
    removed.ok_or_else(|| StatusError::not_found(GROUP, "flunders", &name))?;
    Ok(Json(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": name, "group": GROUP, "kind": "flunders"}}),
    ))
}
