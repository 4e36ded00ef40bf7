//! The API of a running kaudit: `/api/v1/...`, for holders of its token.

mod check;
mod counts;
mod events;
mod export;
mod import;
mod objects;
mod openapi;
mod own;
mod problem;
mod scans;
mod selection;
mod sources;
mod store;
mod tail;
mod token;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use kaudit_backend::dynamic::MAX_FILE_BYTES;
use kaudit_event::MicroTime;
use kaudit_tower::StatusError;
use serde_json::{Value, json};
use tracing::info;

pub(crate) use self::import::{KeptPart, Known, parameter_of};
use self::openapi::Part;
pub(crate) use self::own::Own;
use self::problem::Problem;
pub(crate) use self::scans::Scans;
pub(crate) use self::sources::{Signal, Sources};
pub(crate) use self::token::Token;
use crate::collection::Collection;
use crate::sinks::{Refused, Row, Sinks};

/// The group of the objects that the API serves.
const GROUP: &str = "auditregistration.k8s.io";

/// What the API serves.
pub(crate) fn router(
    sinks: Option<Arc<Sinks>>,
    collection: Option<Collection>,
    scans: Option<Scans>,
    own: Option<Own>,
    token: Arc<Token>,
) -> Router {
    let parts = [
        sinks.as_ref().map(|_| Part::Sinks),
        collection.as_ref().map(|_| Part::Sources),
        scans.as_ref().map(|_| Part::Store),
    ];
    let sinks = sinks.map_or_else(Router::new, |sinks| {
        Router::new()
            .route("/api/v1/sinks", get(list))
            .route("/api/v1/sinks/{name}", get(read).put(put).delete(delete))
            .with_state(sinks)
    });
    let sources = collection.map_or_else(Router::new, |collection| {
        import::router(collection.importer()).merge(sources::router(collection))
    });
    let store = scans.map_or_else(Router::new, |scans| {
        events::router(scans.clone())
            .merge(counts::router(scans.clone()))
            .merge(export::router(scans.clone()))
            .merge(check::router(scans.clone()))
            .merge(objects::router(scans.clone()))
            .merge(store::router(scans.clone()))
            .merge(tail::router(scans))
    });
    let all = sinks
        .merge(sources)
        .merge(store)
        .merge(openapi::router(parts.into_iter().flatten().collect()))
        .fallback(async || {
            StatusError::new(
                StatusCode::NOT_FOUND,
                "NotFound",
                "there is nothing at this address",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES))
        .layer(from_fn_with_state(token, authenticated));
    match own {
        // It asks for the token as well, and records who has none.
        Some(own) => all.layer(own.audit.layer()),
        None => all,
    }
    .layer(from_fn(from_here))
}

/// Refuses what was addressed to a name that is not this machine's own: a page of another site can make a browser ask,
/// by a name of its own that leads here.
async fn from_here(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .map(|host| host.to_str().unwrap_or("?"));
    let named = request
        .uri()
        .authority()
        .map(http::uri::Authority::as_str)
        .or(host);
    if named.is_none_or(is_here) {
        next.run(request).await
    } else {
        Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the API is asked by a loopback address or as localhost only",
        )
        .into_response()
    }
}

fn is_here(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else {
        return false;
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn now() -> MicroTime {
    let micros = kaudit_collect::now_micros();
    let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default();
    MicroTime::from_unix(micros.div_euclid(1_000_000), nanos)
}

/// Lets only the token's holders through.
async fn authenticated(State(token): State<Arc<Token>>, request: Request, next: Next) -> Response {
    if token.is_shown(request.headers()) {
        next.run(request).await
    } else {
        StatusError::unauthorized().into_response()
    }
}

async fn list(State(sinks): State<Arc<Sinks>>) -> Json<Value> {
    Json(json!({"items": sinks.list()}))
}

async fn read(State(sinks): State<Arc<Sinks>>, Path(name): Path<String>) -> Result<Json<Row>, StatusError> {
    let row = sinks.list().into_iter().find(|row| row.name == name);
    row.map(Json)
        .ok_or_else(|| StatusError::not_found(GROUP, "auditsinks", &name))
}

async fn put(
    State(sinks): State<Arc<Sinks>>,
    Path(name): Path<String>,
    text: String,
) -> Result<Json<Row>, StatusError> {
    let registry = Arc::clone(&sinks);
    let of = name.clone();
    blocking(move || registry.put(&of, &text)).await?;
    info!(sink = %name, "audit sink registered by the API");
    read(State(sinks), Path(name)).await
}

async fn delete(
    State(sinks): State<Arc<Sinks>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, StatusError> {
    let of = name.clone();
    blocking(move || sinks.delete(&of)).await?;
    info!(sink = %name, "audit sink removed by the API");
    Ok(Json(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": name, "group": GROUP, "kind": "auditsinks"}}),
    ))
}

/// Files are written and sinks started where that may take its time.
async fn blocking(act: impl FnOnce() -> Result<(), Refused> + Send + 'static) -> Result<(), StatusError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(outcome) => outcome.map_err(|refused| status_of(&refused)),
        Err(panic) => Err(internal(panic.to_string())),
    }
}

fn status_of(refused: &Refused) -> StatusError {
    let message = refused.to_string();
    match refused {
        Refused::Invalid(_) => StatusError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message),
        Refused::Elsewhere { .. } => StatusError::new(StatusCode::CONFLICT, "Conflict", message),
        Refused::Absent(name) => StatusError::not_found(GROUP, "auditsinks", name),
        Refused::NowhereToKeep => {
            StatusError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
        }
        Refused::Io { source, .. } => internal(format!("{message}: {source}")),
    }
}

fn internal(message: String) -> StatusError {
    StatusError::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use kaudit_backend::dynamic::{AuditSink, Dynamic, Surroundings};
    use kaudit_sink::recording::Recording;
    use kaudit_sink::{Counters, Demand, Sink};
    use tower_service::Service as _;

    use super::*;

    const OBJECT: &str = "apiVersion: auditregistration.k8s.io/v1alpha1\nkind: AuditSink\nmetadata: {name: a}\nspec:\n  \
        policy: {level: Metadata, stages: [Panic]}\n  webhook: {clientConfig: {url: 'https://a'}}\n";

    async fn ask(
        router: &mut Router,
        method: &str,
        path: &str,
        token: &str,
        body: &'static str,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(axum::body::Body::new(Full::from(body)))
            .unwrap();
        let response = router.call(request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn sinks_are_registered_shown_and_removed_by_holders_of_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let start = |_: &AuditSink, _: &Arc<Counters>| Ok(Arc::new(Recording::default()) as Arc<dyn Sink>);
        let dynamic = Arc::new(Dynamic::new(Demand::default(), Box::new(start)));
        let sinks = Sinks::new(
            Vec::new(),
            dynamic,
            None,
            Some(folder.path().join("sinks")),
            Surroundings::Outside,
        );
        let token = Token::read_or_make(&folder.path().join("token")).unwrap();
        let text = std::fs::read_to_string(folder.path().join("token")).unwrap();
        let secret = text.trim();
        let mut api = router(Some(Arc::new(sinks)), None, None, None, Arc::new(token));

        assert_eq!(ask(&mut api, "GET", "/api/v1/sinks", "wrong", "").await.0, 401);
        let (code, row) = ask(&mut api, "PUT", "/api/v1/sinks/a", secret, OBJECT).await;
        assert_eq!((code, &row["state"]), (200, &json!("active")));
        let (_, list) = ask(&mut api, "GET", "/api/v1/sinks", secret, "").await;
        assert_eq!(list["items"][0]["target"], "https://a");
        let (code, status) = ask(&mut api, "PUT", "/api/v1/sinks/a", secret, "kind: AuditSink\n").await;
        assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
        assert_eq!(
            ask(&mut api, "DELETE", "/api/v1/sinks/a", secret, "").await.0,
            200
        );
        assert_eq!(
            ask(&mut api, "DELETE", "/api/v1/sinks/a", secret, "").await.0,
            404
        );
        assert_eq!(ask(&mut api, "GET", "/api/v1/nothing", secret, "").await.0, 404);

        let (_, described) = ask(&mut api, "GET", "/api/v1/openapi.json", secret, "").await;
        let paths: Vec<&String> = described["paths"].as_object().unwrap().keys().collect();
        assert_eq!(
            paths,
            ["/api/v1/sinks", "/api/v1/sinks/{name}", "/api/v1/openapi.json"],
            "only what is served"
        );
        let methods: Vec<&String> = described["paths"]["/api/v1/sinks/{name}"]
            .as_object()
            .unwrap()
            .keys()
            .collect();
        assert_eq!(methods, ["get", "put", "delete"]);
    }
}
