//! delete and deletecollection, with what hangs on the deleted objects.
//!
//! Source: k8s.io/apiserver pkg/endpoints/handlers/delete.go and pkg/registry/generic/registry/store.go.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::read::{list_item, list_of, selector};
use super::{not_found, present};
use crate::call::Call;
use crate::controllers;
use crate::object::{child, fields, items, text, timestamp};
use crate::response::Reply;
use crate::state::State;
use crate::status::{ApiError, deleted};
use crate::store::{Key, Write};

/// How the objects that an object owns are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dependents {
    Delete,
    Orphan,
}

/// The options of a deletion.
#[derive(Debug)]
struct Options {
    grace: Option<i64>,
    dependents: Dependents,
    uid: String,
    revision: String,
    dry_run: bool,
}

impl Options {
    /// From the body, or from the query where there is none.
    fn parse(call: &Call) -> Result<Self, ApiError> {
        let body = if call.body.is_empty() {
            Value::Null
        } else {
            call.decode()?
        };
        if !body.is_null() {
            let kind = text(&body, "/kind");
            if !matches!(kind, "" | "DeleteOptions") {
                return Err(ApiError::bad_request(format!(
                    "decoded object cannot be converted to DeleteOptions: {kind}"
                )));
            }
            call.recorder.request_object(&as_recorded(&body));
        }
        let number = body.get("gracePeriodSeconds").and_then(Value::as_i64);
        let policy = match text(&body, "/propagationPolicy") {
            "" => call.query.text("propagationPolicy"),
            policy => policy,
        };
        let dry_run = items(&body, "/dryRun").next().is_some() || call.dry_run()?;
        Ok(Self {
            grace: if number.is_some() {
                number
            } else {
                call.query.number("gracePeriodSeconds")?
            },
            dependents: if policy == "Orphan" {
                Dependents::Orphan
            } else {
                Dependents::Delete
            },
            uid: text(&body, "/preconditions/uid").to_owned(),
            revision: text(&body, "/preconditions/resourceVersion").to_owned(),
            dry_run,
        })
    }
}

/// Upstream records the options in its internal version.
fn as_recorded(body: &Value) -> Value {
    let mut out = Map::new();
    out.insert("kind".to_owned(), json!("DeleteOptions"));
    out.insert("apiVersion".to_owned(), json!("meta.k8s.io/__internal"));
    for key in [
        "gracePeriodSeconds",
        "preconditions",
        "orphanDependents",
        "propagationPolicy",
        "dryRun",
    ] {
        if let Some(value) = body.get(key).filter(|value| !value.is_null()) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    Value::Object(out)
}

pub(super) fn delete(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let options = Options::parse(call)?;
    let key = call.key();
    let object = mark(state, call, &key, &options)?;
    let uid = text(&object, "/metadata/uid").to_owned();
    let shown = match &*call.kind.key {
        // These end gracefully: the answer is the object on its way out.
        "pods" | "namespaces" => present(&call.kind, &object),
        _ if items(&object, "/metadata/finalizers").next().is_some() => present(&call.kind, &object),
        _ => deleted(&call.kind.group, &call.kind.plural, &call.name, &uid),
    };
    if !options.dry_run {
        remove(state, &key, options.dependents == Dependents::Delete);
    }
    if text(&shown, "/kind") == "Status" {
        return Ok(Reply::document(shown));
    }
    Ok(Reply::object(200, shown, &call.kind))
}

pub(super) fn collection(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    if call.kind.namespaced && call.namespace.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let options = Options::parse(call)?;
    let selector = selector(call)?;
    let page = state
        .store
        .list(&call.kind.key, &call.namespace, None, None, 0, |object| {
            selector.matches(object)
        })?;
    let mut removed = Vec::new();
    for object in &page.items {
        let key = Key::new(
            &call.kind.key,
            text(object, "/metadata/namespace"),
            text(object, "/metadata/name"),
        );
        // Somebody else may have deleted it since the list.
        if mark(state, call, &key, &options).is_ok() {
            removed.push(list_item(&call.kind, object));
            if !options.dry_run {
                remove(state, &key, options.dependents == Dependents::Delete);
            }
        }
    }
    let metadata = json!({"resourceVersion": state.store.revision().to_string()});
    Ok(Reply::object(
        200,
        list_of(&call.kind, metadata, removed),
        &call.kind,
    ))
}

/// Marks an object as being deleted, and returns it so marked.
fn mark(state: &State, call: &Call, key: &Key, options: &Options) -> Result<Value, ApiError> {
    let kind = &call.kind;
    let mut unstored = None;
    let written = state.store.write(key, |before| {
        let before = before.ok_or_else(|| {
            if call.name.is_empty() {
                ApiError::not_found(&kind.group, &kind.plural, &key.name)
            } else {
                not_found(call)
            }
        })?;
        for (what, wanted, pointer) in [
            ("UID", &options.uid, "/metadata/uid"),
            ("ResourceVersion", &options.revision, "/metadata/resourceVersion"),
        ] {
            let found = text(before, pointer);
            if !wanted.is_empty() && wanted != found {
                let why = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                );
                return Err(ApiError::conflict(&kind.group, &kind.plural, &key.name, &why));
            }
        }
        if &*kind.key == "namespaces"
            && matches!(key.name.as_str(), "default" | "kube-system" | "kube-public")
        {
            return Err(ApiError::forbidden(
                "",
                "namespaces",
                &key.name,
                "this namespace may not be deleted",
            ));
        }
        let mut object = Value::clone(before);
        let default_grace = before
            .pointer("/spec/terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        let top = fields(&mut object);
        if &*kind.key == "namespaces" {
            child(top, "status").insert("phase".to_owned(), json!("Terminating"));
        }
        let grace = match &*kind.key {
            "pods" => options.grace.unwrap_or(default_grace),
            _ => 0,
        };
        let metadata = child(top, "metadata");
        if metadata.get("deletionTimestamp").is_none() {
            let at = call
                .now
                .checked_add(jiff::Span::new().seconds(grace.clamp(0, 86_400)))
                .unwrap_or(call.now);
            metadata.insert("deletionTimestamp".to_owned(), json!(timestamp(at)));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        }
        if options.dry_run {
            unstored = Some(object);
            return Ok(Write::Keep);
        }
        let lingers = matches!(&*kind.key, "pods" | "namespaces")
            || items(&object, "/metadata/finalizers").next().is_some();
        if lingers {
            return Ok(Write::Put(object));
        }
        unstored = Some(object);
        Ok(Write::Keep)
    })?;
    match (unstored, written) {
        (Some(object), _) => Ok(object),
        (None, Some(written)) => Ok(Value::clone(&written.object)),
        (None, None) => Err(not_found(call)),
    }
}

/// How deep ownership is followed; a longer chain is cut and said so.
const OWNERSHIP_DEPTH: u32 = 16;

/// Removes an object unless finalizers hold it, and what it owns or contains.
pub(crate) fn remove(state: &Arc<State>, key: &Key, with_dependents: bool) {
    remove_below(state, key, with_dependents, OWNERSHIP_DEPTH);
}

fn remove_below(state: &Arc<State>, key: &Key, with_dependents: bool, depth: u32) {
    if depth == 0 {
        tracing::warn!(name = key.name, "ownership is too deep: the rest is left");
        return;
    }
    if &*key.resource == "namespaces" {
        for inner in state.store.keys_in_namespace(&key.name) {
            remove_below(state, &inner, false, depth - 1);
        }
        controllers::finish_namespace(state, &key.name);
        return;
    }
    let removed = state.store.write(key, |before| match before {
        Some(before) if items(before, "/metadata/finalizers").next().is_some() => Ok(Write::Keep),
        Some(_) => Ok(Write::Remove),
        None => Ok(Write::Keep),
    });
    let Ok(Some(written)) = removed else { return };
    if !written.removed {
        return;
    }
    if with_dependents {
        for inner in state.store.dependents(text(&written.object, "/metadata/uid")) {
            remove_below(state, &inner, true, depth - 1);
        }
    }
    controllers::settle(state, key);
}
