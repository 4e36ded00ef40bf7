//! What handlers answer with, and how it becomes bytes.
//!
//! Source: k8s.io/apiserver pkg/endpoints/handlers/responsewriters/writers.go and
//! pkg/endpoints/handlers/negotiation.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use crate::kinds::Kind;
use crate::status::ApiError;

/// The body of a handler's response.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Documents from this size on are compressed for clients that want it.
const COMPRESS_FROM: usize = 128 * 1024;

/// A handler's answer.
pub(crate) enum Reply {
    /// An object, list or Status of the API.
    Object {
        code: u16,
        object: Value,
        /// Set where the client may ask for a Table or for metadata alone.
        kind: Option<Arc<Kind>>,
    },
    /// Discovery in the aggregated form, whose media type is its own.
    Discovery { object: Value, media_type: String },
    /// Text, or a JSON document that is no object of the API.
    Plain {
        code: u16,
        content_type: &'static str,
        body: Bytes,
    },
    /// Events or log lines, one after the other.
    Stream { content_type: String, body: Body },
    /// The connection changes its protocol.
    Switch(Response<Body>),
}

impl Reply {
    pub(crate) fn object(code: u16, object: Value, kind: &Arc<Kind>) -> Self {
        Self::Object {
            code,
            object,
            kind: Some(Arc::clone(kind)),
        }
    }

    pub(crate) fn document(object: Value) -> Self {
        Self::Object {
            code: 200,
            object,
            kind: None,
        }
    }

    pub(crate) fn text(code: u16, body: impl Into<Bytes>) -> Self {
        Self::Plain {
            code,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    pub(crate) fn error(error: &ApiError) -> Self {
        Self::Object {
            code: error.code,
            object: error.to_value(),
            kind: None,
        }
    }
}

/// How bytes spell a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// What is made of an object before it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Full,
    Table(String),
    Partial(String),
    Discovery(String),
}

/// What the client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
    pub(crate) gzip: bool,
}

/// Which transformed shapes a route can produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Resource,
    Discovery,
    Plain,
}

impl Accepted {
    /// The first media range of `Accept` that can be served.
    ///
    /// # Errors
    ///
    /// 406 when there is none.
    pub(crate) fn negotiate(headers: &HeaderMap, offer: Offer) -> Result<Self, ApiError> {
        let gzip = headers
            .get_all(ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|coding| coding.trim().split(';').next() == Some("gzip"));
        let default = Self {
            encoding: Encoding::Json,
            shape: Shape::Full,
            gzip,
        };
        let ranges: Vec<&str> = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|range| !range.is_empty())
            .collect();
        if ranges.is_empty() {
            return Ok(default);
        }
        let found = ranges.into_iter().find_map(|range| accept_range(range, offer));
        found
            .map(|(encoding, shape)| Self {
                encoding,
                shape,
                gzip,
            })
            .ok_or_else(ApiError::not_acceptable)
    }
}

fn accept_range(range: &str, offer: Offer) -> Option<(Encoding, Shape)> {
    let mut parts = range.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut shape, mut group, mut version) = ("", "", "");
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => shape = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            // Upstream refuses streaming collections and profiles it does not know by ignoring them.
            _ => {}
        }
    }
    let shape = match (offer, shape, group) {
        (_, "", _) => Shape::Full,
        (Offer::Resource, "Table", "meta.k8s.io") if matches!(version, "v1" | "v1beta1") => {
            Shape::Table(version.to_owned())
        }
        (Offer::Resource, "PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io")
            if matches!(version, "v1" | "v1beta1") =>
        {
            Shape::Partial(version.to_owned())
        }
        (Offer::Discovery, "APIGroupDiscoveryList", "apidiscovery.k8s.io")
            if matches!(version, "v2" | "v2beta1") =>
        {
            Shape::Discovery(version.to_owned())
        }
        _ => return None,
    };
    Some((encoding, shape))
}

/// Writes a value, compressed if it is large and the client wants that.
pub(crate) fn write_value(
    code: u16,
    value: &Value,
    accepted: &Accepted,
    media_type: Option<&str>,
) -> Response<Body> {
    let (content_type, bytes) = match accepted.encoding {
        Encoding::Json => {
            let mut bytes = serde_json::to_vec(value).unwrap_or_default();
            bytes.push(b'\n');
            (media_type.unwrap_or("application/json"), bytes)
        }
        Encoding::Yaml => (
            "application/yaml",
            serde_saphyr::to_string(value)
                .map(String::into_bytes)
                .unwrap_or_default(),
        ),
    };
    if accepted.gzip && bytes.len() > COMPRESS_FROM {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        if encoder.write_all(&bytes).is_ok()
            && let Ok(compressed) = encoder.finish()
        {
            let mut response = plain(code, content_type, compressed.into());
            let headers = response.headers_mut();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            return response;
        }
    }
    plain(code, content_type, bytes.into())
}

/// A response whose body is known.
pub(crate) fn plain(code: u16, content_type: &str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    headers.insert("cache-control", HeaderValue::from_static("no-cache, private"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, offer: Offer, expected: Option<(Encoding, Shape)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        let found = Accepted::negotiate(&headers, offer)
            .ok()
            .map(|accepted| (accepted.encoding, accepted.shape));
        assert_eq!(found, expected, "{accept}");
    }

    #[test]
    fn the_first_range_that_can_be_served_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        check(
            table,
            Offer::Resource,
            Some((Encoding::Json, Shape::Table("v1".into()))),
        );
        check(table, Offer::Plain, Some((Encoding::Json, Shape::Full)));
        check(
            "application/vnd.kubernetes.protobuf,application/yaml",
            Offer::Plain,
            Some((Encoding::Yaml, Shape::Full)),
        );
        check("application/vnd.kubernetes.protobuf", Offer::Resource, None);
        check(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
            Offer::Discovery,
            Some((Encoding::Json, Shape::Discovery("v2".into()))),
        );
        check("*/*", Offer::Resource, Some((Encoding::Json, Shape::Full)));
    }

    #[test]
    fn large_documents_are_compressed_on_request() {
        let value = Value::String("x".repeat(COMPRESS_FROM));
        let accepted = Accepted {
            encoding: Encoding::Json,
            shape: Shape::Full,
            gzip: true,
        };
        assert!(
            write_value(200, &value, &accepted, None)
                .headers()
                .contains_key(CONTENT_ENCODING)
        );
        let accepted = Accepted {
            gzip: false,
            ..accepted
        };
        assert!(
            !write_value(200, &value, &accepted, None)
                .headers()
                .contains_key(CONTENT_ENCODING)
        );
    }
}
