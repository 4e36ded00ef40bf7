//! Questions that are answered and not kept: who am I, may I, is this token good.
//!
//! Source: kubernetes pkg/registry/authorization and pkg/registry/authentication.

use std::sync::Arc;

use kaudit_event::{Text, UserInfo};
use serde_json::{Map, Value, json};

use crate::access::{self, Question};
use crate::call::Call;
use crate::object::{child, fields, items, text};
use crate::response::Reply;
use crate::state::State;
use crate::status::{ApiError, Cause};

pub(crate) fn answer(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let mut review = call.decode_object()?;
    call.recorder.request_object(&review);
    let status = match &*call.kind.plural {
        "selfsubjectreviews" => json!({"userInfo": user_value(&call.user)}),
        "selfsubjectaccessreviews" => {
            let user = Arc::clone(&call.user);
            access_status(state, call, &review, &user)?
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let user = subject(&review);
            if user.username.is_empty() && user.groups.as_ref().is_none_or(Vec::is_empty) {
                let cause = Cause::required("spec.user", "at least one of user or group must be specified");
                return Err(ApiError::invalid(
                    &call.kind.group,
                    &call.kind.kind,
                    "",
                    vec![cause],
                ));
            }
            access_status(state, call, &review, &user)?
        }
        "selfsubjectrulesreviews" => access::rules(state, &call.user, text(&review, "/spec/namespace")),
        "tokenreviews" => {
            let audiences: Vec<String> = items(&review, "/spec/audiences")
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            state.review_token(text(&review, "/spec/token"), &audiences)
        }
        _ => return Err(ApiError::no_such_resource()),
    };
    let top = fields(&mut review);
    top.insert("kind".to_owned(), json!(call.kind.kind));
    top.insert("apiVersion".to_owned(), json!(call.kind.api_version()));
    child(top, "metadata");
    if &*call.kind.plural != "selfsubjectreviews" {
        child(top, "spec");
    }
    top.insert("status".to_owned(), status);
    Ok(Reply::object(201, review, &call.kind))
}

/// A user as reviews print it.
pub(crate) fn user_value(user: &UserInfo) -> Value {
    let list = |values: &[Text]| -> Vec<String> {
        values
            .iter()
            .map(|text| text.to_string_lossy().into_owned())
            .collect()
    };
    let mut out = Map::new();
    out.insert("username".to_owned(), json!(user.username.to_string_lossy()));
    if !user.uid.is_empty() {
        out.insert("uid".to_owned(), json!(user.uid.to_string_lossy()));
    }
    if let Some(groups) = user.groups.as_ref().filter(|groups| !groups.is_empty()) {
        out.insert("groups".to_owned(), json!(list(groups)));
    }
    if !user.extra.is_empty() {
        let extra: Map<String, Value> = user
            .extra
            .iter()
            .map(|(key, values)| {
                (
                    key.to_string_lossy().into_owned(),
                    json!(list(values.as_deref().unwrap_or_default())),
                )
            })
            .collect();
        out.insert("extra".to_owned(), Value::Object(extra));
    }
    Value::Object(out)
}

fn owned(text: &str) -> Text {
    Text::copy_from_slice(text.as_bytes())
}

/// The user that a SubjectAccessReview is about.
fn subject(review: &Value) -> UserInfo {
    let groups: Vec<Text> = items(review, "/spec/groups")
        .filter_map(Value::as_str)
        .map(owned)
        .collect();
    UserInfo {
        username: owned(text(review, "/spec/user")),
        uid: owned(text(review, "/spec/uid")),
        groups: Some(groups),
        extra: Vec::new(),
    }
}

fn access_status(state: &State, call: &Call, review: &Value, user: &UserInfo) -> Result<Value, ApiError> {
    let resource = review.pointer("/spec/resourceAttributes");
    let path = review.pointer("/spec/nonResourceAttributes");
    let question = match (resource, path) {
        (Some(resource), None) => {
            let namespace = text(resource, "/namespace");
            if &*call.kind.plural == "localsubjectaccessreviews" && namespace != call.namespace {
                return Err(ApiError::bad_request(format!(
                    "spec.resourceAttributes.namespace must match namespace: {}",
                    call.namespace
                )));
            }
            Question {
                user,
                verb: text(resource, "/verb"),
                group: text(resource, "/group"),
                resource: text(resource, "/resource"),
                subresource: text(resource, "/subresource"),
                namespace,
                name: text(resource, "/name"),
                path: None,
            }
        }
        (None, Some(path)) => Question {
            user,
            verb: text(path, "/verb"),
            group: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: Some(text(path, "/path")),
        },
        _ => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let cause = Cause::invalid("spec.resourceAttributes", &Value::Null, detail);
            return Err(ApiError::invalid(
                &call.kind.group,
                &call.kind.kind,
                "",
                vec![cause],
            ));
        }
    };
    let answer = access::decide(state, &question);
    let mut status = json!({"allowed": answer.allowed});
    if !answer.reason.is_empty() {
        fields(&mut status).insert("reason".to_owned(), json!(answer.reason));
    }
    Ok(status)
}
