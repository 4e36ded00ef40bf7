//! create, update and patch.

use std::sync::Arc;

use serde_json::Value;

use super::{not_found, present};
use crate::admission::Admission;
use crate::call::Call;
use crate::kinds::Kind;
use crate::managed;
use crate::object::{fields, items, prepare_create, prepare_update, text};
use crate::patching::{self, Patch};
use crate::response::Reply;
use crate::state::State;
use crate::status::ApiError;
use crate::store::{Key, Write};
use crate::{controllers, defaults, validation};

/// Bytes of one object that are stored.
const OBJECT_LIMIT: usize = 1_572_864;

pub(super) fn create(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let mut object = call.decode_object()?;
    defaults::apply(&call.kind, &mut object);
    call.recorder.request_object(&object);
    let dry_run = call.dry_run()?;
    if call.kind.namespaced && call.namespace.is_empty() {
        return Err(ApiError::bad_request(
            "an empty namespace may not be set during creation",
        ));
    }
    let name = call.name.clone();
    let object = insert(state, call, object, &name, dry_run, managed::Operation::Update)?;
    Ok(Reply::object(201, present(&call.kind, &object), &call.kind))
}

/// Checks and stores a new object.
fn insert(
    state: &Arc<State>,
    call: &mut Call,
    mut object: Value,
    name: &str,
    dry_run: bool,
    operation: managed::Operation,
) -> Result<Value, ApiError> {
    let kind = Arc::clone(&call.kind);
    prepare_create(&mut object, &kind, &call.namespace, name, call.now)?;
    let name = text(&object, "/metadata/name").to_owned();
    defaults::initial_state(&kind, &mut object, &name);
    let mut admission = Admission::gather(state, call)?;
    admission.create(state, call, &mut object)?;
    call.warnings.extend(admission.into_warnings());
    validation::check(&kind, &object, None)?;
    if operation == managed::Operation::Update {
        managed::record_update(
            &mut object,
            None,
            &call.field_manager(),
            &kind.api_version(),
            &call.subresource,
            call.now,
        );
    }
    check_size(&kind, &name, &object)?;
    let key = Key::new(&kind.key, &call.namespace, &name);
    let written = state.store.write(&key, |before| match before {
        Some(_) => Err(ApiError::already_exists(&kind.group, &kind.plural, &name)),
        None if dry_run => Ok(Write::Keep),
        None => Ok(Write::Put(object.clone())),
    })?;
    Ok(match written {
        Some(written) => {
            controllers::settle(state, &key);
            Value::clone(&written.object)
        }
        None => object,
    })
}

pub(super) fn update(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let mut object = call.decode_object()?;
    if call.subresource.is_empty() {
        defaults::apply(&call.kind, &mut object);
    }
    call.recorder.request_object(&object);
    let dry_run = call.dry_run()?;
    let name = text(&object, "/metadata/name");
    if name.is_empty() {
        return Err(ApiError::bad_request("name must be provided"));
    }
    if name != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let namespace = text(&object, "/metadata/namespace");
    if !namespace.is_empty() && namespace != call.namespace && call.kind.namespaced {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the URL ({})",
            call.namespace
        )));
    }
    let object = modify(state, call, dry_run, managed::Operation::Update, |_| {
        Ok(object.clone())
    })?;
    Ok(Reply::object(200, present(&call.kind, &object), &call.kind))
}

pub(super) fn patch(state: &Arc<State>, call: &mut Call) -> Result<Reply, ApiError> {
    let patch = Patch::parse(call)?;
    call.recorder.request_patch(&call.body);
    let dry_run = call.dry_run()?;
    let missing = state.store.read(&call.key()).is_none();
    if missing && patch.is_apply() && call.subresource.is_empty() {
        let mut object = patch.applied_to_nothing(call)?;
        defaults::apply(&call.kind, &mut object);
        let name = call.name.clone();
        let object = insert(state, call, object, &name, dry_run, managed::Operation::Apply)?;
        return Ok(Reply::object(201, present(&call.kind, &object), &call.kind));
    }
    let operation = if patch.is_apply() {
        managed::Operation::Apply
    } else {
        managed::Operation::Update
    };
    let context = patching::Context::of(call);
    let object = modify(state, call, dry_run, operation, |before| {
        patch.apply(&context, before)
    })?;
    Ok(Reply::object(200, present(&call.kind, &object), &call.kind))
}

/// Replaces an object by what `change` makes of it.
pub(super) fn modify(
    state: &Arc<State>,
    call: &mut Call,
    dry_run: bool,
    operation: managed::Operation,
    change: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Value, ApiError> {
    let kind = Arc::clone(&call.kind);
    let key = call.key();
    let mut admission = Admission::gather(state, call)?;
    // A scale is a write of one field of the whole object.
    let whole = matches!(&*call.subresource, "" | "scale");
    let manager = call.field_manager();
    let mut unstored = None;
    let written = state.store.write(&key, |before| {
        let before = before.ok_or_else(|| not_found(call))?;
        let mut object = change(before)?;
        prepare_update(&mut object, before, &kind)?;
        keep_other_parts(&kind, &call.subresource, &mut object, before);
        if whole {
            defaults::apply(&kind, &mut object);
        }
        admission.update(call, &object, before)?;
        if whole {
            validation::check(&kind, &object, Some(before))?;
        }
        if operation == managed::Operation::Update {
            let version = kind.api_version();
            managed::record_update(
                &mut object,
                Some(before),
                &manager,
                &version,
                &call.subresource,
                call.now,
            );
        }
        check_size(&kind, &key.name, &object)?;
        if dry_run {
            unstored = Some(object);
            return Ok(Write::Keep);
        }
        let released = object.pointer("/metadata/deletionTimestamp").is_some()
            && items(&object, "/metadata/finalizers").next().is_none()
            && &*kind.key != "namespaces";
        if released {
            unstored = Some(object);
            return Ok(Write::Remove);
        }
        Ok(Write::Put(object))
    })?;
    call.warnings.extend(admission.into_warnings());
    if !dry_run {
        controllers::settle(state, &key);
    }
    match (unstored, written) {
        (Some(object), _) => Ok(object),
        (None, Some(written)) => Ok(Value::clone(&written.object)),
        (None, None) => Err(not_found(call)),
    }
}

/// The status is written through its own subresource and by nothing else, and vice versa.
fn keep_other_parts(kind: &Kind, subresource: &str, object: &mut Value, before: &Value) {
    let has_status = kind.subresource("status").is_some()
        && kind
            .custom
            .as_ref()
            .is_none_or(|custom| custom.status_subresource);
    match subresource {
        "" | "scale" if has_status => {
            let top = fields(object);
            match before.get("status") {
                Some(status) => top.insert("status".to_owned(), status.clone()),
                None => top.shift_remove("status"),
            };
        }
        "status" => {
            let status = object.get("status").cloned();
            let managed = object.pointer("/metadata/managedFields").cloned();
            let mut out = before.clone();
            if let Some(status) = status {
                fields(&mut out).insert("status".to_owned(), status);
            }
            if let (Some(managed), Some(Value::Object(metadata))) = (managed, out.get_mut("metadata")) {
                metadata.insert("managedFields".to_owned(), managed);
            }
            *object = out;
        }
        _ => {}
    }
}

/// Source: kubernetes issue text of etcd's request limit, as the API server passes it on.
fn check_size(kind: &Kind, name: &str, object: &Value) -> Result<(), ApiError> {
    let mut counter = Counter(0);
    let measured = serde_json::to_writer(&mut counter, object);
    if measured.is_ok() && counter.0 <= OBJECT_LIMIT {
        return Ok(());
    }
    let mut error = ApiError::too_large(OBJECT_LIMIT);
    error.message = format!(
        "{} {name:?}: request is too large: limit is {OBJECT_LIMIT}",
        crate::status::qualified(&kind.group, &kind.plural)
    );
    Err(error)
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
