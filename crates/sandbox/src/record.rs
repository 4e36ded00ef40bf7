//! What the handlers tell the audit event of their request.

use bytes::Bytes;
use serde_json::Value;

/// The audit event of a request; says nothing where no chain stands around the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder;

impl Recorder {
    /// The recorder that the chain put beside a request.
    pub(crate) fn of(_extensions: &http::Extensions) -> Self {
        Self
    }

    /// Keeps the event open until the value is dropped.
    pub(crate) fn hold_open(&self) -> Self {
        self.clone()
    }

    /// The decoded and defaulted body of a create or update, or the options of a deletion.
    pub(crate) fn request_object(&self, _object: &Value) {}

    /// The body of a patch as it was sent.
    pub(crate) fn request_patch(&self, _patch: &Bytes) {}

    /// An object or Status that is answered.
    pub(crate) fn response_object(&self, _code: u16, _object: &Value) {}

    /// An annotation of the event.
    pub(crate) fn annotate(&self, _key: &str, _value: &str) {}
}
