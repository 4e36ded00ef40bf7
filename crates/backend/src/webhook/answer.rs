//! What an answer means: delivered, or why not, in upstream's words.
//!
//! Source: k8s.io/client-go rest/request.go, transformResponse and Result.Error;
//! k8s.io/apimachinery pkg/api/errors/errors.go, NewGenericServerResponse.

use std::io::Read;

use flate2::read::GzDecoder;
use http::{HeaderMap, StatusCode, header};
use kaudit_dial::Answer;
use kaudit_event::go_quoted;
use serde::Deserialize;

use super::{Failure, FailureClass, media_type};

/// How much of an answer's body is read.
pub(super) const MAX_BODY: usize = 64 << 10;

/// How much of it an error may quote. Source: maxUnstructuredResponseTextBytes.
const MAX_TEXT: usize = 2048;

/// How much of it the log quotes.
const MAX_QUOTED: usize = 256;

/// Whether the batch was delivered.
pub(super) fn judge(answer: &Answer) -> Result<(), Failure> {
    let status = answer.status;
    let body = inflated(answer)?;
    let content_type = text_of(&answer.headers, header::CONTENT_TYPE.as_str());
    let failure = |class, message| Failure {
        class,
        message,
        quoted: quoted(status, &body),
    };
    let media_type = match content_type {
        Some(text) if !text.is_empty() => Some(media_type::parse(&text).map_err(|error| {
            let message = format!("Internal error occurred: {error}");
            failure(FailureClass::ContentType, message)
        })?),
        _ => None,
    };
    if status == StatusCode::SWITCHING_PROTOCOLS || (200..=206).contains(&status.as_u16()) {
        return Ok(());
    }
    let is_json = media_type
        .as_deref()
        .is_none_or(|name| name == "application/json");
    let message = is_json
        .then(|| status_message(&body))
        .flatten()
        .unwrap_or_else(|| {
            let is_text = media_type.as_deref().is_none_or(|name| name.starts_with("text/"));
            let said = if is_text {
                text(&body)
            } else {
                "unknown".to_owned()
            };
            generic(status.as_u16(), &said)
        });
    Err(failure(FailureClass::of_status(status), message))
}

/// Seconds to wait before the same is tried again within the attempt.
pub(super) fn retry_after(answer: &Answer) -> Option<u64> {
    if answer.status != StatusCode::TOO_MANY_REQUESTS && answer.status.as_u16() < 500 {
        return None;
    }
    let seconds: i64 = text_of(&answer.headers, header::RETRY_AFTER.as_str())?
        .parse()
        .ok()?;
    Some(u64::try_from(seconds).unwrap_or_default())
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn inflated(answer: &Answer) -> Result<Vec<u8>, Failure> {
    let is_gzip = text_of(&answer.headers, header::CONTENT_ENCODING.as_str())
        .is_some_and(|encoding| encoding.eq_ignore_ascii_case("gzip"));
    if !is_gzip || answer.body.is_empty() {
        return Ok(answer.body.to_vec());
    }
    let mut body = Vec::new();
    let read = GzDecoder::new(answer.body.as_ref())
        .take(MAX_BODY as u64)
        .read_to_end(&mut body);
    match read {
        Err(error) if !answer.is_cut => Err(Failure {
            class: FailureClass::Broken,
            message: format!("the answer's body cannot be decompressed: {error}"),
            quoted: quoted(answer.status, &[]),
        }),
        _ => Ok(body),
    }
}

/// The message of a Status that says Failure.
fn status_message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(default)]
    struct Status {
        kind: String,
        #[serde(rename = "apiVersion")]
        api_version: String,
        status: String,
        message: String,
    }
    impl Default for Status {
        fn default() -> Self {
            Self {
                kind: "Status".to_owned(),
                api_version: "v1".to_owned(),
                status: String::new(),
                message: String::new(),
            }
        }
    }
    let status: Status = serde_json::from_slice(body).ok()?;
    (status.kind == "Status" && status.api_version == "v1" && status.status == "Failure")
        .then_some(status.message)
}

fn text(body: &[u8]) -> String {
    let cut = body.get(..MAX_TEXT).unwrap_or(body);
    String::from_utf8_lossy(cut).trim().to_owned()
}

fn generic(code: u16, said: &str) -> String {
    match code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 | 415 => said.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        406 if said.is_empty() || said == "unknown" => {
            "the server was unable to respond with a content type that the client supports".to_owned()
        }
        406 => said.to_owned(),
        409 => "the server reported a conflict".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => {
            "the server has received too many requests and has asked us to try again later".to_owned()
        }
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request"
            .to_owned(),
        500.. => format!(
            "an error on the server ({}) has prevented the request from succeeding",
            go_quoted(said.as_bytes())
        ),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}

/// Status and beginning of the body, for the log.
fn quoted(status: StatusCode, body: &[u8]) -> String {
    let beginning = body.get(..MAX_QUOTED).unwrap_or(body);
    format!("{} {}", status.as_u16(), go_quoted(beginning))
}
