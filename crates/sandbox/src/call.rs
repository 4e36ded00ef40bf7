//! A request as the handlers see it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use kaudit_event::UserInfo;
use kaudit_policy::RequestInfo;
use serde_json::Value;

use crate::kinds::{Kind, Kinds};
use crate::object::text;
use crate::protobuf;
use crate::query::Query;
use crate::record::Recorder;
use crate::response::Accepted;
use crate::status::ApiError;
use crate::store::Key;

/// Media types that a body may have.
pub(crate) const BODY_MEDIA_TYPES: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// One request to a resource.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) kind: Arc<Kind>,
    /// Empty for cluster-scoped resources and requests across namespaces.
    pub(crate) namespace: String,
    /// Empty for requests to a collection.
    pub(crate) name: String,
    pub(crate) subresource: String,
    pub(crate) verb: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) accepted: Accepted,
    pub(crate) user: Arc<UserInfo>,
    pub(crate) body: Bytes,
    pub(crate) now: Timestamp,
    pub(crate) recorder: Recorder,
    /// Texts of `Warning` headers.
    pub(crate) warnings: Vec<String>,
    /// The connection itself, where the client asks for another protocol.
    pub(crate) upgrade: Option<OnUpgrade>,
}

/// A part of [`RequestInfo`] as text; what is not UTF-8 names nothing that exists.
pub(crate) fn lossy(part: &[u8]) -> String {
    String::from_utf8_lossy(part).into_owned()
}

/// The resource a request names.
///
/// # Errors
///
/// 404 as the router answers it.
pub(crate) fn find_kind(kinds: &Kinds, info: &RequestInfo) -> Result<Arc<Kind>, ApiError> {
    let text = |part: &[u8]| lossy(part);
    let kind = kinds
        .find(
            &text(info.api_group()),
            &text(info.api_version()),
            &text(info.resource()),
        )
        .ok_or_else(ApiError::no_such_resource)?;
    let subresource = text(info.subresource());
    let scoped = kind.namespaced || info.namespace().is_empty() || &*kind.key == "namespaces";
    if !scoped || !(subresource.is_empty() || kind.subresource(&subresource).is_some()) {
        return Err(ApiError::no_such_resource());
    }
    if kind.namespaced
        && info.namespace().is_empty()
        && !info.name().is_empty()
        && info.verb() != b"list"
        && info.verb() != b"watch"
    {
        return Err(ApiError::no_such_resource());
    }
    Ok(Arc::clone(kind))
}

impl Call {
    /// Where the named object is kept.
    pub(crate) fn key(&self) -> Key {
        Key::new(&self.kind.key, &self.namespace, &self.name)
    }

    /// Whether nothing is to be stored.
    ///
    /// # Errors
    ///
    /// 422 for a value other than `All`.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        match self.query.all("dryRun").find(|value| !value.is_empty()) {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(ApiError::unprocessable(format!(
                " \"\" is invalid: dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ))),
        }
    }

    /// Who is entered in `managedFields`.
    pub(crate) fn field_manager(&self) -> String {
        match self.query.text("fieldManager") {
            "" => {
                let agent = self
                    .headers
                    .get(http::header::USER_AGENT)
                    .and_then(|value| value.to_str().ok());
                let name = agent.unwrap_or("unknown").split('/').next().unwrap_or("unknown");
                name.chars().take(128).collect()
            }
            manager => manager.to_owned(),
        }
    }

    /// The media type of the body, without parameters.
    pub(crate) fn content_type(&self) -> &str {
        let header = self
            .headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        header
            .unwrap_or("application/json")
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
    }

    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// 400 for what is no object, 415 for a media type that is not read.
    pub(crate) fn decode(&self) -> Result<Value, ApiError> {
        let value = match self.content_type() {
            "application/json" => serde_json::from_slice::<Value>(&self.body).map_err(|error| {
                ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
            })?,
            "application/yaml" => yaml(&self.body)?,
            protobuf::MEDIA_TYPE => {
                protobuf::decode(&self.body).map_err(|error| ApiError::bad_request(error.to_string()))?
            }
            _ => return Err(ApiError::unsupported_media_type(BODY_MEDIA_TYPES)),
        };
        if !value.is_object() {
            return Err(ApiError::bad_request(
                "couldn't get version/kind; json parse error: the body is not an object",
            ));
        }
        Ok(value)
    }

    /// Decodes the body as an object of this request's kind.
    ///
    /// # Errors
    ///
    /// As [`Call::decode`]; 400 for another kind or version.
    pub(crate) fn decode_object(&self) -> Result<Value, ApiError> {
        let value = self.decode()?;
        let (group_version, kind) = match self.kind.subresource(&self.subresource) {
            Some(sub) if !sub.kind.is_empty() => {
                let own = (&*self.kind.group, &*self.kind.version);
                let (group, version) = sub.group_version.unwrap_or(own);
                (crate::kinds::group_version(group, version), sub.kind)
            }
            _ => (self.kind.api_version(), &*self.kind.kind),
        };
        check_type(&value, &group_version, kind)?;
        Ok(value)
    }
}

/// An absent kind or version is the request's own.
fn check_type(value: &Value, group_version: &str, kind: &str) -> Result<(), ApiError> {
    let (found_version, found_kind) = (text(value, "/apiVersion"), text(value, "/kind"));
    if !found_kind.is_empty() && found_kind != kind {
        return Err(ApiError::bad_request(format!(
            "{found_kind} in version {found_version:?} cannot be handled as a {kind}: converting to the kind of the \
             request is not possible"
        )));
    }
    if !found_version.is_empty() && found_version != group_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({group_version})"
        )));
    }
    Ok(())
}

/// Decodes YAML.
///
/// # Errors
///
/// 400 for what is none.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    serde_saphyr::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))
}
