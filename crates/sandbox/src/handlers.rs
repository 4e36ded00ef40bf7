//! What each verb does.

mod delete;
mod read;
mod subresources;
mod watch;
mod write;

pub(crate) use delete::remove;

use std::sync::Arc;

use http::Method;
use serde_json::Value;

use crate::call::Call;
use crate::kinds::{Kind, Nature};
use crate::response::Reply;
use crate::state::State;
use crate::status::ApiError;

/// Answers a request to a resource.
///
/// # Errors
///
/// The Status to answer with.
pub(crate) fn answer(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    if call.kind.nature == Nature::Review {
        return match call.method {
            Method::POST => crate::reviews::answer(state, call),
            _ => Err(ApiError::method_not_allowed()),
        };
    }
    if !call.subresource.is_empty() {
        return subresources::answer(state, call);
    }
    let named = !call.name.is_empty()
        && call.verb != "list"
        && call.verb != "watch"
        && call.verb != "deletecollection";
    match (&call.method, named) {
        (&Method::GET | &Method::HEAD, _) if call.verb == "watch" => watch::watch(state, call),
        (&Method::GET | &Method::HEAD, false) => read::list(state, call),
        (&Method::GET | &Method::HEAD, true) => read::get(state, call),
        (&Method::POST, false) => write::create(state, call),
        (&Method::PUT, true) => write::update(state, call),
        (&Method::PATCH, true) => write::patch(state, call),
        (&Method::DELETE, true) => delete::delete(state, call),
        (&Method::DELETE, false) => delete::collection(state, call),
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// An object as this version of its resource shows it.
pub(crate) fn present(kind: &Kind, object: &Value) -> Value {
    let mut out = object.clone();
    if kind.custom.is_some()
        && let Value::Object(fields) = &mut out
    {
        fields.insert("apiVersion".to_owned(), Value::String(kind.api_version()));
    }
    out
}

/// 404 for this request's object.
pub(crate) fn not_found(call: &Call) -> ApiError {
    ApiError::not_found(&call.kind.group, &call.kind.plural, &call.name)
}
