//! `serviceaccounts/token`.
//!
//! Source: kubernetes pkg/registry/core/serviceaccount/storage/token.go.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::call::Call;
use crate::credentials::{AUDIENCE, Bound, Claims};
use crate::kinds::store_key;
use crate::object::{child, fields, items, text, timestamp, uuid};
use crate::response::Reply;
use crate::state::State;
use crate::status::{ApiError, Cause};
use crate::store::Key;

const GROUP: &str = "authentication.k8s.io";
/// Seconds a token lives unless its request says otherwise.
const LIFETIME: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// Issues a token for a service account.
///
/// # Errors
///
/// 404 for an account that does not exist.
pub(crate) fn request(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let mut review = call.decode_object()?;
    call.recorder.request_object(&review);
    let account = state
        .store
        .read(&call.key())
        .ok_or_else(|| ApiError::not_found("", "serviceaccounts", &call.name))?;
    let seconds = review
        .pointer("/spec/expirationSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(LIFETIME);
    let limits = [
        (
            seconds < SHORTEST,
            "may not specify a duration less than 10 minutes",
        ),
        (
            seconds > LONGEST,
            "may not specify a duration larger than 2^32 seconds",
        ),
    ];
    if let Some((_, detail)) = limits.iter().find(|(broken, _)| *broken) {
        let cause = Cause::invalid("spec.expirationSeconds", &json!(seconds), detail);
        return Err(ApiError::invalid(GROUP, "TokenRequest", "", vec![cause]));
    }
    let expires = call
        .now
        .checked_add(jiff::Span::new().seconds(seconds))
        .unwrap_or(call.now);
    let id = uuid();
    let mut audiences: Vec<String> = items(&review, "/spec/audiences")
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if audiences.is_empty() {
        audiences.push(AUDIENCE.to_owned());
    }
    let bound = bound(state, call, &review)?;
    let token = state.issue_token(&Claims {
        namespace: call.namespace.clone(),
        account: call.name.clone(),
        uid: text(&account, "/metadata/uid").to_owned(),
        id: id.clone(),
        audiences: audiences.clone(),
        issued: call.now.as_second(),
        expires: expires.as_second(),
        bound,
    });
    call.recorder.annotate(
        "authentication.kubernetes.io/issued-credential-id",
        &format!("JTI={id}"),
    );
    let top = fields(&mut review);
    top.insert("kind".to_owned(), json!("TokenRequest"));
    top.insert("apiVersion".to_owned(), json!("authentication.k8s.io/v1"));
    let metadata = child(top, "metadata");
    metadata.insert("name".to_owned(), json!(call.name));
    metadata.insert("namespace".to_owned(), json!(call.namespace));
    metadata.insert("creationTimestamp".to_owned(), json!(timestamp(call.now)));
    let spec = child(top, "spec");
    spec.insert("expirationSeconds".to_owned(), json!(seconds));
    spec.insert("audiences".to_owned(), json!(audiences));
    top.insert(
        "status".to_owned(),
        json!({"token": token, "expirationTimestamp": timestamp(expires)}),
    );
    Ok(Reply::Object {
        code: 201,
        object: review,
        kind: None,
    })
}

/// The object that the token is bound to, and the node of that pod.
fn bound(state: &State, call: &Call, review: &Value) -> Result<Option<Bound>, ApiError> {
    let Some(reference) = review
        .pointer("/spec/boundObjectRef")
        .filter(|value| value.is_object())
    else {
        return Ok(None);
    };
    let name = text(reference, "/name");
    let (kind, plural, namespace) = match text(reference, "/kind") {
        "Pod" => ("pod", "pods", &*call.namespace),
        "Secret" => ("secret", "secrets", &*call.namespace),
        "Node" => ("node", "nodes", ""),
        other => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to object of type {other:?}",
                call.name
            )));
        }
    };
    let object = state
        .store
        .read(&Key::new(&store_key("", plural), namespace, name))
        .ok_or_else(|| ApiError::not_found("", plural, name))?;
    let uid = text(&object, "/metadata/uid").to_owned();
    let wanted = text(reference, "/uid");
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record ({uid})"
        );
        return Err(ApiError::conflict("", plural, name, &why));
    }
    let account = text(&object, "/spec/serviceAccountName");
    if kind == "pod" && account != call.name {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            call.name
        )));
    }
    let node = (kind == "pod")
        .then(|| text(&object, "/spec/nodeName"))
        .filter(|node| !node.is_empty());
    let node = node.and_then(|node| {
        let found = state.store.read(&Key::new(&store_key("", "nodes"), "", node))?;
        Some((node.to_owned(), text(&found, "/metadata/uid").to_owned()))
    });
    Ok(Some(Bound {
        kind,
        name: name.to_owned(),
        uid,
        node,
    }))
}
