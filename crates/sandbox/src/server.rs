//! From an HTTP request to a handler, and from its answer to an HTTP response.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderValue, WARNING};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use kaudit_event::UserInfo;
use kaudit_policy::{RequestInfo, RequestInfoResolver, RequestTarget};
use kaudit_tower::AuditContext;

use crate::call::{Call, find_kind, lossy};
use crate::query::Query;
use crate::record::Recorder;
use crate::response::{Accepted, Body, Encoding, Offer, Reply, Shape, plain, write_value};
use crate::state::State;
use crate::status::ApiError;
use crate::table::IncludeObject;
use crate::{discovery, handlers, openapi, table};

/// Bytes of a request's body.
///
/// Source: k8s.io/apiserver pkg/server/config.go, MaxRequestBodyBytes.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Answers one request.
pub(crate) async fn answer<B>(state: Arc<State>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    let (target, info) = match resolve(&parts) {
        Ok(resolved) => resolved,
        Err(error) => return plain(500, "text/plain; charset=utf-8", error.into()),
    };
    let recorder = Recorder::of(&parts.extensions);
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refuse(&parts, &recorder, &body_error(&*error)),
    };
    if !info.is_resource_request() {
        return documents(&state, &parts, &target, &recorder);
    }
    let query = Query::parse(&target.raw_query);
    let accepted = match Accepted::negotiate(&parts.headers, Offer::Resource) {
        Ok(accepted) => accepted,
        Err(error) => return refuse(&parts, &recorder, &error),
    };
    let include = IncludeObject::from_name(query.text("includeObject"));
    let kinds = state.kinds();
    let kind = match find_kind(&kinds, &info) {
        Ok(kind) => kind,
        // Groups and versions nobody serves are the plain handlers' business.
        Err(_)
            if !kinds.iter().any(|kind| {
                kind.group.as_bytes() == info.api_group() && kind.version.as_bytes() == info.api_version()
            }) =>
        {
            return plain(
                404,
                "text/plain; charset=utf-8",
                Bytes::from_static(b"404 page not found\n"),
            );
        }
        Err(error) => return refuse(&parts, &recorder, &error),
    };
    let user = user(&parts.extensions);
    let mut call = Call {
        method: parts.method.clone(),
        namespace: if kind.namespaced {
            lossy(info.namespace())
        } else {
            String::new()
        },
        name: lossy(info.name()),
        subresource: lossy(info.subresource()),
        verb: lossy(info.verb()),
        kind,
        query,
        headers: parts.headers.clone(),
        accepted,
        user,
        body,
        now: state.now(),
        recorder: recorder.clone(),
        warnings: Vec::new(),
        upgrade,
    };
    if &*call.kind.key == "endpoints" {
        // Source: k8s.io/apiserver pkg/endpoints/deprecation and kubernetes pkg/apis/core/v1.
        call.recorder.annotate("k8s.io/deprecated", "true");
        let text = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
        call.warnings.push(text.to_owned());
    }
    let reply = handlers::answer(&state, &mut call).unwrap_or_else(|error| Reply::error(&error));
    let mut response = write(&state, reply, &call.accepted, include, &recorder);
    add_warnings(response.headers_mut(), &call.warnings);
    response
}

/// Who the request is carried out as.
fn user(extensions: &http::Extensions) -> Arc<UserInfo> {
    extensions
        .get::<AuditContext>()
        .map(AuditContext::acting_user)
        .unwrap_or_default()
}

/// The request's target and what it is about: the chain's findings, or our own without one.
fn resolve(parts: &Parts) -> Result<(RequestTarget, RequestInfo), String> {
    if let Some(audit) = parts.extensions.get::<AuditContext>() {
        return Ok((audit.request_target().clone(), audit.request_info().clone()));
    }
    let method = parts.method.as_str().as_bytes();
    let raw = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let target = RequestTarget::parse(method, raw.as_bytes()).map_err(|error| error.to_string())?;
    let info = RequestInfoResolver::default()
        .resolve(method, &target)
        .map_err(|error| error.to_string())?;
    Ok((target, info))
}

fn body_error(error: &(dyn std::error::Error + Send + Sync + 'static)) -> ApiError {
    if error.is::<http_body_util::LengthLimitError>() {
        return ApiError::too_large(BODY_LIMIT);
    }
    ApiError::bad_request(format!("the body cannot be read: {error}"))
}

/// Answers with a Status, as JSON if the client accepts nothing we have.
fn refuse(parts: &Parts, recorder: &Recorder, error: &ApiError) -> Response<Body> {
    let value = error.to_value();
    let accepted = Accepted::negotiate(&parts.headers, Offer::Plain);
    if accepted.is_ok() {
        recorder.response_object(error.code, &value);
    }
    let fallback = Accepted {
        encoding: Encoding::Json,
        shape: Shape::Full,
        gzip: false,
    };
    write_value(error.code, &value, &accepted.unwrap_or(fallback), None)
}

fn write(
    state: &State,
    reply: Reply,
    accepted: &Accepted,
    include: IncludeObject,
    recorder: &Recorder,
) -> Response<Body> {
    match reply {
        Reply::Object { code, object, kind } => {
            let shown = match (&accepted.shape, kind) {
                (Shape::Table(version), Some(kind)) => {
                    table::render(&kind, &object, version, include, state.now())
                }
                (Shape::Partial(version), Some(_)) => table::partial_list(&object, version),
                _ => object,
            };
            recorder.response_object(code, &shown);
            write_value(code, &shown, accepted, None)
        }
        Reply::Discovery { object, media_type } => {
            recorder.response_object(200, &object);
            write_value(200, &object, accepted, Some(&media_type))
        }
        Reply::Plain {
            code,
            content_type,
            body,
        } => plain(code, content_type, body),
        Reply::Stream { content_type, body } => {
            let mut response = plain(200, &content_type, Bytes::new());
            *response.body_mut() = body;
            response
        }
        Reply::Switch(response) => response,
    }
}

/// Source: k8s.io/apimachinery pkg/util/net/http.go, NewWarningHeader.
fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| {
                if matches!(c, '"' | '\\') {
                    vec!['\\', c]
                } else {
                    vec![c]
                }
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(WARNING, value);
        }
    }
}

/// Paths that are about no resource: discovery, OpenAPI, health, version, metrics.
fn documents(state: &State, parts: &Parts, target: &RequestTarget, recorder: &Recorder) -> Response<Body> {
    let path = lossy(&target.path);
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let offer = if matches!(*segments, ["api"] | ["apis"]) {
        Offer::Discovery
    } else {
        Offer::Plain
    };
    let known = !matches!(parts.method, Method::GET | Method::HEAD);
    let accepted = match Accepted::negotiate(&parts.headers, offer) {
        Ok(accepted) => accepted,
        Err(error) if matches!(*segments, ["api", ..] | ["apis", ..]) => {
            return refuse(parts, recorder, &error);
        }
        // These documents have one form for everybody.
        Err(_) => Accepted {
            encoding: Encoding::Json,
            shape: Shape::Full,
            gzip: false,
        },
    };
    let reply = document(state, &segments, &accepted);
    match reply {
        Some(_) if known => refuse(parts, recorder, &ApiError::method_not_allowed()),
        Some(reply) => write(state, reply, &accepted, IncludeObject::Metadata, recorder),
        None if matches!(*segments, ["api", _, ..]) => refuse(parts, recorder, &ApiError::no_such_resource()),
        None => plain(
            404,
            "text/plain; charset=utf-8",
            Bytes::from_static(b"404 page not found\n"),
        ),
    }
}

fn document(state: &State, segments: &[&str], accepted: &Accepted) -> Option<Reply> {
    let kinds = state.kinds();
    let json = |value: &serde_json::Value| Reply::Plain {
        code: 200,
        content_type: "application/json",
        body: serde_json::to_vec(value).unwrap_or_default().into(),
    };
    Some(match segments {
        [root @ ("api" | "apis")] => match &accepted.shape {
            Shape::Discovery(version) => Reply::Discovery {
                object: discovery::aggregated(&kinds, version, *root == "api"),
                media_type: discovery::aggregated_media_type(version),
            },
            _ if *root == "api" => Reply::document(discovery::core_versions("sandbox")),
            _ => Reply::document(discovery::group_list(&kinds)),
        },
        ["api", version] => Reply::document(discovery::resource_list(&kinds, "", version)?),
        ["apis", group] => Reply::document(discovery::group(&kinds, group)?),
        ["apis", group, version] => Reply::document(discovery::resource_list(&kinds, group, version)?),
        ["openapi", "v2"] => json(&openapi::swagger(&kinds)),
        ["openapi", "v3"] => json(&openapi::index(&kinds)),
        ["openapi", "v3", rest @ ..] => json(&openapi::document(&kinds, &rest.join("/"))?),
        ["version"] => json(&version()),
        ["healthz" | "readyz" | "livez"] | ["healthz" | "readyz" | "livez", "ping" | "log" | "etcd"] => {
            Reply::text(200, "ok")
        }
        ["metrics"] => Reply::Plain {
            code: 200,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics(state).into(),
        },
        [] => json(
            &serde_json::json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2",
            "/openapi/v3", "/readyz", "/version"]}),
        ),
        _ => return None,
    })
}

fn version() -> serde_json::Value {
    serde_json::json!({
        "major": "1",
        "minor": "36",
        "gitVersion": concat!("v1.36.3+kaudit-sandbox-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn metrics(state: &State) -> String {
    let mut out = String::from(
        "# HELP apiserver_storage_objects Number of stored objects.\n# TYPE apiserver_storage_objects gauge\n",
    );
    for (resource, count) in state.store.counts() {
        out.push_str(&format!(
            "apiserver_storage_objects{{resource=\"{resource}\"}} {count}\n"
        ));
    }
    out
}
