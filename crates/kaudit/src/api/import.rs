//! Files that a client reads and this process keeps: `/api/v1/import?cluster=..&instance=..`.
//!
//! GET with `identity=` tells whether a text was imported whole before. POST takes a part of a file, as
//! [`ImportPart`] frames it, and answers when all of it is durable. 429 means: the same part again, a little
//! later; what was kept of it already is recognised.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kaudit_collect::{
    ImportIdentity, ImportPart, Importer, Keeping, Kept, MAX_IMPORT_BODY_BYTES, Name, NotKept, Source,
};
use kaudit_tower::StatusError;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// Parts that are in memory at once, each of at most [`MAX_IMPORT_BODY_BYTES`] and its records.
const AT_ONCE: usize = 2;

/// A body that takes longer is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The answer to a GET.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Known {
    /// Whether a file with this text was imported whole.
    pub(crate) is_known: bool,
}

/// The answer to a POST: what became of the part.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeptPart {
    pub(crate) events: u64,
    pub(crate) duplicates: u64,
    pub(crate) quarantined: u64,
}

#[derive(Clone, Debug)]
struct Import {
    importer: Importer,
    room: Arc<Semaphore>,
}

/// Why a part is not kept.
enum Refused {
    /// The same request does not do better.
    Never(StatusError),
    /// Not now.
    Later(String),
}

impl From<StatusError> for Refused {
    fn from(error: StatusError) -> Self {
        Self::Never(error)
    }
}

impl From<NotKept> for Refused {
    fn from(error: NotKept) -> Self {
        match error.reason() {
            "too_large" | "too_many_sources" => Self::Never(StatusError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Invalid",
                error.to_string(),
            )),
            _ => Self::Later(error.to_string()),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Never(error) => error.into_response(),
            Self::Later(why) => {
                let status = StatusError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", why);
                let mut response = status.into_response();
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
        }
    }
}

pub(super) fn router(importer: Importer) -> Router {
    Import::new(importer).routes()
}

impl Import {
    fn new(importer: Importer) -> Self {
        Self {
            importer,
            room: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    fn routes(self) -> Router {
        Router::new()
            .route("/api/v1/import", get(known).post(keep))
            .with_state(self)
    }
}

async fn known(State(import): State<Import>, request: Request) -> Result<Json<Known>, Refused> {
    let source = source(&import.importer, &request)?;
    let identity = parameter(&request, "identity")
        .and_then(identity_of)
        .ok_or_else(|| StatusError::bad_request("identity is 64 hexadecimal digits, `-` and a length"))?;
    Ok(Json(Known {
        is_known: import.importer.knows(&source, &identity),
    }))
}

async fn keep(State(import): State<Import>, request: Request) -> Result<Json<KeptPart>, Refused> {
    let source = source(&import.importer, &request)?;
    // Before the body is read: whoever waits outside holds no memory here.
    let _room = import
        .room
        .try_acquire()
        .map_err(|_| Refused::Later("other files are being imported".to_owned()))?;
    let body = Limited::new(request.into_body(), MAX_IMPORT_BODY_BYTES).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body)
        .await
        .map_err(|_| Refused::Later("the body did not come in time".to_owned()))?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                StatusError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "RequestEntityTooLarge",
                    format!("a part of a file has at most {MAX_IMPORT_BODY_BYTES} bytes"),
                )
            } else {
                StatusError::bad_request(format!("the body broke off: {error}"))
            }
        })?
        .to_bytes();
    let part = ImportPart::from_body(&body).map_err(|error| StatusError::bad_request(error.to_string()))?;
    let importer = import.importer.clone();
    let taken = tokio::task::spawn_blocking(move || take(&importer, &source, &part));
    let taken = taken
        .await
        .map_err(|panic| super::internal(panic.to_string()))??;
    let Kept {
        events,
        duplicates,
        quarantined,
    } = taken.durable().await?;
    Ok(Json(KeptPart {
        events,
        duplicates,
        quarantined,
    }))
}

/// What a part says is taken in; a part that ends a file says nothing else.
fn take(importer: &Importer, source: &Source, part: &ImportPart) -> Result<Keeping, NotKept> {
    let now_micros = kaudit_collect::now_micros();
    match &part.end {
        Some(identity) if part.chunk.is_empty() => importer.finish(source, identity, now_micros),
        // Not durable yet, so the file is not whole yet: its end comes by itself.
        _ => importer.keep(source, &part.chunk, now_micros),
    }
}

fn source(importer: &Importer, request: &Request) -> Result<Source, Refused> {
    let name = |key: &str| -> Result<Name, Refused> {
        let value = parameter(request, key)
            .ok_or_else(|| StatusError::bad_request(format!("the parameter `{key}` is missing")))?;
        let name = value.parse();
        Ok(name.map_err(|error| StatusError::bad_request(format!("{key}: {error}")))?)
    };
    Ok(importer.source(name("cluster")?, name("instance")?)?)
}

/// A parameter of the query. Names and identities have no letter that would be escaped.
fn parameter<'r>(request: &'r Request, key: &str) -> Option<&'r str> {
    let pairs = request.uri().query()?.split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| (name == key).then_some(value))
}

/// An identity as a parameter.
pub(crate) fn parameter_of(identity: &ImportIdentity) -> String {
    let hash: String = identity.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hash}-{}", identity.length)
}

fn identity_of(text: &str) -> Option<ImportIdentity> {
    let (hash, length) = text.split_once('-')?;
    ImportIdentity::from_hex(hash, length.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use kaudit_collect::{Chunk, Intake, IntakeOptions, Keys, Quarantine};
    use kaudit_journal::{Journal, Options};
    use serde_json::{Value, json};
    use tower_service::Service as _;

    use super::*;

    fn import(folder: &std::path::Path) -> Import {
        let (journal, _) = Journal::open(&folder.join("journal"), Options::default()).unwrap();
        let quarantine = Quarantine::open(&folder.join("quarantine"), 1 << 20).unwrap();
        let options = IntakeOptions::default();
        let intake = Intake::new(journal, Keys::new([1; 32]), quarantine, options).unwrap();
        Import::new(Importer::new(intake))
    }

    async fn ask(import: &Import, method: &str, query: &str, body: Vec<u8>) -> (u16, Value, bool) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/import?{query}"))
            .body(axum::body::Body::new(Full::from(body)))
            .unwrap();
        let response = import.clone().routes().call(request).await.unwrap();
        let (code, has_retry_after) = (
            response.status().as_u16(),
            response.headers().contains_key(header::RETRY_AFTER),
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap(), has_retry_after)
    }

    #[test]
    fn an_identity_is_a_parameter() {
        let text = format!("{}-12", "0f".repeat(32));
        let identity = identity_of(&text).unwrap();
        assert_eq!((identity.hash, identity.length), ([15; 32], 12));
        assert_eq!(parameter_of(&identity), text);
        for bad in ["", "0f-1", &format!("{}-", "0f".repeat(32)), &"0g".repeat(32)] {
            assert!(identity_of(bad).is_none(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_part_is_kept_and_a_whole_file_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let import = import(folder.path());
        let log = folder.path().join("log");
        std::fs::write(
            &log,
            "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"a\",\"stage\":\"Panic\"}\nx\n",
        )
        .unwrap();
        let mut file =
            kaudit_collect::ImportFile::open(&log, kaudit_collect::ImportConfig::default()).unwrap();
        let names = "cluster=c&instance=i";
        let mut kept = Vec::new();
        while let Some(chunk) = file.next_chunk().unwrap() {
            let part = ImportPart { chunk, end: None };
            let (code, answer, _) = ask(&import, "POST", names, part.to_body()).await;
            assert_eq!(code, 200);
            kept.push(answer);
        }
        assert_eq!(kept, [json!({"events": 1, "duplicates": 0, "quarantined": 1})]);
        let identity = file.identity().unwrap();
        let query = format!("{names}&identity={}", parameter_of(&identity));
        let (_, known, _) = ask(&import, "GET", &query, Vec::new()).await;
        assert_eq!(known, json!({"isKnown": false}));
        let end = ImportPart {
            chunk: Chunk::default(),
            end: Some(identity),
        };
        assert_eq!(ask(&import, "POST", names, end.to_body()).await.0, 200);
        let (_, known, _) = ask(&import, "GET", &query, Vec::new()).await;
        assert_eq!(known, json!({"isKnown": true}));
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_refused_for_good_or_for_now() {
        let folder = tempfile::tempdir().unwrap();
        let import = import(folder.path());
        let body = || ImportPart::default().to_body();
        for (query, body, expected) in [
            ("cluster=c", body(), "`instance` is missing"),
            ("cluster=c&instance=a%2Fb", body(), "instance: "),
            ("cluster=c&instance=i", b"[]".to_vec(), "no part of a file"),
            ("cluster=c&instance=i", body()[..9].to_vec(), "in the middle"),
        ] {
            let (code, status, has_retry_after) = ask(&import, "POST", query, body).await;
            assert_eq!((code, has_retry_after), (400, false), "{status}");
            assert!(status["message"].as_str().unwrap().contains(expected), "{status}");
        }
        let query = "cluster=c&instance=i";
        let full = import
            .room
            .try_acquire_many(u32::try_from(AT_ONCE).unwrap())
            .unwrap();
        let (code, _, has_retry_after) = ask(&import, "POST", query, body()).await;
        assert_eq!((code, has_retry_after), (429, true));
        drop(full);
        assert_eq!(ask(&import, "POST", query, body()).await.0, 200);
    }
}
