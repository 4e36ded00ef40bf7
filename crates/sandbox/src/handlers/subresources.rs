//! Parts of objects, and what is done to them besides reading and writing.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::write::{self, modify};
use super::{not_found, present, remove};
use crate::call::Call;
use crate::managed;
use crate::object::{child, fields, text};
use crate::patching::{Context, Patch};
use crate::response::Reply;
use crate::state::State;
use crate::status::ApiError;
use crate::streams;

pub(super) fn answer(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let method = call.method.clone();
    let subresource = call.subresource.clone();
    match (&*subresource, &method) {
        ("scale", &Method::GET) => {
            let object = read(state, call)?;
            Ok(Reply::document(scale_of(&object)))
        }
        ("scale", &Method::PUT | &Method::PATCH) => scale(state, call),
        ("status" | "ephemeralcontainers", &Method::GET) => {
            let object = read(state, call)?;
            Ok(Reply::object(200, present(&call.kind, &object), &call.kind))
        }
        ("status" | "ephemeralcontainers" | "finalize", &Method::PUT) => write::update(state, call),
        ("status" | "ephemeralcontainers", &Method::PATCH) => write::patch(state, call),
        ("log", &Method::GET) => {
            let pod = read(state, call)?;
            crate::logs::answer(state, call, &pod)
        }
        ("exec" | "attach" | "portforward", &Method::GET | &Method::POST) => {
            let pod = read(state, call)?;
            streams::connect(state, call, &pod)
        }
        ("eviction", &Method::POST) => evict(state, call),
        ("binding", &Method::POST) => bind(state, call),
        ("token", &Method::POST) => crate::tokens::request(state, call),
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn read(state: &State, call: &Call) -> Result<Arc<Value>, ApiError> {
    state.store.read(&call.key()).ok_or_else(|| not_found(call))
}

/// A workload as `autoscaling/v1` sees it.
fn scale_of(object: &Value) -> Value {
    let replicas = object
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let current = object
        .pointer("/status/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let labels = object
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object);
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let metadata = |field: &str| object.pointer(&format!("/metadata/{field}"));
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata("name"),
            "namespace": metadata("namespace"),
            "uid": metadata("uid"),
            "resourceVersion": metadata("resourceVersion"),
            "creationTimestamp": metadata("creationTimestamp"),
        },
        "spec": {"replicas": replicas},
        "status": {"replicas": current, "selector": selector.join(",")},
    })
}

/// What becomes of a Scale.
type Change = Box<dyn Fn(&Value) -> Result<Value, ApiError>>;

fn scale(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let dry_run = call.dry_run()?;
    let context = Context::of(call);
    let change: Change = if call.method == Method::PUT {
        let wanted = call.decode_object()?;
        call.recorder.request_object(&wanted);
        Box::new(move |_| Ok(wanted.clone()))
    } else {
        let patch = Patch::parse(call)?;
        call.recorder.request_patch(&call.body);
        Box::new(move |before| patch.apply(&context, before))
    };
    let object = modify(state, call, dry_run, managed::Operation::Update, |before| {
        let wanted = change(&scale_of(before))?;
        let revision = text(&wanted, "/metadata/resourceVersion");
        let mut object = before.clone();
        let top = fields(&mut object);
        child(top, "metadata").insert("resourceVersion".to_owned(), json!(revision));
        let replicas = wanted
            .pointer("/spec/replicas")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        child(top, "spec").insert("replicas".to_owned(), json!(replicas));
        Ok(object)
    })?;
    Ok(Reply::document(scale_of(&object)))
}

fn evict(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let eviction = call.decode_object()?;
    call.recorder.request_object(&eviction);
    let key = call.key();
    if state.store.read(&key).is_none() {
        return Err(not_found(call));
    }
    if !call.dry_run()? {
        remove(state, &key, true);
    }
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Reply::Object {
        code: 201,
        object: status,
        kind: None,
    })
}

fn bind(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let binding = call.decode_object()?;
    call.recorder.request_object(&binding);
    let dry_run = call.dry_run()?;
    let node = text(&binding, "/target/name").to_owned();
    modify(state, call, dry_run, managed::Operation::Update, |before| {
        let mut object = before.clone();
        child(fields(&mut object), "spec").insert("nodeName".to_owned(), json!(node));
        Ok(object)
    })?;
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Reply::Object {
        code: 201,
        object: status,
        kind: None,
    })
}
