//! What the bytes of a request and of its response add to the event.
//!
//! Source: k8s.io/apiserver pkg/audit/request.go.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kaudit_event::{Level, Status, Text, Unknown};
use kaudit_policy::RequestInfo;

use super::Record;
use crate::authz::refuses_impersonation;
use crate::bodies::{Envelope, ObjectMeta, delete_options, parse_status};

const ABORTED: &str = "kaudit.dev/aborted";

impl Record {
    pub(super) fn add(&mut self, key: &'static str, value: impl Into<Text>) {
        self.event
            .annotations
            .push((Text::from_static(key), value.into()));
    }

    /// Says why the request did not come to its end, unless the service knew it better and has said so.
    pub(super) fn aborted(&mut self, why: impl Into<Text>) {
        let is_told = self.event.annotations.iter().any(|(key, _)| *key == ABORTED);
        if !is_told {
            self.add(ABORTED, why);
        }
    }

    pub(super) fn without_managed_fields(&self, json: Bytes) -> Bytes {
        if self.config.omit_managed_fields {
            kaudit_event::without_managed_fields(&json).map_or(json, Bytes::from)
        } else {
            json
        }
    }

    /// Source: k8s.io/apiserver pkg/audit/request.go, LogRequestObject.
    pub(super) fn complete_object_ref(&mut self, meta: &ObjectMeta, info: &RequestInfo) {
        let reference = self.event.object_ref.get_or_insert_default();
        let fill = |field: &mut Text, value: &[u8]| {
            if field.is_empty() {
                *field = Text::copy_from_slice(value);
            }
        };
        fill(&mut reference.namespace, meta.namespace.as_bytes());
        fill(&mut reference.name, meta.name.as_bytes());
        fill(&mut reference.uid, meta.uid.as_bytes());
        fill(&mut reference.resource_version, meta.resource_version.as_bytes());
        if reference.api_version.is_empty() {
            reference.api_group = Text::copy_from_slice(info.api_group());
            reference.api_version = Text::copy_from_slice(info.api_version());
        }
        fill(&mut reference.resource, info.resource());
        fill(&mut reference.subresource, info.subresource());
    }

    /// What the bytes of the request tell: the object's address, and from level Request on its text.
    ///
    /// Only where the handler can have seen them: upstream records a body after it was decoded.
    pub(super) fn apply_request_copy(&mut self, info: &RequestInfo) {
        let Some((copy, shape)) = self.request_copy.take() else {
            return;
        };
        let code = self
            .event
            .response_status
            .as_ref()
            .map_or(0, |status| status.code);
        let is_forbidden = self
            .event
            .annotations
            .iter()
            .any(|(key, value)| *key == "authorization.k8s.io/decision" && *value == "forbid");
        if matches!(code, 401 | 405 | 413 | 415 | 429) || is_forbidden || !self.was_decoded() {
            return;
        }
        let content_type = shape.content_type.to_string_lossy();
        let left_out = match copy.bytes() {
            Ok([]) => return,
            Ok(bytes) if shape.is_patch => {
                if self.config.level >= Level::Request {
                    self.event.request_object = Some(Unknown::json(Bytes::copy_from_slice(bytes)));
                }
                return;
            }
            Ok(bytes) if matches!(info.verb(), b"delete" | b"deletecollection") => {
                match delete_options(bytes) {
                    Some(options) => {
                        if self.config.level >= Level::Request {
                            self.event.request_object = Some(Unknown::json(options));
                        }
                        return;
                    }
                    None => format!("content type {content_type}"),
                }
            }
            Ok(bytes) if content_type.is_empty() || content_type.contains("json") => {
                if let Some(meta) = ObjectMeta::from_json(bytes) {
                    self.complete_object_ref(&meta, info);
                    if self.config.level >= Level::Request {
                        let object = self.without_managed_fields(Bytes::copy_from_slice(bytes));
                        self.event.request_object = Some(Unknown::json(object));
                    }
                }
                return;
            }
            Ok(bytes) => match Envelope::parse(bytes) {
                Some(envelope) => {
                    if matches!(info.verb(), b"create" | b"update")
                        && let Some(meta) = envelope.meta()
                    {
                        self.complete_object_ref(&meta, info);
                    }
                    if self.config.level >= Level::Request {
                        self.event.request_object = Some(Unknown::json(encoded(&envelope)));
                        self.event.annotations.push((
                            Text::from_static("kaudit.dev/request-object-encoding"),
                            Text::from_static("protobuf"),
                        ));
                    }
                    return;
                }
                None => format!("content type {content_type}"),
            },
            Err(missing) => missing.as_str().to_owned(),
        };
        if self.config.level >= Level::Request {
            let key = Text::from_static(kaudit_event::Body::Request.annotation());
            self.event.annotations.push((key, left_out.into()));
        }
    }

    /// Whether the handler understood the body, as far as its answer tells; what it could not decode,
    /// upstream does not record.
    ///
    /// Source: k8s.io/apiserver pkg/endpoints/handlers/create.go and rest.go, transformDecodeError.
    fn was_decoded(&self) -> bool {
        const BEGINNINGS: [&str; 3] = [
            "strict decoding error: ",
            "the object provided is unrecognized",
            "the API version in the data (",
        ];
        let status = self.event.response_status.as_ref();
        status.filter(|status| status.code == 400).is_none_or(|status| {
            let message = status.message.to_string_lossy();
            // Behind its beginning a webhook's message is anybody's.
            let is_of_codec = BEGINNINGS.iter().any(|words| message.starts_with(words))
                || message.contains(" cannot be handled as a ") && !message.starts_with("admission webhook ");
            !is_of_codec
        })
    }

    /// The request was carried out as who it asked to be, unless just that was refused.
    pub(super) fn settle_claims(&mut self, status: &Status, info: &RequestInfo) {
        if let Some(user) = self.claims.take() {
            let message = status.message.to_string_lossy();
            if status.code != 403 || !refuses_impersonation(&message, &user, info) {
                self.event.impersonated_user = Some(user);
            }
        }
    }

    /// What the bytes of the response tell: the Status they are, and the object at RequestResponse.
    pub(super) fn apply_response_copy(&mut self, info: &RequestInfo) {
        let Some(mut copy) = self.response_copy.take() else {
            return;
        };
        copy.end();
        let wants_object = self.config.level >= Level::RequestResponse;
        match copy.bytes() {
            Ok([]) => {}
            Ok(bytes) => {
                let status = parse_status(bytes);
                if wants_object {
                    self.event.response_object =
                        Some(Unknown::json(match (Envelope::parse(bytes), &status) {
                            (None, _) => self.without_managed_fields(Bytes::copy_from_slice(bytes)),
                            (Some(_), Some(status)) => status_object(status),
                            (Some(envelope), None) => {
                                self.add(
                                    "kaudit.dev/response-object-encoding",
                                    Text::from_static("protobuf"),
                                );
                                encoded(&envelope)
                            }
                        }));
                }
                if let Some(status) = status {
                    let code = self
                        .event
                        .response_status
                        .as_ref()
                        .map_or(status.code, |status| status.code);
                    self.settle_claims(&status, info);
                    self.event.response_status = Some(Status { code, ..status });
                }
            }
            Err(missing) if wants_object => self.event.annotations.push((
                Text::from_static(kaudit_event::Body::Response.annotation()),
                Text::from_static(missing.as_str()),
            )),
            Err(_) => {}
        }
    }
}

/// An object in protobuf as JSON that loses nothing: its kind, and its bytes in base64.
fn encoded(envelope: &Envelope<'_>) -> Bytes {
    let mut json = b"{\"apiVersion\":".to_vec();
    kaudit_event::push_json_string(&mut json, envelope.api_version);
    json.extend_from_slice(b",\"kind\":");
    kaudit_event::push_json_string(&mut json, envelope.kind);
    json.extend_from_slice(b",\"raw\":\"");
    json.extend_from_slice(STANDARD.encode(envelope.raw).as_bytes());
    json.extend_from_slice(b"\"}");
    json.into()
}

/// A Status as the object that it is in JSON.
fn status_object(status: &Status) -> Bytes {
    let object = Status {
        kind: Text::from_static("Status"),
        api_version: Text::from_static("v1"),
        ..status.clone()
    };
    let mut json = Vec::new();
    object.write_json(&mut json);
    json.into()
}
